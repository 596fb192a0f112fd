//! A browser.

use std::process::Command;
use testkit::quic::{NAME, site};
use testkit::tools::Tool;
use testkit::{Backend, Gateway, Listener, seconds};

const PAGE: &str = "<!doctype html><title>page</title><p id=p>nothing</p><script>fetch('/data', {method: 'POST', body: \
    'x'.repeat(100000)}).then(r => r.text()).then(t => document.getElementById('p').textContent = t)</script>";

/// Chromium loads a page over HTTP/3 whose script sends a request of its own.
pub(crate) fn chromium_loads_a_page() {
    let backend = Backend::each(|request, conn| {
        let body = request.body_len();
        match request.target() {
            "/page" => conn.respond(200, &[("content-type", "text/html")], PAGE.as_bytes()),
            "/data" => {
                conn.respond(200, &[("content-type", "text/plain")], format!("{body} bytes came").as_bytes())
            }
            _ => conn.respond(404, &[], b""),
        }
    });
    let gateway = Gateway::start(crate::rig::config().listener(Listener::quic().backend(backend.address)));
    let port = gateway.front().port();
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(Tool::Chromium.path().expect("it is there"));
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ])
        .arg(format!("--user-data-dir={}", directory.path().display()))
        .arg(format!("--origin-to-force-quic-on={NAME}:{port}"))
        .arg(format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"))
        .arg(format!("--ignore-certificate-errors-spki-list={}", site().key_hash()))
        .args(["--virtual-time-budget=8000", "--dump-dom"])
        .arg(format!("https://{NAME}:{port}/page"));
    let said = testkit::process::run_command(command, seconds(90));
    assert!(said.stdout.contains("100000 bytes came"), "{}\n{}", said.stdout, said.stderr);
    gateway.wait_metric("http_requests_total", &[("version", "h3"), ("status_class", "2xx")], |n| n >= 2.0);
}

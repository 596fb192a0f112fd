//! A browser.

use testkit::browser::document_of;
use testkit::quic::{NAME, site};
use testkit::{Backend, Gateway, Listener};

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
    let arguments = [
        format!("--origin-to-force-quic-on={NAME}:{port}"),
        format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"),
        format!("--ignore-certificate-errors-spki-list={}", site().key_hash()),
    ];
    let said = document_of(&format!("https://{NAME}:{port}/page"), &arguments);
    assert!(said.stdout.contains("100000 bytes came"), "{}\n{}", said.stdout, said.stderr);
    gateway.wait_metric("http_requests_total", &[("version", "h3"), ("status_class", "2xx")], |n| n >= 2.0);
}

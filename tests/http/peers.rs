//! Real programs as peers.

use std::fmt::Write;
use testkit::load::Load;
use testkit::tools::{Nginx, curl};
use testkit::{Backend, Config, Gateway, Listener, ms, pattern};

pub(crate) fn nginx_as_backend_curl_as_client() {
    let nginx = Nginx::files();
    let data = pattern::bytes(10 * 1024 * 1024);
    std::fs::write(nginx.root.join("large"), &data).unwrap();
    std::fs::write(nginx.root.join("small"), "small file\n").unwrap();
    let gateway = Gateway::start(Config::new().listener(Listener::h1().backend(nginx.address)));
    let dir = tempfile::tempdir().unwrap();
    let url = |path: &str| format!("http://{}/{path}", gateway.front());

    let out = dir.path().join("large");
    let got = curl(&["-f", "-o", out.to_str().unwrap(), &url("large")]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert!(std::fs::read(&out).unwrap() == data, "the file differs");

    let range = curl(&["-f", "-r", "1000-1999", "-o", out.to_str().unwrap(), &url("large")]);
    assert_eq!(range.code, 0, "{}", range.stderr);
    assert!(std::fs::read(&out).unwrap() == data[1000..2000], "the range differs");

    let head = curl(&["-I", &url("small")]);
    assert!(head.stdout.starts_with("HTTP/1.1 200"), "{}", head.stdout);
    assert!(head.stdout.to_ascii_lowercase().contains("content-length: 11"), "{}", head.stdout);
    let missing = curl(&["-o", "/dev/null", "-w", "%{http_code}", &url("missing")]);
    assert_eq!(missing.stdout, "404");

    // Several on one connection.
    let mut config = String::new();
    for _ in 0..20 {
        writeln!(config, "url = \"{}\"", url("small")).unwrap();
    }
    let file = dir.path().join("curl.conf");
    std::fs::write(&file, config).unwrap();
    let many = curl(&["-f", "-K", file.to_str().unwrap(), "-w", "%{num_connects}\\n"]);
    assert_eq!(many.code, 0, "{}", many.stderr);
    let lines: Vec<_> = many.stdout.lines().filter(|l| *l == "0").collect();
    assert_eq!(lines.len(), 19, "connections were not kept: {}", many.stdout);
}

pub(crate) fn nginx_keep_alive_under_load() {
    // Connections end after 10 requests, so the pool meets closing ones all the time.
    let nginx = Nginx::start("keepalive_requests 10; location / { return 200 'fine'; }");
    let gateway = Gateway::start(Config::new().listener(Listener::h1().backend(nginx.address)));
    let load = Load::start(gateway.front(), 8, "/", ms(0));
    testkit::eventually("3000 requests", testkit::seconds(30), || load.served() >= 3000);
    let tally = load.stop();
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    assert_eq!(tally.refused.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(tally.repeated.load(std::sync::atomic::Ordering::Relaxed), 0);
}

pub(crate) fn curl_uploads() {
    let backend = Backend::standard("one");
    let gateway = Gateway::start(Config::new().listener(Listener::h1().backend(backend.address)));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, pattern::bytes(3_000_000)).unwrap();
    let data = format!("@{}", file.display());
    let url = format!("http://{}/upload", gateway.front());
    // Over 1 MiB curl asks with Expect: 100-continue by itself.
    let sized = curl(&["-f", "--data-binary", &data, &url]);
    assert_eq!((sized.code, sized.stdout.as_str()), (0, "3000000 right"), "{}", sized.stderr);
    let chunked = curl(&["-f", "-H", "Transfer-Encoding: chunked", "--data-binary", &data, &url]);
    assert_eq!((chunked.code, chunked.stdout.as_str()), (0, "3000000 right"), "{}", chunked.stderr);
    backend.assert_clean();
}

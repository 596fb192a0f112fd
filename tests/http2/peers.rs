//! Real programs as clients and as backends.

use crate::rig::{CELLS, config};
use testkit::process::run;
use testkit::tools::{Nghttpd, Nginx, Tool, curl};
use testkit::{Gateway, H2Client, Listener, Origin, Version, pattern, seconds};

const LARGE: usize = 10 * 1024 * 1024;

fn nginx() -> (Nginx, Gateway) {
    let nginx = Nginx::files();
    std::fs::write(nginx.root.join("large"), pattern::bytes(LARGE)).unwrap();
    std::fs::write(nginx.root.join("small"), "small file\n").unwrap();
    let gateway = Gateway::start(config().listener(Listener::h2c().backend(nginx.address)));
    (nginx, gateway)
}

fn nghttpd() -> (Nghttpd, Gateway) {
    let nghttpd = Nghttpd::start(&["--trailer=x-end: 1"]);
    std::fs::write(nghttpd.root.join("large"), pattern::bytes(LARGE)).unwrap();
    std::fs::write(nghttpd.root.join("small"), "small file\n").unwrap();
    let gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(nghttpd.address)));
    (nghttpd, gateway)
}

fn fetch_with_curl(gateway: &Gateway) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let to = out.to_str().unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let url = |path: &str| format!("http://{}/{path}", gateway.front());
        let got = curl(&[version, "-f", "-o", to, &url("large")]);
        assert_eq!(got.code, 0, "{version}: {}", got.stderr);
        assert!(std::fs::read(&out).unwrap() == pattern::bytes(LARGE), "{version}: the file differs");
        let head = curl(&[version, "-I", &url("small")]);
        assert!(
            head.stdout.to_ascii_lowercase().contains("content-length: 11"),
            "{version}: {}",
            head.stdout
        );
        let missing = curl(&[version, "-o", "/dev/null", "-w", "%{http_code}", &url("missing")]);
        assert_eq!(missing.stdout, "404", "{version}");
    }
}

pub(crate) fn nginx_behind_curl() {
    let (_nginx, gateway) = nginx();
    fetch_with_curl(&gateway);
}

pub(crate) fn nghttpd_behind_curl() {
    let (_nghttpd, gateway) = nghttpd();
    fetch_with_curl(&gateway);
}

pub(crate) fn curl_uploads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    std::fs::write(&file, pattern::bytes(LARGE)).unwrap();
    let body = format!("@{}", file.display());
    for cell in CELLS.into_iter().filter(|cell| cell.front != Version::H3) {
        let origin = Origin::standard(cell.back, "one");
        let gateway = Gateway::start(config().listener(crate::rig::listener(&origin)));
        let url = format!("http://{}/upload", gateway.front());
        let version = if cell.front == Version::H1 { "--http1.1" } else { "--http2-prior-knowledge" };
        for extra in [&["--data-binary", &body][..], &["-T", file.to_str().unwrap(), "-X", "POST"]] {
            let said = curl(&[&[version, &url][..], extra].concat());
            assert_eq!(said.stdout, format!("{LARGE} right"), "{cell:?}: {}", said.stderr);
        }
        origin.assert_clean();
    }
}

fn many_with_nghttp(gateway: &Gateway) {
    let url = format!("http://{}/large", gateway.front());
    let said = run(Tool::Nghttp.path().unwrap(), ["-n", "-s", "-m", "20", &url], seconds(60));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stdout.matches(" 200 ").count(), 20, "{}", said.stdout);
    let small = format!("http://{}/small", gateway.front());
    let verbose = run(Tool::Nghttp.path().unwrap(), ["-v", "-w", "10", "-W", "10", &small], seconds(20));
    assert!(
        verbose.stdout.contains("small file") && verbose.stdout.contains(":status: 200"),
        "{}",
        verbose.stdout
    );
}

pub(crate) fn nginx_behind_nghttp() {
    let (_nginx, gateway) = nginx();
    many_with_nghttp(&gateway);
}

pub(crate) fn nghttpd_behind_nghttp() {
    let (_nghttpd, gateway) = nghttpd();
    many_with_nghttp(&gateway);
    let url = format!("http://{}/small", gateway.front());
    let verbose = run(Tool::Nghttp.path().unwrap(), ["-v", "-H", "te: trailers", &url], seconds(20));
    assert!(verbose.stdout.contains("x-end: 1"), "no trailers: {}", verbose.stdout);
}

fn load(gateway: &Gateway, path: &str) {
    let url = format!("http://{}/{path}", gateway.front());
    let said = run(Tool::H2load.path().unwrap(), ["-n", "20000", "-c", "20", "-m", "20", &url], seconds(100));
    assert!(said.stdout.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{}", said.stdout);
    assert!(said.stdout.contains("status codes: 20000 2xx"), "{}", said.stdout);
}

pub(crate) fn nginx_behind_h2load() {
    let (_nginx, gateway) = nginx();
    load(&gateway, "small");
}

pub(crate) fn nghttpd_behind_h2load() {
    let (_nghttpd, gateway) = nghttpd();
    load(&gateway, "small");
}

/// h2load posts a file on many streams at once.
pub(crate) fn h2load_uploads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    std::fs::write(&file, pattern::bytes(100_000)).unwrap();
    for back in [Version::H1, Version::H2] {
        let origin = Origin::standard(back, "one");
        let gateway = Gateway::start(config().listener(crate::rig::listener(&origin)));
        let url = format!("http://{}/upload", gateway.front());
        let data = format!("--data={}", file.display());
        let said =
            run(Tool::H2load.path().unwrap(), ["-n", "500", "-c", "4", "-m", "10", &data, &url], seconds(60));
        assert!(said.stdout.contains("500 succeeded, 0 failed"), "{back:?}: {}", said.stdout);
        for request in origin.requests() {
            request.pattern.assert_complete(100_000);
        }
    }
}

/// h2load sends no more requests on a connection that is to end, and makes no other. A request that it has queued when it learns of the
/// end it never sends, and counts as failed; all that were sent are answered.
pub(crate) fn h2load_up_to_the_cap_on_requests() {
    let origin = Origin::standard(Version::H2, "one");
    let config = config().runtime("max_requests_per_h2_connection", 300);
    let gateway = Gateway::start(config.listener(crate::rig::listener(&origin)));
    let url = format!("http://{}/", gateway.front());
    let said = run(Tool::H2load.path().unwrap(), ["-n", "20000", "-c", "20", "-m", "20", &url], seconds(100));
    let line = said.stdout.lines().find_map(|line| line.strip_prefix("requests: ")).unwrap();
    let counts: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [_, _, _, succeeded, ..] = counts[..] else { panic!("{line}") };
    assert!(succeeded >= 20 * 300, "{line}");
    assert_eq!(succeeded, origin.requests().len(), "{line}");
}

/// nginx with `listen … http2` as the backend.
pub(crate) fn nginx_h2c_as_backend() {
    let nginx = Nginx::h2c("");
    std::fs::write(nginx.root.join("large"), pattern::bytes(LARGE)).unwrap();
    let gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(nginx.address)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let streams: Vec<u32> = (0..10).map(|_| client.open("GET", "/large", &[], true).unwrap()).collect();
    for stream in streams {
        client.response(stream).unwrap().pattern.assert_complete(LARGE as u64);
    }
    // nginx ends a connection after keepalive_requests with GOAWAY: nobody notices.
    let (_short, gateway) = {
        let short = Nginx::h2c("keepalive_requests 10;");
        std::fs::write(short.root.join("small"), "small file\n").unwrap();
        let gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(short.address)));
        (short, gateway)
    };
    let mut client = H2Client::connect(gateway.front()).unwrap();
    for round in 0..100 {
        assert_eq!(client.get("/small").unwrap().status(), 200, "round {round}");
    }
    load(&gateway, "small");
}

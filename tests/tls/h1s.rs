//! What clients of an `h1s` listener get.

use std::io::ErrorKind;

use testkit::load::Load;
use testkit::process::{SIGTERM, run};
use testkit::tls::TlsClient;
use testkit::tools::Tool;
use testkit::{Backend, Config, Gateway, Listener, Usage, eventually, ms, pattern, seconds};

use crate::site::{Site, VERSIONS, ask, ask_h2};

const LARGE: usize = 10 * 1024 * 1024;

pub(crate) fn alpn_chooses_the_protocol() {
    let site = Site::new();
    let gateway = site.gateway("");
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut connection = site.client(offered).connect(gateway.front(), "server.test").unwrap();
        assert_eq!(connection.alpn().as_deref(), chosen, "{offered:?}");
        if chosen != Some("h2") {
            let answer = ask(&mut connection, "server.test", "/").unwrap();
            assert_eq!(answer, (200, "one".to_owned()), "{offered:?}");
        }
    }
    assert!(site.client(&["spdy/3"]).connect(gateway.front(), "server.test").is_err(), "nothing in common");
    assert!(site.h2(&gateway).get("/").unwrap().text() == "one");
    // The preface of HTTP/2 is no request of HTTP/1.1, whatever the bytes say that follow (attack H2-14).
    let mut liar = site.client(&["http/1.1"]).connect(gateway.front(), "server.test").unwrap();
    liar.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    assert_eq!(liar.exactly(9).unwrap(), b"HTTP/1.1 ");
    let metrics = gateway.metrics();
    for version in ["h1", "h2"] {
        assert!(metrics.sum("http_requests_total", &[("version", version)]) >= 1.0, "{version}");
    }
}

pub(crate) fn curl_speaks_both_versions() {
    let site = Site::new();
    let gateway = site.gateway("");
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("body"), dir.path().join("out"));
    let data = pattern::bytes(3_000_000);
    std::fs::write(&file, &data).unwrap();
    let body = format!("@{}", file.display());
    for (version, name) in VERSIONS {
        let got = site.curl(
            gateway.front(),
            &[version, "-f", "-o", out.to_str().unwrap(), "https://server.test/bytes/3000000"],
        );
        assert_eq!(got.code, 0, "{name}: {}", got.stderr);
        assert!(std::fs::read(&out).unwrap() == data, "{name}: the file differs");
        let said =
            site.curl(gateway.front(), &[version, "--data-binary", &body, "https://server.test/upload"]);
        assert_eq!(said.stdout, "3000000 right", "{name}: {}", said.stderr);
        let used = site.curl(
            gateway.front(),
            &[version, "-o", "/dev/null", "-w", "%{http_version}", "https://server.test/"],
        );
        assert_eq!(used.stdout, if name == "h2" { "2" } else { "1.1" });
        let request = site.backend.last_request();
        assert_eq!(request.header("x-forwarded-proto").as_deref(), Some("https"), "{name}");
        assert_eq!(request.header("x-forwarded-host").as_deref(), Some("server.test"), "{name}");
    }
    site.backend.assert_clean();
}

pub(crate) fn h2load_over_tls_meets_no_error() {
    let site = Site::new();
    let gateway = Gateway::start(site.config("").runtime("max_keepalive_requests", 0));
    let url = format!("https://{}/bytes/1000", gateway.front());
    for extra in [&["-m", "20"][..], &["--h1"]] {
        let args = [&["-n", "5000", "-c", "20"][..], extra, &[&url]].concat();
        let said = run(Tool::H2load.path().unwrap(), args, seconds(100));
        assert!(
            said.stdout.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"),
            "{extra:?}: {}",
            said.stdout
        );
    }
}

/// Bodies of 10 MiB in both directions, over both versions, while memory stays where it is.
pub(crate) fn large_bodies_pass_in_bounded_memory() {
    let site = Site::new();
    let gateway = site.gateway("");
    // What the first exchanges need once is not counted.
    assert_eq!(site.h1(&gateway).get("/bytes/100000").unwrap().body.len(), 100_000);
    assert_eq!(site.h2(&gateway).get("/bytes/100000").unwrap().status(), 200);
    let usage = Usage::watch(&gateway);
    let data = pattern::bytes(LARGE);
    let path = format!("/bytes/{LARGE}");
    for _ in 0..2 {
        let mut client = site.h1(&gateway);
        assert!(client.get(&path).unwrap().body == data);
        client.send(testkit::request("POST", "/upload", &[], &data)).unwrap();
        assert_eq!(client.response("POST").unwrap().text(), format!("{LARGE} right"));
        let mut client = site.h2(&gateway);
        client.get(&path).unwrap().pattern.assert_complete(LARGE as u64);
        let upload = client.open("POST", "/upload", &[], false).unwrap();
        client.data(upload, &data, true).unwrap();
        assert_eq!(client.response(upload).unwrap().text(), format!("{LARGE} right"));
    }
    usage.assert_grew_less_than(&gateway, 4 << 20);
}

/// Bytes of the buffers alone, were they kept, would be several times the bounds.
pub(crate) fn idle_connections_hold_no_buffers() {
    let site = Site::new();
    for (alpn, count, most) in [("http/1.1", 2000, 16.0), ("h2", 500, 32.0)] {
        let gateway = Gateway::start(site.config("").runtime("workers", 1));
        let client = site.client(&[alpn]);
        let connect = || {
            let mut connection = client.connect(gateway.front(), "server.test").unwrap();
            match alpn {
                "h2" => ask_h2(&mut connection, "/bytes/3000").unwrap(),
                _ => assert_eq!(ask(&mut connection, "server.test", "/bytes/3000").unwrap().0, 200),
            }
            connection
        };
        // What handshakes and requests need once is not counted.
        drop((0..50).map(|_| connect()).collect::<Vec<_>>());
        gateway.wait_metric("connections_inflight", &[], |n| n == 0.0);
        let before = gateway.process.rss_kib();
        let connections: Vec<_> = (0..count).map(|_| connect()).collect();
        gateway.wait_metric("connections_inflight", &[], |n| n == f64::from(count));
        let each = gateway.process.rss_kib().saturating_sub(before) as f64 / f64::from(count);
        eprintln!("{alpn}: an idle connection takes {each:.1} KiB");
        assert!(each <= most, "{alpn}: an idle connection takes {each:.1} KiB");
        drop(connections);
    }
}

pub(crate) fn drain_says_close_and_goaway() {
    let site = Site::new();
    let mut gateway = Gateway::start(site.config("").runtime("drain_timeout_ms", 8000));
    let (mut h1, mut idle) = (site.h1(&gateway), site.h1(&gateway));
    let (mut h2, mut idle_h2) = (site.h2(&gateway), site.h2(&gateway));
    assert_eq!((idle.get("/").unwrap().status, idle_h2.get("/").unwrap().status()), (200, 200));
    h1.send(testkit::request("GET", "/slow/1500", &[], b"")).unwrap();
    let slow = h2.open("GET", "/slow/1500", &[], true).unwrap();
    site.backend.wait_requests(4);
    gateway.process.signal(SIGTERM);
    idle.closed(seconds(5)).unwrap();
    idle_h2.closed(seconds(5)).unwrap();
    assert!(!idle_h2.goaways.is_empty());
    let last = h1.response("GET").unwrap();
    assert!(last.status == 200 && last.closes(), "{:?}", last.head);
    assert_eq!(h2.response(slow).unwrap().text(), "one");
    h2.closed(seconds(5)).unwrap();
    assert!(!h2.goaways.is_empty());
    assert_eq!(gateway.process.wait_exit(seconds(8)), Some(0));
    site.backend.assert_clean();
}

pub(crate) fn handshake_timeout_holds_on_h1s() {
    let site = Site::new();
    let gateway = Gateway::start(site.config("").runtime("handshake_timeout_ms", 300));
    let hello = site.client(&["h2"]).hello("server.test");
    let (mut silent, mut slow) = (gateway.client(), gateway.client());
    slow.send(&hello[..100]).unwrap();
    silent.closed(seconds(5)).unwrap();
    slow.closed(seconds(5)).unwrap();
    gateway.wait_metric("tls_handshakes_total", &[("result", "timeout")], |n| n == 2.0);
    // Afterwards the timeouts of HTTP hold: an idle connection outlives that of the handshake.
    let mut client = site.client(&["http/1.1"]).connect(gateway.front(), "server.test").unwrap();
    std::thread::sleep(ms(600));
    assert_eq!(ask(&mut client, "server.test", "/").unwrap().0, 200);
}

/// What the client sends in the clear, and what it says about itself, is told in the log without harm (attack C-07).
pub(crate) fn c_07_the_access_log_tells_version_alpn_and_server_name() {
    let site = Site::new();
    let log = site.rig.file("access.log");
    let config = site.config("").block("observability", "access_log", log.display().to_string());
    let gateway = Gateway::start(config.listener(Listener::h1().backend(site.backend.address)));
    site.h1(&gateway).get("/one").unwrap();
    site.h2(&gateway).get("/two").unwrap();
    let mut old = TlsClient::tls12(&site.rig.authority).connect(gateway.front(), "server.test").unwrap();
    ask(&mut old, "server.test", "/three").unwrap();
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    eventually("three lines", seconds(5), || lines().len() == 3);
    let of = |target: &str| {
        let found = lines().into_iter().find(|line| line["target"] == target).unwrap();
        let tls = &found["tls"];
        assert_eq!(tls["server_name"], "server.test", "{found}");
        (tls["version"].as_str().unwrap().to_owned(), tls["alpn"].as_str().map(str::to_owned))
    };
    assert_eq!(of("/one"), ("TLSv1.3".to_owned(), Some("http/1.1".to_owned())));
    assert_eq!(of("/two"), ("TLSv1.3".to_owned(), Some("h2".to_owned())));
    assert_eq!(of("/three"), ("TLSv1.2".to_owned(), None));
}

/// A connection ends with close_notify, so that the client can tell an end from a cut.
pub(crate) fn the_end_of_a_connection_is_told_inside_tls() {
    let site = Site::new();
    let listener = site.listener("").http("keepalive_timeout_ms", 300);
    let gateway = Gateway::start(site.config("").with_listener(listener));
    for (version, path) in [("1.0", "/close/100000"), ("1.0", "/bytes/100000"), ("1.1", "/bytes/100000")] {
        // A kept connection ends when it has been idle for too long.
        for says in ["close", "keep-alive"] {
            let mut connection = site.client(&["http/1.1"]).connect(gateway.front(), "server.test").unwrap();
            let head = format!("Host: server.test\r\nConnection: {says}\r\n\r\n");
            connection.send(format!("GET {path} HTTP/{version}\r\n{head}").as_bytes()).unwrap();
            let place = format!("{version} {path} {says}");
            let answer = connection.to_end().unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(answer.ends_with(&pattern::bytes(100_000)), "{place}: {} bytes", answer.len());
        }
    }
    let mut connection = site.client(&["h2"]).connect(gateway.front(), "server.test").unwrap();
    ask_h2(&mut connection, "/bytes/1000").unwrap();
    assert!(!connection.to_end().unwrap().is_empty(), "GOAWAY, and close_notify");
    // A body that could not be finished ends as a cut: its client has no other way to tell.
    let liar = Backend::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf a sent")
    });
    let gateway = Gateway::start(site.config("").with_listener(site.bare_listener("").backend(liar.address)));
    let mut connection = site.client(&["http/1.1"]).connect(gateway.front(), "server.test").unwrap();
    connection.send(b"GET / HTTP/1.0\r\nHost: server.test\r\n\r\n").unwrap();
    let error = connection.to_end().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
}

/// HTTP/1.1 in great haste on kept connections, each inside TLS: nothing is lost or mixed up.
pub(crate) fn kept_connections_serve_many_requests() {
    let site = Site::new();
    let gateway = Gateway::start(Config::new().listener(site.listener("")));
    let bridge = site.bridge(&gateway, "http/1.1");
    let load = Load::start(bridge.address, 4, "/", ms(0));
    eventually("2000 requests", seconds(40), || load.served() >= 2000);
    let tally = load.stop();
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    assert_eq!(tally.refused.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(bridge.failures(), [] as [String; 0]);
}

//! TLS from the gateway to its backends.

use std::process::Command;

use testkit::certificates::Leaf;
use testkit::process::Process;
use testkit::{Backend, Config, Gateway, Listener, pattern, seconds};

use crate::rig::Rig;

/// A gateway that speaks plainly in front and TLS, verified as `name`, to `backend`.
#[track_caller]
fn outer(rig: &Rig, backend: std::net::SocketAddr, name: &str) -> Gateway {
    let listener = Listener::tcp().backend_tls(backend, name, &rig.file("ca.pem"));
    Gateway::start(
        Config::new().listener(listener).runtime("workers", 1).runtime("handshake_timeout_ms", 2000),
    )
}

pub(crate) fn tls_to_a_backend_is_verified_and_resumed() {
    let rig = Rig::new();
    let inner = rig.gateway("");
    let gateway = outer(&rig, inner.front(), "server.test");
    for _ in 0..3 {
        let mut client = gateway.client();
        for length in [1, 1000, 100_000] {
            let data = pattern::bytes(length);
            client.send(&data).unwrap();
            assert!(client.wire.exactly(length).unwrap() == data, "{length} bytes");
        }
        client.finish();
        assert_eq!(client.wire.to_end().unwrap(), b"");
    }
    gateway.wait_metric("backend_tls_handshakes_total", &[("result", "full")], |n| n == 1.0);
    gateway.wait_metric("backend_tls_handshakes_total", &[("result", "resumed")], |n| n == 2.0);
    inner.wait_metric("tls_handshakes_total", &[("result", "resumed")], |n| n == 2.0);
}

pub(crate) fn t_05_a_backend_in_plaintext_fails_closed() {
    let rig = Rig::new();
    let liar = Backend::start(|conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlies!")?;
        conn.hold(seconds(2));
        Ok(())
    });
    let gateway = outer(&rig, liar.address, "server.test");
    let mut client = gateway.client();
    client.send_anyway("secret question");
    assert_eq!(client.wire.to_end().unwrap_or_default(), b"", "not a byte of it");
    gateway.wait_metric("backend_tls_handshakes_total", &[("result", "not_tls")], |n| n >= 1.0);
    assert!(!liar.saw(b"secret question"));
}

pub(crate) fn a_backend_with_another_name_is_not_used() {
    let rig = Rig::new();
    let inner = rig.gateway("");
    let gateway = outer(&rig, inner.front(), "another.test");
    let mut client = gateway.client();
    client.send_anyway("question");
    assert_eq!(client.wire.to_end().unwrap_or_default(), b"");
    gateway.wait_metric("backend_tls_handshakes_total", &[("result", "certificate")], |n| n >= 1.0);
    assert_eq!(rig.backend.connections(), 0);
}

pub(crate) fn openssl_as_backend() {
    let rig = Rig::new();
    let address = testkit::ports::reserve();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", &address.to_string(), "-rev", "-quiet", "-cert"]);
    command.arg(rig.file("s.pem")).arg("-key").arg(rig.file("s.key"));
    let _server = Process::spawn(command);
    testkit::eventually("it listens", seconds(10), || std::net::TcpStream::connect(address).is_ok());
    let gateway = outer(&rig, address, "server.test");
    let mut client = gateway.client();
    client.send("a line\n").unwrap();
    assert_eq!(client.wire.exactly(7).unwrap(), b"enil a\n");
}

/// A backend that goes away in the handshake, cleanly or not, is told from a fault of ours, whatever the listener speaks.
pub(crate) fn a_backend_that_leaves_the_handshake_has_closed_it() {
    let rig = Rig::new();
    for resets in [false, true] {
        let leaver = Backend::start(move |conn| {
            conn.wire.exactly(1)?;
            if resets {
                conn.reset();
            } else {
                conn.finish();
                conn.wire.to_end()?;
            }
            Ok(())
        });
        for listener in [Listener::tcp(), Listener::h1()] {
            let listener = listener.backend_tls(leaver.address, "server.test", &rig.file("ca.pem"));
            let gateway = Gateway::start(Config::new().listener(listener));
            let mut client = gateway.client();
            client.send_anyway(testkit::request("GET", "/", &[], b""));
            let results = |result| gateway.metric("backend_tls_handshakes_total", &[("result", result)]);
            testkit::eventually("the handshake is over", seconds(10), || {
                results("closed") + results("internal") >= 1.0
            });
            assert_eq!(results("internal"), 0.0, "resets: {resets}");
        }
    }
}

/// A self-signed certificate that `tls_ca_path` itself names is enough; what fails is told in the log, with the reason, and in the access
/// log.
pub(crate) fn a_self_signed_backend_is_believed_where_it_is_named() {
    for is_authority in [true, false] {
        let rig = Rig::new();
        Leaf::self_signed(&["server.test"], is_authority, false).write(rig.files.path(), "s");
        let (certificate, named) = (rig.file("s.pem"), rig.file("named.pem"));
        std::fs::copy(&certificate, &named).unwrap();
        let inner = rig.gateway("");
        let gateway = Gateway::start(Config::new().listener(Listener::tcp().backend_tls(
            inner.front(),
            "server.test",
            &named,
        )));
        let mut client = gateway.client();
        client.send(b"question").unwrap();
        assert_eq!(client.wire.exactly(8).unwrap(), b"question", "authority: {is_authority}");
        assert_eq!(gateway.process.stderr.count("TLS handshake with a backend failed"), 0);
    }
}

pub(crate) fn a_failed_handshake_with_a_backend_is_told_with_its_reason() {
    let rig = Rig::new();
    let inner = rig.gateway("");
    let stranger = rig.file("stranger.pem");
    Leaf::self_signed(&["server.test"], true, false).write(rig.files.path(), "stranger");
    let log = rig.file("access.log");
    for protocol in ["tcp", "h1", "h2"] {
        let listener = if protocol == "tcp" { Listener::tcp() } else { Listener::h1() };
        let listener = listener.backend_tls(inner.front(), "server.test", &stranger);
        let listener = if protocol == "tcp" { listener } else { listener.backend_key("protocol", protocol) };
        let config = Config::new().block("observability", "access_log", log.display().to_string());
        let mut gateway = Gateway::start(config.listener(listener).runtime("workers", 1));
        for _ in 0..20 {
            let mut client = gateway.client();
            client.send_anyway(testkit::request("GET", "/", &[], b""));
            if protocol == "tcp" {
                client.wire.to_end().ok();
            } else {
                assert_eq!(client.response("GET").unwrap().status, 502);
            }
        }
        gateway.process.stderr.wait("TLS handshake with a backend failed", seconds(10)).expect("a line");
        let lines = gateway.process.stderr.matching("TLS handshake with a backend failed");
        assert!((1..10).contains(&lines.len()), "{protocol}: {} lines", lines.len());
        let line = &lines[0];
        assert!(line.contains("\"WARN\"") && line.contains("comes from no known authority"), "{line}");
        assert!(line.contains(&inner.front().to_string()) && line.contains("server.test"), "{line}");
        let left = gateway.process.stderr.matching("left alone while others are fit");
        assert!(left.iter().all(|line| line.contains("\"why\":\"tls_failed\"")), "{left:?}");
        assert_eq!(left.len(), 1, "{protocol}");
        assert_eq!(gateway.stop(seconds(20)), 0);
    }
    let lines = std::fs::read_to_string(&log).unwrap();
    let failed = lines.lines().filter(|line| line.contains("\"reason\":\"tls_failed\"")).count();
    assert_eq!(failed, 40, "{lines}");
}

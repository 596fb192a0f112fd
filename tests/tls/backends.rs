//! TLS from the gateway to its backends.

use std::process::Command;

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

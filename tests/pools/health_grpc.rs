//! Health checks by `grpc.health.v1`, and inside TLS.

use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use testkit::certificates::Authority;
use testkit::h2::Call;
use testkit::{Backend, Config, Fault, Gateway, H2Backend, Listener, Peer, seconds};

use crate::health_rig::{Pool, probes, wait_health, wait_probes};

/// How a scripted server answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Says(u8),
    Status(&'static str),
    Http(u16),
    NoTrailers,
    Reset,
}

fn answer(call: &mut Call, how: Answer) -> Result<(), Fault> {
    let grpc = [("content-type", "application/grpc")];
    match how {
        Answer::Says(status) => {
            call.head(200, &grpc, false)?;
            call.data(&[0, 0, 0, 0, 2, 8, status], false)?;
            call.trailers(&[("grpc-status", "0")])
        }
        Answer::Status(code) => call.head(200, &[grpc[0], ("grpc-status", code)], true),
        Answer::Http(status) => call.head(status, &[], true),
        Answer::NoTrailers => {
            call.head(200, &grpc, false)?;
            call.data(&[0, 0, 0, 0, 2, 8, 1], true)
        }
        Answer::Reset => call.reset(2),
    }
}

pub(crate) fn only_serving_is_healthy() {
    let how = Arc::new(Mutex::new(Answer::Says(1)));
    let now = Arc::clone(&how);
    let server = H2Backend::start(move |call| {
        call.body()?;
        let how = *now.lock().unwrap();
        answer(call, how)
    });
    let gateway =
        Pool::probed("grpc", "grpc_service = \"a.B\"\nhost = \"name.test\"").h2(server.address).gateway();
    wait_probes(&gateway, server.address, "passed", 2.0);
    let probe = server.last_request();
    assert_eq!((probe.method().as_str(), probe.path().as_str()), ("POST", "/grpc.health.v1.Health/Check"));
    for (name, value) in
        [(":authority", "name.test"), ("te", "trailers"), ("content-type", "application/grpc")]
    {
        assert_eq!(probe.header(name).as_deref(), Some(value));
    }
    assert_eq!(probe.header("grpc-timeout").as_deref(), Some("200m"));
    assert_eq!(probe.body, b"\0\0\0\0\x05\x0a\x03a.B");
    for (wrong, result) in [
        (Answer::Says(2), "not_serving"),
        (Answer::Says(3), "not_serving"),
        (Answer::Says(0), "not_serving"),
        (Answer::Status("5"), "not_serving"),
        (Answer::Status("12"), "status"),
        (Answer::Http(404), "status"),
        (Answer::NoTrailers, "malformed"),
        (Answer::Reset, "malformed"),
    ] {
        let before = probes(&gateway, server.address, result);
        *how.lock().unwrap() = wrong;
        wait_health(&gateway, server.address, false);
        // On a busy machine some checks before these may have run out of time.
        let counted = || probes(&gateway, server.address, result) >= before + 2.0;
        testkit::eventually(&format!("{wrong:?} is {result}"), seconds(30), counted);
        *how.lock().unwrap() = Answer::Says(1);
        wait_health(&gateway, server.address, true);
    }
    server.assert_clean();
}

/// A server made with gRPC's own library, which answers for each service.
pub(crate) fn a_real_server_answers_for_its_services() {
    let server = Peer::start("grpc_server.py", &[]);
    for (service, healthy) in [("test.Echo", true), ("", false), ("no.such.Service", false)] {
        let pool = Pool::probed("grpc", &format!("grpc_service = {service:?}"));
        let gateway = pool.h2(server.address).gateway();
        wait_health(&gateway, server.address, healthy);
        wait_probes(&gateway, server.address, if healthy { "passed" } else { "not_serving" }, 2.0);
    }
}

/// Another gateway that speaks TLS and answers for itself, over both versions of HTTP.
struct Site {
    authority: Authority,
    files: TempDir,
    _backend: Backend,
    server: Gateway,
}

impl Site {
    fn new() -> Site {
        let (authority, files) = (Authority::new("test authority"), tempfile::tempdir().unwrap());
        let (chain, key) = authority.server(&["server.test"]).write(files.path(), "s");
        std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
        let backend = Backend::standard("inside");
        let listener = Listener::h1s(&chain, &key).block("grpc", "", true).backend(backend.address);
        let server = Gateway::start(Config::new().listener(listener));
        Site { authority, files, _backend: backend, server }
    }

    fn pool(&self, kind: &str, protocol: &str, name: &str, ca: &str) -> Pool {
        let ca = self.files.path().join(ca).display().to_string();
        let lines = format!(
            "protocol = {protocol:?}\ntls = true\ntls_verify_hostname = {name:?}\ntls_ca_path = {ca:?}"
        );
        let host = if kind == "tcp" { "" } else { "host = \"server.test\"" };
        // A handshake is given more time than a plain exchange.
        let lines_of_health =
            format!("type = {kind:?}\ninterval_ms = 500\ntimeout_ms = 500\nrise = 2\nfall = 2\n{host}");
        Pool::with_health(&lines_of_health).backend(self.server.front(), &lines)
    }
}

pub(crate) fn backends_inside_tls_are_asked_inside_tls() {
    let site = Site::new();
    std::fs::write(site.files.path().join("other.pem"), Authority::new("another").pem()).unwrap();
    assert_ne!(site.authority.pem(), "");
    for (kind, protocol) in [("tcp", "h1"), ("http", "h1"), ("http", "h2"), ("grpc", "h2"), ("grpc", "h1")] {
        let gateway = site.pool(kind, protocol, "server.test", "ca.pem").gateway();
        wait_probes(&gateway, site.server.front(), "passed", 2.0);
        wait_health(&gateway, site.server.front(), true);
        let gateway = site.pool(kind, protocol, "another.test", "ca.pem").gateway();
        wait_health(&gateway, site.server.front(), false);
        // On a busy machine a probe may end by its timeout before its handshake has failed.
        testkit::eventually(&format!("{kind} to {protocol}: wrong name"), testkit::seconds(20), || {
            probes(&gateway, site.server.front(), "tls") >= 1.0
        });
    }
    let gateway = site.pool("tcp", "h1", "server.test", "other.pem").gateway();
    wait_health(&gateway, site.server.front(), false);
}

/// An address that does not speak TLS is not taken for one that does.
pub(crate) fn plaintext_where_tls_is_due_fails() {
    let site = Site::new();
    let plain = Backend::reply("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let ca = site.files.path().join("ca.pem").display().to_string();
    let lines =
        format!("tls = true\ntls_verify_hostname = \"server.test\"\ntls_ca_path = {ca:?}\nprotocol = \"h1\"");
    let gateway = Pool::probed("tcp", "").backend(plain.address, &lines).gateway();
    wait_health(&gateway, plain.address, false);
}

//! Backends that speak HTTP/3: whom the gateway takes for one, sessions, and pools that have other members besides.

use std::path::{Path, PathBuf};

use testkit::certificates::Authority;
use testkit::quic::server::QuicServer;
use testkit::quic::{NAME, site};
use testkit::{
    Backend, Client, Config, Gateway, H2Client, H3Client, Listener, Origin, Pool, Version, ms, seconds,
};

use crate::rig::config;

/// A server of HTTP/3 that answers with its name, with the certificate in these files.
fn server(name: &str, files: &Path, certificate: &str) -> (Gateway, Backend) {
    let backend = Backend::standard(name);
    let file = |end: &str| files.join(format!("{certificate}.{end}"));
    let listener = Listener::quic().certificate(&file("pem"), &file("key")).backend(backend.address);
    (Gateway::start(config().runtime("workers", 1).listener(listener)), backend)
}

/// A gateway whose handshakes are given up soon.
fn gateway(listener: Listener) -> Gateway {
    Gateway::start(config().runtime("workers", 1).runtime("handshake_timeout_ms", 2000).listener(listener))
}

fn ca() -> PathBuf {
    site().directory().join("ca.pem")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The lines of a member of a pool that speaks HTTP/3.
fn h3_keys() -> [(&'static str, String); 3] {
    let quoted = |text: &str| format!("{text:?}");
    [("protocol", quoted("h3")), ("tls_verify_hostname", quoted(NAME)), ("tls_ca_path", quoted(&text(&ca())))]
}

pub(crate) fn t_10_a_backend_that_is_somebody_else_is_not_spoken_to() {
    let files = tempfile::tempdir().unwrap();
    let own = &site().authority;
    own.server(&["127.0.0.1"]).write(files.path(), "address");
    let other = files.path().join("other.pem");
    std::fs::write(&other, Authority::new("another authority").pem()).unwrap();
    let (good, backend) = server("one", site().directory(), "quic");
    let to = |server: &Gateway| Listener::h1().h3_backend(server.front());
    for (case, listener, result) in [
        ("wrong name", to(&good).backend_key("tls_verify_hostname", "another.example"), "certificate"),
        ("wrong CA", to(&good).backend_key("tls_ca_path", text(&other)), "certificate"),
    ] {
        let gateway = gateway(listener);
        let answer = gateway.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (502, "502 Bad Gateway\n"), "{case}");
        gateway.wait_metric("backend_tls_handshakes_total", &[("result", result)], |n| n >= 1.0);
        gateway.wait_metric("backend_connect_failures_total", &[], |n| n >= 1.0);
        assert_eq!(gateway.metric("backend_connections_total", &[]), 0.0, "{case}");
        let said = gateway.process.stderr.wait("certificate", seconds(5));
        assert!(said.is_some(), "{case}: {:?}", gateway.messages());
    }
    assert_eq!(backend.request_count(), 0, "nothing was asked");
    // The right name and authority; and the address is the name where none is said.
    let (addressed, _backend) = server("two", files.path(), "address");
    let unnamed = |listener: Listener, server: &Gateway| {
        listener.text(&format!(
            "[[listeners.backends]]\naddress = \"{}\"\nprotocol = \"h3\"\ntls_ca_path = {:?}\n",
            server.front(),
            text(&ca())
        ))
    };
    assert_eq!(gateway(to(&good)).get("/").text(), "one");
    assert_eq!(gateway(unnamed(Listener::h1(), &addressed)).get("/").text(), "two");
}

/// What speaks QUIC, but not HTTP/3.
pub(crate) fn a_backend_of_another_protocol_is_not_spoken_to() {
    let server = QuicServer::start(&["echo"]);
    let gateway = gateway(Listener::h1().h3_backend(server.address));
    assert_eq!(gateway.get("/").status, 502);
    gateway.wait_metric("backend_tls_handshakes_total", &[("result", "incompatible")], |n| n >= 1.0);
    assert!(server.accept_within(ms(200)).is_none());
}

/// The backend ends each connection after one request, so that each request takes a handshake.
pub(crate) fn sessions_with_backends_are_resumed() {
    let backend = Backend::standard("one");
    let inner = Gateway::start(
        config()
            .runtime("workers", 1)
            .runtime("max_requests_per_h3_connection", 1)
            .listener(Listener::quic().backend(backend.address)),
    );
    let gateway = gateway(Listener::h1().h3_backend(inner.front()));
    let mut client = gateway.client();
    for count in 1..=5 {
        assert_eq!(client.get("/").unwrap().text(), "one");
        // The GOAWAY has come, so that another connection is made.
        gateway.wait_metric("backend_tls_handshakes_total", &[("result", "full")], |n| n == 1.0);
        inner.wait_metric("tls_handshakes_total", &[("result", "resumed")], |n| n == f64::from(count - 1));
        std::thread::sleep(ms(100));
    }
    gateway.wait_metric("backend_tls_handshakes_total", &[("result", "resumed")], |n| n == 4.0);
}

/// Members of all versions in one pool have the same share of the requests of each version, and one that is gone is passed over.
pub(crate) fn one_pool_has_members_of_all_versions() {
    let (one, two) = (Backend::standard("h1"), Origin::standard(Version::H2, "h2"));
    let (mut three, _backend) = server("h3", site().directory(), "quic");
    let pool = Pool::named("mixed")
        .backend_with(one.address, &[("protocol", "\"h1\"".to_owned())])
        .backend_with(two.address(), &[("protocol", "\"h2\"".to_owned())])
        .backend_with(three.front(), &h3_keys());
    let listeners = [Listener::h2c().pool("mixed"), Listener::quic().pool("mixed")];
    let fronts = listeners.each_ref().map(|listener| listener.address);
    let gateway = Gateway::start(
        listeners.into_iter().fold(
            Config::new()
                .runtime("workers", 1)
                .runtime("connect_timeout_ms", 700)
                .runtime("handshake_timeout_ms", 700)
                .pool(pool),
            Config::listener,
        ),
    );
    let mut h1 = Client::connect(fronts[0]).unwrap();
    let mut h2 = H2Client::connect(fronts[0]).unwrap();
    let mut h3 = H3Client::connect(fronts[1]).unwrap();
    let mut ask = |version: usize| match version {
        1 => h1.get("/").unwrap().text(),
        2 => h2.get("/").unwrap().text(),
        _ => h3.get("/").unwrap().text(),
    };
    for version in 1..=3 {
        let mut names: Vec<String> = (0..30).map(|_| ask(version)).collect();
        names.sort();
        let wanted: Vec<&str> = ["h1", "h2", "h3"].into_iter().flat_map(|name| [name; 10]).collect();
        assert_eq!(names, wanted, "of HTTP/{version}");
    }
    // A body that is larger than any window, to each of them.
    for _ in 0..3 {
        let body = testkit::pattern::bytes(2 << 20);
        let answer = Client::connect(fronts[0]).unwrap().request("POST", "/upload", &[], &body).unwrap();
        assert_eq!(answer.text(), format!("{} right", body.len()));
    }
    three.stop(seconds(10));
    for version in 1..=3 {
        let names: Vec<String> = (0..10).map(|_| ask(version)).collect();
        assert!(names.iter().all(|name| name == "h1" || name == "h2"), "of HTTP/{version}: {names:?}");
    }
    assert!(gateway.metric("backend_connect_failures_total", &[]) >= 1.0);
}

/// The health check that asks for QUIC's versions, at members that speak HTTP/3.
pub(crate) fn members_are_probed_over_quic() {
    let (mut one, _first) = server("one", site().directory(), "quic");
    let (two, _second) = server("two", site().directory(), "quic");
    let pool = Pool::named("p")
        .block("health", "type", "quic")
        .block("health", "interval_ms", 200)
        .block("health", "timeout_ms", 150)
        .block("health", "rise", 1)
        .block("health", "fall", 2)
        .backend_with(one.front(), &h3_keys())
        .backend_with(two.front(), &h3_keys());
    let gateway =
        Gateway::start(Config::new().runtime("workers", 1).pool(pool).listener(Listener::h1().pool("p")));
    let address = one.front().to_string();
    let healthy = |wanted: f64| {
        let labels = [("pool", "p"), ("backend", address.as_str())];
        gateway.wait_metric("backend_healthy", &labels, |healthy| healthy == wanted)
    };
    healthy(1.0);
    let mut client = gateway.client();
    let mut names = |count: usize| {
        let mut names: Vec<String> = (0..count).map(|_| client.get("/").unwrap().text()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names(4), ["one", "two"]);
    // It answers nothing more, and nobody is sent there.
    one.stop(seconds(10));
    healthy(0.0);
    let failed = gateway.metric("backend_connect_failures_total", &[]);
    assert_eq!(names(10), ["two"]);
    assert_eq!(gateway.metric("backend_connect_failures_total", &[]), failed, "no request found that out");
}

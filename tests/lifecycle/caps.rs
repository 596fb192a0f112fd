//! A cap that turns a connection away says which it is.

use std::net::{SocketAddr, TcpStream};

use testkit::{Backend, Config, Gateway, Listener, seconds};

/// Connections that stay open as long as the gateway lets them.
fn connections(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(to).unwrap()).collect()
}

/// Lines of one cap: a few, however many it turned away, with the client's network and the key.
#[track_caller]
fn assert_tells(gateway: &Gateway, message: &str, key: &str) {
    let first =
        gateway.process.stderr.wait(message, seconds(10)).unwrap_or_else(|| panic!("no line {message:?}"));
    let line: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(
        (line["level"].as_str(), line["network"].as_str()),
        (Some("WARN"), Some("127.0.0.0/24")),
        "{line}"
    );
    assert_eq!(line["key"].as_str(), Some(key), "{line}");
    assert!(line["listener"].is_string() && line["unsaid"].is_u64(), "{line}");
    let count = gateway.process.stderr.count(message);
    assert!(count <= 4, "{count} lines");
}

pub(crate) fn connections_of_an_address() {
    let backend = Backend::standard("one");
    let config = Config::new().runtime("per_ip_connection_cap", 2);
    let gateway = Gateway::start(config.listener(Listener::h1().backend(backend.address)));
    let mut open = connections(gateway.front(), 40);
    gateway.wait_metric("accept_reject_total", &[("reason", "per_ip")], |count| count >= 38.0);
    assert_tells(&gateway, "refused accept", "runtime.per_ip_connection_cap");
    open.clear();
}

pub(crate) fn connections_of_a_listener() {
    let backend = Backend::standard("one");
    let config = Config::new().runtime("max_inflight_connections", 100);
    let gateway = Gateway::start(config.listener(Listener::h1().backend(backend.address)));
    let _open = connections(gateway.front(), 130);
    gateway.wait_metric("accept_shed_total", &[], |count| count >= 30.0);
    assert_tells(&gateway, "shed accept", "runtime.max_inflight_connections");
}

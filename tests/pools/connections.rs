//! Connections to backends, as the admin port shows them.

use std::net::SocketAddr;

use testkit::gateway::Reload;
use testkit::{Backend, Config, Gateway, H2Backend, Listener, seconds};

use crate::rig::listener_to;

/// A gateway of one worker in front of backends that speak `protocol`, and without or with limits.
fn start(address: SocketAddr, protocol: &str, max_connections: usize) -> Gateway {
    let protocol = format!("protocol = \"{protocol}\"");
    let config = Config::new()
        .runtime("workers", 1)
        .block("pools.p.limits", "max_connections", max_connections)
        .block("pools.p", "policy", "least_connections");
    Gateway::start(config.listener(listener_to(Listener::h1(), &[(address, &protocol)])))
}

/// The connections of each backend.
fn connections(gateway: &Gateway) -> Vec<u64> {
    let pools: serde_json::Value = serde_json::from_str(&gateway.admin_get("/backends/p").text()).unwrap();
    let members = pools[0]["members"].as_array().unwrap();
    members.iter().map(|member| member["connections"].as_u64().unwrap()).collect()
}

#[track_caller]
fn wait_for(gateway: &Gateway, expected: &[u64]) {
    testkit::eventually(&format!("connections are {expected:?}"), seconds(20), || {
        connections(gateway) == expected
    });
}

pub(crate) fn http_1_connections_count_while_they_are_open() {
    for max_connections in [0, 8] {
        let backend = Backend::each(|request, conn| match request.target() {
            "/last" => conn.respond(200, &[("Connection", "close")], b"ok"),
            _ => conn.respond(200, &[], b"ok"),
        });
        let mut gateway = start(backend.address, "h1", max_connections);
        assert_eq!(connections(&gateway), [0], "none before a request");
        for _ in 0..5 {
            assert_eq!(gateway.get("/").status, 200);
        }
        wait_for(&gateway, &[1]);
        assert_eq!(backend.connections(), 1, "kept alive");
        // The pool is another after that, its member the same.
        let config = gateway.config.clone().block("pools.p", "policy", "p2c");
        assert!(matches!(gateway.reload(config), Reload::Complete(_)));
        assert_eq!(connections(&gateway), [1]);
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!((connections(&gateway), backend.connections()), (vec![1], 1));
        // The backend ends it: while it is idle, and with a response.
        backend.cut();
        wait_for(&gateway, &[0]);
        assert_eq!(gateway.get("/last").status, 200);
        wait_for(&gateway, &[0]);
        assert_eq!(backend.connections(), 2);
    }
}

pub(crate) fn http_2_connections_count_while_they_are_open() {
    for max_connections in [0, 8] {
        let backend = H2Backend::start(|call| call.respond(200, &[], b"ok"));
        let gateway = start(backend.address, "h2", max_connections);
        for _ in 0..5 {
            assert_eq!(gateway.get("/").status, 200);
        }
        assert_eq!(backend.connections(), 1, "shared");
        wait_for(&gateway, &[1]);
        backend.cut();
        wait_for(&gateway, &[0]);
        assert_eq!(gateway.get("/").status, 200);
        wait_for(&gateway, &[1]);
    }
}

/// The other gateway speaks both versions on one port, and ends none of its connections by itself.
pub(crate) fn connections_of_before_end_when_a_backend_is_reached_otherwise() {
    let origin = Backend::standard("one");
    let behind = Gateway::start(Config::new().listener(Listener::h2c().backend(origin.address)));
    let mut gateway = start(behind.front(), "h1", 1);
    for protocol in ["h2", "h1", "h2", "h1"] {
        assert_eq!(gateway.get("/").status, 200, "before {protocol}");
        wait_for(&gateway, &[1]);
        change_protocol(&mut gateway, &behind, protocol);
        wait_for(&gateway, &[0]);
        gateway.wait_metric("pool_idle_gauge", &[], |idle| idle == 0.0);
    }
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_metric("pool_idle_gauge", &[], |idle| idle == 1.0);
}

/// What began before a change goes on as it began, and leaves nothing behind.
pub(crate) fn connections_of_requests_of_before_end_with_them() {
    let origin = Backend::standard("one");
    let behind = Gateway::start(Config::new().listener(Listener::h2c().backend(origin.address)));
    let mut gateway = start(behind.front(), "h2", 1);
    let limits = [("max_requests", 1), ("max_pending", 10), ("pending_timeout_ms", 30_000)];
    let config = limits
        .iter()
        .fold(gateway.config.clone(), |config, (key, value)| config.block("pools.p.limits", key, *value));
    assert!(matches!(gateway.reload(config), Reload::Complete(_)));
    let ask = |target: &'static str| {
        let mut client = gateway.client();
        std::thread::spawn(move || client.get(target).unwrap().status)
    };
    let running = ask("/slow/1000");
    wait_for(&gateway, &[1]);
    let waiting = ask("/");
    gateway.wait_metric("pool_pending", &[("pool", "p")], |pending| pending == 1.0);
    change_protocol(&mut gateway, &behind, "h1");
    assert_eq!((running.join().unwrap(), waiting.join().unwrap()), (200, 200));
    wait_for(&gateway, &[0]);
    assert_eq!(gateway.get("/").status, 200);
}

#[track_caller]
fn change_protocol(gateway: &mut Gateway, behind: &Gateway, protocol: &str) {
    let protocol = format!("protocol = \"{protocol}\"");
    let listener = listener_to(Listener::h1(), &[(behind.front(), &protocol)]).at(gateway.front());
    let config = gateway.config.clone().with_listener(listener);
    assert!(matches!(gateway.reload(config), Reload::Complete(_)));
}

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

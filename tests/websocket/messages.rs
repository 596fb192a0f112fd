//! Tunnels that nothing is wrong with.

use crate::rig::{Cell, H2_H1, Rig, assert_closed};
use serde_json::{Value, json};
use std::collections::HashMap;
use testkit::peers::{Certificate, scenario};
use testkit::{Config, Gateway, Listener, Peer, seconds};

/// What the other cases ask of clients and servers, asked with nothing in between.
pub(crate) fn the_peers_agree_without_a_gateway() {
    let certificate = Certificate::localhost();
    let (chain, key) = (certificate.chain.display().to_string(), certificate.key.display().to_string());
    for (client, server) in [("ws_client.py", "ws_server.py"), ("ws_h2_client.py", "h2_server.py")] {
        let plain = Peer::start(server, &[]);
        let tls = Peer::start(server, &["--cert", &chain, "--key", &key]);
        let trust: [&[&str]; 2] = [&[], &["--ca", &chain]];
        for (peer, trust) in [&plain, &tls].into_iter().zip(trust) {
            let run = |name, args: &[&str]| scenario(client, peer.address, name, &[trust, args].concat());
            assert_eq!(run("echo", &["--count", "5", "--size", "200000", "--plain"])["right"], 5);
            assert_eq!(run("ping", &["--count", "3"])["pongs"], 3);
            assert_eq!(run("read", &["--path", "/refuse"])["status"], 403);
            assert_eq!(run("close", &["--option", "4000"])["close"][0], 4000);
            peer.wait_event("closed", seconds(5), |event| event["code"] == 4000);
        }
        if client == "ws_h2_client.py" {
            let bridge = Peer::start("ws_h2_bridge.py", &[&plain.address.to_string()]);
            let seen =
                scenario("ws_client.py", bridge.address, "echo", &["--count", "5", "--size", "200000"]);
            assert_eq!(seen["right"], 5, "{seen}");
        }
    }
}

pub(crate) fn messages_pass_both_ways(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    let small = rig.client("echo", &["--count", "50"]);
    assert_eq!(small["right"], 50, "{small}");
    let large = rig.client("echo", &["--count", "3", "--size", "3000000", "--plain"]);
    assert_eq!(large["right"], 3, "{large}");
    let pings = rig.client("ping", &["--count", "5"]);
    assert_eq!(pings["pongs"], 5, "{pings}");
}

pub(crate) fn fields_and_sub_protocol_are_the_origins(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    let seen = rig.client("read", &["--path", "/headers", "--seconds", "1"]);
    let fields: Vec<(String, String)> = match cell.back_h2 {
        true => serde_json::from_value(rig.server.events("request")[0]["fields"].clone()).unwrap(),
        false => serde_json::from_str(seen["messages"][0].as_str().unwrap()).unwrap(),
    };
    let fields: HashMap<String, String> =
        fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    for (name, value) in [
        ("cookie", "session=1"),
        ("authorization", "Bearer t"),
        ("origin", "http://app.example"),
        ("sec-websocket-version", "13"),
    ] {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}: {fields:?}");
    }
    let offered: Vec<&str> = fields["sec-websocket-protocol"].split(',').map(str::trim).collect();
    assert_eq!(offered, ["chat", "superchat"]);
    assert!(fields.contains_key("x-forwarded-for"), "{fields:?}");
    // The client's first choice was another one.
    let chosen = [&seen["protocol"], &seen["fields"]["sec-websocket-protocol"]];
    assert!(chosen.contains(&&json!("superchat")), "{seen}");
}

pub(crate) fn close_codes_pass(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    let seen = rig.client("close", &["--option", "4000"]);
    assert_eq!(seen["close"][0], 4000, "{seen}");
    let told = rig.server.wait_event("closed", seconds(5), |event| event["code"] == 4000);
    assert_eq!(told["reason"], "my own reason");
    if !cell.back_h2 {
        let seen = rig.client("send_and_read", &["--path", "/close/4001"]);
        assert_closed(&seen, 4001, "as you wish");
    }
}

pub(crate) fn a_refusal_passes(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    let seen = rig.client("read", &["--path", "/refuse"]);
    assert_eq!(seen["status"], 403, "{seen}");
    // And leaves the gateway as it was.
    assert_eq!(rig.client("echo", &["--count", "1"])["right"], 1);
}

pub(crate) fn a_client_that_leaves_is_missed(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    rig.client("cancel", &["--seconds", "0"]);
    match (cell.front_h2, cell.back_h2) {
        (true, true) => {
            rig.server.wait_event("reset", seconds(5), |event| event["path"] == "/echo");
        }
        // It closed its connection, which ends the stream as it should.
        (false, true) => {}
        (_, false) => rig.backend_closed(1006),
    }
    rig.gateway.wait_metric("websocket_tunnels_ended_total", &[], |ended| ended == 1.0);
    rig.gateway.wait_metric("connections_inflight", &[], |value| value == 0.0);
}

pub(crate) fn deflate_is_untouched(cell: Cell) {
    let rig = Rig::new(cell, &[]);
    let seen = rig.client("echo", &["--count", "10", "--size", "20000"]);
    assert_eq!(seen["right"], 10, "{seen}");
    let agreed = [seen["extensions"].to_string(), seen["fields"]["sec-websocket-extensions"].to_string()];
    assert!(agreed.iter().any(|agreed| agreed.contains("permessage-deflate")), "{seen}");
}

pub(crate) fn extended_connect_needs_leave() {
    let server = Peer::start("ws_server.py", &[]);
    let listener = Listener::h2c().websocket().block("websocket", "h2_extended_connect", false);
    let gateway = Gateway::start(Config::new().listener(listener.backend(server.address)));
    let seen = scenario("ws_h2_client.py", gateway.front(), "echo", &["--count", "1"]);
    assert_eq!(seen["enabled"], 0, "{seen}");
    assert_ne!(seen["status"], 200, "{seen}");
    assert!(server.events("open").is_empty());
    // Where there is leave, it is announced.
    let rig = Rig::before(H2_H1, server, &[]);
    let seen: Value = rig.client("echo", &["--count", "1"]);
    assert_eq!((&seen["enabled"], &seen["right"]), (&json!(1), &json!(1)), "{seen}");
}

//! What is told of flows and tables: by commands, also while no process runs, and by metrics.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use crate::rig::{Network, PATIENCE, connect, exchange};
use crate::services::{pool, service};
use serde_json::Value;

/// What a command of `expressgateway xdp` prints.
fn xdp(network: &Network, command: &str, more: &[&str]) -> String {
    let mut arguments = vec!["xdp", command, "--pins", network.pins().to_str().unwrap()];
    arguments.extend(more);
    let output = testkit::gateway::cli(&arguments);
    assert_eq!(output.code, 0, "{}", output.stderr);
    output.stdout
}

pub(crate) fn json(network: &Network, command: &str, more: &[&str]) -> Value {
    serde_json::from_str(&xdp(network, command, &[more, &["--json"]].concat())).unwrap()
}

/// The line of a table in `status`.
fn table(network: &Network, name: &str) -> (u64, u64, u64) {
    let status = json(network, "status", &[]);
    let tables = status["tables"].as_array().unwrap();
    let table = tables.iter().find(|table| table["table"] == name).unwrap();
    let number = |key: &str| table[key].as_u64().unwrap();
    (number("live"), number("entries"), number("capacity"))
}

pub(crate) fn flows_are_shown_with_their_backends(mode: &'static str) {
    let mut network = Network::new(mode);
    let config = network.config(
        &[
            service("web", 80, "tcp", "nat", "web"),
            service("direct", 8080, "tcp", "dsr-l2", "web"),
            pool("web", 8080, ""),
        ]
        .concat(),
    );
    network.start(&config);
    assert_eq!(xdp(&network, "flows", &[]), "no flows");
    let mut streams: Vec<_> = network.client.run(|| {
        let one = |port| {
            let mut stream = connect(([10, 9, 0, 1], port).into(), PATIENCE).unwrap();
            let answer = exchange(&mut stream).unwrap();
            (stream, answer)
        };
        (0..10).map(|_| one(80)).chain((0..5).map(|_| one(8080))).collect()
    });
    // Connections to two services may have one port of the client.
    let shown = |network: &Network| -> BTreeMap<String, Value> {
        let flows = json(network, "flows", &["--limit", "100"]);
        let flows = flows["flows"].as_array().unwrap().iter();
        flows
            .map(|flow| (format!("{} {}", text(&flow["client"]), text(&flow["service"])), flow.clone()))
            .collect()
    };
    let check = |network: &Network, streams: &[(std::net::TcpStream, String)]| {
        let flows = shown(network);
        assert_eq!(flows.len(), streams.len(), "{flows:#?} of {streams:?}");
        for (stream, answer) in streams {
            let flow = &flows[&ends(stream)];
            assert_eq!(flow["service"], stream.peer_addr().unwrap().to_string());
            assert_eq!((&flow["protocol"], &flow["state"]), (&"tcp".into(), &"open".into()));
            let host = answer.replace("backend", "10.2.") + ".11";
            let is_nat = stream.peer_addr().unwrap().port() == 80;
            assert_eq!(flow["backend"], if is_nat { host + ":8080" } else { host });
            let gateway = flow["gateway"].as_str().unwrap_or_default();
            assert_eq!(gateway.starts_with("10.2.0.1:"), is_nat, "{flow}");
            assert!(flow["idle_ms"].as_u64().unwrap() < 60_000, "{flow}");
        }
    };
    check(&network, &streams);
    network.metric("xdp_conntrack_entries_current", &[("family", "v4")], |entries| entries == 25.0);
    network.metric("xdp_conntrack_entries_current", &[("family", "v6")], |entries| entries == 0.0);
    network.metric("xdp_backend_flows_current", &[("service", "web")], |flows| flows == 10.0);
    network.metric("xdp_backend_flows_current", &[("service", "direct")], |flows| flows == 5.0);
    assert_eq!(table(&network, "flows_v4"), (25, 25, 16_384));
    assert_eq!(table(&network, "services"), (2, 2, 512));
    assert_eq!(table(&network, "backends"), (6, 6, 4096));
    // The last one that had a packet comes first.
    exchange(&mut streams[3].0).unwrap();
    let first = xdp(&network, "flows", &["--limit", "1"]);
    assert_eq!(first.lines().count(), 1, "{first}");
    let client = streams[3].0.local_addr().unwrap();
    assert!(first.starts_with(&format!("tcp {client} to 10.9.0.1:80, at 10.2.")), "{first}");
    // No process need be there.
    assert_eq!(network.stop(), 0);
    check(&network, &streams);
    // An end of a connection is seen, and a backend that is gone has no flows.
    network.start(&config);
    let (closed, _) = streams.pop().unwrap();
    let client = ends(&closed);
    drop(closed);
    let finished =
        testkit::poll(PATIENCE, || (shown(&network)[&client]["state"] == "finished").then_some(()));
    assert!(finished.is_some());
    let one = config.replace("[[pools.web.backends]]\naddress = \"10.2.1.11:8080\"\n", "");
    assert!(network.reload(&one).contains("pass complete"));
    let gone = testkit::poll(PATIENCE, || {
        shown(&network)
            .values()
            .all(|flow| !flow["backend"].as_str().unwrap().contains("10.2.1.11"))
            .then_some(())
    });
    assert!(gone.is_some());
    let (live, entries, _) = table(&network, "flows_v4");
    assert!(live < entries, "{live} of {entries}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Client and service of a connection.
fn ends(stream: &std::net::TcpStream) -> String {
    format!("{} {}", stream.local_addr().unwrap(), stream.peer_addr().unwrap())
}

/// Flows that fill a table, which forgets the oldest (L4-03, L4-06).
pub(crate) fn l4_06_a_full_table_is_told(mode: &'static str) {
    let mut network = Network::new(mode);
    let lines = [service("names", 80, "udp", "nat", "web"), pool("web", 8080, "")].concat();
    let config = network.config(&lines).replace("max_flows_v4 = 16384", "max_flows_v4 = 4096");
    network.start(&config);
    network.metric("xdp_conntrack_capacity", &[("family", "v4")], |room| room == 4096.0);
    network.metric("xdp_conntrack_full_total", &[], |full| full == 0.0);
    network.client.run(|| {
        for _ in 0..2500 {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"who?", "10.9.0.1:80").unwrap();
        }
    });
    network.metric("xdp_conntrack_full_total", &[("family", "v4")], |full| full > 0.0);
    network.metric("xdp_conntrack_full_total", &[("family", "v6")], |full| full == 0.0);
    let (live, entries, capacity) = table(&network, "flows_v4");
    assert!(live <= entries && entries <= capacity && capacity == 4096, "{live} of {entries} of {capacity}");
}

//! QUIC over several gateways: packets are balanced in the kernel, by the connection IDs that the gateways behind have made.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use testkit::process::Process;
use testkit::quic::{QuicClient, site};
use testkit::{H3Client, seconds};

use crate::join::origin;
use crate::rig::{Host, Network, request};
use crate::services::service;

/// A gateway that serves HTTP/3 in the namespace of a backend. Its IDs name it by its number.
fn gateway(host: &Host, at: usize, directory: &Path) -> Process {
    let file = directory.join(format!("quic{at}.toml"));
    let (files, secret) = (site().directory().display(), directory.join("secret"));
    std::fs::write(
        &file,
        format!(
            "[runtime]\nworkers = 2\nreadiness_settle_ms = 0\n\
             [[listeners]]\naddress = \"10.2.{at}.11:8000\"\nprotocol = \"quic\"\n\
             [listeners.quic]\ncert_path = \"{files}/quic.pem\"\nkey_path = \"{files}/quic.key\"\n\
             retry_secret_path = \"{}\"\nserver_id = \"0{at}\"\n\
             [[listeners.backends]]\naddress = \"127.0.0.1:9000\"\n",
            secret.display()
        ),
    )
    .unwrap();
    let mut command = Command::new(testkit::gateway::binary());
    command.arg(&file).current_dir(directory).env_remove("RUST_LOG");
    host.enter(&mut command);
    let process = Process::spawn(command);
    let serves = testkit::poll(seconds(20), || {
        (request(host, "GET", "/readyz").map(|(status, _)| status) == Some(200)).then_some(())
    });
    assert!(serves.is_some(), "{}", process.tail(30));
    process
}

pub(crate) fn connections_stay_at_their_gateway_when_clients_move(mode: &'static str) {
    let mut network = Network::new(mode);
    let directory = tempfile::tempdir().unwrap();
    let _gateways: Vec<Process> = [(1, "b1"), (2, "b2")]
        .into_iter()
        .map(|(at, body)| {
            network.backends[at - 1].run(move || origin(body));
            gateway(&network.backends[at - 1], at, directory.path())
        })
        .collect();
    let ids = "[xdp.services.quic_lb]\nnonce_length = 16\nservers = [\"01=10.2.1.11:8000\", \"02=10.2.2.11:8000\"]\n";
    let pool = "[[pools.web.backends]]\naddress = \"10.2.1.11:8000\"\n[[pools.web.backends]]\naddress = \"10.2.2.11:8000\"\n";
    network.start(&network.config(&[&service("web", 443, "udp", "nat", "web"), ids, pool].concat()));
    let seen: Vec<Vec<String>> = network.client.run(|| {
        let connection = |_| {
            let quic = QuicClient::default().connect("10.9.0.1:443".parse().unwrap()).unwrap();
            let mut client = H3Client::over(quic).unwrap();
            // Nobody moves before the handshake is confirmed (RFC 9000 section 9).
            client.get("/").unwrap();
            let request = |_| {
                let body = client.get("/").unwrap().text();
                client.quic.move_away();
                body
            };
            (0..6).map(request).collect()
        };
        (0..8).map(connection).collect()
    });
    for bodies in &seen {
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{seen:?}");
    }
    let used: BTreeSet<&String> = seen.iter().flatten().collect();
    assert_eq!(used.len(), 2, "both gateways have connections: {seen:?}");
    network.metric("xdp_packets_total", &[("action", "flow_by_connection_id")], |count| count >= 40.0);
}

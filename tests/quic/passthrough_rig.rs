//! A gateway that forwards QUIC, servers of a library behind it, and datagrams made by hand.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::Value;
use testkit::config::Toml;
use testkit::peers::{Certificate, Peer, scenario};
use testkit::{Config, Gateway, ms, ports};

/// TOML as it is.
pub(crate) struct Raw(pub(crate) String);

impl Toml for Raw {
    fn toml(&self) -> String {
        self.0.clone()
    }
}

/// A configuration with a passthrough to these addresses and nothing else; where it listens.
pub(crate) fn config(backends: &[SocketAddr]) -> (Config, SocketAddr) {
    let address = ports::reserve();
    let secret =
        std::env::temp_dir().join(format!("eg-passthrough-{}-{}", std::process::id(), address.port()));
    let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
    let config = Config::new().block("passthrough", "bind_addr", address.to_string()).block(
        "passthrough",
        "retry_secret_path",
        secret.display().to_string(),
    );
    let config = if backends.is_empty() { config } else { config.block("passthrough", "backends", backends) };
    (config, address)
}

/// A gateway that forwards to these addresses; where it listens.
pub(crate) fn gateway(backends: &[SocketAddr]) -> (Gateway, SocketAddr) {
    let (config, address) = config(backends);
    (Gateway::start(config), address)
}

/// A server of this name, with more arguments.
pub(crate) fn server(certificate: &Certificate, name: &str, more: &[&str]) -> Peer {
    server_at(ports::reserve(), certificate, name, more)
}

pub(crate) fn server_at(address: SocketAddr, certificate: &Certificate, name: &str, more: &[&str]) -> Peer {
    let (chain, key) = (certificate.chain.display().to_string(), certificate.key.display().to_string());
    let arguments = [&["--cert", &chain, "--key", &key, "--name", name], more].concat();
    Peer::start_at(address, "quic_server.py", &arguments)
}

/// What a client was answered in a scenario.
#[track_caller]
pub(crate) fn answers(address: SocketAddr, name: &str, arguments: &[&str]) -> Vec<String> {
    let saw = scenario("quic_client.py", address, name, arguments);
    assert!(saw["error"].is_null(), "{name} {arguments:?}: {saw}");
    strings(&saw["answers"])
}

pub(crate) fn strings(values: &Value) -> Vec<String> {
    let each = values.as_array().map(Vec::as_slice).unwrap_or_default();
    each.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
}

/// A client that holds connections and asks on them again and again.
pub(crate) fn holding(address: SocketAddr, count: usize, limit: &str) -> Peer {
    let count = count.to_string();
    Peer::start_at(address, "quic_client.py", &["hold", "--count", &count, "--limit", limit])
}

/// The answers of the next whole round of such a client.
#[track_caller]
pub(crate) fn next_round(client: &Peer) -> (Vec<String>, u64) {
    let last = client.events("answers").last().map_or(-1, |event| event["round"].as_i64().unwrap());
    let event = client
        .wait_event("answers", testkit::seconds(30), |event| event["round"].as_i64().unwrap() > last + 1);
    (strings(&event["answers"]), event["failed"].as_u64().unwrap())
}

/// A socket for datagrams made by hand.
pub(crate) fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(ms(1500))).unwrap();
    socket
}

/// What arrives at a socket within a moment, with its sender.
pub(crate) fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut room = [0; 2048];
    let (length, from) = socket.recv_from(&mut room).ok()?;
    Some((room[..length].to_vec(), from))
}

/// Which of these sockets something arrives at.
#[track_caller]
pub(crate) fn receiver(sockets: &[UdpSocket]) -> usize {
    sockets.iter().for_each(|socket| socket.set_read_timeout(Some(ms(20))).unwrap());
    let mut rounds = (0..40).flat_map(|_| 0..sockets.len());
    let found = rounds.find(|at| receive(&sockets[*at]).is_some()).expect("a backend has it");
    sockets.iter().for_each(|socket| socket.set_read_timeout(Some(ms(1500))).unwrap());
    found
}

/// Everything that arrives until nothing does for this long.
pub(crate) fn receive_all(socket: &UdpSocket, quiet: Duration) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(quiet)).unwrap();
    let all = std::iter::from_fn(|| receive(socket)).map(|(bytes, _)| bytes).collect();
    socket.set_read_timeout(Some(ms(1500))).unwrap();
    all
}

/// A packet with a long header of this type, filled up to `length` bytes. Nothing in it is encrypted.
pub(crate) fn long(version: u32, kind: u8, dcid: &[u8], scid: &[u8], length: usize) -> Vec<u8> {
    let mut packet = vec![0xc0 | kind << 4];
    packet.extend(version.to_be_bytes());
    for id in [dcid, scid] {
        packet.push(id.len() as u8);
        packet.extend(id);
    }
    if kind == 0 {
        packet.push(0);
    }
    let rest = length - packet.len() - 2;
    packet.extend((0x4000 | rest as u16).to_be_bytes());
    packet.resize(length, 0x5a);
    packet
}

/// A client's first packet.
pub(crate) fn initial(dcid: &[u8]) -> Vec<u8> {
    long(1, 0, dcid, b"client", 1200)
}

/// A packet of an established connection.
pub(crate) fn short(dcid: &[u8], length: usize) -> Vec<u8> {
    let mut packet = [&[0x40], dcid].concat();
    packet.resize(length, 0xa5);
    packet
}

/// Has the server at `backend` answer a first packet, so that its ID `issued` is known; where the gateway's flow comes from.
#[track_caller]
pub(crate) fn begin(
    client: &UdpSocket,
    address: SocketAddr,
    backend: &UdpSocket,
    chosen: &[u8],
    issued: &[u8],
) -> SocketAddr {
    client.send_to(&initial(chosen), address).unwrap();
    let (seen, flow) = receive(backend).expect("the backend gets the first packet");
    assert_eq!(seen, initial(chosen), "nothing is changed");
    backend.send_to(&long(1, 2, b"client", issued, 800), flow).unwrap();
    let (answer, from) = receive(client).expect("the client gets the answer");
    assert_eq!((answer, from), (long(1, 2, b"client", issued, 800), address));
    flow
}

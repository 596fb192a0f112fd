//! Paths that change, lose and reorder: a connection goes on as long as its peer is there.

use std::net::IpAddr;

use crate::rig::{MIB, Rig, config};
use testkit::front::Upload;
use testkit::quic::QuicClient;
use testkit::quic::relay::{Faults, Relay};
use testkit::{H3Client, Usage, eventually, ms, pattern, seconds};

fn through(relay: &Relay) -> H3Client {
    H3Client::over(QuicClient::default().connect(relay.address).unwrap()).unwrap()
}

/// Moves between requests.
fn moves(rig: &Rig) {
    let mut relay = Relay::to(rig.gateway.front());
    let mut client = through(&relay);
    for round in 0..40 {
        assert_eq!(client.get("/").unwrap_or_else(|e| panic!("move {round}: {e}")).text(), "one");
        relay.move_to(host(round));
    }
    assert_eq!(client.get("/").unwrap().text(), "one");
    assert_eq!(rig.gateway.metric("tls_handshakes_total", &[("result", "full")]), 1.0, "one connection");
}

/// Every third move leads to another host.
fn host(round: u8) -> IpAddr {
    [127, 0, 0, 1 + round / 3].into()
}

/// Moves in the middle of an upload, and of downloads.
fn moves_in_transfers(rig: &Rig) {
    let mut relay = Relay::to(rig.gateway.front());
    let mut client = through(&relay);
    let body = pattern::bytes(600_000);
    let id = client.open("POST", "/upload", &[], false).unwrap();
    for piece in body.chunks(200_000) {
        client.data(id, piece).unwrap();
        relay.move_away();
    }
    client.end(id).unwrap();
    assert_eq!(client.response(id).unwrap().text(), "600000 right");
    // What is in flight when a client moves is lost, as on a link that is gone.
    for round in 0..12 {
        let id = client.open("GET", "/bytes/3000000", &[], true).unwrap();
        client.until(id, seconds(10), |response| response.pattern.len() > 200_000).unwrap();
        relay.move_to(host(round));
        let answer = client.response(id).unwrap_or_else(|e| panic!("move {round} in a download: {e}"));
        answer.pattern.assert_complete(3_000_000);
    }
    rig.origin.assert_clean();
}

pub(crate) fn clients_move_to_another_port() {
    let rig = Rig::standard();
    moves(&rig);
    moves_in_transfers(&rig);
    rig.gateway.wait_metric("quic_client_moves_total", &[], |n| n >= 10.0);
    for what in ["sent", "received"] {
        rig.gateway.wait_metric("quic_packets_total", &[("what", what)], |n| n >= 30.0);
    }
}

/// The kernel chooses the worker by the port: a move leads to another one, which passes packets on.
pub(crate) fn clients_move_to_another_worker() {
    let rig = Rig::under(config().runtime("workers", 4), |listener| listener);
    moves(&rig);
    moves_in_transfers(&rig);
    // A client that moves knowingly, with an ID that it was given for that.
    let mut client = rig.client();
    for round in 0..6 {
        assert_eq!(client.get("/").unwrap_or_else(|e| panic!("move {round}: {e}")).text(), "one");
        client.quic.move_away();
    }
    assert_eq!(client.get("/bytes/300000").unwrap().pattern.len(), 300_000);
}

/// Attack Q-05: a client that moves with every packet costs no more than one that stays, and nobody else notices.
pub(crate) fn q_05_a_storm_of_moves() {
    let rig = Rig::under(config().runtime("workers", 2), |listener| listener);
    rig.assert_serves("nothing");
    let usage = Usage::watch(&rig.gateway);
    let mut relay = Relay::to(rig.gateway.front());
    let mut client = through(&relay);
    let mut other = rig.client();
    for _ in 0..150 {
        client.open("GET", "/", &[], true).ok();
        relay.move_away();
        assert_eq!(other.get("/").unwrap().text(), "one");
    }
    usage.assert_grew_less_than(&rig.gateway, 8 * MIB);
    rig.assert_serves("a storm of moves");
}

pub(crate) fn loss_and_reordering_change_nothing() {
    let rig = Rig::standard();
    for seed in 1..=4 {
        let relay =
            Relay::with(rig.gateway.front(), Faults { lost: 4, doubled: 3, late: 10, longest: 0 }, seed);
        let mut client = through(&relay);
        for size in [0, 1, 100_000] {
            let body = pattern::bytes(size);
            let answer = client.request("POST", "/upload", &[], &body);
            let answer = answer.unwrap_or_else(|e| panic!("seed {seed}, {size} bytes up: {e}"));
            assert_eq!(answer.text(), format!("{size} right"), "seed {seed}");
            let answer = client.get(&format!("/bytes/{}", size * 3));
            let answer = answer.unwrap_or_else(|e| panic!("seed {seed}, {size} bytes down: {e}"));
            answer.pattern.assert_complete(size as u64 * 3);
        }
        let ids: Vec<u64> = (0..20).map(|_| client.open("GET", "/bytes/5000", &[], true).unwrap()).collect();
        for id in ids {
            client.response(id).unwrap_or_else(|e| panic!("seed {seed}: {e}")).pattern.assert_complete(5000);
        }
        assert_eq!(client.heard().faults, [""; 0], "seed {seed}");
    }
    // A client that vanishes is found out, and its request given up.
    let rig = Rig::with(|listener| listener.quic_key("max_idle_timeout_ms", 1500));
    let relay = Relay::to(rig.gateway.front());
    let mut front = testkit::Front::connect(testkit::Version::H3, relay.address).unwrap();
    front.open("POST", "/stream-echo", &[], Upload::Unsized).unwrap();
    front.send(b"a beginning").unwrap();
    assert_eq!(front.head().unwrap().status, 200);
    relay.cut();
    testkit::eventually("the request is given up", seconds(10), || {
        rig.gateway.metric("accept_inflight", &[]) == 0.0
    });
    std::thread::sleep(ms(10));
    assert!(!rig.origin.last_request().complete);
}

/// Packets are as large as the path takes, and not as what the gateway itself accepts.
pub(crate) fn packets_grow_to_what_the_path_takes() {
    let rig = Rig::standard();
    let client = QuicClient::default().largest(65_527);
    for (longest, sizes) in [(0, 10_000..=16_383), (1400, 1380..=1400)] {
        let path = Relay::with(rig.gateway.front(), Faults { longest, ..Faults::default() }, 0);
        let mut client = H3Client::over(client.connect(path.address).unwrap()).unwrap();
        // A probe that is lost says so when later packets have been acknowledged.
        eventually("packets of that size", seconds(20), || {
            assert_eq!(client.get("/bytes/100000").unwrap().pattern.len(), 100_000);
            sizes.contains(&path.largest_from_server())
        });
    }
}

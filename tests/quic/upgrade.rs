//! Another process, or another listener, takes the sockets over: packets still reach the connections that are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::rig::{Rig, config};
use testkit::process::SIGTERM;
use testkit::quic::QuicClient;
use testkit::quic::relay::Relay;
use testkit::successor::Successor;
use testkit::{H3Client, eventually, ms, pattern, seconds};

/// Attack Q-15: an upgrade while handshakes, requests and moves to other ports are under way. No connection is reset, and no request is lost.
pub(crate) fn q_15_an_upgrade_loses_no_packet_of_a_connection() {
    let config = config().runtime("workers", 2).runtime("drain_timeout_ms", 20_000);
    let mut rig = Rig::under(config, |listener| listener);
    let at = rig.gateway.front();
    let (ends, served, begun) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (ends, served, begun) = (Arc::clone(&ends), Arc::clone(&served), Arc::clone(&begun));
            std::thread::spawn(move || {
                while !ends.load(Relaxed) {
                    let mut client = H3Client::connect(at).expect("a handshake");
                    begun.fetch_add(1, Relaxed);
                    for _ in 0..20 {
                        if !client.heard().goaways.is_empty() {
                            break;
                        }
                        let Ok(id) = client.open("GET", "/", &[], true) else { break };
                        match client.over_with(id) {
                            Ok(answer) if answer.status() == 200 => drop(served.fetch_add(1, Relaxed)),
                            // Not processed, so says GOAWAY.
                            _ if client.heard().goaways.last().is_some_and(|last| *last <= id) => {}
                            other => panic!("a request was lost: {other:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    // Connections of the process that is to go: one that uploads, one that waits, both behind a NAT that forgets them.
    let mut relays = [Relay::to(at), Relay::to(at)];
    let through =
        |relay: usize| H3Client::over(QuicClient::default().connect(relays[relay].address).unwrap()).unwrap();
    let (mut uploads, mut waits) = (through(0), through(1));
    let body = pattern::bytes(2_000_000);
    let upload = uploads.open("POST", "/upload", &[], false).unwrap();
    uploads.data(upload, &body[..500_000]).unwrap();
    let slow = waits.open("GET", "/slow/4000", &[], true).unwrap();
    eventually("traffic", seconds(10), || served.load(Relaxed) > 100);

    let successor = Successor::takes_over(&rig.gateway);
    let (before, after) = (begun.load(Relaxed), served.load(Relaxed));
    eventually("connections to the new process", seconds(10), || begun.load(Relaxed) > before + 20);
    assert!(served.load(Relaxed) > after);
    for (round, piece) in body[500_000..].chunks(100_000).enumerate() {
        uploads.data(upload, piece).unwrap();
        relays[0].move_to([127, 0, 0, 1 + round as u8 / 4].into());
    }
    uploads.end(upload).unwrap();
    relays[1].move_away();
    assert_eq!(uploads.response(upload).unwrap().text(), "2000000 right");
    assert_eq!(waits.response(slow).unwrap().text(), "one");
    assert!(successor.is_alive());
    ends.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    drop((uploads, waits));
    assert_eq!(rig.gateway.process.wait_exit(seconds(25)), Some(0));
    successor.signal(SIGTERM);
    eventually("the new process ends", seconds(15), || !successor.is_alive());
    rig.origin.assert_clean();
}

/// With fewer workers than sockets a worker has several, and with more, workers share one.
pub(crate) fn other_numbers_of_workers_take_the_sockets_over() {
    for (first, second) in [(3, 1), (1, 3)] {
        let mut rig = Rig::under(config().runtime("workers", first), |listener| listener);
        let text = std::fs::read_to_string(rig.gateway.dir().join("lb.toml")).unwrap();
        let text = text.replace(&format!("workers = {first}"), &format!("workers = {second}"));
        rig.gateway.write_config(&text);
        let successor = Successor::takes_over(&rig.gateway);
        assert_eq!(rig.gateway.process.wait_exit(seconds(20)), Some(0));
        let mut relay = Relay::to(rig.gateway.front());
        let mut client = H3Client::over(QuicClient::default().connect(relay.address).unwrap()).unwrap();
        for round in 0..12 {
            let answer = client.get("/").unwrap_or_else(|e| panic!("{first} to {second}, move {round}: {e}"));
            assert_eq!(answer.text(), "one");
            relay.move_away();
            std::thread::sleep(ms(1));
        }
        drop(successor);
    }
}

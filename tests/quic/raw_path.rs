//! Relayed connections on paths that lose, change and end, and with clients that mean harm.

use std::net::UdpSocket;

use testkit::peers::{Peer, scenario};
use testkit::quic::quinn::{Connection, ReadError};
use testkit::quic::relay::{Faults, Relay};
use testkit::quic::server::{QuicServer, echo, spawn};
use testkit::quic::{code, code_of, site, soon};
use testkit::successor::Successor;
use testkit::{Gateway, H3Client, Listener, Usage, Version, ms, pattern, ports, seconds};

use crate::passthrough_rig::answers;
use crate::raw_rig::{PROTOCOL, RawRig, client, config, now, read, send};
use crate::rig::MIB;

/// Asks on `count` streams at once, each with another size, half of them with an end that comes alone.
async fn ask(connection: &Connection, count: usize) {
    let mut all = Vec::new();
    for number in 0..count {
        let connection = connection.clone();
        all.push(spawn(async move {
            let body = pattern::bytes(number * 97 % 20_000);
            let (mut up, mut down) = connection.open_bi().await.unwrap();
            let sent = body.clone();
            spawn(async move {
                up.write_all(&sent).await.unwrap();
                if number % 2 == 0 {
                    soon(ms(number as u64 % 30), std::future::pending::<()>()).await;
                }
                up.finish().unwrap();
            });
            assert!(read(&mut down).await == body, "stream {number}");
        }));
    }
    let mut stuck = Vec::new();
    for (number, one) in all.into_iter().enumerate() {
        match soon(if stuck.is_empty() { seconds(12) } else { ms(1) }, one).await {
            Some(one) => one.unwrap(),
            None => stuck.push(number),
        }
    }
    assert!(stuck.is_empty(), "streams that do not come to their end: {stuck:?}");
}

pub(crate) fn loss_on_both_sides_changes_nothing() {
    for seed in 1..=4 {
        let faults = Faults { lost: 4, doubled: 3, late: 10, ..Faults::default() };
        let server = QuicServer::start(&[PROTOCOL]);
        let behind = Relay::with(server.address, faults, seed + 100);
        let gateway = Gateway::start(config().listener(Listener::quic_relay(behind.address)));
        let before = Relay::with(gateway.front(), faults, seed);
        let client = client().connect(before.address).unwrap();
        let backend = server.accept();
        echo(backend.clone());
        now(ask(&client.quic, 60));
        // One way, and resets among them.
        for number in 0..20u32 {
            now(async {
                let mut up = client.quic.open_uni().await.unwrap();
                send(&mut up, &number.to_be_bytes()).await;
                assert_eq!(read(&mut client.quic.accept_uni().await.unwrap()).await, number.to_be_bytes());
            });
            now(async {
                let (mut up, mut down) = client.quic.open_bi().await.unwrap();
                up.write_all(b"a beginning").await.unwrap();
                assert!(down.read_chunk(100, true).await.unwrap().is_some());
                up.reset(code(number.into())).unwrap();
                assert_eq!(down.read_chunk(100, true).await, Err(ReadError::Reset(code(number.into()))));
            });
        }
        now(async {
            let large = pattern::bytes(1 << 20);
            let (mut up, mut down) = client.quic.open_bi().await.unwrap();
            let sent = large.clone();
            spawn(async move { send(&mut up, &sent).await });
            assert!(read(&mut down).await == large, "seed {seed}");
        });
        gateway.wait_metric("quic_relay_streams", &[], |n| n == 0.0);
        // A packet that closes a connection is acknowledged by none: where it and its repetitions are lost, the peer hears of it by its timeout.
        before.heal();
        behind.heal();
        let (closes, hears) = if seed % 2 == 0 { (&client.quic, &backend) } else { (&backend, &client.quic) };
        closes.close(code(9), b"");
        assert_eq!(code_of(&now(hears.closed())), Some((true, 9)), "seed {seed}");
    }
}

fn moves(rig: &RawRig) {
    let mut relay = Relay::to(rig.gateway.front());
    let client = client().connect(relay.address).unwrap();
    echo(rig.server.accept());
    for round in 0..20u8 {
        now(ask(&client.quic, 3));
        relay.move_to([127, 0, 0, 1 + round / 4].into());
    }
    for round in 0..6u8 {
        let (mut up, mut down) = now(client.quic.open_bi()).unwrap();
        let body = pattern::bytes(2 << 20);
        let sent = body.clone();
        spawn(async move { send(&mut up, &sent).await });
        let mut first = vec![0; 300_000];
        now(down.read_exact(&mut first)).unwrap();
        relay.move_to([127, 0, 0, 1 + round].into());
        let rest = now(read(&mut down));
        assert!(first == body[..300_000] && rest == body[300_000..], "move {round}");
    }
}

pub(crate) fn relayed_clients_move() {
    moves(&RawRig::standard());
    let rig = RawRig::of(QuicServer::start(&[PROTOCOL]), config().runtime("workers", 4), |listener| listener);
    moves(&rig);
}

pub(crate) fn relays_outlive_an_upgrade() {
    let config = config().runtime("workers", 2).runtime("drain_timeout_ms", 20_000);
    let mut rig = RawRig::of(QuicServer::start(&[PROTOCOL]), config, |listener| listener);
    let mut relay = Relay::to(rig.gateway.front());
    let old = client().connect(relay.address).unwrap();
    echo(rig.server.accept());
    let (mut up, mut down) = now(old.quic.open_bi()).unwrap();
    let mut said = async |what: &[u8]| {
        up.write_all(what).await.unwrap();
        let mut heard = vec![0; what.len()];
        down.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, what);
    };
    now(said(b"before"));
    let _successor = Successor::takes_over(&rig.gateway);
    for round in 0..5u8 {
        now(said(&[round; 1000]));
        relay.move_to([127, 0, 0, 1 + round].into());
        let (new, server) = rig.connect();
        echo(server);
        now(ask(&new.quic, 3));
    }
    now(async {
        up.finish().unwrap();
        assert_eq!(read(&mut down).await, b"");
    });
    assert_eq!(code_of(&old.closed(seconds(10)).unwrap()), Some((false, 0)));
    assert_eq!(rig.gateway.process.wait_exit(seconds(10)), Some(0));
}

/// Attack Q-01: first packets from addresses that nobody has. Every one of them would cost a backend a handshake.
pub(crate) fn q_01_forged_hellos_reach_no_backend() {
    let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
    backend.set_read_timeout(Some(ms(700))).unwrap();
    let gateway = Gateway::start(config().listener(Listener::quic_relay(backend.local_addr().unwrap())));
    for _ in 0..5 {
        let forged = UdpSocket::bind("127.0.0.1:0").unwrap();
        for datagram in client().hello() {
            forged.send_to(&datagram, gateway.front()).unwrap();
        }
    }
    assert!(backend.recv_from(&mut [0; 2000]).is_err(), "the backend hears of a hello");
    let honest = std::thread::spawn({
        let at = gateway.front();
        move || client().connect(at).map(drop)
    });
    assert!(backend.recv_from(&mut [0; 2000]).is_ok(), "the backend hears of a client");
    honest.join().unwrap().ok();
    // With a Retry before each handshake.
    let rig = RawRig::with(|listener| listener.quic_key("retry", "always"));
    let (client, server) = rig.connect();
    echo(server);
    now(ask(&client.quic, 5));
}

/// Attack Q-18: streams that are opened and given up at once, faster than the backend takes them.
pub(crate) fn q_18_streams_that_are_given_up_cost_no_memory() {
    let rig = RawRig::standard();
    let (other, server) = rig.connect();
    echo(server);
    let usage = Usage::watch(&rig.gateway);
    let (client, server) = rig.connect();
    spawn(async move {
        let mut kept = Vec::new();
        while let Ok(stream) = server.accept_bi().await {
            // A server that is slow to give streams up.
            kept.push(stream);
            if kept.len() > 50 {
                kept.clear();
            }
        }
    });
    let mut opened = 0;
    let flood = async {
        while opened < 20_000 && client.quic.close_reason().is_none() {
            let Ok((mut up, mut down)) = client.quic.open_bi().await else { break };
            up.write_all(b"x").await.ok();
            up.reset(code(1)).ok();
            down.stop(code(2)).ok();
            opened += 1;
        }
    };
    testkit::quic::wait(seconds(10), flood).ok();
    assert!(opened > 100, "{opened}");
    usage.assert_grew_less_than(&rig.gateway, 24 * MIB);
    now(ask(&other.quic, 10));
    // And streams one way that the server stops.
    let (client, server) = rig.connect();
    spawn(async move {
        while let Ok(mut stream) = server.accept_uni().await {
            stream.stop(code(3)).ok();
        }
    });
    let mut stopped = 0;
    testkit::quic::wait(seconds(5), async {
        while let Ok(mut up) = client.quic.open_uni().await {
            up.write_all(b"x").await.ok();
            if up.stopped().await != Ok(Some(code(3))) {
                break;
            }
            stopped += 1;
        }
    })
    .ok();
    assert!(stopped >= 200, "{stopped} of 256");
}

pub(crate) fn a_reload_moves_new_connections_to_another_backend() {
    let mut rig = RawRig::standard();
    let (old, server) = rig.connect();
    echo(server);
    let other = QuicServer::start(&[PROTOCOL]);
    let change = |rig: &mut RawRig, listener: Listener| {
        let config = rig.gateway.config.clone().with_listener(listener.at(rig.gateway.front()));
        let verdict = rig.gateway.reload(config);
        assert!(matches!(verdict, testkit::gateway::Reload::Complete(_)), "{verdict:?}");
    };
    let at = rig.gateway.front();
    change(&mut rig, Listener::quic_relay(other.address));
    let new = client().connect(at).unwrap();
    echo(other.accept());
    now(ask(&new.quic, 3));
    now(ask(&old.quic, 3));
    // And to HTTP/3.
    let origin = testkit::Origin::standard(Version::H1, "one");
    let testkit::Origin::H1(backend) = &origin else { panic!("another origin") };
    change(&mut rig, Listener::quic().backend(backend.address));
    testkit::eventually("HTTP/3 is served", seconds(5), || {
        H3Client::connect(at)
            .is_ok_and(|mut client| client.get("/").is_ok_and(|answer| answer.text() == "one"))
    });
    // The listener has ended, and its connections with their streams.
    assert_eq!(code_of(&old.closed(seconds(10)).unwrap()), Some((false, 0)));
}

/// Another library on both sides.
pub(crate) fn clients_and_servers_of_aioquic_are_relayed() {
    let directory = site().directory();
    let file = |name: &str| directory.join(name).display().to_string();
    let (chain, key) = (file("quic.pem"), file("quic.key"));
    let arguments = ["--cert", &chain, "--key", &key, "--name", "python"];
    let server = Peer::start_at(ports::reserve(), "quic_server.py", &arguments);
    let gateway = Gateway::start(config().listener(Listener::quic_relay(server.address)));
    let hello = answers(gateway.front(), "echo", &["--count", "3"]);
    assert_eq!(hello, ["python:hello"; 3]);
    assert_eq!(answers(gateway.front(), "echo", &["--ask", "bytes 1000000"]), ["1000000"]);
    assert_eq!(answers(gateway.front(), "rebind", &["--count", "3"]), ["python:hello"; 4]);
    assert_eq!(answers(gateway.front(), "migrate", &["--count", "2"]), ["python:hello"; 3]);
    let many = scenario("quic_client.py", gateway.front(), "many", &["--count", "20"]);
    assert!(many["error"].is_null(), "{many}");
}

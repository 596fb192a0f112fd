//! QUIC that is relayed: streams, datagrams, resets, protocols and the ends of connections pass as they are.

use testkit::quic::quinn::{ReadError, VarInt, WriteError};
use testkit::quic::server::{QuicServer, echo};
use testkit::quic::{ConnectionError, code, code_of};
use testkit::{Config, Gateway, Listener, Usage, ms, pattern, ports, seconds};

use crate::raw_rig::{PROTOCOL, RawRig, client, config, now, read, send};
use crate::rig::MIB;

pub(crate) fn streams_of_all_kinds_pass_whoever_opens_them() {
    let rig = RawRig::standard();
    let (client, server) = rig.connect();
    let (client, large) = (&client.quic, pattern::bytes(1 << 20));
    now(async {
        // Bytes, a pause, bytes, and an end that comes alone.
        let (mut up, mut down) = client.open_bi().await.unwrap();
        up.write_all(b"one ").await.unwrap();
        let (mut answer, mut question) = server.accept_bi().await.unwrap();
        assert_eq!(question.read_chunk(100, true).await.unwrap().unwrap().bytes, "one ");
        up.write_all(b"two").await.unwrap();
        assert_eq!(question.read_chunk(100, true).await.unwrap().unwrap().bytes, "two");
        up.finish().unwrap();
        assert_eq!(question.read_chunk(100, true).await.unwrap(), None);
        assert_eq!((up.id(), answer.id()), (question.id(), down.id()), "identifiers are the same");
        send(&mut answer, b"three").await;
        assert_eq!(read(&mut down).await, b"three");
        // One that the server opens.
        let (mut up, mut down) = server.open_bi().await.unwrap();
        send(&mut up, b"from the server").await;
        let (mut answer, mut question) = client.accept_bi().await.unwrap();
        assert_eq!(read(&mut question).await, b"from the server");
        send(&mut answer, b"").await;
        assert_eq!(read(&mut down).await, b"");
        // One way.
        send(&mut client.open_uni().await.unwrap(), &large).await;
        assert!(read(&mut server.accept_uni().await.unwrap()).await == large);
        send(&mut server.open_uni().await.unwrap(), &large).await;
        assert!(read(&mut client.accept_uni().await.unwrap()).await == large);
    });
    rig.gateway.wait_metric("quic_relay_streams", &[], |n| n == 0.0);
    assert_eq!(rig.gateway.metric("quic_relay_streams_total", &[]), 4.0);
    assert!(rig.gateway.metric("bytes_client_to_backend", &[]) >= MIB as f64);
}

pub(crate) fn a_mebibyte_each_way_on_many_streams() {
    let rig = RawRig::standard();
    let usage = Usage::watch(&rig.gateway);
    for _ in 0..2 {
        let (client, server) = rig.connect();
        echo(server);
        let body = pattern::bytes(1 << 20);
        now(async {
            let mut all = Vec::new();
            for _ in 0..16 {
                let (mut up, mut down) = client.quic.open_bi().await.unwrap();
                let body = body.clone();
                testkit::quic::server::spawn(async move { send(&mut up, &body).await });
                all.push(async move { read(&mut down).await });
            }
            for one in all {
                assert!(one.await == body);
            }
        });
    }
    usage.assert_grew_less_than(&rig.gateway, 24 * MIB);
}

/// One stream after the other, each with one exchange: a stream that is over gives its place to the next.
pub(crate) fn streams_follow_each_other_within_the_limit() {
    let rig = RawRig::with(|listener| listener.raw_key("max_relay_streams", 4));
    let (client, server) = rig.connect();
    echo(server);
    now(async {
        for round in 0..200u32 {
            let (mut up, mut down) = client.quic.open_bi().await.unwrap();
            send(&mut up, &round.to_be_bytes()).await;
            assert_eq!(read(&mut down).await, round.to_be_bytes());
            let mut up = client.quic.open_uni().await.unwrap();
            send(&mut up, b"one way").await;
            assert_eq!(read(&mut client.quic.accept_uni().await.unwrap()).await, b"one way");
        }
    });
    // Not more than four at once.
    let (client, _server) = rig.connect();
    let open = || testkit::quic::wait(ms(300), client.quic.open_bi());
    let held: Vec<_> = (0..4).map(|_| open().expect("a stream").unwrap()).collect();
    assert!(open().is_err(), "a fifth stream");
    drop(held);
}

pub(crate) fn resets_and_stops_pass_with_their_codes() {
    let rig = RawRig::standard();
    let (client, server) = rig.connect();
    let client = &client.quic;
    for (round, (one, other)) in [(client, &server), (&server, client)].into_iter().enumerate() {
        let base = 1000 * round as u64;
        now(async {
            // A reset, of a stream that was read and of one that was not.
            let (mut up, _down) = one.open_bi().await.unwrap();
            up.write_all(b"a beginning").await.unwrap();
            let (_answer, mut question) = other.accept_bi().await.unwrap();
            question.read_chunk(100, true).await.unwrap();
            up.reset(code(base + 7)).unwrap();
            assert_eq!(question.read_chunk(100, true).await, Err(ReadError::Reset(code(base + 7))));
            let mut up = one.open_uni().await.unwrap();
            up.reset(code(base + (1 << 40))).unwrap();
            let mut question = other.accept_uni().await.unwrap();
            assert_eq!(question.read_chunk(100, true).await, Err(ReadError::Reset(code(base + (1 << 40)))));
            // A stop, by the one that has opened the stream and by the other.
            let (mut up, mut down) = one.open_bi().await.unwrap();
            up.write_all(b"a beginning").await.unwrap();
            let (answer, mut question) = other.accept_bi().await.unwrap();
            down.stop(code(base + 9)).unwrap();
            assert_eq!(answer.stopped().await, Ok(Some(code(base + 9))));
            question.stop(code(base + 11)).unwrap();
            assert_eq!(up.stopped().await, Ok(Some(code(base + 11))));
            // A stop while bytes wait for room.
            let mut up = one.open_uni().await.unwrap();
            let mut stopped = false;
            let mut question = None;
            for piece in pattern::bytes(8 << 20).chunks(100_000) {
                let written = tokio_timeout(up.write_all(piece)).await;
                match written {
                    None => {
                        let mut recv = other.accept_uni().await.unwrap();
                        recv.stop(code(base + 13)).unwrap();
                        question = Some(recv);
                        assert_eq!(up.write_all(piece).await, Err(WriteError::Stopped(code(base + 13))));
                        stopped = true;
                        break;
                    }
                    Some(written) => written.unwrap(),
                }
            }
            assert!(stopped && question.is_some(), "8 MiB went into a stream that nobody reads");
        });
    }
    let path = |path| rig.gateway.wait_metric("quic_relay_resets_total", &[("path", path)], |n| n >= 4.0);
    assert!(path("to_backend") >= 4.0 && path("to_client") >= 4.0);
}

/// What a future comes to in a moment.
async fn tokio_timeout<T>(future: impl std::future::Future<Output = T>) -> Option<T> {
    testkit::quic::soon(ms(500), future).await
}

pub(crate) fn ends_of_connections_pass_with_their_codes() {
    let rig = RawRig::standard();
    let ended = |reason, count: f64| {
        rig.gateway.wait_metric("quic_relays_ended_total", &[("reason", reason)], |n| n == count);
    };
    let (client, server) = rig.connect();
    client.quic.close(code(0x1234_5678), b"the client has enough");
    let ConnectionError::ApplicationClosed(close) = now(server.closed()) else { panic!("another end") };
    assert_eq!((close.error_code, &close.reason[..]), (code(0x1234_5678), &b"the client has enough"[..]));
    ended("client", 1.0);
    let (client, server) = rig.connect();
    // What was sent before arrives before the end.
    now(async {
        let mut up = server.open_uni().await.unwrap();
        send(&mut up, &pattern::bytes(300_000)).await;
        let mut all = client.quic.accept_uni().await.unwrap();
        up.stopped().await.ok();
        server.close(code(77), b"the server has enough");
        assert!(read(&mut all).await == pattern::bytes(300_000));
    });
    assert_eq!(code_of(&client.closed(seconds(5)).unwrap()), Some((true, 77)));
    ended("backend", 1.0);
    rig.gateway.wait_metric("accept_inflight", &[], |n| n == 0.0);
    rig.gateway.wait_metric("backend_inflight", &[], |n| n == 0.0);
}

pub(crate) fn datagrams_pass_both_ways() {
    let rig = RawRig::standard();
    let (client, server) = rig.connect();
    let client = &client.quic;
    now(async {
        for size in [0, 1, 500, 1000] {
            client.send_datagram(vec![1; size].into()).unwrap();
            assert_eq!(server.read_datagram().await.unwrap(), vec![1; size]);
            server.send_datagram(vec![2; size].into()).unwrap();
            assert_eq!(client.read_datagram().await.unwrap(), vec![2; size]);
        }
    });
    rig.gateway.wait_metric("quic_relay_datagrams_total", &[("path", "to_backend")], |n| n == 4.0);
    rig.gateway.wait_metric("quic_relay_datagrams_total", &[("path", "to_client")], |n| n == 4.0);
    // A server that takes none.
    let server = QuicServer::with(&[PROTOCOL], |transport| {
        transport.datagram_receive_buffer_size(None);
    });
    let rig = RawRig::of(server, config(), |listener| listener);
    let (client, _server) = rig.connect();
    client.quic.send_datagram(vec![1; 10].into()).unwrap();
    rig.gateway.wait_metric("quic_relay_datagrams_dropped_total", &[("reason", "unsupported")], |n| n == 1.0);
    // A listener that has none.
    let rig = RawRig::with(|listener| listener.raw_key("dgram_queue_cap", 0));
    let (client, _server) = rig.connect();
    assert_eq!(client.quic.max_datagram_size(), None);
}

/// Datagrams for a path that takes less: as many as the queue has room for are kept, and the newest are dropped.
pub(crate) fn q_17_a_flood_of_datagrams_is_cut_to_the_queue() {
    let rig = RawRig::with(|listener| listener.raw_key("dgram_queue_cap", 8));
    let usage = Usage::watch(&rig.gateway);
    let (client, server) = rig.connect();
    for number in 0..20_000u32 {
        let datagram = [&number.to_be_bytes()[..], &[0; 900]].concat();
        client.quic.send_datagram(datagram.into()).unwrap();
        if number % 50 == 0 {
            std::thread::sleep(ms(1));
        }
    }
    let mut last = None;
    while let Ok(datagram) = testkit::quic::wait(ms(500), server.read_datagram()) {
        let number = u32::from_be_bytes(datagram.unwrap()[..4].try_into().unwrap());
        assert!(last.is_none_or(|last| last < number), "in order: {last:?}, {number}");
        last = Some(number);
    }
    assert!(last.is_some());
    usage.assert_grew_less_than(&rig.gateway, 16 * MIB);
    let passed = rig.gateway.metric("quic_relay_datagrams_total", &[("path", "to_backend")]);
    assert!(passed > 0.0);
}

pub(crate) fn the_protocol_of_the_client_is_that_of_the_backend() {
    let alpn = |connection: &testkit::quic::quinn::Connection| {
        let data = connection.handshake_data().unwrap();
        let data = data.downcast::<testkit::quic::quinn::crypto::rustls::HandshakeData>().unwrap();
        String::from_utf8(data.protocol.unwrap()).unwrap()
    };
    let rig = RawRig::of(QuicServer::start(&["one", "two"]), config(), |listener| listener);
    for (offered, chosen) in [(&["one", "two"], "one"), (&["two", "one"], "two")] {
        let (client, server) = rig.connect_as(client().alpn(offered));
        assert_eq!((alpn(&client.quic), alpn(&server)), (chosen.to_owned(), chosen.to_owned()));
    }
    // One that the backend does not speak.
    let lost = client().alpn(&["three"]).connect(rig.gateway.front()).unwrap();
    assert_eq!(code_of(&lost.closed(seconds(5)).unwrap()), Some((false, 0x2)));
    rig.gateway.wait_metric("quic_relays_ended_total", &[("reason", "unreachable")], |n| n == 1.0);
    // Some of them are relayed.
    let only = |listener: Listener| listener.raw_key("alpn", vec!["two".to_owned(), "four".to_owned()]);
    let rig = RawRig::of(QuicServer::start(&["one", "two"]), config(), only);
    let (client, server) = rig.connect_as(crate::raw_rig::client().alpn(&["one", "two"]));
    assert_eq!((alpn(&client.quic), alpn(&server)), ("two".to_owned(), "two".to_owned()));
    let refused = crate::raw_rig::client().alpn(&["one"]).connect(rig.gateway.front()).unwrap_err();
    // no_application_protocol (RFC 9001 section 8.1).
    assert_eq!(code_of(&refused), Some((false, 0x178)));
    assert!(rig.server.accept_within(ms(300)).is_none(), "the backend hears of it");
}

pub(crate) fn a_client_without_a_backend_is_told() {
    let nowhere = ports::reserve();
    let listener = Listener::quic_relay(nowhere);
    let gateway = Gateway::start(
        config().runtime("connect_timeout_ms", 700).runtime("handshake_timeout_ms", 700).listener(listener),
    );
    let client = client().connect(gateway.front()).unwrap();
    assert_eq!(code_of(&client.closed(seconds(10)).unwrap()), Some((false, 0x2)));
    gateway.wait_metric("quic_relays_ended_total", &[("reason", "unreachable")], |n| n == 1.0);
    gateway.wait_metric("backend_connect_failures_total", &[], |n| n >= 1.0);
    gateway.wait_metric("accept_inflight", &[], |n| n == 0.0);
}

/// Backends in a list are taken in turn, and one that is dead is passed over.
pub(crate) fn backends_are_balanced() {
    let servers = [QuicServer::start(&[PROTOCOL]), QuicServer::start(&[PROTOCOL])];
    let listener = Listener::quic().raw_key("max_relay_streams", 10);
    let listener = servers.iter().fold(listener, |listener, server| listener.h3_backend(server.address));
    let gateway = Gateway::start(
        config()
            .runtime("connect_timeout_ms", 700)
            .runtime("handshake_timeout_ms", 700)
            .listener(listener.h3_backend(ports::reserve())),
    );
    let held: Vec<_> = (0..6).map(|_| client().connect(gateway.front()).unwrap()).collect();
    for server in &servers {
        let mut count = 0;
        while server.accept_within(seconds(3)).is_some() {
            count += 1;
            if count == 2 {
                break;
            }
        }
        assert_eq!(count, 2, "at {}", server.address);
    }
    drop(held);
}

pub(crate) fn silence_ends_both_sides_and_a_sign_of_life_keeps_both() {
    let rig = RawRig::with(|listener| listener.quic_key("max_idle_timeout_ms", 900));
    let (client, server) = rig.connect();
    assert!(matches!(client.closed(seconds(5)).unwrap(), ConnectionError::TimedOut));
    now(server.closed());
    rig.gateway.wait_metric("accept_inflight", &[], |n| n == 0.0);
    // PINGs of the client keep the backend's connection, though they end at the gateway.
    let (client, server) = rig.connect_as(crate::raw_rig::client().keep_alive(ms(200)));
    std::thread::sleep(ms(3000));
    assert_eq!((client.quic.close_reason(), server.close_reason()), (None, None));
    client.quic.close(VarInt::from_u32(5), b"");
    assert_eq!(code_of(&now(server.closed())), Some((true, 5)));
}

/// A client that reads nothing stops the server, and one that vanishes leaves nothing behind.
pub(crate) fn readers_that_stop_hold_little() {
    let rig = RawRig::standard();
    let usage = Usage::watch(&rig.gateway);
    let pairs: Vec<_> = (0..8).map(|_| rig.connect()).collect();
    for (_, server) in &pairs {
        for _ in 0..4 {
            let server = server.clone();
            testkit::quic::server::spawn(async move {
                let mut up = server.open_uni().await.unwrap();
                up.write_all(&vec![7; 16 << 20]).await.ok();
            });
        }
    }
    std::thread::sleep(seconds(3));
    // What quinn's client lets out, and the windows of the gateway.
    usage.assert_grew_less_than(&rig.gateway, 8 * 4 * MIB);
    // They are read on as soon as somebody does.
    let mut stream = now(pairs[0].0.quic.accept_uni()).unwrap();
    let mut room = vec![0; 2 << 20];
    now(stream.read_exact(&mut room)).unwrap();
    assert!(room.iter().all(|byte| *byte == 7));
}

pub(crate) fn a_drain_waits_for_streams() {
    let mut rig = RawRig::of(
        QuicServer::start(&[PROTOCOL]),
        Config::new().runtime("workers", 1).runtime("drain_timeout_ms", 8000).runtime("drain_jitter_ms", 0),
        |listener| listener,
    );
    let (idle, _idle_server) = rig.connect();
    let (client, server) = rig.connect();
    let (mut up, mut down) = now(client.quic.open_bi()).unwrap();
    now(up.write_all(b"a question")).unwrap();
    let (mut answer, _question) = now(server.accept_bi()).unwrap();
    rig.gateway.process.signal(testkit::process::SIGTERM);
    assert_eq!(code_of(&idle.closed(seconds(5)).unwrap()), Some((false, 0)), "without a stream");
    std::thread::sleep(ms(500));
    now(async {
        up.finish().unwrap();
        send(&mut answer, b"an answer").await;
        assert_eq!(read(&mut down).await, b"an answer");
    });
    assert_eq!(code_of(&client.closed(seconds(5)).unwrap()), Some((false, 0)));
    assert_eq!(code_of(&now(server.closed())), Some((false, 0)));
    assert_eq!(rig.gateway.process.wait_exit(seconds(10)), Some(0));
}

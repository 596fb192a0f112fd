//! Datagrams by hand: what comes from nobody, from elsewhere, or from another time.

use crate::rig::{MIB, Rig, config};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use testkit::h3::code;
use testkit::h3::frame::{headers, varint};
use testkit::h3::qpack::{self, indexed};
use testkit::quic::QuicClient;
use testkit::{Gateway, H3Client, Usage, ms, seconds};

/// A packet of version 1 that looks like a client's first, with nothing in it that can be decrypted.
fn initial(to: &[u8], token: &[u8], length: usize) -> Vec<u8> {
    long(1, to, &[7; 8], token, length)
}

fn long(version: u32, to: &[u8], from: &[u8], token: &[u8], length: usize) -> Vec<u8> {
    let mut packet = vec![0xc3];
    packet.extend(version.to_be_bytes());
    for id in [to, from] {
        packet.push(id.len() as u8);
        packet.extend(id);
    }
    packet.extend(varint(token.len() as u64));
    packet.extend(token);
    let rest = length.saturating_sub(packet.len() + 2);
    packet.extend((rest as u16 | 0x4000).to_be_bytes());
    packet.extend((0..rest).map(|at| (at * 31 + to.len()) as u8));
    packet.truncate(length);
    packet
}

/// A socket at some address of the loopback network.
fn at(address: [u8; 4]) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from((address, 0))).unwrap();
    socket.set_read_timeout(Some(ms(300))).unwrap();
    socket
}

/// Everything that comes until nothing has come for `span`.
fn drain(socket: &UdpSocket, span: Duration) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(span)).unwrap();
    let mut bytes = vec![0; 65_536];
    std::iter::from_fn(|| socket.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec())).collect()
}

/// What comes where something is to come: the first datagram may take `most`, the others come within `span` of the one before.
fn replies(socket: &UdpSocket, most: Duration, span: Duration) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(most)).unwrap();
    let mut bytes = vec![0; 65_536];
    let first = socket.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec());
    first.into_iter().flat_map(|first| [vec![first], drain(socket, span)].concat()).collect()
}

/// What a datagram of the gateway says of its version: 0 is Version Negotiation.
fn version(datagram: &[u8]) -> Option<u32> {
    (datagram[0] & 0x80 != 0).then(|| u32::from_be_bytes(datagram[1..5].try_into().unwrap()))
}

fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xf0 == 0xf0 && version(datagram) == Some(1)
}

/// The ID that a Retry has chosen, and its token.
fn retry(datagram: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let own = usize::from(datagram[5]);
    let chosen = usize::from(datagram[6 + own]);
    let token = 7 + own + chosen;
    (datagram[7 + own..token].to_vec(), datagram[token..datagram.len() - 16].to_vec())
}

pub(crate) fn q_02_garbage_is_dropped() {
    let rig = Rig::standard();
    let socket = at([127, 0, 0, 1]);
    let send = |bytes: &[u8]| assert!(socket.send_to(bytes, rig.gateway.front()).is_ok());
    let hello = QuicClient::default().hello();
    let mut sent = 0;
    for length in (0..60).chain((60..hello[0].len()).step_by(97)) {
        // A first packet that is cut, one that is cut and filled up again, and noise.
        send(&hello[0][..length]);
        let mut filled = hello[0][..length].to_vec();
        filled.resize(1200, 0);
        send(&filled);
        let noise: Vec<u8> = (0..length).map(|at| (at * 167 + length * 13) as u8).collect();
        send(&noise);
        sent += 2 * length + 1200;
    }
    for first in 0..=255 {
        let mut packet = initial(&[3; 8], &[], 1200);
        packet[0] = first;
        send(&packet);
        send(&packet[..40]);
        sent += 1240;
    }
    // IDs that are longer than any may be, and lengths that lie.
    send(&long(1, &[5; 21], &[1; 8], &[], 1200));
    send(&long(1, &[5; 8], &[1; 255], &[], 1200));
    send(&long(1, &[], &[], &[], 1200));
    send(&long(1, &[5; 7], &[], &[], 1200));
    let mut lying = initial(&[9; 8], &[], 1200);
    lying[23] = 0xff;
    send(&lying);
    // Two hellos in one datagram, and noise behind a whole one.
    for behind in [&hello[0][..], &[0x40; 100], &[0; 300], &[0xff; 50]] {
        send(&[&hello[0][..], behind].concat());
        sent += hello[0].len() + behind.len();
    }
    for datagram in &hello {
        (0..3).for_each(|_| send(datagram));
        sent += 3 * datagram.len();
    }
    let received: usize = drain(&socket, ms(500)).iter().map(Vec::len).sum();
    assert!(received <= 3 * (sent + 6000), "{received} bytes for {sent}");
    rig.assert_serves("garbage");
}

pub(crate) fn q_02_other_versions_are_negotiated() {
    let rig = Rig::standard();
    let ask = |bytes: &[u8]| {
        let socket = at([127, 0, 0, 1]);
        socket.send_to(bytes, rig.gateway.front()).unwrap();
        drain(&socket, ms(300))
    };
    for other in [2, 0x0a0a_0a0a, 0xff00_001d, u32::MAX] {
        let question = long(other, &[5; 9], &[6; 4], &[], 1200);
        let answers = ask(&question);
        assert_eq!(answers.len(), 1, "{other:#x}");
        let answer = &answers[0];
        assert!(answer.len() <= question.len(), "{other:#x}");
        assert_eq!(version(answer), Some(0), "{other:#x}: {answer:?}");
        // The IDs come back the other way round (RFC 9000 section 17.2.1).
        assert_eq!(answer[5..20], [&[4, 6, 6, 6, 6, 9][..], &[5; 9]].concat()[..], "{other:#x}");
        let offered: Vec<u32> =
            answer[20..].chunks_exact(4).map(|v| u32::from_be_bytes(v.try_into().unwrap())).collect();
        assert!(offered.contains(&1) && !offered.contains(&other), "{offered:x?}");
    }
    assert_eq!(ask(&long(2, &[5; 8], &[6; 8], &[], 1199)).len(), 0, "a datagram that is too small");
    assert_eq!(ask(&long(0, &[5; 8], &[6; 8], &[], 1200)).len(), 0, "Version Negotiation itself");
    for (fate, count) in [("versions", 4.0), ("small_initial", 1.0), ("malformed", 1.0)] {
        assert_eq!(rig.gateway.metric("quic_stray_datagrams_total", &[("fate", fate)]), count, "{fate}");
    }
}

pub(crate) fn q_12_tokens_of_others_are_no_tokens() {
    let rig = Rig::with(|listener| listener.quic_key("retry", "always"));
    let ask = |socket: &UdpSocket, to: &[u8], token: &[u8]| {
        socket.send_to(&initial(to, token, 1200), rig.gateway.front()).unwrap();
        replies(socket, seconds(2), ms(200))
    };
    let (one, other) = (at([127, 0, 0, 1]), at([127, 0, 0, 2]));
    let first = ask(&one, &[4; 12], &[]);
    assert!(first.len() == 1 && is_retry(&first[0]), "{first:?}");
    assert!(first[0].len() < 400, "a Retry of {} bytes", first[0].len());
    let (chosen, token) = retry(&first[0]);
    let mut changed = token.clone();
    changed[token.len() / 2] ^= 1;
    let cases: [(&str, &UdpSocket, &[u8], &[u8]); 6] = [
        ("from another address", &other, &chosen, &token),
        ("to another ID", &one, &[4; 12], &token),
        ("changed", &one, &chosen, &changed),
        ("cut", &one, &chosen, &token[..token.len() - 1]),
        ("noise", &one, &chosen, &[0x5a; 64]),
        ("a byte", &one, &chosen, &[1]),
    ];
    for (case, socket, to, token) in cases {
        let answers = ask(socket, to, token);
        assert!(answers.len() == 1 && is_retry(&answers[0]), "a token {case}: {answers:?}");
    }
    // The right one is taken: what cannot be decrypted behind it is dropped, and no Retry comes any more.
    assert!(!ask(&one, &chosen, &token).iter().any(|answer| is_retry(answer)));
    rig.assert_serves("tokens");
}

pub(crate) fn retry_before_every_handshake() {
    let rig = Rig::with(|listener| listener.quic_key("retry", "always"));
    let relay = testkit::quic::relay::Relay::to(rig.gateway.front());
    let quic = QuicClient::default().connect(relay.address).unwrap();
    let mut client = H3Client::over(quic).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "one");
    assert!(relay.first_from_server().is_some_and(|datagram| is_retry(&datagram)), "no Retry");
    assert!(rig.gateway.metric("quic_stray_datagrams_total", &[("fate", "retry")]) >= 1.0);
    // Instances with the same secret know each other's tokens; one with another secret does not, and asks again.
    drop(client);
    rig.assert_serves("a Retry");
}

fn short(id: u8, length: usize) -> Vec<u8> {
    let mut packet = vec![id; length];
    packet[0] = 0x41;
    packet
}

pub(crate) fn q_13_stateless_resets_are_small_and_few() {
    let rig = Rig::standard();
    for length in [1, 16, 17, 20, 21] {
        let socket = at([127, 0, 0, 1]);
        socket.send_to(&short(9, length), rig.gateway.front()).unwrap();
        assert_eq!(drain(&socket, ms(100)).len(), 0, "an answer to {length} bytes");
    }
    for length in [22, 23, 30, 43, 44, 100, 1200] {
        let socket = at([127, 0, 0, 1]);
        socket.send_to(&short(length as u8, length), rig.gateway.front()).unwrap();
        let answers = replies(&socket, seconds(2), ms(100));
        assert_eq!(answers.len(), 1, "{length} bytes");
        assert!((21..length).contains(&answers[0].len()), "{} bytes for {length}", answers[0].len());
        assert_eq!(answers[0][0] & 0xc0, 0x40, "no short header");
        // Given back again and again, resets come to an end.
        let mut last = answers[0].clone();
        for _ in 0..40 {
            socket.send_to(&last, rig.gateway.front()).unwrap();
            let Some(next) = replies(&socket, ms(500), ms(5)).pop() else { break };
            assert!(next.len() < last.len());
            last = next;
        }
        assert!(last.len() <= 22, "{} bytes", last.len());
    }
    let is_counted = |fate| rig.gateway.metric("quic_stray_datagrams_total", &[("fate", fate)]) >= 5.0;
    assert!(is_counted("reset") && is_counted("unknown"));
    // No more than a hundred a second.
    std::thread::sleep(ms(1100));
    let socket = at([127, 0, 0, 1]);
    let start = Instant::now();
    for number in 0..2000u32 {
        let mut packet = short(1, 60);
        packet[4..8].copy_from_slice(&number.to_be_bytes());
        socket.send_to(&packet, rig.gateway.front()).unwrap();
    }
    let (answers, windows) = (drain(&socket, ms(300)).len(), start.elapsed().as_secs() as usize + 2);
    assert!(answers >= 50 && answers <= 100 * windows, "{answers} resets in {:?}", start.elapsed());
    rig.assert_serves("a storm of resets");
}

/// A gateway that has died knows nothing of its connections: their clients learn it from the first packet that they send.
pub(crate) fn q_13_a_restarted_gateway_resets_old_connections() {
    let mut rig = Rig::standard();
    let mut client = rig.client();
    assert_eq!(client.get("/").unwrap().text(), "one");
    let config = rig.gateway.config.clone();
    rig.gateway.process.signal(testkit::process::SIGKILL);
    rig.gateway.process.wait_exit(seconds(10)).ok_or("alive").err();
    let gateway = Gateway::start(config);
    let start = Instant::now();
    client.open("GET", "/", &[], true).unwrap();
    let why = client.quic.closed(seconds(10)).expect("the end of a connection that is not known");
    assert!(matches!(why, testkit::quic::ConnectionError::Reset), "{why}");
    assert!(start.elapsed() < seconds(8), "after {:?}", start.elapsed());
    assert_eq!(H3Client::connect(gateway.front()).unwrap().get("/").unwrap().text(), "one");
}

/// A client that the packet which closes its connection has not reached is told again when it speaks, with the code, and by no stateless reset
/// (RFC 9000 section 10.2.1).
pub(crate) fn q_13_a_close_that_was_lost_is_told_again_with_its_code() {
    let rig = Rig::standard();
    let relay = testkit::quic::relay::Relay::to(rig.gateway.front());
    let mut client = H3Client::over(QuicClient::default().connect(relay.address).unwrap()).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "one");
    let resets = || rig.gateway.metric("quic_stray_datagrams_total", &[("fate", "reset")]);
    let before = resets();
    relay.mute(true);
    // An index beyond the static table.
    client.open_with(headers([&qpack::PREFIX[..], &indexed(99)].concat()), true).ok();
    std::thread::sleep(ms(120));
    relay.mute(false);
    client.open("GET", "/", &[], true).ok();
    assert_eq!(client.closed(), (true, code::QPACK_DECOMPRESSION_FAILED));
    assert_eq!(resets(), before, "a stateless reset");
    rig.assert_serves("a close that was lost");
}

/// A client that goes on as if its connection had not been closed: the close is told ever more seldom, in few bytes, and is forgotten in
/// its time, whatever comes.
pub(crate) fn q_16_a_trickle_keeps_no_connection_that_closes() {
    let rig = Rig::standard();
    let relay = testkit::quic::relay::Relay::to(rig.gateway.front());
    let mut client = H3Client::over(QuicClient::default().connect(relay.address).unwrap()).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "one");
    rig.gateway.wait_metric("accept_inflight", &[], |n| n == 1.0);
    relay.mute(true);
    // An index beyond the static table.
    client.open_with(headers([&qpack::PREFIX[..], &indexed(99)].concat()), true).ok();
    rig.gateway.wait_metric("accept_inflight", &[], |n| n == 0.0);
    let (up, down) = relay.bytes();
    let resets = || rig.gateway.metric("quic_stray_datagrams_total", &[("fate", "reset")]);
    let start = Instant::now();
    while resets() == 0.0 {
        assert!(start.elapsed() < seconds(5), "the close is still told");
        client.open("GET", "/", &[], true).ok();
        std::thread::sleep(ms(10));
    }
    // From then on nothing is known of the connection.
    let (up, down) = (relay.bytes().0 - up, relay.bytes().1 - down);
    assert!(down < 2 * up, "{down} bytes for {up}");
    rig.assert_serves("a trickle");
}

/// A client that is not there gets three times what was sent in its name, and no more (RFC 9000 section 8.1).
pub(crate) fn q_01_nothing_is_amplified() {
    let rig = Rig::standard();
    let hello = QuicClient::default().hello();
    for count in 1..=hello.len() {
        let socket = at([127, 0, 0, 1]);
        let sent: usize = hello[..count].iter().map(Vec::len).sum();
        let hello = QuicClient::default().hello();
        hello[..count.min(hello.len())].iter().for_each(|datagram| {
            socket.send_to(datagram, rig.gateway.front()).unwrap();
        });
        // What is sent again for want of an acknowledgement counts as well.
        let received: usize = drain(&socket, ms(1500)).iter().map(Vec::len).sum();
        assert!(received <= 3 * sent, "{received} bytes for {sent}");
        assert!(count < hello.len() || received > 0, "a whole hello got no answer");
    }
}

/// First packets in the name of many: what is kept of them has a bound, and clients that are there get through by a Retry.
pub(crate) fn q_01_a_flood_of_initials_costs_no_memory() {
    let rig = Rig::under(config().runtime("workers", 1).runtime("max_handshakes_in_flight", 200), |l| l);
    rig.assert_serves("nothing");
    let usage = Usage::watch(&rig.gateway);
    let (mut sent, mut received, mut retries) = (0, 0, 0);
    let mut count = |socket: &UdpSocket, span| {
        for datagram in drain(socket, span) {
            received += datagram.len();
            retries += usize::from(is_retry(&datagram));
        }
    };
    let sockets: Vec<_> = (0..120u8).map(|number| at([127, 1, number, 1])).collect();
    let mut send = |socket: &UdpSocket, bytes: &[u8]| {
        sent += bytes.len();
        socket.send_to(bytes, rig.gateway.front()).unwrap();
    };
    // Hellos that are whole, and lead to handshakes that never end.
    for socket in &sockets {
        for datagram in QuicClient::default().hello() {
            send(socket, &datagram);
        }
    }
    for round in 0..100u64 {
        for (number, socket) in sockets.iter().enumerate() {
            let id = (round << 32 | number as u64 | 1 << 60).to_be_bytes();
            send(socket, &initial(&id, &[], 1200));
        }
        std::thread::sleep(ms(2));
        if round % 10 == 9 {
            sockets.iter().for_each(|socket| count(socket, ms(1)));
        }
    }
    rig.assert_serves("a flood, in the middle of it");
    sockets.iter().for_each(|socket| count(socket, ms(5)));
    assert!(retries > 1000, "{retries} Retry packets");
    assert!(received <= 3 * sent, "{received} bytes for {sent}");
    let running = rig.gateway.metric("tls_handshakes_inflight", &[]);
    assert!(running <= 200.0, "{running} handshakes at once");
    usage.assert_grew_less_than(&rig.gateway, 24 * MIB);
    rig.gateway.wait_metric("tls_handshakes_inflight", &[], |running| running == 0.0);
}

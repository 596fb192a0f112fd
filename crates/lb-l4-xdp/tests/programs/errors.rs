//! ICMP errors: those that follow their flow, and those that the gateway answers itself.

use lb_l4_xdp::layout::{Event, Mode};

use crate::Test;
use crate::packets::{ACK, ICMP, ICMPV6, Packet, Parsed, SYN};
use crate::rig::{ETH0, ETH1, Rig, ip, mac};

pub(crate) const TESTS: &[Test] = &[
    ("l4_04_errors_follow_their_flow_in_a_tunnel", l4_04_errors_follow_their_flow_in_a_tunnel),
    ("l4_04_errors_are_translated_both_ways", l4_04_errors_are_translated_both_ways),
    ("l4_04_errors_are_limited_and_forged_ones_dropped", l4_04_errors_are_limited_and_forged_ones_dropped),
    ("too_big_is_answered_with_what_would_do", too_big_is_answered_with_what_would_do),
    ("too_big_answers_are_limited", too_big_answers_are_limited),
];

/// An error of a router about a packet: "too big", with what it quotes.
fn error(router: &str, to: &str, about: &[u8]) -> Packet {
    let head: [u8; 8] =
        if router.contains(':') { [2, 0, 0, 0, 0, 0, 5, 0] } else { [3, 4, 0, 0, 0, 0, 5, 0] };
    let protocol = if router.contains(':') { ICMPV6 } else { ICMP };
    let quoted = &about[..about.len().min(if router.contains(':') { 88 } else { 28 })];
    Packet::of(router, to, protocol, [&head[..], quoted].concat())
}

fn l4_04_errors_follow_their_flow_in_a_tunnel() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11", "10.2.0.12", "10.2.0.13"]);
    rig.service("fd00:9::1", 80, Mode::Ipip, &["fd00:2::11", "fd00:2::12"]);
    for (client, vip, router) in
        [("10.1.0.9", "10.9.0.1", "10.7.7.7"), ("fd00:1::9", "fd00:9::1", "fd00:7::7")]
    {
        for port in 4000..4032 {
            let there = rig.redirects(&Packet::tcp((client, port), (vip, 80), SYN).frame());
            // What the backend answered, and was too big for a link on the way.
            let answer = Packet::tcp((vip, 80), (client, port), ACK).with_data(100);
            let message = error(router, vip, &answer.ip());
            let frame = rig.redirects(&message.frame());
            assert_eq!(frame[..6], there[..6], "to the backend of the flow");
            let inner = Parsed::frame(&frame, there[..6].try_into().unwrap(), ETH1).inner();
            inner.goes(router, vip);
            assert_eq!(inner.payload, Parsed::ip(&message.ip()).payload);
        }
        // Of a flow that is not known any more: the ring leads to the same backend.
        let answer = Packet::tcp((vip, 80), (client, 5000), ACK);
        let frame = rig.redirects(&error(router, vip, &answer.ip()).frame());
        let there = rig.redirects(&Packet::tcp((client, 5000), (vip, 80), ACK).frame());
        assert_eq!(frame[..6], there[..6]);
        // About no service.
        let other = Packet::tcp((vip, 81), (client, 4000), ACK);
        rig.passes(&error(router, vip, &other.ip()).frame(), Event::PassIcmp);
        // The gateway's own.
        let own =
            Packet::tcp((if vip.contains(':') { "fd00:1::1" } else { "10.1.0.1" }, 9), (client, 9), ACK);
        rig.passes(&error(router, &own.source.to_string(), &own.ip()).frame(), Event::PassNotOurs);
    }
    assert_eq!(rig.event(Event::IcmpForwarded), 66);
}

fn l4_04_errors_are_translated_both_ways() {
    let mut rig = Rig::new();
    for (client, vip, backend, gateway, router, last) in [
        ("10.1.0.9", "10.9.0.1", "10.2.0.11", "10.2.0.1", "10.7.7.7", 11),
        ("fd00:1::9", "fd00:9::1", "fd00:2::11", "fd00:2::1", "fd00:7::7", 0x11),
    ] {
        rig.service(vip, 80, Mode::Nat, &[backend]);
        let out = rig.redirects(&Packet::tcp((client, 4000), (vip, 80), SYN).frame());
        let port = Parsed::ip(&out[14..]).ports().0;
        // About the service's answer to the client: the backend must find its own packet in it.
        let answer = Packet::tcp((vip, 80), (client, 4000), ACK).with_data(100);
        let frame = rig.redirects(&error(router, vip, &answer.ip()).frame());
        let message = Parsed::frame(&frame, mac(last), ETH1);
        message.goes(gateway, backend);
        message.is_sound();
        quotes(&message, (backend, 8080), (gateway, port));
        // About the gateway's packet to the backend: the client must find its own packet in it.
        let sent = Parsed::ip(&out[14..]);
        sent.goes(gateway, backend);
        let frame = rig.sends_back(&error(router, gateway, &out[14..]).frame());
        let message = Parsed::frame(&frame, mac(9), ETH0);
        message.goes(vip, client);
        message.is_sound();
        quotes(&message, (client, 4000), (vip, 80));
    }
}

/// The packet that an error quotes goes from one to the other.
fn quotes(message: &Parsed, source: (&str, u16), destination: (&str, u16)) {
    let mut quoted = message.payload[8..].to_vec();
    // The length is of the whole packet, of which only a part is quoted.
    let is_ipv6 = quoted[0] >> 4 == 6;
    let length = quoted.len();
    if is_ipv6 {
        quoted[4..6].copy_from_slice(&(length as u16 - 40).to_be_bytes());
    } else {
        let header = crate::packets::checksum(&quoted[..20]);
        assert_eq!(header, 0, "checksum of the quoted header");
        quoted[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        quoted[10..12].copy_from_slice(&[0, 0]);
        let sum = crate::packets::checksum(&quoted[..20]);
        quoted[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let quoted = Parsed::ip(&quoted);
    quoted.goes(source.0, destination.0);
    let word = |at: usize| u16::from_be_bytes([quoted.payload[at], quoted.payload[at + 1]]);
    assert_eq!((word(0), word(2)), (source.1, destination.1));
}

fn l4_04_errors_are_limited_and_forged_ones_dropped() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    rig.redirects(&Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), SYN).frame());
    let answer = Packet::tcp(("10.9.0.1", 80), ("10.1.0.9", 4000), ACK);
    // An error goes to the sender of what it quotes.
    let foreign = Packet::tcp(("10.9.0.2", 80), ("10.1.0.9", 4000), ACK);
    rig.drops(&error("10.7.7.7", "10.9.0.1", &foreign.ip()).frame(), Event::DropBadHeader);
    rig.set(|settings| settings.icmp_per_core = 2);
    let message = error("10.7.7.7", "10.9.0.1", &answer.ip()).frame();
    let actions: Vec<u32> = (0..64).map(|_| rig.run(&message).action).collect();
    // The test may move between cores, and windows may end: but most of them are dropped.
    assert!(rig.event(Event::DropIcmpCap) > 40, "{actions:?}");
    // Established traffic is not concerned.
    rig.redirects(&Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), ACK).frame());
}

fn too_big_is_answered_with_what_would_do() {
    let mut rig = Rig::new();
    ip("link set eth1 mtu 1400\n");
    let tags = [vec![], vec![[0x81, 0x00, 0, 5]]];
    for (at, (mode, backend, overhead)) in (1..).zip([
        (Mode::Ipip, "10.2.0.11", 20),
        (Mode::Ipip, "fd00:2::11", 40),
        (Mode::Gue, "10.2.0.11", 28),
        (Mode::Gue, "fd00:2::11", 48),
        (Mode::Link, "10.2.0.11", 0),
        (Mode::Nat, "10.2.0.11", 0),
        (Mode::Nat, "fd00:2::11", 0),
    ]) {
        for (client, vip) in [("10.1.0.9", format!("10.9.0.{at}")), ("fd00:1::9", format!("fd00:9::{at}"))] {
            if mode == Mode::Nat && client.contains(':') != backend.contains(':') {
                continue;
            }
            rig.service(&vip, 80, mode, &[backend]);
            let header = if client.contains(':') { 60 } else { 40 };
            for (port, tags) in (4000..).zip(&tags) {
                for _ in 0..2 {
                    let fits = Packet::tcp((client, port), (&vip, 80), SYN)
                        .with(|packet| packet.tags = tags.clone())
                        .with_data(1400 - overhead - header);
                    rig.redirects(&fits.frame());
                    let large = fits.with_data(1);
                    let frame = rig.sends_back(&large.frame());
                    let (macs, rest) = frame.split_at(12);
                    let (kept, rest) = rest.split_at(4 * tags.len());
                    assert_eq!(kept, tags.concat());
                    let answer = Parsed::frame(&[macs, rest].concat(), mac(9), ETH0);
                    answer.goes(&vip, client);
                    answer.is_sound();
                    let expected = (1400 - overhead) as u16;
                    let word = |at: usize| u16::from_be_bytes([answer.payload[at], answer.payload[at + 1]]);
                    if client.contains(':') {
                        assert_eq!((answer.payload[0], answer.payload[1], word(6)), (2, 0, expected));
                    } else {
                        assert_eq!((answer.payload[0], answer.payload[1], word(6)), (3, 4, expected));
                    }
                    let quoted = &answer.payload[8..];
                    assert!(quoted.len() >= 28);
                    assert_eq!(quoted, &large.ip()[..quoted.len()], "{mode:?}");
                }
            }
        }
    }
    assert!(rig.event(Event::DropTooBigAnswered) > 20);
}

fn too_big_answers_are_limited() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    rig.set(|settings| settings.icmp_per_core = 2);
    let large = Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), SYN).with_data(1450).frame();
    for _ in 0..64 {
        rig.run(&large);
    }
    assert!(rig.event(Event::DropTooBig) > 40, "{:?}", rig.events());
}

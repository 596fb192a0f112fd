//! The modes in which the backend answers the client itself.

use lb_l4_xdp::layout::{Backend, Event, Mode};

use crate::Test;
use crate::packets::{ACK, DONT_FRAGMENT, Packet, Parsed, SYN, TCP, UDP};
use crate::rig::{ETH0, ETH1, Rig, backend_of, mac};

pub(crate) const TESTS: &[Test] = &[
    ("ipip_wraps_either_family_in_either", ipip_wraps_either_family_in_either),
    ("ipip_sends_back_by_the_interface_of_arrival", ipip_sends_back_by_the_interface_of_arrival),
    ("outer_header_takes_over_class_and_fragmentation", outer_header_takes_over_class_and_fragmentation),
    ("outer_sources_spread_over_their_mask", outer_sources_spread_over_their_mask),
    ("gue_wraps_in_udp", gue_wraps_in_udp),
    ("link_changes_mac_addresses_alone", link_changes_mac_addresses_alone),
    ("vlan_tags_stay_on_their_wire", vlan_tags_stay_on_their_wire),
    ("ip_options_and_extension_headers_are_forwarded", ip_options_and_extension_headers_are_forwarded),
    ("a_service_of_all_ports_gets_what_no_other_has", a_service_of_all_ports_gets_what_no_other_has),
];

/// A packet is forwarded twice: as the first of its flow, and as one of a known flow.
fn twice(rig: &mut Rig, packet: &Packet, check: impl Fn(Vec<u8>)) {
    for _ in 0..2 {
        let out = rig.redirects(&packet.frame());
        check(out);
    }
}

/// What is inside is what came, but for one less to live.
fn is_what_came(inner: &Parsed, packet: &Packet) {
    let came = Parsed::ip(&packet.ip());
    assert_eq!(inner.ttl, came.ttl - 1);
    assert_eq!((inner.source, inner.destination), (came.source, came.destination));
    assert_eq!(inner.payload, came.payload);
    assert_eq!((inner.protocol, inner.tos, inner.fragment), (came.protocol, came.tos, came.fragment));
}

fn ipip_wraps_either_family_in_either() {
    let mut rig = Rig::new();
    let backends = [("10.2.0.11", "10.99.0.1", 11), ("fd00:2::11", "fd00:99::1", 0x11)];
    for (at, (backend, outer_source, last)) in (1..).zip(backends) {
        for (source, vip) in [("10.1.0.9", format!("10.9.0.{at}")), ("fd00:1::9", format!("fd00:9::{at}"))] {
            let (_, indices) = rig.service(&vip, 80, Mode::Ipip, &[backend]);
            let mut bytes = 0;
            for packet in [
                Packet::tcp((source, 4000), (&vip, 80), SYN),
                Packet::udp((source, 4000), (&vip, 80), b"question"),
            ] {
                twice(&mut rig, &packet, |frame| {
                    let outer = Parsed::frame(&frame, mac(last), ETH1);
                    outer.goes(outer_source, backend);
                    assert_eq!(outer.protocol, if source.contains(':') { 41 } else { 4 });
                    assert_eq!(outer.ttl, 64);
                    is_what_came(&outer.inner(), &packet);
                });
                bytes += 2 * packet.ip().len() as u64;
            }
            let counters = rig.plane.backend_counters(indices[0]).unwrap();
            assert_eq!((counters.packets, counters.bytes, counters.flows), (4, bytes, 2));
        }
    }
}

fn ipip_sends_back_by_the_interface_of_arrival() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.1.0.21"]);
    let packet = Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), SYN);
    for _ in 0..2 {
        let frame = rig.sends_back(&packet.frame());
        is_what_came(&Parsed::frame(&frame, mac(0x21), ETH0).inner(), &packet);
    }
}

fn outer_header_takes_over_class_and_fragmentation() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    let packet = Packet::udp(("10.1.0.9", 4000), ("10.9.0.1", 80), b"x").with(|packet| packet.tos = 0xb9);
    twice(&mut rig, &packet, |frame| {
        let outer = Parsed::frame(&frame, mac(11), ETH1);
        assert_eq!((outer.tos, outer.fragment), (0xb9, (0, DONT_FRAGMENT)));
    });
    let loose = packet.with(|packet| packet.fragment.1 = 0);
    let mut identifications = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let outer = Parsed::frame(&rig.redirects(&loose.frame()), mac(11), ETH1);
        assert_eq!(outer.fragment.1, 0);
        identifications.insert(outer.fragment.0);
    }
    assert!(identifications.len() > 4, "{identifications:?}");
    rig.service("fd00:9::1", 80, Mode::Ipip, &["fd00:2::11"]);
    let packet = Packet::udp(("fd00:1::9", 4000), ("fd00:9::1", 80), b"x").with(|packet| packet.tos = 0xb9);
    twice(&mut rig, &packet, |frame| assert_eq!(Parsed::frame(&frame, mac(0x11), ETH1).tos, 0xb9));
}

fn outer_sources_spread_over_their_mask() {
    let mut rig = Rig::new();
    let (service, indices) = rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    let spread = |backend: Backend| Backend {
        outer_source: crate::rig::address("10.99.0.0"),
        spread_mask: u32::from_be_bytes([0, 0, 0, 0xff]).to_be(),
        ..backend
    };
    rig.plane.set_backend(indices[0], &spread(backend_of(service, "10.2.0.11", Mode::Ipip))).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for port in 4000..4064 {
        let packet = Packet::tcp(("10.1.0.9", port), ("10.9.0.1", 80), ACK);
        let first = Parsed::frame(&rig.redirects(&packet.frame()), mac(11), ETH1).source;
        let second = Parsed::frame(&rig.redirects(&packet.frame()), mac(11), ETH1).source;
        assert_eq!(first, second, "a flow keeps its outer source");
        assert!(first.to_string().starts_with("10.99.0."), "{first}");
        seen.insert(first);
    }
    assert!(seen.len() > 32, "{} sources", seen.len());
}

fn gue_wraps_in_udp() {
    let mut rig = Rig::new();
    for (at, (backend, last)) in (1..).zip([("10.2.0.11", 11), ("fd00:2::11", 0x11)]) {
        for (source, vip) in [("10.1.0.9", format!("10.9.0.{at}")), ("fd00:1::9", format!("fd00:9::{at}"))] {
            rig.service(&vip, 80, Mode::Gue, &[backend]);
            let packet = Packet::tcp((source, 4000), (&vip, 80), SYN);
            twice(&mut rig, &packet, |frame| {
                let outer = Parsed::frame(&frame, mac(last), ETH1);
                assert_eq!((outer.protocol, outer.destination), (UDP, backend.parse().unwrap()));
                let (source_port, port) = outer.ports();
                assert!(source_port >= 0xc000 && port == 6080, "{source_port} to {port}");
                assert_eq!(
                    u16::from_be_bytes([outer.payload[4], outer.payload[5]]) as usize,
                    outer.payload.len()
                );
                is_what_came(&Parsed::ip(&outer.payload[8..]), &packet);
            });
        }
    }
}

fn link_changes_mac_addresses_alone() {
    let mut rig = Rig::new();
    for (source, vip, backend, last) in
        [("10.1.0.9", "10.9.0.1", "10.2.0.11", 11), ("fd00:1::9", "fd00:9::1", "fd00:2::11", 0x11)]
    {
        rig.service(vip, 80, Mode::Link, &[backend]);
        let packet = Packet::tcp((source, 4000), (vip, 80), SYN).with_data(100);
        twice(&mut rig, &packet, |frame| is_what_came(&Parsed::frame(&frame, mac(last), ETH1), &packet));
    }
}

fn vlan_tags_stay_on_their_wire() {
    let mut rig = Rig::new();
    let (inner, outer) = ([0x81, 0x00, 0x00, 0x05], [0x88, 0xa8, 0x00, 0x07]);
    for (at, (backend, is_back)) in (1..).zip([("10.2.0.11", false), ("10.1.0.21", true)]) {
        for (mode, port) in [(Mode::Ipip, 80), (Mode::Link, 81), (Mode::Gue, 82), (Mode::Nat, 83)] {
            let vip = format!("10.9.0.{at}");
            rig.service(&vip, port, mode, &[backend]);
            for tags in [vec![inner], vec![outer, inner]] {
                let packet = Packet::tcp(("10.1.0.9", 4000), (&vip, port), SYN)
                    .with(|packet| packet.tags = tags.clone());
                for _ in 0..2 {
                    if is_back {
                        let frame = rig.sends_back(&packet.frame());
                        let (macs, rest) = frame.split_at(12);
                        let (kept, rest) = rest.split_at(4 * tags.len());
                        assert_eq!(kept, tags.concat(), "{mode:?}");
                        Parsed::frame(&[macs, rest].concat(), mac(0x21), ETH0);
                    } else {
                        Parsed::frame(&rig.redirects(&packet.frame()), mac(11), ETH1);
                    }
                }
            }
        }
    }
}

fn ip_options_and_extension_headers_are_forwarded() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    rig.service("fd00:9::1", 80, Mode::Ipip, &["fd00:2::11"]);
    for options in [vec![1; 4], vec![1; 40]] {
        let packet = Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), SYN)
            .with(|packet| packet.options = options.clone());
        twice(&mut rig, &packet, |frame| {
            let outer = Parsed::frame(&frame, mac(11), ETH1);
            assert_eq!(outer.inner().ports(), (4000, 80));
            assert_eq!(outer.payload.len(), packet.ip().len());
        });
    }
    // Hop-by-hop, destination options of sixteen octets, authentication of 24, each naming the next.
    let chains: [(u8, Vec<u8>); 3] = [
        (0, [&[TCP, 0][..], &[0; 6]].concat()),
        (0, [&[60, 0][..], &[0; 6], &[TCP, 1], &[0; 14]].concat()),
        (51, [&[TCP, 4][..], &[0; 22]].concat()),
    ];
    for (first, chain) in chains {
        let packet = Packet::tcp(("fd00:1::9", 4000), ("fd00:9::1", 80), SYN).with(|packet| {
            packet.first_extension = Some(first);
            packet.options = chain;
        });
        twice(&mut rig, &packet, |frame| {
            let outer = Parsed::frame(&frame, mac(0x11), ETH1);
            assert_eq!(outer.payload[8..], packet.ip()[8..]);
        });
    }
}

fn a_service_of_all_ports_gets_what_no_other_has() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 0, Mode::Ipip, &["10.2.0.11"]);
    rig.service("10.9.0.1", 443, Mode::Ipip, &["10.2.0.12"]);
    for (port, last) in [(1, 11), (443, 12), (65_535, 11)] {
        for packet in [
            Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", port), SYN),
            Packet::udp(("10.1.0.9", 4000), ("10.9.0.1", port), b""),
        ] {
            twice(&mut rig, &packet, |frame| {
                Parsed::frame(&frame, mac(last), ETH1);
            });
        }
    }
    assert_eq!(rig.event(Event::FlowStale), 0);
}

//! Fragments follow the first fragment of their packet.

use lb_l4_xdp::layout::{Event, Mode};

use crate::Test;
use crate::packets::{FRAGMENT, MORE_FRAGMENTS, Packet, Parsed, UDP};
use crate::rig::{ETH0, ETH1, Rig, mac};

pub(crate) const TESTS: &[Test] = &[
    ("fragments_follow_their_first_in_a_tunnel", fragments_follow_their_first_in_a_tunnel),
    ("fragments_are_translated_as_one_packet", fragments_are_translated_as_one_packet),
    ("fragments_without_a_first_pass", fragments_without_a_first_pass),
];

/// A datagram in two fragments, whose checksum is that of the whole.
fn fragments(source: (&str, u16), destination: (&str, u16), identification: u16) -> [Packet; 2] {
    let whole = Packet::udp(source, destination, &[]).with_data(64);
    let transport = Parsed::ip(&whole.ip()).payload;
    let (first, rest) = transport.split_at(40);
    let is_ipv6 = source.0.contains(':');
    [(first, 0u16, 1u16), (rest, 5, 0)].map(|(part, offset, more)| {
        Packet::of(source.0, destination.0, UDP, part.to_vec()).with(|packet| {
            packet.is_bare = true;
            packet.fragment = (identification, offset | (more * MORE_FRAGMENTS));
            if is_ipv6 {
                packet.first_extension = Some(FRAGMENT);
                packet.options = [UDP, 0].into();
                packet.options.extend(((offset << 3) | more).to_be_bytes());
                packet.options.extend(u32::from(identification).to_be_bytes());
            }
        })
    })
}

fn fragments_follow_their_first_in_a_tunnel() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11", "10.2.0.12", "10.2.0.13"]);
    rig.service("fd00:9::1", 80, Mode::Ipip, &["fd00:2::11", "fd00:2::12"]);
    for (client, vip) in [("10.1.0.9", "10.9.0.1"), ("fd00:1::9", "fd00:9::1")] {
        for port in 4000..4016 {
            let [first, second] = fragments((client, port), (vip, 80), port);
            let one = rig.redirects(&first.frame());
            let two = rig.redirects(&second.frame());
            assert_eq!(one[..6], two[..6], "both go to one backend");
            let whole = rig.redirects(&Packet::udp((client, port), (vip, 80), b"").frame());
            assert_eq!(one[..6], whole[..6], "and so does the rest of their flow");
            let inner = Parsed::frame(&two, two[..6].try_into().unwrap(), ETH1).inner();
            assert_eq!(inner.payload, Parsed::ip(&second.ip()).payload);
        }
    }
    assert_eq!(rig.event(Event::FragmentForwarded), 32);
}

fn fragments_are_translated_as_one_packet() {
    let mut rig = Rig::new();
    for (client, vip, backend, gateway, last) in [
        ("10.1.0.9", "10.9.0.1", "10.2.0.11", "10.2.0.1", 11),
        ("fd00:1::9", "fd00:9::1", "fd00:2::11", "fd00:2::1", 0x11),
    ] {
        rig.service(vip, 80, Mode::Nat, &[backend]);
        let [first, second] = fragments((client, 4000), (vip, 80), 77);
        let skip = if client.contains(':') { 8 } else { 0 };
        let one = Parsed::frame(&rig.redirects(&first.frame()), mac(last), ETH1);
        let two = Parsed::frame(&rig.redirects(&second.frame()), mac(last), ETH1);
        one.goes(gateway, backend);
        two.goes(gateway, backend);
        let mut whole = one.clone();
        whole.protocol = UDP;
        whole.payload = [&one.payload[skip..], &two.payload[skip..]].concat();
        assert_eq!(whole.ports().1, 8080);
        // And back, by the flow's entry for replies.
        let port = whole.ports().0;
        let [first, second] = fragments((backend, 8080), (gateway, port), 78);
        for packet in [first, second] {
            Parsed::frame(&rig.sends_back(&packet.frame()), mac(9), ETH0).goes(vip, client);
        }
    }
}

/// Nobody can tell whose they are: the kernel may be waiting for them.
fn fragments_without_a_first_pass() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 0, Mode::Ipip, &["10.2.0.11"]);
    let [first, second] = fragments(("10.1.0.9", 4000), ("10.9.0.1", 80), 5);
    rig.passes(&second.frame(), Event::PassFragment);
    // Of another packet.
    rig.redirects(&first.frame());
    let other = second.with(|packet| packet.fragment.0 = 6);
    rig.passes(&other.frame(), Event::PassFragment);
    // The kernel's own: the first was passed, and so are the others.
    let [first, second] = fragments(("10.1.0.9", 4000), ("10.9.0.7", 80), 5);
    rig.passes(&first.frame(), Event::PassNotOurs);
    rig.passes(&second.frame(), Event::PassNotOurs);
}

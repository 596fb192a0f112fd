//! What is not for a service is passed to the kernel, to the last octet as it was.

use lb_l4_xdp::layout::{Event, Mode};

use crate::Test;
use crate::packets::{ACK, ICMP, ICMPV6, Packet, SYN};
use crate::rig::{ETH0, Rig, mac};

pub(crate) const TESTS: &[Test] = &[
    ("what_is_not_ip_passes", what_is_not_ip_passes),
    ("traffic_to_other_addresses_and_ports_passes", traffic_to_other_addresses_and_ports_passes),
    ("icmp_and_other_protocols_to_a_service_pass", icmp_and_other_protocols_to_a_service_pass),
    ("everything_passes_without_settings", everything_passes_without_settings),
    ("every_program_is_within_its_size", every_program_is_within_its_size),
];

fn what_is_not_ip_passes() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    let frame = |ether_type: [u8; 2]| [&ETH0[..], &mac(9), &ether_type, &[0x45; 46]].concat();
    // ARP, MPLS, LLDP, and three VLAN tags.
    for ether_type in [[0x08, 0x06], [0x88, 0x47], [0x88, 0xcc]] {
        rig.passes(&frame(ether_type), Event::PassNotIp);
    }
    let tag = [0x81, 0x00, 0, 5];
    let tagged =
        Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), SYN).with(|packet| packet.tags = vec![tag; 3]);
    rig.passes(&tagged.frame(), Event::PassNotIp);
}

fn traffic_to_other_addresses_and_ports_passes() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    rig.service("fd00:9::1", 80, Mode::Ipip, &["fd00:2::11"]);
    for (source, ours, other) in
        [("10.1.0.9", "10.9.0.1", "10.9.0.2"), ("fd00:1::9", "fd00:9::1", "fd00:9::2")]
    {
        for packet in [
            Packet::tcp((source, 4000), (other, 80), SYN),
            Packet::udp((source, 4000), (other, 80), b"x"),
            Packet::tcp((source, 4000), (ours, 81), SYN),
            Packet::udp((source, 4000), (ours, 81), b"x"),
        ] {
            rig.passes(&packet.frame(), Event::PassNotOurs);
            let tagged = packet.with(|packet| packet.tags = vec![[0x81, 0x00, 0, 5]]);
            rig.passes(&tagged.frame(), Event::PassNotOurs);
        }
    }
}

fn icmp_and_other_protocols_to_a_service_pass() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 0, Mode::Ipip, &["10.2.0.11"]);
    rig.service("fd00:9::1", 0, Mode::Ipip, &["fd00:2::11"]);
    let echo4 = Packet::of("10.1.0.9", "10.9.0.1", ICMP, vec![8, 0, 0, 0, 0, 1, 0, 1]);
    let echo6 = Packet::of("fd00:1::9", "fd00:9::1", ICMPV6, vec![128, 0, 0, 0, 0, 1, 0, 1]);
    let esp = Packet::of("10.1.0.9", "10.9.0.1", 50, vec![7; 40]);
    for packet in [echo4, echo6, esp] {
        rig.passes(&packet.frame(), Event::PassIcmp);
    }
}

fn everything_passes_without_settings() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    let packet = Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), ACK);
    // Those of another layout are none (L4-06).
    rig.set(|settings| settings.layout_version += 1);
    rig.passes(&packet.frame(), Event::PassNoSettings);
    rig.set(|settings| settings.layout_version -= 1);
    rig.redirects(&packet.frame());
}

/// The verifier of older kernels gives up sooner, and the cost of a packet must stay in sight.
fn every_program_is_within_its_size() {
    let mut rig = Rig::new();
    for (name, instructions) in rig.plane.sizes().unwrap() {
        assert!((100..=4000).contains(&instructions), "{name}: {instructions} instructions");
    }
    for (name, looked_at) in rig.plane.verified().unwrap() {
        assert!(looked_at < 100_000, "{name}: the verifier looks at {looked_at} instructions");
    }
}

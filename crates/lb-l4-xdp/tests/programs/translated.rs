//! Mode `nat`: both directions, ports, checksums.

use lb_l4_xdp::layout::{Event, FlowKey4, Mode};

use crate::Test;
use crate::packets::{ACK, Packet, Parsed, SYN, transport_checksum};
use crate::rig::{ETH0, ETH1, Rig, address, mac};

pub(crate) const TESTS: &[Test] = &[
    ("nat_rewrites_both_directions", nat_rewrites_both_directions),
    (
        "nat_keeps_a_port_in_its_range_and_avoids_taken_ones",
        nat_keeps_a_port_in_its_range_and_avoids_taken_ones,
    ),
    ("nat_runs_out_of_ports_and_says_so", nat_runs_out_of_ports_and_says_so),
    ("nat_leaves_udp_without_checksum", nat_leaves_udp_without_checksum),
    ("nat_never_makes_a_checksum_into_none", nat_never_makes_a_checksum_into_none),
    ("nat_refuses_tcp_in_the_middle", nat_refuses_tcp_in_the_middle),
    ("nat_with_a_listener_passes_what_leads_nowhere", nat_with_a_listener_passes_what_leads_nowhere),
    ("nat_makes_an_evicted_entry_again", nat_makes_an_evicted_entry_again),
    ("l4_09_backends_reach_those_who_began_alone", l4_09_backends_reach_those_who_began_alone),
];

const FAMILIES: [(&str, &str, &str, &str, u8); 2] = [
    ("10.1.0.9", "10.9.0.1", "10.2.0.11", "10.2.0.1", 11),
    ("fd00:1::9", "fd00:9::1", "fd00:2::11", "fd00:2::1", 0x11),
];

fn nat_rewrites_both_directions() {
    let mut rig = Rig::new();
    for (client, vip, backend, gateway, last) in FAMILIES {
        let (_, indices) = rig.service(vip, 80, Mode::Nat, &[backend]);
        for is_tcp in [true, false] {
            let packet = |source, destination, flags| {
                if is_tcp {
                    Packet::tcp(source, destination, flags)
                } else {
                    Packet::udp(source, destination, b"odd")
                }
            };
            let mut port = 0;
            for flags in [SYN, ACK, ACK] {
                let sent = packet((client, 4000), (vip, 80), flags);
                let out = Parsed::frame(&rig.redirects(&sent.frame()), mac(last), ETH1);
                out.goes(gateway, backend);
                assert_eq!(out.ttl, 63);
                let (source, destination) = out.ports();
                assert_eq!(destination, 8080);
                assert!((20_000..21_000).contains(&source) && (port == 0 || port == source), "{source}");
                let data = if is_tcp { 20 } else { 8 };
                assert_eq!(out.payload[data..], sent.payload[data..]);
                port = source;
            }
            for flags in [SYN | ACK, ACK] {
                let answer = packet((backend, 8080), (gateway, port), flags);
                // Answers arrive at the other interface in life; the programs do not care.
                let out = Parsed::frame(&rig.sends_back(&answer.frame()), mac(9), ETH0);
                out.goes(vip, client);
                assert_eq!(out.ports(), (80, 4000));
            }
        }
        let counters = rig.plane.backend_counters(indices[0]).unwrap();
        assert_eq!((counters.flows, counters.packets, counters.reply_packets), (2, 6, 4));
    }
}

fn nat_port(rig: &mut Rig, client: &str, port: u16) -> u16 {
    let packet = Packet::tcp((client, port), ("10.9.0.1", 80), SYN);
    Parsed::frame(&rig.redirects(&packet.frame()), mac(11), ETH1).ports().0
}

fn nat_keeps_a_port_in_its_range_and_avoids_taken_ones() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Nat, &["10.2.0.11"]);
    assert_eq!(nat_port(&mut rig, "10.5.0.50", 20_500), 20_500);
    let other = nat_port(&mut rig, "10.5.0.51", 20_500);
    assert!(other != 20_500 && (20_000..21_000).contains(&other), "{other}");
    // Of the same flow again the same.
    assert_eq!(nat_port(&mut rig, "10.5.0.50", 20_500), 20_500);
    assert_eq!(nat_port(&mut rig, "10.5.0.51", 20_500), other);
}

fn nat_runs_out_of_ports_and_says_so() {
    let mut rig = Rig::new();
    let (index, _) = rig.service("10.9.0.1", 80, Mode::Nat, &["10.2.0.11"]);
    let service = lb_l4_xdp::layout::Service {
        present: 1,
        mode: Mode::Nat as u8,
        nat_port_first: 30_000,
        nat_port_count: 2,
        nat_source: address("10.2.0.1"),
        ..Default::default()
    };
    rig.plane.set_service(index, &service).unwrap();
    let ports = std::collections::BTreeSet::from([
        nat_port(&mut rig, "10.5.0.50", 4000),
        nat_port(&mut rig, "10.5.0.51", 4000),
    ]);
    assert_eq!(ports.into_iter().collect::<Vec<_>>(), [30_000, 30_001]);
    rig.drops(&Packet::tcp(("10.5.0.52", 4000), ("10.9.0.1", 80), SYN).frame(), Event::DropNoPort);
    // One that ends gives its port to the next.
    let end = Packet::tcp(("10.5.0.50", 4000), ("10.9.0.1", 80), crate::packets::RST);
    rig.redirects(&end.frame());
    rig.set(|settings| settings.idle = [0; 4]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    nat_port(&mut rig, "10.5.0.52", 4000);
}

fn nat_leaves_udp_without_checksum() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Nat, &["10.2.0.11"]);
    let packet = Packet::udp(("10.1.0.9", 4000), ("10.9.0.1", 80), b"x").with(|packet| packet.is_bare = true);
    for _ in 0..2 {
        let out = Parsed::frame(&rig.redirects(&packet.frame()), mac(11), ETH1);
        assert_eq!(out.payload[6..8], [0, 0]);
        out.goes("10.2.0.1", "10.2.0.11");
    }
}

/// A checksum that comes out as 0 would say that there is none (RFC 768).
fn nat_never_makes_a_checksum_into_none() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Nat, &["10.2.0.11"]);
    let sent = |data: u16| Packet::udp(("10.1.0.9", 4000), ("10.9.0.1", 80), &data.to_be_bytes());
    let port = Parsed::frame(&rig.redirects(&sent(0).frame()), mac(11), ETH1).ports().0;
    let data = (0..=u16::MAX).find(|data| {
        let out = Packet::udp(("10.2.0.1", port), ("10.2.0.11", 8080), &data.to_be_bytes());
        transport_checksum(out.source, out.destination, out.protocol, &out.payload) == 0
    });
    let out = Parsed::frame(&rig.redirects(&sent(data.unwrap()).frame()), mac(11), ETH1);
    assert_eq!(out.payload[6..8], [0xff, 0xff]);
    out.is_sound();
}

fn nat_refuses_tcp_in_the_middle() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Nat, &["10.2.0.11"]);
    rig.drops(&Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), ACK).frame(), Event::DropUnknownFlow);
}

/// The table evicts entries one by one: the direction that is still there makes the other again.
fn nat_with_a_listener_passes_what_leads_nowhere() {
    for (client, vip, backend, gateway, last) in FAMILIES {
        let mut rig = Rig::new();
        let (index, _) = rig.service(vip, 80, Mode::Nat, &[backend]);
        rig.give_listener(index);
        // A connection that the listener has accepted.
        rig.passes(&Packet::tcp((client, 4000), (vip, 80), ACK).frame(), Event::PassToListener);
        rig.passes(&Packet::tcp((client, 4000), (vip, 80), SYN | ACK).frame(), Event::PassToListener);
        // One that begins is taken, and stays.
        for flags in [SYN, ACK] {
            let sent = Packet::tcp((client, 4001), (vip, 80), flags);
            let out = Parsed::frame(&rig.redirects(&sent.frame()), mac(last), ETH1);
            out.goes(gateway, backend);
        }
        // Beyond the cap of the core the listener has it.
        rig.set(|settings| settings.new_flows_per_core = 1);
        let events = rig.event(Event::PassToListener);
        for port in 5000..5005 {
            rig.run(&Packet::tcp((client, port), (vip, 80), SYN).frame());
        }
        assert!(rig.event(Event::PassToListener) - events >= 3, "{:?}", rig.events());
        rig.set(|settings| settings.new_flows_per_core = 0);
        // Without a backend too.
        rig.ring(index, &[]);
        rig.passes(&Packet::tcp((client, 4002), (vip, 80), SYN).frame(), Event::PassToListener);
    }
}

fn nat_makes_an_evicted_entry_again() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Nat, &["10.2.0.11"]);
    let port = nat_port(&mut rig, "10.5.0.50", 4000);
    let key = FlowKey4 {
        source: address("10.2.0.11")[0],
        destination: address("10.2.0.1")[0],
        ports: u32::from(8080u16.to_be()) | u32::from(port.to_be()) << 16,
        protocol: 6,
    };
    let before = rig.plane.flow4(&key).unwrap().expect("an entry for replies");
    rig.plane.remove_flow4(&key).unwrap();
    assert_eq!(rig.plane.flow4(&key).unwrap(), None);
    // Looked after once in a window, which is about a second.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let packet = Packet::tcp(("10.5.0.50", 4000), ("10.9.0.1", 80), ACK);
    rig.redirects(&packet.frame());
    let after = rig.plane.flow4(&key).unwrap().expect("the entry again");
    assert_eq!(after.rewrite, before.rewrite);
    let answer = Packet::tcp(("10.2.0.11", 8080), ("10.2.0.1", port), ACK);
    Parsed::frame(&rig.sends_back(&answer.frame()), mac(9), ETH0).goes("10.9.0.1", "10.5.0.50");
}

/// L4-09: nobody is reached through the gateway who has not sent to it first.
fn l4_09_backends_reach_those_who_began_alone() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Nat, &["10.2.0.11", "10.2.0.12"]);
    let packet = Packet::udp(("10.5.0.50", 4000), ("10.9.0.1", 80), b"x");
    let out = rig.redirects(&packet.frame());
    let (backend, other) = if out[5] == 11 { ("10.2.0.11", "10.2.0.12") } else { ("10.2.0.12", "10.2.0.11") };
    let port = Parsed::ip(&out[14..]).ports().0;
    for (source, source_port, to) in [(other, 8080, port), (backend, 8081, port), (backend, 8080, port ^ 1)] {
        let stray = Packet::udp((source, source_port), ("10.2.0.1", to), &[0; 1000]);
        rig.passes(&stray.frame(), Event::PassNotOurs);
    }
    let answer = Packet::udp((backend, 8080), ("10.2.0.1", port), b"x");
    Parsed::frame(&rig.sends_back(&answer.frame()), mac(9), ETH0).goes("10.9.0.1", "10.5.0.50");
}

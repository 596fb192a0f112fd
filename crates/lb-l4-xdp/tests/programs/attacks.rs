//! Rows L4-01 to L4-07 of the attacks, as far as they concern the programs. L4-04 and L4-09 stand beside what they are about.

use lb_l4_xdp::layout::{AclRule, Event, Mode, NO_BACKEND, RING_SLOTS, Standing};

use crate::Test;
use crate::packets::{ACK, FRAGMENT, Packet, Parsed, SYN, TCP};
use crate::rig::{DROP, ETH1, REDIRECT, Rig, backend_of, ip, mac, ring_of};

pub(crate) const TESTS: &[Test] = &[
    ("l4_01_truncated_packets_are_dropped", l4_01_truncated_packets_are_dropped),
    (
        "l4_01_headers_that_contradict_themselves_are_dropped",
        l4_01_headers_that_contradict_themselves_are_dropped,
    ),
    ("l4_01_any_prefix_and_any_octet_is_survived", l4_01_any_prefix_and_any_octet_is_survived),
    ("l4_01_jumbo_frames_are_forwarded", l4_01_jumbo_frames_are_forwarded),
    (
        "l4_02_a_flood_of_new_flows_leaves_the_known_ones_alone",
        l4_02_a_flood_of_new_flows_leaves_the_known_ones_alone,
    ),
    ("l4_02_a_source_has_a_cap", l4_02_a_source_has_a_cap),
    ("l4_03_an_evicted_flow_finds_the_same_backend", l4_03_an_evicted_flow_finds_the_same_backend),
    ("l4_05_loops_end", l4_05_loops_end),
    ("l4_07_few_flows_move_with_a_backend", l4_07_few_flows_move_with_a_backend),
    ("denied_sources_are_dropped", denied_sources_are_dropped),
    ("what_cannot_be_sent_is_dropped_with_the_reason", what_cannot_be_sent_is_dropped_with_the_reason),
];

fn services(rig: &mut Rig) {
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    rig.service("fd00:9::1", 80, Mode::Ipip, &["fd00:2::11"]);
}

fn both(flags: u8) -> [Packet; 2] {
    [
        Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", 80), flags),
        Packet::tcp(("fd00:1::9", 4000), ("fd00:9::1", 80), flags),
    ]
}

fn l4_01_truncated_packets_are_dropped() {
    let mut rig = Rig::new();
    services(&mut rig);
    for packet in both(SYN) {
        let frame = packet.frame();
        let ip = if packet.source.is_ipv4() { 34 } else { 54 };
        for length in ip..frame.len() {
            rig.drops(&frame[..length], Event::DropTruncated);
        }
        // The same to nobody passes.
        let mut other = frame.clone();
        let last = ip - 1;
        other[last] ^= 0x80;
        rig.passes(&other[..ip + 4], Event::PassNotOurs);
    }
}

fn l4_01_headers_that_contradict_themselves_are_dropped() {
    let mut rig = Rig::new();
    services(&mut rig);
    let [four, six] = both(SYN);
    let edited = |packet: &Packet, at: usize, to: &[u8]| {
        let mut frame = packet.frame();
        frame[at..at + to.len()].copy_from_slice(to);
        frame
    };
    // Four words of header; version 5; shorter than its header.
    rig.drops(&edited(&four, 14, &[0x44]), Event::DropBadHeader);
    rig.drops(&edited(&four, 14, &[0x55]), Event::DropBadHeader);
    rig.drops(&edited(&four, 16, &[0, 10]), Event::DropBadHeader);
    // Longer than the frame; shorter than its transport's header.
    rig.drops(&edited(&four, 16, &[0x20, 0]), Event::DropTruncated);
    rig.drops(&edited(&four, 16, &[0, 30]), Event::DropTruncated);
    rig.drops(&edited(&six, 18, &[0x20, 0]), Event::DropTruncated);
    rig.drops(&edited(&six, 18, &[0, 10]), Event::DropTruncated);
    let chained = |first: u8, chain: Vec<u8>| {
        six.clone().with(|packet| {
            packet.first_extension = Some(first);
            packet.options = chain;
        })
    };
    let hop = |next: u8| [next, 0, 0, 0, 0, 0, 0, 0];
    // Six extension headers are followed, seven are not.
    let six_long = [hop(60), hop(60), hop(60), hop(60), hop(60), hop(TCP)].concat();
    rig.redirects(&chained(60, six_long).frame());
    let seven_long = [hop(60), hop(60), hop(60), hop(60), hop(60), hop(60), hop(TCP)].concat();
    rig.drops(&chained(60, seven_long).frame(), Event::DropBadHeader);
    // A routing header with segments left (RFC 5095).
    rig.drops(&chained(43, vec![TCP, 0, 0, 1, 0, 0, 0, 0]).frame(), Event::DropBadHeader);
    rig.redirects(&chained(43, vec![TCP, 0, 0, 0, 0, 0, 0, 0]).frame());
    // An extension header longer than the packet.
    rig.drops(&chained(60, vec![TCP, 30, 0, 0, 0, 0, 0, 0]).frame(), Event::DropBadHeader);
    rig.drops(
        &chained(FRAGMENT, vec![]).with(|packet| packet.payload.truncate(4)).frame(),
        Event::DropTruncated,
    );
}

/// No packet makes a program fail, which the kernel would report as an aborted one.
fn l4_01_any_prefix_and_any_octet_is_survived() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 0, Mode::Nat, &["10.2.0.11"]);
    rig.service("fd00:9::1", 0, Mode::Nat, &["fd00:2::11"]);
    let mut seed = 0x1234_5678u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 8
    };
    for packet in both(SYN) {
        for tags in [vec![], vec![[0x81, 0, 0, 1]]] {
            let frame = packet.clone().with(|packet| packet.tags = tags).with_data(80).frame();
            for length in 14..frame.len() {
                rig.run(&frame[..length]);
            }
            for _ in 0..2000 {
                let mut mutated = frame.clone();
                for _ in 0..=random() % 3 {
                    let at = 12 + random() as usize % (frame.len() - 12);
                    mutated[at] = random() as u8;
                }
                rig.run(&mutated);
            }
        }
    }
}

fn l4_01_jumbo_frames_are_forwarded() {
    let mut rig = Rig::new();
    ip("link set eth1 mtu 9000\n");
    services(&mut rig);
    for packet in both(SYN) {
        let large = packet.with_data(8000);
        for _ in 0..2 {
            let frame = rig.redirects(&large.frame());
            let last = if large.source.is_ipv4() { 11 } else { 0x11 };
            let inner = Parsed::frame(&frame, mac(last), ETH1).inner();
            assert_eq!(inner.payload, Parsed::ip(&large.ip()).payload);
        }
    }
}

fn l4_02_a_flood_of_new_flows_leaves_the_known_ones_alone() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11"]);
    rig.service("10.9.0.2", 80, Mode::Nat, &["10.2.0.11"]);
    let known = [("10.9.0.1", 80), ("10.9.0.2", 80)].map(|to| Packet::tcp(("10.1.0.9", 4000), to, SYN));
    for packet in &known {
        rig.redirects(&packet.frame());
    }
    rig.set(|settings| settings.new_flows_per_core = 4);
    let mut kept = 0;
    for port in 5000..5200 {
        // Forwarded all the same: the ring needs no entry.
        rig.redirects(&Packet::tcp(("10.1.0.9", port), ("10.9.0.1", 80), SYN).frame());
        // A translation needs one.
        kept += u32::from(
            rig.run(&Packet::tcp(("10.1.0.9", port), ("10.9.0.2", 80), SYN).frame()).action == REDIRECT,
        );
    }
    assert!(rig.event(Event::NewFlowNotKept) > 150, "{:?}", rig.events());
    assert!(rig.event(Event::DropCoreCap) > 150 && kept < 50, "{:?}", rig.events());
    for packet in &known {
        rig.redirects(&packet.frame());
    }
}

fn l4_02_a_source_has_a_cap() {
    let mut rig = Rig::new();
    services(&mut rig);
    rig.set(|settings| {
        settings.new_flows_per_source = 10;
        settings.has_acl4 = 1;
    });
    rig.plane.set_source_rule("10.1.5.0".parse().unwrap(), 24, AclRule::Allow).unwrap();
    let mut flood = |source: &str, vip: &str| -> usize {
        let flows = (5000..5100).map(|port| Packet::tcp((source, port), (vip, 80), SYN));
        flows.filter(|packet| rig.run(&packet.frame()).action == REDIRECT).count()
    };
    // A window may end meanwhile.
    let let_in = flood("10.1.0.9", "10.9.0.1");
    assert!((10..=20).contains(&let_in), "{let_in}");
    // Another source is not concerned; one that is allowed has no cap.
    assert!(flood("10.1.0.10", "10.9.0.1") >= 10);
    assert_eq!(flood("10.1.5.9", "10.9.0.1"), 100);
    // All addresses of a network over IPv6 are one source.
    let first = flood("fd00:7::1", "fd00:9::1");
    let second = flood("fd00:7::2", "fd00:9::1");
    assert!(first >= 10 && first + second <= 30, "{first}, {second}");
    assert!(rig.event(Event::DropSourceCap) > 200);
}

fn l4_03_an_evicted_flow_finds_the_same_backend() {
    let mut rig = Rig::new();
    rig.service("10.9.0.1", 80, Mode::Ipip, &["10.2.0.11", "10.2.0.12", "10.2.0.13"]);
    let flow = |source: &str, port: u16| Packet::udp((source, port), ("10.9.0.1", 80), b"x").frame();
    let before: Vec<u8> = (0..32).map(|at| rig.redirects(&flow("10.1.0.9", 4000 + at))[5]).collect();
    // The table has room for 4096.
    for at in 0..10_000u16 {
        let source = format!("10.8.{}.{}", at >> 8, at & 0xff);
        assert_eq!(rig.run(&flow(&source, 5000)).action, REDIRECT);
    }
    let after: Vec<u8> = (0..32).map(|at| rig.redirects(&flow("10.1.0.9", 4000 + at))[5]).collect();
    assert_eq!(after, before);
}

fn l4_05_loops_end() {
    let mut rig = Rig::new();
    services(&mut rig);
    rig.service("10.9.0.1", 81, Mode::Link, &["10.2.0.11"]);
    rig.service("10.9.0.1", 82, Mode::Nat, &["10.2.0.11"]);
    for port in [80, 81, 82] {
        for ttl in [0, 1] {
            let packet =
                Packet::tcp(("10.1.0.9", 4000), ("10.9.0.1", port), SYN).with(|packet| packet.ttl = ttl);
            // As a new flow and as a known one.
            rig.drops(&packet.frame(), Event::DropTtl);
            rig.drops(&packet.frame(), Event::DropTtl);
        }
    }
    let packet = Packet::tcp(("fd00:1::9", 4000), ("fd00:9::1", 80), SYN).with(|packet| packet.ttl = 1);
    rig.drops(&packet.frame(), Event::DropTtl);
    rig.drops(&packet.frame(), Event::DropTtl);
    // From the service's own address, and from the source of our tunnels.
    for (source, vip) in [
        ("10.9.0.1", "10.9.0.1"),
        ("10.99.0.1", "10.9.0.1"),
        ("fd00:9::1", "fd00:9::1"),
        ("fd00:99::1", "fd00:9::1"),
    ] {
        rig.drops(&Packet::tcp((source, 4000), (vip, 80), SYN).frame(), Event::DropLoop);
    }
}

fn l4_07_few_flows_move_with_a_backend() {
    let all = ring_of(&(0..20).collect::<Vec<_>>());
    let without_two = ring_of(&(0..18).collect::<Vec<_>>());
    let moved =
        all.iter().zip(&without_two).filter(|&(before, after)| *before < 18 && before != after).count();
    // Of the slots of backends that stay, few get another.
    assert!(moved * 100 < 8 * RING_SLOTS as usize, "{moved} of {RING_SLOTS}");
}

fn denied_sources_are_dropped() {
    let mut rig = Rig::new();
    services(&mut rig);
    let [four, six] = both(SYN);
    rig.redirects(&four.frame());
    rig.redirects(&six.frame());
    rig.plane.set_source_rule("10.1.0.0".parse().unwrap(), 16, AclRule::Deny).unwrap();
    rig.plane.set_source_rule("10.1.7.0".parse().unwrap(), 24, AclRule::Allow).unwrap();
    rig.plane.set_source_rule("fd00:1::".parse().unwrap(), 32, AclRule::Deny).unwrap();
    rig.set(|settings| {
        settings.has_acl4 = 1;
        settings.has_acl6 = 1;
    });
    // Of a known flow, of a new one, behind a tag, and with options.
    for packet in [four.clone(), six] {
        rig.drops(&packet.frame(), Event::DropDenied);
        let tagged = packet.clone().with(|packet| packet.tags = vec![[0x81, 0, 0, 1]]);
        rig.drops(&tagged.frame(), Event::DropDenied);
        let new = packet.with(|packet| packet.payload[0] = 0x40);
        rig.drops(&new.frame(), Event::DropDenied);
    }
    // The longest prefix decides.
    rig.redirects(&Packet::tcp(("10.1.7.9", 4000), ("10.9.0.1", 80), SYN).frame());
    // Only services are closed to them.
    rig.passes(&Packet::tcp(("10.1.0.9", 4000), ("10.9.0.7", 80), SYN).frame(), Event::PassNotOurs);
    assert_eq!(rig.run(&four.frame()).action, DROP);
}

fn what_cannot_be_sent_is_dropped_with_the_reason() {
    let mut rig = Rig::new();
    let backends = [
        ("10.2.0.11", Event::DropNoBackend),
        ("10.2.0.77", Event::DropNoNeighbour),
        ("10.77.0.1", Event::DropNoRoute),
    ];
    ip("route add unreachable 10.77.0.0/16\n");
    for (at, (backend, event)) in (1..).zip(backends) {
        let vip = format!("10.9.0.{at}");
        let (index, added) = rig.service(&vip, 80, Mode::Ipip, &[backend]);
        if event == Event::DropNoBackend {
            let none = lb_l4_xdp::layout::Backend {
                standing: Standing::Absent as u8,
                ..backend_of(index, backend, Mode::Ipip)
            };
            rig.plane.set_backend(added[0], &none).unwrap();
            rig.drops(&Packet::tcp(("10.1.0.9", 4000), (&vip, 80), SYN).frame(), event);
            rig.plane.set_ring(index, &vec![NO_BACKEND; RING_SLOTS as usize]).unwrap();
        }
        rig.drops(&Packet::tcp(("10.1.0.9", 4000), (&vip, 80), ACK).frame(), event);
    }
    // An interface that is not ours.
    ip(
        "link add eth2 type veth peer name far2\nlink set eth2 up\nlink set far2 up\naddr add 10.3.0.1/24 dev eth2\n\
        neigh replace 10.3.0.11 lladdr 02:00:00:00:00:03 nud permanent dev eth2\n",
    );
    rig.service("10.9.0.8", 80, Mode::Ipip, &["10.3.0.11"]);
    rig.drops(&Packet::tcp(("10.1.0.9", 4000), ("10.9.0.8", 80), SYN).frame(), Event::DropNoDevice);
    std::fs::write("/proc/sys/net/ipv4/conf/eth0/forwarding", "0").unwrap();
    rig.service("10.9.0.9", 80, Mode::Ipip, &["10.2.0.12"]);
    rig.drops(&Packet::tcp(("10.1.0.9", 4000), ("10.9.0.9", 80), SYN).frame(), Event::DropNotForwarding);
}

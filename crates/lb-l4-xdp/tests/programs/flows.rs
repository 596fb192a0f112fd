//! Which backend a flow has, how long it keeps it, and that user space and kernel agree on it.

use lb_core::balance::{Maglev, Seat, hash};
use lb_l4_xdp::layout::{
    Backend, Event, FlowKey4, FlowKey6, Mode, NO_BACKEND, RING_SLOTS, Service, Standing, flow_hash4,
    flow_hash6, ring_slot,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::Test;
use crate::packets::{ACK, FIN, Packet, RST, SYN};
use crate::rig::{Rig, address, backend_of, mac};

pub(crate) const TESTS: &[Test] = &[
    ("kernel_and_user_space_choose_the_same_backend", kernel_and_user_space_choose_the_same_backend),
    ("a_known_flow_stays_when_the_ring_changes", a_known_flow_stays_when_the_ring_changes),
    (
        "a_draining_backend_keeps_its_flows_and_gets_no_new_ones",
        a_draining_backend_keeps_its_flows_and_gets_no_new_ones,
    ),
    ("a_dead_backend_and_a_new_owner_of_its_index_get_no_old_flows", a_dead_backend_and_a_new_owner),
    ("a_new_connection_of_the_same_ports_chooses_anew", a_new_connection_of_the_same_ports_chooses_anew),
    ("idle_flows_are_forgotten", idle_flows_are_forgotten),
    ("flows_of_one_source_may_share_a_backend", flows_of_one_source_may_share_a_backend),
];

const BACKENDS: [&str; 3] = ["10.2.0.11", "10.2.0.12", "10.2.0.13"];

/// The slots as the kernel has them, the choice of Maglev in user space, and what the programs do, for any flow.
fn kernel_and_user_space_choose_the_same_backend() {
    let mut rig = Rig::new();
    let (four, _) = rig.service("10.9.0.1", 0, Mode::Link, &BACKENDS);
    let (six, _) = rig.service("fd00:9::1", 0, Mode::Link, &["fd00:2::11", "fd00:2::12"]);
    let rings = [(four, 0u32..3, [11, 12, 13]), (six, 3..5, [0x11, 0x12, 0])];
    let rings = rings.map(|(service, backends, lasts)| {
        let weights = [1, 3, 2];
        let mut seats: Vec<Seat> = backends
            .clone()
            .zip(weights)
            .map(|(at, weight)| Seat { identity: hash::bytes(&at.to_be_bytes()), at, weight })
            .collect();
        seats.sort();
        let table = Maglev::new(&seats, RING_SLOTS);
        assert_eq!(table.slots().len(), RING_SLOTS as usize, "a prime that the kernel knows");
        rig.plane.set_ring(service, table.slots()).unwrap();
        (table, backends.start, lasts)
    });
    let seed = rig.settings.hash_seed;
    let rig = std::cell::RefCell::new(rig);
    let mut runner = TestRunner::new(Config { cases: 512, failure_persistence: None, ..Config::default() });
    let any = (any::<[u8; 4]>(), any::<u16>(), any::<u16>(), any::<bool>(), any::<bool>());
    runner
        .run(&any, |(octets, source_port, port, is_tcp, is_ipv6)| {
            let [a, b, c, d] = octets;
            let (client, vip) = if is_ipv6 {
                (format!("fd00:{a:x}{b:x}::{c:x}:{d:x}"), "fd00:9::1")
            } else {
                (format!("{}.{b}.{c}.{d}", 11 + a % 100), "10.9.0.1")
            };
            let ports = u32::from(source_port.to_be()) | u32::from(port.to_be()) << 16;
            let protocol = if is_tcp { 6 } else { 17 };
            let key = if is_ipv6 {
                let key = FlowKey6 { source: address(&client), destination: address(vip), ports, protocol };
                flow_hash6(&key, seed)
            } else {
                let key =
                    FlowKey4 { source: address(&client)[0], destination: address(vip)[0], ports, protocol };
                flow_hash4(&key, seed)
            };
            let (table, first, lasts) = &rings[usize::from(is_ipv6)];
            // What lb-core has for a key of 64 bits is what the kernel has for its upper half.
            prop_assert_eq!(table.slot(u64::from(key) << 32), ring_slot(key) as usize);
            let chosen = table.find(u64::from(key) << 32, |_| true).unwrap() as u32;
            let packet = if is_tcp {
                Packet::tcp((&client, source_port), (vip, port), SYN)
            } else {
                Packet::udp((&client, source_port), (vip, port), b"")
            };
            let frame = rig.borrow_mut().redirects(&packet.frame());
            prop_assert_eq!(frame[..6].to_vec(), mac(lasts[(chosen - first) as usize]).to_vec());
            Ok(())
        })
        .unwrap();
}

/// The backend of a flow, by the last octet of its MAC address.
fn backend(rig: &mut Rig, port: u16, flags: u8) -> u8 {
    rig.redirects(&Packet::tcp(("10.1.0.9", port), ("10.9.0.1", 80), flags).frame())[5]
}

fn a_known_flow_stays_when_the_ring_changes() {
    let mut rig = Rig::new();
    let (service, indices) = rig.service("10.9.0.1", 80, Mode::Ipip, &BACKENDS);
    let before: Vec<u8> = (4000..4064).map(|port| backend(&mut rig, port, SYN)).collect();
    rig.ring(service, &indices[..1]);
    let after: Vec<u8> = (4000..4064).map(|port| backend(&mut rig, port, ACK)).collect();
    assert_eq!(after, before);
    assert!((5000..5064).all(|port| backend(&mut rig, port, SYN) == 11), "new flows follow the new ring");
}

fn standing(rig: &mut Rig, index: u32, change: impl FnOnce(Backend) -> Backend) {
    let backend = backend_of(0, BACKENDS[index as usize], Mode::Ipip);
    rig.plane.set_backend(index, &change(backend)).unwrap();
}

fn a_draining_backend_keeps_its_flows_and_gets_no_new_ones() {
    let mut rig = Rig::new();
    let (service, indices) = rig.service("10.9.0.1", 80, Mode::Ipip, &BACKENDS);
    let ports: Vec<u16> = (4000..4200).filter(|&port| backend(&mut rig, port, SYN) == 11).collect();
    assert!(ports.len() > 30);
    standing(&mut rig, 0, |backend| Backend { standing: Standing::Draining as u8, ..backend });
    // Even before the ring is another.
    assert!((5000..5200).all(|port| backend(&mut rig, port, SYN) != 11));
    rig.ring(service, &indices[1..]);
    assert!((6000..6200).all(|port| backend(&mut rig, port, SYN) != 11));
    assert!(ports.iter().all(|&port| backend(&mut rig, port, ACK) == 11));
}

fn a_dead_backend_and_a_new_owner() {
    let mut rig = Rig::new();
    let (service, indices) = rig.service("10.9.0.1", 80, Mode::Ipip, &BACKENDS);
    let ports: Vec<u16> = (4000..4200).filter(|&port| backend(&mut rig, port, SYN) == 11).collect();
    standing(&mut rig, 0, |backend| Backend { standing: Standing::Absent as u8, ..backend });
    rig.ring(service, &indices[1..]);
    let moved: Vec<u8> = ports.iter().map(|&port| backend(&mut rig, port, ACK)).collect();
    assert!(moved.iter().all(|&last| last != 11));
    // The index has a new owner: flows that chose the old one do not reach it.
    let others: Vec<u16> = (7000..7200).filter(|&port| backend(&mut rig, port, SYN) == 12).collect();
    standing(&mut rig, 1, |_| Backend { generation: 2, ..backend_of(0, "10.2.0.11", Mode::Ipip) });
    rig.ring(service, &indices[2..]);
    assert!(others.iter().all(|&port| backend(&mut rig, port, ACK) == 13));
    assert!(rig.event(Event::FlowStale) >= (ports.len() + others.len()) as u64);
}

fn a_new_connection_of_the_same_ports_chooses_anew() {
    let mut rig = Rig::new();
    let (service, indices) = rig.service("10.9.0.1", 80, Mode::Ipip, &BACKENDS);
    for (port, end) in [(4000u16, FIN), (4100, RST)] {
        let ports: Vec<u16> = (port..port + 100).filter(|&port| backend(&mut rig, port, SYN) == 11).collect();
        rig.ring(service, &indices[1..]);
        for &port in &ports {
            assert_eq!(backend(&mut rig, port, end), 11);
            // What is still under way belongs to the old connection.
            assert_eq!(backend(&mut rig, port, ACK), 11);
            if end == FIN {
                assert_ne!(backend(&mut rig, port, SYN), 11);
            } else {
                // RST was not the end, since something came after it.
                assert_eq!(backend(&mut rig, port, SYN), 11);
                backend(&mut rig, port, RST);
                assert_ne!(backend(&mut rig, port, SYN), 11);
            }
        }
        rig.ring(service, &indices);
    }
}

fn idle_flows_are_forgotten() {
    let mut rig = Rig::new();
    let (service, indices) = rig.service("10.9.0.1", 80, Mode::Ipip, &BACKENDS);
    let ports: Vec<u16> = (4000..4100).filter(|&port| backend(&mut rig, port, SYN) == 11).collect();
    rig.ring(service, &indices[1..]);
    assert!(ports.iter().all(|&port| backend(&mut rig, port, ACK) == 11));
    rig.set(|settings| settings.idle = [0; 4]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(ports.iter().all(|&port| backend(&mut rig, port, ACK) != 11));
}

fn flows_of_one_source_may_share_a_backend() {
    let mut rig = Rig::new();
    let (index, _) = rig.service("10.9.0.1", 80, Mode::Ipip, &BACKENDS);
    let seen = |rig: &mut Rig, first: u16| -> std::collections::BTreeSet<u8> {
        (first..first + 64).map(|port| backend(rig, port, SYN)).collect()
    };
    assert_eq!(seen(&mut rig, 4000).len(), 3);
    let service = Service { present: 1, mode: Mode::Ipip as u8, by_source: 1, ..Service::default() };
    rig.plane.set_service(index, &service).unwrap();
    assert_eq!(seen(&mut rig, 5000).len(), 1);
    assert_ne!(NO_BACKEND, 0);
}

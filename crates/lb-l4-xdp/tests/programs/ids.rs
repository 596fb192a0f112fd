//! QUIC by connection ID: a connection stays at the server that its ID names.

use lb_l4_xdp::layout::{Backend, Event, Mode, ServerKey, Service, Standing};
use lb_l4_xdp::server_id_words;

use crate::Test;
use crate::packets::{Packet, Parsed};
use crate::rig::{ETH1, PASS, Rig, address, backend_of, mac};

pub(crate) const TESTS: &[Test] = &[
    ("an_id_leads_to_its_server_from_any_address", an_id_leads_to_its_server_from_any_address),
    ("an_id_leads_a_translated_flow", an_id_leads_a_translated_flow),
    ("a_flow_that_another_connection_takes_over_moves", a_flow_that_another_connection_takes_over_moves),
    ("ids_that_name_nobody_lead_nowhere", ids_that_name_nobody_lead_nowhere),
    (
        "an_id_leads_to_a_draining_server_and_not_to_a_dead_one",
        an_id_leads_to_a_draining_server_and_not_to_a_dead_one,
    ),
    ("ids_are_for_services_of_their_own", ids_are_for_services_of_their_own),
];

/// Octets of an ID of the tests: the first, two of the server, sixteen of nonce.
const LENGTH: u8 = 19;

const ROTATION: u8 = 2;

/// The ID of a server, with a nonce.
fn id(server: u8, nonce: u8) -> Vec<u8> {
    let mut id = vec![ROTATION << 5 | (LENGTH - 1), 0xaa, server];
    id.extend([nonce; 16]);
    id
}

/// A packet with a short header.
fn short(id: &[u8]) -> Vec<u8> {
    [&[0x41], id, &[0xee; 24]].concat()
}

/// A packet with a long header.
fn long(id: &[u8]) -> Vec<u8> {
    [&[0xe1, 0, 0, 0, 1, id.len() as u8], id, &[8], &[7; 8], &[0xee; 64]].concat()
}

struct Quic {
    rig: Rig,
    service: u32,
    backends: Vec<u32>,
}

/// A service whose IDs name the servers 1, 2 and so on, which are these backends.
fn quic(vip: &str, mode: Mode, servers: &[&str]) -> Quic {
    let mut rig = Rig::new();
    let (service, backends) = rig.service(vip, 443, mode, servers);
    let is_ipv6 = vip.contains(':');
    let entry = Service {
        present: 1,
        mode: mode as u8,
        nat_port_first: 20_000,
        nat_port_count: 1000,
        nat_source: address(if is_ipv6 { "fd00:2::1" } else { "10.2.0.1" }),
        id_mask: server_id_words(&[0xff; 2]),
        id_length: LENGTH,
        id_rotation: ROTATION,
        ..Service::default()
    };
    rig.plane.set_service(service, &entry).unwrap();
    for ((at, server), number) in backends.iter().zip(servers).zip(1..) {
        rig.plane.set_backend(*at, &Backend { by_id: 1, ..backend_of(service, server, mode) }).unwrap();
        rig.plane.set_server(&ServerKey { service, id: server_id_words(&[0xaa, number]) }, *at).unwrap();
    }
    Quic { rig, service, backends }
}

impl Quic {
    /// The last octet of the MAC address that a packet goes to.
    fn goes(&mut self, source: (&str, u16), vip: &str, data: &[u8]) -> u8 {
        self.rig.redirects(&Packet::udp(source, (vip, 443), data).frame())[5]
    }
}

fn an_id_leads_to_its_server_from_any_address() {
    for (vip, servers, clients, macs) in [
        ("10.9.0.1", ["10.2.0.11", "10.2.0.12"], ["10.1.0.9", "10.5.0.77"], [11, 12]),
        ("fd00:9::1", ["fd00:2::11", "fd00:2::12"], ["fd00:1::9", "fd00:7::77"], [0x11, 0x12]),
    ] {
        let mut quic = quic(vip, Mode::Ipip, &servers);
        for (number, expected) in (1..).zip(macs) {
            for client in clients {
                for port in 4000..4020 {
                    for data in [short(&id(number, 3)), long(&id(number, 4))] {
                        assert_eq!(quic.goes((client, port), vip, &data), expected);
                    }
                }
            }
        }
        let led = quic.rig.event(Event::FlowByConnectionId);
        assert!(led >= 40, "{led}");
        // Without an ID of the format the flow stays where the last one led it, and another one goes by the ring.
        let plain = short(&[0; 19]);
        assert_eq!(quic.goes((clients[0], 4000), vip, &plain), macs[1]);
        let by_ring: std::collections::BTreeSet<u8> =
            (5000..5040).map(|port| quic.goes((clients[0], port), vip, &plain)).collect();
        assert_eq!(by_ring.len(), 2);
        assert_eq!(quic.rig.event(Event::FlowByConnectionId), led);
        // Behind a tag and behind options as well.
        for port in 6000..6008 {
            let tagged = Packet::udp((clients[1], port), (vip, 443), &short(&id(2, 9)))
                .with(|packet| packet.tags = vec![[0x81, 0, 0, 1]]);
            assert_eq!(quic.rig.redirects(&tagged.frame())[5], macs[1]);
        }
    }
}

fn an_id_leads_a_translated_flow() {
    let mut quic = quic("10.9.0.1", Mode::Nat, &["10.2.0.11", "10.2.0.12"]);
    for (number, backend, last) in [(1, "10.2.0.11", 11), (2, "10.2.0.12", 12)] {
        for port in 4000..4010 {
            let sent = Packet::udp(("10.5.0.50", port), ("10.9.0.1", 443), &short(&id(number, 1)));
            for _ in 0..2 {
                let out = Parsed::frame(&quic.rig.redirects(&sent.frame()), mac(last), ETH1);
                out.goes("10.2.0.1", backend);
                // Whoever answers is understood, also after the other server got the flow.
                let back =
                    Packet::udp((backend, 8080), ("10.2.0.1", out.ports().0), &short(&id(3 - number, 1)));
                let frame = quic.rig.sends_back(&back.frame());
                Parsed::ip(&frame[14..]).goes("10.9.0.1", "10.5.0.50");
            }
        }
    }
}

/// The client's address may be that which another connection had before.
fn a_flow_that_another_connection_takes_over_moves() {
    for mode in [Mode::Ipip, Mode::Link, Mode::Gue, Mode::Nat] {
        let mut quic = quic("10.9.0.1", mode, &["10.2.0.11", "10.2.0.12"]);
        for (server, expected) in [(1, 11), (2, 12), (2, 12), (1, 11)] {
            assert_eq!(
                quic.goes(("10.5.0.50", 4000), "10.9.0.1", &short(&id(server, 7))),
                expected,
                "{mode:?}"
            );
        }
    }
}

fn ids_that_name_nobody_lead_nowhere() {
    let mut quic = quic("10.9.0.1", Mode::Ipip, &["10.2.0.11", "10.2.0.12"]);
    let first = quic.goes(("10.5.0.50", 4000), "10.9.0.1", &short(&id(9, 1)));
    // The other format; a long header with an ID of another length; a packet that ends within its ID.
    let other = if first == 11 { 2 } else { 1 };
    let mut other_format = id(other, 1);
    other_format[0] = 3 << 5 | (LENGTH - 1);
    let mut longer = id(other, 1);
    longer.push(0);
    for data in [short(&other_format), long(&longer), short(&id(other, 1))[..17].to_vec(), vec![0x41], vec![]]
    {
        assert_eq!(quic.goes(("10.5.0.50", 4000), "10.9.0.1", &data), first);
    }
    assert_eq!(quic.rig.event(Event::FlowByConnectionId), 0);
    assert_eq!(quic.goes(("10.5.0.50", 4000), "10.9.0.1", &short(&id(other, 1))), 10 + other);
}

fn an_id_leads_to_a_draining_server_and_not_to_a_dead_one() {
    let mut quic = quic("10.9.0.1", Mode::Ipip, &["10.2.0.11", "10.2.0.12"]);
    let (service, first) = (quic.service, quic.backends[0]);
    quic.rig.ring(service, &quic.backends[1..]);
    let set = |quic: &mut Quic, standing: Standing, of: u32| {
        let entry = Backend {
            standing: standing as u8,
            by_id: 1,
            service: of as u16,
            ..backend_of(service, "10.2.0.11", Mode::Ipip)
        };
        quic.rig.plane.set_backend(first, &entry).unwrap();
    };
    set(&mut quic, Standing::Draining, service);
    assert_eq!(quic.goes(("10.5.0.50", 4000), "10.9.0.1", &short(&id(1, 1))), 11);
    assert_eq!(quic.goes(("10.5.0.50", 4001), "10.9.0.1", &long(&[9; 8])), 12);
    set(&mut quic, Standing::Absent, service);
    assert_eq!(quic.goes(("10.5.0.50", 4000), "10.9.0.1", &short(&id(1, 1))), 12);
    // The place of another service's backend.
    set(&mut quic, Standing::Live, service + 1);
    assert_eq!(quic.goes(("10.5.0.50", 4002), "10.9.0.1", &short(&id(1, 1))), 12);
}

fn ids_are_for_services_of_their_own() {
    let mut quic = quic("10.9.0.1", Mode::Ipip, &["10.2.0.11"]);
    // The same octets for a service that knows no IDs, and over TCP.
    quic.rig.service("10.9.0.2", 443, Mode::Ipip, &["10.2.0.12"]);
    assert_eq!(quic.goes(("10.5.0.50", 4000), "10.9.0.2", &short(&id(1, 1))), 12);
    let tcp = Packet::tcp(("10.5.0.50", 4000), ("10.9.0.1", 443), crate::packets::SYN)
        .with(|packet| packet.payload.extend(short(&id(1, 1))));
    assert_eq!(quic.rig.redirects(&tcp.frame())[5], 11);
    assert_eq!(quic.rig.event(Event::FlowByConnectionId), 0);
    // Another service has other servers.
    let stray = Packet::udp(("10.5.0.50", 4000), ("10.9.0.3", 443), &short(&id(1, 1)));
    assert_eq!(quic.rig.run(&stray.frame()).action, PASS);
}

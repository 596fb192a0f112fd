//! SYNs for listeners of this machine, past their threshold (L4-02).

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use lb_l4_xdp::layout::{Event, Mode, Service};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::Test;
use crate::packets::{ACK, FIN, Packet, Parsed, RST, SYN};
use crate::rig::{Rig, ip};

pub(crate) const TESTS: &[Test] = &[
    ("l4_02_syns_below_the_threshold_pass", l4_02_syns_below_the_threshold_pass),
    ("l4_02_a_flood_of_syns_is_answered_with_cookies", l4_02_a_flood_of_syns_is_answered_with_cookies),
    ("l4_02_what_comes_back_needs_a_cookie", l4_02_what_comes_back_needs_a_cookie),
    ("l4_02_connections_that_are_there_need_none", l4_02_connections_that_are_there_need_none),
    ("l4_02_what_cannot_be_answered_is_dropped", l4_02_what_cannot_be_answered_is_dropped),
];

/// The client, the address of the listener, its octets of IP header.
const FAMILIES: [(&str, &str, usize); 2] = [("10.1.0.9", "10.9.0.1", 20), ("fd00:1::9", "fd00:9::1", 40)];

/// Listeners at port 80 of both families, with room for so many SYNs in a window.
fn listeners(most: u32) -> Rig {
    let mut rig = Rig::new();
    for (at, (_, vip, _)) in (0..).zip(FAMILIES) {
        let entry =
            Service { present: 1, mode: Mode::Local as u8, syns_per_core: most, ..Service::default() };
        rig.plane.set_service(at, &entry).unwrap();
        rig.plane.set_vip(vip.parse().unwrap(), 6, 80, at).unwrap();
    }
    rig
}

/// A SYN as a client sends it, with options.
fn syn(client: &str, port: u16, vip: &str) -> Packet {
    Packet::tcp((client, port), (vip, 80), SYN).with(|packet| {
        packet.payload[12] = 0xa0;
        packet.payload.extend([2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
    })
}

/// What completes a connection: the acknowledgment of this sequence number.
fn completion(client: &str, port: u16, vip: &str, sequence: u32) -> Packet {
    Packet::tcp((client, port), (vip, 80), ACK).with(|packet| {
        packet.payload[4..8].copy_from_slice(&0x0102_0305u32.to_be_bytes());
        packet.payload[8..12].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
    })
}

/// A SYN that is answered; the sequence number of the answer.
fn cookie(rig: &mut Rig, packet: &Packet) -> u32 {
    let mut frame = rig.sends_back(&packet.frame());
    let answer = Parsed::ip(&frame.split_off(14));
    let (_, vip, _) = FAMILIES[usize::from(packet.source.is_ipv6())];
    answer.goes(vip, &packet.source.to_string());
    u32::from_be_bytes(answer.payload[4..8].try_into().unwrap())
}

/// Leaves no SYN of this window to the listener. A window may end meanwhile.
fn flood(rig: &mut Rig, client: &str, vip: &str) {
    let sent = rig.event(Event::SynCookieSent);
    for port in 1000..1100 {
        rig.run(&syn(client, port, vip).frame());
    }
    assert!(rig.event(Event::SynCookieSent) > sent, "{:?}", rig.events());
}

fn l4_02_syns_below_the_threshold_pass() {
    for most in [0, 1000] {
        let mut rig = listeners(most);
        for (client, vip, _) in FAMILIES {
            for port in 4000..4050 {
                rig.passes(&syn(client, port, vip).frame(), Event::PassToListener);
            }
            // So does all else: what is no SYN, ICMP, other ports.
            for flags in [ACK, SYN | ACK, FIN, RST] {
                rig.passes(&Packet::tcp((client, 4000), (vip, 80), flags).frame(), Event::PassToListener);
            }
            rig.passes(&Packet::tcp((client, 4000), (vip, 81), SYN).frame(), Event::PassNotOurs);
            rig.passes(&Packet::udp((client, 4000), (vip, 80), b"x").frame(), Event::PassNotOurs);
        }
        assert_eq!(rig.event(Event::SynCookieSent), 0);
    }
}

fn l4_02_a_flood_of_syns_is_answered_with_cookies() {
    let mut rig = listeners(10);
    for (client, vip, header) in FAMILIES {
        flood(&mut rig, client, vip);
        let sent = syn(client, 4000, vip);
        for tags in [vec![], vec![[0x81, 0, 0, 5]], vec![[0x88, 0xa8, 0, 7], [0x81, 0, 0, 5]]] {
            let sent = sent.clone().with(|packet| packet.tags = tags.clone());
            let frame = sent.frame();
            let out = rig.sends_back(&frame);
            let l3 = 14 + 4 * tags.len();
            // From whom it was sent to, by the wire that it came by, with the same tags.
            assert_eq!((&out[..6], &out[6..12]), (&frame[6..12], &frame[..6]));
            assert_eq!(out[12..l3], frame[12..l3]);
            assert_eq!(out.len(), l3 + header + 24, "no octet of the SYN stays behind the answer");
            let answer = Parsed::ip(&out[l3..]);
            answer.goes(vip, client);
            answer.is_sound();
            assert_eq!(answer.ports(), (80, 4000));
            assert_eq!(answer.payload[8..12], [1, 2, 3, 5], "acknowledges the SYN");
            assert_eq!(answer.payload[12..14], [0x60, SYN | ACK]);
            let most: u16 = if header == 20 { 1460 } else { 1440 };
            assert_eq!(answer.payload[20..24], [2, 4, most.to_be_bytes()[0], most.to_be_bytes()[1]]);
        }
        // Without options the answer is longer than the SYN.
        let bare = Packet::tcp((client, 4001), (vip, 80), SYN);
        assert_eq!(rig.sends_back(&bare.frame()).len(), 14 + header + 24);
        // Each connection has a number of its own, which nobody can tell who has not got the answer.
        let numbers: std::collections::BTreeSet<u32> =
            (4000..4020).map(|port| cookie(&mut rig, &syn(client, port, vip))).collect();
        assert!(numbers.len() > 15, "{numbers:?}");
    }
    // Another listener of the machine has a threshold of its own; other windows begin anew.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let (client, vip, _) = FAMILIES[0];
    rig.passes(&syn(client, 4000, vip).frame(), Event::PassToListener);
}

fn l4_02_what_comes_back_needs_a_cookie() {
    let mut rig = listeners(10);
    for (client, vip, _) in FAMILIES {
        flood(&mut rig, client, vip);
        let number = cookie(&mut rig, &syn(client, 4000, vip));
        rig.passes(&completion(client, 4000, vip, number).frame(), Event::SynCookieTaken);
        for (port, number) in
            [(4000, number.wrapping_add(8)), (4000, number.wrapping_add(77)), (4001, number), (4002, 0)]
        {
            rig.drops(&completion(client, port, vip, number).frame(), Event::DropBadCookie);
        }
        rig.drops(&Packet::tcp((client, 4000), (vip, 80), FIN).frame(), Event::DropBadCookie);
        // Nothing is answered to a reset.
        rig.passes(&Packet::tcp((client, 4000), (vip, 80), RST).frame(), Event::PassToListener);
        // When the flood is over the listener sees to itself.
        std::thread::sleep(std::time::Duration::from_millis(4500));
        rig.passes(&completion(client, 4002, vip, 0).frame(), Event::PassToListener);
    }
}

/// What the kernel has a connection for is its own, whatever is flooded.
fn l4_02_connections_that_are_there_need_none() {
    let mut rig = listeners(10);
    ip("addr add 10.9.0.1/32 dev lo\naddr add fd00:9::1/128 dev lo nodad\n");
    for ((client, vip, _), own) in FAMILIES.into_iter().zip(["10.2.0.1", "fd00:2::1"]) {
        let listener = TcpListener::bind((vip, 80)).unwrap();
        let stream = connect_from(own, vip);
        let _accepted = listener.accept().unwrap();
        flood(&mut rig, client, vip);
        let port = stream.local_addr().unwrap().port();
        rig.passes(&Packet::tcp((own, port), (vip, 80), ACK).frame(), Event::PassToListener);
        rig.passes(&Packet::tcp((own, port), (vip, 80), FIN).frame(), Event::PassToListener);
        // That somebody listens is no connection.
        rig.drops(&Packet::tcp((own, port ^ 1), (vip, 80), ACK).frame(), Event::DropBadCookie);
    }
}

/// A connection from an address of this machine to port 80 of another.
fn connect_from(own: &str, vip: &str) -> TcpStream {
    let [own, vip] = [(own, 0), (vip, 80)].map(|(address, port)| {
        let address: IpAddr = address.parse().unwrap();
        SocketAddr::from((address, port))
    });
    let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None).unwrap();
    bind(&socket, &own).unwrap();
    connect(&socket, &vip).unwrap();
    TcpStream::from(socket)
}

fn l4_02_what_cannot_be_answered_is_dropped() {
    let mut rig = listeners(10);
    for (client, vip, header) in FAMILIES {
        flood(&mut rig, client, vip);
        let behind = |packet: Packet| {
            packet.with(|packet| {
                if header == 20 {
                    packet.options = vec![1, 1, 1, 0];
                } else {
                    packet.first_extension = Some(60);
                    packet.options = vec![6, 0, 1, 4, 0, 0, 0, 0];
                }
            })
        };
        rig.drops(&behind(syn(client, 4000, vip)).frame(), Event::DropSyn);
        rig.passes(&behind(completion(client, 4000, vip, 0)).frame(), Event::PassToListener);
        // A header of TCP that is longer than its packet, and one that is too short.
        for offset in [0xf0, 0x40] {
            let odd = syn(client, 4000, vip).with(|packet| packet.payload[12] = offset);
            rig.drops(&odd.frame(), Event::DropBadHeader);
        }
    }
}

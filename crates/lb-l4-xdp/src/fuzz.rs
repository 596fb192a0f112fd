//! Entry points of the fuzz targets: each takes any bytes, and panics where something does not hold that must.

use lb_l4_xdp_layout::read::{
    Frame, ICMP_HEADER, Kind, MOST_HEADERS, REACH, connection_id, plain4, plain6, quoted, read,
};
use lb_l4_xdp_layout::wire::{ETHER_IPV4, ETHER_IPV6, ETHERNET, Ipv4, Ipv6, Short, TCP, UDP, Wire, view};
use lb_l4_xdp_layout::{PacketFlags, PacketNote};

/// A frame that is read as the kernel's programs read it, and that tells what they would do wrong.
struct Checked<'a>(&'a [u8]);

impl Frame for Checked<'_> {
    fn at<T: Wire>(&self, offset: usize) -> Option<&T> {
        view(self.0, offset)
    }

    fn at_variable<T: Wire>(&self, offset: u32) -> Option<&T> {
        assert!(offset < REACH, "the programs would read another place than {offset}");
        view(self.0, offset as usize)
    }

    fn length(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn holds(&self, octets: usize) -> bool {
        octets <= self.0.len()
    }
}

/// A frame as an interface receives it, read as the programs of the kernel read it (L4-01).
pub fn xdp_packet(input: &[u8]) {
    let frame = Checked(input);
    let mut note = PacketNote::default();
    let kind = read(&frame, &mut note);
    plain(&frame, kind, &note);
    match kind {
        Kind::NotIp | Kind::Malformed(_) => return,
        Kind::Other | Kind::Error | Kind::LaterFragment | Kind::Flow => {}
    }
    let (l3, l4) = (note.l3, note.l4);
    let is_ipv6 = note.flags & PacketFlags::IPV6 != 0;
    assert!([14, 18, 22].contains(&l3), "an IP header at {l3}");
    let header = if is_ipv6 { Ipv6::SIZE } else { Ipv4::SIZE } as u32;
    assert!(l3.saturating_add(header) <= l4 && l4 <= MOST_HEADERS, "a transport header at {l4}");
    let end = l3.saturating_add(note.length);
    assert!(l4 <= end && end <= frame.length(), "a packet from {l3} to {end}");
    let (source, destination) = if is_ipv6 {
        let ip = frame.at_variable::<Ipv6>(l3).map(|ip| (ip.source.words(), ip.destination.words()));
        ip.unwrap_or_default()
    } else {
        let ip = frame.at_variable::<Ipv4>(l3).map(|ip| (ip.source, ip.destination)).unwrap_or_default();
        ([ip.0, 0, 0, 0], [ip.1, 0, 0, 0])
    };
    assert_eq!((note.source, note.destination), (source, destination), "the addresses of the packet");
    match kind {
        Kind::Flow => {
            let ports =
                input.get(l4 as usize..).and_then(<[u8]>::first_chunk).copied().map(u32::from_ne_bytes);
            assert_eq!(ports, Some(note.ports), "the ports of the packet");
            let least = if note.protocol == u32::from(TCP) { 20 } else { 8 };
            assert!(l4.saturating_add(least) <= end, "a transport header beyond its packet");
            if note.protocol == u32::from(UDP) {
                named(&frame, l4);
            }
        }
        Kind::Error => {
            if let Some(inner) = quoted(&frame, &mut note, l4.saturating_add(ICMP_HEADER)) {
                assert!(inner > l4 && inner.saturating_add(4) <= frame.length(), "quoted ports at {inner}");
            }
        }
        _ => {}
    }
}

/// What the entry reads at once is what the whole reader finds.
fn plain(frame: &Checked<'_>, kind: Kind, note: &PacketNote) {
    let Some(&Short(ether_type)) = frame.at::<Short>(ETHERNET - 2) else { return };
    let found = match ether_type {
        ETHER_IPV4 => {
            frame.at::<Ipv4>(ETHERNET).and_then(|ip| plain4(frame, ip)).map(|(key, flags, length)| {
                ([key.source, 0, 0, 0], [key.destination, 0, 0, 0], key.ports, key.protocol, flags, length)
            })
        }
        ETHER_IPV6 => {
            frame.at::<Ipv6>(ETHERNET).and_then(|ip| plain6(frame, ip)).map(|(key, flags, length)| {
                (key.source, key.destination, key.ports, key.protocol, flags | PacketFlags::IPV6, length)
            })
        }
        _ => None,
    };
    if let Some(found) = found {
        assert_eq!(kind, Kind::Flow, "{found:?} to one reader");
        let whole = (note.source, note.destination, note.ports, note.protocol, note.flags, note.length);
        assert_eq!(found, whole, "two readers of one packet");
    }
}

/// The connection ID of what may be a packet of QUIC, in formats of all lengths.
fn named(frame: &Checked<'_>, l4: u32) {
    for length in 6..=20u8 {
        for rotation in 0..=6 {
            let Some(id) = connection_id(frame, l4, length, rotation) else { continue };
            let first = l4.saturating_add(9);
            let is_long =
                frame.at_variable::<u8>(l4.saturating_add(8)).is_some_and(|first| first & 0x80 != 0);
            let at = if is_long { first.saturating_add(5) } else { first };
            let octet = frame.at_variable::<u8>(at).copied().unwrap_or_default();
            assert_eq!(octet >> 5, rotation, "an ID of another format");
            let behind = frame.0.get(at as usize + 1..).and_then(<[u8]>::first_chunk::<16>);
            assert_eq!(
                behind.copied().map(crate::words6),
                Some(id),
                "what follows the first octet of the ID"
            );
        }
    }
}

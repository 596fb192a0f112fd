//! Reads packets, in the kernel and in user space.
//!
//! What the programs of the kernel read is read here, from whatever a packet's octets are in: the kernel's buffer behind its verifier, or a slice of a test. So
//! that any octets can be tried without a kernel. A reader writes what it finds into the note that programs leave to each other.

use crate::event::Event;
use crate::flow::{FlowKey4, FlowKey6};
use crate::packet::{PacketFlags, PacketNote};
use crate::wire::{
    ETHER_IPV4, ETHER_IPV6, ETHER_QINQ, ETHER_VLAN, ETHERNET, Extension, ICMP, ICMPV6, Ipv4, Ipv6, Octets16,
    Ports, Short, TCP, Tcp, UDP, Udp, Wire,
};

/// A frame of Ethernet, wherever its octets are.
pub trait Frame {
    /// What stands at a place that is known when the program is compiled; none beyond the end.
    fn at<T: Wire>(&self, offset: usize) -> Option<&T>;

    /// What stands at a place below [`REACH`]; none beyond the end. Nothing asks for a place beyond: the kernel's side masks it.
    fn at_variable<T: Wire>(&self, offset: u32) -> Option<&T>;

    /// Octets in all its buffers.
    fn length(&self) -> u32;

    /// Whether its first buffer has so many octets.
    fn holds(&self, octets: usize) -> bool;
}

/// Places of a frame from which on nothing is read.
pub const REACH: u32 = 512;

/// Extension headers of a packet over IPv6 that are looked at.
pub const MOST_EXTENSIONS: u32 = 6;

/// Where the transport header begins at most.
pub const MOST_HEADERS: u32 = 400;

/// Octets of the header of ICMP (RFC 792, RFC 4443 section 2.1), which the packet that an error is about follows.
pub const ICMP_HEADER: u32 = 8;

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither IPv4 nor IPv6, as far as can be seen behind two VLAN tags.
    NotIp,
    /// Something that ends early or contradicts itself, and what a service counts it as.
    Malformed(Event),
    /// Of a protocol that is not balanced, and ICMP that is no error.
    Other,
    /// An error of ICMP.
    Error,
    /// A fragment other than the first, of the packet that [`PacketNote::identification`] tells.
    LaterFragment,
    /// A packet of TCP or UDP.
    Flow,
}

/// Reads TCP or UDP over IPv4 without options and fragments, in one buffer: its flow, its [`PacketFlags`] and its octets from the IP header on. `ip` is the
/// header that the frame has behind Ethernet. None for all else, which [`read`] is for.
#[inline(always)]
pub fn plain4(frame: &impl Frame, ip: &Ipv4) -> Option<(FlowKey4, u32, u32)> {
    const L4: usize = ETHERNET + Ipv4::SIZE;
    if ip.version_ihl != 0x45 || ip.fragment & (Ipv4::MORE_FRAGMENTS | Ipv4::OFFSET) != 0 {
        return None;
    }
    let length = u32::from(u16::from_be(ip.length));
    // A packet in several buffers is longer than the first of them.
    if !frame.holds(ETHERNET + length as usize) {
        return None;
    }
    let (ports, flags, least) = match ip.protocol {
        TCP => {
            let tcp = frame.at::<Tcp>(L4)?;
            (tcp.ports, tcp_flags(tcp.flags), 40)
        }
        UDP => (frame.at::<Udp>(L4)?.ports, 0, 28),
        _ => return None,
    };
    let key =
        FlowKey4 { source: ip.source, destination: ip.destination, ports, protocol: u32::from(ip.protocol) };
    if length < least { None } else { Some((key, flags, length)) }
}

/// As [`plain4`], over IPv6 without extension headers.
#[inline(always)]
pub fn plain6(frame: &impl Frame, ip: &Ipv6) -> Option<(FlowKey6, u32, u32)> {
    const L4: usize = ETHERNET + Ipv6::SIZE;
    let length = u32::from(u16::from_be(ip.length)) + Ipv6::SIZE as u32;
    if !frame.holds(ETHERNET + length as usize) {
        return None;
    }
    let (ports, flags, least) = match ip.next {
        TCP => {
            let tcp = frame.at::<Tcp>(L4)?;
            (tcp.ports, tcp_flags(tcp.flags), 60)
        }
        UDP => (frame.at::<Udp>(L4)?.ports, 0, 48),
        _ => return None,
    };
    let key = FlowKey6 {
        source: ip.source.words(),
        destination: ip.destination.words(),
        ports,
        protocol: u32::from(ip.next),
    };
    if length < least { None } else { Some((key, flags, length)) }
}

/// Reads any frame (L4-01). Of the note, what depends on the frame is written as far as it was found; [`PacketNote::flags`] must be 0 before.
#[inline(always)]
pub fn read(frame: &impl Frame, note: &mut PacketNote) -> Kind {
    let Some(&Short(mut ether_type)) = frame.at::<Short>(ETHERNET - 2) else { return Kind::NotIp };
    let mut l3 = ETHERNET as u32;
    if is_vlan(ether_type) {
        let Some(&Short(inner)) = frame.at::<Short>(ETHERNET + 2) else { return Kind::NotIp };
        ether_type = inner;
        l3 += 4;
        if is_vlan(ether_type) {
            let Some(&Short(inner)) = frame.at::<Short>(ETHERNET + 6) else { return Kind::NotIp };
            ether_type = inner;
            l3 += 4;
        }
    }
    note.l3 = l3;
    match ether_type {
        ETHER_IPV4 => read4(frame, note),
        ETHER_IPV6 => read6(frame, note),
        _ => Kind::NotIp,
    }
}

#[inline(always)]
fn is_vlan(ether_type: u16) -> bool {
    ether_type == ETHER_VLAN || ether_type == ETHER_QINQ
}

#[inline(always)]
fn read4(frame: &impl Frame, note: &mut PacketNote) -> Kind {
    let Some(ip) = frame.at_variable::<Ipv4>(note.l3) else { return Kind::NotIp };
    note.source[0] = ip.source;
    note.destination[0] = ip.destination;
    note.protocol = u32::from(ip.protocol);
    let header = u32::from(ip.version_ihl & 0xf) * 4;
    note.length = u32::from(u16::from_be(ip.length));
    if ip.version_ihl >> 4 != 4 || header < 20 || note.length < header {
        return Kind::Malformed(Event::DropBadHeader);
    }
    if note.l3 + note.length > frame.length() {
        return Kind::Malformed(Event::DropTruncated);
    }
    note.l4 = note.l3 + header;
    note.identification = u32::from(ip.identification);
    let (fragment, carried) = (ip.fragment, note.length - header);
    if fragment & Ipv4::OFFSET != 0 {
        return Kind::LaterFragment;
    }
    if fragment & Ipv4::MORE_FRAGMENTS != 0 {
        note.flags |= PacketFlags::FIRST_FRAGMENT;
    }
    transport(frame, note, carried)
}

#[inline(always)]
fn read6(frame: &impl Frame, note: &mut PacketNote) -> Kind {
    note.flags |= PacketFlags::IPV6;
    let Some(ip) = frame.at_variable::<Ipv6>(note.l3) else { return Kind::NotIp };
    note.source = ip.source.words();
    note.destination = ip.destination.words();
    note.length = u32::from(u16::from_be(ip.length)) + Ipv6::SIZE as u32;
    if note.l3 + note.length > frame.length() {
        return Kind::Malformed(Event::DropTruncated);
    }
    let mut next = ip.next;
    let mut l4 = note.l3 + Ipv6::SIZE as u32;
    let mut is_later = false;
    let mut left = MOST_EXTENSIONS;
    note.identification = 0;
    // RFC 8200 section 4.
    while is_extension(next) {
        if left == 0 || l4 > MOST_HEADERS {
            return Kind::Malformed(Event::DropBadHeader);
        }
        left -= 1;
        let Some(header) = frame.at_variable::<Extension>(l4) else {
            return Kind::Malformed(Event::DropTruncated);
        };
        let this = next;
        next = header.next;
        match this {
            FRAGMENT => {
                let offset = u16::from_be(header.third);
                note.identification = header.identification;
                is_later = offset & 0xfff8 != 0;
                if offset & 1 != 0 && !is_later {
                    note.flags |= PacketFlags::FIRST_FRAGMENT;
                }
                l4 += 8;
                if is_later {
                    break;
                }
            }
            AUTHENTICATION => l4 += (u32::from(header.length) + 2) * 4,
            _ => {
                // The destination is not the last one while segments are left (RFC 8200 section 4.4; RFC 5095).
                if this == ROUTING && u16::from_be(header.third) & 0xff != 0 {
                    return Kind::Malformed(Event::DropBadHeader);
                }
                l4 += (u32::from(header.length) + 1) * 8;
            }
        }
    }
    let headers = l4 - note.l3;
    if note.length < headers || l4 > MOST_HEADERS {
        return Kind::Malformed(Event::DropBadHeader);
    }
    note.l4 = l4;
    note.protocol = u32::from(next);
    if is_later {
        return Kind::LaterFragment;
    }
    transport(frame, note, note.length - headers)
}

const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, 0 | ROUTING | FRAGMENT | AUTHENTICATION | 60)
}

/// Reads the transport header into the note. `carried` octets follow the IP headers.
#[inline(always)]
fn transport(frame: &impl Frame, note: &mut PacketNote, carried: u32) -> Kind {
    match note.protocol as u8 {
        TCP => {
            let Some(tcp) = frame.at_variable::<Tcp>(note.l4).filter(|_| carried >= 20) else {
                return Kind::Malformed(Event::DropTruncated);
            };
            note.ports = tcp.ports;
            note.flags |= tcp_flags(tcp.flags);
            Kind::Flow
        }
        UDP => {
            let Some(udp) = frame.at_variable::<Udp>(note.l4).filter(|_| carried >= 8) else {
                return Kind::Malformed(Event::DropTruncated);
            };
            note.ports = udp.ports;
            Kind::Flow
        }
        protocol @ (ICMP | ICMPV6) => {
            let Some(&kind) = frame.at_variable::<u8>(note.l4).filter(|_| carried >= ICMP_HEADER) else {
                return Kind::Malformed(Event::DropTruncated);
            };
            // Unreachable, time exceeded, parameter problem (RFC 792); errors (RFC 4443 section 2.1).
            let is_error = if protocol == ICMP { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) };
            if is_error && note.flags & PacketFlags::FIRST_FRAGMENT == 0 { Kind::Error } else { Kind::Other }
        }
        _ => Kind::Other,
    }
}

/// The flags of a note from those of a TCP header.
#[inline(always)]
pub fn tcp_flags(flags: u8) -> u32 {
    let mut note = 0;
    if flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN {
        note |= PacketFlags::SYN;
    }
    if flags & Tcp::FIN != 0 {
        note |= PacketFlags::FIN;
    }
    if flags & Tcp::RST != 0 {
        note |= PacketFlags::RST;
    }
    note
}

/// Reads the packet that an ICMP error quotes at `l3`: the note gets the flow of the packets in the other direction. Where the quoted transport
/// header begins. None where it is of no flow that could be known, as with extension headers.
#[inline(always)]
pub fn quoted(frame: &impl Frame, note: &mut PacketNote, l3: u32) -> Option<u32> {
    let l4 = if note.flags & PacketFlags::IPV6 == 0 {
        let ip = frame.at_variable::<Ipv4>(l3)?;
        let words = u32::from(ip.version_ihl & 0xf);
        if ip.version_ihl >> 4 != 4 || words < 5 || ip.fragment & Ipv4::OFFSET != 0 {
            return None;
        }
        if ip.protocol != TCP && ip.protocol != UDP {
            return None;
        }
        note.source[0] = ip.destination;
        note.destination[0] = ip.source;
        note.protocol = u32::from(ip.protocol);
        l3 + words * 4
    } else {
        let ip = frame.at_variable::<Ipv6>(l3)?;
        if ip.next != TCP && ip.next != UDP {
            return None;
        }
        note.source = ip.destination.words();
        note.destination = ip.source.words();
        note.protocol = u32::from(ip.next);
        l3 + Ipv6::SIZE as u32
    };
    let &Ports(ports) = frame.at_variable::<Ports>(l4)?;
    note.ports = ports.rotate_left(16);
    Some(l4)
}

/// What follows the first octet of the destination connection ID of a QUIC packet in UDP at `l4`, where the ID has this length and its first three
/// bits are those of its format (draft-ietf-quic-load-balancers-21 section 3). The ID may end before the sixteen octets do.
#[inline(always)]
pub fn connection_id(frame: &impl Frame, l4: u32, length: u8, rotation: u8) -> Option<[u32; 4]> {
    let packet = l4 + Udp::SIZE as u32;
    let &first = frame.at_variable::<u8>(packet)?;
    // A long header says how long its IDs are, and a short one has no other than that of its server (RFC 8999 section 5).
    let id = if first & 0x80 == 0 {
        packet + 1
    } else {
        let &told = frame.at_variable::<u8>(packet + 5)?;
        if told != length {
            return None;
        }
        packet + 6
    };
    let &first = frame.at_variable::<u8>(id)?;
    if first >> 5 != rotation {
        return None;
    }
    frame.at_variable::<Octets16>(id + 1).map(Octets16::words)
}

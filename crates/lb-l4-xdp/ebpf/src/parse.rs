//! Parses what the entry leaves: VLAN tags, IP options, extension headers, fragments, ICMP, and packets in several buffers.
//!
//! What cannot be parsed is dropped if a service has its address, and passed otherwise: the kernel may know what to do with it (L4-01).

use aya_ebpf::{helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use lb_l4_xdp_layout::{
    Event, FlowKind, FragmentKey4, FragmentKey6, FragmentPorts, Mode, PacketFlags, PacketNote, stage,
};

use crate::{
    clock,
    count::{count, discard, leave_to, pass},
    entry::settings,
    flow::{find, tcp_flags},
    maps::{FRAGMENTS4, FRAGMENTS6, NOTE},
    packet::{
        ETHER_IPV4, ETHER_IPV6, ETHER_QINQ, ETHER_VLAN, ETHERNET, ICMP, ICMPV6, Ipv4, Ipv6, TCP, Tcp, UDP,
        Udp, at, at_variable, words,
    },
    services::{DENY, is_vip, rule},
};

/// Whether the kernel knows packets in several buffers (5.18). The loader sets it.
#[unsafe(no_mangle)]
static HAS_FRAGS: u8 = 1;

/// Extension headers of a packet over IPv6 that are looked at.
const MOST_EXTENSIONS: u32 = 6;

/// Where the transport header begins at most.
const MOST_HEADERS: u32 = 400;

/// Fragments of a packet arrive within so many ticks, about 30 seconds, as the kernel has it.
const FRAGMENT_LIFE: i32 = 28_610;

/// The octets of a frame in all its buffers.
#[inline(always)]
pub fn frame_length(ctx: &XdpContext) -> u32 {
    // SAFETY: a constant that the loader may have changed before the program was loaded.
    if unsafe { core::ptr::read_volatile(&raw const HAS_FRAGS) } != 0 {
        // SAFETY: the context is that of this program.
        unsafe { bpf_xdp_get_buff_len(ctx.ctx) as u32 }
    } else {
        (ctx.data_end() - ctx.data()) as u32
    }
}

#[inline(always)]
pub fn is_vlan(ether_type: u16) -> bool {
    ether_type == ETHER_VLAN || ether_type == ETHER_QINQ
}

#[inline(always)]
pub fn parse(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    let Some(mut ether_type) = ether_type_at(ctx, ETHERNET - 2) else { return pass(Event::PassNotIp) };
    let mut l3 = ETHERNET as u32;
    if is_vlan(ether_type) {
        let Some(inner) = ether_type_at(ctx, ETHERNET + 2) else { return pass(Event::PassNotIp) };
        ether_type = inner;
        l3 += 4;
        if is_vlan(ether_type) {
            let Some(inner) = ether_type_at(ctx, ETHERNET + 6) else { return pass(Event::PassNotIp) };
            ether_type = inner;
            l3 += 4;
        }
    }
    note.l3 = l3;
    note.flags = 0;
    note.now = clock::now();
    match ether_type {
        ETHER_IPV4 => parse4(ctx, note),
        ETHER_IPV6 => parse6(ctx, note),
        _ => pass(Event::PassNotIp),
    }
}

#[inline(always)]
fn ether_type_at(ctx: &XdpContext, offset: usize) -> Option<u16> {
    // SAFETY: within the packet.
    at::<u16>(ctx, offset).map(|word| unsafe { word.read_unaligned() })
}

#[inline(always)]
fn malformed(note: &PacketNote, event: Event) -> u32 {
    if is_vip(note) { discard(event) } else { pass(Event::PassNotOurs) }
}

#[inline(always)]
fn parse4(ctx: &XdpContext, note: &mut PacketNote) -> u32 {
    let Some(ip) = at_variable::<Ipv4>(ctx, note.l3) else { return pass(Event::PassNotIp) };
    // SAFETY: within the packet.
    let ip = unsafe { &*ip };
    note.source[0] = ip.source;
    note.destination[0] = ip.destination;
    note.protocol = u32::from(ip.protocol);
    let words = u32::from(ip.version_ihl & 0xf);
    note.length = u32::from(u16::from_be(ip.length));
    if ip.version_ihl >> 4 != 4 || words < 5 || note.length < words * 4 {
        return malformed(note, Event::DropBadHeader);
    }
    if note.l3 + note.length > frame_length(ctx) {
        return malformed(note, Event::DropTruncated);
    }
    note.l4 = note.l3 + words * 4;
    let fragment = ip.fragment;
    let identification = u32::from(ip.identification);
    let carried = note.length - words * 4;
    let key = FragmentKey4 {
        source: note.source[0],
        destination: note.destination[0],
        identification,
        protocol: note.protocol,
    };
    if fragment & Ipv4::OFFSET != 0 {
        let Some(first) = FRAGMENTS4.get_ptr(&key) else { return pass(Event::PassFragment) };
        // SAFETY: the entry is valid while the program runs.
        return follow_first(note, unsafe { &*first });
    }
    if fragment & Ipv4::MORE_FRAGMENTS != 0 {
        note.flags |= PacketFlags::FIRST_FRAGMENT;
    }
    match transport(ctx, note, carried) {
        Next::Verdict(verdict) => return verdict,
        Next::Route => {}
    }
    let found = match settings() {
        Some(settings) => find(note, settings),
        None => return pass(Event::PassNoSettings),
    };
    if found.is_none() && !is_vip(note) {
        return pass(Event::PassNotOurs);
    }
    if note.flags & PacketFlags::FIRST_FRAGMENT != 0 {
        let _ = FRAGMENTS4.insert(&key, &FragmentPorts { ports: note.ports, seen: note.now }, 0);
    }
    route(note, found)
}

#[inline(always)]
fn parse6(ctx: &XdpContext, note: &mut PacketNote) -> u32 {
    note.flags |= PacketFlags::IPV6;
    let Some(ip) = at_variable::<Ipv6>(ctx, note.l3) else { return pass(Event::PassNotIp) };
    // SAFETY: within the packet.
    let ip = unsafe { &*ip };
    note.source = words(&raw const ip.source);
    note.destination = words(&raw const ip.destination);
    note.length = u32::from(u16::from_be(ip.length)) + Ipv6::SIZE as u32;
    if note.l3 + note.length > frame_length(ctx) {
        return malformed(note, Event::DropTruncated);
    }
    let mut next = ip.next;
    let mut l4 = note.l3 + Ipv6::SIZE as u32;
    let mut identification = 0;
    let mut is_later = false;
    let mut left = MOST_EXTENSIONS;
    // RFC 8200 section 4.
    while is_extension(next) {
        if left == 0 || l4 > MOST_HEADERS {
            return malformed(note, Event::DropBadHeader);
        }
        left -= 1;
        let Some(header) = at_variable::<Extension>(ctx, l4) else {
            return malformed(note, Event::DropTruncated);
        };
        // SAFETY: within the packet.
        let header = unsafe { &*header };
        let this = next;
        next = header.next;
        match this {
            FRAGMENT => {
                let offset = u16::from_be(header.third);
                identification = header.identification;
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
                    return malformed(note, Event::DropBadHeader);
                }
                l4 += (u32::from(header.length) + 1) * 8;
            }
        }
    }
    let headers = l4 - note.l3;
    if note.length < headers || l4 > MOST_HEADERS {
        return malformed(note, Event::DropBadHeader);
    }
    note.l4 = l4;
    note.protocol = u32::from(next);
    let key = FragmentKey6 {
        source: note.source,
        destination: note.destination,
        identification,
        protocol: note.protocol,
    };
    if is_later {
        let Some(first) = FRAGMENTS6.get_ptr(&key) else { return pass(Event::PassFragment) };
        // SAFETY: the entry is valid while the program runs.
        return follow_first(note, unsafe { &*first });
    }
    match transport(ctx, note, note.length - headers) {
        Next::Verdict(verdict) => return verdict,
        Next::Route => {}
    }
    let found = match settings() {
        Some(settings) => find(note, settings),
        None => return pass(Event::PassNoSettings),
    };
    if found.is_none() && !is_vip(note) {
        return pass(Event::PassNotOurs);
    }
    if note.flags & PacketFlags::FIRST_FRAGMENT != 0 {
        let _ = FRAGMENTS6.insert(&key, &FragmentPorts { ports: note.ports, seen: note.now }, 0);
    }
    route(note, found)
}

/// The first octets of an extension header, as long as the shortest is.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Extension {
    next: u8,
    length: u8,
    /// Offset and flags of a fragment; type and segments left of a routing header.
    third: u16,
    identification: u32,
}

const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, 0 | ROUTING | FRAGMENT | AUTHENTICATION | 60)
}

enum Next {
    Verdict(u32),
    Route,
}

/// Reads the transport header into the note. `carried` octets follow the IP headers.
#[inline(always)]
fn transport(ctx: &XdpContext, note: &mut PacketNote, carried: u32) -> Next {
    match note.protocol as u8 {
        TCP => {
            let Some(tcp) = at_variable::<Tcp>(ctx, note.l4).filter(|_| carried >= 20) else {
                return Next::Verdict(malformed(note, Event::DropTruncated));
            };
            // SAFETY: within the packet.
            let tcp = unsafe { &*tcp };
            note.ports = tcp.ports;
            note.flags |= tcp_flags(tcp.flags);
        }
        UDP => {
            let Some(udp) = at_variable::<Udp>(ctx, note.l4).filter(|_| carried >= 8) else {
                return Next::Verdict(malformed(note, Event::DropTruncated));
            };
            // SAFETY: within the packet.
            note.ports = unsafe { (*udp).ports };
        }
        protocol @ (ICMP | ICMPV6) => {
            let Some(kind) = at_variable::<u8>(ctx, note.l4).filter(|_| carried >= 8) else {
                return Next::Verdict(malformed(note, Event::DropTruncated));
            };
            // SAFETY: within the packet.
            let kind = unsafe { *kind };
            // Unreachable, time exceeded, parameter problem (RFC 792); errors (RFC 4443 section 2.1).
            let is_error = if protocol == ICMP { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) };
            if is_error && note.flags & PacketFlags::FIRST_FRAGMENT == 0 {
                return Next::Verdict(leave_to(stage::ICMP));
            }
            return Next::Verdict(passed(note));
        }
        _ => return Next::Verdict(passed(note)),
    }
    Next::Route
}

/// Passes a packet of a protocol that is not balanced.
#[inline(always)]
fn passed(note: &PacketNote) -> u32 {
    pass(if is_vip(note) { Event::PassIcmp } else { Event::PassNotOurs })
}

#[inline(always)]
fn follow_first(note: &mut PacketNote, first: &FragmentPorts) -> u32 {
    if note.now.wrapping_sub(first.seen) as i32 > FRAGMENT_LIFE {
        return pass(Event::PassFragment);
    }
    note.ports = first.ports;
    note.flags |= PacketFlags::LATER_FRAGMENT;
    count(Event::FragmentForwarded);
    let found = match settings() {
        Some(settings) => find(note, settings),
        None => return pass(Event::PassNoSettings),
    };
    route(note, found)
}

/// Leaves a packet for a service to the program of its flow.
#[inline(always)]
fn route(note: &mut PacketNote, found: Option<(u8, u8)>) -> u32 {
    let Some((kind, mode)) = found else { return leave_to(stage::CHOOSE) };
    if settings().is_some_and(|settings| rule(settings, note) == DENY) {
        return discard(Event::DropDenied);
    }
    leave_to(stage_of(kind, mode))
}

/// The program that forwards a flow.
#[inline(always)]
pub fn stage_of(kind: u8, mode: u8) -> u32 {
    if kind != FlowKind::Direct as u8 {
        stage::TRANSLATE
    } else if mode == Mode::Link as u8 {
        stage::LINK
    } else {
        stage::TUNNEL
    }
}

//! Full translation: the gateway's address and a port of its own towards the backend, and the way back.
//!
//! A translated flow has two entries, one for each direction, and each of them says all that the other needs. The one for replies is made first
//! and only if its place is free, so that no port has two flows. Afterwards each direction looks once in a window whether the other is still
//! there, since the table evicts entries one by one.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::XdpContext};
use lb_l4_xdp_layout::{
    Backend, Event, Flow4, Flow6, FlowHead, FlowKey4, FlowKey6, FlowKind, PacketFlags, PacketNote, Rewrite4,
    Rewrite6, Service, Settings, stage,
};

use crate::{
    checksum::Sum,
    choose::give_up,
    count::{count, discard, flow_begun, forwarded, leave_to, replied},
    entry::settings,
    flow::{backend_of, first_state, key4, key6},
    link::{hop_to, leave_by, live_on},
    maps::{BACKENDS, FLOWS4, FLOWS6, NOTE, SERVICES},
    packet::{Ipv4, Ipv6, TCP, Tcp, UDP, Udp, at_variable, differs, write_words},
};

/// Ports that are tried for a flow.
const MOST_PORTS: u32 = 8;

/// Source and destination port exchanged.
#[inline(always)]
pub fn turned(ports: u32) -> u32 {
    ports.rotate_left(16)
}

/// Rewrites a packet of a translated flow, whose rewriting stands in the note.
#[inline(always)]
pub fn translate(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    let Some(settings) = settings() else { return discard(Event::DropNoProgram) };
    if note.flags & PacketFlags::REFRESH != 0 {
        refresh(note);
    }
    let is_ipv6 = note.flags & PacketFlags::IPV6 != 0;
    let hop = match hop_to(ctx, settings, note.now, is_ipv6, &note.new_source, &note.new_destination) {
        Ok(hop) => hop,
        Err(event) => return discard(event),
    };
    if note.length > hop.mtu {
        note.mtu = hop.mtu;
        return leave_to(stage::TOO_BIG);
    }
    if let Err(event) = live_on(ctx, note) {
        return discard(event);
    }
    let Some(addresses) = rewrite_addresses(ctx, note) else { return discard(Event::DropTruncated) };
    // A later fragment has no ports, and the checksum that covers it is in the first.
    if note.flags & PacketFlags::LATER_FRAGMENT == 0 && rewrite_ports(ctx, note, addresses).is_none() {
        return discard(Event::DropTruncated);
    }
    if note.flags & PacketFlags::REPLY == 0 {
        forwarded(note.backend, note.length);
    } else {
        replied(note.backend, note.length);
    }
    leave_by(ctx, note, hop)
}

/// Rewrites the addresses of the IP header; what that changes in a checksum that covers them.
#[inline(always)]
pub fn rewrite_addresses(ctx: &XdpContext, note: &PacketNote) -> Option<Sum> {
    if note.flags & PacketFlags::IPV6 == 0 {
        let sum = Sum(0)
            .replace(note.source[0], note.new_source[0])
            .replace(note.destination[0], note.new_destination[0]);
        let ip = at_variable::<Ipv4>(ctx, note.l3)?;
        // SAFETY: within the packet.
        let ip = unsafe { &mut *ip };
        ip.source = note.new_source[0];
        ip.destination = note.new_destination[0];
        ip.checksum = sum.apply(ip.checksum);
        Some(sum)
    } else {
        let sum = Sum(0)
            .replace_all(&note.source, &note.new_source)
            .replace_all(&note.destination, &note.new_destination);
        let ip = at_variable::<Ipv6>(ctx, note.l3)?;
        // SAFETY: within the packet.
        let ip = unsafe { &mut *ip };
        write_words(&raw mut ip.source, &note.new_source);
        write_words(&raw mut ip.destination, &note.new_destination);
        Some(sum)
    }
}

#[inline(always)]
fn rewrite_ports(ctx: &XdpContext, note: &PacketNote, addresses: Sum) -> Option<()> {
    let sum = addresses.replace(note.ports, note.new_ports);
    if note.protocol == u32::from(TCP) {
        let tcp = at_variable::<Tcp>(ctx, note.l4)?;
        // SAFETY: within the packet.
        let tcp = unsafe { &mut *tcp };
        tcp.ports = note.new_ports;
        tcp.checksum = sum.apply(tcp.checksum);
    } else if note.protocol == u32::from(UDP) {
        let udp = at_variable::<Udp>(ctx, note.l4)?;
        // SAFETY: within the packet.
        let udp = unsafe { &mut *udp };
        udp.ports = note.new_ports;
        // None was computed (RFC 768); a computed one of 0 is sent as all ones.
        if udp.checksum != 0 {
            let checksum = sum.apply(udp.checksum);
            udp.checksum = if checksum == 0 { 0xffff } else { checksum };
        }
    }
    Some(())
}

/// Looks after the entry of the other direction: a later tick, or a new entry if the table has evicted it.
#[inline(always)]
fn refresh(note: &PacketNote) {
    let Some(backend) = BACKENDS.get(note.backend) else { return };
    let is_reply = note.flags & PacketFlags::REPLY != 0;
    let kind = if is_reply { FlowKind::Forward } else { FlowKind::Reverse };
    let head = FlowHead {
        backend: note.backend,
        generation: backend.generation,
        seen: note.now,
        service: note.service as u16,
        kind: kind as u8,
        state: first_state(note.protocol),
    };
    if note.flags & PacketFlags::IPV6 == 0 {
        let (key, flow) = other4(note, head);
        match FLOWS4.get_ptr_mut(&key) {
            // SAFETY: the entry is valid while the program runs.
            Some(flow) => unsafe { (*flow).head.seen = note.now },
            None => _ = FLOWS4.insert(&key, &flow, u64::from(BPF_NOEXIST)),
        }
    } else {
        let (key, flow) = other6(note, head);
        match FLOWS6.get_ptr_mut(&key) {
            // SAFETY: the entry is valid while the program runs.
            Some(flow) => unsafe { (*flow).head.seen = note.now },
            None => _ = FLOWS6.insert(&key, &flow, u64::from(BPF_NOEXIST)),
        }
    }
}

/// The entry of the other direction of a packet whose rewriting stands in the note.
#[inline(always)]
fn other4(note: &PacketNote, head: FlowHead) -> (FlowKey4, Flow4) {
    let key = FlowKey4 {
        source: note.new_destination[0],
        destination: note.new_source[0],
        ports: turned(note.new_ports),
        protocol: note.protocol,
    };
    let rewrite =
        Rewrite4 { source: note.destination[0], destination: note.source[0], ports: turned(note.ports) };
    (key, Flow4 { head, rewrite, spare: 0 })
}

#[inline(always)]
fn other6(note: &PacketNote, head: FlowHead) -> (FlowKey6, Flow6) {
    let key = FlowKey6 {
        source: note.new_destination,
        destination: note.new_source,
        ports: turned(note.new_ports),
        protocol: note.protocol,
    };
    let rewrite = Rewrite6 { source: note.destination, destination: note.source, ports: turned(note.ports) };
    (key, Flow6 { head, rewrite, spare: 0 })
}

/// Finds a port for a new flow, and makes both entries.
#[inline(always)]
pub fn allocate() -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    let Some(settings) = settings() else { return discard(Event::DropNoProgram) };
    let Some(service) = SERVICES.get(note.service) else { return discard(Event::DropNoBackend) };
    let Some(backend) = BACKENDS.get(note.backend) else { return give_up(service, Event::DropNoBackend) };
    let is_ipv6 = note.flags & PacketFlags::IPV6 != 0;
    if (backend.is_ipv6 != 0) != is_ipv6 {
        return give_up(service, Event::DropNoPort);
    }
    note.new_source = service.nat_source;
    note.new_destination = backend.address;
    if !reserve(note, settings, service, backend) {
        return give_up(service, Event::DropNoPort);
    }
    let head = head_of(note, backend, FlowKind::Forward);
    let done = if is_ipv6 {
        let rewrite =
            Rewrite6 { source: note.new_source, destination: note.new_destination, ports: note.new_ports };
        FLOWS6.insert(&key6(note), &Flow6 { head, rewrite, spare: 0 }, 0)
    } else {
        let rewrite = Rewrite4 {
            source: note.new_source[0],
            destination: note.new_destination[0],
            ports: note.new_ports,
        };
        FLOWS4.insert(&key4(note), &Flow4 { head, rewrite, spare: 0 }, 0)
    };
    if done.is_err() {
        let _ =
            if is_ipv6 { FLOWS6.remove(&other6(note, head).0) } else { FLOWS4.remove(&other4(note, head).0) };
        count(Event::TableRefused);
        return give_up(service, Event::DropNoPort);
    }
    flow_begun(note.backend);
    leave_to(stage::TRANSLATE)
}

#[inline(always)]
fn head_of(note: &PacketNote, backend: &Backend, kind: FlowKind) -> FlowHead {
    FlowHead {
        backend: note.backend,
        generation: backend.generation,
        seen: note.now,
        service: note.service as u16,
        kind: kind as u8,
        state: first_state(note.protocol),
    }
}

/// Makes the entry for replies, with the client's port if it is free and others if it is not. The ports stand in the note then.
#[inline(always)]
fn reserve(note: &mut PacketNote, settings: &Settings, service: &Service, backend: &Backend) -> bool {
    let head = head_of(note, backend, FlowKind::Reverse);
    let backend_port = if backend.port == 0 { (note.ports >> 16) as u16 } else { backend.port };
    let (first, count) = (u32::from(service.nat_port_first), u32::from(service.nat_port_count));
    if count == 0 {
        return false;
    }
    let wanted = u32::from(u16::from_be(note.ports as u16));
    let mut place = wanted.wrapping_sub(first);
    if place >= count {
        place = note.hash % count;
    }
    // Odd, so that few steps of neighbours meet.
    let step = note.hash >> 16 | 1;
    let mut left = MOST_PORTS;
    while left > 0 {
        left -= 1;
        let port = ((first + place) as u16).to_be();
        note.new_ports = u32::from(port) | u32::from(backend_port) << 16;
        if note.flags & PacketFlags::IPV6 == 0 {
            let (key, flow) = other4(note, head);
            if FLOWS4.insert(&key, &flow, u64::from(BPF_NOEXIST)).is_ok() {
                return true;
            }
            if let Some(there) = FLOWS4.get_ptr(&key) {
                // SAFETY: the entry is valid while the program runs.
                let there = unsafe { &*there };
                // Of the same client and ports, or of a flow that has ended.
                let is_own = there.rewrite.destination == flow.rewrite.destination
                    && there.rewrite.source == flow.rewrite.source
                    && there.rewrite.ports == flow.rewrite.ports;
                if (is_own || backend_of(&there.head, settings, note.now, 0).is_none())
                    && FLOWS4.insert(&key, &flow, 0).is_ok()
                {
                    return true;
                }
            }
        } else {
            let (key, flow) = other6(note, head);
            if FLOWS6.insert(&key, &flow, u64::from(BPF_NOEXIST)).is_ok() {
                return true;
            }
            if let Some(there) = FLOWS6.get_ptr(&key) {
                // SAFETY: the entry is valid while the program runs.
                let there = unsafe { &*there };
                let is_own = !differs(&there.rewrite.destination, &flow.rewrite.destination)
                    && !differs(&there.rewrite.source, &flow.rewrite.source)
                    && there.rewrite.ports == flow.rewrite.ports;
                if (is_own || backend_of(&there.head, settings, note.now, 0).is_none())
                    && FLOWS6.insert(&key, &flow, 0).is_ok()
                {
                    return true;
                }
            }
        }
        place = (place + step) % count;
    }
    false
}

//! Where every packet enters: plain TCP and UDP of known flows in mode `dsr-ipip` are forwarded here, and what is not ours is passed.
//! Everything else is left to other programs, so that neither pays for it.

use aya_ebpf::{
    helpers::generated::{bpf_get_prandom_u32, bpf_xdp_adjust_head},
    programs::XdpContext,
};
use lb_l4_xdp_layout::{
    Event, FlowKey4, FlowKey6, FlowKind, LAYOUT_VERSION, Mode, PacketFlags, PacketNote, Settings,
    address_place4, address_place6, flow_hash4, flow_hash6,
    read::{plain4, plain6},
    stage,
    wire::{ETHER_QINQ, ETHER_VLAN},
};

use crate::{
    checksum::Sum,
    clock,
    count::{count, discard, forwarded, leave_to, pass},
    flow::{backend_of, leave_known, touch},
    hop::{hop4, hop6, send},
    maps::{FLOWS4, FLOWS6, NOTE, SETTINGS},
    packet::{ETHER_IPV4, ETHER_IPV6, ETHERNET, IPIP, IPV6, Ipv4, Ipv6, Macs, Outer, Packet, at, class_of},
    services::{DENY, is_vip4, is_vip6, may_be_ours, rule4, rule6},
};

/// The settings, if they are of this layout.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0).filter(|settings| settings.layout_version == LAYOUT_VERSION)
}

#[inline(always)]
pub fn enter(ctx: &XdpContext) -> u32 {
    let Some(ether_type) = at::<u16>(ctx, ETHERNET - 2) else { return pass(Event::PassNotIp) };
    // SAFETY: within the packet.
    match unsafe { ether_type.read_unaligned() } {
        ETHER_IPV4 => enter4(ctx),
        ETHER_IPV6 => enter6(ctx),
        ETHER_VLAN | ETHER_QINQ => leave_to(stage::PARSE),
        _ => pass(Event::PassNotIp),
    }
}

#[inline(always)]
fn enter4(ctx: &XdpContext) -> u32 {
    let Some(ip) = at::<Ipv4>(ctx, ETHERNET) else { return pass(Event::PassNotIp) };
    // SAFETY: within the packet.
    let ip = unsafe { &mut *ip };
    if !may_be_ours(address_place4(ip.destination)) {
        return pass(Event::PassNotOurs);
    }
    let Some((key, flags, length)) = plain4(&Packet(ctx), ip) else { return leave_to(stage::PARSE) };
    let Some(settings) = settings() else { return pass(Event::PassNoSettings) };
    let now = clock::now();
    let Some(flow) = FLOWS4.get_ptr_mut(&key) else { return unknown4(&key, flags, now, length) };
    // SAFETY: the entry is valid while the program runs; words may be of another flow if it is evicted meanwhile.
    let flow = unsafe { &mut *flow };
    let Some(backend) = backend_of(&flow.head, settings, now, flags) else {
        count(Event::FlowStale);
        return unknown4(&key, flags, now, length);
    };
    if rule4(settings, key.source) == DENY {
        return discard(Event::DropDenied);
    }
    let flags = flags | touch(&mut flow.head, now, flags);
    if (backend.mode ^ Mode::Ipip as u8) | backend.is_ipv6 | backend.by_id != 0 {
        let Some(note) = note4(&key, flags, now, length) else { return discard(Event::DropNoProgram) };
        note.backend = flow.head.backend;
        note.service = u32::from(flow.head.service);
        if flow.head.kind == FlowKind::Reverse as u8 {
            note.flags |= PacketFlags::REPLY;
        }
        if flow.head.kind != FlowKind::Direct as u8 {
            note.new_source[0] = flow.rewrite.source;
            note.new_destination[0] = flow.rewrite.destination;
            note.new_ports = flow.rewrite.ports;
        }
        return leave_known(note, flow.head.kind, backend);
    }
    if ip.ttl <= 1 {
        return discard(Event::DropTtl);
    }
    let mut source = backend.outer_source[0];
    if backend.spread_mask != 0 {
        source |= flow_hash4(&key, settings.hash_seed) & backend.spread_mask;
    }
    let address = backend.address[0];
    let hop = match hop4(ctx, settings, now, source, address) {
        Ok(hop) => hop,
        Err(event) => return discard(event),
    };
    let outer_length = length + Ipv4::SIZE as u32;
    if outer_length > hop.mtu {
        let Some(note) = note4(&key, flags, now, length) else { return discard(Event::DropNoProgram) };
        note.mtu = hop.mtu - Ipv4::SIZE as u32;
        return leave_to(stage::TOO_BIG);
    }
    // The time to live is the upper octet of its word, in network order: one less is one more in the checksum.
    ip.ttl -= 1;
    ip.checksum = Sum(0).replace16(0x0100u16.to_be(), 0).apply(ip.checksum);
    let (tos, fragment) = (ip.tos, ip.fragment);
    let mut identification = 0;
    if fragment & Ipv4::DONT_FRAGMENT == 0 {
        // SAFETY: the helper has no arguments.
        identification = unsafe { bpf_get_prandom_u32() } as u16;
    }
    let backend_index = flow.head.backend;
    // SAFETY: the context is that of this program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(Ipv4::SIZE as i32)) } != 0 {
        return discard(Event::DropNoRoom);
    }
    let Some(frame) = at::<Frame4>(ctx, 0) else { return discard(Event::DropNoRoom) };
    let (source, destination) = ([source, 0, 0, 0], [address, 0, 0, 0]);
    let outer = Outer {
        class: tos,
        carried: length as u16,
        protocol: IPIP,
        hash: 0,
        source: &source,
        destination: &destination,
    };
    // SAFETY: within the packet.
    unsafe {
        Macs::write(&raw mut (*frame).macs, &hop.link);
        (*frame).ether_type = ETHER_IPV4;
        outer.write4(&raw mut (*frame).ip, fragment & Ipv4::DONT_FRAGMENT, identification);
    }
    forwarded(backend_index, length);
    send(ctx, hop.interface)
}

/// A packet over IPv4 of no known flow.
#[inline(always)]
fn unknown4(key: &FlowKey4, flags: u32, now: u32, length: u32) -> u32 {
    if !is_vip4(key.destination) {
        return pass(Event::PassNotOurs);
    }
    match note4(key, flags, now, length) {
        Some(_) => leave_to(stage::CHOOSE),
        None => discard(Event::DropNoProgram),
    }
}

#[inline(always)]
fn note4(key: &FlowKey4, flags: u32, now: u32, length: u32) -> Option<&'static mut PacketNote> {
    let note = NOTE.get_ptr_mut(0)?;
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    note.source[0] = key.source;
    note.destination[0] = key.destination;
    note.ports = key.ports;
    note.protocol = key.protocol;
    note.flags = flags;
    note.now = now;
    note.length = length;
    note.l3 = ETHERNET as u32;
    note.l4 = (ETHERNET + Ipv4::SIZE) as u32;
    Some(note)
}

#[inline(always)]
fn enter6(ctx: &XdpContext) -> u32 {
    let Some(ip) = at::<Ipv6>(ctx, ETHERNET) else { return pass(Event::PassNotIp) };
    // SAFETY: within the packet.
    let ip = unsafe { &mut *ip };
    if !may_be_ours(address_place6(&ip.destination.words())) {
        return pass(Event::PassNotOurs);
    }
    let Some((key, flags, length)) = plain6(&Packet(ctx), ip) else { return leave_to(stage::PARSE) };
    let Some(settings) = settings() else { return pass(Event::PassNoSettings) };
    let now = clock::now();
    let Some(flow) = FLOWS6.get_ptr_mut(&key) else { return unknown6(&key, flags, now, length) };
    // SAFETY: as for IPv4.
    let flow = unsafe { &mut *flow };
    let Some(backend) = backend_of(&flow.head, settings, now, flags) else {
        count(Event::FlowStale);
        return unknown6(&key, flags, now, length);
    };
    if rule6(settings, &key.source) == DENY {
        return discard(Event::DropDenied);
    }
    let flags = flags | touch(&mut flow.head, now, flags);
    if (backend.mode ^ Mode::Ipip as u8) | (backend.is_ipv6 ^ 1) | backend.by_id != 0 {
        let Some(note) = note6(&key, flags, now, length) else { return discard(Event::DropNoProgram) };
        note.backend = flow.head.backend;
        note.service = u32::from(flow.head.service);
        if flow.head.kind == FlowKind::Reverse as u8 {
            note.flags |= PacketFlags::REPLY;
        }
        if flow.head.kind != FlowKind::Direct as u8 {
            note.new_source = flow.rewrite.source;
            note.new_destination = flow.rewrite.destination;
            note.new_ports = flow.rewrite.ports;
        }
        return leave_known(note, flow.head.kind, backend);
    }
    if ip.hop_limit <= 1 {
        return discard(Event::DropTtl);
    }
    let hash = flow_hash6(&key, settings.hash_seed);
    let mut source = backend.outer_source;
    source[3] |= hash & backend.spread_mask;
    let hop = match hop6(ctx, settings, now, &source, &backend.address) {
        Ok(hop) => hop,
        Err(event) => return discard(event),
    };
    let outer_length = length + Ipv6::SIZE as u32;
    if outer_length > hop.mtu {
        let Some(note) = note6(&key, flags, now, length) else { return discard(Event::DropNoProgram) };
        note.mtu = hop.mtu - Ipv6::SIZE as u32;
        return leave_to(stage::TOO_BIG);
    }
    ip.hop_limit -= 1;
    let class = class_of(ip.version_class_label);
    let backend_index = flow.head.backend;
    // SAFETY: the context is that of this program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(Ipv6::SIZE as i32)) } != 0 {
        return discard(Event::DropNoRoom);
    }
    let Some(frame) = at::<Frame6>(ctx, 0) else { return discard(Event::DropNoRoom) };
    let outer = Outer {
        class,
        carried: length as u16,
        protocol: IPV6,
        hash,
        source: &source,
        destination: &backend.address,
    };
    // SAFETY: within the packet.
    unsafe {
        Macs::write(&raw mut (*frame).macs, &hop.link);
        (*frame).ether_type = ETHER_IPV6;
        outer.write6(&raw mut (*frame).ip);
    }
    forwarded(backend_index, length);
    send(ctx, hop.interface)
}

/// A packet over IPv6 of no known flow.
#[inline(always)]
fn unknown6(key: &FlowKey6, flags: u32, now: u32, length: u32) -> u32 {
    if !is_vip6(&key.destination) {
        return pass(Event::PassNotOurs);
    }
    match note6(key, flags, now, length) {
        Some(_) => leave_to(stage::CHOOSE),
        None => discard(Event::DropNoProgram),
    }
}

#[inline(always)]
fn note6(key: &FlowKey6, flags: u32, now: u32, length: u32) -> Option<&'static mut PacketNote> {
    let note = NOTE.get_ptr_mut(0)?;
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    note.source = key.source;
    note.destination = key.destination;
    note.ports = key.ports;
    note.protocol = key.protocol;
    note.flags = flags | PacketFlags::IPV6;
    note.now = now;
    note.length = length;
    note.l3 = ETHERNET as u32;
    note.l4 = (ETHERNET + Ipv6::SIZE) as u32;
    Some(note)
}

#[repr(C, packed)]
struct Frame4 {
    macs: Macs,
    ether_type: u16,
    ip: Ipv4,
}

#[repr(C, packed)]
struct Frame6 {
    macs: Macs,
    ether_type: u16,
    ip: Ipv6,
}

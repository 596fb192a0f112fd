//! ICMP errors follow the flow that they are about (L4-04): a backend must learn that its packets are too big or find nobody.

use aya_ebpf::programs::XdpContext;
use lb_l4_xdp_layout::{
    Event, FlowKind, PacketFlags, PacketNote,
    read::{ICMP_HEADER, quoted},
    stage,
};

use crate::{
    checksum::Sum,
    count::{CoreRate, count, discard, forwarded, leave_to, pass, replied, within},
    entry::settings,
    flow::{find, stage_of},
    link::{hop_to, leave_by, live_on},
    maps::NOTE,
    nat::{rewrite_addresses, turned},
    packet::{Ipv4, Ipv6, Packet, Ports, at_variable, differs, write_words},
    services::is_vip,
};

#[inline(always)]
pub fn follow(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    let Some(settings) = settings() else { return pass(Event::PassNoSettings) };
    let (router, destination) = (note.source, note.destination);
    let is_ipv6 = note.flags & PacketFlags::IPV6 != 0;
    let inner_l3 = note.l4 + ICMP_HEADER;
    let Some(inner_l4) = quoted(&Packet(ctx), note, inner_l3) else { return unknown(note) };
    // The note is now about the flow; `note.destination` is who sent the packet that the error is about. An error goes to that sender.
    let is_other = if is_ipv6 {
        differs(&destination, &note.destination)
    } else {
        destination[0] != note.destination[0]
    };
    if is_other {
        return discard_forged(note, &router, &destination);
    }
    note.flags |= PacketFlags::ICMP_ERROR;
    let Some((kind, backend)) = find(note, settings) else {
        if !is_vip(note) {
            return pass(Event::PassNotOurs);
        }
        return leave_to(stage::CHOOSE);
    };
    if !within(CoreRate::IcmpForwarded, note.now, settings.icmp_per_core) {
        return discard(Event::DropIcmpCap);
    }
    if kind == FlowKind::Direct as u8 {
        count(Event::IcmpForwarded);
        return leave_to(stage_of(kind, backend.mode));
    }
    let hop = match hop_to(ctx, settings, note.now, is_ipv6, &note.new_source, &note.new_destination) {
        Ok(hop) => hop,
        Err(event) => return discard(event),
    };
    if note.length > hop.mtu {
        return discard(Event::DropTooBig);
    }
    if let Err(event) = live_on(ctx, note) {
        return discard(event);
    }
    if translate(ctx, note, &router, inner_l3, inner_l4).is_none() {
        return discard(Event::DropTruncated);
    }
    count(Event::IcmpForwarded);
    if note.flags & PacketFlags::REPLY == 0 {
        forwarded(note.backend, note.length);
    } else {
        replied(note.backend, note.length);
    }
    leave_by(ctx, note, hop)
}

/// An error that quotes nothing that we balance.
#[inline(always)]
fn unknown(note: &PacketNote) -> u32 {
    pass(if is_vip(note) { Event::PassIcmp } else { Event::PassNotOurs })
}

/// An error whose destination is not who sent the packet.
#[inline(always)]
fn discard_forged(note: &mut PacketNote, router: &[u32; 4], destination: &[u32; 4]) -> u32 {
    note.source = *router;
    note.destination = *destination;
    if is_vip(note) { discard(Event::DropBadHeader) } else { pass(Event::PassNotOurs) }
}

/// Rewrites the error and the packet that it quotes, so that its receiver finds the packet that it has sent itself.
#[inline(always)]
fn translate(
    ctx: &XdpContext,
    note: &mut PacketNote,
    router: &[u32; 4],
    inner_l3: u32,
    inner_l4: u32,
) -> Option<()> {
    // What the receiver has sent: from what the flow's packets are rewritten to, to what they come from.
    let (sender, receiver) = (note.new_destination, note.new_source);
    let (was_sender, was_receiver) = (note.destination, note.source);
    let (was_ports, ports) = (turned(note.ports), turned(note.new_ports));
    let mut sum = Sum(0).replace(was_ports, ports);
    let place = at_variable::<Ports>(ctx, inner_l4)?;
    // SAFETY: within the packet.
    unsafe { place.write_unaligned(Ports(ports)) };
    if note.flags & PacketFlags::IPV6 == 0 {
        let ip = at_variable::<Ipv4>(ctx, inner_l3)?;
        // SAFETY: within the packet.
        let ip = unsafe { &mut *ip };
        ip.source = sender[0];
        ip.destination = receiver[0];
        // The header's own checksum takes up what its addresses change, so that its sum stays.
        let addresses = Sum(0).replace(was_sender[0], sender[0]).replace(was_receiver[0], receiver[0]);
        ip.checksum = addresses.apply(ip.checksum);
    } else {
        let ip = at_variable::<Ipv6>(ctx, inner_l3)?;
        // SAFETY: within the packet.
        let ip = unsafe { &mut *ip };
        write_words(&raw mut ip.source, &sender);
        write_words(&raw mut ip.destination, &receiver);
        sum = sum.replace_all(&was_sender, &sender).replace_all(&was_receiver, &receiver);
    }
    // The error comes from the address that its receiver talks to: it does not know the router's, and may not even be able to reach it.
    note.source = *router;
    let outer = rewrite_addresses(ctx, note)?;
    if note.flags & PacketFlags::IPV6 != 0 {
        // The checksum of ICMPv6 covers addresses (RFC 4443 section 2.3).
        sum = Sum(sum.0 + outer.0);
    }
    let icmp = at_variable::<Icmp>(ctx, note.l4)?;
    // SAFETY: within the packet.
    let icmp = unsafe { &mut *icmp };
    icmp.checksum = sum.apply(icmp.checksum);
    Some(())
}

#[repr(C, packed)]
struct Icmp {
    kind: u8,
    code: u8,
    checksum: u16,
}

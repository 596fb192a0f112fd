//! Forwards by the MAC address alone, and what all programs need that send a packet of the length that it came with.

use aya_ebpf::{helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use lb_l4_xdp_layout::{Event, Onward, PacketFlags, PacketNote, Settings, stage};

use crate::{
    checksum::Sum,
    count::{discard, forwarded, leave_to},
    entry::settings,
    hop::{hop4, hop6, send},
    maps::{BACKENDS, NOTE},
    packet::{ETHER_IPV4, ETHER_IPV6, ETHERNET, Ipv4, Ipv6, Link, Macs, at, at_variable},
};

#[inline(always)]
pub fn forward(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    let Some(settings) = settings() else { return discard(Event::DropNoProgram) };
    let Some(backend) = BACKENDS.get(note.backend) else { return discard(Event::DropNoBackend) };
    let hop = match hop_to(
        ctx,
        settings,
        note.now,
        backend.is_ipv6 != 0,
        &backend.outer_source,
        &backend.address,
    ) {
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
    forwarded(note.backend, note.length);
    leave_by(ctx, note, hop)
}

/// The next hop towards an address of either family.
#[inline(always)]
pub fn hop_to(
    ctx: &XdpContext,
    settings: &Settings,
    now: u32,
    is_ipv6: bool,
    source: &[u32; 4],
    address: &[u32; 4],
) -> Result<&'static Onward, Event> {
    if is_ipv6 {
        hop6(ctx, settings, now, source, address)
    } else {
        hop4(ctx, settings, now, source[0], address[0])
    }
}

/// Takes one off a packet's time to live, in all modes: a loop through several gateways ends (L4-05).
#[inline(always)]
pub fn live_on(ctx: &XdpContext, note: &PacketNote) -> Result<(), Event> {
    if note.flags & PacketFlags::IPV6 == 0 {
        let ip = at_variable::<Ipv4>(ctx, note.l3).ok_or(Event::DropTruncated)?;
        // SAFETY: within the packet.
        let ip = unsafe { &mut *ip };
        if ip.ttl <= 1 {
            return Err(Event::DropTtl);
        }
        ip.ttl -= 1;
        ip.checksum = Sum(0).replace16(0x0100u16.to_be(), 0).apply(ip.checksum);
    } else {
        let ip = at_variable::<Ipv6>(ctx, note.l3).ok_or(Event::DropTruncated)?;
        // SAFETY: within the packet.
        let ip = unsafe { &mut *ip };
        if ip.hop_limit <= 1 {
            return Err(Event::DropTtl);
        }
        ip.hop_limit -= 1;
    }
    Ok(())
}

/// Sends a packet of the length that it came with. Its VLAN tags stay where it leaves by the interface that it came by, and go otherwise: they are
/// of that wire.
#[inline(always)]
pub fn leave_by(ctx: &XdpContext, note: &PacketNote, hop: &Onward) -> u32 {
    let l3 = note.l3;
    if l3 > ETHERNET as u32 && hop.interface != ctx.ingress_ifindex() as u32 {
        // SAFETY: the context is that of this program.
        if unsafe { bpf_xdp_adjust_head(ctx.ctx, (l3 - ETHERNET as u32) as i32) } != 0 {
            return discard(Event::DropNoRoom);
        }
        let Some(ether_type) = at::<u16>(ctx, ETHERNET - 2) else { return discard(Event::DropTruncated) };
        let inner = if note.flags & PacketFlags::IPV6 == 0 { ETHER_IPV4 } else { ETHER_IPV6 };
        // SAFETY: within the packet.
        unsafe { ether_type.write_unaligned(inner) };
    }
    let Some(link) = at::<Macs>(ctx, 0) else { return discard(Event::DropTruncated) };
    Macs::write(link, &hop.link);
    send(ctx, hop.interface)
}

/// Exchanges the two MAC addresses of a frame.
#[inline(always)]
pub fn turn_round(ctx: &XdpContext) -> Option<()> {
    let link = at::<Link>(ctx, 0)?;
    // SAFETY: within the packet.
    unsafe { link.write_unaligned(link.read_unaligned().turned()) };
    Some(())
}

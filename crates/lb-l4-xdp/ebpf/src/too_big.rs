//! Answers that a packet is too big for the way to its backend, with the size that would do (RFC 1191 section 4, RFC 8201 section 3).
//!
//! The answer comes from the address that the packet was sent to, since a sender believes no other, and goes back the way that the packet came.

use aya_ebpf::{
    bindings::xdp_action::XDP_TX,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use lb_l4_xdp_layout::{Event, PacketFlags, PacketNote};

use crate::{
    checksum::Sum,
    count::{CoreRate, count, discard, within},
    entry::settings,
    maps::NOTE,
    packet::{ETHERNET, ICMP, ICMPV6, Ipv4, Ipv6, Link, Outer, at, at_variable, frame_length},
};

/// Words of the packet that are quoted: the longest header over IPv4 and eight octets (RFC 792).
const QUOTED4: usize = 17;

/// Words of the packet that are quoted: the header over IPv6 and 56 octets of what follows.
const QUOTED6: usize = 24;

/// Octets of the header of ICMP.
const HEADER: usize = 8;

#[inline(always)]
pub fn answer(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &*note };
    let Some(settings) = settings() else { return discard(Event::DropNoProgram) };
    // Nothing is answered to errors and later fragments (RFC 1122 section 3.2.2).
    if note.flags & (PacketFlags::ICMP_ERROR | PacketFlags::LATER_FRAGMENT) != 0
        || !within(CoreRate::IcmpAnswers, note.now, settings.icmp_per_core)
    {
        return discard(Event::DropTooBig);
    }
    let done = if note.flags & PacketFlags::IPV6 == 0 { answer4(ctx, note) } else { answer6(ctx, note) };
    match done {
        Some(()) => {
            count(Event::DropTooBigAnswered);
            XDP_TX
        }
        None => discard(Event::DropTooBig),
    }
}

/// Cuts the packet after `quoted` octets of IP, makes room for `headers` octets before it, and turns the frame round.
#[inline(always)]
fn make_room(ctx: &XdpContext, l3: u32, quoted: u32, headers: u32) -> Option<()> {
    let cut = frame_length(ctx) as i32 - (l3 + quoted) as i32;
    if cut < 0 {
        return None;
    }
    let link = at::<Link>(ctx, 0)?;
    // SAFETY: within the packet.
    let link = unsafe { link.read_unaligned() };
    let ether_type = at_variable::<u16>(ctx, l3 - 2)?;
    // SAFETY: within the packet.
    let ether_type = unsafe { ether_type.read_unaligned() };
    let mut tags = [0u32; 2];
    if l3 > ETHERNET as u32 {
        // SAFETY: within the packet.
        tags[0] = unsafe { at::<u32>(ctx, ETHERNET - 2)?.read_unaligned() };
        if l3 > ETHERNET as u32 + 4 {
            // SAFETY: within the packet.
            tags[1] = unsafe { at::<u32>(ctx, ETHERNET + 2)?.read_unaligned() };
        }
    }
    // SAFETY: the context is that of this program.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, -cut) } != 0 {
        return None;
    }
    // SAFETY: as above.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(headers as i32)) } != 0 {
        return None;
    }
    let start = at::<Link>(ctx, 0)?;
    // SAFETY: within the packet.
    unsafe { start.write_unaligned(link.turned()) };
    if l3 > ETHERNET as u32 {
        let tag = at::<u32>(ctx, ETHERNET - 2)?;
        // SAFETY: within the packet.
        unsafe { tag.write_unaligned(tags[0]) };
        if l3 > ETHERNET as u32 + 4 {
            let tag = at::<u32>(ctx, ETHERNET + 2)?;
            // SAFETY: within the packet.
            unsafe { tag.write_unaligned(tags[1]) };
        }
    }
    let place = at_variable::<u16>(ctx, l3 - 2)?;
    // SAFETY: within the packet.
    unsafe { place.write_unaligned(ether_type) };
    Some(())
}

#[inline(always)]
fn answer4(ctx: &XdpContext, note: &PacketNote) -> Option<()> {
    const LENGTH: usize = HEADER + QUOTED4 * 4;
    make_room(ctx, note.l3, (QUOTED4 * 4) as u32, (Ipv4::SIZE + HEADER) as u32)?;
    let all = at_variable::<Answer4>(ctx, note.l3)?;
    // SAFETY: within the packet.
    let all = unsafe { &mut *all };
    let outer = Outer {
        class: 0xc0,
        carried: LENGTH as u16,
        protocol: ICMP,
        hash: 0,
        source: &note.destination,
        destination: &note.source,
    };
    outer.write4(&raw mut all.ip, Ipv4::DONT_FRAGMENT, 0);
    // Destination unreachable: fragmentation needed.
    all.kind = 3;
    all.code = 4;
    all.unused = 0;
    all.mtu = (note.mtu as u16).to_be();
    let mut sum = Sum(0).add(u32::from(u16::from_ne_bytes([3, 4]))).add(u32::from(all.mtu));
    let mut at = 0;
    while at < QUOTED4 {
        sum = sum.add(all.quoted[at]);
        at += 1;
    }
    all.checksum = !sum.fold();
    Some(())
}

#[inline(always)]
fn answer6(ctx: &XdpContext, note: &PacketNote) -> Option<()> {
    const LENGTH: usize = HEADER + QUOTED6 * 4;
    make_room(ctx, note.l3, (QUOTED6 * 4) as u32, (Ipv6::SIZE + HEADER) as u32)?;
    let all = at_variable::<Answer6>(ctx, note.l3)?;
    // SAFETY: within the packet.
    let all = unsafe { &mut *all };
    let outer = Outer {
        class: 0,
        carried: LENGTH as u16,
        protocol: ICMPV6,
        hash: 0,
        source: &note.destination,
        destination: &note.source,
    };
    outer.write6(&raw mut all.ip);
    // Packet too big (RFC 4443 section 3.2).
    all.kind = 2;
    all.code = 0;
    all.mtu = note.mtu.to_be();
    let mut sum = Sum(0)
        .add(u32::from(u16::from_ne_bytes([2, 0])))
        .add(all.mtu)
        .add((LENGTH as u32).to_be())
        .add(u32::from(ICMPV6).to_be());
    let mut at = 0;
    while at < 4 {
        sum = sum.add(note.source[at]).add(note.destination[at]);
        at += 1;
    }
    let mut at = 0;
    while at < QUOTED6 {
        sum = sum.add(all.quoted[at]);
        at += 1;
    }
    all.checksum = !sum.fold();
    Some(())
}

#[repr(C, packed)]
struct Answer4 {
    ip: Ipv4,
    kind: u8,
    code: u8,
    checksum: u16,
    unused: u16,
    mtu: u16,
    quoted: [u32; QUOTED4],
}

#[repr(C, packed)]
struct Answer6 {
    ip: Ipv6,
    kind: u8,
    code: u8,
    checksum: u16,
    mtu: u32,
    quoted: [u32; QUOTED6],
}

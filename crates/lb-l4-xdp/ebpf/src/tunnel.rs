//! Wraps packets for backends: IP in IP of either family in either (RFC 2003, RFC 2473, RFC 4213), and IP in UDP.

use aya_ebpf::{
    helpers::generated::{bpf_get_prandom_u32, bpf_xdp_adjust_head},
    programs::XdpContext,
};
use lb_l4_xdp_layout::{Event, Mode, PacketFlags, stage};

use crate::{
    choose::hash_of,
    count::{discard, forwarded, leave_to},
    entry::settings,
    hop::send,
    link::{hop_to, live_on},
    maps::{BACKENDS, NOTE},
    packet::{
        ETHER_IPV4, ETHER_IPV6, ETHERNET, IPIP, IPV6, Ipv4, Ipv6, Macs, Outer, UDP, Udp, at, at_variable,
        class_of,
    },
};

#[inline(always)]
pub fn tunnel(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &mut *note };
    let Some(settings) = settings() else { return discard(Event::DropNoProgram) };
    let Some(backend) = BACKENDS.get(note.backend) else { return discard(Event::DropNoBackend) };
    let hash = hash_of(note, note.ports, settings.hash_seed);
    let is_outer6 = backend.is_ipv6 != 0;
    let is_inner6 = note.flags & PacketFlags::IPV6 != 0;
    let is_gue = backend.mode == Mode::Gue as u8;
    let mut source = backend.outer_source;
    if is_outer6 {
        source[3] |= hash & backend.spread_mask;
    } else {
        source[0] |= hash & backend.spread_mask;
    }
    let hop = match hop_to(ctx, settings, note.now, is_outer6, &source, &backend.address) {
        Ok(hop) => hop,
        Err(event) => return discard(event),
    };
    let wrapped = note.length + if is_gue { Udp::SIZE as u32 } else { 0 };
    let outer_header = if is_outer6 { Ipv6::SIZE as u32 } else { Ipv4::SIZE as u32 };
    let overhead = wrapped - note.length + outer_header;
    if note.length + overhead > hop.mtu {
        note.mtu = hop.mtu - overhead;
        return leave_to(stage::TOO_BIG);
    }
    if let Err(event) = live_on(ctx, note) {
        return discard(event);
    }
    // What the outer header takes over: the class, with its mark of congestion (RFC 6040), and whether it may be fragmented.
    let (class, may_fragment) = if is_inner6 {
        let Some(ip) = at_variable::<Ipv6>(ctx, note.l3) else { return discard(Event::DropTruncated) };
        // SAFETY: within the packet.
        (class_of(unsafe { (*ip).version_class_label }), false)
    } else {
        let Some(ip) = at_variable::<Ipv4>(ctx, note.l3) else { return discard(Event::DropTruncated) };
        // SAFETY: within the packet.
        let ip = unsafe { &*ip };
        (ip.tos, ip.fragment & Ipv4::DONT_FRAGMENT == 0)
    };
    let inner_protocol = if is_inner6 { IPV6 } else { IPIP };
    let protocol = if is_gue { UDP } else { inner_protocol };

    let l3 = note.l3;
    let mut keep = ETHERNET as u32;
    let mut tags = [0u32; 2];
    if l3 > ETHERNET as u32 && hop.interface == ctx.ingress_ifindex() as u32 {
        let Some(tag) = at::<Word>(ctx, ETHERNET - 2) else { return discard(Event::DropTruncated) };
        // SAFETY: within the packet.
        tags[0] = unsafe { (*tag).0 };
        keep += 4;
        if l3 > ETHERNET as u32 + 4 {
            let Some(tag) = at::<Word>(ctx, ETHERNET + 2) else { return discard(Event::DropTruncated) };
            // SAFETY: within the packet.
            tags[1] = unsafe { (*tag).0 };
            keep += 4;
        }
    }
    let delta = (overhead + keep - l3) as i32;
    // SAFETY: the context is that of this program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -delta) } != 0 {
        return discard(Event::DropNoRoom);
    }
    let Some(link) = at::<Macs>(ctx, 0) else { return discard(Event::DropNoRoom) };
    Macs::write(link, &hop.link);
    if keep > ETHERNET as u32 {
        let Some(tag) = at::<Word>(ctx, ETHERNET - 2) else { return discard(Event::DropNoRoom) };
        // SAFETY: within the packet.
        unsafe { tag.write_unaligned(Word(tags[0])) };
        if keep > ETHERNET as u32 + 4 {
            let Some(tag) = at::<Word>(ctx, ETHERNET + 2) else { return discard(Event::DropNoRoom) };
            // SAFETY: within the packet.
            unsafe { tag.write_unaligned(Word(tags[1])) };
        }
    }
    let Some(ether_type) = at_variable::<u16>(ctx, keep - 2) else { return discard(Event::DropNoRoom) };
    // SAFETY: within the packet.
    unsafe { ether_type.write_unaligned(if is_outer6 { ETHER_IPV6 } else { ETHER_IPV4 }) };
    let outer = Outer {
        class,
        carried: wrapped as u16,
        protocol,
        hash,
        source: &source,
        destination: &backend.address,
    };
    if is_outer6 {
        let Some(ip) = at_variable::<Ipv6>(ctx, keep) else { return discard(Event::DropNoRoom) };
        outer.write6(ip);
    } else {
        let Some(ip) = at_variable::<Ipv4>(ctx, keep) else { return discard(Event::DropNoRoom) };
        if may_fragment {
            // SAFETY: the helper has no arguments.
            outer.write4(ip, 0, unsafe { bpf_get_prandom_u32() } as u16);
        } else {
            outer.write4(ip, Ipv4::DONT_FRAGMENT, 0);
        }
    }
    if is_gue {
        let Some(udp) = at_variable::<Udp>(ctx, keep + outer_header) else {
            return discard(Event::DropNoRoom);
        };
        // The port tells flows apart on the way (RFC 8085 section 5.1.1). No checksum: the inner packet has one (RFC 6935 section 5).
        let source_port = (0xc000 | hash as u16 & 0x3fff).to_be();
        // SAFETY: within the packet.
        unsafe {
            (*udp).ports = u32::from(source_port) | u32::from(backend.port) << 16;
            (*udp).length = (wrapped as u16).to_be();
            (*udp).checksum = 0;
        }
    }
    forwarded(note.backend, note.length);
    send(ctx, hop.interface)
}

/// Four octets anywhere.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Word(u32);

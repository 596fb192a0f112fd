//! SYNs for listeners of this machine (L4-02). Past a threshold a core answers them itself, with a cookie in place of the sequence number (RFC 4987 section 3.6), and
//! remembers nothing.
//!
//! The cookies are those of this kernel, which therefore takes the connection when the client comes back with one, without having seen its SYN. It
//! does so only where it makes cookies itself at the time (`net.ipv4.tcp_syncookies = 2`, and SYNs below the threshold). The answer has no
//! options but the largest segment: the kernel reads the others out of timestamps that only it can make.

use core::{arch::asm, mem::size_of};

use aya_ebpf::{
    EbpfContext,
    bindings::{
        bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2, xdp_action::XDP_TX,
    },
    helpers::generated::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_raw_check_syncookie_ipv4,
        bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
        bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use lb_l4_xdp_layout::{Event, Mode, PacketFlags, PacketNote, Service, SynState, WINDOW_SHIFT, stage};

use crate::{
    checksum::Sum,
    count::{count, discard, leave_to, pass, tick},
    link::turn_round,
    maps::{HEADERS, NOTE, SYN_STATES},
    nat::turned,
    packet::{Ipv4, Ipv6, Outer, TCP, Tcp, at_variable, frame_length},
};

/// What comes back without a cookie is looked at for about so many windows after the last answer with one.
const WATCHED: u32 = 4 << WINDOW_SHIFT;

/// Octets of the longest TCP header.
const MOST_TCP: u32 = 60;

/// `BPF_TCP_LISTEN` of linux/bpf.h.
const LISTEN: u32 = 10;

/// The kernel's headers, and so its helpers, have a length that the verifier knows.
#[repr(C)]
pub struct Headers {
    ip: [u8; 40],
    tcp: [u8; MOST_TCP as usize],
}

/// A packet for a listener of this machine.
#[inline(always)]
pub fn local(note: &PacketNote, index: u32, service: &Service) -> u32 {
    if note.flags & PacketFlags::ICMP_ERROR != 0 {
        return pass(Event::PassIcmp);
    }
    let is_read = note.protocol == u32::from(TCP) && note.flags & PacketFlags::LATER_FRAGMENT == 0;
    if !is_read || service.syns_per_core == 0 {
        return pass(Event::PassToListener);
    }
    let Some(state) = SYN_STATES.get_ptr_mut(index) else { return pass(Event::PassToListener) };
    // SAFETY: the state belongs to this core.
    let state: &mut SynState = unsafe { &mut *state };
    if note.flags & PacketFlags::SYN != 0 {
        // SAFETY: as above.
        if unsafe { tick(&raw mut state.rate, note.now, service.syns_per_core) } {
            return pass(Event::PassToListener);
        }
        state.cookie = note.now;
        state.has_cookie = 1;
        return leave_to(stage::SYN);
    }
    if state.has_cookie != 0 && note.now.wrapping_sub(state.cookie) < WATCHED {
        return leave_to(stage::SYN);
    }
    pass(Event::PassToListener)
}

#[inline(always)]
pub fn answer(ctx: &XdpContext) -> u32 {
    let Some(note) = NOTE.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the note belongs to this core, and to this packet until its verdict.
    let note = unsafe { &*note };
    let Some(headers) = HEADERS.get_ptr_mut(0) else { return discard(Event::DropNoProgram) };
    // SAFETY: the headers belong to this core, and to this packet until its verdict.
    let headers: &mut Headers = unsafe { &mut *headers };
    let is_ipv6 = note.flags & PacketFlags::IPV6 != 0;
    let Some(tcp) = at_variable::<Tcp>(ctx, note.l4) else { return discard(Event::DropTruncated) };
    // SAFETY: within the packet.
    let (offset, flags, sequence) = unsafe { ((*tcp).offset, (*tcp).flags, (*tcp).sequence) };
    if note.flags & PacketFlags::SYN == 0 && (flags & Tcp::ACK == 0 || flags & Tcp::RST != 0) {
        return pass(Event::PassToListener);
    }
    if note.flags & PacketFlags::SYN == 0 && is_known(ctx, note) {
        return pass(Event::PassToListener);
    }
    let ip_length = if is_ipv6 { Ipv6::SIZE } else { Ipv4::SIZE } as u32;
    if note.l4 != note.l3 + ip_length {
        // The kernel takes what completes a connection, if it is well.
        return if note.flags & PacketFlags::SYN == 0 {
            pass(Event::PassToListener)
        } else {
            discard(Event::DropSyn)
        };
    }
    let mut tcp_length = u32::from(offset >> 4) * 4;
    // The verifier wants the number that is used to be the one that was compared, so that the compiler must not look through it.
    // SAFETY: no instruction is emitted.
    unsafe { asm!("/* {0} */", inout(reg) tcp_length, options(pure, nomem, nostack, preserves_flags)) };
    if !(Tcp::SIZE as u32..=MOST_TCP).contains(&tcp_length) || note.length < ip_length + tcp_length {
        return discard(Event::DropBadHeader);
    }
    // SAFETY: the kernel writes no more than the lengths, and these are within the headers.
    let is_loaded = unsafe {
        bpf_xdp_load_bytes(ctx.ctx, note.l3, headers.ip.as_mut_ptr().cast(), ip_length) == 0
            && bpf_xdp_load_bytes(ctx.ctx, note.l4, headers.tcp.as_mut_ptr().cast(), tcp_length) == 0
    };
    if !is_loaded {
        return discard(Event::DropTruncated);
    }
    let (ip, tcp) = (headers.ip.as_mut_ptr(), headers.tcp.as_mut_ptr());
    if note.flags & PacketFlags::SYN == 0 {
        // SAFETY: both headers are there.
        let refused = unsafe {
            if is_ipv6 {
                bpf_tcp_raw_check_syncookie_ipv6(ip.cast(), tcp.cast())
            } else {
                bpf_tcp_raw_check_syncookie_ipv4(ip.cast(), tcp.cast())
            }
        };
        if refused != 0 {
            return discard(Event::DropBadCookie);
        }
        return pass(Event::SynCookieTaken);
    }
    // SAFETY: both headers are there, with all their options.
    let cookie = unsafe {
        if is_ipv6 {
            bpf_tcp_raw_gen_syncookie_ipv6(ip.cast(), tcp.cast(), tcp_length)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv4(ip.cast(), tcp.cast(), tcp_length)
        }
    };
    if cookie < 0 {
        return discard(Event::DropSyn);
    }
    match reply(ctx, note, cookie as u32, sequence) {
        Some(()) => {
            count(Event::SynCookieSent);
            XDP_TX
        }
        None => discard(Event::DropSyn),
    }
}

/// Whether the kernel has a connection, or one that begins, of these addresses and ports.
#[inline(always)]
fn is_known(ctx: &XdpContext, note: &PacketNote) -> bool {
    let (source_port, destination_port) = (note.ports as u16, (note.ports >> 16) as u16);
    let mut tuple;
    let length = if note.flags & PacketFlags::IPV6 == 0 {
        let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: note.source[0],
            daddr: note.destination[0],
            sport: source_port,
            dport: destination_port,
        };
        tuple = bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv4 } };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>()
    } else {
        let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: note.source,
            daddr: note.destination,
            sport: source_port,
            dport: destination_port,
        };
        tuple = bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>()
    };
    // SAFETY: the tuple lives longer than the call; what is found is given back.
    unsafe {
        let found = bpf_skc_lookup_tcp(ctx.as_ptr(), &raw mut tuple, length as u32, u64::MAX, 0);
        if found.is_null() {
            return false;
        }
        let state = (*found).state;
        bpf_sk_release(found.cast());
        state != LISTEN
    }
}

/// Makes the packet its own answer: SYN and ACK, with this sequence number.
#[inline(always)]
fn reply(ctx: &XdpContext, note: &PacketNote, cookie: u32, sequence: u32) -> Option<()> {
    const LENGTH: u32 = size_of::<SynAck>() as u32;
    let surplus = frame_length(ctx) as i32 - (note.l4 + LENGTH) as i32;
    // SAFETY: the context is that of this program.
    if surplus != 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, -surplus) } != 0 {
        return None;
    }
    turn_round(ctx)?;
    let is_ipv6 = note.flags & PacketFlags::IPV6 != 0;
    let (source, destination) = (note.destination, note.source);
    let outer = Outer {
        class: 0,
        carried: LENGTH as u16,
        protocol: TCP,
        hash: 0,
        source: &source,
        destination: &destination,
    };
    let most: u16 = if is_ipv6 {
        outer.write6(at_variable::<Ipv6>(ctx, note.l3)?);
        1440
    } else {
        outer.write4(at_variable::<Ipv4>(ctx, note.l3)?, Ipv4::DONT_FRAGMENT, 0);
        1460
    };
    let words = [
        turned(note.ports),
        cookie.to_be(),
        u32::from_be(sequence).wrapping_add(1).to_be(),
        (0x6000_0000 | u32::from(Tcp::SYN | Tcp::ACK) << 16 | WINDOW).to_be(),
        0,
        // The largest segment (RFC 9293 section 3.2).
        (0x0204_0000 | u32::from(most)).to_be(),
    ];
    let mut sum = Sum(0).add((LENGTH).to_be()).add(u32::from(TCP).to_be());
    let mut at = 0;
    while at < 4 {
        if is_ipv6 || at == 0 {
            sum = sum.add(source[at]).add(destination[at]);
        }
        at += 1;
    }
    sum = sum.add(words[0]).add(words[1]).add(words[2]).add(words[3]).add(words[5]);
    let place = at_variable::<SynAck>(ctx, note.l4)?;
    // SAFETY: within the packet.
    unsafe {
        (*place).first = words[0];
        (*place).sequence = words[1];
        (*place).acknowledgment = words[2];
        (*place).flags_window = words[3];
        (*place).checksum = !sum.fold();
        (*place).urgent = 0;
        (*place).segment = words[5];
    }
    Some(())
}

/// The window of the answer: less than any that the kernel gives a connection that it takes, and more than a client sends at once.
const WINDOW: u32 = 29_200;

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct SynAck {
    first: u32,
    sequence: u32,
    acknowledgment: u32,
    flags_window: u32,
    checksum: u16,
    urgent: u16,
    segment: u32,
}

/// Whether a service is a listener of this machine.
#[inline(always)]
pub fn is_local(service: &Service) -> bool {
    service.mode == Mode::Local as u8
}

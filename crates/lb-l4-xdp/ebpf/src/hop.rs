//! Next hops: MAC addresses, interface and MTU towards an address, from the kernel's routes and neighbours.
//!
//! A look-up in the kernel's tables costs more than all the rest of a packet. Each core remembers hops for a short while in a table where an
//! address has one place, so that two addresses of one place cost look-ups and nothing else.

use core::mem::{MaybeUninit, size_of};

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_fib_lookup, xdp_action::XDP_TX},
    helpers::generated::bpf_fib_lookup as fib_lookup,
    programs::XdpContext,
};
use lb_l4_xdp_layout::{Event, Hop4, Hop6, MAX_HOPS, Onward, Settings};

use crate::{
    count::discard,
    maps::{DEVICES, HOPS4, HOPS6},
    packet::differs,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[inline(always)]
pub fn hop4(
    ctx: &XdpContext,
    settings: &Settings,
    now: u32,
    source: u32,
    address: u32,
) -> Result<&'static Onward, Event> {
    let place = address.wrapping_mul(0x9e37_79b1) >> (32 - MAX_HOPS.trailing_zeros());
    let Some(hop) = HOPS4.get_ptr_mut(place) else { return Err(Event::DropNoRoute) };
    // SAFETY: the hop belongs to this core.
    let hop: &'static mut Hop4 = unsafe { &mut *hop };
    if hop.address != address || is_old(&hop.onward, now) {
        let mut query = Query::new();
        let asked = query.asked();
        asked.family = AF_INET;
        asked.ifindex = ctx.ingress_ifindex() as u32;
        asked.__bindgen_anon_3.ipv4_src = source;
        asked.__bindgen_anon_4.ipv4_dst = address;
        look_up(ctx, asked)?;
        hop.address = address;
        remember(&mut hop.onward, asked, now.wrapping_add(settings.hop_life));
    }
    Ok(&hop.onward)
}

#[inline(always)]
pub fn hop6(
    ctx: &XdpContext,
    settings: &Settings,
    now: u32,
    source: &[u32; 4],
    address: &[u32; 4],
) -> Result<&'static Onward, Event> {
    let mixed = address[0] ^ address[1].rotate_left(8) ^ address[2].rotate_left(16) ^ address[3];
    let place = mixed.wrapping_mul(0x9e37_79b1) >> (32 - MAX_HOPS.trailing_zeros());
    let Some(hop) = HOPS6.get_ptr_mut(place) else { return Err(Event::DropNoRoute) };
    // SAFETY: the hop belongs to this core.
    let hop: &'static mut Hop6 = unsafe { &mut *hop };
    if differs(&hop.address, address) || is_old(&hop.onward, now) {
        let mut query = Query::new();
        let asked = query.asked();
        asked.family = AF_INET6;
        asked.ifindex = ctx.ingress_ifindex() as u32;
        asked.__bindgen_anon_3.ipv6_src = *source;
        asked.__bindgen_anon_4.ipv6_dst = *address;
        look_up(ctx, asked)?;
        hop.address = *address;
        remember(&mut hop.onward, asked, now.wrapping_add(settings.hop_life));
    }
    Ok(&hop.onward)
}

#[inline(always)]
fn is_old(onward: &Onward, now: u32) -> bool {
    onward.interface == 0 || onward.expires.wrapping_sub(now) as i32 <= 0
}

/// A question to the kernel, on words, so that it is cleared without a call.
#[repr(C, align(8))]
struct Query(MaybeUninit<[u64; 8]>);

const _: () = assert!(size_of::<Query>() == size_of::<bpf_fib_lookup>());

impl Query {
    #[inline(always)]
    fn new() -> Self {
        let mut query = Self(MaybeUninit::uninit());
        let words: *mut u64 = query.0.as_mut_ptr().cast();
        let mut at = 0;
        while at < 8 {
            // SAFETY: within the array.
            unsafe { words.add(at).write_volatile(0) };
            at += 1;
        }
        query
    }

    #[inline(always)]
    fn asked(&mut self) -> &mut bpf_fib_lookup {
        // SAFETY: of the same size, aligned, and zeros are a value of it.
        unsafe { &mut *self.0.as_mut_ptr().cast() }
    }
}

#[inline(always)]
fn look_up(ctx: &XdpContext, query: &mut bpf_fib_lookup) -> Result<(), Event> {
    // SAFETY: the size is that of the structure.
    let found = unsafe { fib_lookup(ctx.as_ptr(), query, size_of::<bpf_fib_lookup>() as i32, 0) };
    match found {
        0 => Ok(()),
        // BPF_FIB_LKUP_RET_FWD_DISABLED and BPF_FIB_LKUP_RET_NO_NEIGH.
        5 => Err(Event::DropNotForwarding),
        7 => Err(Event::DropNoNeighbour),
        _ => Err(Event::DropNoRoute),
    }
}

#[inline(always)]
fn remember(onward: &mut Onward, query: &bpf_fib_lookup, expires: u32) {
    // SAFETY: the kernel has written the fields, and all variants are plain octets.
    let (mtu, macs) =
        unsafe { (query.__bindgen_anon_1.mtu_result, &raw const query.__bindgen_anon_6.__bindgen_anon_2) };
    // Source, then destination. The verifier wants aligned access to the stack, which the compiler thinks needless: volatile reads stay as
    // they are.
    let macs: *const u16 = macs.cast();
    let mac = |at| {
        // SAFETY: within the two addresses, and aligned as the structure is.
        u32::from(unsafe { macs.add(at).read_volatile() })
    };
    onward.expires = expires;
    onward.interface = query.ifindex;
    onward.mtu = u32::from(mtu);
    onward.link = [mac(3) | mac(4) << 16, mac(5) | mac(0) << 16, mac(1) | mac(2) << 16];
}

/// Sends the packet by the interface of its hop.
#[inline(always)]
pub fn send(ctx: &XdpContext, interface: u32) -> u32 {
    if interface == ctx.ingress_ifindex() as u32 {
        return XDP_TX;
    }
    match DEVICES.redirect(interface, 0) {
        Ok(action) => action,
        Err(_) => discard(Event::DropNoDevice),
    }
}

//! The XDP data plane: a balancer of TCP and UDP in the kernel.
//!
//! A packet enters at `lb_xdp`. What the entry does not finish itself it leaves to another program by a tail call, with what it has found
//! out in a note of the core. A packet that is not for a service is passed to the kernel as it was; one that is for a service is forwarded, or
//! dropped and counted with the reason.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod checksum;
mod choose;
mod clock;
mod count;
mod entry;
mod flow;
mod hop;
mod icmp;
mod link;
mod maps;
mod nat;
mod packet;
mod parse;
mod quic;
mod services;
mod syn;
mod too_big;
mod tunnel;

use aya_ebpf::{macros::xdp, programs::XdpContext};

/// Where every packet enters.
#[xdp(frags)]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    count::finish(&ctx, entry::enter(&ctx))
}

/// [`lb_l4_xdp_layout::stage::PARSE`].
#[xdp(frags)]
pub fn lb_parse(ctx: XdpContext) -> u32 {
    count::finish(&ctx, parse::parse(&ctx))
}

/// [`lb_l4_xdp_layout::stage::CHOOSE`].
#[xdp(frags)]
pub fn lb_choose(ctx: XdpContext) -> u32 {
    count::finish(&ctx, choose::choose(&ctx))
}

/// [`lb_l4_xdp_layout::stage::TUNNEL`].
#[xdp(frags)]
pub fn lb_tunnel(ctx: XdpContext) -> u32 {
    count::finish(&ctx, tunnel::tunnel(&ctx))
}

/// [`lb_l4_xdp_layout::stage::LINK`].
#[xdp(frags)]
pub fn lb_link(ctx: XdpContext) -> u32 {
    count::finish(&ctx, link::forward(&ctx))
}

/// [`lb_l4_xdp_layout::stage::TRANSLATE`].
#[xdp(frags)]
pub fn lb_translate(ctx: XdpContext) -> u32 {
    count::finish(&ctx, nat::translate(&ctx))
}

/// [`lb_l4_xdp_layout::stage::ALLOCATE`].
#[xdp(frags)]
pub fn lb_allocate(ctx: XdpContext) -> u32 {
    count::finish(&ctx, nat::allocate())
}

/// [`lb_l4_xdp_layout::stage::ICMP`].
#[xdp(frags)]
pub fn lb_icmp(ctx: XdpContext) -> u32 {
    count::finish(&ctx, icmp::follow(&ctx))
}

/// [`lb_l4_xdp_layout::stage::TOO_BIG`].
#[xdp(frags)]
pub fn lb_too_big(ctx: XdpContext) -> u32 {
    count::finish(&ctx, too_big::answer(&ctx))
}

/// [`lb_l4_xdp_layout::stage::CONNECTION_ID`].
#[xdp(frags)]
pub fn lb_connection_id(ctx: XdpContext) -> u32 {
    count::finish(&ctx, quic::compare(&ctx))
}

/// [`lb_l4_xdp_layout::stage::SYN`]. Needs Linux 6.0.
#[xdp(frags)]
pub fn lb_syn(ctx: XdpContext) -> u32 {
    count::finish(&ctx, syn::answer(&ctx))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets programs look up routes only under this licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

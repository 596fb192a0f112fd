//! What the benchmark runs programs through: it makes the packet again what it was before the last run, and calls the program under test.
//!
//! `BPF_PROG_TEST_RUN` hands a program its own output when it repeats a run: without this a program that wraps packets would be measured on
//! packets that it has wrapped already.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS, XDP_TX},
    btf_maps::{Array, ProgramArray},
    helpers::generated::bpf_xdp_adjust_head,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// A packet and how it varies.
#[repr(C)]
pub struct Template {
    /// Octets of the frame.
    length: u32,
    /// Flows among which runs alternate.
    flows: u32,
    /// The flow that is next.
    next: u32,
    /// 1 for a packet over IPv6.
    is_ipv6: u32,
    /// The beginning of the frame.
    words: [u64; 8],
}

#[btf_map]
static TEMPLATE: Array<Template, 1> = Array::new();

#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

#[xdp(frags)]
pub fn wrap(ctx: XdpContext) -> u32 {
    let Some(template) = TEMPLATE.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the benchmark runs on one core.
    let template = unsafe { &mut *template };
    let mut length = ctx.data_end() - ctx.data();
    // SAFETY: no instruction is emitted. The verifier wants pointers subtracted from each other before anything else is done with them.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) length, options(pure, nomem, nostack, preserves_flags))
    };
    let surplus = length as i32 - template.length as i32;
    // SAFETY: the context is that of this program.
    if surplus != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, surplus) } != 0 {
        return XDP_ABORTED;
    }
    let start = ctx.data();
    if start + 64 > ctx.data_end() {
        return XDP_ABORTED;
    }
    let words = start as *mut u64;
    let mut at = 0;
    while at < 8 {
        // SAFETY: within the packet.
        unsafe { words.add(at).write_unaligned(template.words[at]) };
        at += 1;
    }
    if template.flows > 1 {
        let flow = template.next;
        template.next = if flow + 1 >= template.flows { 0 } else { flow + 1 };
        // The last word of the source address.
        let place = if template.is_ipv6 == 0 { start + 26 } else { start + 34 };
        // SAFETY: within the packet.
        unsafe { (place as *mut u32).write_unaligned(flow.wrapping_mul(2_654_435_761)) };
    }
    // SAFETY: the context is that of this program.
    unsafe { UNDER_TEST.tail_call(&ctx, 0) };
    XDP_ABORTED
}

/// The cost of all that is not the program under test.
#[xdp(frags)]
pub fn nothing(_: XdpContext) -> u32 {
    XDP_TX
}

/// The same, of a packet that has become longer and is cut again: half of what it costs more is what the wrapper pays for a program that wraps packets.
#[xdp(frags)]
pub fn longer(ctx: XdpContext) -> u32 {
    // SAFETY: the context is that of this program.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -20) } != 0 {
        return XDP_ABORTED;
    }
    XDP_TX
}

/// The floor of the machine.
#[xdp(frags)]
pub fn floor(_: XdpContext) -> u32 {
    XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

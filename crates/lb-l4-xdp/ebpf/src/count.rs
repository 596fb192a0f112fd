//! Counters of the core, and the verdicts that go with them.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    programs::XdpContext,
};
use lb_l4_xdp_layout::{Event, Rate, WINDOW_SHIFT};

use crate::maps::{BACKEND_COUNTS, CORE_RATES, EVENT_COUNTS, STAGES};

#[inline(always)]
pub fn count(event: Event) {
    if let Some(counter) = EVENT_COUNTS.get_ptr_mut(event as u32) {
        // SAFETY: the counter belongs to this core, and nothing interrupts a program on it that counts here too.
        unsafe { *counter += 1 };
    }
}

/// An action with an event, or a program to leave the packet to: what [`finish`] makes a verdict of. All of a program's exits meet there,
/// so that it counts and calls at one place.
const COUNTED: u32 = 1 << 16;
const LEFT: u32 = 1 << 17;

#[inline(always)]
pub fn pass(event: Event) -> u32 {
    COUNTED | (event as u32) << 8 | XDP_PASS
}

#[inline(always)]
pub fn discard(event: Event) -> u32 {
    COUNTED | (event as u32) << 8 | XDP_DROP
}

/// Leaves the packet to another program.
#[inline(always)]
pub fn leave_to(stage: u32) -> u32 {
    LEFT | stage << 8
}

#[inline(always)]
pub fn finish(ctx: &XdpContext, outcome: u32) -> u32 {
    let mut outcome = outcome;
    if outcome & LEFT != 0 {
        // SAFETY: the context is that of this program.
        unsafe { STAGES.tail_call(ctx, outcome >> 8 & 0xff) };
        // The call comes back only if that program is missing.
        outcome = discard(Event::DropNoProgram);
    }
    if outcome & COUNTED != 0 {
        let event = outcome >> 8 & 0xff;
        if let Some(counter) = EVENT_COUNTS.get_ptr_mut(event) {
            // SAFETY: the counter belongs to this core.
            unsafe { *counter += 1 };
        }
    }
    outcome & 0xff
}

/// A packet from a client to a backend.
#[inline(always)]
pub fn forwarded(backend: u32, length: u32) {
    if let Some(counters) = BACKEND_COUNTS.get_ptr_mut(backend) {
        // SAFETY: the counters belong to this core.
        unsafe {
            (*counters).packets += 1;
            (*counters).bytes += u64::from(length);
        }
    }
}

/// A packet from a backend to a client.
#[inline(always)]
pub fn replied(backend: u32, length: u32) {
    if let Some(counters) = BACKEND_COUNTS.get_ptr_mut(backend) {
        // SAFETY: the counters belong to this core.
        unsafe {
            (*counters).reply_packets += 1;
            (*counters).reply_bytes += u64::from(length);
        }
    }
}

#[inline(always)]
pub fn flow_begun(backend: u32) {
    if let Some(counters) = BACKEND_COUNTS.get_ptr_mut(backend) {
        // SAFETY: the counters belong to this core.
        unsafe { (*counters).flows += 1 };
    }
}

/// What of the core is limited.
#[derive(Clone, Copy)]
pub enum CoreRate {
    NewFlows = 0,
    IcmpForwarded = 1,
    IcmpAnswers = 2,
}

/// Counts an event in the window of `now`; false past `most` of them. No limit is 0.
#[inline(always)]
pub fn within(rate: CoreRate, now: u32, most: u32) -> bool {
    if most == 0 {
        return true;
    }
    let Some(rate) = CORE_RATES.get_ptr_mut(rate as u32) else { return false };
    // SAFETY: the rate belongs to this core.
    unsafe { tick(rate, now, most) }
}

/// Counts an event in the window of `now`; false past `most` of them.
///
/// # Safety
///
/// The pointer is a value of a map. Cores that count at the same time may lose an event.
#[inline(always)]
pub unsafe fn tick(rate: *mut Rate, now: u32, most: u32) -> bool {
    let window = now >> WINDOW_SHIFT;
    // SAFETY: by contract.
    unsafe {
        if (*rate).window != window {
            (*rate).window = window;
            (*rate).count = 0;
        }
        if (*rate).count >= most {
            return false;
        }
        (*rate).count += 1;
    }
    true
}

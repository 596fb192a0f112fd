//! The clock of flows and next hops.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_l4_xdp_layout::TICK_SHIFT;

/// The tick that it is.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: the helper has no arguments.
    let nanoseconds = unsafe { bpf_ktime_get_coarse_ns() };
    (nanoseconds >> TICK_SHIFT) as u32
}

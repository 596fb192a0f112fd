//! What holds for all services, and the caps on new flows.

use crate::plain::plain;

/// What an entry of the tables of sources says; the longest prefix decides.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclRule {
    /// Packets to services are dropped.
    Deny = 1,
    /// Packets are let in, and the cap of a source does not apply.
    Allow = 2,
}

/// What holds for all services. Times are in ticks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`crate::LAYOUT_VERSION`]: nothing is forwarded while it differs.
    pub layout_version: u32,
    /// Seed of the hash of flows.
    pub hash_seed: u32,
    /// Seed of the counters by source, a secret of this gateway.
    pub source_seed: u32,
    /// New flows that a core takes into its table in a window; 0 for no cap.
    pub new_flows_per_core: u32,
    /// New flows of a source in a window; 0 for no cap.
    pub new_flows_per_source: u32,
    /// ICMP errors that a core forwards in a window, and as many answers of its own.
    pub icmp_per_core: u32,
    /// A flow without packets is forgotten after it, by its [`crate::TcpState`]: none, open, finished, reset.
    pub idle: [u32; 4],
    /// A next hop is looked up again after it.
    pub hop_life: u32,
    /// 1 if the table of IPv4 sources has entries.
    pub has_acl4: u8,
    /// 1 if the table of IPv6 sources has entries.
    pub has_acl6: u8,
    /// Always 0.
    pub zero: [u8; 2],
}

/// Events in the window that runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Number of the window.
    pub window: u32,
    /// Events so far.
    pub count: u32,
}

/// The SYNs of a listener on a core.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynState {
    /// Those in the window that runs.
    pub rate: Rate,
    /// Tick of the last one that was answered with a cookie.
    pub cookie: u32,
    /// 1 once there was one.
    pub has_cookie: u32,
}

plain! {
    Settings: 48, 4;
    Rate: 8, 4;
    SynState: 16, 4;
}

//! What the XDP programs in the kernel and user space share: the types of keys and values of maps, the hash of flows, what is counted, and how packets are read.
//!
//! Both sides are compiled from these sources, and the size of each type is asserted here, so that it holds on both. Addresses, ports and
//! ether types are in network byte order, as they stand in a packet; everything else is in that of the machine.

#![no_std]

mod backend;
mod event;
mod flow;
mod hash;
mod packet;
mod plain;
pub mod read;
mod settings;
pub mod wire;

pub use backend::{Backend, BackendCounters, Mode, ServerKey, Service, Standing, VipKey4, VipKey6};
pub use event::{EVENT_NAMES, EVENTS, Event};
pub use flow::{
    Flow4, Flow6, FlowHead, FlowKey4, FlowKey6, FlowKind, FragmentKey4, FragmentKey6, FragmentPorts,
    Rewrite4, Rewrite6, TcpState,
};
pub use hash::{address_place4, address_place6, flow_hash4, flow_hash6, mix, ring_slot};
pub use packet::{Hop4, Hop6, Onward, PacketFlags, PacketNote};
pub use plain::Plain;
pub use settings::{AclRule, Rate, Settings, SynState};

/// Version of what stands in maps. A loader refuses pinned maps of another one.
pub const LAYOUT_VERSION: u32 = 4;

/// Services that a table holds.
pub const MAX_SERVICES: u32 = 512;

/// Backends of all services together.
pub const MAX_BACKENDS: u32 = 4096;

/// Server IDs of QUIC of all services together.
pub const MAX_SERVERS: u32 = 8192;

/// Slots of the ring of a service, a prime (Eisenbud et al., NSDI 2016, section 3.4).
pub const RING_SLOTS: u32 = 65_537;

/// The slot of a ring that leads to no backend.
pub const NO_BACKEND: u32 = u32::MAX;

/// Next hops that a core remembers for each family.
pub const MAX_HOPS: u32 = 4096;

/// Words of the filter of addresses: 65,536 bits.
pub const ADDRESS_WORDS: u32 = 1024;

/// Counters of new flows by source.
pub const MAX_SOURCE_RATES: u32 = 65_536;

/// A tick of the clock of flows and hops in nanoseconds, as a shift: 2^20 ns, or about a millisecond. A clock of 32 bits comes round after 52 days;
/// only differences are compared.
pub const TICK_SHIFT: u32 = 20;

/// A window of the caps on new flows in ticks, as a shift: about a second.
pub const WINDOW_SHIFT: u32 = 10;

/// Where each program stands in the map of tail calls.
pub mod stage {
    /// Parses what the entry leaves: VLAN tags, IP options, extension headers, fragments, ICMP.
    pub const PARSE: u32 = 0;
    /// Chooses the backend of a new flow.
    pub const CHOOSE: u32 = 1;
    /// Encapsulates in any combination of families.
    pub const TUNNEL: u32 = 2;
    /// Forwards by the MAC address alone.
    pub const LINK: u32 = 3;
    /// Rewrites addresses and ports of a flow that has a translation.
    pub const TRANSLATE: u32 = 4;
    /// Finds a translation for a new flow.
    pub const ALLOCATE: u32 = 5;
    /// Lets ICMP errors follow the flow that they are about.
    pub const ICMP: u32 = 6;
    /// Answers that a packet is too big.
    pub const TOO_BIG: u32 = 7;
    /// Compares the backend of a known flow with the one that its connection ID names.
    pub const CONNECTION_ID: u32 = 8;
    /// Answers SYNs with cookies, and looks for them in what comes back.
    pub const SYN: u32 = 9;
    /// Number of programs.
    pub const COUNT: u32 = 10;
}

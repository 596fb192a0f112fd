//! Services and their backends.

use crate::plain::plain;

/// What a service is found by, over IPv4. With port 0 all ports that have no service of their own; with port 0 and protocol 0 it says
/// that the address is that of a service at all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipKey4 {
    /// Virtual address.
    pub address: u32,
    /// Port, or 0.
    pub port: u16,
    /// Protocol number, or 0.
    pub protocol: u8,
    /// Always 0.
    pub zero: u8,
}

/// What a service is found by, over IPv6; as [`VipKey4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipKey6 {
    /// Virtual address.
    pub address: [u32; 4],
    /// Port, or 0.
    pub port: u16,
    /// Protocol number, or 0.
    pub protocol: u8,
    /// Always 0.
    pub zero: u8,
}

/// How packets get to a backend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In another IP packet (RFC 2003, RFC 2473); the backend answers the client itself.
    Ipip = 0,
    /// In a UDP packet (GUE variant 1, draft-ietf-intarea-gue section 4); the backend answers the client itself.
    Gue = 1,
    /// With the MAC address of the backend, which has the virtual address on its loopback and answers the client itself.
    Link = 2,
    /// With addresses and ports of gateway and backend; replies come back through the gateway.
    Nat = 3,
    /// To a listener of this machine, and to no backend: the kernel has all packets, but for the SYNs of a flood.
    Local = 4,
}

/// Whether a backend gets packets.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// None: its flows find another one.
    Absent = 0,
    /// All.
    Live = 1,
    /// Those of flows that it has.
    Draining = 2,
}

/// A service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// 1 in a service that is there.
    pub present: u8,
    /// A [`Mode`].
    pub mode: u8,
    /// 1 if flows of one client address share a backend: ports are left out of the hash.
    pub by_source: u8,
    /// 1 if a socket of this machine serves the same address: it gets the packets that the programs can send to no backend, which are dropped otherwise.
    pub has_listener: u8,
    /// First port for translated flows, in the machine's order.
    pub nat_port_first: u16,
    /// Number of ports for translated flows; with `nat_port_first` at most 65,536.
    pub nat_port_count: u16,
    /// The gateway's address towards backends in mode `nat`; one over IPv4 in the first word.
    pub nat_source: [u32; 4],
    /// Bits of a server ID in what follows the first octet of a connection ID of QUIC.
    pub id_mask: [u32; 4],
    /// Octets of a connection ID that names a server; 0 if none does.
    pub id_length: u8,
    /// The first three bits of a connection ID that names a server.
    pub id_rotation: u8,
    /// Always 0.
    pub zero: [u8; 2],
    /// In mode `local` the SYNs of a window that a core lets through to the listener; more are answered with a cookie.
    pub syns_per_core: u32,
}

/// A server ID of QUIC, at the service whose connection IDs hold it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKey {
    /// Index of the service.
    pub service: u32,
    /// The server ID, as it stands in a packet, behind it zeros.
    pub id: [u32; 4],
}

/// A backend of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Its address; one over IPv4 in the first word.
    pub address: [u32; 4],
    /// Source of the packets that wrap those for it, of the family of `address`.
    pub outer_source: [u32; 4],
    /// Bits of the last word of `outer_source` that come from the hash of the flow, so that the backend's queues share the load.
    pub spread_mask: u32,
    /// Differs between owners of one index.
    pub generation: u32,
    /// A [`Standing`].
    pub standing: u8,
    /// A [`Mode`].
    pub mode: u8,
    /// 1 if `address` is over IPv6.
    pub is_ipv6: u8,
    /// 1 if connection IDs of QUIC lead to the backends of the service.
    pub by_id: u8,
    /// Port of the backend in mode `nat`; 0 leaves it as it is. UDP port of the tunnel in mode `dsr-gue`.
    pub port: u16,
    /// Index of the service.
    pub service: u16,
}

/// What a core has sent towards a backend and back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Packets from clients.
    pub packets: u64,
    /// Their octets from the IP header on.
    pub bytes: u64,
    /// Flows that were begun.
    pub flows: u64,
    /// Packets of replies, in mode `nat`.
    pub reply_packets: u64,
    /// Their octets from the IP header on.
    pub reply_bytes: u64,
}

plain! {
    VipKey4: 8, 4;
    VipKey6: 20, 4;
    Service: 48, 4;
    ServerKey: 20, 4;
    Backend: 48, 4;
    BackendCounters: 40, 8;
}

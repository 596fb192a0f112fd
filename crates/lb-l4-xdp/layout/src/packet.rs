//! What programs tell each other about a packet, and what a core remembers of next hops.

use crate::plain::plain;

/// A packet that one program leaves to the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketNote {
    /// Source address; one over IPv4 in the first word.
    pub source: [u32; 4],
    /// Destination address; one over IPv4 in the first word.
    pub destination: [u32; 4],
    /// Source port, then destination port, as in a packet.
    pub ports: u32,
    /// Protocol number.
    pub protocol: u32,
    /// [`PacketFlags`].
    pub flags: u32,
    /// Tick at its arrival.
    pub now: u32,
    /// Hash of its flow.
    pub hash: u32,
    /// Index of its backend.
    pub backend: u32,
    /// Index of its service.
    pub service: u32,
    /// Octets from the IP header on.
    pub length: u32,
    /// Where the IP header begins.
    pub l3: u32,
    /// Where the transport header begins.
    pub l4: u32,
    /// The largest packet that its next hop takes, for the answer that it is too big.
    pub mtu: u32,
    /// What a translated flow is rewritten to: the source address.
    pub new_source: [u32; 4],
    /// The destination address.
    pub new_destination: [u32; 4],
    /// Source port, then destination port, as in a packet.
    pub new_ports: u32,
    /// What fragments of one packet share.
    pub identification: u32,
    /// The program that sends it on, by its [`crate::stage`], unless its connection ID leads elsewhere.
    pub next: u32,
}

/// Bits of [`PacketNote::flags`].
#[derive(Clone, Copy, Debug)]
pub struct PacketFlags;

impl PacketFlags {
    /// The packet is over IPv6.
    pub const IPV6: u32 = 1;
    /// A fragment other than the first: it has no transport header.
    pub const LATER_FRAGMENT: u32 = 2;
    /// TCP with SYN and without ACK.
    pub const SYN: u32 = 4;
    /// TCP with FIN.
    pub const FIN: u32 = 8;
    /// TCP with RST.
    pub const RST: u32 = 16;
    /// An ICMP error: addresses and ports are those of the flow that it is about, turned round.
    pub const ICMP_ERROR: u32 = 32;
    /// A translated packet from a backend.
    pub const REPLY: u32 = 64;
    /// The first packet of its entry in a window: the entry of the other direction is looked after.
    pub const REFRESH: u32 = 128;
    /// The first of several fragments.
    pub const FIRST_FRAGMENT: u32 = 256;
}

/// How a packet leaves towards an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Onward {
    /// Tick from which on it is looked up again.
    pub expires: u32,
    /// Index of the interface; 0 in an entry that was never used.
    pub interface: u32,
    /// The largest IP packet.
    pub mtu: u32,
    /// The first twelve octets of a frame: destination, then source.
    pub link: [u32; 3],
}

/// The next hop towards an address over IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop4 {
    /// How packets leave.
    pub onward: Onward,
    /// The address.
    pub address: u32,
}

/// The next hop towards an address over IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop6 {
    /// How packets leave.
    pub onward: Onward,
    /// The address.
    pub address: [u32; 4],
}

plain! {
    PacketNote: 120, 4;
    Onward: 24, 4;
    Hop4: 28, 4;
    Hop6: 40, 4;
}

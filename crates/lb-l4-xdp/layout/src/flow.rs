//! Flows and fragments.

use crate::plain::plain;

/// A flow over IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey4 {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port, then destination port, as in a packet.
    pub ports: u32,
    /// Protocol number.
    pub protocol: u32,
}

/// A flow over IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey6 {
    /// Source address.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Source port, then destination port, as in a packet.
    pub ports: u32,
    /// Protocol number.
    pub protocol: u32,
}

/// What is known of a flow, whatever its family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowHead {
    /// Index of the backend.
    pub backend: u32,
    /// [`crate::Backend::generation`] of the backend that was chosen. Another one means that the index has a new owner and the flow none.
    pub generation: u32,
    /// Tick of the last packet.
    pub seen: u32,
    /// Index of the service.
    pub service: u16,
    /// A [`FlowKind`].
    pub kind: u8,
    /// A [`TcpState`].
    pub state: u8,
}

/// What a translated flow is rewritten to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite4 {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port, then destination port, as in a packet.
    pub ports: u32,
}

/// What a translated flow is rewritten to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite6 {
    /// Source address.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Source port, then destination port, as in a packet.
    pub ports: u32,
}

/// An entry of the table of flows over IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow4 {
    /// What it leads to.
    pub head: FlowHead,
    /// What its packets become, in mode `nat`.
    pub rewrite: Rewrite4,
    /// No meaning.
    pub spare: u32,
}

/// An entry of the table of flows over IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow6 {
    /// What it leads to.
    pub head: FlowHead,
    /// What its packets become, in mode `nat`.
    pub rewrite: Rewrite6,
    /// No meaning.
    pub spare: u32,
}

/// What an entry of the table of flows is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// Packets go to the backend as they are; replies do not come this way.
    Direct = 0,
    /// From the client to the backend, translated.
    Forward = 1,
    /// From the backend to the client, translated back.
    Reverse = 2,
}

/// How far one direction of a TCP connection has got; it decides how long an idle entry stays.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Not TCP: the idle timeout of UDP applies.
    None = 0,
    /// Open, or opening.
    Open = 1,
    /// FIN has been seen.
    Finished = 2,
    /// RST has been seen and nothing since.
    Reset = 3,
}

/// The fragments of one packet over IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey4 {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Identification, then zeros.
    pub identification: u32,
    /// Protocol number.
    pub protocol: u32,
}

/// The fragments of one packet over IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey6 {
    /// Source address.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Identification.
    pub identification: u32,
    /// Protocol number.
    pub protocol: u32,
}

/// What the first fragment of a packet has told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port, then destination port, as in a packet.
    pub ports: u32,
    /// Tick of the first fragment.
    pub seen: u32,
}

plain! {
    FlowKey4: 16, 4;
    FlowKey6: 40, 4;
    FlowHead: 16, 4;
    Rewrite4: 12, 4;
    Rewrite6: 36, 4;
    Flow4: 32, 4;
    Flow6: 56, 4;
    FragmentKey4: 16, 4;
    FragmentKey6: 40, 4;
    FragmentPorts: 8, 4;
}

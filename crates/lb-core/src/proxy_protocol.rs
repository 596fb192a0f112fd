//! The PROXY protocol, versions 1 and 2: what a balancer in front of the gateway says, before all other bytes of a connection, of the client
//! that it connects for.
//!
//! Whoever sends a header can name any client, so only peers that the operator trusts are asked for one. A header is taken whole or not at all:
//! one that is malformed, longer than [`MOST_V1_BYTES`] or [`MOST_V2_BYTES`], or has a wrong checksum ends the connection (attack R-17).
//! Nothing here does I/O.

mod checksum;
mod tlv;
mod v1;
mod v2;
mod write;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use crate::address::ClientAddress;
use crate::network::NetworkMap;

pub use checksum::crc32c;
pub use tlv::{SslFacts, Tlvs};
pub use write::{ProxyClient, ProxySends, ProxyTls};

/// The longest header of version 1, its CRLF included.
pub const MOST_V1_BYTES: usize = 107;

/// The longest header of version 2 that is taken.
pub const MOST_V2_BYTES: usize = 4096;

/// What the header of version 1 begins with.
pub const V1_START: &[u8] = b"PROXY ";

/// What the header of version 2 begins with.
pub const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Which peers of a listener send a header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProxyTrust {
    /// The peers whose headers are believed.
    pub trusted: NetworkMap<()>,
    /// Whether a connection without a header is closed.
    pub is_required: bool,
}

impl ProxyTrust {
    /// Whether a peer is believed. A peer without an address is not.
    pub fn trusts(&self, peer: ClientAddress) -> bool {
        peer.ip().is_some_and(|ip| self.trusted.get(ip).is_some())
    }
}

/// Which of the two forms a header has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl HeaderVersion {
    /// As configuration files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// A header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProxyPreamble<'a> {
    /// Its form.
    pub version: HeaderVersion,
    /// The client, and what it has connected to. `None` where the peer speaks for itself (`LOCAL`) or does not say (`UNKNOWN`, a Unix
    /// socket): the peer is the client then.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What it says besides.
    pub tlvs: Tlvs<'a>,
}

/// What the first bytes of a connection are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading<'a> {
    /// The beginning of a header, perhaps: more is needed.
    More,
    /// No header.
    Absent,
    /// A header of so many bytes.
    Header(ProxyPreamble<'a>, usize),
}

/// Why a header is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// It breaks the grammar.
    Malformed,
    /// It is longer than it may be.
    TooLarge,
    /// Its checksum (CRC32C) is another.
    Checksum,
}

/// Reads the header at the beginning of `bytes`, which are those of a connection from its first one on.
///
/// # Errors
/// Why there is none that can be taken.
pub fn read(bytes: &[u8]) -> Result<Reading<'_>, HeaderFault> {
    if begins(bytes, V1_START) {
        v1::read(bytes)
    } else if begins(bytes, V2_SIGNATURE) {
        v2::read(bytes)
    } else {
        Ok(Reading::Absent)
    }
}

/// Whether `bytes` begin with `start`, or are a beginning of it.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes.get(..length) == start.get(..length)
}

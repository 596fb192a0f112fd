//! Initial packets of clients, whose keys follow from a connection ID in their header (RFC 9001 §5.2).

use std::fmt;

use lb_core::quic::header::{LongHeader, PacketType, QuicVersion};
use rustls::Side;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{DirectionalKeys, Suite, Version as KeyVersion};

/// Opens Initial packets of clients.
pub struct InitialReader {
    suite: Suite,
    /// A packet's payload is opened here, since the packet itself is forwarded as it is.
    opened: Vec<u8>,
}

impl fmt::Debug for InitialReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InitialReader")
    }
}

/// The keys of one connection's Initial packets.
pub struct InitialKeys(DirectionalKeys);

impl fmt::Debug for InitialKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InitialKeys")
    }
}

/// Bytes between the beginning of a packet number and the sample of its protection (RFC 9001 §5.4.2).
const SAMPLE_AFTER: usize = 4;

impl InitialReader {
    /// A reader; `None` where the cryptographic library lacks what it takes.
    pub fn new() -> Option<Self> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
        Some(Self { suite, opened: Vec::new() })
    }

    /// The keys of the client's packets in the connection that has begun with this destination connection ID.
    pub fn keys(&self, version: QuicVersion, id: &[u8]) -> InitialKeys {
        let version = match version {
            QuicVersion::V1 => KeyVersion::V1,
            QuicVersion::V2 => KeyVersion::V2,
        };
        InitialKeys(self.suite.keys(id, Side::Server, version).remote)
    }

    /// The frames of a packet. `None` for one that is no Initial, or was not sealed with these keys.
    pub fn open(&mut self, keys: &InitialKeys, header: &LongHeader<'_>, packet: &[u8]) -> Option<&[u8]> {
        if header.kind()?.1 != PacketType::Initial {
            return None;
        }
        let initial = header.initial()?;
        let (number_at, end) = (initial.number_at, initial.number_at + initial.length);
        let InitialKeys(keys) = keys;
        self.opened.clear();
        self.opened.extend_from_slice(packet.get(..end)?);
        let (head, protected) = self.opened.split_at_mut_checked(number_at)?;
        let (number, sampled) = protected.split_at_mut_checked(SAMPLE_AFTER)?;
        let sample = sampled.get(..keys.header.sample_len())?;
        keys.header.decrypt_in_place(sample, head.first_mut()?, number).ok()?;
        let length = usize::from(head.first()? & 3) + 1;
        let number = number.get(..length)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (head, payload) = self.opened.split_at_mut_checked(number_at + length)?;
        keys.packet.decrypt_in_place(number, head, payload).ok().map(|frames| frames as &[u8])
    }
}

#[cfg(test)]
pub(super) mod tests;

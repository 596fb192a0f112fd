//! Connection IDs of the gateway's own making: they lead a packet to the table and the connection that it belongs to, without a map.
//!
//! An ID is one block of AES-128: to others each ID of a connection looks unrelated to the rest (RFC 9000 §5.1), and what they make up leads to
//! nothing. Inside are the number of the table, the epoch of the process, the place of the connection in that table, the generation of that place,
//! and a number that makes IDs of one connection differ.
//!
//! A listener with a server ID puts it before the block, in the clear, and before it the first octet of the format of draft-ietf-quic-load-balancers-21, whose
//! nonce the block is then: so a balancer in front of several gateways sees which of them has the connection, and no more.

use std::fmt;
use std::ops::Deref;

use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use lb_io::udp::TableId;

/// Bytes of an ID without a server ID.
pub(crate) const LENGTH: usize = 16;

/// Bytes of a server ID at most: an ID has 20 at most in QUIC version 1 (RFC 9000 §17.2).
pub(crate) const MAX_SERVER_ID: usize = 3;

/// Bytes of an ID at most.
const MAX_LENGTH: usize = 1 + MAX_SERVER_ID + LENGTH;

/// An ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnId {
    bytes: [u8; MAX_LENGTH],
    length: usize,
}

impl Deref for OwnId {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// What an ID says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// The table that has the connection, and the process.
    pub(crate) table: TableId,
    /// The place in that table.
    pub(crate) place: u32,
    /// How many connections have had that place.
    pub(crate) generation: u32,
    /// Tells IDs of one connection apart.
    pub(crate) number: u32,
}

/// Makes and reads IDs. Instances with one key read each other's.
pub(crate) struct ConnectionIds {
    seal: EncryptingKey,
    open: DecryptingKey,
    /// What stands before the block.
    prefix: Vec<u8>,
}

/// Shows that there is a key, never which.
impl fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionIds")
    }
}

impl ConnectionIds {
    /// IDs under the first 16 bytes of a key, with a server ID of at most [`MAX_SERVER_ID`] bytes, or none.
    pub(crate) fn new(key: &[u8; 32], server: &[u8]) -> Option<Self> {
        let key = key.first_chunk::<16>()?;
        let mut prefix = Vec::new();
        if !server.is_empty() {
            // Configuration 0 of the draft, and the bytes that follow (§3.1).
            let behind = server.len().checked_add(LENGTH).filter(|behind| *behind < MAX_LENGTH)?;
            prefix.push(u8::try_from(behind).ok()?);
            prefix.extend_from_slice(server);
        }
        let unbound = || UnboundCipherKey::new(&AES_128, key).ok();
        // One block under one key, which nothing is chained to.
        let (seal, open) = (EncryptingKey::ecb(unbound()?).ok()?, DecryptingKey::ecb(unbound()?).ok()?);
        Some(Self { seal, open, prefix })
    }

    /// Bytes of each ID.
    pub(crate) fn length(&self) -> usize {
        self.prefix.len().saturating_add(LENGTH)
    }

    /// The ID that means this.
    pub(crate) fn make(&self, meaning: Meaning) -> Option<OwnId> {
        let Meaning { table: TableId { epoch, number: table }, place, generation, number } = meaning;
        let mut block = [0; LENGTH];
        let parts: [&[u8]; 5] = [
            &table.to_be_bytes(),
            &epoch.to_be_bytes(),
            &place.to_be_bytes(),
            &generation.to_be_bytes(),
            &number.to_be_bytes(),
        ];
        for (to, from) in block.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        self.seal.encrypt(&mut block).ok()?;
        let mut bytes = [0; MAX_LENGTH];
        for (to, from) in bytes.iter_mut().zip(self.prefix.iter().chain(&block)) {
            *to = *from;
        }
        Some(OwnId { bytes, length: self.length() })
    }

    /// What an ID means. An ID that was not made under this key means something as well, at random. `None` for one of another length.
    pub(crate) fn read(&self, id: &[u8]) -> Option<Meaning> {
        let mut block = <[u8; LENGTH]>::try_from(id.get(self.prefix.len()..)?).ok()?;
        self.open.decrypt(&mut block, DecryptionContext::None).ok()?;
        let number =
            |at: usize| block.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_be_bytes(*bytes));
        let short =
            |at: usize| block.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u16::from_be_bytes(*bytes));
        Some(Meaning {
            table: TableId { number: short(0)?, epoch: short(2)? },
            place: number(4)?,
            generation: number(8)?,
            number: number(12)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use lb_core::quic::routable::Format;

    use super::*;
    use crate::passthrough::Aes128;

    #[test]
    fn ids_mean_what_they_were_made_of_and_look_unrelated() {
        let ids = ConnectionIds::new(&[7; 32], &[]).unwrap();
        let meaning =
            Meaning { table: TableId { number: 3, epoch: 9 }, place: 77, generation: 0x0102_0304, number: 5 };
        let id = ids.make(meaning).unwrap();
        assert_eq!(ids.read(&id), Some(meaning));
        assert_eq!(ConnectionIds::new(&[7; 32], &[]).unwrap().read(&id), Some(meaning), "another instance");
        let next = ids.make(Meaning { number: 6, ..meaning }).unwrap();
        let alike = id.iter().zip(next.iter()).filter(|(one, other)| one == other).count();
        assert!(alike < 6, "{id:?} {next:?}");
        assert_ne!(ConnectionIds::new(&[8; 32], &[]).unwrap().read(&id), Some(meaning));
        assert_eq!(ids.read(&id[..15]), None);
    }

    #[test]
    fn a_server_id_stands_in_the_clear_where_balancers_look_for_it() {
        let meaning =
            Meaning { table: TableId { number: 3, epoch: 9 }, place: 77, generation: 0x0102_0304, number: 5 };
        let plain = ConnectionIds::new(&[7; 32], &[]).unwrap().make(meaning).unwrap();
        for server in [&[0x0a][..], &[0x0a, 0x1b], &[1, 2, 3]] {
            let ids = ConnectionIds::new(&[7; 32], server).unwrap();
            let id = ids.make(meaning).unwrap();
            assert_eq!((id.len(), ids.length()), (17 + server.len(), 17 + server.len()));
            let format = Format::new(0, server.len(), LENGTH).unwrap();
            assert_eq!(format.id_length(), id.len());
            assert_eq!(format.server(&id, None::<&Aes128>).unwrap().as_bytes(), server);
            assert_eq!(id[1 + server.len()..], plain[..], "the rest is as without");
            assert_eq!(ids.read(&id), Some(meaning));
            assert_eq!(ids.read(&plain), None);
        }
        assert!(ConnectionIds::new(&[7; 32], &[1, 2, 3, 4]).is_none());
    }

    #[test]
    fn what_others_make_up_leads_to_no_connection() {
        let ids = ConnectionIds::new(&[7; 32], &[]).unwrap();
        let hits = (0..10_000u32).filter(|number| {
            let mut id = [0; LENGTH];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let meaning = ids.read(&id).unwrap();
            meaning.table.number < 64 && meaning.place < 100_000
        });
        assert_eq!(hits.count(), 0);
    }
}

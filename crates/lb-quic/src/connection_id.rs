//! Connection IDs of the gateway's own making: they lead a packet to the table and the connection that it belongs to, without a map.
//!
//! An ID is one block of AES-128: to others each ID of a connection looks unrelated to the rest (RFC 9000 §5.1), and what they make up leads to
//! nothing. Inside are the number of the table, the epoch of the process, the place of the connection in that table, the generation of that place,
//! and a number that makes IDs of one connection differ.

use std::fmt;

use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use lb_io::udp::TableId;

/// Bytes of an ID.
pub(crate) const LENGTH: usize = 16;

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
}

/// Shows that there is a key, never which.
impl fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionIds")
    }
}

impl ConnectionIds {
    /// IDs under the first 16 bytes of a key.
    pub(crate) fn new(key: &[u8; 32]) -> Option<Self> {
        let key = key.first_chunk::<16>()?;
        let unbound = || UnboundCipherKey::new(&AES_128, key).ok();
        // One block under one key, which nothing is chained to.
        Some(Self { seal: EncryptingKey::ecb(unbound()?).ok()?, open: DecryptingKey::ecb(unbound()?).ok()? })
    }

    /// The ID that means this.
    pub(crate) fn make(&self, meaning: Meaning) -> Option<[u8; LENGTH]> {
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
        Some(block)
    }

    /// What an ID means. An ID that was not made under this key means something as well, at random.
    pub(crate) fn read(&self, id: &[u8]) -> Option<Meaning> {
        let mut block = *id.first_chunk::<LENGTH>()?;
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
    use super::*;

    #[test]
    fn ids_mean_what_they_were_made_of_and_look_unrelated() {
        let ids = ConnectionIds::new(&[7; 32]).unwrap();
        let meaning =
            Meaning { table: TableId { number: 3, epoch: 9 }, place: 77, generation: 0x0102_0304, number: 5 };
        let id = ids.make(meaning).unwrap();
        assert_eq!(ids.read(&id), Some(meaning));
        assert_eq!(ConnectionIds::new(&[7; 32]).unwrap().read(&id), Some(meaning), "another instance");
        let next = ids.make(Meaning { number: 6, ..meaning }).unwrap();
        let alike = id.iter().zip(next).filter(|(one, other)| **one == *other).count();
        assert!(alike < 6, "{id:?} {next:?}");
        assert_ne!(ConnectionIds::new(&[8; 32]).unwrap().read(&id), Some(meaning));
        assert_eq!(ids.read(&id[..15]), None);
    }

    #[test]
    fn what_others_make_up_leads_to_no_connection() {
        let ids = ConnectionIds::new(&[7; 32]).unwrap();
        let hits = (0..10_000u32).filter(|number| {
            let mut id = [0; LENGTH];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let meaning = ids.read(&id).unwrap();
            meaning.table.number < 64 && meaning.place < 100_000
        });
        assert_eq!(hits.count(), 0);
    }
}

//! Connection IDs that name their server: draft-ietf-quic-load-balancers-21.
//!
//! Servers that make their IDs by a [`Format`] which the gateway has too put a server ID and a nonce into each of them, in the clear or
//! encrypted. So the gateway finds the backend of an ID that it has never seen, such as one from a NEW_CONNECTION_ID frame, which is
//! encrypted. With a key no client can make an ID that names a backend of its choice: a forged ID decrypts to a number by chance, which
//! is that of a backend as rarely as server IDs are long.

use super::{ConnectionId, MAX_CONNECTION_ID};

/// AES-128 on one block, under one key.
pub trait BlockCipher {
    /// Encrypts the block in place.
    fn encrypt(&self, block: &mut [u8; 16]);
    /// Decrypts the block in place.
    fn decrypt(&self, block: &mut [u8; 16]);
}

/// How servers make their connection IDs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Format {
    rotation: u8,
    server_id: u8,
    nonce: u8,
}

/// Why there is no such format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormatError {
    /// The configuration's number is not 0 to 6.
    Rotation,
    /// A server ID has 1 to 15 bytes.
    ServerId,
    /// A nonce has at least 4 bytes, and server ID and nonce have at most 19 together.
    Nonce,
}

/// A server ID: 1 to 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServerId {
    bytes: [u8; 15],
    length: u8,
}

impl ServerId {
    /// A server ID of these bytes.
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; 15];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        let length = u8::try_from(id.len()).ok().filter(|length| *length > 0)?;
        Some(Self { bytes, length })
    }

    /// The bytes of the ID.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Format {
    /// The format with these config rotation bits, and so many bytes of server ID and nonce.
    ///
    /// # Errors
    /// When the draft (§4) does not allow one of them.
    pub fn new(rotation: u8, server_id: usize, nonce: usize) -> Result<Self, FormatError> {
        if rotation > 6 {
            return Err(FormatError::Rotation);
        }
        if !(1..=15).contains(&server_id) {
            return Err(FormatError::ServerId);
        }
        if nonce < 4 || server_id + nonce >= MAX_CONNECTION_ID {
            return Err(FormatError::Nonce);
        }
        let small = |number| u8::try_from(number).unwrap_or(u8::MAX);
        Ok(Self { rotation, server_id: small(server_id), nonce: small(nonce) })
    }

    /// The bytes of an ID of this format.
    pub fn id_length(self) -> usize {
        1 + self.plain_length()
    }

    /// The server that has made the connection ID which `bytes` begin with. `None` when it is of another format.
    pub fn server(self, bytes: &[u8], cipher: Option<&impl BlockCipher>) -> Option<ServerId> {
        let (first, rest) = bytes.split_first()?;
        if first >> 5 != self.rotation {
            return None;
        }
        let mut plain = [0; MAX_CONNECTION_ID];
        let plain = plain.get_mut(..self.plain_length())?;
        plain.copy_from_slice(rest.get(..self.plain_length())?);
        if let Some(cipher) = cipher {
            match <&mut [u8; 16]>::try_from(&mut *plain) {
                Ok(block) => cipher.decrypt(block),
                Err(_) => passes(plain, cipher, [4, 3, 2, 1]),
            }
        }
        ServerId::new(plain.get(..usize::from(self.server_id))?)
    }

    /// A connection ID that names this server, with the length of the ID in its first byte. `None` when server ID or nonce have another
    /// length than in this format.
    pub fn make(
        self,
        server: &[u8],
        nonce: &[u8],
        cipher: Option<&impl BlockCipher>,
    ) -> Option<ConnectionId> {
        if server.len() != usize::from(self.server_id) || nonce.len() != usize::from(self.nonce) {
            return None;
        }
        let mut id = [0; MAX_CONNECTION_ID];
        let id = id.get_mut(..self.id_length())?;
        let (first, plain) = id.split_first_mut()?;
        *first = self.rotation << 5 | u8::try_from(plain.len()).ok()?;
        let (of_server, of_nonce) = plain.split_at_mut_checked(server.len())?;
        of_server.copy_from_slice(server);
        of_nonce.copy_from_slice(nonce);
        if let Some(cipher) = cipher {
            match <&mut [u8; 16]>::try_from(&mut *plain) {
                Ok(block) => cipher.encrypt(block),
                Err(_) => passes(plain, cipher, [1, 2, 3, 4]),
            }
        }
        ConnectionId::new(id)
    }

    fn plain_length(self) -> usize {
        usize::from(self.server_id) + usize::from(self.nonce)
    }
}

/// The four passes of a Feistel network over both halves (§5.4.2): each encrypts one half to cover the other. The middle byte of an odd
/// number of bytes is split between the halves.
fn passes(text: &mut [u8], cipher: &impl BlockCipher, order: [u8; 4]) {
    let length = text.len();
    let half = length.div_ceil(2);
    let is_odd = length % 2 == 1;
    let mut left = [0u8; 16];
    let mut right = [0u8; 16];
    for (to, from) in left.iter_mut().zip(text.iter().take(half)) {
        *to = *from;
    }
    for (to, from) in right.iter_mut().zip(text.iter().skip(length - half)) {
        *to = *from;
    }
    let clear = |left: &mut [u8; 16], right: &mut [u8; 16]| {
        if is_odd {
            if let Some(last) = left.get_mut(half - 1) {
                *last &= 0xf0;
            }
            if let Some(first) = right.first_mut() {
                *first &= 0x0f;
            }
        }
    };
    clear(&mut left, &mut right);
    for pass in order {
        let (from, onto) = if pass % 2 == 1 { (&left, &mut right) } else { (&right, &mut left) };
        let mut block = *from;
        let [.., of_length, of_pass] = &mut block;
        *of_length = u8::try_from(length).unwrap_or_default();
        *of_pass = pass;
        cipher.encrypt(&mut block);
        for (byte, cover) in onto.iter_mut().zip(block).take(half) {
            *byte ^= cover;
        }
        clear(&mut left, &mut right);
    }
    // The halves of a split byte do not overlap in their bits.
    text.fill(0);
    for (to, from) in text.iter_mut().zip(left).take(half) {
        *to |= from;
    }
    for (to, from) in text.iter_mut().skip(length - half).zip(right) {
        *to |= from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A permutation of blocks with a key. AES itself is tested where it is to be had, with the vectors of the draft.
    struct Toy(u8);

    impl BlockCipher for Toy {
        fn encrypt(&self, block: &mut [u8; 16]) {
            for round in 0..16u8 {
                block.rotate_left(1);
                let [first, second, ..] = block;
                *first = first.wrapping_mul(13).wrapping_add(*second ^ self.0 ^ round);
            }
        }

        fn decrypt(&self, block: &mut [u8; 16]) {
            for round in (0..16u8).rev() {
                let [first, second, ..] = block;
                // 197 × 13 = 1 (mod 256).
                *first = first.wrapping_sub(*second ^ self.0 ^ round).wrapping_mul(197);
                block.rotate_right(1);
            }
        }
    }

    #[test]
    fn plain_ids_are_those_of_the_draft() {
        let format = Format::new(0, 3, 4).unwrap();
        let id = [0x07, 0xc4, 0x60, 0x5e, 0x45, 0x04, 0xcc, 0x4f];
        let made = format.make(&id[1..4], &id[4..], None::<&Toy>).unwrap();
        assert_eq!(made.as_bytes(), id);
        assert_eq!(format.server(&id, None::<&Toy>), ServerId::new(&[0xc4, 0x60, 0x5e]));
    }

    #[test]
    fn formats_are_bounded_and_other_formats_are_passed_over() {
        assert_eq!(Format::new(7, 3, 4), Err(FormatError::Rotation));
        assert_eq!(Format::new(0, 0, 8), Err(FormatError::ServerId));
        assert_eq!(Format::new(0, 16, 4), Err(FormatError::ServerId));
        assert_eq!(Format::new(0, 3, 3), Err(FormatError::Nonce));
        assert_eq!(Format::new(0, 15, 5), Err(FormatError::Nonce));
        assert!(Format::new(6, 15, 4).is_ok());
        let format = Format::new(2, 2, 6).unwrap();
        let id = format.make(&[1, 2], &[3; 6], Some(&Toy(9))).unwrap();
        assert!(format.server(id.as_bytes(), Some(&Toy(9))).is_some());
        assert_eq!(format.server(&id.as_bytes()[..8], Some(&Toy(9))), None, "too short");
        assert_eq!(Format::new(3, 2, 6).unwrap().server(id.as_bytes(), Some(&Toy(9))), None);
        assert_eq!(format.make(&[1], &[3; 6], Some(&Toy(9))), None);
    }

    proptest! {
        #[test]
        fn what_is_made_names_its_server_and_hides_it(
            rotation in 0u8..7, server in 1usize..=15, nonce in 4usize..=18, key: u8, seed: u64,
        ) {
            let Ok(format) = Format::new(rotation, server, nonce) else { return Ok(()) };
            let mut rng = crate::rng::SplitMix64::new(seed);
            let text: Vec<u8> = (0..server + nonce).map(|_| rng.next_u64().to_be_bytes()[0]).collect();
            let (server, nonce) = text.split_at(server);
            let id = format.make(server, nonce, Some(&Toy(key))).unwrap();
            prop_assert_eq!(id.len(), format.id_length());
            // A short header goes on after the ID.
            let packet = [id.as_bytes(), &[1, 2, 3]].concat();
            prop_assert_eq!(format.server(&packet, Some(&Toy(key))), ServerId::new(server));
            let plain = format.make(server, nonce, None::<&Toy>).unwrap();
            prop_assert_eq!(format.server(plain.as_bytes(), None::<&Toy>), ServerId::new(server));
        }

        #[test]
        fn whatever_arrives_is_decoded_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..30), server in 1usize..=15, nonce in 4usize..=18,
        ) {
            if let Ok(format) = Format::new(bytes.len() as u8 % 7, server, nonce) {
                let _ = format.server(&bytes, Some(&Toy(1)));
            }
        }
    }
}

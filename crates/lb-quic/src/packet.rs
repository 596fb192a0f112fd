//! What a datagram says before it is decrypted (RFC 8999, RFC 9000 §17), as far as it leads to a connection.

/// Bytes of a connection ID at most in QUIC version 1.
const MAX_ID: usize = 20;

/// The start of the first packet in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start<'a> {
    /// A packet of an established connection, to an ID of ours.
    Short {
        /// Its destination connection ID.
        to: &'a [u8],
    },
    /// A packet with the version in it.
    Long {
        /// The version.
        version: u32,
        /// Whether it is an Initial packet, in version 1.
        is_initial: bool,
        /// The destination connection ID.
        to: &'a [u8],
        /// The source connection ID.
        from: &'a [u8],
        /// The token of an Initial packet.
        token: &'a [u8],
    },
}

impl<'a> Start<'a> {
    /// Reads the start of a datagram to an endpoint whose IDs have so many bytes. `None` for what is no packet of QUIC.
    pub(crate) fn read(datagram: &'a [u8], id_length: usize) -> Option<Self> {
        let (first, rest) = datagram.split_first()?;
        if first & 0x80 == 0 {
            // The fixed bit (RFC 9000 §17.3.1).
            let to = rest.get(..id_length).filter(|_| first & 0x40 != 0)?;
            return Some(Self::Short { to });
        }
        let (version, rest) = rest.split_first_chunk()?;
        let version = u32::from_be_bytes(*version);
        let (to, rest) = id(rest)?;
        let (from, rest) = id(rest)?;
        let is_initial = version == 1 && first & 0x30 == 0;
        let token = if is_initial { token(rest)? } else { &[] };
        Some(Self::Long { version, is_initial, to, from, token })
    }
}

fn id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length);
    rest.split_at_checked(length).filter(|_| length <= MAX_ID)
}

/// A length as a variable-length integer (RFC 9000 §16), and so many bytes.
fn token(bytes: &[u8]) -> Option<&[u8]> {
    let first = *bytes.first()?;
    let width = 1usize << (first >> 6);
    let number = bytes.get(..width)?.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    // The two bits that say how long it is are no part of it.
    let length = number & (u64::MAX >> (64 - 8 * width + 2));
    bytes.get(width..)?.get(..usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_parts_of_an_initial_are_found() {
        let mut datagram = vec![0xc3, 0, 0, 0, 1, 3, 1, 2, 3, 2, 8, 9, 0x40, 5];
        datagram.extend_from_slice(b"token and the rest");
        let start = Start::read(&datagram, 16).unwrap();
        let expected =
            Start::Long { version: 1, is_initial: true, to: &[1, 2, 3], from: &[8, 9], token: b"token" };
        assert_eq!(start, expected);
        for length in 0..19 {
            assert_eq!(Start::read(&datagram[..length], 16), None, "{length}");
        }
        datagram[0] = 0xe3;
        assert!(matches!(
            Start::read(&datagram, 16),
            Some(Start::Long { is_initial: false, token: &[], .. })
        ));
    }

    #[test]
    fn q_02_ids_of_more_than_20_bytes_are_refused() {
        let mut datagram = vec![0xc3, 0, 0, 0, 1, 21];
        datagram.resize(100, 0);
        assert_eq!(Start::read(&datagram, 16), None);
        datagram[5] = 20;
        assert!(Start::read(&datagram, 16).is_some());
    }

    #[test]
    fn a_short_header_has_an_id_of_ours_behind_it() {
        let mut datagram = vec![0x41; 17];
        assert_eq!(Start::read(&datagram, 16), Some(Start::Short { to: &[0x41; 16] }));
        assert_eq!(Start::read(&datagram[..16], 16), None);
        datagram[0] = 0x01;
        assert_eq!(Start::read(&datagram, 16), None, "without the fixed bit");
    }

    proptest! {
        #[test]
        fn q_02_any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Start::read(&bytes, 16);
        }
    }
}

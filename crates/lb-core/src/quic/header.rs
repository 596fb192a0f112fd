//! The header of a QUIC packet without its protection.
//!
//! [`Header::parse`] reads what is the same in all versions (RFC 8999 §5): the form, the version and both connection IDs of a long header.
//! The bit that versions 1 and 2 fix is not looked at, since endpoints may agree to change it (RFC 9287). What a long header says beyond
//! that is read for the versions in [`QuicVersion`]: the type of the packet, the token of an Initial, and where the packet ends, so that the
//! packets that share a datagram can be told apart.

use super::MAX_CONNECTION_ID;

/// The bytes that a datagram with an Initial has at least, whoever sends it (RFC 9000 §14.1).
pub const MIN_INITIAL_DATAGRAM: usize = 1200;

/// The header of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header<'a> {
    /// A long header, which says how long its connection IDs are.
    Long(LongHeader<'a>),
    /// A short header. The destination connection ID begins these bytes, and only its maker can tell how long it is.
    Short(&'a [u8]),
}

/// The fields of a long header that all versions have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongHeader<'a> {
    /// The first byte of the packet.
    pub first: u8,
    /// The version; 0 in a Version Negotiation packet.
    pub version: u32,
    /// The destination connection ID.
    pub dcid: &'a [u8],
    /// The source connection ID.
    pub scid: &'a [u8],
    /// What follows.
    pub rest: &'a [u8],
}

/// Why bytes are no QUIC packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The bytes end inside the header.
    Truncated,
    /// A version whose IDs have at most 20 bytes has a longer one.
    LongId,
}

/// A version of QUIC whose long headers are understood.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QuicVersion {
    /// RFC 9000.
    V1,
    /// RFC 9369.
    V2,
}

/// The type of a packet with a long header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketType {
    /// The first packets of a handshake.
    Initial,
    /// Early data.
    ZeroRtt,
    /// Later packets of a handshake.
    Handshake,
    /// A server's demand to come again with a token.
    Retry,
}

/// What an Initial says before its protected part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Initial<'a> {
    /// The token, empty where there is none.
    pub token: &'a [u8],
    /// Where the packet number begins, counted from the first byte of the packet.
    pub number_at: usize,
    /// The bytes of packet number and payload.
    pub length: usize,
}

impl<'a> Header<'a> {
    /// Reads the header of the packet at the beginning of `bytes`.
    ///
    /// # Errors
    /// When that is no packet.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HeaderError> {
        let (&first, rest) = bytes.split_first().ok_or(HeaderError::Truncated)?;
        if first & 0x80 == 0 {
            return Ok(Self::Short(rest));
        }
        let (version, rest) = rest.split_first_chunk().ok_or(HeaderError::Truncated)?;
        let version = u32::from_be_bytes(*version);
        let (dcid, rest) = id(rest).ok_or(HeaderError::Truncated)?;
        let (scid, rest) = id(rest).ok_or(HeaderError::Truncated)?;
        let is_long = dcid.len() > MAX_CONNECTION_ID || scid.len() > MAX_CONNECTION_ID;
        if is_long && QuicVersion::from_wire(version).is_some() {
            return Err(HeaderError::LongId);
        }
        Ok(Self::Long(LongHeader { first, version, dcid, scid, rest }))
    }
}

impl<'a> LongHeader<'a> {
    /// Whether it is a Version Negotiation packet (RFC 8999 §6).
    pub fn is_negotiation(&self) -> bool {
        self.version == 0
    }

    /// QuicVersion and type of the packet, if the version is understood.
    #[inline]
    pub fn kind(&self) -> Option<(QuicVersion, PacketType)> {
        let version = QuicVersion::from_wire(self.version)?;
        Some((version, version.packet_type(self.first)))
    }

    /// Reads on in an Initial. `None` when its fields do not fit into the packet.
    pub fn initial(&self) -> Option<Initial<'a>> {
        let before = 7 + self.dcid.len() + self.scid.len();
        let (length, rest) = variable(self.rest)?;
        let (token, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let (length, packet) = variable(after)?;
        let length = usize::try_from(length).ok()?;
        let number_at = before + self.rest.len() - packet.len();
        (length <= packet.len()).then_some(Initial { token, number_at, length })
    }

    /// The bytes of the whole packet, from its first byte on; `None` when its fields do not fit. The packets of unknown versions, Retry and
    /// Version Negotiation take the rest of their datagram.
    fn packet_length(&self) -> Option<usize> {
        let whole = 7 + self.dcid.len() + self.scid.len() + self.rest.len();
        let after = match self.kind() {
            None | Some((_, PacketType::Retry)) => return Some(whole),
            Some((_, PacketType::Initial)) => {
                let initial = self.initial()?;
                return initial.number_at.checked_add(initial.length);
            }
            Some((_, PacketType::ZeroRtt | PacketType::Handshake)) => self.rest,
        };
        let (length, rest) = variable(after)?;
        let length = usize::try_from(length).ok()?;
        (length <= rest.len()).then_some(whole - rest.len() + length)
    }
}

impl QuicVersion {
    /// The version of this number.
    #[inline]
    pub fn from_wire(version: u32) -> Option<Self> {
        match version {
            1 => Some(Self::V1),
            0x6b33_43cf => Some(Self::V2),
            _ => None,
        }
    }

    /// The number of the version.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 0x6b33_43cf,
        }
    }

    /// The type of a packet with a long header, by its first byte (RFC 9000 §17.2, RFC 9369 §3.2).
    #[inline]
    pub fn packet_type(self, first: u8) -> PacketType {
        let number = (first >> 4) & 3;
        let number = match self {
            Self::V1 => number,
            Self::V2 => number.wrapping_sub(1) & 3,
        };
        match number {
            0 => PacketType::Initial,
            1 => PacketType::ZeroRtt,
            2 => PacketType::Handshake,
            _ => PacketType::Retry,
        }
    }

    /// The bits of the first byte that tell this type of packet.
    pub fn type_bits(self, kind: PacketType) -> u8 {
        let number = match kind {
            PacketType::Initial => 0u8,
            PacketType::ZeroRtt => 1,
            PacketType::Handshake => 2,
            PacketType::Retry => 3,
        };
        match self {
            Self::V1 => number << 4,
            Self::V2 => (number.wrapping_add(1) & 3) << 4,
        }
    }
}

/// The packets with a long header that a datagram begins with, each with all of its bytes (RFC 9000 §12.2). Ends before what is no such
/// packet.
pub fn packets(datagram: &[u8]) -> impl Iterator<Item = (LongHeader<'_>, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let Ok(Header::Long(header)) = Header::parse(rest) else { return None };
        let (packet, after) = rest.split_at_checked(header.packet_length()?)?;
        rest = after;
        Some((header, packet))
    })
}

/// A variable-length integer (RFC 9000 §16), and what follows.
#[inline]
pub fn variable(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (number, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let value = number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some((value & (u64::MAX >> (66 - 8 * number.len())), rest))
}

/// A connection ID behind its length, and what follows.
#[inline]
fn id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long(first: u8, version: u32, dcid: &[u8], scid: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![first];
        packet.extend(version.to_be_bytes());
        for id in [dcid, scid] {
            packet.push(u8::try_from(id.len()).unwrap());
            packet.extend(id);
        }
        packet.extend(rest);
        packet
    }

    #[test]
    fn variable_integers_are_those_of_the_rfc() {
        let cases: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in cases {
            assert_eq!(variable(bytes), Some((value, &[][..])));
            assert_eq!(variable(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn types_are_those_of_each_version() {
        let kinds = [PacketType::Initial, PacketType::ZeroRtt, PacketType::Handshake, PacketType::Retry];
        for version in [QuicVersion::V1, QuicVersion::V2] {
            assert_eq!(QuicVersion::from_wire(version.to_wire()), Some(version));
            for kind in kinds {
                assert_eq!(version.packet_type(0xc0 | version.type_bits(kind)), kind);
            }
        }
        assert_eq!(QuicVersion::V1.packet_type(0xc0), PacketType::Initial);
        assert_eq!(QuicVersion::V2.packet_type(0xd0), PacketType::Initial, "RFC 9369 §3.2");
        assert_eq!(QuicVersion::V2.packet_type(0xc0), PacketType::Retry);
    }

    #[test]
    fn packets_of_one_datagram_are_told_apart() {
        let initial = long(0xc0, 1, b"dddddddd", b"ss", &[2, 0xaa, 0xbb, 3, 1, 2, 3]);
        let handshake = long(0xe0, 1, b"dddddddd", b"ss", &[0x40, 4, 9, 9, 9, 9]);
        let datagram = [&initial[..], &handshake, &[0x40, 1, 2, 3]].concat();
        let found: Vec<_> = packets(&datagram).collect();
        assert_eq!(found.len(), 2, "the short header ends the series");
        assert_eq!((found[0].1, found[1].1), (&initial[..], &handshake[..]));
        let (header, packet) = found[0];
        let Initial { token, number_at, length } = header.initial().unwrap();
        assert_eq!((token, &packet[number_at..number_at + length]), (&[0xaa, 0xbb][..], &[1, 2, 3][..]));
        assert_eq!((header.dcid, header.scid), (&b"dddddddd"[..], &b"ss"[..]));
    }

    #[test]
    fn long_ids_are_for_unknown_versions_alone() {
        let of = |version| long(0xc0, version, &[1; 21], &[], &[0]);
        assert_eq!(Header::parse(&of(1)), Err(HeaderError::LongId));
        let unknown = of(0x1a2a_3a4a);
        let Ok(Header::Long(header)) = Header::parse(&unknown) else { panic!("{unknown:?}") };
        assert_eq!((header.dcid.len(), header.kind()), (21, None));
        assert_eq!(packets(&unknown).map(|(_, packet)| packet.len()).sum::<usize>(), unknown.len());
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written_and_no_prefix_of_it_is_more(
            first in 0x80u8..,
            version in prop_oneof![Just(1u32), Just(0x6b33_43cf), any::<u32>()],
            dcid in prop::collection::vec(any::<u8>(), 0..=20),
            scid in prop::collection::vec(any::<u8>(), 0..=20),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let packet = long(first, version, &dcid, &scid, &rest);
            let header = LongHeader { first, version, dcid: &dcid, scid: &scid, rest: &rest };
            prop_assert_eq!(Header::parse(&packet), Ok(Header::Long(header)));
            for end in 0..packet.len() - rest.len() {
                prop_assert_eq!(Header::parse(&packet[..end]), Err(HeaderError::Truncated));
            }
        }

        #[test]
        fn whatever_arrives_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut seen = 0;
            for (header, packet) in packets(&bytes) {
                prop_assert!(!packet.is_empty());
                seen += packet.len();
                if let Some(Initial { number_at, length, .. }) = header.initial() {
                    prop_assert!(bytes.get(number_at..number_at + length).is_some());
                }
            }
            prop_assert!(seen <= bytes.len());
            if let Ok(Header::Short(rest)) = Header::parse(&bytes) {
                prop_assert_eq!(rest, &bytes[1..]);
            }
        }
    }
}

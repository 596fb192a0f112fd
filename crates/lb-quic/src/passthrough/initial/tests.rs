use lb_core::quic::header::{Header, packets};
use proptest::prelude::*;

use super::*;
use crate::passthrough::hello::{HelloReader, ServerName};

pub(in crate::passthrough) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The CRYPTO frame of RFC 9001 §A.2.
pub(in crate::passthrough) const FRAME: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868\
    04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578\
    616d706c652e636f6dff01000100000a00080006001d00170018001000070005\
    04616c706e000500050100000000003300260024001d00209370b2c9caa47fba\
    baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400\
    0d0010000e0403050306030203080408050806002d00020101001c0002400100\
    3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000\
    75300901100f088394c8f03e51570806048000ffff";

const ID: &str = "8394c8f03e515708";

/// A client's Initial with these frames, as a client seals it.
pub(in crate::passthrough) fn seal(version: QuicVersion, id: &[u8], number: u32, frames: &[u8]) -> Vec<u8> {
    let wire = match version {
        QuicVersion::V1 => KeyVersion::V1,
        QuicVersion::V2 => KeyVersion::V2,
    };
    let keys = InitialReader::new().unwrap().suite.keys(id, Side::Client, wire).local;
    let mut packet = vec![0xc3 | version.type_bits(PacketType::Initial)];
    packet.extend(version.to_wire().to_be_bytes());
    packet.push(u8::try_from(id.len()).unwrap());
    packet.extend(id);
    packet.extend([0, 0]);
    packet.extend((0x4000 | u16::try_from(frames.len() + 4 + 16).unwrap()).to_be_bytes());
    let number_at = packet.len();
    packet.extend(number.to_be_bytes());
    let mut payload = frames.to_vec();
    let tag = keys.packet.encrypt_in_place(number.into(), &packet, &mut payload).unwrap();
    packet.extend(payload);
    packet.extend(tag.as_ref());
    let (head, sealed) = packet.split_at_mut(number_at + 4);
    let (first, rest) = head.split_first_mut().unwrap();
    keys.header.encrypt_in_place(&sealed[..16], first, &mut rest[number_at - 1..]).unwrap();
    packet
}

fn name_in(datagram: &[u8], version: QuicVersion, id: &[u8]) -> Option<ServerName> {
    let mut reader = InitialReader::new().unwrap();
    let keys = reader.keys(version, id);
    let (header, packet) = packets(datagram).next()?;
    let mut hello = HelloReader::default();
    hello.take(reader.open(&keys, &header, packet)?).unwrap();
    Some(hello.server_name())
}

#[test]
fn packets_of_the_rfcs_are_opened() {
    let frames = [hex(FRAME), vec![0; 917]].concat();
    let v1 = seal(QuicVersion::V1, &hex(ID), 2, &frames);
    // RFC 9001 §A.2: the beginning and the end of the packet.
    assert!(
        v1.starts_with(&hex("c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b"))
    );
    assert!(v1.ends_with(&hex("e221af44860018ab0856972e194cd934")));
    let v2 = seal(QuicVersion::V2, &hex(ID), 2, &frames);
    // RFC 9369 §A.2.
    assert!(v2.starts_with(&hex("d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485")));
    for (version, packet) in [(QuicVersion::V1, v1), (QuicVersion::V2, v2)] {
        let name = ServerName::Named("example.com".to_owned());
        assert_eq!(name_in(&packet, version, &hex(ID)), Some(name));
        assert_eq!(name_in(&packet, version, b"another"), None, "not sealed with these keys");
        let mut changed = packet.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(name_in(&changed, version, &hex(ID)), None);
    }
}

#[test]
fn other_packets_are_passed_over() {
    let packet = seal(QuicVersion::V1, b"12345678", 0, &hex(FRAME));
    let mut reader = InitialReader::new().unwrap();
    let keys = reader.keys(QuicVersion::V1, b"12345678");
    let Ok(Header::Long(mut header)) = Header::parse(&packet) else { panic!() };
    assert!(reader.open(&keys, &header, &packet).is_some());
    assert!(reader.open(&keys, &header, &packet[..30]).is_none());
    header.first |= 0x20;
    assert!(reader.open(&keys, &header, &packet).is_none(), "a Handshake packet");
}

proptest! {
    #[test]
    fn no_datagram_does_harm(
        mut datagram in prop::collection::vec(any::<u8>(), 0..300), keep in 0usize..300, flip: bool,
    ) {
        // Half of the datagrams begin as real ones do.
        if flip {
            let real = seal(QuicVersion::V1, b"12345678", 0, &hex(FRAME));
            let keep = keep.min(real.len());
            datagram = [&real[..keep], &datagram].concat();
        }
        let mut reader = InitialReader::new().unwrap();
        let keys = reader.keys(QuicVersion::V1, b"12345678");
        for (header, packet) in packets(&datagram) {
            let _ = reader.open(&keys, &header, packet);
        }
    }
}

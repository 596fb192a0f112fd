//! Retry packets (RFC 9000 §17.2.5).

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lb_core::quic::header::{PacketType, QuicVersion};

/// The Retry that answers an Initial from a client whose source connection ID is `client_id`, and whose destination connection ID is
/// `original_id`: it has the client come again with `token` and the destination connection ID `retry_id`. `unused` fills bits of no meaning.
pub fn packet(
    version: QuicVersion,
    (client_id, original_id, retry_id): (&[u8], &[u8], &[u8]),
    token: &[u8],
    unused: u8,
) -> Option<Vec<u8>> {
    let mut packet = vec![0xc0 | version.type_bits(PacketType::Retry) | unused & 0x0f];
    packet.extend(version.to_wire().to_be_bytes());
    for id in [client_id, retry_id] {
        packet.push(u8::try_from(id.len()).ok()?);
        packet.extend(id);
    }
    packet.extend(token);
    let mut covered = vec![u8::try_from(original_id.len()).ok()?];
    covered.extend(original_id);
    covered.extend(&packet);
    packet.extend(tag(version, &covered)?);
    Some(packet)
}

/// The tag that shows that whoever has made the Retry has seen the Initial (RFC 9001 §5.8, RFC 9369 §3.3.3).
fn tag(version: QuicVersion, covered: &[u8]) -> Option<[u8; 16]> {
    let (key, nonce): ([u8; 16], [u8; 12]) = match version {
        QuicVersion::V1 => (
            0xbe0c_690b_9f66_575a_1d76_6b54_e368_c84e_u128.to_be_bytes(),
            [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb],
        ),
        QuicVersion::V2 => (
            0x8fb4_b01b_56ac_48e2_60fb_cbce_ad7c_cc92_u128.to_be_bytes(),
            [0xd8, 0x69, 0x69, 0xbc, 0x2d, 0x7c, 0x6d, 0x99, 0x90, 0xef, 0xb0, 0x4a],
        ),
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(covered), &mut []).ok()?;
    tag.as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn retries_are_those_of_the_rfcs() {
        let original = hex("8394c8f03e515708");
        let retry = hex("f067a5502a4262b5");
        // RFC 9001 §A.4, RFC 9369 §A.4.
        let v1 = hex("ff000000010008f067a5502a4262b574 6f6b656e04a265ba2eff4d829058fb3f 0f2496ba");
        let v2 = hex("cf6b3343cf0008f067a5502a4262b574 6f6b656ec8646ce8bfe33952d9555436 65dcc7b6");
        for (version, expected) in [(QuicVersion::V1, v1), (QuicVersion::V2, v2)] {
            let made = packet(version, (&[], &original, &retry), b"token", 0x0f).unwrap();
            assert_eq!(made, expected, "{version:?}");
        }
    }
}

//! Hashes for keys and identities that are the same on every machine and in every version: XXH64 with seed 0.
//!
//! They are no secret: a client that can choose a key can choose the member that gets it, here as with every balancer whose instances agree
//! without talking to each other. Bounded load (`balance_factor`) limits what that gains.

use std::net::IpAddr;

use crate::address::ClientAddress;

/// The hash of bytes: a key, or the address that makes a member's identity.
pub fn bytes(input: &[u8]) -> u64 {
    let mut rest = input;
    let mut hash = if rest.len() >= 32 {
        let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0u64.wrapping_sub(PRIME_1)];
        while rest.len() >= 32 {
            for lane in &mut lanes {
                if let Some((word, after)) = rest.split_first_chunk() {
                    *lane = round(*lane, u64::from_le_bytes(*word));
                    rest = after;
                }
            }
        }
        let [one, two, three, four] = lanes;
        let joined = one
            .rotate_left(1)
            .wrapping_add(two.rotate_left(7))
            .wrapping_add(three.rotate_left(12))
            .wrapping_add(four.rotate_left(18));
        lanes
            .into_iter()
            .fold(joined, |hash, lane| (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
    } else {
        PRIME_5
    };
    hash = hash.wrapping_add(input.len() as u64);
    while let Some((word, after)) = rest.split_first_chunk() {
        hash ^= round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        rest = after;
    }
    if let Some((word, after)) = rest.split_first_chunk() {
        hash ^= u64::from(u32::from_le_bytes(*word)).wrapping_mul(PRIME_1);
        hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        rest = after;
    }
    for &byte in rest {
        hash ^= u64::from(byte).wrapping_mul(PRIME_5);
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

/// The hash of a source address: of its four or sixteen octets, an IPv4 address the same in either notation.
pub fn ip(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => bytes(&address.octets()),
        IpAddr::V6(address) => bytes(&address.octets()),
    }
}

/// The key of a client: its IP address, as [`ip`] has it. The clients of Unix sockets have one key in common.
pub fn client(client: ClientAddress) -> u64 {
    client.ip().map_or_else(|| bytes(b"unix:"), ip)
}

/// The key of a connection: its ID where it has one (RFC 9000 §5.1), which outlives a change of the client's address; that address
/// elsewhere, as [`client`] has it.
pub fn connection(id: Option<&[u8]>, address: ClientAddress) -> u64 {
    id.map_or_else(|| client(address), bytes)
}

/// A number whose bits all depend on all bits of `value`: what a table by key is asked for, since a key may be a plain number.
#[inline]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Where `hash` falls when its range is cut into `bound` equal parts.
#[inline]
pub(super) fn part(hash: u64, bound: usize) -> usize {
    scale(hash, bound as u64) as usize
}

/// Where `hash` falls when a 64-bit range is cut into `bound` equal parts.
#[inline]
pub(super) fn scale(hash: u64, bound: u64) -> u64 {
    ((u128::from(hash) * u128::from(bound)) >> 64) as u64
}

#[inline]
fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_xxh64() {
        for (input, hash) in [
            ("", 0xef46_db37_51d8_e999u64),
            ("a", 0xd24e_c4f1_a98c_6e5b),
            ("abc", 0x44bc_2cf5_ad77_0999),
            ("The quick brown fox jumps over the lazy dog", 0x0b24_2d36_1fda_71bc),
        ] {
            assert_eq!(bytes(input.as_bytes()), hash, "{input}");
        }
    }

    #[test]
    fn an_address_hashes_alike_in_either_notation_and_neighbours_differ() {
        let hash = |text: &str| ip(text.parse().unwrap());
        assert_eq!(hash("192.0.2.1"), hash("::ffff:192.0.2.1"));
        assert_eq!(hash("192.0.2.1"), bytes(&[192, 0, 2, 1]));
        assert_ne!(hash("192.0.2.1"), hash("192.0.2.2"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8::2"));
    }

    #[test]
    fn parts_are_in_bounds_at_both_ends() {
        assert_eq!([part(0, 7), part(u64::MAX, 7), part(u64::MAX, 1), part(5, 0)], [0, 6, 0, 0]);
    }
}

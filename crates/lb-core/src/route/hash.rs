//! Hashes of hosts and paths, in any letter case.
//!
//! What is looked up comes from clients, but what is in a table comes from the operator, and each hit is compared byte by byte: a client can
//! neither fill a bucket nor be taken for another. So the hash has no secret.

use std::hash::{BuildHasherDefault, Hasher};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the hash of a path begins with.
pub(super) const SEED: u64 = 0x243f_6a88_85a3_08d3;

/// The hash of what is behind `hash`, and of this text behind that. Letter case does not count.
#[inline]
pub(super) fn extend(mut hash: u64, text: &[u8]) -> u64 {
    let (chunks, rest) = text.as_chunks::<8>();
    for chunk in chunks {
        hash = mix(hash, u64::from_le_bytes(*chunk));
    }
    let last = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    mix(hash, last | (u64::try_from(text.len()).unwrap_or_default() << 56))
}

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    // Letters of both cases differ in this bit alone.
    let word = (word | 0x2020_2020_2020_2020) ^ hash;
    let product = u128::from(word).wrapping_mul(u128::from(MULTIPLIER));
    (product ^ (product >> 64)) as u64
}

/// A key that is a hash already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = extend(self.0, bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write_usize(&mut self, _length: usize) {}
}

/// Maps whose keys are hashes, or texts in one letter case.
pub(super) type ReadyMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Ready>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letter_case_does_not_count_and_all_else_does() {
        let of = |text: &str| extend(SEED, text.as_bytes());
        assert_eq!(of("Some-Longer-Segment"), of("some-longer-segment"));
        let texts = [
            "",
            "a",
            "b",
            "ab",
            "a\0",
            "abcdefgh",
            "abcdefg",
            "abcdefghi",
            "ihgfedcba",
            "12345678",
            "87654321",
        ];
        for (at, one) in texts.iter().enumerate() {
            assert!(texts.iter().skip(at + 1).all(|other| of(one) != of(other)), "{one}");
        }
    }
}

//! IDs of requests.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::rng::SplitMix64;
use crate::words;

words! {
    /// Whose IDs are kept.
    KeepFrom {
        /// Those of trusted proxies.
        Trusted = "trusted",
        /// None.
        Nobody = "nobody",
        /// Those of every client.
        Anyone = "anyone",
    }
}

/// What is done about IDs of requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestIdPolicy {
    /// The field that carries them.
    pub header: Box<str>,
    /// Whose are kept.
    pub keep_from: KeepFrom,
    /// The client is told.
    pub respond: bool,
}

/// Bytes of an ID that is made here.
pub const ID_BYTES: usize = 36;

/// The longest ID that is kept.
const MOST_BYTES: usize = 128;

/// Whether a client's ID may be kept: it goes to logs and backends.
pub fn is_acceptable(id: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MOST_BYTES).contains(&id.len()) && id.iter().all(fits)
}

/// As [`make`], of this moment.
pub fn new(rng: &mut SplitMix64) -> [u8; ID_BYTES] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    make(u64::try_from(since.as_millis()).unwrap_or_default(), [rng.next_u64(), rng.next_u64()])
}

/// A UUID of version 7 (RFC 9562 §5.7): milliseconds since 1970, and chance.
pub fn make(millis: u64, chance: [u64; 2]) -> [u8; ID_BYTES] {
    let [high, low] = chance;
    let first = millis << 16 | 0x7000 | (high & 0x0fff);
    let second = 0x8000_0000_0000_0000 | (low >> 2);
    let mut id = [b'-'; ID_BYTES];
    let digits = (0..32_u32).map(|at| {
        let word = if at < 16 { first } else { second };
        let half = word >> (60_u32.saturating_sub(at.wrapping_rem(16).saturating_mul(4))) & 15;
        char::from_digit(u32::try_from(half).unwrap_or_default(), 16).map_or(b'0', |digit| digit as u8)
    });
    let places = id.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
    places.zip(digits).for_each(|((_, place), digit)| *place = digit);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_7() {
        // The example of RFC 9562, appendix A.6.
        let id = make(0x017f_22e2_79b0, [0xcc3, 0x18c4_dc0c_0c07_398f << 2]);
        assert_eq!(std::str::from_utf8(&id).unwrap(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        let id = make(0, [u64::MAX; 2]);
        assert_eq!(std::str::from_utf8(&id).unwrap(), "00000000-0000-7fff-bfff-ffffffffffff");
        assert!(is_acceptable(&id));
    }

    #[test]
    fn r_26_what_a_log_or_a_backend_could_misread_is_no_id() {
        let long = [b'a'; 129];
        for id in [&b""[..], b"a b", b"a\r\nb", b"a,b", b"\xff", b"a/b", &long] {
            assert!(!is_acceptable(id), "{id:?}");
        }
        assert!(is_acceptable(&long[..128]) && is_acceptable(b"A-z_0.9"));
    }
}

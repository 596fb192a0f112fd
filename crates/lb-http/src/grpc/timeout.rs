//! `grpc-timeout`: how long a call may take, from its caller's side.

use std::time::Duration;

/// The time that a call has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(Duration);

/// A `grpc-timeout` that says nothing certain. The call is answered with [`INVALID_ARGUMENT`](super::Status::InvalidArgument).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Timeout {
    /// The time from a duration.
    pub fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// Reads a value: 1 to 8 digits and a unit. No such value overflows: the largest is 11,408 years (attack C-14).
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(value: &[u8]) -> Result<Self, Malformed> {
        let (unit, digits) = value.split_last().ok_or(Malformed)?;
        if !(1..=MAX_DIGITS).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        let nanoseconds = UNITS.iter().find(|(name, _)| name == unit).ok_or(Malformed)?.1;
        let add = |sum: u128, digit: &u8| sum.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
        let count = digits.iter().fold(0, add);
        Ok(Self(from_nanoseconds(count.saturating_mul(nanoseconds))))
    }

    /// At most so long.
    pub fn clamp(self, most: Duration) -> Self {
        Self(self.0.min(most))
    }

    /// What is left once so much time has passed; `None` when nothing is, and the call has failed with
    /// [`DEADLINE_EXCEEDED`](super::Status::DeadlineExceeded).
    pub fn after(self, elapsed: Duration) -> Option<Self> {
        self.0.checked_sub(elapsed).filter(|left| !left.is_zero()).map(Self)
    }

    /// The time.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// The value for the next hop: never more than the time itself, and as near as 8 digits come.
    pub fn encode(self) -> String {
        let fits = |(name, nanoseconds): &(u8, u128)| {
            let count = self.0.as_nanos().checked_div(*nanoseconds)?;
            (count < LIMIT).then(|| format!("{count}{}", char::from(*name)))
        };
        // What not even hours can say is longer than any value: the largest stands for it.
        UNITS.iter().find_map(fits).unwrap_or_else(|| "99999999H".to_owned())
    }
}

fn from_nanoseconds(nanoseconds: u128) -> Duration {
    let seconds = u64::try_from(nanoseconds / SECOND).unwrap_or(u64::MAX);
    Duration::new(seconds, u32::try_from(nanoseconds % SECOND).unwrap_or_default())
}

const MAX_DIGITS: usize = 8;
const LIMIT: u128 = 100_000_000;
const SECOND: u128 = 1_000_000_000;

/// Units with their nanoseconds, finest first.
const UNITS: [(u8, u128); 6] =
    [(b'n', 1), (b'u', 1000), (b'm', 1_000_000), (b'S', SECOND), (b'M', 60 * SECOND), (b'H', 3600 * SECOND)];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, duration) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("05S", Duration::from_secs(5)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
            ("12345678n", Duration::from_nanos(12_345_678)),
            ("0S", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(Timeout::parse(text.as_bytes()).map(Timeout::duration), Ok(duration), "{text}");
        }
    }

    #[test]
    fn c_14_what_is_no_timeout_is_refused() {
        for bad in [
            "",
            "S",
            "5",
            "5s",
            "5h",
            "-1S",
            "+1S",
            "1.5S",
            " 1S",
            "1 S",
            "1S ",
            "123456789S",
            "0x1S",
            "1SS",
            "\u{661}S",
        ] {
            assert_eq!(Timeout::parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn the_next_hop_gets_what_is_left() {
        let call = Timeout::parse(b"1H").unwrap().clamp(Duration::from_secs(300));
        assert_eq!(call.after(Duration::from_millis(1)).unwrap().encode(), "299999m");
        assert_eq!(call.after(Duration::from_nanos(1)).unwrap().encode(), "299999m");
        assert_eq!(call.after(Duration::from_secs(300)), None);
        assert_eq!(call.after(Duration::from_secs(301)), None);
        assert_eq!(Timeout::new(Duration::from_millis(30)).encode(), "30000000n");
        assert_eq!(Timeout::new(Duration::MAX).encode(), "99999999H");
    }

    proptest! {
        #[test]
        fn a_timeout_never_grows_on_its_way(count in 0u64..100_000_000, unit in 0usize..6, elapsed: u64) {
            let text = format!("{count}{}", char::from(UNITS[unit].0));
            let timeout = Timeout::parse(text.as_bytes()).unwrap();
            if let Some(left) = timeout.after(Duration::from_nanos(elapsed)) {
                let encoded = left.encode();
                prop_assert!(encoded.len() <= 9);
                let again = Timeout::parse(encoded.as_bytes()).unwrap();
                prop_assert!(again <= left && left <= timeout);
                // No more is lost than the eighth digit holds.
                prop_assert!(left.duration() - again.duration() <= left.duration() / 1_000_000);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(timeout) = Timeout::parse(&bytes) {
                prop_assert!(Timeout::parse(timeout.encode().as_bytes()).unwrap() <= timeout);
            }
        }
    }
}

//! How long a request waits before it is tried again.
//!
//! Requests that failed at one moment must not come back at one moment: the pause is drawn evenly from the whole range ("full jitter"), and
//! the range doubles with each further try, so that a backend which is in trouble is asked less and less often (attack C-05).

use std::time::Duration;

/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause of a request that has paused `before` times, drawn by `chance` from 0 to `first`, doubled each time; at most
/// [`LONGEST_PAUSE`]. `None` where there is none to be.
pub fn pause(first: Duration, before: u32, chance: u64) -> Option<Duration> {
    if first.is_zero() {
        return None;
    }
    let most = 1u32.checked_shl(before).and_then(|factor| first.checked_mul(factor));
    let most = most.unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
    // Nanoseconds of a minute have 36 bits.
    let drawn = (most.as_nanos().saturating_mul(u128::from(chance))) >> 64;
    Some(Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_range_doubles_up_to_a_minute() {
        for (before, most) in [(0, 100), (1, 200), (2, 400), (9, 51_200), (10, 60_000), (40, 60_000)] {
            let longest = pause(MS * 100, before, u64::MAX).unwrap();
            assert!(longest < MS * most && longest > MS * (most - 1), "{before}: {longest:?}");
            assert_eq!(pause(MS * 100, before, 0), Some(Duration::ZERO));
        }
        assert_eq!(pause(Duration::ZERO, 3, u64::MAX), None);
        assert!(pause(Duration::MAX, u32::MAX, u64::MAX).unwrap() < LONGEST_PAUSE);
    }

    #[test]
    fn pauses_are_spread_over_the_whole_range() {
        let mut rng = SplitMix64::new(3);
        let mut tenths = [0u32; 10];
        for _ in 0..10_000 {
            let drawn = pause(MS * 100, 1, rng.next_u64()).unwrap();
            tenths[usize::try_from(drawn.as_millis() / 20).unwrap()] += 1;
        }
        // 1000 each, within 4 sigma.
        assert!(tenths.iter().all(|count| (880..=1120).contains(count)), "{tenths:?}");
    }
}

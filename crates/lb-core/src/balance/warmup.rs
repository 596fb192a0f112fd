//! Slow start: the share of a member that became healthy grows with time.

use std::time::{Duration, Instant};

/// The factor of a member that has its whole weight.
pub(super) const FULL: u32 = 1 << 16;

/// The factor that a slow start begins with: enough to show that the member works.
const LEAST: u32 = FULL / 32;

/// How often a slow start is looked at: so many steps from its begin to its end.
const STEPS: u32 = 256;

/// The factor at `now` of a member that is healthy since `since`, and when it will be due again; `None` when it is [`FULL`] for good.
pub(super) fn factor(since: Option<Instant>, now: Instant, window: Duration) -> (u32, Option<Instant>) {
    let Some(since) = since else { return (FULL, None) };
    let passed = now.saturating_duration_since(since);
    let Some(left) = window.checked_sub(passed).filter(|left| !left.is_zero()) else { return (FULL, None) };
    let factor = passed.as_nanos() * u128::from(FULL) / window.as_nanos().max(1);
    let factor = u32::try_from(factor).unwrap_or(FULL).clamp(LEAST, FULL);
    let step = (window / STEPS).max(Duration::from_millis(1)).min(left);
    (factor, now.checked_add(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_grows_from_little_to_all_and_ends_exactly() {
        let since = Instant::now();
        let window = Duration::from_secs(30);
        assert_eq!(factor(None, since, window).0, FULL);
        let mut before = 0;
        for millis in (0..30_000).step_by(10) {
            let now = since + Duration::from_millis(millis);
            let (at, due) = factor(Some(since), now, window);
            assert!(at >= before && (LEAST..FULL).contains(&at), "{at} after {millis} ms");
            let due = due.unwrap();
            assert!(due > now && due <= since + window);
            before = at;
        }
        assert!(before > FULL - FULL / 100);
        assert_eq!(factor(Some(since), since + window, window), (FULL, None));
        assert_eq!(factor(Some(since + window), since, window).0, LEAST);
        assert_eq!(factor(Some(since), since, Duration::ZERO), (FULL, None));
    }
}

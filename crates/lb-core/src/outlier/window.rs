//! Comparison of the members of a pool over an interval.

use std::cmp::Reverse;
use std::time::Duration;

use super::EjectionCause;

/// What a member has done: counters that only grow, or the difference of two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tries that ended and are evidence about the member.
    pub requests: u64,
    /// Those among them that failed ([`super::Ending::is_failure`]).
    pub failures: u64,
    /// Responses whose time was measured.
    pub timed: u64,
    /// The sum of their times.
    pub latency: Duration,
}

impl Counts {
    /// The difference to an earlier reading. A counter that went back counts as nothing.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            failures: self.failures.saturating_sub(earlier.failures),
            timed: self.timed.saturating_sub(earlier.timed),
            latency: self.latency.saturating_sub(earlier.latency),
        }
    }

    /// The sum of two, say of two workers.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failures: self.failures.saturating_add(other.failures),
            timed: self.timed.saturating_add(other.timed),
            latency: self.latency.saturating_add(other.latency),
        }
    }

    /// The mean of the measured times.
    pub fn mean_latency(self) -> Option<Duration> {
        let nanos = self.latency.as_nanos().checked_div(u128::from(self.timed))?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn failed_percent(self) -> u128 {
        (u128::from(self.failures) * 100).checked_div(u128::from(self.requests)).unwrap_or(0)
    }
}

/// When a member stands out over an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// The share of failures, in percent, from which on it does; 0 is never.
    pub error_rate_percent: u32,
    /// Fewer tries or measured times than this are no evidence. Of a member on probation half is enough.
    pub min_requests: u64,
    /// Mean latency in percent of the pool's median above which it does; 0 is never.
    pub latency_factor_percent: u32,
}

/// Fewer members than this cannot be compared: two do not show which of them is the odd one.
const MIN_COMPARED: usize = 3;

/// A mean is not slow unless it lies that far above the median: within a few hundred microseconds it is the scheduler that differs.
const MIN_LATENCY_GAP: Duration = Duration::from_millis(1);

/// A member that stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its position.
    pub at: usize,
    /// Why.
    pub cause: EjectionCause,
}

impl Analysis {
    /// The members that stand out over an interval, the worst first, so that a bound on ejections spares the better ones. Each window
    /// comes with whether its member is on probation. For once per interval: it sorts and allocates.
    pub fn suspects(&self, windows: &[(Counts, bool)]) -> Vec<Suspect> {
        let enough = |probation: bool, n: u64| {
            let least = if probation { self.min_requests.div_ceil(2) } else { self.min_requests };
            n >= least.max(1)
        };
        let mut failing = Vec::new();
        let mut timed = Vec::new();
        for (at, &(window, probation)) in windows.iter().enumerate() {
            let percent = window.failed_percent();
            let fails = self.error_rate_percent != 0 && percent >= u128::from(self.error_rate_percent);
            if fails && enough(probation, window.requests) {
                failing.push((Reverse(percent), at));
            } else if enough(probation, window.timed) {
                timed.extend(window.mean_latency().map(|mean| (mean, at)));
            }
        }
        failing.sort_unstable();
        let mut suspects: Vec<Suspect> =
            failing.into_iter().map(|(_, at)| Suspect { at, cause: EjectionCause::ErrorRate }).collect();
        timed.sort_unstable();
        if self.latency_factor_percent != 0 && timed.len() >= MIN_COMPARED {
            // Of an even number the lower one: when half of a small pool is slow, the other half shows what is possible.
            let Some(&(median, _)) = timed.get((timed.len() - 1) / 2) else { return suspects };
            let bound = (median.saturating_mul(self.latency_factor_percent) / 100)
                .max(median.saturating_add(MIN_LATENCY_GAP));
            let slow = timed.iter().rev().take_while(|(mean, _)| *mean > bound);
            suspects.extend(slow.map(|&(_, at)| Suspect { at, cause: EjectionCause::Latency }));
        }
        suspects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANALYSIS: Analysis =
        Analysis { error_rate_percent: 50, min_requests: 20, latency_factor_percent: 300 };

    fn window(requests: u64, failures: u64, mean_ms: u64) -> (Counts, bool) {
        let timed = requests - failures;
        let latency = Duration::from_millis(mean_ms) * u32::try_from(timed).unwrap();
        (Counts { requests, failures, timed, latency }, false)
    }

    fn of(analysis: Analysis, windows: &[(Counts, bool)]) -> Vec<(usize, EjectionCause)> {
        analysis.suspects(windows).into_iter().map(|suspect| (suspect.at, suspect.cause)).collect()
    }

    #[test]
    fn the_share_of_failures_needs_its_volume_and_the_worst_comes_first() {
        let windows = [
            window(100, 49, 5),
            window(100, 50, 5),
            window(19, 19, 5),
            window(1_000_000, 999_999, 5),
            window(0, 0, 0),
            (window(10, 10, 5).0, true),
        ];
        assert_eq!(
            of(ANALYSIS, &windows),
            [(5, EjectionCause::ErrorRate), (3, EjectionCause::ErrorRate), (1, EjectionCause::ErrorRate)]
        );
        assert_eq!(of(Analysis { error_rate_percent: 0, ..ANALYSIS }, &windows), []);
    }

    #[test]
    fn slow_is_what_lies_far_above_the_median_of_at_least_three() {
        let slow = |means: &[u64]| {
            let windows: Vec<_> = means.iter().map(|mean| window(100, 0, *mean)).collect();
            of(ANALYSIS, &windows).into_iter().map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(slow(&[10, 31, 10]), [1]);
        assert_eq!(slow(&[10, 30, 10]), [0; 0], "at the bound is not above it");
        assert_eq!(slow(&[10, 500]), [0; 0]);
        assert_eq!(slow(&[50, 10, 60, 11]), [2, 0]);
        assert_eq!(slow(&[500, 500, 500, 10]), [0; 0], "when most are slow, slow is usual");
        // Members without volume are not compared, and neither are those that fail.
        assert_eq!(of(ANALYSIS, &[window(100, 0, 10), window(100, 0, 99), window(5, 0, 10)]), []);
        let failing = [window(100, 0, 10), window(100, 0, 99), window(100, 60, 10)];
        assert_eq!(of(ANALYSIS, &failing), [(2, EjectionCause::ErrorRate)]);
        assert_eq!(of(Analysis { latency_factor_percent: 0, ..ANALYSIS }, &[window(100, 0, 1); 4]), []);
    }

    #[test]
    fn differences_of_microseconds_are_no_outliers() {
        let micros = |mean: u64| {
            (
                Counts { requests: 100, failures: 0, timed: 100, latency: Duration::from_micros(mean * 100) },
                false,
            )
        };
        assert_eq!(of(ANALYSIS, &[micros(100), micros(900), micros(100)]), []);
        assert_eq!(of(ANALYSIS, &[micros(100), micros(1101), micros(100)]), [(1, EjectionCause::Latency)]);
    }

    #[test]
    fn counters_subtract_and_add_without_wrapping() {
        let (early, late) = (window(10, 1, 5).0, window(30, 3, 5).0);
        let difference = late.since(early);
        assert_eq!((difference.requests, difference.failures, difference.timed), (20, 2, 18));
        assert_eq!(difference.mean_latency(), Some(Duration::from_millis(5)));
        assert_eq!(early.since(late), Counts::default());
        assert_eq!(early.plus(difference), late);
        assert_eq!(Counts::default().mean_latency(), None);
        let most = Counts { requests: u64::MAX, failures: u64::MAX, timed: 1, latency: Duration::MAX };
        assert_eq!(most.plus(most).failed_percent(), 100);
        assert!(most.mean_latency().is_some());
    }
}

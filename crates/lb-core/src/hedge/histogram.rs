//! A histogram of times in buckets that grow with them.

use std::time::Duration;

/// Counts per bucket. A bucket is an eighth of the distance from one power of two to the next, in microseconds: the error is at most an
/// eighth. Times below [`LEAST_MICROS`] share the first, times of two minutes and more the last.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: [u32; BUCKETS],
    total: u32,
}

/// The shortest time that is told apart: no request is hedged within 64 µs.
const LEAST_MICROS: u64 = 1 << LEAST_POWER;
const LEAST_POWER: u32 = 6;
/// Each power of two has so many buckets, three bits of what follows the first.
const PARTS_POWER: u32 = 3;
const PARTS: u64 = 1 << PARTS_POWER;
/// 64 µs × 2^21 is 134 s.
const POWERS: u32 = 21;
const BUCKETS: usize = 168;

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    /// Counts a time: a few shifts and two additions.
    #[inline]
    pub(super) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count = count.saturating_add(1);
            self.total = self.total.saturating_add(1);
        }
    }

    /// All that is counted.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// Makes everything so far weigh half.
    pub(super) fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        self.total = self.counts.iter().sum();
    }

    /// The upper end of the bucket in which the percentile lies: no less than the percentile itself, within the range of the buckets.
    pub(super) fn percentile(&self, percent: u32) -> Option<Duration> {
        let wanted = (u64::from(self.total) * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0u64;
        let at = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        Some(Duration::from_micros(upper_end(u64::try_from(at).unwrap_or(0))))
    }
}

#[inline]
fn bucket(micros: u64) -> usize {
    let micros = micros.max(LEAST_MICROS);
    let power = micros.ilog2();
    let part = (micros >> (power - PARTS_POWER)) - PARTS;
    let at = u64::from(power - LEAST_POWER) * PARTS + part;
    usize::try_from(at).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

fn upper_end(at: u64) -> u64 {
    let power = u32::try_from(at / PARTS).unwrap_or(0) + LEAST_POWER;
    (PARTS + at % PARTS + 1) << (power - PARTS_POWER)
}

const _: () = assert!(BUCKETS as u64 == POWERS as u64 * PARTS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_the_buckets_leave_no_gap() {
        let mut last = 0;
        for at in 0..BUCKETS as u64 {
            let end = upper_end(at);
            assert_eq!(bucket(end - 1), at as usize);
            assert_eq!(bucket(end), (at as usize + 1).min(BUCKETS - 1));
            assert!(at < PARTS || end - last <= last / 8, "{at}");
            last = end;
        }
        assert_eq!((bucket(0), bucket(64), bucket(u64::MAX)), (0, 0, BUCKETS - 1));
        assert!(last > 120_000_000);
    }

    #[test]
    fn percentiles_of_known_samples() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        (0..90).for_each(|_| histogram.record(Duration::from_millis(1)));
        (0..10).for_each(|_| histogram.record(Duration::from_secs(1)));
        let micros = |percent| histogram.percentile(percent).unwrap().as_micros();
        assert!((1_000..=1_125).contains(&micros(90)) && micros(50) == micros(90));
        assert!((1_000_000..=1_125_000).contains(&micros(91)) && micros(99) == micros(91));
        histogram.halve();
        assert_eq!(histogram.total(), 50);
        histogram.record(Duration::MAX);
        assert!(histogram.percentile(99).unwrap() > Duration::from_millis(999));
    }
}

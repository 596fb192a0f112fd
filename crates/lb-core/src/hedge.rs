//! When a request that has not been answered is sent to a second backend as well.
//!
//! After as long as the chosen percentile of responses takes. A [`Hedge`] estimates it from the responses of a pool as one worker sees them,
//! in a fixed amount of memory, and forgets with time: the counts are halved every [`WINDOW`] samples.
//!
//! The estimate depends on ranks alone, so a request of which only a lower bound of its time is known is to be recorded with that bound:
//! one that was hedged and cancelled when the other answered, with the time it had waited. Leaving such requests out would
//! draw the percentile down with each hedge, and more and more would be hedged. Hedges come out of the budget of
//! retries ([`crate::retry::Budget`]) whatever this says.

use std::time::Duration;

mod histogram;

use histogram::Histogram;

/// When to hedge (`[pools.NAME.retry]`, `hedge_percentile` and `hedge_min_delay_ms`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeSettings {
    /// The percentile of times to the head of a response; 0 is never, more than 99 counts as 99.
    pub percentile: u32,
    /// The least time after which a request is hedged.
    pub min_delay: Duration,
}

impl Default for HedgeSettings {
    fn default() -> Self {
        Self { percentile: 0, min_delay: Duration::from_millis(10) }
    }
}

/// Samples without which there is no estimate: a percentile of fewer is chance.
pub const MIN_SAMPLES: u32 = 100;

/// Samples after which older ones weigh half.
pub const WINDOW: u32 = 2048;

/// How often the estimate is read anew, in samples; reading it walks through the histogram.
const REFRESH: u32 = 64;

/// The estimate for one pool in one worker.
#[derive(Clone, Debug)]
pub struct Hedge {
    settings: HedgeSettings,
    histogram: Histogram,
    /// Samples since the estimate was read.
    unread: u32,
    estimate: Option<Duration>,
}

impl Hedge {
    /// An estimate from nothing.
    pub fn new(settings: HedgeSettings) -> Self {
        Self { settings, histogram: Histogram::default(), unread: 0, estimate: None }
    }

    /// Goes on with other settings; the samples stay.
    pub fn reconfigure(&mut self, settings: HedgeSettings) {
        self.settings = settings;
        self.read();
    }

    /// Records the time to the head of a response, or the time for which a cancelled request had waited for it.
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        if self.settings.percentile == 0 {
            return;
        }
        self.histogram.record(latency);
        self.unread += 1;
        if self.unread >= REFRESH {
            self.read();
        }
    }

    /// How long a request waits for its response before it is hedged; `None` while too little is known, or when it never is.
    #[inline]
    pub fn delay(&self) -> Option<Duration> {
        self.estimate
    }

    fn read(&mut self) {
        self.unread = 0;
        if self.histogram.total() >= WINDOW {
            self.histogram.halve();
        }
        let known = self.settings.percentile != 0 && self.histogram.total() >= MIN_SAMPLES;
        let percentile = known.then(|| self.histogram.percentile(self.settings.percentile.min(99)));
        self.estimate = percentile.flatten().map(|estimate| estimate.max(self.settings.min_delay));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    const P95: HedgeSettings = HedgeSettings { percentile: 95, min_delay: Duration::from_millis(1) };

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn nothing_is_hedged_before_enough_is_known_or_when_off() {
        let mut hedge = Hedge::new(P95);
        (0..MIN_SAMPLES - 1).for_each(|_| hedge.record(millis(10)));
        assert_eq!(hedge.delay(), None);
        (0..REFRESH).for_each(|_| hedge.record(millis(10)));
        assert!(hedge.delay().is_some());
        let mut off = Hedge::new(HedgeSettings::default());
        (0..10_000).for_each(|_| off.record(millis(10)));
        assert_eq!(off.delay(), None);
        hedge.reconfigure(HedgeSettings::default());
        assert_eq!(hedge.delay(), None);
        hedge.reconfigure(HedgeSettings { min_delay: millis(500), ..P95 });
        assert_eq!(hedge.delay(), Some(millis(500)), "never sooner than that");
    }

    #[test]
    fn the_estimate_lies_at_the_percentile_and_not_below() {
        let mut rng = SplitMix64::new(5);
        for percentile in [50, 90, 95, 99] {
            let mut hedge = Hedge::new(HedgeSettings { percentile, ..P95 });
            // Even between 0 and 100 ms, so that the percentile is the number.
            (0..20_000).for_each(|_| hedge.record(Duration::from_micros(rng.below(100_000))));
            let exact = millis(u64::from(percentile));
            let estimate = hedge.delay().unwrap();
            assert!((exact * 94 / 100..=exact * 118 / 100).contains(&estimate), "{estimate:?} for {exact:?}");
        }
    }

    #[test]
    fn what_was_is_forgotten_within_some_windows() {
        let mut hedge = Hedge::new(P95);
        (0..100_000).for_each(|_| hedge.record(millis(400)));
        assert!(hedge.delay().unwrap() >= millis(400));
        (0..WINDOW * 4).for_each(|_| hedge.record(millis(5)));
        assert!(hedge.delay().unwrap() < millis(7), "{:?}", hedge.delay());
    }

    #[test]
    fn hedging_does_not_draw_its_own_delay_down() {
        // One in fifty takes 500 ms. Whatever takes longer than the delay is hedged, and the other answers 5 ms later.
        let mut rng = SplitMix64::new(8);
        let mut hedge = Hedge::new(HedgeSettings { percentile: 80, ..P95 });
        let mut hedged = 0;
        for _ in 0..100_000 {
            let usual = Duration::from_micros(2_000 + rng.below(100_000));
            let alone = if rng.below(50) == 0 { millis(500) } else { usual };
            match hedge.delay() {
                Some(delay) if alone > delay => {
                    hedged += 1;
                    hedge.record(alone.min(delay + millis(5)));
                }
                _ => hedge.record(alone),
            }
        }
        assert!((10_000..=22_000).contains(&hedged), "{hedged}: about one in five, not more and more");
    }
}

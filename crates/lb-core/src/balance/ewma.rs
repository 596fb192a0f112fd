//! Peak EWMA: how long a member is expected to take.
//!
//! A latency above the estimate replaces it at once, one below pulls it down slowly, by time or by a sixty-fourth with each answer: a
//! member that becomes slow is noticed with its first slow answer, and has to be fast for a while before it counts as fast again. Where
//! answers are many that while is short; otherwise one pause of the scheduler would keep a good member out for seconds. A failure counts as
//! a slow answer: a member that fails quickly must not look like the best. Old measurements count less and less: in the end a member counts
//! as somewhat faster than is typical of the pool, so that one that is avoided is tried again, but not by all requests at once. A member
//! without measurements counts as typical.

use std::time::{Duration, Instant};

use super::RequestOutcome;

/// The latency of one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    /// Nanoseconds; 0 when nothing is known.
    latency: f32,
    /// When, in the estimator's milliseconds.
    measured: u64,
}

impl Estimate {
    pub(super) const NONE: Self = Self { latency: 0.0, measured: 0 };
}

/// The part of the estimates that all members of a pool share.
#[derive(Clone, Debug)]
pub(super) struct Estimator {
    start: Instant,
    /// Half-lives in a millisecond.
    pace: f32,
    /// What is typical of the pool, in nanoseconds: a mean over the answers that came last.
    typical: f32,
    measured: bool,
}

impl Estimator {
    pub(super) fn new(decay: Duration, start: Instant) -> Self {
        Self { start, pace: 0.0, typical: FIRST_GUESS, measured: false }.with_decay(decay)
    }

    /// The estimator with another decay.
    pub(super) fn with_decay(self, decay: Duration) -> Self {
        // 2^(-t / half-life) is e^(-t / decay).
        let half_life = (decay.as_secs_f32() * 1000.0 * std::f32::consts::LN_2).max(1.0);
        Self { pace: half_life.recip(), ..self }
    }

    /// Milliseconds since the start.
    #[inline]
    pub(super) fn clock(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start);
        passed.as_secs() * 1000 + u64::from(passed.subsec_millis())
    }

    /// The latency to expect at `clock`, in nanoseconds.
    #[inline]
    pub(super) fn expected(&self, estimate: Estimate, clock: u64) -> f32 {
        if estimate.latency == 0.0 {
            return self.typical;
        }
        let hoped = self.typical * HOPE;
        hoped + (estimate.latency - hoped) * self.remembered(estimate, clock)
    }

    /// Takes in how a request ended. An end that is not the member's doing changes nothing.
    pub(super) fn learn(&mut self, estimate: &mut Estimate, outcome: RequestOutcome, clock: u64) {
        let latency = outcome.latency.map(|latency| (latency.as_secs_f32() * 1e9).clamp(SHORTEST, LONGEST));
        let known = if estimate.latency == 0.0 { self.typical } else { estimate.latency };
        let latency = match (latency, outcome.failed) {
            (None, false) => return,
            (Some(latency), false) => {
                self.typical =
                    if self.measured { self.typical + (latency - self.typical) / LAST } else { latency };
                self.measured = true;
                latency
            }
            (latency, true) => {
                let latency = latency.unwrap_or(SHORTEST);
                let base = latency.max(self.expected(*estimate, clock)).max(self.typical);
                (base * PENALTY).min(latency.max(PENALTY_CEILING))
            }
        };
        let latency = if estimate.latency == 0.0 || latency >= known {
            latency
        } else {
            latency + (known - latency) * self.remembered(*estimate, clock).min(1.0 - 1.0 / LAST)
        };
        *estimate = Estimate { latency, measured: clock };
    }

    /// How much of an estimate still counts, between 0 and 1.
    #[inline]
    fn remembered(&self, estimate: Estimate, clock: u64) -> f32 {
        power_of_half(clock.saturating_sub(estimate.measured) as f32 * self.pace)
    }
}

/// 2^(-x), within 1 %: a parabola between the powers of two, with the right slope at 0, because many small steps make a large one.
#[inline]
fn power_of_half(x: f32) -> f32 {
    let whole = x as u32;
    if whole >= 100 {
        return 0.0;
    }
    let part = x - whole as f32;
    let parabola = 1.0 - part * (std::f32::consts::LN_2 - part * (std::f32::consts::LN_2 - 0.5));
    // The exponent field of an f32 is biased by 127.
    f32::from_bits((127 - whole) << 23) * parabola
}

/// What a latency is taken for before the first is measured.
const FIRST_GUESS: f32 = 1e6;

/// What a latency measured long ago is taken for, as a share of what is typical.
const HOPE: f32 = 0.5;

/// Nanoseconds that a latency counts at least: a clock does not resolve smaller ones.
const SHORTEST: f32 = 1e3;

/// Nanoseconds that a latency counts at most: an hour.
const LONGEST: f32 = 3.6e12;

/// A failure counts as an answer so many times slower than expected of the member, and than typical.
const PENALTY: f32 = 4.0;

/// Failures do not add up to more nanoseconds than this: ten seconds, so that a member that has recovered is soon used again.
const PENALTY_CEILING: f32 = 1e10;

/// Over so many answers goes the mean that is typical.
const LAST: f32 = 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn answer(millis: u64) -> RequestOutcome {
        RequestOutcome { latency: Some(Duration::from_millis(millis)), failed: false }
    }

    /// An estimator of a pool that answers in a millisecond.
    fn estimator() -> Estimator {
        let mut estimator = Estimator::new(DECAY, Instant::now());
        estimator.learn(&mut Estimate::NONE.clone(), answer(1), 0);
        estimator
    }

    fn millis(estimator: &Estimator, estimate: Estimate, clock: u64) -> f32 {
        estimator.expected(estimate, clock) / 1e6
    }

    fn near(one: f32, other: f32) -> bool {
        (one - other).abs() <= other.abs() * 0.01
    }

    #[test]
    fn a_peak_counts_at_once_and_what_is_faster_pulls_down_slowly() {
        let mut estimator = estimator();
        let mut member = Estimate::NONE;
        estimator.learn(&mut member, answer(10), 0);
        assert!(near(millis(&estimator, member, 0), 10.0));
        estimator.learn(&mut member, answer(100), 1);
        assert!(near(millis(&estimator, member, 1), 100.0));
        // Four answers a second for as long as the decay: 1/e of the distance is left.
        for tick in 1..=40 {
            estimator.learn(&mut member, answer(10), 1 + tick * 250);
        }
        let left = (millis(&estimator, member, 10_001) - 10.0) / 90.0;
        assert!((0.35..0.39).contains(&left), "{left}");
        // A thousand a second: as many answers as tell what is typical.
        estimator.learn(&mut member, answer(100), 11_000);
        for tick in 1..=64 {
            estimator.learn(&mut member, answer(10), 11_000 + tick);
        }
        let left = (millis(&estimator, member, 11_064) - 10.0) / 90.0;
        assert!((0.35..0.39).contains(&left), "{left}");
    }

    #[test]
    fn an_old_measurement_decays_to_half_of_what_is_typical_and_no_further() {
        let mut estimator = estimator();
        let (mut slow, mut fast) = (Estimate::NONE, Estimate::NONE);
        estimator.learn(&mut slow, RequestOutcome { latency: Some(Duration::from_secs(1)), failed: true }, 0);
        fast.latency = 1e5;
        let mut before = f32::INFINITY;
        for second in 0..600 {
            let expected = millis(&estimator, slow, second * 1000);
            assert!(expected <= before && expected >= 0.499, "{expected} after {second} s");
            assert!(millis(&estimator, fast, second * 1000) <= 0.501);
            before = expected;
        }
        assert!(near(before, 0.5));
        assert!(near(millis(&estimator, Estimate::NONE, 0), 1.0), "unknown is typical");
    }

    #[test]
    fn a_quick_failure_is_worse_than_any_ordinary_answer_and_failures_add_up_to_a_ceiling() {
        let mut estimator = estimator();
        let failure = RequestOutcome { latency: Some(Duration::from_micros(10)), failed: true };
        let mut member = Estimate::NONE;
        estimator.learn(&mut member, failure, 0);
        assert!(near(millis(&estimator, member, 0), 4.0));
        estimator.learn(&mut member, RequestOutcome { latency: None, failed: true }, 0);
        assert!(near(millis(&estimator, member, 0), 16.0));
        (0..50).for_each(|_| estimator.learn(&mut member, failure, 0));
        assert!(near(millis(&estimator, member, 0), 10_000.0));
        // Failures do not change what is typical, or a failing member would in the end look ordinary.
        assert!(near(millis(&estimator, Estimate::NONE, 0), 1.0));
        // A timeout longer than the ceiling counts in full.
        let timeout = RequestOutcome { latency: Some(Duration::from_secs(30)), failed: true };
        estimator.learn(&mut member, timeout, 0);
        assert!(near(millis(&estimator, member, 0), 30_000.0));
    }

    #[test]
    fn an_end_without_a_verdict_changes_nothing() {
        let mut estimator = estimator();
        let mut member = Estimate::NONE;
        estimator.learn(&mut member, RequestOutcome { latency: None, failed: false }, 5);
        assert_eq!((member.latency, member.measured), (0.0, 0));
    }

    #[test]
    fn the_power_of_half_is_close_and_falls_all_the_way() {
        let mut before = 2.0;
        for step in 0..2000u16 {
            let x = f32::from(step) / 64.0;
            let power = power_of_half(x);
            assert!(power < before && near(power, (-x).exp2()), "{x}: {power}");
            before = power;
        }
        assert_eq!([power_of_half(1e9), power_of_half(f32::INFINITY)], [0.0, 0.0]);
    }
}

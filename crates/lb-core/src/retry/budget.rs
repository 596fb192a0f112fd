//! How much may be tried again or hedged (attack C-05).
//!
//! Tries on top of ordinary load are what turns an overloaded backend into a dead one, and three tiers that each try three times into 27
//! times the load. Two bounds hold together, each of them a share of ordinary traffic:
//!
//! * at once: fewer than `percent` of the live requests, but `min` in any case;
//! * over time: each request saves up `percent` of a try, and each second `min` tries; a try spends one. Failures that come quicker than
//!   successes would otherwise fit many times into the first bound. No more is saved up than one try for each live
//!   request. For requests whose connection was lost only this bound holds ([`Budget::take_after_loss`]).
//!
//! A try after a failure that cost no backend anything ([`crate::failure::Failure::is_free`]) adds no load and is not counted.

use std::time::{Duration, Instant};

/// The bounds (`[pools.NAME.retry]`, `budget_percent` and `budget_min`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSettings {
    /// The share of requests, in percent.
    pub percent: u32,
    /// Tries at once, and each second, that are always granted.
    pub min: u32,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { percent: 20, min: 3 }
    }
}

/// The budget of one pool in one worker.
#[derive(Clone, Debug)]
pub struct Budget {
    settings: BudgetSettings,
    /// Requests under way, each counted once however often it is tried.
    live: u32,
    /// Tries on top under way.
    extra: u32,
    /// What is saved up, in [`TRY`]s.
    saved: u64,
    /// Until when the seconds have been saved up.
    filled: Instant,
}

/// One try, in the unit that is saved: both a hundredth and a thousandth of it are whole, for a request's share and a millisecond's.
const TRY: u64 = 1000;

impl Budget {
    /// A budget in which `min` tries are saved up.
    pub fn new(settings: BudgetSettings, now: Instant) -> Self {
        Self { settings, live: 0, extra: 0, saved: u64::from(settings.min) * TRY, filled: now }
    }

    /// Goes on with other settings.
    pub fn reconfigure(&mut self, settings: BudgetSettings) {
        self.settings = settings;
        self.saved = self.saved.min(self.most_saved());
    }

    /// A request begins. A few additions and comparisons.
    #[inline]
    pub fn begin(&mut self) {
        self.live = self.live.saturating_add(1);
        self.save(u64::from(self.settings.percent) * (TRY / 100));
    }

    /// A request has ended.
    #[inline]
    pub fn end(&mut self) {
        debug_assert!(self.live > 0, "more requests ended than begun");
        self.live = self.live.saturating_sub(1);
    }

    /// Takes a try or a hedge if the bounds allow it; [`Self::done`] gives its place back.
    #[must_use]
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        if self.extra >= self.at_once() || self.saved < TRY {
            return false;
        }
        self.saved -= TRY;
        self.extra += 1;
        true
    }

    /// The same for a request whose connection was lost before an answer. A backend that dies takes all that it had with it at one
    /// moment, be it more than the share of the live; as that cannot happen twice to a dead backend, only the bound over time holds.
    #[must_use]
    pub fn take_after_loss(&mut self, now: Instant) -> bool {
        self.fill(now);
        if self.extra >= self.most() || self.saved < TRY {
            return false;
        }
        self.saved -= TRY;
        self.extra += 1;
        true
    }

    /// A try or a hedge has ended.
    #[inline]
    pub fn done(&mut self) {
        debug_assert!(self.extra > 0, "more tries ended than taken");
        self.extra = self.extra.saturating_sub(1);
    }

    /// Requests under way.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Tries on top under way.
    pub fn extra(&self) -> u32 {
        self.extra
    }

    /// How many tries may run at once now.
    #[inline]
    pub fn at_once(&self) -> u32 {
        let share = u64::from(self.settings.percent) * u64::from(self.live) / 100;
        self.settings.min.max(u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// How many tries may run at once after losses, and be saved up: one for each live request, unless there is to be none.
    #[inline]
    fn most(&self) -> u32 {
        if self.settings.percent == 0 { self.settings.min } else { self.settings.min.max(self.live) }
    }

    #[inline]
    fn most_saved(&self) -> u64 {
        u64::from(self.most()) * TRY
    }

    /// Saves up to the bound. What was saved when more was live is not lost.
    #[inline]
    fn save(&mut self, more: u64) {
        self.saved = self.saved.max(self.saved.saturating_add(more).min(self.most_saved()));
    }

    /// Saves for the time that has passed, in whole milliseconds.
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        // What is left of a millisecond is counted next time.
        self.filled = self.filled.checked_add(Duration::from_millis(passed)).unwrap_or(now);
        self.save(u64::from(self.settings.min).saturating_mul(passed).saturating_mul(TRY / 1000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BudgetSettings = BudgetSettings { percent: 20, min: 3 };

    fn taken(budget: &mut Budget, now: Instant) -> u32 {
        (0..10_000).map(|_| u32::from(budget.take(now))).sum()
    }

    #[test]
    fn at_once_it_is_a_share_of_the_live_and_a_minimum() {
        let now = Instant::now();
        for (live, most) in [(0, 3), (1, 3), (15, 3), (19, 3), (20, 4), (100, 20), (1000, 200)] {
            let mut budget = Budget::new(SETTINGS, now);
            // Enough came before for the other bound not to matter.
            for _ in 0..live {
                budget.begin();
            }
            for _ in 0..10_000 {
                budget.begin();
                budget.end();
            }
            assert_eq!(taken(&mut budget, now), most, "of {live}");
            assert_eq!((budget.live(), budget.extra()), (live, most));
        }
        let mut none = Budget::new(BudgetSettings { percent: 0, min: 0 }, now);
        none.begin();
        assert_eq!(taken(&mut none, now + Duration::from_secs(3600)), 0);
    }

    #[test]
    fn a_backend_that_dies_with_many_requests_is_made_up_for() {
        let start = Instant::now();
        let mut budget = Budget::new(SETTINGS, start);
        // Forty at once, a third of which are at the one that dies.
        (0..40).for_each(|_| budget.begin());
        (0..400).for_each(|_| {
            budget.begin();
            budget.end();
        });
        assert_eq!((0..14).filter(|_| budget.take_after_loss(start)).count(), 14);
        assert!(!budget.take(start), "the share of the live is taken");
        let rest = (0..10_000).filter(|_| budget.take_after_loss(start)).count();
        assert_eq!(rest, 26, "one for each live request");
    }

    #[test]
    fn places_are_given_back_and_tries_are_not() {
        let start = Instant::now();
        let mut budget = Budget::new(BudgetSettings { percent: 0, min: 2 }, start);
        assert_eq!(taken(&mut budget, start), 2);
        budget.done();
        budget.done();
        assert_eq!(taken(&mut budget, start), 0, "both are spent");
        assert!(!budget.take(start + Duration::from_millis(499)));
        assert!(budget.take(start + Duration::from_millis(998)), "one comes back in half a second");
        budget.done();
        assert_eq!(
            taken(&mut budget, start + Duration::from_secs(100)),
            2,
            "no more is saved than may run at once"
        );
    }

    #[test]
    fn c_05_a_storm_of_quick_failures_costs_no_more_than_its_share() {
        let start = Instant::now();
        for (percent, min) in [(20, 3), (20, 0), (5, 1), (100, 3), (0, 3)] {
            let mut budget = Budget::new(BudgetSettings { percent, min }, start);
            // 200 slow requests keep the bound on tries at once wide open; ten seconds of 10,000 that fail at once, each tried up to
            // three times more.
            (0..200).for_each(|_| budget.begin());
            let mut extra = 0u64;
            for request in 0..100_000u64 {
                let now = start + Duration::from_micros(request * 100);
                budget.begin();
                for _ in 0..3 {
                    if budget.take(now) {
                        extra += 1;
                        budget.done();
                    }
                }
                budget.end();
            }
            let share = 100_200 * u64::from(percent) / 100;
            let most = share + u64::from(min) * 11 + u64::from(budget.at_once());
            assert!(extra <= most, "{extra} of at most {most} at {percent} %, {min}");
            let least = 100_000 * u64::from(percent) / 100;
            assert!(extra >= least, "{extra}: the share itself is granted, {least} at {percent} %, {min}");
        }
    }

    #[test]
    fn other_settings_hold_at_once() {
        let now = Instant::now();
        let mut budget = Budget::new(BudgetSettings { percent: 100, min: 50 }, now);
        (0..10).for_each(|_| budget.begin());
        budget.reconfigure(BudgetSettings { percent: 20, min: 1 });
        assert_eq!(taken(&mut budget, now), 2);
    }
}

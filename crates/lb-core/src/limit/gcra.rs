//! The generic cell rate algorithm: a rate and a burst, decided by one number.
//!
//! Each request costs [`RequestRate`]'s interval, which is the window divided by the requests that it allows. A key owes until a moment; a request that
//! passes puts that moment off by one interval, and passes only if the key owes no more than `burst` intervals then. So in every span of time at most
//! `burst` requests pass, and one more for each interval of the span.

use std::num::NonZeroU64;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The most requests in a second: the rounding of shorter intervals would be felt.
const MOST_A_SECOND: u64 = 1_000_000;

/// The most that is owed, nanoseconds: 146 years.
const LONGEST: u64 = u64::MAX >> 2;

/// How often requests may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestRate {
    requests: NonZeroU64,
    window_seconds: NonZeroU64,
    burst: NonZeroU64,
    /// What a request costs, nanoseconds.
    interval: NonZeroU64,
    /// The most that a key may owe, nanoseconds.
    most: u64,
}

impl RequestRate {
    /// So many requests in a window of so many seconds on average, of which `burst` may come at once. `None` where one of them is zero, or more
    /// than a million requests would pass in a second.
    pub fn new(requests: u64, window_seconds: u64, burst: u64) -> Option<Self> {
        let (requests, window_seconds) = (NonZeroU64::new(requests)?, NonZeroU64::new(window_seconds)?);
        let burst = NonZeroU64::new(burst)?;
        if requests.get() > window_seconds.get().saturating_mul(MOST_A_SECOND) {
            return None;
        }
        // Rounded up: never more than the rate passes.
        let interval = window_seconds.get().checked_mul(SECOND)?.div_ceil(requests.get());
        let interval = NonZeroU64::new(interval).filter(|interval| interval.get() <= LONGEST)?;
        // Far from the end of the range, so that sums with moments do not overflow.
        let most = interval.get().saturating_mul(burst.get()).min(LONGEST);
        Some(Self { requests, window_seconds, burst, interval, most })
    }

    /// Requests in a window.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// The window, seconds.
    pub fn window_seconds(&self) -> u64 {
        self.window_seconds.get()
    }

    /// Requests that may come at once.
    pub fn burst(&self) -> u64 {
        self.burst.get()
    }

    /// What a request costs, nanoseconds.
    pub(crate) fn interval(&self) -> u64 {
        self.interval.get()
    }

    /// Decides on a request at `now` of a key that owes until `until`, both in nanoseconds on one clock: the moment until which it owes then, where the
    /// request passes.
    ///
    /// # Errors
    /// How long after `now` the next request passes, in nanoseconds, where this one does not.
    #[inline]
    pub fn decide(&self, until: u64, now: u64) -> Result<u64, u64> {
        // What was owed under a rate with a larger burst is owed no longer than this one allows.
        let until = until.clamp(now, now.saturating_add(self.most));
        let next = until.saturating_add(self.interval.get());
        let earliest = next.saturating_sub(self.most);
        if earliest <= now { Ok(next) } else { Err(earliest.saturating_sub(now)) }
    }

    /// The moment until which a key may owe at most, if it owes longer: it can only under a rate that allowed more.
    #[inline]
    pub(super) fn less_than_owed(&self, until: u64, now: u64) -> Option<u64> {
        Some(now.saturating_add(self.most)).filter(|most| *most < until)
    }

    /// What is left to a key that owes until `until`.
    pub fn standing(&self, until: u64, now: u64) -> RateStanding {
        let owed = until.saturating_sub(now).min(self.most);
        // The interval is not zero.
        let remaining = self.most.saturating_sub(owed).checked_div(self.interval.get()).unwrap_or(0);
        RateStanding { remaining, reset_seconds: owed.div_ceil(SECOND) }
    }
}

/// What is left to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateStanding {
    /// Requests that pass at this moment.
    pub remaining: u64,
    /// Seconds until the key owes nothing any more.
    pub reset_seconds: u64,
}

/// Whole seconds to wait, at least one.
pub(crate) fn wait_seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(SECOND).max(1)
}

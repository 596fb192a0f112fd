//! Counts of how members serve, each kept by one worker and read by the control thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use lb_core::outlier::Counts;

/// The counts of one member at one worker, which alone writes them. On cache lines of its own: each worker writes with every request.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    requests: AtomicU64,
    failures: AtomicU64,
    timed: AtomicU64,
    latency_ns: AtomicU64,
    begun: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    /// When the last request ended that had a response: nanoseconds from when the member came to be.
    heard_ns: AtomicU64,
}

impl Tally {
    /// A request begins; [`Self::count`] or [`Self::withdraw`] ends it.
    #[inline]
    pub(crate) fn begin(&self) {
        add(&self.begun, 1);
    }

    /// What began is over and does not count as a request.
    pub(crate) fn withdraw(&self) {
        self.begun.store(self.begun.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// A connection was opened.
    pub(crate) fn open(&self) {
        add(&self.opened, 1);
    }

    /// It was closed.
    pub(crate) fn close(&self) {
        add(&self.closed, 1);
    }

    /// Requests and connections that run now.
    pub(crate) fn running(&self) -> (u64, u64) {
        // What ends first, so that nothing can end that has not begun.
        let (ended, closed) = (self.requests.load(Relaxed), self.closed.load(Relaxed));
        (self.begun.load(Relaxed).saturating_sub(ended), self.opened.load(Relaxed).saturating_sub(closed))
    }

    /// Counts one request that ends `now`. Only the worker whose tally it is may call this, so that no locked instruction is needed.
    #[inline]
    pub(crate) fn count(&self, failed: bool, latency: Option<Duration>, now: Duration) {
        add(&self.requests, 1);
        if failed {
            add(&self.failures, 1);
        }
        if let Some(latency) = latency {
            add(&self.timed, 1);
            add(&self.latency_ns, nanos(latency));
            self.heard_ns.store(nanos(now), Relaxed);
        }
    }

    /// When the last request ended that had a response, if any did.
    pub(crate) fn heard(&self) -> Option<Duration> {
        Some(self.heard_ns.load(Relaxed)).filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }

    /// What has been counted so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            requests: self.requests.load(Relaxed),
            failures: self.failures.load(Relaxed),
            timed: self.timed.load(Relaxed),
            latency: Duration::from_nanos(self.latency_ns.load(Relaxed)),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).saturating_add(amount), Relaxed);
}

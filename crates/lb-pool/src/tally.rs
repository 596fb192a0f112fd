//! Counts of how members serve, each kept by one worker and read by the control thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use lb_core::outlier::Counts;

/// The counts of one member at one worker, which alone writes them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: AtomicU64,
    failures: AtomicU64,
    timed: AtomicU64,
    latency_ns: AtomicU64,
}

impl Tally {
    /// Counts one request. For the worker whose tally it is: nobody else adds, so that no locked instruction is needed.
    #[inline]
    pub(crate) fn count(&self, failed: bool, latency: Option<Duration>) {
        add(&self.requests, 1);
        if failed {
            add(&self.failures, 1);
        }
        if let Some(latency) = latency {
            add(&self.timed, 1);
            add(&self.latency_ns, u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
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

fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).saturating_add(amount), Relaxed);
}

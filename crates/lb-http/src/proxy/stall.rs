//! A side that takes nothing of what waits for it.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second that a side has to take, to count as one that takes anything.
const LEAST_RATE: u64 = 64;

/// Since when a side takes nothing, or next to nothing.
#[derive(Debug, Default)]
pub(super) struct Stall {
    since: Option<Instant>,
    /// Bytes taken since then.
    taken: u64,
}

impl Stall {
    /// The side took nothing, at `now` or since an earlier call.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// The side took something, or everything.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// The side took something, but not everything. A byte now and then is no progress: a window that is opened by drips would hold
    /// memory for ever (attack H2-04).
    pub(super) fn progress(&mut self, bytes: u64, now: Instant) {
        let Some(since) = self.since else { return };
        self.taken = self.taken.saturating_add(bytes);
        if self.taken >= LEAST_RATE.saturating_mul((now - since).as_secs().saturating_add(1)) {
            *self = Self { since: Some(now), taken: 0 };
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn due(&self, after: Duration) -> Option<Instant> {
        self.since.map(|since| since + after)
    }
}

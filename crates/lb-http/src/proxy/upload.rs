//! How the body of a request gets on.

use std::time::Duration;

use tokio::time::Instant;

/// Sweeps that an upload is given before its rate counts.
const RATE_GRACE_SWEEPS: u32 = 5;

/// How the request body gets on.
#[derive(Debug)]
pub(super) struct Upload {
    has_body: bool,
    done: bool,
    /// The backend takes no more of it, but may still answer.
    abandoned: bool,
    /// The client waits to be told to go on (RFC 9110 §10.1.1): it is not the client that holds the request up.
    pub(super) expects: bool,
    consumed: bool,
    pub(super) progress: Instant,
    /// Since when the rate counts, and the bytes since then.
    rate_since: Instant,
    rate_bytes: u64,
    /// Sweeps over which the rate was looked at, those of the grace included.
    pub(super) sweeps: u32,
}

impl Upload {
    pub(super) fn new(has_body: bool, expects: bool, now: Instant) -> Self {
        Self {
            has_body,
            done: !has_body,
            abandoned: false,
            expects,
            consumed: false,
            progress: now,
            rate_since: now,
            rate_bytes: 0,
            sweeps: RATE_GRACE_SWEEPS,
        }
    }

    /// A backend is there: its answer is due from now on, and so is the client's body.
    pub(super) fn restart(&mut self, now: Instant) {
        self.abandoned = false;
        self.resume(now);
    }

    /// The client was held back until now: its clocks start anew.
    pub(super) fn resume(&mut self, now: Instant) {
        self.progress = now;
        self.rate_since = now;
        self.rate_bytes = 0;
        self.sweeps = RATE_GRACE_SWEEPS;
    }

    /// The backend asks for the body: a client that waited for that goes on. After a final answer it need not.
    pub(super) fn asked_for(&mut self, now: Instant) {
        if std::mem::take(&mut self.expects) {
            self.resume(now);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether body bytes are still wanted from the client.
    pub(super) fn is_wanted(&self) -> bool {
        !self.done && !self.abandoned
    }

    /// Whether the backend takes no more of it.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Whether something of the body was taken from the client and cannot be had again; the end of an empty one included.
    pub(super) fn is_consumed(&self) -> bool {
        self.consumed || (self.done && self.has_body)
    }

    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
    }

    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        if bytes > 0 {
            self.consumed = true;
            self.expects = false;
        }
        self.rate_bytes = self.rate_bytes.saturating_add(bytes);
        self.progress = now;
    }

    pub(super) fn finish(&mut self, now: Instant) {
        self.done = true;
        self.expects = false;
        self.progress = now;
    }

    /// The tunnel opens the client's direction again.
    pub(super) fn reopen(&mut self, now: Instant) {
        self.done = false;
        self.progress = now;
    }

    /// Since when nothing more of the body was wanted, but not before `since`; `None` while more is.
    pub(super) fn ended_since(&self, since: Instant) -> Option<Instant> {
        if self.is_wanted() {
            return None;
        }
        Some(if self.has_body { self.progress.max(since) } else { since })
    }

    pub(super) fn rate_due(&self, interval: Duration) -> Instant {
        self.rate_since + interval.saturating_mul(self.sweeps)
    }

    pub(super) fn is_too_slow(&self, least: u64, now: Instant) -> bool {
        let seconds = (now - self.rate_since).as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate of bytes per second needs no more than 52 bits"
        )]
        let (bytes, least) = (self.rate_bytes as f64, least as f64);
        bytes < least * seconds
    }
}

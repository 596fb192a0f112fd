//! The deadlines of an exchange: which one is next, and which one has come.

use std::time::Duration;

use tokio::time::Instant;

use super::{Exchange, Stage};

/// Sweeps that an upload is given before its rate counts.
const RATE_GRACE_SWEEPS: u32 = 5;

/// Since when a side takes nothing.
#[derive(Debug, Default)]
pub(super) struct Stall(Option<Instant>);

impl Stall {
    /// The side took nothing, at `now` or since an earlier call.
    pub(super) fn begin(&mut self, now: Instant) {
        self.0.get_or_insert(now);
    }

    /// The side took something, or everything.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// The side took something, but not everything.
    pub(super) fn progress(&mut self, now: Instant) {
        if self.0.is_some() {
            self.0 = Some(now);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    fn due(&self, after: Duration) -> Option<Instant> {
        self.0.map(|since| since + after)
    }
}

/// How the request body gets on.
#[derive(Debug)]
pub(super) struct Upload {
    done: bool,
    /// The backend takes no more of it, but may still answer.
    abandoned: bool,
    bytes: u64,
    started: Instant,
    progress: Instant,
    /// Sweeps over which the rate was looked at.
    sweeps: u32,
}

impl Upload {
    pub(super) fn new(has_body: bool, now: Instant) -> Self {
        Self {
            done: !has_body,
            abandoned: false,
            bytes: 0,
            started: now,
            progress: now,
            sweeps: RATE_GRACE_SWEEPS,
        }
    }

    /// A backend is there: its answer is due from now on, and so is the client's body.
    pub(super) fn restart(&mut self, now: Instant) {
        self.started = now;
        self.progress = now;
        self.abandoned = false;
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether body bytes are still wanted from the client.
    pub(super) fn is_wanted(&self) -> bool {
        !self.done && !self.abandoned
    }

    /// Whether body bytes were taken from the client and cannot be had again.
    pub(super) fn is_consumed(&self) -> bool {
        self.bytes > 0
    }

    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
    }

    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.progress = now;
    }

    pub(super) fn finish(&mut self, now: Instant) {
        self.done = true;
        self.progress = now;
    }

    /// The tunnel opens the client's direction again.
    pub(super) fn reopen(&mut self, now: Instant) {
        self.done = false;
        self.progress = now;
    }

    fn rate_due(&self, interval: Duration) -> Instant {
        self.started + interval.saturating_mul(self.sweeps)
    }

    fn is_too_slow(&self, least: u64, now: Instant) -> bool {
        let seconds = (now - self.started).as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate of bytes per second needs no more than 52 bits"
        )]
        let (bytes, least) = (self.bytes as f64, least as f64);
        bytes < least * seconds
    }
}

/// A deadline that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing passed through the tunnel.
    TunnelIdle,
    /// The client does not read.
    ClientRead,
    /// The client does not send.
    Upload,
    /// The client sends too slowly.
    UploadRate,
    /// The backend does not answer or does not read, or the request as a whole took too long.
    Backend,
}

impl Exchange {
    /// The earliest moment at which something may have expired.
    pub(super) fn due(&self) -> Instant {
        let http = &self.settings.http;
        let stalls = [self.front_stall.due(http.write_timeout), self.back_stall.due(http.body_timeout)];
        let rest = if self.response.tunnel {
            [Some(self.upload.progress + self.settings.tunnel_idle), None]
        } else {
            [Some(self.started + http.total_timeout), self.phase_due()]
        };
        let rate = self.counts_rate().then(|| self.upload.rate_due(self.settings.rate_interval));
        // There is always the first of `rest`.
        stalls.into_iter().chain(rest).chain([rate]).flatten().min().unwrap_or(self.now)
    }

    /// Deadline of the phase that a request is in: upload, or wait for the response head.
    fn phase_due(&self) -> Option<Instant> {
        if !matches!(self.stage, Stage::Relay { .. }) {
            return None;
        }
        if self.waits_for_client() {
            Some(self.upload.progress + self.settings.http.body_timeout)
        } else if self.response.status == 0 && !self.upload.is_wanted() {
            Some(self.upload.progress + self.settings.http.head_timeout)
        } else {
            None
        }
    }

    fn waits_for_client(&self) -> bool {
        matches!(self.stage, Stage::Relay { .. }) && self.upload.is_wanted() && !self.back_stall.is_on()
    }

    fn counts_rate(&self) -> bool {
        self.settings.min_upload_rate > 0 && !self.response.tunnel && self.waits_for_client()
    }

    /// What has expired by now, if anything.
    pub(super) fn what_expired(&mut self) -> Option<Expired> {
        let now = self.now;
        let http = &self.settings.http;
        let come = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if come(self.front_stall.due(http.write_timeout)) {
            return Some(Expired::ClientRead);
        }
        if come(self.back_stall.due(http.body_timeout)) {
            return Some(Expired::Backend);
        }
        if self.response.tunnel {
            return come(Some(self.upload.progress + self.settings.tunnel_idle))
                .then_some(Expired::TunnelIdle);
        }
        if come(self.phase_due()) || come(Some(self.started + http.total_timeout)) {
            return Some(if self.waits_for_client() { Expired::Upload } else { Expired::Backend });
        }
        if self.counts_rate() && come(Some(self.upload.rate_due(self.settings.rate_interval))) {
            if self.upload.is_too_slow(self.settings.min_upload_rate, now) {
                return Some(Expired::UploadRate);
            }
            self.upload.sweeps = self.upload.sweeps.saturating_add(1);
        }
        None
    }
}

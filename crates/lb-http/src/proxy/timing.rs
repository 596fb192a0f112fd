//! The deadlines of an exchange: which one is next, and which one has come.

use std::time::Duration;

use tokio::time::Instant;

use super::tunnel::{self, Tunnel};
use super::{Exchange, Stage};
use crate::websocket::Close;

/// Sweeps that an upload is given before its rate counts.
const RATE_GRACE_SWEEPS: u32 = 5;

/// As good as never.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

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

    fn due(&self, after: Duration) -> Option<Instant> {
        self.since.map(|since| since + after)
    }
}

/// How the request body gets on.
#[derive(Debug)]
pub(super) struct Upload {
    has_body: bool,
    done: bool,
    /// The backend takes no more of it, but may still answer.
    abandoned: bool,
    /// The client waits to be told to go on (RFC 9110 §10.1.1): it is not the client that keeps everybody waiting.
    expects: bool,
    consumed: bool,
    progress: Instant,
    /// Since when the rate counts, and the bytes since then.
    rate_since: Instant,
    rate_bytes: u64,
    /// Sweeps over which the rate was looked at, those of the grace included.
    sweeps: u32,
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

    fn rate_due(&self, interval: Duration) -> Instant {
        self.rate_since + interval.saturating_mul(self.sweeps)
    }

    fn is_too_slow(&self, least: u64, now: Instant) -> bool {
        let seconds = (now - self.rate_since).as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate of bytes per second needs no more than 52 bits"
        )]
        let (bytes, least) = (self.rate_bytes as f64, least as f64);
        bytes < least * seconds
    }
}

/// A deadline that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// A limit of the tunnel.
    Tunnel(tunnel::Expired),
    /// The client does not read.
    ClientRead,
    /// The client does not send.
    Upload,
    /// The client sends too slowly.
    UploadRate,
    /// The backend does not answer or does not read, or the request as a whole took too long.
    Backend,
    /// The deadline of a call.
    CallDeadline,
    /// Nothing passed in a call that has no deadline.
    CallIdle,
    /// A watch looks for changes.
    HealthWatch,
    /// The time in the queue is over.
    Queue,
    /// The time for one try is over.
    Try,
    /// The response has not come for longer than most take.
    Hedge,
}

impl Exchange {
    /// The earliest moment at which something may have expired.
    pub(super) fn due(&self) -> Instant {
        let http = &self.settings.http;
        if let Some(tunnel) = &self.tunnel {
            return self.tunnel_due(tunnel).map_or(self.now + FAR, |(at, _)| at);
        }
        let stalls = [self.front_stall.due(http.write_timeout), self.back_stall.due(http.write_timeout)];
        let rest = [self.whole_due(), self.phase_due(), self.try_due(), self.hedge_due()];
        let rate = self.counts_rate().then(|| self.upload.rate_due(self.settings.rate_interval));
        stalls.into_iter().chain(rest).chain([rate]).flatten().min().unwrap_or(self.now + FAR)
    }

    /// What is due next of a tunnel, and when.
    fn tunnel_due(&self, tunnel: &Tunnel) -> Option<(Instant, tunnel::Expired)> {
        let limit = tunnel.stall_limit();
        let stalls = [&self.front_stall, &self.back_stall].map(|stall| {
            let at = limit.and_then(|limit| stall.due(limit))?;
            Some((at, tunnel::Expired::Limit(Close::WRITE_TIMEOUT)))
        });
        stalls.into_iter().chain([tunnel.due()]).flatten().min_by_key(|(at, _)| *at)
    }

    /// Deadline of the request as a whole. A call has its own, which is behind it once its end is on the way.
    fn whole_due(&self) -> Option<Instant> {
        match &self.call {
            Some(call) => call.due().filter(|_| !self.response.done),
            None => self.settings.http.total_timeout.map(|limit| self.started + limit),
        }
    }

    /// Whether the deadline of the request as a whole has come.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.whole_due().is_some_and(|due| due <= self.now)
    }

    /// Deadline of the phase that a request is in: upload, or wait for the response head.
    fn phase_due(&self) -> Option<Instant> {
        if let Stage::Wait { since, .. } = self.stage {
            return Some(since + self.settings.connect_timeout + self.settings.handshake_timeout);
        }
        if let Stage::Health(health) = &self.stage {
            return health.due();
        }
        if let Stage::Queue { waiting, .. } = &self.stage {
            return Some(waiting.until().into());
        }
        // Messages of a call come when they come.
        if !matches!(self.stage, Stage::Relay { .. }) || self.call.is_some() {
            return None;
        }
        if self.waits_for_client() {
            Some(self.upload.progress + self.settings.http.body_timeout)
        } else if self.response.status == 0 && !self.back_stall.is_on() {
            // A try that began beside another has its own time.
            let begun = self.member.map_or(self.started, |(_, since)| since);
            Some(self.upload.progress.max(begun) + self.settings.http.head_timeout)
        } else {
            self.response_idle_due()
        }
    }

    /// When a response that has begun has been silent for too long. A side that takes nothing has a deadline of its own.
    fn response_idle_due(&self) -> Option<Instant> {
        let moves = !self.back_stall.is_on() && !self.front_stall.is_on();
        let limit =
            self.settings.http.response_idle_timeout.filter(|_| moves && self.response.status != 0)?;
        Some(self.active + limit)
    }

    /// The key whose limit has come, for the log.
    pub(super) fn limit_of(&self, expired: Expired) -> &'static str {
        match expired {
            Expired::ClientRead | Expired::Backend | Expired::Upload if self.is_out_of_time() => {
                "total_timeout_ms"
            }
            Expired::ClientRead => "write_timeout_ms",
            Expired::Upload => "body_timeout_ms",
            Expired::UploadRate => "body_progress_min_bps",
            Expired::Backend if self.back_stall.is_on() => "write_timeout_ms",
            Expired::Backend if self.response.status != 0 => "response_idle_timeout_ms",
            Expired::Backend => "head_timeout_ms",
            Expired::CallDeadline => "grpc-timeout",
            Expired::CallIdle => "max_deadline_seconds",
            Expired::Try => "per_try_timeout_ms",
            Expired::Tunnel(_) | Expired::HealthWatch | Expired::Queue | Expired::Hedge => "",
        }
    }

    fn waits_for_client(&self) -> bool {
        matches!(self.stage, Stage::Relay { .. })
            && self.upload.is_wanted()
            && !self.upload.expects
            && !self.back_stall.is_on()
    }

    fn counts_rate(&self) -> bool {
        self.settings.min_upload_rate > 0
            && self.tunnel.is_none()
            && self.call.is_none()
            && self.waits_for_client()
    }

    /// What has expired by now, if anything.
    pub(super) fn what_expired(&mut self) -> Option<Expired> {
        let now = self.now;
        let http = &self.settings.http;
        let come = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if let Some(tunnel) = &self.tunnel {
            let due = self.tunnel_due(tunnel).filter(|(at, _)| *at <= now);
            return due.map(|(_, expired)| Expired::Tunnel(expired));
        }
        if let Some(call) = &self.call
            && come(self.whole_due())
        {
            return Some(call.expiry());
        }
        if come(self.front_stall.due(http.write_timeout)) {
            return Some(Expired::ClientRead);
        }
        if come(self.back_stall.due(http.write_timeout)) {
            return Some(Expired::Backend);
        }
        if matches!(self.stage, Stage::Health(_)) && come(self.phase_due()) {
            return Some(Expired::HealthWatch);
        }
        let total = self.is_out_of_time();
        if !total && matches!(self.stage, Stage::Queue { .. }) && come(self.phase_due()) {
            return Some(Expired::Queue);
        }
        if !total && come(self.try_due()) {
            return Some(Expired::Try);
        }
        if !total && come(self.hedge_due()) {
            return Some(Expired::Hedge);
        }
        if total && (self.front_stall.is_on() || matches!(self.stage, Stage::Flush)) {
            return Some(Expired::ClientRead);
        }
        if total || come(self.phase_due()) {
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

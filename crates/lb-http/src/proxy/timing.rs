//! The deadlines of an exchange: which one is next, and which one has come.

use std::time::Duration;

use tokio::time::Instant;

use super::exchange::{Exchange, Stage};
use super::tries::Leg;
use super::tunnel::{self, Tunnel};
use crate::websocket::Close;

/// As good as never.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// The times of an exchange.
#[derive(Debug)]
pub(super) struct Clock {
    /// When the first byte of the request came.
    pub(super) started: Instant,
    /// When the present turn is taken.
    pub(super) now: Instant,
    /// When something has passed last, either way.
    pub(super) active: Instant,
    /// The key whose limit ends the exchange, for the log.
    pub(super) limit: &'static str,
    /// The last turn was taken.
    pub(super) ended: bool,
}

impl Clock {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, now: started, active: started, limit: "", ended: false }
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
    /// The pause before a try is over.
    Pause,
    /// The time that a request waits on purpose.
    Delay,
    /// The time for one try is over.
    Try,
    /// The response has not come for longer than most take.
    Hedge,
}

impl Exchange {
    /// The earliest moment at which something may have expired.
    pub(super) fn due(&self) -> Instant {
        let http = self.http();
        if let Some(tunnel) = &self.tunnel {
            return self.tunnel_due(tunnel).map_or(self.clock.now + FAR, |(at, _)| at);
        }
        let stalls =
            [self.client.stall.due(http.write_timeout), self.tries.current.stall.due(http.write_timeout)];
        let rest = [self.whole_due(), self.phase_due(), self.try_due(), self.hedge_due()];
        let rate = self.counts_rate().then(|| self.request.upload.rate_due(self.settings.rate_interval));
        stalls.into_iter().chain(rest).chain([rate]).flatten().min().unwrap_or(self.clock.now + FAR)
    }

    /// The times that hold for the request: those of its route, or of the listener.
    #[inline]
    pub(super) fn http(&self) -> &lb_config::Http {
        match self.request.route {
            Some(route) => self.settings.routes.http(route).unwrap_or(&self.settings.http),
            None => &self.settings.http,
        }
    }

    /// What is due next of a tunnel, and when.
    fn tunnel_due(&self, tunnel: &Tunnel) -> Option<(Instant, tunnel::Expired)> {
        let limit = tunnel.stall_limit();
        let stalls = [&self.client.stall, &self.tries.current.stall].map(|stall| {
            let at = limit.and_then(|limit| stall.due(limit))?;
            Some((at, tunnel::Expired::Limit(Close::WRITE_TIMEOUT)))
        });
        stalls.into_iter().chain([tunnel.due()]).flatten().min_by_key(|(at, _)| *at)
    }

    /// Deadline of the request as a whole. A call has its own, which is behind it once its end is on the way.
    fn whole_due(&self) -> Option<Instant> {
        match &self.call {
            Some(call) => call.due().filter(|_| !self.response.done),
            None => self.http().total_timeout.map(|limit| self.clock.started + limit),
        }
    }

    /// Whether the deadline of the request as a whole has come.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.whole_due().is_some_and(|due| due <= self.clock.now)
    }

    /// Deadline of the phase that a request is in: upload, or wait for the response head.
    fn phase_due(&self) -> Option<Instant> {
        if let Stage::Health(health) = &self.stage {
            // What a client that reads nothing is told waits until it reads, which wakes the exchange.
            return health.due().filter(|_| !self.client.stall.is_on());
        }
        if matches!(self.stage, Stage::Buffer) {
            return Some(self.request.upload.progress + self.http().body_timeout);
        }
        if matches!(self.stage, Stage::Delayed) {
            return self.delayed_until();
        }
        match &self.tries.current.leg {
            Leg::Wait { since, .. } => {
                return Some(*since + self.settings.connect_timeout + self.settings.handshake_timeout);
            }
            Leg::Queue { waiting, .. } => return Some(waiting.until().into()),
            Leg::Pause { until } => return Some(*until),
            // Messages of a call come when they come.
            Leg::Relay(_) if self.call.is_none() => {}
            _ => return None,
        }
        if self.waits_for_client() {
            Some(self.request.upload.progress + self.http().body_timeout)
        } else if self.response.status == 0 && !self.tries.current.stall.is_on() {
            // A try that began beside another has its own time.
            let begun = self.tries.current.since().unwrap_or(self.clock.started);
            Some(self.request.upload.progress.max(begun) + self.http().head_timeout)
        } else {
            self.response_idle_due()
        }
    }

    /// When a response that has begun has been silent for too long. A side that takes nothing has a deadline of its own.
    fn response_idle_due(&self) -> Option<Instant> {
        let moves = !self.tries.current.stall.is_on() && !self.client.stall.is_on();
        let limit = self.http().response_idle_timeout.filter(|_| moves && self.response.status != 0)?;
        Some(self.clock.active + limit)
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
            Expired::Backend if self.tries.current.stall.is_on() => "write_timeout_ms",
            Expired::Backend if self.response.status != 0 => "response_idle_timeout_ms",
            Expired::Backend => "head_timeout_ms",
            Expired::CallDeadline => "grpc-timeout",
            Expired::CallIdle => "max_deadline_seconds",
            Expired::Try => "per_try_timeout_ms",
            Expired::Tunnel(_)
            | Expired::HealthWatch
            | Expired::Queue
            | Expired::Pause
            | Expired::Delay
            | Expired::Hedge => "",
        }
    }

    fn waits_for_client(&self) -> bool {
        (self.tries.current.is_relaying() || matches!(self.stage, Stage::Buffer))
            && self.request.upload.is_wanted()
            && !self.request.upload.expects
            && !self.tries.current.stall.is_on()
    }

    fn counts_rate(&self) -> bool {
        self.settings.min_upload_rate > 0
            && self.tunnel.is_none()
            && self.call.is_none()
            && self.waits_for_client()
    }

    /// What has expired by now, if anything.
    pub(super) fn what_expired(&mut self) -> Option<Expired> {
        let now = self.clock.now;
        let write_timeout = self.http().write_timeout;
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
        if come(self.client.stall.due(write_timeout)) {
            return Some(Expired::ClientRead);
        }
        if come(self.tries.current.stall.due(write_timeout)) {
            // A backend whose response the client holds up may read nothing before that is gone.
            return Some(if self.client.stall.is_on() { Expired::ClientRead } else { Expired::Backend });
        }
        if matches!(self.stage, Stage::Health(_)) && come(self.phase_due()) {
            return Some(Expired::HealthWatch);
        }
        let total = self.is_out_of_time();
        if !total && matches!(self.stage, Stage::Delayed) && come(self.phase_due()) {
            return Some(Expired::Delay);
        }
        if !total && matches!(self.tries.current.leg, Leg::Queue { .. }) && come(self.phase_due()) {
            return Some(Expired::Queue);
        }
        if !total && matches!(self.tries.current.leg, Leg::Pause { .. }) && come(self.phase_due()) {
            return Some(Expired::Pause);
        }
        if !total && come(self.try_due()) {
            return Some(Expired::Try);
        }
        if !total && come(self.hedge_due()) {
            return Some(Expired::Hedge);
        }
        if total && (self.client.stall.is_on() || matches!(self.stage, Stage::Flush)) {
            return Some(Expired::ClientRead);
        }
        if total || come(self.phase_due()) {
            return Some(if self.waits_for_client() { Expired::Upload } else { Expired::Backend });
        }
        if self.counts_rate() && come(Some(self.request.upload.rate_due(self.settings.rate_interval))) {
            if self.request.upload.is_too_slow(self.settings.min_upload_rate, now) {
                return Some(Expired::UploadRate);
            }
            self.request.upload.sweeps = self.request.upload.sweeps.saturating_add(1);
        }
        None
    }
}

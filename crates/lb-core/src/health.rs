//! Active health: when a backend is probed, and what its answers mean.
//!
//! One [`Target`] stands for one address in the whole process. The owner of the sockets looks up when the next probe is due, reports how
//! the probe ended, and publishes the change if there is one.
//!
//! * Before the first verdict a backend counts as healthy: nothing is known against it, and a start must not wait for probes. The first
//!   probe decides at once, either way: nothing good is known of it yet that one failure could be weighed against.
//! * From then on `fall` failures in a row are needed to lose a healthy backend and `rise` successes in a row to take it back. A backend
//!   that flaps faster than that changes nothing (attack C-04): `n` probes make at most `1 + n / min(rise, fall)` changes.
//! * There is at most one probe under way, and it has a deadline. A target that lets every probe run into it (tar-pit, C-04) costs one
//!   connection, and is probed no more often than any other.
//! * Each distance between probes is drawn anew, so that thousands of targets, or the instances of a fleet, do not fall into step. A
//!   process that was stopped for a while does not make up for the probes it missed.

use std::time::{Duration, Instant};

use crate::rng::SplitMix64;

/// How a target is probed (`[pools.NAME.health]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// From the start of a probe to the start of the next, on average; between [`MIN_INTERVAL`] and [`MAX_INTERVAL`].
    pub interval: Duration,
    /// How long one probe may take, from the name to the last byte; at most [`MAX_INTERVAL`].
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy target healthy; 0 counts as 1.
    pub rise: u32,
    /// Failures in a row that make a healthy target unhealthy; 0 counts as 1.
    pub fall: u32,
    /// How far a distance may differ from `interval`, in percent of it; more than [`MAX_JITTER_PERCENT`] counts as that.
    pub jitter_percent: u32,
}

/// The shortest interval: a prober must not become a flood.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The longest interval and timeout.
pub const MAX_INTERVAL: Duration = Duration::from_secs(86_400);

/// The greatest jitter: no distance is less than half an interval.
pub const MAX_JITTER_PERCENT: u32 = 50;

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            jitter_percent: 10,
        }
    }
}

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// No probe has ended yet. Counts as healthy.
    Unknown,
    /// It may be used.
    Healthy,
    /// It must not be used, outside panic.
    Unhealthy,
}

impl HealthState {
    /// Whether a balancer may pick the target.
    #[inline]
    pub fn is_usable(self) -> bool {
        self != Self::Unhealthy
    }

    /// The word for logs and the admin port.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// As expected.
    Passed,
    /// No connection came about.
    Connect,
    /// TLS was not agreed upon.
    Tls,
    /// It was not done within [`ProbeSettings::timeout`].
    Timeout,
    /// The connection ended before the answer did.
    Closed,
    /// What came is not the protocol.
    Malformed,
    /// A status that is not expected.
    Status(u16),
    /// The body lacks the expected text, or has it beyond the bytes that are looked at.
    Body,
    /// The gRPC health service says that it does not serve (`NOT_SERVING`, `SERVICE_UNKNOWN`).
    NotServing,
    /// No probe was sent: this process lacked what a connection takes. It has no bearing on the state of the target.
    NotAsked,
}

impl ProbeOutcome {
    /// Whether the target has answered, and refused: it is there.
    #[inline]
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Status(_) | Self::Body | Self::NotServing)
    }

    /// Whether the outcome speaks for the target.
    #[inline]
    pub fn passed(self) -> bool {
        self == Self::Passed
    }

    /// The reason for logs, metrics and the admin port. The set of words is closed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Status(_) => "status",
            Self::Body => "body",
            Self::NotServing => "not_serving",
            Self::NotAsked => "not_asked",
        }
    }
}

/// A change of state that is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// What was known before.
    pub from: HealthState,
    /// What is known now; never [`HealthState::Unknown`].
    pub to: HealthState,
    /// How the probe ended that brought the change about.
    pub why: ProbeOutcome,
}

/// One address that is probed.
#[derive(Clone, Debug)]
pub struct Target {
    settings: ProbeSettings,
    rng: SplitMix64,
    state: HealthState,
    /// Since when the state holds.
    since: Instant,
    /// When it last came back from being unhealthy.
    recovered: Option<Instant>,
    /// Outcomes in a row that speak against the state.
    against: u32,
    /// Whether it answers although it is unhealthy.
    refuses: bool,
    /// Outcomes in a row without an answer, while it did.
    silent: u32,
    last: Option<ProbeOutcome>,
    next: Instant,
    /// The start of the probe under way.
    began: Option<Instant>,
    counts: ProbeCounts,
}

/// Counts over the life of a target, for metrics and the admin port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// Probes that ended.
    pub probes: u64,
    /// Those among them that did not pass.
    pub failures: u64,
    /// Changes of state.
    pub changes: u64,
}

impl Target {
    /// A target of which nothing is known. Its first probe is due within the jitter of one interval; `seed` says when, and must differ
    /// between targets.
    pub fn new(settings: ProbeSettings, now: Instant, seed: u64) -> Self {
        let mut target = Self {
            settings,
            rng: SplitMix64::new(seed),
            state: HealthState::Unknown,
            since: now,
            recovered: None,
            against: 0,
            refuses: false,
            silent: 0,
            last: None,
            next: now,
            began: None,
            counts: ProbeCounts::default(),
        };
        let spread = target.jitter();
        target.next = later(now, target.below(spread));
        target
    }

    /// Continues with other settings. The state of the target stays; the next probe comes no later than the new interval allows.
    pub fn reconfigure(&mut self, settings: ProbeSettings, now: Instant) {
        self.settings = settings;
        self.next = self.next.min(later(now, self.interval() + self.jitter()));
    }

    /// When the next probe is to begin; `None` while one is under way.
    pub fn due(&self) -> Option<Instant> {
        self.began.is_none().then_some(self.next)
    }

    /// When the probe under way is to be given up, with [`ProbeOutcome::Timeout`].
    pub fn deadline(&self) -> Option<Instant> {
        self.began.map(|began| later(began, self.settings.timeout.min(MAX_INTERVAL)))
    }

    /// A probe begins. `false`, and nothing happens, when one is under way or none is due.
    #[must_use]
    pub fn begin(&mut self, now: Instant) -> bool {
        if self.began.is_some() || now < self.next {
            return false;
        }
        self.began = Some(now);
        let jitter = self.jitter();
        let shortest = self.interval().saturating_sub(jitter);
        let distance = shortest + self.below(jitter * 2);
        self.next = later(now, distance);
        true
    }

    /// The probe under way is given up without an outcome, because what it asks has changed. The next comes at its time.
    pub fn abandon(&mut self) {
        self.began = None;
    }

    /// The probe under way ended. Without a probe under way nothing happens: a late answer cannot count twice.
    pub fn end(&mut self, outcome: ProbeOutcome, now: Instant) -> Option<HealthChange> {
        self.began.take()?;
        self.next = self.next.max(now);
        if outcome == ProbeOutcome::NotAsked {
            return None;
        }
        self.last = Some(outcome);
        self.counts.probes = self.counts.probes.saturating_add(1);
        self.counts.failures = self.counts.failures.saturating_add(u64::from(!outcome.passed()));
        let (to, needed) = if outcome.passed() {
            (HealthState::Healthy, self.settings.rise)
        } else {
            (HealthState::Unhealthy, self.settings.fall)
        };
        self.note_answer(outcome);
        if self.state == to {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let from = self.state;
        if from != HealthState::Unknown && self.against < needed {
            return None;
        }
        self.state = to;
        self.since = now;
        self.against = 0;
        self.refuses = outcome.is_refusal();
        if from == HealthState::Unhealthy {
            self.recovered = Some(now);
        }
        self.counts.changes = self.counts.changes.saturating_add(1);
        Some(HealthChange { from, to, why: outcome })
    }

    /// Whether an unhealthy target is still there, and finishes what it has: it answers, and what it answers is that it is not to be used. One that has
    /// fallen silent for as many probes as make a healthy one unhealthy is there no more.
    pub fn refuses(&self) -> bool {
        self.state == HealthState::Unhealthy && self.refuses
    }

    fn note_answer(&mut self, outcome: ProbeOutcome) {
        if outcome.is_refusal() {
            (self.refuses, self.silent) = (true, 0);
        } else if outcome.passed() {
            self.silent = 0;
        } else {
            self.silent = self.silent.saturating_add(1);
            if self.silent >= self.settings.fall {
                self.refuses = false;
            }
        }
    }

    /// What is known.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Since when the state holds.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// When the target came back from being unhealthy, if it did and is healthy: the start of its slow start. The first verdict is no
    /// return: at the start of the process there is no load yet that other targets could carry in the meantime.
    pub fn healthy_since(&self) -> Option<Instant> {
        self.recovered.filter(|_| self.state == HealthState::Healthy)
    }

    /// How the last probe ended.
    pub fn last(&self) -> Option<ProbeOutcome> {
        self.last
    }

    /// The counts of the target.
    pub fn counts(&self) -> ProbeCounts {
        self.counts
    }

    fn interval(&self) -> Duration {
        self.settings.interval.clamp(MIN_INTERVAL, MAX_INTERVAL)
    }

    /// The greatest difference between a distance and the interval.
    fn jitter(&self) -> Duration {
        (self.interval() / 100).saturating_mul(self.settings.jitter_percent.min(MAX_JITTER_PERCENT))
    }

    /// A duration from zero up to `bound`.
    fn below(&mut self, bound: Duration) -> Duration {
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.below(nanos.saturating_add(1)))
    }
}

/// `now` plus `wait`; `now` when the sum is beyond what the clock can represent.
fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests;

//! Members that cannot be reached, or that answer no request, are left alone for a while.
//!
//! Neither a block in the configuration nor health checks are needed: failed requests are the evidence, and what one worker finds counts
//! for all.
//!
//! * One failed connect is enough. A member that is dead must not be tried again by each worker, nor by each request.
//! * When the rest is over, one request is let through to the member. Its answer ends the rest; until then other requests go to other
//!   members, so that a host which drops packets costs one request its connect timeout and not many.
//! * The first rest lasts as long as the settings say, each further one twice as long, up to [`GROWTH`] times. Times are shortened at
//!   random by up to a tenth, so that members which went together are not tried together.
//!
//! Whether a resting member is used after all, because no other member is left, is decided by the caller.

use std::time::{Duration, Instant};

use crate::rng::SplitMix64;

/// How many times as long as the first rest a later one may last.
pub const GROWTH: u32 = 6;

/// Why a member is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestCause {
    /// No connection to it came about.
    Connect,
    /// No connection to it came about, and the attempt took as long as a connect may.
    ConnectTimeout,
    /// It was connected to, and the TLS handshake with it failed.
    Tls,
    /// It was connected to, and the TLS handshake with it took longer than it may.
    TlsTimeout,
    /// It let a request wait for its response for too long, and answered no other request meanwhile.
    Silent,
}

impl RestCause {
    /// The cause where no connection came about: for the handshake `in_tls`, or for the connect itself.
    pub fn of_connect(in_tls: bool, timed_out: bool) -> Self {
        match (in_tls, timed_out) {
            (false, false) => Self::Connect,
            (false, true) => Self::ConnectTimeout,
            (true, false) => Self::Tls,
            (true, true) => Self::TlsTimeout,
        }
    }

    /// Whether the member let time pass, and did not refuse.
    pub fn timed_out(self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::TlsTimeout | Self::Silent)
    }

    /// The reason for logs and the admin port. The set of words is closed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls_failed",
            Self::TlsTimeout => "tls_timeout",
            Self::Silent => "no_answer",
        }
    }
}

/// A rest under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// When it began.
    pub since: Instant,
    /// When the next request is let through.
    pub until: Instant,
    /// Why it began.
    pub cause: RestCause,
    /// Failures since then, the first included.
    pub failures: u64,
    /// Requests that were let through to see whether the member answers again.
    pub trials: u64,
    /// The next request may be let through.
    pub is_due: bool,
}

/// The facts about a member whose rest has ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How long it was left alone.
    pub away: Duration,
    /// Failures meanwhile, the first included.
    pub failures: u64,
    /// Requests that were let through meanwhile.
    pub trials: u64,
}

/// The rests of the members of a pool. Members are identified by their position.
#[derive(Clone, Debug)]
pub struct Rests {
    /// How long the first rest lasts; `None` where members are never left alone.
    first: Option<Duration>,
    members: Vec<RestRecord>,
    rng: SplitMix64,
}

#[derive(Clone, Copy, Debug, Default)]
struct RestRecord {
    rest: Option<Rest>,
    /// When it came back last.
    returned: Option<Instant>,
    /// Rests in succession.
    level: u32,
}

impl Rests {
    /// For `members` members, none of which rests.
    pub fn new(first: Option<Duration>, members: usize, seed: u64) -> Self {
        Self { first, members: vec![RestRecord::default(); members], rng: SplitMix64::new(seed) }
    }

    /// A member failed. Returns until when it is left alone, if this failure begins its rest.
    pub fn failed(&mut self, at: usize, cause: RestCause, now: Instant) -> Option<Instant> {
        let first = self.first?;
        let member = self.members.get_mut(at)?;
        if let Some(rest) = &mut member.rest {
            rest.failures = rest.failures.saturating_add(1);
            return None;
        }
        let longest = first.saturating_mul(GROWTH);
        // A member that was well for long enough begins with the shortest rest again.
        let was_well = |returned: Instant| now.saturating_duration_since(returned) >= longest;
        member.level = if member.returned.is_none_or(was_well) { 0 } else { member.level.saturating_add(1) };
        let until = end(first, member.level, &mut self.rng, now);
        member.rest = Some(Rest { since: now, until, cause, failures: 1, trials: 0, is_due: false });
        Some(until)
    }

    /// Marks the members to which the next request may be let through. Returns whether any was marked.
    pub fn tend(&mut self, now: Instant) -> bool {
        let mut any = false;
        for rest in self.members.iter_mut().filter_map(|member| member.rest.as_mut()) {
            if !rest.is_due && rest.until <= now {
                rest.is_due = true;
                any = true;
            }
        }
        any
    }

    /// When [`Self::tend`] has something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        let rests = self.members.iter().filter_map(|member| member.rest);
        rests.filter(|rest| !rest.is_due).map(|rest| rest.until).min()
    }

    /// Lets one request through to a member. `false` when another request was let through already, or none is due.
    #[must_use]
    pub fn try_one(&mut self, at: usize, now: Instant) -> bool {
        let (Some(first), Some(member)) = (self.first, self.members.get_mut(at)) else { return false };
        let Some(rest) = member.rest.as_mut().filter(|rest| rest.is_due) else { return false };
        member.level = member.level.saturating_add(1);
        rest.is_due = false;
        rest.trials = rest.trials.saturating_add(1);
        rest.until = end(first, member.level, &mut self.rng, now);
        true
    }

    /// A member has answered a request that was sent to it at `asked`. Ends its rest, unless the request was sent before the rest began: a
    /// process that shuts down still answers the requests it has, and takes no new ones.
    pub fn answered(&mut self, at: usize, asked: Instant, now: Instant) -> Option<Recovery> {
        let member = self.members.get_mut(at)?;
        let rest = member.rest.filter(|rest| asked >= rest.since)?;
        Some(member.come_back(rest, now))
    }

    /// Ends the rest of a member that a health check found to be well.
    pub fn well(&mut self, at: usize, now: Instant) -> Option<Recovery> {
        let member = self.members.get_mut(at)?;
        let rest = member.rest?;
        Some(member.come_back(rest, now))
    }

    /// The rest of a member, while it is left alone.
    pub fn of(&self, at: usize) -> Option<&Rest> {
        self.members.get(at)?.rest.as_ref()
    }

    /// When a member came back, if it is not left alone: the start of its slow start.
    pub fn returned(&self, at: usize) -> Option<Instant> {
        self.members.get(at).filter(|member| member.rest.is_none())?.returned
    }

    /// How many are left alone.
    pub fn count(&self) -> usize {
        self.members.iter().filter(|member| member.rest.is_some()).count()
    }

    /// Continues with other members and settings. `from` has for each new position the old one, if there was one.
    pub fn rebuild(&mut self, first: Option<Duration>, from: &[Option<usize>]) {
        let old = std::mem::take(&mut self.members);
        let kept = |at: &Option<usize>| at.and_then(|at| old.get(at)).copied().unwrap_or_default();
        self.members = from.iter().map(kept).collect();
        self.first = first;
        if first.is_none() {
            self.members.iter_mut().for_each(|member| member.rest = None);
        }
    }
}

impl RestRecord {
    fn come_back(&mut self, rest: Rest, now: Instant) -> Recovery {
        self.rest = None;
        self.returned = Some(now);
        let Rest { since, failures, trials, .. } = rest;
        Recovery { away: now.saturating_duration_since(since), failures, trials }
    }
}

/// When a rest of this level ends.
fn end(first: Duration, level: u32, rng: &mut SplitMix64, now: Instant) -> Instant {
    let factor = 1u32.checked_shl(level).unwrap_or(u32::MAX).min(GROWTH);
    let full = first.saturating_mul(factor);
    let tenth = u64::try_from((full / 10).as_nanos()).unwrap_or(u64::MAX);
    let shorter = Duration::from_nanos(rng.below(tenth.saturating_add(1)));
    now.checked_add(full.saturating_sub(shorter)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_failure_is_enough_and_is_told_once() {
        let now = Instant::now();
        let mut rests = Rests::new(Some(FIRST), 3, 1);
        let until = rests.failed(1, RestCause::Connect, now).unwrap();
        assert!(until >= now + seconds(9) && until <= now + seconds(10));
        for _ in 0..9 {
            assert_eq!(rests.failed(1, RestCause::ConnectTimeout, now), None);
        }
        let rest = rests.of(1).unwrap();
        assert_eq!((rest.failures, rest.cause, rests.count()), (10, RestCause::Connect, 1));
        assert!(rests.of(0).is_none() && rests.failed(7, RestCause::Connect, now).is_none());
    }

    #[test]
    fn one_request_at_a_time_is_let_through_and_less_and_less_often() {
        let mut now = Instant::now();
        let mut rests = Rests::new(Some(FIRST), 1, 1);
        rests.failed(0, RestCause::ConnectTimeout, now).unwrap();
        let mut waits = Vec::new();
        for trial in 1..=6 {
            let due = rests.next_due().unwrap();
            assert!(!rests.tend(due - Duration::from_millis(1)) && !rests.try_one(0, now));
            waits.push((due - now).as_secs_f64());
            now = due;
            assert!(rests.tend(now) && !rests.tend(now));
            assert_eq!(rests.next_due(), None, "nobody has asked for it");
            assert!(rests.try_one(0, now) && !rests.try_one(0, now));
            assert_eq!(rests.failed(0, RestCause::ConnectTimeout, now), None);
            assert_eq!(rests.of(0).unwrap().trials, trial);
        }
        for (wait, most) in waits.iter().zip([10.0, 20.0, 40.0, 60.0, 60.0, 60.0]) {
            assert!(*wait <= most && *wait >= 0.9 * most, "{waits:?}");
        }
    }

    #[test]
    fn an_answer_brings_it_back_but_not_one_to_what_was_asked_before() {
        let now = Instant::now();
        let mut rests = Rests::new(Some(FIRST), 1, 1);
        rests.failed(0, RestCause::Connect, now);
        assert_eq!(rests.answered(0, now - seconds(1), now + seconds(3)), None);
        let back = rests.answered(0, now + seconds(1), now + seconds(3));
        assert_eq!(back, Some(Recovery { away: seconds(3), failures: 1, trials: 0 }));
        assert_eq!((rests.count(), rests.returned(0)), (0, Some(now + seconds(3))));
        assert_eq!(rests.answered(0, now + seconds(4), now + seconds(4)), None);
    }

    #[test]
    fn who_fails_again_soon_rests_longer_and_who_was_well_begins_anew() {
        let mut now = Instant::now();
        let mut rests = Rests::new(Some(FIRST), 1, 1);
        let mut rest_of = |now: Instant| {
            let until = rests.failed(0, RestCause::Connect, now).unwrap();
            rests.well(0, now).unwrap();
            (until - now).as_secs()
        };
        assert!(rest_of(now) < 11);
        assert!((18..=20).contains(&rest_of(now)));
        assert!((36..=40).contains(&rest_of(now)));
        now += seconds(60);
        assert!(rest_of(now) < 11);
    }

    #[test]
    fn where_nobody_is_left_alone_nobody_is() {
        let now = Instant::now();
        let mut rests = Rests::new(None, 1, 1);
        assert_eq!((rests.failed(0, RestCause::Connect, now), rests.count()), (None, 0));
        rests.rebuild(Some(FIRST), &[Some(0), None]);
        assert!(rests.failed(1, RestCause::Silent, now).is_some());
        rests.rebuild(Some(FIRST), &[None, Some(1)]);
        assert_eq!(rests.count(), 1, "it stays where it is known");
        rests.rebuild(None, &[None, Some(1)]);
        assert_eq!(rests.count(), 0);
    }
}

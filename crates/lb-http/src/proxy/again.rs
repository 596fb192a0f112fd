//! Whether a request is tried again, by the rules of its pool.
//!
//! A pool without rules of its own has those of an empty block: what no backend has seen, and repeatable requests whose connection was
//! lost. Then the listener says how often, and of that once after a loss: a request that kills the backends which serve it must not go round.
//! A connection that was used again and proved dead costs nothing of the budget then, as a backend that closes idle ones early would use
//! it up; the next try is on a fresh one, so that there is one such loss at most.

use std::task::Context;

use lb_core::failure::{Failure, Kind, Reach};
use lb_core::retry::{self, Attempt, RetryClass, RetrySettings, RetryVerdict};
use lb_pool::WorkerPool;
use tokio::time::Instant;

use super::exchange::{Exchange, Turn};
use super::extras::Extras;
use super::request::Request;
use super::tries::{Leg, Tries};
use crate::message::Front;

/// So many backends may refuse their connections without that a request has been tried, where its pool has no rules of its own: a pool of
/// which most are dead must not fail requests while that is found out.
const MOST_REFUSED: u32 = 32;

/// Decides whether the response that is about to come is taken for the client, or the request tried again instead.
#[derive(Debug)]
pub(super) struct Again<'a> {
    pub(super) pool: &'a WorkerPool,
    /// The rules that hold for the request.
    pub(super) rules: &'a RetrySettings,
    pub(super) attempt: Attempt,
    /// The present try is in the budget; from then on the next one.
    pub(super) charged: &'a mut bool,
    pub(super) now: Instant,
    /// Another try runs beside this one.
    pub(super) beside: bool,
    /// The status of the response that is not for the client.
    pub(super) withheld: Option<u16>,
}

impl Again<'_> {
    /// Whether a response with this status is withheld. `answered` says whether the client has had anything.
    pub(super) fn withholds(&mut self, status: u16, answered: bool) -> bool {
        if self.rules.conditions.statuses.contains(status)
            && ((self.beside && !answered)
                || decide(
                    self.pool,
                    self.rules,
                    Kind::Status(status).at(if answered { Reach::Answered } else { Reach::Sent }),
                    self.attempt,
                    self.charged,
                    self.now,
                ))
        {
            self.withheld = Some(status);
        }
        self.withheld.is_some()
    }
}

/// What a further try of a request depends on.
pub(super) fn facts(tries_left: u32, gone_away: u32, request: &Request) -> Attempt {
    Attempt {
        tries_left,
        idempotent: retry::is_idempotent(request.head.method()),
        body_consumed: request.upload.is_consumed() && !request.replay.is_whole(),
        gone_away,
    }
}

/// Gives the place of a try in the budget back, if it has one.
pub(super) fn try_done(pool: &WorkerPool, charged: &mut bool) {
    if std::mem::take(charged) {
        pool.try_done();
    }
}

/// Others may have a request's part of the budget.
pub(super) fn leave_budget(pool: &WorkerPool, counted: &mut bool, charged: &mut bool) {
    try_done(pool, charged);
    if std::mem::take(counted) {
        pool.end_request();
    }
}

/// Asks the rules, and the budget of the pool. The place of the try that failed is given back first: the next one needs it more.
fn decide(
    pool: &WorkerPool,
    rules: &RetrySettings,
    failure: Failure,
    attempt: Attempt,
    charged: &mut bool,
    now: Instant,
) -> bool {
    try_done(pool, charged);
    match pool.decide(&rules.conditions, failure, attempt, now.into_std()) {
        RetryVerdict::Again { charged: taken } => {
            *charged = taken;
            true
        }
        RetryVerdict::No(_) => false,
    }
}

impl Exchange {
    /// What a further try depends on.
    pub(super) fn attempt_facts(&self) -> Attempt {
        facts(self.tries_left(), self.tries.gone_away, &self.request)
    }

    /// How many further tries the request has.
    pub(super) fn tries_left(&self) -> u32 {
        let most = self.rules().attempts.unwrap_or(self.settings.http.retries);
        most.saturating_sub(self.tries.count.saturating_sub(self.tries.refused))
    }

    /// Whether another attempt may follow; counts it if so.
    pub(super) fn may_retry(&mut self, failure: Failure) -> bool {
        let failure = if self.response.has_begun() { failure.reaching(Reach::Answered) } else { failure };
        let Some(class) = failure.retry_class() else { return false };
        let attempt = self.attempt_facts();
        let is_loss = failure.is_loss();
        let has_rules = self.has_rules();
        let charged = &mut self.tries.current.charged;
        if is_loss && self.tries.lost && !has_rules {
            return false;
        }
        let may = match class {
            RetryClass::Stale if !has_rules => {
                try_done(&self.pool.balance, charged);
                retry::may_retry(failure, attempt)
            }
            _ => {
                let rules = Extras::rules(self.extras.as_deref(), self.pool.balance.retry());
                decide(&self.pool.balance, rules, failure, attempt, charged, self.clock.now)
            }
        };
        if may {
            self.tries.lost |= is_loss;
            self.count_retry(class);
        }
        may
    }

    /// What comes before a member is chosen for a further try: a pause, if the rules say so.
    pub(super) fn before_next_try(&mut self) -> Leg {
        let first = self.rules().backoff;
        if first.is_zero() {
            return Leg::Choose;
        }
        let chance = self.service.worker.io.rng.borrow_mut().next_u64();
        let Some(pause) = retry::pause(first, self.tries.pauses, chance) else { return Leg::Choose };
        self.tries.pauses = self.tries.pauses.saturating_add(1);
        // While the request waits it is at no member.
        self.leave_member();
        Leg::Pause { until: self.clock.now + pause }
    }

    /// The rules for further tries: those of the route, or of the pool.
    #[inline]
    pub(super) fn rules(&self) -> &RetrySettings {
        Extras::rules(self.extras.as_deref(), self.pool.balance.retry())
    }

    /// Whether the pool or the route has rules of its own.
    pub(super) fn has_rules(&self) -> bool {
        self.rules().attempts.is_some()
    }

    /// Another attempt follows, at another member if there is one.
    pub(super) fn count_retry(&mut self, class: RetryClass) {
        self.tries.count = self.tries.count.saturating_add(1);
        self.service.worker.metrics.http_retries.of(class).inc();
        self.pool.balance.shard().retries.of(class).inc();
        // A kept connection that was dead says nothing against the member that a client is bound to.
        if self.pool.sticky.is_none() || class != RetryClass::Stale {
            self.tries.avoid_current();
        }
    }

    /// When the time for this try is over: counted from its start, or from the end of the request's body where that comes later, since
    /// the backend is not to blame for the client.
    #[inline]
    pub(super) fn try_due(&self) -> Option<Instant> {
        let limit = self.tries.limit?;
        if self.response.status != 0 {
            return None;
        }
        let since = self.tries.current.since()?;
        match self.tries.current.leg {
            Leg::Relay(_) => self.request.upload.ended_since(since).map(|since| since + limit),
            Leg::Dial(_) | Leg::Wait { .. } => Some(since + limit),
            _ => None,
        }
    }

    /// The time for this try is over.
    pub(super) fn try_expired(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let failure = Kind::Timeout.at(Reach::of_sent(self.tries.current.is_relaying()));
        self.blame_silence();
        if self.give_side_up(failure) {
            return Turn::Again;
        }
        if !self.may_retry(failure) {
            return self.fail(cx, front, failure);
        }
        self.tries.current.status = Some(failure.status());
        self.tries.current.failure = Some(failure);
        self.tries.current.leg = self.before_next_try();
        Turn::Again
    }

    /// The backend has let the request wait for longer than it may: tells the pool, which knows whether it has answered any other.
    pub(super) fn blame_silence(&self) {
        if self.response.status == 0
            && self.tries.current.is_relaying()
            && let Some(chosen) = &self.tries.current.member
        {
            let asked = self.request.upload.ended_since(chosen.since).unwrap_or(chosen.since);
            self.pool.balance.timed_out(chosen.at, asked.into_std(), self.clock.now.into_std());
        }
    }

    /// A backend refused the connection at once: that costs the request nothing but a moment.
    pub(super) fn forgive_refusal(&mut self) {
        if !self.has_rules() && self.settings.http.retries > 0 && self.tries.refused < MOST_REFUSED {
            self.tries.refused = self.tries.refused.saturating_add(1);
        }
    }

    /// The request is over, and its part of the budget free.
    pub(super) fn leave_budget(&mut self) {
        let Tries { counted, current, .. } = &mut self.tries;
        leave_budget(&self.pool.balance, counted, &mut current.charged);
    }
}

//! Whether a request is tried again, by the rules of its pool.
//!
//! A pool without rules of its own has those of an empty block: what no backend has seen, and repeatable requests whose connection was
//! lost. Then the listener says how often, and of that once after a loss: a request that kills those who serve it must not go round.
//! A connection that was used again and proved dead costs nothing of the budget then, as a backend that closes idle ones early would use
//! it up; the next try is on a fresh one, so that there is one such loss at most.

use std::task::Context;

use lb_core::failure::{Failure, Kind, Reach};
use lb_core::head::RequestHead;
use lb_core::retry::{self, Attempt, RetryClass, Verdict};
use lb_pool::WorkerPool;
use tokio::time::Instant;

use super::replay::Replay;
use super::timing::Upload;
use super::{Exchange, Stage, Turn};
use crate::exchange::Front;

/// So many backends may refuse their connections without that a request has been tried, where its pool has no rules of its own: a pool of
/// which most are dead must not fail requests while that is found out.
const MOST_REFUSED: u32 = 32;

/// Decides whether the response that is about to come is taken for the client, or the request tried again instead.
#[derive(Debug)]
pub(super) struct Again<'a> {
    pub(super) pool: &'a WorkerPool,
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
        if self.pool.retry().conditions.statuses.contains(status)
            && ((self.beside && !answered)
                || decide(
                    self.pool,
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
pub(super) fn facts(
    tries_left: u32,
    gone_away: u32,
    request: &RequestHead,
    upload: &Upload,
    replay: &Replay,
) -> Attempt {
    Attempt {
        tries_left,
        idempotent: retry::is_idempotent(request.method()),
        body_consumed: upload.is_consumed() && !replay.is_whole(),
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

/// Asks the rules of the pool. The place of the try that failed is given back first: the next one needs it more.
fn decide(pool: &WorkerPool, failure: Failure, attempt: Attempt, charged: &mut bool, now: Instant) -> bool {
    try_done(pool, charged);
    match pool.decide(failure, attempt, now.into_std()) {
        Verdict::Again { charged: taken } => {
            *charged = taken;
            true
        }
        Verdict::No(_) => false,
    }
}

impl Exchange {
    /// What a further try depends on.
    pub(super) fn attempt_facts(&self) -> Attempt {
        facts(self.tries_left(), self.gone_away, &self.request, &self.upload, &self.replay)
    }

    /// How many further tries the request has.
    pub(super) fn tries_left(&self) -> u32 {
        let Some(pool) = self.settings.pool(self.pool) else { return 0 };
        let most = pool.balance.retry().attempts.unwrap_or(self.settings.http.retries);
        most.saturating_sub(self.retries.saturating_sub(self.refused))
    }

    /// Whether another attempt may follow; counts it if so.
    pub(super) fn may_retry(&mut self, failure: Failure) -> bool {
        let failure = if self.response.has_begun() { failure.reaching(Reach::Answered) } else { failure };
        let Some(class) = failure.retry_class() else { return false };
        let attempt = self.attempt_facts();
        let Some(pool) = self.settings.pool(self.pool) else { return false };
        let is_loss = failure.is_loss();
        let has_rules = pool.balance.retry().attempts.is_some();
        if is_loss && self.lost && !has_rules {
            return false;
        }
        let may = match class {
            RetryClass::Stale if !has_rules => {
                try_done(&pool.balance, &mut self.charged);
                retry::may_retry(failure, attempt)
            }
            _ => decide(&pool.balance, failure, attempt, &mut self.charged, self.now),
        };
        if may {
            self.lost |= is_loss;
            self.count_retry(class);
        }
        may
    }

    /// Whether the pool has rules of its own.
    pub(super) fn has_rules(&self) -> bool {
        self.settings.pool(self.pool).is_some_and(|pool| pool.balance.retry().attempts.is_some())
    }

    /// Another attempt follows, at another member if there is one.
    pub(super) fn count_retry(&mut self, class: RetryClass) {
        self.retries = self.retries.saturating_add(1);
        self.service.worker.metrics.http_retries.of(class).inc();
        if let Some(pool) = self.settings.pool(self.pool) {
            pool.balance.shard().retries.of(class).inc();
            // A kept connection that was dead says nothing against the member that a client is bound to.
            if pool.sticky.is_none() || class != RetryClass::Stale {
                self.avoided.extend(self.member.map(|(at, _)| at));
            }
        }
    }

    /// When the time for this try is over: counted from its start, or from the end of the request's body where that comes later, since
    /// the backend is not to blame for the client.
    #[inline]
    pub(super) fn try_due(&self) -> Option<Instant> {
        let limit = self.per_try?;
        if self.response.status != 0 {
            return None;
        }
        let (_, since) = self.member?;
        match self.stage {
            Stage::Relay { .. } => self.upload.ended_since(since).map(|since| since + limit),
            Stage::Dial(_) | Stage::Wait { .. } => Some(since + limit),
            _ => None,
        }
    }

    /// The time for this try is over.
    pub(super) fn try_expired(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let failure = Kind::Timeout.at(Reach::of_sent(matches!(self.stage, Stage::Relay { .. })));
        self.blame_silence();
        if self.give_side_up(failure) {
            return Turn::Again;
        }
        if !self.may_retry(failure) {
            return self.fail(cx, front, failure);
        }
        self.backend_status = Some(failure.status());
        self.failure = Some(failure);
        self.stage = Stage::Choose { fresh: false };
        Turn::Again
    }

    /// The backend has let the request wait for longer than it may: tells the pool, which knows whether it has answered any other.
    pub(super) fn blame_silence(&self) {
        if self.response.status == 0
            && let Stage::Relay { .. } = self.stage
            && let (Some((at, since)), Some(pool)) = (self.member, self.settings.pool(self.pool))
        {
            let asked = self.upload.ended_since(since).unwrap_or(since);
            pool.balance.timed_out(at, asked.into_std(), self.now.into_std());
        }
    }

    /// A backend refused the connection at once: that costs the request nothing but a moment.
    pub(super) fn forgive_refusal(&mut self) {
        let Some(pool) = self.settings.pool(self.pool) else { return };
        if pool.balance.retry().attempts.is_none()
            && self.settings.http.retries > 0
            && self.refused < MOST_REFUSED
        {
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// The request is over, and its part of the budget free.
    pub(super) fn leave_budget(&mut self) {
        if let Some(pool) = self.settings.pool(self.pool) {
            leave_budget(&pool.balance, &mut self.counted, &mut self.charged);
        }
    }
}

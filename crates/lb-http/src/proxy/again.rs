//! Whether a request is tried again: by the rules of its pool, or by the number of its listener where the pool has none.

use std::task::Context;

use lb_core::head::RequestHead;
use lb_core::retry::{self, Attempt, Conditions, Failure, Verdict as Decision};
use lb_observe::metrics::{RetryReason, UpstreamReject};
use lb_pool::WorkerPool;
use tokio::time::Instant;

use super::replay::Replay;
use super::timing::Upload;
use super::{Exchange, Stage, Turn, Verdict};
use crate::exchange::Front;

/// What is tried again without rules of the pool: what no backend has seen, or may see again.
const PLAIN: Conditions = Conditions { connect: true, refused: true, ..Conditions::NONE };

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
        if self.pool.retry().is_some_and(|rules| rules.conditions.statuses.contains(status))
            && ((self.beside && !answered)
                || decide(self.pool, Failure::Status(status), self.attempt, answered, self.charged, self.now))
        {
            self.withheld = Some(status);
        }
        self.withheld.is_some()
    }
}

/// What a further try of a request depends on.
pub(super) fn facts(tries_left: u32, request: &RequestHead, upload: &Upload, replay: &Replay) -> Attempt {
    Attempt {
        tries_left,
        idempotent: retry::is_idempotent(request.method()),
        body_consumed: upload.is_consumed() && !replay.is_whole(),
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
fn decide(
    pool: &WorkerPool,
    failure: Failure,
    attempt: Attempt,
    answered: bool,
    charged: &mut bool,
    now: Instant,
) -> bool {
    try_done(pool, charged);
    match pool.decide(failure, attempt, answered, now.into_std()) {
        Decision::Again { charged: taken } => {
            *charged = taken;
            true
        }
        Decision::No(_) => false,
    }
}

impl Exchange {
    /// What a further try depends on.
    pub(super) fn attempt_facts(&self) -> Attempt {
        facts(self.tries_left(), &self.request, &self.upload, &self.replay)
    }

    /// How many further tries the request has.
    pub(super) fn tries_left(&self) -> u32 {
        let rules = match self.ruled {
            true => self.settings.pool(self.pool).and_then(|pool| pool.balance.retry()),
            false => None,
        };
        rules.map_or(self.settings.http.retries, |rules| rules.attempts).saturating_sub(self.retries)
    }

    /// Whether another attempt may follow; counts it if so.
    pub(super) fn may_retry(&mut self, failure: Failure, reason: RetryReason) -> bool {
        let answered = self.response.has_begun();
        let attempt = self.attempt_facts();
        let may = if self.ruled {
            let Self { settings, pool, charged, now, .. } = self;
            settings
                .pool(*pool)
                .is_some_and(|pool| decide(&pool.balance, failure, attempt, answered, charged, *now))
        } else {
            !answered && PLAIN.covers(failure) && retry::may_retry(failure, attempt)
        };
        if may {
            self.count_retry(reason);
        }
        may
    }

    /// Another attempt follows, at another member if there is one.
    pub(super) fn count_retry(&mut self, reason: RetryReason) {
        self.retries = self.retries.saturating_add(1);
        self.service.worker.metrics.http_retries.of(reason).inc();
        if self.ruled
            && let Some(pool) = self.settings.pool(self.pool)
        {
            pool.balance.shard().retries.of(reason).inc();
            // A kept connection that was dead says nothing against the member that a client is bound to.
            if pool.sticky.is_none() || reason != RetryReason::Stale {
                self.avoided.extend(self.member.map(|(at, _)| at));
            }
        }
    }

    /// When the time for this try is over: counted from its start, or from the end of the request's body where that comes later, since
    /// the backend is not to blame for the client.
    #[inline]
    pub(super) fn try_due(&self) -> Option<Instant> {
        if !self.ruled || self.response.status != 0 {
            return None;
        }
        let (_, since) = self.member?;
        let limit = self.settings.pool(self.pool)?.balance.retry()?.per_try_timeout?;
        match self.stage {
            Stage::Relay { .. } => self.upload.ended_since(since).map(|since| since + limit),
            Stage::Dial(_) | Stage::Wait { .. } => Some(since + limit),
            _ => None,
        }
    }

    /// The time for this try is over.
    pub(super) fn try_expired(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let sent = matches!(self.stage, Stage::Relay { .. });
        if self.give_side_up() {
            return Turn::Again;
        }
        if !self.may_retry(Failure::Timeout { sent }, RetryReason::Timeout) {
            return self.bad_response(cx, front, UpstreamReject::Timeout);
        }
        self.backend_status = Some(504);
        self.verdict = Verdict::Failure;
        self.stage = Stage::Choose { fresh: false };
        Turn::Again
    }

    /// The request is over, and its part of the budget free.
    pub(super) fn leave_budget(&mut self) {
        if let Some(pool) = self.settings.pool(self.pool) {
            leave_budget(&pool.balance, &mut self.counted, &mut self.charged);
        }
    }
}

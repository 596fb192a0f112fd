//! Whether a request is tried again: by the rules of its pool, or by the number of its listener where the pool has none.

use std::task::Context;

use lb_core::retry::{self, Attempt, Conditions, Failure, Verdict as Decision};
use lb_observe::metrics::{RetryReason, UpstreamReject};
use lb_pool::WorkerPool;
use tokio::time::Instant;

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
            && (self.beside
                || decide(self.pool, Failure::Status(status), self.attempt, answered, self.charged, self.now))
        {
            self.withheld = Some(status);
        }
        self.withheld.is_some()
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
    if std::mem::take(charged) {
        pool.try_done();
    }
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
        Attempt {
            tries_left: self.tries_left(),
            idempotent: retry::is_idempotent(self.request.method()),
            body_consumed: self.upload.is_consumed() && !self.replay.is_whole(),
        }
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
        let answered = self.response.status != 0 || self.response.interims != 0;
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
        if self.beside.is_some() {
            self.backend_status = Some(504);
            self.verdict = Verdict::Failure;
            self.fall_back();
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

    /// The request is over: others may have its part of the budget.
    pub(super) fn leave_budget(&mut self) {
        if !self.counted {
            return;
        }
        if let Some(pool) = self.settings.pool(self.pool) {
            if self.charged {
                pool.balance.try_done();
            }
            pool.balance.end_request();
        }
    }
}

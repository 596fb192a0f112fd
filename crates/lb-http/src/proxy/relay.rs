//! An exchange whose messages are moving: what becomes of it when they stop, and whether a failed try is made again.

mod moving;
mod splice;

use std::task::Context;

use lb_core::retry::Failure;
use lb_observe::metrics::{RetryReason, UpstreamReject};

use super::{Exchange, Stage, Turn, Verdict};
use crate::back::AnyBack;
use crate::exchange::{BackError, Front, Reject};
use crate::grpc::Failure as CallFailure;

/// Why moving stopped.
enum Stop {
    /// Neither side gets on: an event will come.
    Idle,
    /// There is more to do, after others had their turn.
    Yield,
    /// Nothing is left to move.
    Done,
    ClientGone,
    Refused(Reject),
    Failed(BackError),
    /// The response is not for the client. `ended` says whether it is complete.
    Withheld {
        status: u16,
        ended: bool,
    },
}

impl Exchange {
    pub(super) fn relay(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let stop = self.move_bytes(cx, front);
        if !matches!(stop, Stop::Idle | Stop::Yield) {
            self.account_sent();
        }
        match stop {
            Stop::Idle => Turn::Wait,
            Stop::Yield => {
                cx.waker().wake_by_ref();
                Turn::Wait
            }
            Stop::Done => {
                self.release();
                self.stage = Stage::Flush;
                Turn::Again
            }
            Stop::ClientGone => self.client_gone(front),
            Stop::Refused(reject) => self.refuse(cx, front, reject),
            Stop::Withheld { status, ended } => {
                if ended {
                    self.release();
                }
                self.backend_status = Some(status);
                if self.fall_back() {
                    return Turn::Again;
                }
                self.count_retry(RetryReason::Status);
                self.stage = Stage::Choose { fresh: false };
                Turn::Again
            }
            Stop::Failed(error) => self.failed(cx, front, error),
        }
    }

    /// The backend will not complete its response.
    fn failed(&mut self, cx: &mut Context<'_>, front: &mut impl Front, error: BackError) -> Turn {
        let (failure, reason) = self.failure_of(error);
        let blames = matches!(failure, Failure::Reset { .. } | Failure::Later);
        if self.beside.is_some() && !self.response.has_begun() {
            if blames {
                self.verdict = Verdict::Failure;
            }
            self.fall_back();
            return Turn::Again;
        }
        let (class, reason) = match error {
            // Without rules of the pool, what is lost with a connection that had served before is tried again, whoever is to blame.
            BackError::Closed { sent } if self.is_reused() && !self.has_rules() => {
                (Failure::Stale { sent }, RetryReason::Stale)
            }
            _ => (failure, reason),
        };
        if self.may_retry(class, reason) {
            self.gone_away =
                self.gone_away.saturating_add(u32::from(matches!(failure, Failure::GoneAway { .. })));
            if blames {
                self.verdict = Verdict::Failure;
            }
            self.stage = Stage::Choose { fresh: matches!(failure, Failure::Stale { .. }) };
            return Turn::Again;
        }
        match error {
            BackError::Reject(reason) => self.bad_response(cx, front, reason),
            BackError::Reset(code) => {
                self.call_failed(CallFailure::Reset(code));
                self.bad_response(cx, front, UpstreamReject::Reset)
            }
            BackError::Unprocessed { .. } => self.bad_response(cx, front, UpstreamReject::Reset),
            BackError::Closed { .. } => self.bad_response(cx, front, UpstreamReject::Truncated),
        }
    }

    /// What a failure is for the rules of further tries.
    fn failure_of(&self, error: BackError) -> (Failure, RetryReason) {
        let shared = matches!(self.stage, Stage::Relay { back: AnyBack::H2(_), .. });
        match error {
            BackError::Unprocessed { goaway: true } => {
                (Failure::GoneAway { before: self.gone_away }, RetryReason::Unprocessed)
            }
            BackError::Unprocessed { goaway: false } => (Failure::Refused, RetryReason::Unprocessed),
            // A backend that lets a shared connection go in peace says so by GOAWAY (RFC 9113 §6.8).
            BackError::Closed { sent } if self.is_reused() && !(shared && sent) => {
                (Failure::Stale { sent }, RetryReason::Stale)
            }
            BackError::Closed { sent } => (Failure::Reset { sent }, RetryReason::Reset),
            BackError::Reset(_) | BackError::Reject(UpstreamReject::Reset | UpstreamReject::Truncated) => {
                (Failure::Reset { sent: true }, RetryReason::Reset)
            }
            BackError::Reject(_) => (Failure::Later, RetryReason::Reset),
        }
    }

    /// Whether the connection had served before this request.
    fn is_reused(&self) -> bool {
        matches!(self.stage, Stage::Relay { reused: true, .. })
    }

    /// The response is complete: the connection goes back to the pool if it can be used again.
    fn release(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Flush);
        let Stage::Relay { back, born, connection, .. } = stage else { return };
        let worker = &self.service.worker;
        let AnyBack::H1(back) = back else {
            self.room = None;
            return;
        };
        let member = self.member.and_then(|(at, _)| self.settings.pool(self.pool)?.members.get(at));
        match back.into_idle() {
            Ok(Some(stream)) if self.upload.is_done() => {
                if let Some(member) = member {
                    let busiest = worker.busiest();
                    worker.upstreams.put(&member.endpoint, stream, born, connection, busiest, self.now);
                }
            }
            Ok(_) => {}
            Err(reason) => worker.metrics.upstream_rejected.of(reason).inc(),
        }
        // The backend is done with the request, whenever the client is.
        self.room = None;
    }
}

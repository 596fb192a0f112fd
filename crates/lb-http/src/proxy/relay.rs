//! An exchange whose messages are moving: what becomes of it when they stop, and whether a failed try is made again.

mod moving;
mod splice;

use std::task::Context;

use lb_core::failure::{Failure, Kind, Reject};
use lb_core::retry::RetryClass;

use super::{Exchange, Stage, Turn};
use crate::back::AnyBack;
use crate::exchange::Front;

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
    Failed(Failure),
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
                self.count_retry(RetryClass::Status);
                self.stage = Stage::Choose { fresh: false };
                Turn::Again
            }
            Stop::Failed(failure) => self.failed(cx, front, failure),
        }
    }

    /// The backend will not complete its response.
    fn failed(&mut self, cx: &mut Context<'_>, front: &mut impl Front, failure: Failure) -> Turn {
        let shared = matches!(self.stage, Stage::Relay { back: AnyBack::H2(_), .. });
        let failure = if self.is_reused() { failure.on_reused(shared) } else { failure };
        if self.beside.is_some() && !self.response.has_begun() {
            self.failure = Some(failure).filter(|failure| failure.blames());
            self.fall_back();
            return Turn::Again;
        }
        let tried = match failure.kind {
            // Without rules of the pool, what is lost with a connection that had served before is tried again, whoever is to blame.
            Kind::Closed if self.is_reused() && !self.has_rules() => Kind::Stale.at(failure.reach),
            _ => failure,
        };
        if self.may_retry(tried) {
            self.gone_away = self.gone_away.saturating_add(u32::from(failure.kind == Kind::GoneAway));
            self.failure = Some(failure).filter(|failure| failure.blames());
            self.stage = Stage::Choose { fresh: failure.kind == Kind::Stale };
            return Turn::Again;
        }
        self.fail(cx, front, failure)
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

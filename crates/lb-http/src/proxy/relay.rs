//! An exchange whose messages are moving: what becomes of it when they stop, and whether a failed try is made again.

mod down;
mod moving;
mod splice;
mod up;

pub(super) use moving::ROUNDS;
pub(super) use up::count;

use std::task::Context;

use lb_core::failure::{Failure, Kind, Reject};
use lb_core::retry::RetryClass;

use super::exchange::{Exchange, Stage, Turn};
use super::tries::Leg;
use crate::message::{Front, Gone};

/// Why moving stopped.
enum Stop {
    /// Neither side gets on: an event will come.
    Idle,
    /// There is more to do, after others had their turn.
    Yield,
    /// Nothing is left to move.
    Done,
    ClientGone(Gone),
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
            Stop::ClientGone(gone) => self.client_gone(gone),
            Stop::Refused(reject) => self.refuse(cx, front, reject),
            Stop::Withheld { status, ended } => {
                if ended {
                    self.release();
                }
                self.tries.current.status = Some(status);
                if self.fall_back() {
                    return Turn::Again;
                }
                self.count_retry(RetryClass::Status);
                self.tries.current.leg = self.before_next_try();
                Turn::Again
            }
            Stop::Failed(failure) => self.failed(cx, front, failure),
        }
    }

    /// The backend will not complete its response.
    fn failed(&mut self, cx: &mut Context<'_>, front: &mut impl Front, failure: Failure) -> Turn {
        let failure = match &self.tries.current.leg {
            Leg::Relay(link) if link.reused => failure.on_reused(link.can.shared),
            _ => failure,
        };
        if self.tries.beside.is_some() && !self.response.has_begun() {
            self.tries.current.failure = Some(failure).filter(|failure| failure.blames());
            self.fall_back();
            return Turn::Again;
        }
        let tried = match failure.kind {
            // Without rules of the pool, a request that is lost with a connection which had served before is tried again, whatever the cause.
            Kind::Closed if self.tries.current.is_reused() && !self.has_rules() => {
                Kind::Stale.at(failure.reach)
            }
            _ => failure,
        };
        if self.may_retry(tried) {
            self.tries.gone_away =
                self.tries.gone_away.saturating_add(u32::from(failure.kind == Kind::GoneAway));
            self.tries.current.failure = Some(failure).filter(|failure| failure.blames());
            self.tries.current.leg = match failure.kind {
                Kind::Stale => Leg::ChooseFresh,
                _ if tried.is_free() || tried.kind == Kind::Stale => Leg::Choose,
                _ => self.before_next_try(),
            };
            return Turn::Again;
        }
        self.fail(cx, front, failure)
    }

    /// The response is complete: the connection goes back to the pool if it can be used again.
    fn release(&mut self) {
        let leg = std::mem::replace(&mut self.tries.current.leg, Leg::Over);
        self.tries.current.stall.end();
        // The backend is done with the request, whenever the client is.
        self.tries.current.room = None;
        let (Leg::Relay(link), Some(chosen)) = (leg, &self.tries.current.member) else { return };
        let member = &chosen.member;
        member.endpoint.upstream.release(
            &self.caller(member),
            link,
            self.request.upload.is_done() && self.tries.current.resend.is_none(),
        );
    }
}

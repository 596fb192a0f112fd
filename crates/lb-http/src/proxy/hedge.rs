//! Two tries of one request side by side, of which the first that answers is taken.
//!
//! A request that has waited for longer than most is sent to a second member as well, if that repeats nothing that may not be repeated
//! and the budget of further tries allows it. From then on each try is driven in its turn: the current one first, then the one beside it in
//! its place. A try that fails is let go, and the other goes on alone.

use std::rc::Rc;
use std::task::Context;

use lb_core::failure::Failure;
use lb_core::retry;
use lb_pool::{Entry, Pass};
use tokio::time::Instant;

use super::again;
use super::exchange::{Exchange, Turn};
use super::tries::{Leg, Try};
use crate::message::Front;

impl Exchange {
    /// When a second try begins, if this request may have one.
    #[inline]
    pub(super) fn hedge_due(&self) -> Option<Instant> {
        if self.tries.hedged || self.response.has_begun() {
            return None;
        }
        let since = self.tries.current.since()?;
        if !matches!(self.tries.current.leg, Leg::Dial(_) | Leg::Wait { .. } | Leg::Relay(_)) {
            return None;
        }
        let delay = self.pool.balance.hedge_delay()?;
        let attempt = self.attempt_facts();
        // A client that is bound to its member by a cookie stays there.
        let may = self.request.upload.is_done()
            && self.request.head.upgrade.is_empty()
            && self.pool.sticky.is_none()
            && retry::may_hedge(attempt);
        if may { Some(self.request.upload.ended_since(since)? + delay) } else { None }
    }

    /// Sends the request to a second member, if there is one with room, and room in the budget.
    pub(super) fn hedge(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        self.tries.hedged = true;
        let pool = Rc::clone(&self.pool);
        let Some(first) = self.tries.current.at() else { return Turn::Again };
        let now = self.clock.now.into_std();
        let picked = pool.balance.pick(now, None, |at| {
            at != first
                && !self.tries.has_failed(at)
                && !self.tries.avoids(at)
                && pool.balance.gate(at).is_none_or(|gate| gate.has_room(self.need(at, false)))
        });
        let Some(at) = picked else { return Turn::Again };
        let pass = match pool.balance.gate(at) {
            None => Pass::default(),
            Some(gate) => match gate.enter(self.need(at, false), now, cx) {
                Entry::Go(pass) => pass,
                Entry::Wait(_) | Entry::Full(_) => return Turn::Again,
            },
        };
        if !pool.balance.take_hedge(now) {
            return Turn::Again;
        }
        self.tries.count = self.tries.count.saturating_add(1);
        self.tries.beside = Some(Box::new(Try { charged: true, second: true, ..Try::default() }));
        self.tries.swap();
        let turn = self.attempt(cx, front, at, false, pass);
        self.tries.swap();
        turn
    }

    /// Drives the other side, when this one has come to `turn`.
    pub(super) fn race(&mut self, cx: &mut Context<'_>, front: &mut impl Front, turn: Turn) -> Turn {
        if self.response.has_begun() {
            self.drop_beside();
            return turn;
        }
        if !matches!(turn, Turn::Wait) {
            return turn;
        }
        self.tries.swap();
        let turn = self.step(cx, front);
        self.account(front);
        if self.response.has_begun() {
            self.drop_beside();
        } else {
            // Nothing is swapped when this side has failed: the other is back in its place.
            self.tries.swap();
        }
        turn
    }

    /// This try has failed. `true` if another ran beside it, which goes on alone.
    pub(super) fn fall_back(&mut self) -> bool {
        if self.tries.beside.is_none() || self.response.has_begun() {
            return false;
        }
        self.tries.avoid_current();
        self.tries.swap();
        // What stands beside now is what has failed.
        self.end_beside(false);
        true
    }

    /// The time for this try is over. `true` if another ran beside it, which goes on alone.
    pub(super) fn give_side_up(&mut self, failure: Failure) -> bool {
        if self.tries.beside.is_none() {
            return false;
        }
        self.tries.current.status = Some(failure.status());
        self.tries.current.failure = Some(failure);
        self.fall_back()
    }

    /// This side has answered, or the request is over: the other is not waited for any more.
    pub(super) fn drop_beside(&mut self) {
        if self.tries.beside.is_none() {
            return;
        }
        let current = &self.tries.current;
        if current.second && (current.heard.is_some() || self.response.interim_passed) {
            self.pool.balance.shard().hedges_won.inc();
        }
        self.end_beside(true);
    }

    /// Ends the other try. Where it is `abandoned`, nothing of it speaks for or against its member.
    fn end_beside(&mut self, abandoned: bool) {
        self.tries.swap();
        if abandoned {
            self.tries.current.failure = None;
            self.tries.current.status = None;
            // Where there is no response, the client has left: how long it waited says nothing of how long responses take.
            if self.response.has_begun()
                && let Some(since) = self.tries.current.since()
            {
                // It would have taken at least as long.
                self.pool.balance.record_latency(self.clock.now.saturating_duration_since(since));
            }
        }
        again::try_done(&self.pool.balance, &mut self.tries.current.charged);
        self.leave_member();
        self.account_sent();
        // Cancelled before the other is put in its place.
        self.tries.current.leg = Leg::Over;
        self.tries.swap();
        self.tries.beside = None;
    }
}

//! Two tries of one request side by side, of which the first that answers is taken.
//!
//! A request that has waited for longer than most is sent to a second member as well, if that repeats nothing that may not be repeated
//! and the budget of further tries allows it. From then on each side is driven in its turn. The exchange itself holds one of them, and
//! [`Side`] keeps the other; a side that fails is let go, and the other goes on alone.

use std::task::Context;

use lb_core::failure::Failure;
use lb_core::retry;
use lb_pool::{Entry, Pass, Place};
use tokio::time::Instant;

use super::timing::Stall;
use super::{Exchange, Stage, Turn, again};
use crate::exchange::Front;

/// What of an exchange belongs to one try.
#[derive(Debug)]
pub(super) struct Side {
    stage: Stage,
    member: Option<(usize, Instant)>,
    room: Option<Place>,
    charged: bool,
    back_stall: Stall,
    backend_status: Option<u16>,
    heard: Option<Instant>,
    failure: Option<Failure>,
    second: bool,
}

impl Exchange {
    /// When a second try begins, if this request may have one.
    #[inline]
    pub(super) fn hedge_due(&self) -> Option<Instant> {
        if self.hedged || self.response.has_begun() {
            return None;
        }
        let (_, since) = self.member?;
        if !matches!(self.stage, Stage::Dial(_) | Stage::Wait { .. } | Stage::Relay { .. }) {
            return None;
        }
        let pool = self.settings.pool(self.pool)?;
        let delay = pool.balance.hedge_delay()?;
        let attempt = self.attempt_facts();
        // A client that is bound to its member by a cookie stays there.
        let may = self.upload.is_done()
            && self.request.upgrade.is_empty()
            && pool.sticky.is_none()
            && retry::may_hedge(attempt);
        if may { Some(self.upload.ended_since(since)? + delay) } else { None }
    }

    /// Sends the request to a second member, if there is one with room, and room in the budget.
    pub(super) fn hedge(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        self.hedged = true;
        let settings = std::rc::Rc::clone(&self.settings);
        let Some(pool) = settings.pool(self.pool) else { return Turn::Again };
        let Some((first, _)) = self.member else { return Turn::Again };
        let now = self.now.into_std();
        let picked = pool.balance.pick(now, None, |at| {
            at != first
                && !self.failed.contains(&at)
                && !self.avoided.contains(&at)
                && pool.balance.gate(at).is_none_or(|gate| gate.has_room(self.need(pool, at, false)))
        });
        let Some(at) = picked else { return Turn::Again };
        let pass = match pool.balance.gate(at) {
            None => Pass::default(),
            Some(gate) => match gate.enter(self.need(pool, at, false), now, cx) {
                Entry::Go(pass) => pass,
                Entry::Wait(_) | Entry::Full(_) => return Turn::Again,
            },
        };
        if !pool.balance.take_hedge(now) {
            return Turn::Again;
        }
        self.retries = self.retries.saturating_add(1);
        self.beside = Some(Box::new(Side {
            stage: Stage::Flush,
            member: None,
            room: None,
            charged: true,
            back_stall: Stall::default(),
            backend_status: None,
            heard: None,
            failure: None,
            second: true,
        }));
        self.swap_sides();
        let turn = self.attempt(cx, front, at, false, pass);
        self.swap_sides();
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
        self.swap_sides();
        let turn = self.step(cx, front);
        self.account(front);
        if self.response.has_begun() {
            self.drop_beside();
        } else {
            // Nothing is swapped when this side has failed: the other is back in its place.
            self.swap_sides();
        }
        turn
    }

    /// This try has failed. `true` if another ran beside it, which goes on alone.
    pub(super) fn fall_back(&mut self) -> bool {
        if self.beside.is_none() || self.response.has_begun() {
            return false;
        }
        self.avoided.extend(self.member.map(|(at, _)| at));
        self.swap_sides();
        // What stands beside now is what has failed, with its verdict.
        self.end_beside(false);
        true
    }

    /// The time for this try is over. `true` if another ran beside it, which goes on alone.
    pub(super) fn give_side_up(&mut self, failure: Failure) -> bool {
        if self.beside.is_none() {
            return false;
        }
        self.backend_status = Some(failure.status());
        self.failure = Some(failure);
        self.fall_back()
    }

    /// This side has answered, or the request is over: the other is not waited for any more.
    pub(super) fn drop_beside(&mut self) {
        if self.beside.is_none() {
            return;
        }
        if self.second
            && (self.heard.is_some() || self.response.interims != 0)
            && let Some(pool) = self.settings.pool(self.pool)
        {
            pool.balance.shard().hedges_won.inc();
        }
        self.end_beside(true);
    }

    /// Ends the other side. Where it is `abandoned`, nothing of it speaks for or against its member.
    fn end_beside(&mut self, abandoned: bool) {
        self.swap_sides();
        if abandoned {
            self.failure = None;
            self.backend_status = None;
            // Where there is no response, the client has left: how long it stayed says nothing of those who stay.
            if self.response.has_begun()
                && let (Some(pool), Some((_, since))) = (self.settings.pool(self.pool), self.member)
            {
                // It would have taken at least as long.
                pool.balance.record_latency(self.now.saturating_duration_since(since));
            }
        }
        if let Some(pool) = self.settings.pool(self.pool) {
            again::try_done(&pool.balance, &mut self.charged);
        }
        let status = self.backend_status.take();
        self.leave_member(status);
        self.account_sent();
        // Cancelled before the other is put in its place.
        self.stage = Stage::Flush;
        self.swap_sides();
        self.beside = None;
    }

    fn swap_sides(&mut self) {
        use std::mem::swap;
        let Some(beside) = &mut self.beside else { return };
        swap(&mut self.stage, &mut beside.stage);
        swap(&mut self.member, &mut beside.member);
        swap(&mut self.room, &mut beside.room);
        swap(&mut self.charged, &mut beside.charged);
        swap(&mut self.back_stall, &mut beside.back_stall);
        swap(&mut self.backend_status, &mut beside.backend_status);
        swap(&mut self.heard, &mut beside.heard);
        swap(&mut self.failure, &mut beside.failure);
        swap(&mut self.second, &mut beside.second);
    }
}

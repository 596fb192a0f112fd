//! Members at their limits: which requests wait for room, and which are refused.

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::breaker::Full;
use lb_core::failure::Kind;
use lb_pool::{Entry, Gate, Need};

use super::exchange::{Exchange, Turn};
use super::tries::Leg;
use crate::message::Front;
use crate::upstream::Ask;

impl Exchange {
    /// What an attempt at a member needs: nothing for a connection where one stands ready.
    pub(super) fn need(&self, at: usize, fresh: bool) -> Need {
        let Some(member) = self.pool.members.get(at) else { return Need::Both };
        // Where there is no room for another connection, a shared one that is stuck has to do.
        let ask = Ask { body: false, fresh };
        let ready = member.endpoint.upstream.has_way(&self.caller(member), ask);
        if ready { Need::Request } else { Need::Both }
    }

    /// Asks for room at a member that has limits.
    pub(super) fn enter(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        gate: &Rc<Gate>,
        at: usize,
        fresh: bool,
    ) -> Turn {
        let need = self.need(at, fresh);
        if need == Need::Both && gate.lacks_connection() {
            self.give_way(at);
        }
        match gate.enter(need, self.clock.now.into_std(), cx) {
            Entry::Go(pass) => self.attempt(cx, front, at, fresh, pass),
            Entry::Wait(waiting) => {
                self.tries.current.leg = Leg::Queue { waiting, at, fresh };
                self.trace_queue();
                Turn::Again
            }
            Entry::Full(full) => self.overflow(cx, front, full),
        }
    }

    /// Waits for room.
    pub(super) fn queue(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let Leg::Queue { waiting, at, fresh } = &self.tries.current.leg else { return Turn::Again };
        let (at, fresh) = (*at, *fresh);
        let need = self.need(at, fresh);
        if need == Need::Both && waiting.lacks_connection() {
            self.give_way(at);
        }
        let Leg::Queue { waiting, .. } = &mut self.tries.current.leg else { return Turn::Again };
        match waiting.poll(need, self.clock.now.into_std(), cx) {
            Poll::Ready(Ok(pass)) => self.attempt(cx, front, at, fresh, pass),
            Poll::Ready(Err(full)) => self.overflow(cx, front, full),
            Poll::Pending => match front.poll_hangup(cx) {
                Poll::Ready(gone) if self.request.upload.is_done() => self.client_gone(gone),
                _ => Turn::Wait,
            },
        }
    }

    /// An idle connection of a member leaves its room to a new one, if there is any.
    fn give_way(&self, at: usize) {
        if let Some(member) = self.pool.members.get(at) {
            self.service.worker.upstreams.give_way(&member.endpoint);
        }
    }

    /// There is no room for the request.
    pub(super) fn overflow(&mut self, cx: &mut Context<'_>, front: &mut impl Front, full: Full) -> Turn {
        if self.fall_back() {
            return Turn::Again;
        }
        self.fail(cx, front, Kind::Full(full).unconnected())
    }
}

//! Both directions of an exchange, moved in turn until neither gets on.

use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::Stop;
use crate::message::{Front, Sink};
use crate::proxy::exchange::Exchange;
use crate::proxy::extras::Extras;
use crate::proxy::stall::Stall;
use crate::proxy::tries::{Leg, Try};
use crate::proxy::upload::Upload;
use crate::upstream::Link;

/// Reads of each direction before other connections get their turn.
pub(in crate::proxy) const ROUNDS: usize = 16;

/// What holds while each direction is read once.
#[derive(Clone, Copy)]
pub(super) struct Round {
    /// Further tries that the request has.
    pub(super) tries_left: u32,
    /// Another try runs beside this one.
    pub(super) beside: bool,
    /// The gateway has ended the tunnel: what still comes is read and thrown away.
    pub(super) closing: bool,
}

impl Round {
    /// Whether the request may reach another backend yet.
    pub(super) fn may_go_elsewhere(self) -> bool {
        self.tries_left > 0 || self.beside
    }
}

impl Exchange {
    /// Moves what there is to move.
    pub(super) fn move_bytes(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Stop {
        let worker = Rc::clone(&self.service.worker);
        let mut scratch = worker.io.scratch.borrow_mut();
        let mut head = worker.response.borrow_mut();
        let (tries_left, beside) = (self.tries_left(), self.tries.beside.is_some());
        for _ in 0..ROUNDS {
            if self.tries.current.stall.is_on() {
                self.flush_back(cx);
            }
            let closing = self.tend_tunnel(cx, front);
            let round = Round { tries_left, beside, closing };
            let mut moved = false;
            match self.move_request(cx, front, &mut scratch, round) {
                Ok(some) => moved |= some,
                Err(stop) => return stop,
            }
            match self.move_response(cx, front, &mut scratch, &mut head, round) {
                Ok(some) => moved |= some,
                Err(stop) => return stop,
            }
            // What was read may be the gateway's reason to end the tunnel.
            moved |= self.tunnel.is_some() && self.tend_tunnel(cx, front) && !closing;
            if self.response.done && self.is_over(moved) {
                return Stop::Done;
            }
            if !moved {
                return self.idle(cx, front);
            }
            // Mirrors have to have their turn to read what they got.
            if Extras::mirrored(self.extras.as_deref()).iter().any(|body| body.waits()) {
                return Stop::Yield;
            }
        }
        Stop::Yield
    }

    /// Ends the tunnel if there is a reason, and lets the time for frames run or not. Whether it has ended.
    #[inline]
    fn tend_tunnel(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> bool {
        let Some(tunnel) = &mut self.tunnel else { return false };
        let Try { leg: Leg::Relay(Link { back, .. }), stall, .. } = &mut self.tries.current else {
            return false;
        };
        tunnel.settle(cx, front, back, self.clock.now);
        tunnel.hold(stall.is_on(), self.client.stall.is_on(), self.clock.now);
        tunnel.is_closing()
    }

    /// Whether nothing is left to do for a response that is complete. A tunnel ends when both directions have, and what waits has left.
    fn is_over(&mut self, moved: bool) -> bool {
        let Some(tunnel) = &mut self.tunnel else { return true };
        let busy = moved
            || self.request.upload.is_wanted()
            || self.tries.current.stall.is_on()
            || self.client.stall.is_on();
        if !busy {
            tunnel.done();
        }
        !busy
    }

    /// Neither side gets on. While nothing is read from the client its hanging up would go unnoticed.
    fn idle(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Stop {
        // A stream tells of it whatever was sent before; a connection only behind what was sent.
        let unread =
            !self.request.upload.is_wanted() || (self.tries.current.stall.is_on() && self.client.can.streams);
        if unread
            && self.tunnel.is_none()
            && let Poll::Ready(gone) = front.poll_hangup(cx)
        {
            return Stop::ClientGone(gone);
        }
        Stop::Idle
    }

    /// Sends what waits for the backend.
    #[inline]
    pub(super) fn flush_back(&mut self, cx: &mut Context<'_>) {
        if let Try { leg: Leg::Relay(Link { back, .. }), stall, .. } = &mut self.tries.current {
            flush_back(cx, back, stall, &mut self.request.upload, self.clock.now);
        }
    }
}

/// Sends what waits for the backend. A backend that takes no more may still have answered: its end is found when the answer is read.
#[inline]
pub(super) fn flush_back(
    cx: &mut Context<'_>,
    back: &mut impl Sink,
    stall: &mut Stall,
    upload: &mut Upload,
    now: Instant,
) {
    match back.poll_flush(cx) {
        Poll::Ready(Ok(())) => {
            if stall.is_on() {
                stall.end();
                upload.resume(now);
            }
        }
        Poll::Ready(Err(_)) => {
            stall.end();
            upload.abandon();
        }
        Poll::Pending => stall.begin(now),
    }
}

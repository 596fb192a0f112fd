//! The way of the response, or of a tunnel's bytes, from the backend to the client.

use std::task::{Context, Poll};

use lb_core::failure::{Failure, Reach};
use lb_core::head::ResponseHead;
use lb_core::reason::Reason;
use lb_io::Scratch;

use super::Stop;
use super::moving::Round;
use super::splice::{Spliced, splices};
use crate::message::{Back, Front, Progress};
use crate::proxy::again::{self, Again};
use crate::proxy::exchange::Exchange;
use crate::proxy::extras::Extras;
use crate::proxy::sinks::ToClient;
use crate::proxy::tries::{Leg, Tries, Try};
use crate::upstream::Link;

impl Exchange {
    /// Reads once from the backend, or moves a piece past user space. Whether anything came.
    #[inline]
    pub(super) fn move_response(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        scratch: &mut Scratch,
        head: &mut ResponseHead,
        round: Round,
    ) -> Result<bool, Stop> {
        if self.client.stall.is_on() && self.response.pipe.is_none() {
            self.flush_front(cx, front, round.closing)?;
        }
        if self.response.done {
            return Ok(false);
        }
        let Some(back) = self.tries.current.back() else { return Ok(false) };
        if self.response.pipe.is_none() && splices(front, back) {
            // Without descriptors for a pipe the copy goes on.
            self.response.pipe = self.service.worker.io.pipes.take().ok();
        }
        if let Some(held) = self.response.pipe.take() {
            return match self.splice(cx, front, held) {
                Spliced::Moved => Ok(true),
                Spliced::Idle => Ok(false),
                Spliced::End => {
                    front.end();
                    self.response.done = true;
                    Ok(false)
                }
                Spliced::Stop(stop) => Err(stop),
            };
        }
        if !round.closing && self.client.stall.is_on() {
            return Ok(false);
        }
        let moved = self.read_response(cx, front, scratch, head, round)?;
        self.flush_front(cx, front, round.closing)?;
        Ok(moved)
    }

    /// Reads once from the backend, and passes on what is for the client.
    #[inline]
    fn read_response(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        scratch: &mut Scratch,
        head: &mut ResponseHead,
        round: Round,
    ) -> Result<bool, Stop> {
        let (pool, now) = (&*self.pool, self.clock.now);
        let Tries { current, gone_away, .. } = &mut self.tries;
        let set_cookie = if current.moves { pool.cookie(current.at()) } else { None };
        let Try { leg: Leg::Relay(Link { back, can, .. }), charged, .. } = current else { return Ok(false) };
        let rules = Extras::rules(self.extras.as_deref(), pool.balance.retry());
        let has_statuses = !rules.conditions.statuses.is_empty();
        let withholds = round.may_go_elsewhere() && self.response.status == 0 && has_statuses;
        let again = withholds.then(|| Again {
            pool: &pool.balance,
            rules,
            attempt: again::facts(round.tries_left, *gone_away, &self.request),
            charged,
            now,
            beside: round.beside,
            withheld: None,
        });
        let (was_tunnel, room) = (self.tunnel.is_some(), front.room());
        let mut sink = ToClient {
            front: &mut *front,
            response: &mut self.response,
            tunnel: &mut self.tunnel,
            call: self.call.as_deref_mut(),
            again,
            cut: false,
            replaced: false,
            capabilities: self.client.can,
            agrees_by: can.tunnel,
            settings: &self.settings,
            filtered: self.filtered.as_deref(),
            request: &self.request.head,
            service: &self.service,
            set_cookie,
            now,
        };
        let result = back.poll_response(cx, scratch, room, head, &mut sink);
        let (cut, withheld) = (sink.cut || sink.replaced, sink.withheld());
        if let Some(status) = withheld {
            current.hear(pool, now);
            return Err(Stop::Withheld { status, ended: matches!(result, Poll::Ready(Ok(Progress::End))) });
        }
        if self.response.over {
            return Err(Stop::Failed(Failure::malformed(Reason::ResponseTooLarge).reaching(Reach::Answered)));
        }
        self.passed(cx, front, result, round, (was_tunnel, cut))
    }

    /// What a read from the backend came to that was for the client: whether anything was passed on. `seen` says whether there was a tunnel before,
    /// and whether the client has had enough.
    #[inline]
    fn passed(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        result: Poll<Result<Progress, Failure>>,
        round: Round,
        seen: (bool, bool),
    ) -> Result<bool, Stop> {
        let (was_tunnel, cut) = seen;
        match result {
            Poll::Ready(Ok(progress)) => {
                self.responded(was_tunnel, cut || progress == Progress::End);
                Ok(true)
            }
            Poll::Ready(Err(failure)) if !round.closing => {
                // What came before the fault is on its way; an abort must not overtake it more than needed.
                let _ = front.poll_flush(cx);
                Err(Stop::Failed(failure))
            }
            result => {
                // A tunnel that the gateway has ended ends with any fault of the backend.
                self.response.done |= result.is_ready();
                Ok(false)
            }
        }
    }

    /// Something of a response was passed on; whether that was the end of it.
    #[inline]
    fn responded(&mut self, was_tunnel: bool, done: bool) {
        self.response.done = done;
        let (balance, now) = (&self.pool.balance, self.clock.now);
        if self.response.continues {
            self.request.upload.asked_for(now);
        }
        if self.response.status != 0 {
            let current = &mut self.tries.current;
            current.status = Some(self.response.status);
            current.hear(&self.pool, now);
            if current.resend.is_none() {
                self.request.replay.forget();
            }
            // The try has its answer, however long the rest takes.
            again::try_done(balance, &mut current.charged);
        }
        if self.tunnel.is_some() && !was_tunnel {
            self.request.upload.reopen(now);
            // It may stand for days, and is never tried again.
            let Tries { counted, current, .. } = &mut self.tries;
            again::leave_budget(balance, counted, &mut current.charged);
        }
    }

    /// Sends what waits for the client. Once the gateway has ended its tunnel, a client that is gone is no failure.
    #[inline]
    fn flush_front(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        closing: bool,
    ) -> Result<(), Stop> {
        match front.poll_flush(cx) {
            Poll::Ready(Err(gone)) if !closing => return Err(Stop::ClientGone(gone)),
            Poll::Ready(_) => self.client.stall.end(),
            Poll::Pending => self.client.stall.begin(self.clock.now),
        }
        Ok(())
    }
}

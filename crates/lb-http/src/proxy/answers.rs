//! What the client is told where no backend answers, and the end of the last answer.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::failure::{Count, Failure, Reject, ResetReason};
use lb_core::head::ResponseHead;
use lb_core::log_limit::LogLimit;
use lb_core::reason::Reason;

use super::again;
use super::exchange::{End, Exchange, Stage, Turn};
use super::stall::Stall;
use super::tries::Leg;
use crate::answer;
use crate::filter::{self, ErrorBody};
use crate::message::{Front, Gone};
use crate::rules;

/// Lines about responses that were cut: few at once, then one in a while.
static CUT: LogLimit = LogLimit::new(10, Duration::from_secs(10));

impl Exchange {
    /// The request is for the gateway itself. TRACE is not served: its answer would show scripts what browsers hide from them.
    pub(super) fn last_hop(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        self.reason = Some(Reason::MaxForwards);
        if self.request.head.method() != b"OPTIONS" {
            return self.answer(cx, front, Reject::new(405, Reason::MaxForwards).into());
        }
        self.response.status = 200;
        self.response.done = true;
        let worker = Rc::clone(&self.service.worker);
        answer::options(front, &mut worker.response.borrow_mut(), |head| self.edit_answer(head));
        self.last_leaves()
    }

    /// The route answers itself: it leads elsewhere, or has an answer in the file.
    pub(super) fn answer_routed(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        if let Stage::Routed(answer) = &self.stage {
            let worker = Rc::clone(&self.service.worker);
            let fixed = self.settings.routes.answer(answer);
            self.response.status = fixed.status;
            self.response.done = true;
            let mut head = worker.response.borrow_mut();
            let edit = |head: &mut ResponseHead| self.edit_answer(head);
            // What the file says of this answer goes before what it says of all.
            match self.error_body(fixed.status).filter(|_| fixed.body.is_empty()) {
                Some(told) => answer::send_body(cx, front, fixed.status, &told, &mut head, edit),
                None => {
                    let varies = fixed.body.is_empty() && self.error_varies(fixed.status);
                    answer::fixed(cx, front, &fixed, &mut head, |head| {
                        if varies {
                            head.fields.push(b"Vary", b"Accept");
                        }
                        edit(head);
                    });
                }
            }
        }
        self.last_leaves()
    }

    /// What an answer of the gateway's own has for its body, where filters say so.
    fn error_body(&self, status: u16) -> Option<ErrorBody<'_>> {
        filter::error_body(self.filtered.as_deref(), &self.settings, &self.request.head, status, self.reason)
    }

    /// Whether that depends on the client's `Accept`, as far as this client is told nothing else.
    fn error_varies(&self, status: u16) -> bool {
        filter::error_varies(self.filtered.as_deref(), &self.settings, status)
    }

    /// What an answer of the gateway's own has besides, and what filters do to it.
    pub(super) fn edit_answer(&self, head: &mut ResponseHead) {
        rules::announce(head, self.settings.alt_svc.as_deref());
        filter::response(self.filtered.as_deref(), &self.settings, head);
    }

    /// The response is complete; the last of it leaves.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        match front.poll_flush(cx) {
            Poll::Ready(Ok(())) => Turn::End(End::Complete),
            Poll::Ready(Err(gone)) => self.client_gone(gone),
            Poll::Pending => {
                self.client.stall.begin(self.clock.now);
                Turn::Wait
            }
        }
    }

    /// The client went away, or this end has given its connection up; the backend is told by closing its connection.
    pub(super) fn client_gone(&mut self, gone: Gone) -> Turn {
        self.reason = Some(gone.reason());
        if let Some(call) = &mut self.call {
            call.cancelled();
        }
        Turn::End(End::Broken)
    }

    /// The request ends with this failure: it is counted, the backend is judged by it, and the client is told.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, front: &mut impl Front, failure: Failure) -> Turn {
        let metrics = &self.service.worker.metrics;
        match failure.counted_in().filter(|_| !self.is_errand()) {
            Some(Count::RequestRejected) => metrics.request_rejected.of(failure.reason()).inc(),
            Some(Count::FilterAnswers) => {
                let shard = self.service.metrics.worker(self.service.worker.io.id);
                shard.filter_answers.of(failure.reason()).inc();
            }
            Some(Count::UpstreamRejected) => {
                metrics.upstream_rejected.of(failure.reason()).inc();
                if self.response.status == 0 {
                    self.tries.current.status = Some(failure.status());
                }
            }
            None => {}
        }
        // A refused request says nothing of the backend, and a call that ends with it neither.
        self.tries.current.failure = Some(failure);
        self.answer(cx, front, failure)
    }

    /// The gateway answers itself, in place of a backend.
    pub(super) fn answer(&mut self, cx: &mut Context<'_>, front: &mut impl Front, failure: Failure) -> Turn {
        self.reason = Some(failure.reason());
        if self.is_errand() {
            return Turn::End(End::Broken);
        }
        if self.call.is_some() {
            return self.answer_call(cx, front, failure);
        }
        if self.response.status != 0 {
            // A response has begun: all that is left is to make sure that the client does not take it for whole.
            return self.cut(front, failure.reset());
        }
        let status = failure.status();
        self.response.status = status;
        self.response.done = true;
        let worker = Rc::clone(&self.service.worker);
        let (mut head, edit) =
            (worker.response.borrow_mut(), |head: &mut ResponseHead| self.edit_answer(head));
        match self.error_body(status) {
            Some(told) => answer::send_body(cx, front, status, &told, &mut head, edit),
            None => answer::send(cx, front, status, self.error_varies(status), &mut head, edit),
        }
        drop(head);
        self.give_room_back();
        self.last_leaves()
    }

    /// The client has all of its response but what is still on its way: nothing more is wanted of a backend, whose connection is closed or
    /// whose stream is reset unless it was kept before.
    pub(super) fn last_leaves(&mut self) -> Turn {
        self.client.stall = Stall::default();
        self.tries.current.stall = Stall::default();
        self.tries.current.leg = Leg::Over;
        self.stage = Stage::Flush;
        Turn::Again
    }

    /// Ends a response half-way, and says so: from the client's side it looks like a fault of the network.
    pub(super) fn cut(&mut self, front: &mut impl Front, why: ResetReason) -> Turn {
        front.abort(why);
        if self.is_errand() {
            return Turn::End(End::Broken);
        }
        if let Some(unsaid) = CUT.admit(self.clock.now.into_std()) {
            tracing::warn!(
                listener = self.service.name,
                client = %self.client.address.without_port(),
                backend = self.tries.current.backend(),
                reason = self.reason.map(Reason::name),
                key = Some(self.clock.limit).filter(|key| !key.is_empty()),
                bytes_out = self.client.sent,
                after_ms = u64::try_from((self.clock.now - self.clock.started).as_millis()).unwrap_or(u64::MAX),
                unsaid,
                "response cut before its end"
            );
        }
        Turn::End(End::Broken)
    }

    /// The backend has room again, and the budget of further tries, however long the client takes to read.
    pub(super) fn give_room_back(&mut self) {
        self.tries.current.room = None;
        again::try_done(&self.pool.balance, &mut self.tries.current.charged);
    }

    /// The client broke the protocol or a limit.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, front: &mut impl Front, reject: Reject) -> Turn {
        front.last_request();
        self.fail(cx, front, reject.into())
    }
}

//! Both directions of an exchange, moved in turn until neither gets on.

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::head::{FieldName, Fields, ResponseHead, Version};
use lb_core::retry::Failure;
use lb_io::pipe::Pipe;
use lb_observe::metrics::{RetryReason, UpstreamReject};

use tokio::time::Instant;

use super::grpc::Call;
use super::replay::Replay;
use super::timing::Stall;
use super::{Exchange, Response, Stage, Turn};
use crate::back::AnyBack;
use crate::exchange::{Back, BackError, Front, FrontError, Gone, Next, Progress, Reject, ResponseSink, Sink};
use crate::grpc::Failure as CallFailure;
use crate::rules;
use crate::service::HttpWorker;

/// Reads of each direction before other connections get their turn.
const ROUNDS: usize = 16;

/// Interim responses that one request may be given (attack H1-15).
const MAX_INTERIM: u8 = 16;

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
}

impl Exchange {
    pub(super) fn relay(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        match self.move_bytes(cx, front) {
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
            Stop::ClientGone => self.client_gone(),
            Stop::Refused(reject) => self.refuse(cx, front, reject),
            Stop::Failed(BackError::Reject(reason)) => self.bad_response(cx, front, reason),
            Stop::Failed(BackError::Reset(code)) => {
                self.call_failed(CallFailure::Reset(code));
                self.bad_response(cx, front, UpstreamReject::Reset)
            }
            Stop::Failed(BackError::Unprocessed { goaway }) => {
                let failure =
                    if goaway { Failure::GoneAway { before: self.gone_away } } else { Failure::Refused };
                if self.may_retry(failure) {
                    self.gone_away = self.gone_away.saturating_add(u32::from(goaway));
                    self.service.worker.metrics.http_retries.of(RetryReason::Unprocessed).inc();
                    self.stage = Stage::Choose { fresh: false };
                    return Turn::Again;
                }
                self.bad_response(cx, front, UpstreamReject::Reset)
            }
            Stop::Failed(BackError::Closed { sent }) => {
                let reused = matches!(self.stage, Stage::Relay { reused: true, .. });
                let failure = if reused { Failure::Stale { sent } } else { Failure::Later };
                if self.may_retry(failure) {
                    self.service.worker.metrics.http_retries.of(RetryReason::Stale).inc();
                    self.stage = Stage::Choose { fresh: true };
                    return Turn::Again;
                }
                self.bad_response(cx, front, UpstreamReject::Truncated)
            }
        }
    }

    fn move_bytes(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Stop {
        let worker = Rc::clone(&self.service.worker);
        let mut scratch = worker.io.scratch.borrow_mut();
        let mut head = worker.response.borrow_mut();
        let Self {
            stage,
            upload,
            response,
            backend_status,
            pipe,
            front_stall,
            back_stall,
            now,
            settings,
            request,
            replay,
            call,
            ..
        } = self;
        let Stage::Relay { back, .. } = stage else { return Stop::Idle };
        for _ in 0..ROUNDS {
            let mut moved = false;
            if back_stall.is_on() {
                flush_back(cx, back, back_stall, upload, *now);
            }
            if upload.is_wanted() && !back_stall.is_on() {
                if matches!(back, AnyBack::H1(_)) && replay.is_whole() {
                    // It can say nothing of the kind.
                    replay.forget();
                }
                let mut counted = Counted { to: back, bytes: 0, replay };
                let result = front.poll_body(cx, &mut scratch, &mut counted);
                let bytes = counted.bytes;
                match result {
                    Poll::Ready(Ok(progress)) => {
                        moved = true;
                        upload.moved(bytes, *now);
                        if progress == Progress::End {
                            upload.finish(*now);
                        }
                    }
                    Poll::Ready(Err(FrontError::Gone)) => return Stop::ClientGone,
                    Poll::Ready(Err(FrontError::Reject(reject))) => return Stop::Refused(reject),
                    Poll::Pending => {}
                }
            }
            flush_back(cx, back, back_stall, upload, *now);
            if front_stall.is_on() && pipe.is_none() && flush_front(cx, front, front_stall, *now).is_err() {
                return Stop::ClientGone;
            }
            if !response.done && pipe.is_none() && splices(front, back) {
                // Without descriptors for a pipe the copy goes on.
                *pipe = worker.io.pipes.take().ok();
            }
            if let Some(held) = pipe.take() {
                match splice(cx, front, back, held, pipe, &worker, front_stall, *now) {
                    Spliced::Moved => moved = true,
                    Spliced::Idle => {}
                    Spliced::End => {
                        front.end();
                        response.done = true;
                    }
                    Spliced::Stop(stop) => return stop,
                }
            } else if !response.done && !front_stall.is_on() {
                let mut sink = ToClient {
                    front: &mut *front,
                    response,
                    alt_svc: settings.alt_svc.as_deref(),
                    upgrade: request.upgrade(),
                    call: call.as_deref_mut(),
                    cut: false,
                };
                let was_tunnel = sink.response.tunnel;
                let room = sink.front.room();
                let result = back.poll_response(cx, &mut scratch, room, &mut head, &mut sink);
                let cut = sink.cut;
                match result {
                    Poll::Ready(Ok(progress)) => {
                        moved = true;
                        response.done = cut || progress == Progress::End;
                        if response.status != 0 || response.interims > 0 {
                            upload.answered(*now);
                        }
                        if response.status != 0 {
                            *backend_status = Some(response.status);
                            replay.forget();
                        }
                        if response.tunnel {
                            // The tunnel's clock runs for both directions.
                            upload.moved(0, *now);
                            if !was_tunnel {
                                upload.reopen(*now);
                            }
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        // What came before the fault is on its way; an abort must not overtake it more than needed.
                        let _ = front.poll_flush(cx);
                        return Stop::Failed(error);
                    }
                    Poll::Pending => {}
                }
                if flush_front(cx, front, front_stall, *now).is_err() {
                    return Stop::ClientGone;
                }
            }
            if response.done {
                if !response.tunnel {
                    return Stop::Done;
                }
                // A tunnel ends when both directions have, and what waits has left.
                if !upload.is_wanted() && !back_stall.is_on() && !front_stall.is_on() {
                    return Stop::Done;
                }
            }
            if !moved {
                // Nobody reads from the client now: its hanging up would go unnoticed.
                // A stream tells of it whatever was sent before; a connection only behind what was sent.
                let unread = !upload.is_wanted() || (back_stall.is_on() && request.version == Version::H2);
                if unread && !response.tunnel && front.poll_hangup(cx).is_ready() {
                    return Stop::ClientGone;
                }
                return Stop::Idle;
            }
        }
        Stop::Yield
    }

    /// The response is complete: the connection goes back to the pool if it can be used again.
    fn release(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Flush);
        let Stage::Relay { mut back, born, .. } = stage else { return };
        let worker = &self.service.worker;
        let sent = back.take_traffic().sent;
        worker.metrics.bytes_client_to_backend.add(sent);
        let AnyBack::H1(back) = back else { return };
        let member = self.member.and_then(|(at, _)| self.settings.pool(self.pool)?.members.get(at));
        match back.into_idle() {
            Ok(Some(stream)) if self.upload.is_done() => {
                if let Some(member) = member {
                    worker.upstreams.put(&member.endpoint, stream, born, self.now);
                }
            }
            Ok(_) => {}
            Err(reason) => worker.metrics.upstream_rejected.of(reason).inc(),
        }
    }
}

/// Bodies with at least this much still to come are moved without copying.
const SPLICE_BYTES: u64 = 64 * 1024;

/// What a turn of splicing came to.
enum Spliced {
    Moved,
    Idle,
    End,
    Stop(Stop),
}

/// Whether the rest of the response can go from socket to socket.
fn splices(front: &impl Front, back: &impl Back) -> bool {
    back.splice_left() >= SPLICE_BYTES && front.can_splice()
}

/// Moves a part of the body through `pipe`, which the exchange holds only while there are bytes in it.
#[expect(clippy::too_many_arguments, reason = "the parts of one exchange, borrowed one by one")]
fn splice(
    cx: &mut Context<'_>,
    front: &mut impl Front,
    back: &mut impl Back,
    mut pipe: Pipe,
    slot: &mut Option<Pipe>,
    worker: &HttpWorker,
    stall: &mut Stall,
    now: Instant,
) -> Spliced {
    let result =
        if pipe.held() > 0 { Poll::Ready(Ok(Progress::Moved)) } else { back.poll_splice(cx, &mut pipe) };
    let outcome = match result {
        Poll::Pending => Spliced::Idle,
        Poll::Ready(Err(error)) => Spliced::Stop(Stop::Failed(error)),
        Poll::Ready(Ok(_)) => match front.poll_splice(cx, &mut pipe) {
            Poll::Ready(Ok(())) => {
                stall.end();
                if back.splice_left() == 0 { Spliced::End } else { Spliced::Moved }
            }
            Poll::Ready(Err(Gone)) => Spliced::Stop(Stop::ClientGone),
            Poll::Pending => {
                stall.begin(now);
                *slot = Some(pipe);
                return Spliced::Idle;
            }
        },
    };
    worker.io.pipes.put(pipe);
    outcome
}

/// Sends what waits for the backend. A backend that takes no more may still have answered: its end is found when the answer is read.
fn flush_back(
    cx: &mut Context<'_>,
    back: &mut impl Back,
    stall: &mut Stall,
    upload: &mut super::timing::Upload,
    now: Instant,
) {
    match back.poll_flush(cx) {
        Poll::Ready(Ok(())) => {
            if stall.is_on() {
                stall.end();
                upload.resume(now);
            }
        }
        Poll::Ready(Err(Gone)) => {
            stall.end();
            upload.abandon();
        }
        Poll::Pending => stall.begin(now),
    }
}

fn flush_front(
    cx: &mut Context<'_>,
    front: &mut impl Front,
    stall: &mut Stall,
    now: Instant,
) -> Result<(), Gone> {
    match front.poll_flush(cx) {
        Poll::Ready(result) => {
            stall.end();
            result
        }
        Poll::Pending => {
            stall.begin(now);
            Ok(())
        }
    }
}

/// Counts body bytes on their way.
struct Counted<'a, S> {
    to: &'a mut S,
    bytes: u64,
    replay: &'a mut Replay,
}

impl<S: Sink> Sink for Counted<'_, S> {
    #[inline]
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.replay.push(bytes);
        self.to.data(cx, bytes);
    }

    fn trailers(&mut self, fields: &Fields) {
        self.replay.forget();
        self.to.trailers(fields);
    }

    fn end(&mut self) {
        self.to.end();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.to.poll_flush(cx)
    }
}

/// Takes a response for the client, head rules applied.
struct ToClient<'a, F> {
    front: &'a mut F,
    response: &'a mut Response,
    alt_svc: Option<&'a str>,
    /// The protocol that the request asked for.
    upgrade: &'a [u8],
    call: Option<&'a mut Call>,
    /// The client has its whole response, and the rest of the backend's is not for it.
    cut: bool,
}

impl<F: Front> Sink for ToClient<'_, F> {
    #[inline]
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.front.data(cx, bytes);
    }

    fn trailers(&mut self, fields: &Fields) {
        if let Some(call) = &mut self.call {
            call.trailers(fields);
        }
        self.front.trailers(fields);
    }

    fn end(&mut self) {
        self.front.end();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.front.poll_flush(cx)
    }
}

impl<F: Front> ResponseSink for ToClient<'_, F> {
    fn head(&mut self, head: &mut ResponseHead) -> Result<Next, UpstreamReject> {
        if head.is_interim() {
            self.response.interims = self.response.interims.saturating_add(1);
            if self.response.interims > MAX_INTERIM {
                return Err(UpstreamReject::InterimFlood);
            }
            rules::response(head, None);
            self.front.interim(head);
            return Ok(Next::Head);
        }
        if head.status == 101 {
            // A backend that switches to another protocol than was asked for speaks it to somebody who does not (RFC 9110 §7.8).
            let agreed = head.fields.values(FieldName::Upgrade).next();
            if !agreed.is_some_and(|agreed| agreed.eq_ignore_ascii_case(self.upgrade)) {
                return Err(UpstreamReject::UnaskedSwitch);
            }
        }
        rules::response(head, self.alt_svc);
        if let Some(call) = &mut self.call {
            self.cut = call.response(head);
        }
        self.response.begun(head);
        self.front.head(head);
        if head.status == 101 {
            self.response.tunnel = true;
            self.front.switch();
            return Ok(Next::Tunnel);
        }
        Ok(Next::Body)
    }
}

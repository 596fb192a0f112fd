//! Both directions of an exchange, moved in turn until neither gets on.

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::head::Version;
use lb_core::retry::{self, Failure};
use lb_io::Scratch;
use lb_io::pipe::Pipe;
use lb_observe::metrics::{RetryReason, UpstreamReject};

use tokio::time::Instant;

use super::again::{self, Again};
use super::replay::Keep;
use super::sinks::{Counted, ToClient};
use super::timing::Stall;
use super::{Exchange, Stage, Turn, Verdict};
use crate::back::AnyBack;
use crate::exchange::{Back, BackError, Front, FrontError, Gone, Progress, Reject, Sink};
use crate::grpc::Failure as CallFailure;
use crate::service::HttpWorker;

/// Reads of each direction before other connections get their turn.
const ROUNDS: usize = 16;

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
            Stop::ClientGone => self.client_gone(),
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
        if self.beside.is_some() && !self.response.has_begun() {
            self.verdict = Verdict::Failure;
            self.fall_back();
            return Turn::Again;
        }
        let (reused, shared) = match &self.stage {
            Stage::Relay { back, reused, .. } => (*reused, matches!(back, AnyBack::H2(_))),
            _ => (false, false),
        };
        let (failure, reason) = match error {
            BackError::Unprocessed { goaway: true } => {
                (Failure::GoneAway { before: self.gone_away }, RetryReason::Unprocessed)
            }
            BackError::Unprocessed { goaway: false } => (Failure::Refused, RetryReason::Unprocessed),
            // A shared connection was in use or known to be open: a backend that lets it go in peace says so by GOAWAY (RFC 9113 §6.8).
            BackError::Closed { sent } if reused && !(shared && sent) => {
                (Failure::Stale { sent }, RetryReason::Stale)
            }
            BackError::Closed { sent } => (Failure::Reset { sent }, RetryReason::Reset),
            BackError::Reset(_) | BackError::Reject(UpstreamReject::Reset | UpstreamReject::Truncated) => {
                (Failure::Reset { sent: true }, RetryReason::Reset)
            }
            BackError::Reject(_) => (Failure::Later, RetryReason::Reset),
        };
        // Without rules of the pool, what is lost with a connection that had served before is tried again, whoever is to blame.
        let class = match error {
            BackError::Closed { sent } if reused && !self.ruled => Failure::Stale { sent },
            _ => failure,
        };
        if self.may_retry(class, reason) {
            self.gone_away =
                self.gone_away.saturating_add(u32::from(matches!(failure, Failure::GoneAway { .. })));
            if matches!(failure, Failure::Reset { .. }) {
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

    fn move_bytes(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Stop {
        let worker = Rc::clone(&self.service.worker);
        let mut scratch = worker.io.scratch.borrow_mut();
        let mut head = worker.response.borrow_mut();
        let tries_left = if self.ruled { self.tries_left() } else { 0 };
        let Self {
            stage,
            upload,
            response,
            backend_status,
            heard,
            member,
            moves,
            pool,
            pipe,
            front_stall,
            back_stall,
            now,
            settings,
            request,
            replay,
            call,
            service,
            tunnel,
            charged,
            counted,
            beside,
            ..
        } = self;
        let beside = beside.is_some();
        let rules =
            if tries_left > 0 || beside { settings.pool(*pool).map(|pool| &*pool.balance) } else { None };
        let Stage::Relay { back, .. } = stage else { return Stop::Idle };
        let set_cookie = match member {
            Some((at, _)) if *moves => settings.pool(*pool).and_then(|pool| pool.sticky.as_ref()?.line(*at)),
            _ => None,
        };
        for _ in 0..ROUNDS {
            let mut moved = false;
            if back_stall.is_on() {
                flush_back(cx, back, back_stall, upload, *now);
            }
            if let Some(tunnel) = tunnel {
                tunnel.settle(cx, front, back, *now);
                tunnel.hold(back_stall.is_on(), front_stall.is_on(), *now);
            }
            // Once the gateway has ended a tunnel, what still comes is read and thrown away.
            let closing = tunnel.as_ref().is_some_and(|tunnel| tunnel.is_closing());
            if upload.is_wanted() && (closing || !back_stall.is_on()) {
                let repeats = rules.is_some() && retry::is_idempotent(request.method());
                if matches!(back, AnyBack::H1(_)) && !repeats && replay.is_whole() {
                    // It cannot say that it has not processed a request, and after nothing else would this one be sent again.
                    replay.forget();
                }
                let (result, bytes) = match tunnel {
                    None => count(front, cx, &mut scratch, &mut Keep { to: back, replay }),
                    Some(tunnel) => count(front, cx, &mut scratch, &mut tunnel.up(back, *now)),
                };
                match result {
                    Poll::Ready(Ok(progress)) => {
                        moved = true;
                        upload.moved(bytes, *now);
                        if progress == Progress::End {
                            upload.finish(*now);
                        }
                    }
                    Poll::Ready(Err(_)) if closing => upload.finish(*now),
                    Poll::Ready(Err(FrontError::Gone)) => return Stop::ClientGone,
                    Poll::Ready(Err(FrontError::Reject(reject))) => return Stop::Refused(reject),
                    Poll::Pending => {}
                }
            }
            flush_back(cx, back, back_stall, upload, *now);
            let gone = |result: Result<(), Gone>| result.is_err() && !closing;
            if front_stall.is_on() && pipe.is_none() && gone(flush_front(cx, front, front_stall, *now)) {
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
            } else if !response.done && (closing || !front_stall.is_on()) {
                let was_tunnel = tunnel.is_some();
                let room = front.room();
                let again = rules.filter(|_| response.status == 0).map(|pool| Again {
                    pool,
                    attempt: again::facts(tries_left, request, upload, replay),
                    charged: &mut *charged,
                    now: *now,
                    beside,
                    withheld: None,
                });
                let mut sink = ToClient {
                    front: &mut *front,
                    response,
                    tunnel,
                    call: call.as_deref_mut(),
                    again,
                    cut: false,
                    settings,
                    request,
                    service,
                    set_cookie,
                    now: *now,
                };
                let result = back.poll_response(cx, &mut scratch, room, &mut head, &mut sink);
                let cut = sink.cut;
                if let Some(status) = sink.withheld() {
                    heard.get_or_insert(*now);
                    let ended = matches!(result, Poll::Ready(Ok(Progress::End)));
                    return Stop::Withheld { status, ended };
                }
                match result {
                    Poll::Ready(Ok(progress)) => {
                        moved = true;
                        response.done = cut || progress == Progress::End;
                        if response.has_begun() {
                            upload.answered(*now);
                        }
                        if response.status != 0 {
                            *backend_status = Some(response.status);
                            heard.get_or_insert(*now);
                            replay.forget();
                            if *charged && let Some(pool) = settings.pool(*pool) {
                                // The try has its answer, however long the rest takes.
                                again::try_done(&pool.balance, charged);
                            }
                        }
                        if tunnel.is_some() && !was_tunnel {
                            upload.reopen(*now);
                            if let Some(pool) = settings.pool(*pool) {
                                // It may stand for days, and is never tried again.
                                again::leave_budget(&pool.balance, counted, charged);
                            }
                        }
                    }
                    Poll::Ready(Err(_)) if closing => response.done = true,
                    Poll::Ready(Err(error)) => {
                        // What came before the fault is on its way; an abort must not overtake it more than needed.
                        let _ = front.poll_flush(cx);
                        return Stop::Failed(error);
                    }
                    Poll::Pending => {}
                }
                if gone(flush_front(cx, front, front_stall, *now)) {
                    return Stop::ClientGone;
                }
            }
            if let Some(tunnel) = tunnel {
                // What was read may be the gateway's reason to end it.
                tunnel.settle(cx, front, back, *now);
                moved |= !closing && tunnel.is_closing();
                tunnel.hold(back_stall.is_on(), front_stall.is_on(), *now);
            }
            if response.done {
                let Some(tunnel) = tunnel else { return Stop::Done };
                // A tunnel ends when both directions have, and what waits has left.
                if !moved && !upload.is_wanted() && !back_stall.is_on() && !front_stall.is_on() {
                    tunnel.done();
                    return Stop::Done;
                }
            }
            if !moved {
                // Nobody reads from the client now: its hanging up would go unnoticed.
                // A stream tells of it whatever was sent before; a connection only behind what was sent.
                let unread = !upload.is_wanted() || (back_stall.is_on() && request.version == Version::H2);
                if unread && tunnel.is_none() && front.poll_hangup(cx).is_ready() {
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
        let Stage::Relay { back, born, place, .. } = stage else { return };
        let worker = &self.service.worker;
        let AnyBack::H1(back) = back else {
            self.room = None;
            return;
        };
        let member = self.member.and_then(|(at, _)| self.settings.pool(self.pool)?.members.get(at));
        match back.into_idle() {
            Ok(Some(stream)) if self.upload.is_done() => {
                if let Some(member) = member {
                    worker.upstreams.put(&member.endpoint, stream, born, place, self.now);
                }
            }
            Ok(_) => {}
            Err(reason) => worker.metrics.upstream_rejected.of(reason).inc(),
        }
        // The backend is done with the request, whenever the client is.
        self.room = None;
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

/// Reads once from the client, and says how many bytes were passed on.
#[inline]
fn count(
    front: &mut impl Front,
    cx: &mut Context<'_>,
    scratch: &mut Scratch,
    to: &mut impl Sink,
) -> (Poll<Result<Progress, FrontError>>, u64) {
    let mut counted = Counted { to, bytes: 0 };
    (front.poll_body(cx, scratch, &mut counted), counted.bytes)
}

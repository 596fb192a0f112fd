//! Both directions of an exchange, moved in turn until neither gets on.

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::head::Version;
use lb_core::retry;
use lb_io::Scratch;
use lb_pool::WorkerPool;
use tokio::time::Instant;

use super::Stop;
use super::splice::{Spliced, splice, splices};
use crate::back::AnyBack;
use crate::exchange::{Back, Front, FrontError, Gone, Progress, Sink};
use crate::proxy::again::{self, Again};
use crate::proxy::replay::Keep;
use crate::proxy::sinks::{Counted, ToClient};
use crate::proxy::timing::{Stall, Upload};
use crate::proxy::{Exchange, Response, Stage};
use crate::service::Pool;

/// Reads of each direction before other connections get their turn.
const ROUNDS: usize = 16;

impl Exchange {
    /// Moves what there is to move.
    pub(super) fn move_bytes(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Stop {
        let worker = Rc::clone(&self.service.worker);
        let mut scratch = worker.io.scratch.borrow_mut();
        let mut head = worker.response.borrow_mut();
        let tries_left = self.tries_left();
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
            gone_away,
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
                let withholds = |pool: &&WorkerPool| withholds_any(pool, response);
                let again = rules.filter(withholds).map(|pool| Again {
                    pool,
                    attempt: again::facts(tries_left, *gone_away, request, upload, replay),
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
                    hear(heard, settings.pool(*pool), *member, *now);
                    let ended = matches!(result, Poll::Ready(Ok(Progress::End)));
                    return Stop::Withheld { status, ended };
                }
                match result {
                    Poll::Ready(Ok(progress)) => {
                        moved = true;
                        response.done = cut || progress == Progress::End;
                        if response.continues {
                            upload.asked_for(*now);
                        }
                        if response.status != 0 {
                            *backend_status = Some(response.status);
                            hear(heard, settings.pool(*pool), *member, *now);
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
}

/// Whether some response, if it came now, would not be for the client.
#[inline]
fn withholds_any(pool: &WorkerPool, response: &Response) -> bool {
    response.status == 0 && !pool.retry().conditions.statuses.is_empty()
}

/// The head of the response has come.
#[inline]
fn hear(heard: &mut Option<Instant>, pool: Option<&Pool>, member: Option<(usize, Instant)>, now: Instant) {
    if heard.is_none() {
        *heard = Some(now);
        if let (Some(pool), Some((at, asked))) = (pool, member) {
            pool.balance.answered(at, asked.into_std(), now.into_std());
        }
    }
}

/// Sends what waits for the backend. A backend that takes no more may still have answered: its end is found when the answer is read.
fn flush_back(
    cx: &mut Context<'_>,
    back: &mut impl Back,
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

//! The way of the request's body, or of a tunnel's bytes, from the client to the backend.

use std::task::{Context, Poll};

use lb_core::failure::Reject;
use lb_core::reason::Reason;
use lb_core::retry;
use lb_io::Scratch;

use super::Stop;
use super::moving::{Round, flush_back};
use crate::message::{Front, FrontError, Progress, Sink};
use crate::proxy::exchange::Exchange;
use crate::proxy::extras::Extras;
use crate::proxy::mirror::Tee;
use crate::proxy::replay::Keep;
use crate::proxy::request::Request;
use crate::proxy::sinks::Counted;
use crate::proxy::tries::{Leg, Try};
use crate::upstream::Link;

impl Exchange {
    /// Reads once from the client. Whether anything came.
    #[inline]
    pub(super) fn move_request(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        scratch: &mut Scratch,
        round: Round,
    ) -> Result<bool, Stop> {
        let Try { leg: Leg::Relay(Link { back, can, .. }), stall, resend, .. } = &mut self.tries.current
        else {
            return Ok(false);
        };
        let Request { head, upload, replay, body_left, .. } = &mut self.request;
        let now = self.clock.now;
        let mut moved = false;
        if resend.is_some() {
            return Ok(self.resend(cx));
        }
        if upload.is_wanted() && (round.closing || !stall.is_on()) {
            if !can.refuses
                && replay.is_whole()
                && !(round.may_go_elsewhere() && retry::is_idempotent(head.method()))
            {
                // It cannot say that it has not processed a request, and after nothing else would this one be sent again.
                replay.forget();
            }
            let (result, bytes, over) = match &mut self.tunnel {
                None => {
                    let mut tee = Tee { to: back, mirrors: Extras::mirrored(self.extras.as_deref()) };
                    count(front, cx, scratch, &mut Keep { to: &mut tee, replay }, *body_left)
                }
                Some(tunnel) => count(front, cx, scratch, &mut tunnel.up(back, now), u64::MAX),
            };
            if over {
                return Err(Stop::Refused(Reject::new(413, Reason::BodyTooLarge)));
            }
            match result {
                Poll::Ready(Ok(progress)) => {
                    moved = true;
                    upload.moved(bytes, now);
                    *body_left = body_left.saturating_sub(bytes);
                    if progress == Progress::End {
                        upload.finish(now);
                    }
                }
                Poll::Ready(Err(_)) if round.closing => upload.finish(now),
                Poll::Ready(Err(FrontError::Gone(gone))) => return Err(Stop::ClientGone(gone)),
                Poll::Ready(Err(FrontError::Reject(reject))) => return Err(Stop::Refused(reject)),
                Poll::Pending => {}
            }
        }
        flush_back(cx, back, stall, upload, now);
        Ok(moved)
    }
}

impl Exchange {
    /// Sends more of what was taken from the client before, which comes first. Whether anything was sent.
    fn resend(&mut self, cx: &mut Context<'_>) -> bool {
        let Try { leg: Leg::Relay(Link { back, .. }), stall, resend, .. } = &mut self.tries.current else {
            return false;
        };
        let Request { upload, replay, .. } = &mut self.request;
        let Some(at) = resend else { return false };
        let mut moved = !stall.is_on();
        if upload.is_abandoned() || (moved && replay.send(cx, at, upload.is_done(), back)) {
            *resend = None;
            if self.response.status != 0 {
                replay.forget();
            }
            moved = true;
        }
        flush_back(cx, back, stall, upload, self.clock.now);
        moved
    }
}

/// Reads once from the client, and says how many bytes were passed on, and whether there were more than `most`.
#[inline]
pub(in crate::proxy) fn count(
    front: &mut impl Front,
    cx: &mut Context<'_>,
    scratch: &mut Scratch,
    to: &mut impl Sink,
    most: u64,
) -> (Poll<Result<Progress, FrontError>>, u64, bool) {
    let mut counted = Counted { to, bytes: 0, most, over: false };
    let result = front.poll_body(cx, scratch, &mut counted);
    (result, counted.bytes, counted.over)
}

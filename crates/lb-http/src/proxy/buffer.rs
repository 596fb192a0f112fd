//! A request whose body is read before a backend is chosen (`buffer_request_bytes`): backends do not wait for slow clients.
//!
//! What is read waits where a body is kept for another try, and is sent to the backend from there. A body that is larger than what is
//! buffered, or for which the worker has no room, goes on as it comes: nothing is refused for its size here.

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::failure::Reject;
use lb_core::head::{BodyLength, FieldName, ResponseHead};
use lb_core::reason::Reason;

use super::exchange::{Exchange, Stage, Turn};
use super::extras::Extras;
use super::mirror::Tee;
use super::relay::{ROUNDS, count};
use super::replay::Hold;
use crate::message::{Front, FrontError, Progress};

impl Exchange {
    /// Whether the body is to be read before a backend is chosen. A call is not held up: its messages come when they come.
    pub(super) fn buffers(&self) -> bool {
        let most = self.http().buffer_request_bytes;
        most > 0
            && self.call.is_none()
            && self.request.head.upgrade.is_empty()
            && match self.request.head.body {
                BodyLength::None | BodyLength::Known(0) => false,
                // What is known to be larger would be held up for nothing.
                BodyLength::Known(length) => usize::try_from(length).is_ok_and(|length| length <= most),
                BodyLength::Unknown => true,
            }
    }

    /// Reads on, until the body is complete or more is here than is buffered.
    pub(super) fn buffer(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        self.ask_for_body(front);
        self.begin_mirrors();
        let most = self.http().buffer_request_bytes;
        let worker = Rc::clone(&self.service.worker);
        let mut scratch = worker.io.scratch.borrow_mut();
        for _ in 0..ROUNDS {
            let request = &mut self.request;
            let mut hold = Hold { replay: &mut request.replay, most, full: false };
            let mut tee = Tee { to: &mut hold, mirrors: Extras::mirrored(self.extras.as_deref()) };
            let (result, bytes, over) = count(front, cx, &mut scratch, &mut tee, request.body_left);
            let full = hold.full;
            if over {
                return self.refuse(cx, front, Reject::new(413, Reason::BodyTooLarge));
            }
            match result {
                Poll::Ready(Ok(progress)) => {
                    request.upload.moved(bytes, self.clock.now);
                    request.body_left = request.body_left.saturating_sub(bytes);
                    if progress == Progress::End {
                        request.upload.finish(self.clock.now);
                        request.tell_length();
                    }
                    if full || progress == Progress::End {
                        self.stage = Stage::Tries;
                        return Turn::Again;
                    }
                    if Extras::mirrored(self.extras.as_deref()).iter().any(|body| body.waits()) {
                        break;
                    }
                }
                Poll::Ready(Err(FrontError::Gone(gone))) => return self.client_gone(gone),
                Poll::Ready(Err(FrontError::Reject(reject))) => return self.refuse(cx, front, reject),
                Poll::Pending => {
                    return match front.poll_flush(cx) {
                        Poll::Ready(Err(gone)) => self.client_gone(gone),
                        _ => Turn::Wait,
                    };
                }
            }
        }
        cx.waker().wake_by_ref();
        Turn::Wait
    }

    /// A client that waits to be asked for its body (RFC 9110 §10.1.1) is asked by the gateway, and the backend need not ask again.
    fn ask_for_body(&mut self, front: &mut impl Front) {
        if !self.request.upload.expects {
            return;
        }
        self.request.head.fields.remove(FieldName::Expect);
        self.request.upload.asked_for(self.clock.now);
        if self.client.can.interim {
            front.interim(&ResponseHead { status: 100, ..ResponseHead::default() });
        }
    }
}

//! The client's side of one HTTP/2 exchange: a stream.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::failure::ResetReason;
use lb_core::head::{Fields, ResponseHead, TunnelBy};
use lb_io::{Scratch, WorkerIo};

use super::frame::ErrorCode;
use super::mux::{Key, Mux};
use crate::message::{Front, FrontCapabilities, FrontError, Gone, Progress, Sink, Traffic};
use crate::section::encode;

/// A stream that a client has opened. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct H2Front {
    mux: Rc<RefCell<Mux>>,
    key: Key,
    io: Rc<WorkerIo>,
    to_head: bool,
    /// What the client is told when the stream ends before it is complete.
    farewell: ErrorCode,
}

impl H2Front {
    /// The stream at `key`.
    pub(super) fn new(mux: Rc<RefCell<Mux>>, key: Key, io: Rc<WorkerIo>, to_head: bool) -> Self {
        Self { mux, key, io, to_head, farewell: ErrorCode::CANCEL }
    }

    /// The exchange was completed: what the client still sends is not wanted, and no fault (RFC 9113 §8.1).
    pub(super) fn complete(mut self) {
        self.farewell = ErrorCode::NO_ERROR;
    }
}

impl Drop for H2Front {
    fn drop(&mut self) {
        self.mux.borrow_mut().leave(self.key, self.farewell);
    }
}

impl Sink for H2Front {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        if !self.to_head {
            self.mux.borrow_mut().send_data(self.key, bytes);
        }
    }

    fn trailers(&mut self, fields: &Fields) {
        self.mux.borrow_mut().send_trailers(self.key, fields);
    }

    fn end(&mut self) {
        self.mux.borrow_mut().send_end(self.key);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.mux.borrow_mut().poll_flush(self.key, cx)
    }
}

impl Front for H2Front {
    fn capabilities(&self) -> FrontCapabilities {
        FrontCapabilities { interim: true, trailers: true, tunnel: TunnelBy::ExtendedConnect, streams: true }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Scratch,
        to: &mut impl Sink,
    ) -> Poll<Result<Progress, FrontError>> {
        let mut bytes = {
            let mut mux = self.mux.borrow_mut();
            if let Some(gone) = mux.gone(self.key) {
                return Poll::Ready(Err(FrontError::Gone(gone)));
            }
            let Some(stream) = mux.stream(self.key) else {
                return Poll::Ready(Err(FrontError::Gone(Gone::Closed)));
            };
            if stream.inbox.is_empty() && !stream.received_end {
                stream.wait(cx);
                return Poll::Pending;
            }
            std::mem::take(&mut stream.inbox)
        };
        if !bytes.is_empty() {
            let n = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            to.data(cx, &bytes);
            self.mux.borrow_mut().release(self.key, u32::try_from(n).unwrap_or(u32::MAX));
            self.io.buffers.put(&mut bytes);
        }
        let trailers = {
            let mut mux = self.mux.borrow_mut();
            let Some(stream) = mux.stream(self.key).filter(|stream| stream.received_end) else {
                return Poll::Ready(Ok(Progress::Moved));
            };
            stream.trailers.take()
        };
        if let Some(trailers) = trailers {
            to.trailers(&trailers);
        }
        to.end();
        Poll::Ready(Ok(Progress::End))
    }

    fn interim(&mut self, head: &ResponseHead) {
        self.mux.borrow_mut().send_response(self.key, head, false);
    }

    fn head(&mut self, head: &ResponseHead) {
        let end = head.status != 101 && encode::is_whole(head.body, self.to_head);
        self.mux.borrow_mut().send_response(self.key, head, end);
    }

    fn switch(&mut self) {}

    fn room(&self) -> usize {
        self.mux.borrow().room(self.key)
    }

    fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let mut mux = self.mux.borrow_mut();
        if let Some(gone) = mux.gone(self.key) {
            return Poll::Ready(gone);
        }
        if let Some(stream) = mux.stream(self.key) {
            stream.wait(cx);
        }
        Poll::Pending
    }

    fn last_request(&mut self) {}

    fn take_traffic(&mut self) -> Traffic {
        self.mux
            .borrow_mut()
            .stream(self.key)
            .map(|stream| std::mem::take(&mut stream.traffic))
            .unwrap_or_default()
    }

    fn abort(&mut self, why: ResetReason) {
        self.farewell = ErrorCode::of(why);
    }
}

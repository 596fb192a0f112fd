//! Requests of the gateway's own: exchanges whose client is a buffer.
//!
//! An errand is an exchange like any other, so that pools, limits, connections and protocols of backends are had once. What is different is its
//! front: the request comes from memory or from a bounded queue that another exchange fills, and the response is thrown away. An errand has no
//! route and no filters, so that none begets another.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use lb_core::failure::ResetReason;
use lb_core::head::{Fields, ResponseHead, TunnelBy};
use lb_io::Scratch;
use lb_observe::metrics::MirrorResult;

use crate::budget::BodyShare;
use crate::message::{Front, FrontCapabilities, FrontError, Gone, Progress, Sink, Traffic};

/// What is read of a response that nobody hears, so that its connection can be kept; a longer one is given up.
const MOST_HEARD_BYTES: usize = 1024 * 1024;

/// The body of an errand's request, which one exchange fills and another reads.
#[derive(Debug)]
pub(crate) struct ErrandBody {
    /// What may wait here.
    most: usize,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    trailers: Option<Box<Fields>>,
    /// All has been said that there is to say: the body is complete, or will never be.
    end: Option<BodyEnd>,
    reader: Option<Waker>,
    /// What may wait here is counted in the budget of the worker.
    _share: BodyShare,
}

/// How the body of an errand's request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// It is complete.
    Complete,
    /// More came than may wait.
    Behind,
    /// Its source has ended before it was complete.
    Abandoned,
}

impl ErrandBody {
    /// A body of which nothing is here yet, and at most `most` bytes wait, which `share` holds.
    pub(crate) fn new(most: usize, share: BodyShare) -> Rc<Self> {
        let state = State { bytes: Vec::new(), trailers: None, end: None, reader: None, _share: share };
        Rc::new(Self { most, state: RefCell::new(state) })
    }

    /// Adds a piece. Where more would wait than may, the body ends, and what waits is thrown away: whoever fills it is never held up.
    pub(crate) fn push(&self, piece: &[u8]) {
        let mut state = self.state.borrow_mut();
        if state.end.is_some() {
            return;
        }
        if state.bytes.len().saturating_add(piece.len()) > self.most {
            state.finish(BodyEnd::Behind);
        } else {
            state.bytes.extend_from_slice(piece);
            state.wake();
        }
    }

    /// Adds the trailer fields.
    pub(crate) fn trailers(&self, fields: &Fields) {
        self.state.borrow_mut().trailers = Some(Box::new(fields.clone()));
    }

    /// The body is complete, or nothing more comes.
    pub(crate) fn finish(&self, end: BodyEnd) {
        let mut state = self.state.borrow_mut();
        if state.end.is_none() {
            state.finish(end);
        }
    }

    /// Whether some of it waits to be read.
    pub(crate) fn waits(&self) -> bool {
        !self.state.borrow().bytes.is_empty()
    }

    /// Whether it ended without being complete.
    fn broken(&self) -> Option<BodyEnd> {
        self.state.borrow().end.filter(|end| *end != BodyEnd::Complete)
    }
}

impl State {
    fn finish(&mut self, end: BodyEnd) {
        self.end = Some(end);
        if end != BodyEnd::Complete {
            self.bytes = Vec::new();
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The client's side of an errand.
#[derive(Debug)]
pub(crate) struct ErrandFront {
    /// The request's body, if it has one.
    body: Option<Rc<ErrandBody>>,
    /// The status of the backend's response.
    status: Option<u16>,
    /// Bytes of its body.
    heard: usize,
}

impl ErrandFront {
    pub(crate) fn new(body: Option<Rc<ErrandBody>>) -> Self {
        Self { body, status: None, heard: 0 }
    }

    /// What the errand has come to. `late` says that its time was over.
    pub(crate) fn result(&self, late: bool) -> MirrorResult {
        match (self.status, self.body.as_ref().and_then(|body| body.broken())) {
            (Some(_), _) => MirrorResult::Answered,
            (None, Some(BodyEnd::Behind)) => MirrorResult::Behind,
            (None, Some(_)) => MirrorResult::Abandoned,
            (None, None) if late => MirrorResult::Timeout,
            (None, None) => MirrorResult::Failed,
        }
    }
}

impl Sink for ErrandFront {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        self.heard = self.heard.saturating_add(bytes.len());
    }

    fn trailers(&mut self, _: &Fields) {}

    fn end(&mut self) {}

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.heard > MOST_HEARD_BYTES {
            return Poll::Ready(Err(Gone::Closed));
        }
        Poll::Ready(Ok(()))
    }
}

impl Front for ErrandFront {
    fn capabilities(&self) -> FrontCapabilities {
        FrontCapabilities { interim: false, trailers: true, tunnel: TunnelBy::Upgrade, streams: true }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Scratch,
        to: &mut impl Sink,
    ) -> Poll<Result<Progress, FrontError>> {
        let Some(body) = &self.body else {
            to.end();
            return Poll::Ready(Ok(Progress::End));
        };
        let mut state = body.state.borrow_mut();
        if !state.bytes.is_empty() {
            let bytes = std::mem::take(&mut state.bytes);
            drop(state);
            to.data(cx, &bytes);
            return Poll::Ready(Ok(Progress::Moved));
        }
        match state.end {
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(BodyEnd::Complete) => {
                if let Some(trailers) = state.trailers.take() {
                    to.trailers(&trailers);
                }
                to.end();
                Poll::Ready(Ok(Progress::End))
            }
            Some(BodyEnd::Behind | BodyEnd::Abandoned) => Poll::Ready(Err(FrontError::Gone(Gone::Closed))),
        }
    }

    fn interim(&mut self, _: &ResponseHead) {}

    fn head(&mut self, head: &ResponseHead) {
        self.status = Some(head.status);
    }

    fn switch(&mut self) {}

    fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let Some(body) = &self.body else { return Poll::Pending };
        if body.broken().is_some() {
            return Poll::Ready(Gone::Closed);
        }
        body.state.borrow_mut().reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn last_request(&mut self) {}

    fn take_traffic(&mut self) -> Traffic {
        Traffic::default()
    }

    fn abort(&mut self, _: ResetReason) {}
}

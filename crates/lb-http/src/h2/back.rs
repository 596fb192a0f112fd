//! The backend's side of an HTTP/2 exchange: a stream of a connection that many exchanges share.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::failure::{Failure, Kind, Reach};
use lb_core::head::{BodyLength, FieldName, Fields, RequestHead, ResponseHead, TunnelBy};
use lb_core::reason::Reason;
use lb_io::{Scratch, WorkerIo};

use super::frame::ErrorCode;
use super::mux::{Key, Mux};
use super::stream::Reset;
use crate::message::{Back, BackCapabilities, Gone, Next, Progress, ResponseSink, Sink, Traffic};

/// A stream to a backend. Dropping it ends the stream; the backend hears of it when it was not complete.
#[derive(Debug)]
pub struct H2Back {
    mux: Rc<RefCell<Mux>>,
    key: Key,
    io: Rc<WorkerIo>,
    scheme: &'static [u8],
    /// The request asks for another protocol, by the extended CONNECT (RFC 8441).
    tunnel: bool,
    /// Such a request, until the backend's SETTINGS say whether it may be sent.
    deferred: Option<Box<RequestHead>>,
    /// The final head was passed on.
    has_head: bool,
    done: bool,
}

impl H2Back {
    /// The stream at `key`, on which nothing was sent yet.
    pub(super) fn new(mux: Rc<RefCell<Mux>>, key: Key, io: Rc<WorkerIo>, tls: bool) -> Self {
        let scheme: &[u8] = if tls { b"https" } else { b"http" };
        Self { mux, key, io, scheme, tunnel: false, deferred: None, has_head: false, done: false }
    }

    /// Takes the next thing that the backend has sent.
    fn next(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        head: &mut ResponseHead,
    ) -> Poll<Result<Event, Failure>> {
        let mut mux = self.mux.borrow_mut();
        if mux.peer.known
            && let Some(request) = self.deferred.take()
        {
            if !mux.peer.extended_connect {
                return Poll::Ready(Err(Failure::malformed(Reason::NoExtendedConnect)));
            }
            mux.send_request(self.key, &request, self.scheme, false);
        }
        let Some(stream) = mux.stream(self.key) else {
            return Poll::Ready(Err(Kind::Closed.at(Reach::Sent)));
        };
        if !self.has_head {
            if let Some(received) = stream.heads.pop_front() {
                *head = received;
                return Poll::Ready(Ok(Event::Head));
            }
        } else if !stream.inbox.is_empty() {
            let all = stream.inbox.len();
            let bytes = if all <= room {
                std::mem::take(&mut stream.inbox)
            } else {
                let mut part = self.io.buffers.take();
                part.extend(stream.inbox.drain(..room));
                part
            };
            return Poll::Ready(Ok(Event::Data(bytes)));
        } else if stream.received_end {
            return Poll::Ready(Ok(Event::End(stream.trailers.take())));
        }
        if let Some(reason) = stream.fault {
            return Poll::Ready(Err(Failure::malformed(reason)));
        }
        match stream.reset {
            Some(Reset::Unprocessed { goaway: true }) => Poll::Ready(Err(Kind::GoneAway.at(Reach::Sent))),
            Some(Reset::Unprocessed { goaway: false }) => Poll::Ready(Err(Kind::Refused.at(Reach::Sent))),
            Some(Reset::Connection) if !self.has_head => {
                Poll::Ready(Err(Kind::Closed.at(Reach::of_sent(mux.has_left(self.key)))))
            }
            Some(Reset::Connection) => Poll::Ready(Err(Kind::Truncated.at(Reach::Sent))),
            Some(Reset::Peer(code)) => Poll::Ready(Err(Kind::StreamReset(code.reset()).at(Reach::Sent))),
            Some(Reset::Ours(_)) => Poll::Ready(Err(Failure::malformed(Reason::Framing))),
            None => {
                stream.wait(cx);
                Poll::Pending
            }
        }
    }
}

/// What a backend has sent.
enum Event {
    Head,
    Data(Vec<u8>),
    End(Option<Fields>),
}

impl Drop for H2Back {
    fn drop(&mut self) {
        self.mux.borrow_mut().leave(self.key, ErrorCode::CANCEL);
    }
}

impl Sink for H2Back {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        self.mux.borrow_mut().send_data(self.key, bytes);
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

impl Back for H2Back {
    fn capabilities(&self) -> BackCapabilities {
        BackCapabilities { tunnel: TunnelBy::ExtendedConnect, shared: true, refuses: true }
    }

    fn request(&mut self, head: &RequestHead) {
        self.tunnel = !head.upgrade.is_empty();
        let end = !self.tunnel && matches!(head.body, BodyLength::None | BodyLength::Known(0));
        let mut mux = self.mux.borrow_mut();
        if let Some(stream) = mux.stream(self.key) {
            stream.to_head = head.is_head();
        }
        if self.tunnel {
            drop(mux);
            self.deferred = Some(Box::new(head.clone()));
            return;
        }
        mux.send_request(self.key, head, self.scheme, end);
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        _: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        to: &mut impl ResponseSink,
    ) -> Poll<Result<Progress, Failure>> {
        if self.done {
            return Poll::Ready(Ok(Progress::End));
        }
        let mut moved = false;
        loop {
            let event = match self.next(cx, room, head) {
                Poll::Ready(event) => event?,
                Poll::Pending if moved => return Poll::Ready(Ok(Progress::Moved)),
                Poll::Pending => return Poll::Pending,
            };
            moved = true;
            match event {
                Event::Head => {
                    if self.tunnel && (200..300).contains(&head.status) {
                        // In the words of HTTP/1.1, which the exchange speaks.
                        head.status = 101;
                        head.body = BodyLength::None;
                        head.fields.push(b"Upgrade", b"websocket");
                        // A tunnel has no length (RFC 9110 §9.3.6).
                        head.fields.remove(FieldName::ContentLength);
                    }
                    if to.head(cx, head).map_err(Failure::malformed)? != Next::Head {
                        self.has_head = true;
                    }
                }
                Event::Data(mut bytes) => {
                    to.data(cx, &bytes);
                    let n = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    self.mux.borrow_mut().release(self.key, n);
                    self.io.buffers.put(&mut bytes);
                    return Poll::Ready(Ok(Progress::Moved));
                }
                Event::End(trailers) => {
                    if let Some(trailers) = trailers {
                        to.trailers(&trailers);
                    }
                    to.end();
                    self.done = true;
                    return Poll::Ready(Ok(Progress::End));
                }
            }
        }
    }

    fn take_traffic(&mut self) -> Traffic {
        self.mux
            .borrow_mut()
            .stream(self.key)
            .map(|stream| std::mem::take(&mut stream.traffic))
            .unwrap_or_default()
    }
}

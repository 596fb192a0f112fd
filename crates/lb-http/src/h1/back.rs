//! The backend's side of an HTTP/1.1 exchange.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use lb_core::failure::{Failure, Kind, Reach};
use lb_core::head::{BodyLength, Fields, RequestHead, ResponseHead, TunnelBy};
use lb_core::reason::Reason;
use lb_io::pipe::{PIPE_BYTES, Pipe};
use lb_io::{Scratch, WorkerIo};
use lb_security::Stream;

use super::body::{BodyError, BodyReader};
use super::encode;
use super::request::may_end;
use super::response::{self, WireBody};
use super::wire::{Wire, Writing};
use crate::message::{Back, BackCapabilities, Gone, Next, Progress, ResponseSink, Sink, Traffic};

/// A connection to a backend, and the exchange on it. It is kept as a whole between exchanges, so that what passes from one to the next is one
/// pointer.
#[derive(Debug)]
pub struct H1Back {
    wire: Wire,
    reading: Reading,
    max_head_bytes: usize,
    to_head: bool,
    upgrading: bool,
    keep_alive: bool,
    /// Whether any byte of the request was handed to the kernel.
    sent_any: bool,
}

#[derive(Debug)]
enum Reading {
    Head,
    Body(BodyReader),
    Done,
}

impl H1Back {
    /// An exchange over `stream`, which stands between messages.
    pub fn new(stream: Stream, io: Rc<WorkerIo>, max_head_bytes: usize) -> Self {
        Self {
            wire: Wire::new(stream, io),
            reading: Reading::Head,
            max_head_bytes,
            to_head: false,
            upgrading: false,
            keep_alive: false,
            sent_any: false,
        }
    }

    /// Ends an exchange, and says whether another request may be sent on the connection: both messages are complete, nothing is left over,
    /// and the backend keeps it open. Then the worker has its buffers back.
    ///
    /// # Errors
    /// When bytes stand behind the response.
    pub fn rest(&mut self) -> Result<bool, Reason> {
        if !matches!(self.reading, Reading::Done) || !self.keep_alive {
            return Ok(false);
        }
        if !self.wire.early.is_empty() {
            return Err(Reason::ExcessBytes);
        }
        let complete =
            self.wire.is_flushed() && self.wire.writing == Writing::Nothing && !self.wire.is_broken();
        if complete {
            self.wire.release();
        }
        Ok(complete)
    }

    /// Stands ready for another exchange, on a connection that is idle; the bytes of the last one are counted.
    #[inline]
    pub fn restart(&mut self, max_head_bytes: usize) {
        self.reading = Reading::Head;
        self.max_head_bytes = max_head_bytes;
        self.keep_alive = false;
        self.sent_any = false;
        self.wire.traffic = Traffic::default();
    }

    /// The socket, of a connection that is idle.
    #[inline]
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.wire.stream
    }

    fn has_sent(&self) -> bool {
        self.sent_any || self.wire.traffic.sent > 0
    }

    /// Uses `input`, which is everything read and not used before; returns how much of it was used.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        head: &mut ResponseHead,
        to: &mut impl ResponseSink,
    ) -> Result<usize, Reason> {
        let mut at = 0usize;
        while let Reading::Head = self.reading {
            let rest = input.get(at..).unwrap_or(&[]);
            head.clear();
            let parsed = response::parse(rest, self.max_head_bytes, self.to_head, self.upgrading, head)?;
            let Some(parsed) = parsed else { return Ok(at) };
            at = at.saturating_add(parsed.consumed);
            match to.head(cx, head)? {
                Next::Head => {}
                Next::Tunnel => {
                    self.wire.writing = Writing::Tunnel;
                    self.reading = Reading::Body(BodyReader::UntilClose);
                }
                Next::Body => {
                    self.keep_alive = parsed.keep_alive;
                    let reader = match parsed.body {
                        WireBody::None => BodyReader::Done,
                        WireBody::Length(length) => BodyReader::length(length),
                        WireBody::Chunked => BodyReader::chunked(),
                        WireBody::UntilClose => BodyReader::UntilClose,
                    };
                    if reader.is_done() {
                        to.end();
                        self.reading = Reading::Done;
                    } else {
                        self.reading = Reading::Body(reader);
                    }
                }
            }
        }
        if let Reading::Body(reader) = &mut self.reading {
            let n = reader.read(cx, input.get(at..).unwrap_or(&[]), to).map_err(|error| match error {
                BodyError::Chunk | BodyError::Trailer => Reason::ChunkSyntax,
            })?;
            at = at.saturating_add(n);
            if reader.is_done() {
                self.reading = Reading::Done;
            }
        }
        Ok(at)
    }

    /// The backend will send no more.
    fn ended(&mut self, to: &mut impl Sink) -> Result<Progress, Failure> {
        match &self.reading {
            Reading::Body(BodyReader::UntilClose) => {
                to.end();
                self.reading = Reading::Done;
                Ok(Progress::End)
            }
            Reading::Head if self.wire.early.is_empty() => {
                Err(Kind::Closed.at(Reach::of_sent(self.has_sent())))
            }
            _ => Err(Kind::Truncated.at(Reach::Sent)),
        }
    }
}

impl Sink for H1Back {
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.wire.data(cx, bytes);
    }

    fn trailers(&mut self, fields: &Fields) {
        self.wire.trailers(fields);
    }

    fn end(&mut self) {
        self.wire.end();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.wire.poll_flush(cx)
    }
}

impl Back for H1Back {
    fn capabilities(&self) -> BackCapabilities {
        BackCapabilities { tunnel: TunnelBy::Upgrade, shared: false, refuses: false }
    }

    fn request(&mut self, head: &RequestHead) {
        self.to_head = head.is_head();
        self.upgrading = !head.upgrade.is_empty();
        self.wire.writing = match head.body {
            BodyLength::None | BodyLength::Known(0) => Writing::Nothing,
            BodyLength::Known(_) => Writing::Plain,
            BodyLength::Unknown if encode::promises_nothing(head) => Writing::Nothing,
            BodyLength::Unknown => Writing::Chunked,
        };
        encode::request(head, self.wire.out());
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        to: &mut impl ResponseSink,
    ) -> Poll<Result<Progress, Failure>> {
        if matches!(self.reading, Reading::Done) {
            return Poll::Ready(Ok(Progress::End));
        }
        let input = match ready!(self.wire.poll_recv(cx, scratch, room)) {
            Ok([]) => return Poll::Ready(self.ended(to)),
            Ok(input) => input,
            Err(_) => {
                let first = matches!(self.reading, Reading::Head) && self.wire.early.is_empty();
                return Poll::Ready(Err(if first {
                    Kind::Closed.at(Reach::of_sent(self.has_sent()))
                } else {
                    Kind::ConnectionReset.at(Reach::Sent)
                }));
            }
        };
        let result = if self.wire.early.is_empty() {
            self.advance(cx, input, head, to).map(|used| {
                self.wire.keep(input.get(used..).unwrap_or(&[]));
            })
        } else {
            // A head in several pieces: it is parsed again from its start once its end may have come.
            let seen = self.wire.early.len();
            self.wire.keep(input);
            let whole = std::mem::take(&mut self.wire.early);
            let due = may_end(&whole, seen) || whole.len() >= self.max_head_bytes;
            let result = if due { self.advance(cx, &whole, head, to) } else { Ok(0) };
            self.wire.early = whole;
            result.map(|used| self.wire.consume_early(used))
        };
        Poll::Ready(match result {
            Ok(()) if matches!(self.reading, Reading::Done) => Ok(Progress::End),
            Ok(()) => Ok(Progress::Moved),
            Err(reason) => Err(Failure::malformed(reason)),
        })
    }

    fn splice_left(&self) -> u64 {
        match &self.reading {
            Reading::Body(BodyReader::Length(left))
                if self.wire.early.is_empty() && self.wire.stream.can_splice() =>
            {
                *left
            }
            _ => 0,
        }
    }

    fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<Progress, Failure>> {
        let Reading::Body(BodyReader::Length(left)) = &mut self.reading else {
            return Poll::Ready(Err(Kind::Truncated.at(Reach::Sent)));
        };
        let limit = usize::try_from(*left).map_or(PIPE_BYTES, |left| left.min(PIPE_BYTES));
        let n = match ready!(self.wire.stream.poll_splice_in(cx, pipe, limit)) {
            Ok(0) => return Poll::Ready(Err(Kind::Truncated.at(Reach::Sent))),
            Ok(n) => u64::try_from(n).unwrap_or(u64::MAX),
            Err(_) => return Poll::Ready(Err(Kind::ConnectionReset.at(Reach::Sent))),
        };
        self.wire.traffic.received = self.wire.traffic.received.saturating_add(n);
        *left = left.saturating_sub(n);
        if *left > 0 {
            return Poll::Ready(Ok(Progress::Moved));
        }
        self.reading = Reading::Done;
        Poll::Ready(Ok(Progress::End))
    }

    fn take_traffic(&mut self) -> Traffic {
        self.sent_any = self.has_sent();
        self.wire.take_traffic()
    }
}

//! The client's side of HTTP/1.1: requests one after the other, and the exchange of each.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use lb_core::failure::{Reject, ResetReason};
use lb_core::head::{
    BodyLength, FieldName, FieldNames, Fields, RequestHead, ResponseHead, TunnelBy, Version,
};
use lb_core::reason::Reason;
use lb_io::pipe::Pipe;
use lb_io::{ConnectionGuard, Phase, Scratch, WorkerIo};
use lb_security::Stream;

use super::body::{BodyError, BodyReader};
use super::encode::{self, Hop, Persistence};
use super::request::{self, HeadLimits};
use super::wire::{Wire, Writing};
use crate::message::{Front, FrontCapabilities, FrontError, Gone, Progress, Sink, Traffic};

/// Bytes of an unwanted request body that are read so that the connection can be kept (attack H1-08).
pub(super) const MAX_DISCARD_BYTES: u64 = 64 * 1024;

const EXPECT: FieldNames = FieldNames::of(&[FieldName::Expect]);
const UPGRADE: FieldNames = FieldNames::of(&[FieldName::Upgrade]);

/// A connection from a client.
#[derive(Debug)]
pub(super) struct H1Front {
    wire: Wire,
    guard: ConnectionGuard,
    reading: BodyReader,
    /// How much of the bytes that wait was looked at for the end of a head.
    seen: usize,
    /// Bytes of body read in this exchange, against the operator's cap.
    http10: bool,
    to_head: bool,
    /// The client may hold the body back until it is asked for it (RFC 9110 §10.1.1), and nothing of it has come.
    awaits_continue: bool,
    /// Another request may follow this one; what the client was told, once it has the head of the answer.
    keep: bool,
    /// The client said that it sends nothing more on this connection.
    client_closes: bool,
}

/// Why there is no further request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The client closed the connection between requests, or vanished.
    Closed,
    /// What it sent is refused.
    Reject(Reject),
}

impl H1Front {
    /// A connection, from which `early` was read already.
    pub(super) fn new(stream: Stream, early: &[u8], guard: ConnectionGuard, io: Rc<WorkerIo>) -> Self {
        let mut wire = Wire::new(stream, io);
        wire.keep(early);
        wire.traffic.received = u64::try_from(early.len()).unwrap_or(u64::MAX);
        Self {
            wire,
            guard,
            reading: BodyReader::Done,
            seen: 0,
            http10: false,
            to_head: false,
            awaits_continue: false,
            keep: true,
            client_closes: false,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.guard.phase()
    }

    pub(super) fn guard(&self) -> &ConnectionGuard {
        &self.guard
    }

    /// Whether anything is known to have arrived that was not read.
    pub(super) fn has_arrived(&self) -> bool {
        self.wire.stream.has_arrived()
    }

    /// Whether a part of a head has arrived.
    pub(super) fn has_early(&self) -> bool {
        !self.wire.early.is_empty()
    }

    /// Reads the next request head into `head`, which is empty. `last` says that no request may follow it.
    pub(super) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Poll<Result<(), HeadError>> {
        self.http10 = false;
        self.to_head = false;
        // How much of what waits was looked at already: of a pipelined request, nothing.
        let mut seen = self.seen;
        loop {
            if !self.wire.early.is_empty() {
                let whole = std::mem::take(&mut self.wire.early);
                let result = if seen == 0 || request::may_end(&whole, seen) {
                    self.parse(&whole, limits, head)
                } else {
                    request::too_large(&whole, limits)
                        .map_or(Ok(None), |reject| Err(HeadError::Reject(reject)))
                };
                seen = whole.len();
                self.wire.early = whole;
                self.seen = seen;
                if let Some(used) = result? {
                    self.seen = 0;
                    self.wire.consume_early(used);
                    return Poll::Ready(Ok(()));
                }
            }
            let input = match ready!(self.wire.poll_recv(cx, scratch, usize::MAX)) {
                Ok([]) | Err(_) => return Poll::Ready(Err(HeadError::Closed)),
                Ok(input) => input,
            };
            if self.wire.early.is_empty() {
                match self.parse(input, limits, head)? {
                    Some(used) => {
                        self.wire.keep(input.get(used..).unwrap_or(&[]));
                        return Poll::Ready(Ok(()));
                    }
                    None => {
                        seen = input.len();
                        self.seen = seen;
                        self.wire.keep(input);
                        continue;
                    }
                }
            }
            self.wire.keep(input);
        }
    }

    fn parse(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Option<usize>, HeadError> {
        let Some(parsed) = request::parse(input, limits, head).map_err(HeadError::Reject)? else {
            return Ok(None);
        };
        self.http10 = head.version == Version::Http10;
        self.to_head = head.is_head();
        self.keep = parsed.keep_alive;
        self.client_closes = !parsed.keep_alive;
        self.reading = match head.body {
            BodyLength::None => BodyReader::Done,
            BodyLength::Known(length) => BodyReader::length(length),
            BodyLength::Unknown => BodyReader::chunked(),
        };
        self.awaits_continue = !self.http10 && !self.reading.is_done() && head.fields.may_have(EXPECT);
        self.wire.writing = Writing::Nothing;
        Ok(Some(parsed.consumed))
    }

    /// Whether the connection may carry another request. Once the client has the head of an answer, this is what that head has told it:
    /// closing a connection that was promised would lose the request that comes next on it.
    pub(super) fn is_kept(&self) -> bool {
        self.keep
    }

    /// Whether the client said that this was its last request, and nothing of it waits to be read.
    pub(super) fn client_closes(&mut self) -> bool {
        self.client_closes && self.wire.early.is_empty() && self.wire.stream.is_quiet()
    }

    /// Whether the request body was read to its end.
    pub(super) fn body_is_done(&self) -> bool {
        self.reading.is_done()
    }

    /// Whether a body is announced that the client may never send: it was not asked for it.
    pub(super) fn body_is_withheld(&self) -> bool {
        self.awaits_continue && self.wire.early.is_empty()
    }

    /// Tells the client that nothing follows, and lets its own bytes run out: a close while bytes are on their way to us would
    /// reset the connection and may destroy the answer before it is read (RFC 9112 §9.6).
    pub(super) fn shutdown(&mut self) {
        self.wire.writing = Writing::Tunnel;
        self.wire.end();
    }

    /// Ends a connection that owes nothing. Inside TLS a bare FIN would look like a cut (RFC 8446 §6.1); after a message that is not
    /// whole it must look like one.
    pub(super) fn part(&mut self) {
        if matches!(self.wire.stream, Stream::Tls(_)) && self.wire.is_flushed() {
            // The client may be gone already.
            let _ = self.wire.stream.shutdown_write();
        }
    }

    /// Reads and throws away; the number of bytes thrown away, 0 at the end.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<usize> {
        self.wire.consume_early(usize::MAX);
        match ready!(self.wire.poll_recv(cx, scratch, usize::MAX)) {
            Ok(input) => Poll::Ready(input.len()),
            Err(_) => Poll::Ready(0),
        }
    }

    /// Gives buffers back while the connection waits for its next request.
    pub(super) fn rest(&mut self) {
        if self.wire.early.is_empty() {
            self.wire.release();
        }
    }

    /// Uses `input` as body; returns how much of it was.
    fn read_body(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        to: &mut impl Sink,
    ) -> Result<usize, FrontError> {
        let result = self.reading.read(cx, input, to);
        self.awaits_continue = false;
        result.map_err(|error| {
            FrontError::Reject(Reject::new(
                400,
                match error {
                    BodyError::Chunk => Reason::ChunkSyntax,
                    BodyError::Trailer => Reason::Trailer,
                },
            ))
        })
    }
}

/// Whether the `Upgrade` of an answer is meant for the client: it accompanies a switch or is what a 426 is about, or the server names it in
/// `Connection`, as every sender of an `Upgrade` field must (RFC 9110 §7.8).
fn tells_upgrade(head: &ResponseHead) -> bool {
    let lines = head.fields.lines().iter().filter(|line| line.known == FieldName::Connection);
    let mut options = lines.flat_map(|line| head.fields.slice(line.value).split(|byte| *byte == b','));
    matches!(head.status, 101 | 426)
        || options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

impl Sink for H1Front {
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

impl Front for H1Front {
    /// HTTP/1.0 has neither interim responses nor chunks, and so no trailers.
    fn capabilities(&self) -> FrontCapabilities {
        FrontCapabilities {
            interim: !self.http10,
            trailers: !self.http10,
            tunnel: TunnelBy::Upgrade,
            streams: false,
        }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        to: &mut impl Sink,
    ) -> Poll<Result<Progress, FrontError>> {
        if self.reading.is_done() {
            return Poll::Ready(Ok(Progress::End));
        }
        if self.wire.early.is_empty() {
            let input = match ready!(self.wire.poll_recv(cx, scratch, usize::MAX)) {
                Ok([]) if matches!(self.reading, BodyReader::UntilClose) => {
                    self.reading = BodyReader::Done;
                    to.end();
                    return Poll::Ready(Ok(Progress::End));
                }
                // A body that ends early is not passed on as if it were whole.
                Ok([]) | Err(_) => return Poll::Ready(Err(FrontError::Gone(Gone::Closed))),
                Ok(input) => input,
            };
            let used = self.read_body(cx, input, to)?;
            self.wire.keep(input.get(used..).unwrap_or(&[]));
        } else {
            let early = std::mem::take(&mut self.wire.early);
            let used = self.read_body(cx, &early, to);
            self.wire.early = early;
            self.wire.consume_early(used?);
        }
        Poll::Ready(Ok(if self.reading.is_done() { Progress::End } else { Progress::Moved }))
    }

    fn interim(&mut self, head: &ResponseHead) {
        self.awaits_continue &= head.status != 100;
        encode::response(head, false, Hop::SILENT, self.wire.out());
    }

    fn head(&mut self, head: &ResponseHead) {
        self.wire.writing = match head.body {
            _ if self.to_head => Writing::Nothing,
            // A byte after the head would be taken for the next response.
            BodyLength::None | BodyLength::Known(0) => Writing::Nothing,
            BodyLength::Known(_) => Writing::Plain,
            // An HTTP/1.0 client knows no chunks: the body ends with the connection.
            BodyLength::Unknown if self.http10 => Writing::Plain,
            BodyLength::Unknown => Writing::Chunked,
        };
        if head.body == BodyLength::Unknown && self.http10 {
            self.keep = false;
        }
        // The answer is there before the request: what is left of a large body will not be waited for.
        if matches!(self.reading, BodyReader::Length(left) if left > MAX_DISCARD_BYTES) {
            self.keep = false;
        }
        // It cannot be known whether a body follows that was not asked for, or the next request.
        if self.body_is_withheld() {
            self.keep = false;
        }
        self.keep &= self.guard.phase() == Phase::Serving;
        let persistence = match (head.status, self.keep, self.http10) {
            (101, ..) | (_, true, false) => Persistence::Silent,
            (_, false, _) => Persistence::Close,
            (_, true, true) => Persistence::KeepAlive,
        };
        let upgrade = !self.http10 && head.fields.may_have(UPGRADE) && tells_upgrade(head);
        let chunked = self.wire.writing == Writing::Chunked;
        encode::response(head, chunked, Hop { persistence, upgrade }, self.wire.out());
    }

    fn can_splice(&self) -> bool {
        self.wire.writing == Writing::Plain && self.wire.is_flushed() && self.wire.stream.can_splice()
    }

    fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<(), Gone>> {
        self.wire.poll_splice(cx, pipe)
    }

    fn switch(&mut self) {
        self.reading = BodyReader::UntilClose;
        self.wire.writing = Writing::Tunnel;
        self.keep = false;
    }

    fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        self.wire.stream.poll_hangup(cx).map(|()| Gone::Closed)
    }

    fn last_request(&mut self) {
        self.keep = false;
    }

    fn take_traffic(&mut self) -> Traffic {
        self.wire.take_traffic()
    }

    fn abort(&mut self, _: ResetReason) {
        self.keep = false;
        self.wire.stream.reset_on_close();
    }
}

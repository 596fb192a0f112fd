//! One request and its response, independent of the protocols on either side.
//!
//! Bytes are pushed: a source reads once and hands all that it decoded to the sink on the other side, which takes it whole. What the
//! sink's socket does not take at once waits in the sink, and nothing more is read from the source until it has left
//! ([`Sink::poll_flush`]). So each direction buffers one read at most, whatever the peers do.

use std::task::{Context, Poll};

use lb_core::failure::{Failure, Kind, Reach, Reject, Reset, ResetReason};
use lb_core::head::{Fields, RequestHead, ResponseHead, TunnelBy};
use lb_core::reason::Reason;
use lb_io::Scratch;
use lb_io::pipe::Pipe;

/// Why a side of the exchange is gone: its connection or stream has ended, and nothing can be told to it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It has closed its connection, or the connection broke.
    Closed,
    /// It has reset the stream of this exchange.
    Reset(Reset),
    /// The gateway has ended the connection or the stream: a deadline, a budget or a rule of the protocol was broken, or the drain is over.
    GivenUp(Reason),
}

impl Gone {
    /// The code under which a client that is gone is logged.
    pub fn reason(self) -> Reason {
        match self {
            Self::Closed => Reason::ClientGone,
            Self::Reset(_) => Reason::ClientReset,
            Self::GivenUp(reason) => reason,
        }
    }
}

/// How a source got on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something was moved; there may be more.
    Moved,
    /// The message is complete, and the sink was told.
    End,
}

/// Takes the body of a message. Failures are remembered and reported by [`Self::poll_flush`].
pub trait Sink {
    /// Takes body bytes.
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]);

    /// Takes the trailer fields; [`Self::end`] follows.
    fn trailers(&mut self, fields: &Fields);

    /// The body is complete. In a tunnel: no more bytes follow in this direction.
    fn end(&mut self);

    /// Sends what waits. Ready when nothing waits any more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        (**self).data(cx, bytes);
    }

    fn trailers(&mut self, fields: &Fields) {
        (**self).trailers(fields);
    }

    fn end(&mut self) {
        (**self).end();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        (**self).poll_flush(cx)
    }
}

/// Why a request cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontError {
    /// The client is gone.
    Gone(Gone),
    /// The client broke the protocol or a limit; the answer is due if none has begun.
    Reject(Reject),
}

/// Bytes that passed a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Read from it.
    pub received: u64,
    /// Taken by the kernel to be sent.
    pub sent: u64,
}

/// What the protocol of a client can do, asked once of each exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontCapabilities {
    /// Interim responses (1xx) can be passed on.
    pub interim: bool,
    /// A response of unknown length can end with trailer fields.
    pub trailers: bool,
    /// How a request asks for a tunnel.
    pub tunnel: TunnelBy,
    /// Each exchange has a stream of its own: that a client gives the exchange up is noticed whatever it sent before.
    pub streams: bool,
}

/// The client's side of one exchange: source of the request body, sink of the response.
///
/// Whether a response can be spliced is a capability that changes while it runs: [`Self::can_splice`].
pub trait Front: Sink {
    /// What the client's protocol can do.
    fn capabilities(&self) -> FrontCapabilities;

    /// Reads once and pushes what arrived of the request body, or of the tunnel, into `to`.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        to: &mut impl Sink,
    ) -> Poll<Result<Progress, FrontError>>;

    /// Sends an interim response (1xx). Called only where [`FrontCapabilities::interim`] says that it can be sent.
    fn interim(&mut self, head: &ResponseHead);

    /// Sends the response head; its body follows.
    fn head(&mut self, head: &ResponseHead);

    /// Whether response bytes could go straight from a pipe to the client's socket now: nothing waits before them, and nothing stands
    /// between them.
    fn can_splice(&self) -> bool {
        false
    }

    /// Sends what a pipe holds, all of it or until the socket is full.
    fn poll_splice(&mut self, _cx: &mut Context<'_>, _pipe: &mut Pipe) -> Poll<Result<(), Gone>> {
        Poll::Ready(Err(Gone::Closed))
    }

    /// Turns both directions into a tunnel, after a 101 head was sent.
    fn switch(&mut self);

    /// Bytes of a response that had better be given at once: what the client's windows let pass, so that little waits here.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Ready when the client is gone. Only meaningful while no body is read.
    fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<Gone>;

    /// What follows on this connection cannot be told from what this request left behind: nothing may follow.
    fn last_request(&mut self);

    /// Bytes received and sent since the last call.
    fn take_traffic(&mut self) -> Traffic;

    /// Gives the response up half-way, so that the client cannot take it for complete. A protocol with streams tells `why`.
    fn abort(&mut self, why: ResetReason);
}

/// What follows a head that a [`ResponseSink`] has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another head: this one was interim.
    Head,
    /// The body of this response.
    Body,
    /// A tunnel.
    Tunnel,
}

/// Takes a whole response.
pub trait ResponseSink: Sink {
    /// Takes a head, interim or final.
    ///
    /// # Errors
    /// When the response may not stand here.
    fn head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Result<Next, Reason>;
}

impl<S: ResponseSink + ?Sized> ResponseSink for &mut S {
    fn head(&mut self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Result<Next, Reason> {
        (**self).head(cx, head)
    }
}

/// What the protocol of a backend can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackCapabilities {
    /// How a backend agrees to a tunnel.
    pub tunnel: TunnelBy,
    /// The connection carries other requests at the same time.
    pub shared: bool,
    /// A backend can say that it has not processed a request of which it has taken some (RFC 9113 §8.7).
    pub refuses: bool,
}

/// The backend's side of one exchange: sink of the request, source of the response. Dropping it ends its stream, or its connection where
/// that carries nothing else.
///
/// Whether a response can be spliced is a capability that changes while it runs: [`Self::splice_left`].
pub trait Back: Sink {
    /// What the backend's protocol can do.
    fn capabilities(&self) -> BackCapabilities;

    /// Sends the request head; its body follows.
    fn request(&mut self, head: &RequestHead);

    /// Reads once and pushes what arrived of the response, or of the tunnel, into `to`; at most about `room` bytes.
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        room: usize,
        head: &mut ResponseHead,
        to: &mut impl ResponseSink,
    ) -> Poll<Result<Progress, Failure>>;

    /// Bytes of the response body that could go straight from the socket into a pipe; 0 when they need to be looked at.
    fn splice_left(&self) -> u64 {
        0
    }

    /// Moves arrived body bytes into an empty pipe. The end of the body is for the caller to see and to tell.
    fn poll_splice(&mut self, _cx: &mut Context<'_>, _pipe: &mut Pipe) -> Poll<Result<Progress, Failure>> {
        Poll::Ready(Err(Kind::Truncated.at(Reach::Sent)))
    }

    /// Bytes received and sent since the last call.
    fn take_traffic(&mut self) -> Traffic;
}

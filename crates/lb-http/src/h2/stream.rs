//! The state of one stream, seen from either end (RFC 9113 §5.1).

use std::collections::VecDeque;
use std::task::{Context, Waker};

use lb_core::head::{Fields, ResponseHead};

use lb_core::reason::Reason;
use tokio::time::Instant;

use super::frame::ErrorCode;
use super::window::{ReceiveWindow, SendWindow};
use crate::message::Traffic;

/// A stream. It lives as long as the exchange that uses it, whatever the peer does to it meanwhile: the work behind it counts against the
/// concurrency limit until it has ended (attack H2-02).
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// Body bytes received and not yet taken.
    pub(super) inbox: Vec<u8>,
    /// Received trailers, not yet taken.
    pub(super) trailers: Option<Fields>,
    /// Response heads received and not yet taken; interim ones first.
    pub(super) heads: VecDeque<ResponseHead>,
    /// Bytes of body still announced by `content-length`.
    pub(super) expected: Option<u64>,
    pub(super) receive_window: ReceiveWindow,
    /// The peer has sent END_STREAM.
    pub(super) received_end: bool,
    /// The final head (of a response) or the head (of a request) was received.
    pub(super) received_head: bool,
    /// The request was HEAD: its response has no body whatever it announces.
    pub(super) to_head: bool,

    /// Body bytes to be sent, from `pending_at` on.
    pub(super) pending: Vec<u8>,
    pub(super) pending_at: usize,
    /// What follows `pending`.
    pub(super) last: Last,
    pub(super) send_window: SendWindow,
    /// How long its body has been held back because the windows are open by a sliver only.
    pub(super) hold: Hold,
    /// In the queue of streams that wait for the connection.
    pub(super) queued: bool,
    /// We have sent END_STREAM.
    pub(super) sent_end: bool,
    /// Where its head begins in the connection's output, counted from its first byte ever; `None` before it was sent.
    pub(super) head_at: Option<u64>,
    /// Where the last DATA frame begins in the connection's output, counted from its first byte ever.
    pub(super) last_data: Option<u64>,

    /// When the request came; `None` on a stream of ours.
    pub(super) began: Option<Instant>,
    /// Its final response head was sent.
    pub(super) answered: bool,
    /// What was wrong with the response.
    pub(super) fault: Option<Reason>,
    /// Why the stream ended before both sides were done.
    pub(super) reset: Option<Reset>,
    /// The exchange has ended with a complete answer, and the end of the request is waited for.
    pub(super) lingers: bool,
    /// The exchange behind the stream is waiting for something here.
    pub(super) waker: Option<Waker>,
    pub(super) traffic: Traffic,
}

/// How long a body has been held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// It is not held back.
    #[default]
    None,
    /// Since after the last tick.
    Begun,
    /// For at least the time between two ticks.
    Ripe,
    /// For long enough.
    Over,
}

/// What follows the body that is being sent.
#[derive(Debug, Default)]
pub(super) enum Last {
    /// More body.
    #[default]
    Open,
    /// The end.
    End,
    /// Trailers, and the end.
    Trailers(Box<Fields>),
    /// The end has left.
    Done,
}

/// Which end ended a stream early, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// The peer did.
    Peer(ErrorCode),
    /// We did, because of what the peer sent.
    Ours(ErrorCode),
    /// The peer said that it has not processed the stream: by GOAWAY (RFC 9113 §6.8), or else by REFUSED_STREAM (§8.7).
    Unprocessed { goaway: bool },
    /// The connection has ended.
    Connection,
}

impl Stream {
    /// A new stream.
    pub(super) fn new(id: u32, receive_window: ReceiveWindow, send_window: SendWindow) -> Self {
        Self {
            id,
            inbox: Vec::new(),
            trailers: None,
            heads: VecDeque::new(),
            expected: None,
            receive_window,
            received_end: false,
            received_head: false,
            to_head: false,
            pending: Vec::new(),
            pending_at: 0,
            last: Last::Open,
            send_window,
            hold: Hold::None,
            queued: false,
            sent_end: false,
            head_at: None,
            last_data: None,
            began: None,
            answered: false,
            fault: None,
            reset: None,
            lingers: false,
            waker: None,
            traffic: Traffic::default(),
        }
    }

    /// Body bytes that wait to be sent.
    #[inline]
    pub(super) fn unsent(&self) -> usize {
        self.pending.len().saturating_sub(self.pending_at)
    }

    /// Whether everything given to be sent has left for the connection.
    #[inline]
    pub(super) fn is_flushed(&self) -> bool {
        self.unsent() == 0 && matches!(self.last, Last::Open | Last::Done)
    }

    /// Whether both sides have said all they had to say, or one has ended the stream.
    pub(super) fn is_closed(&self) -> bool {
        self.reset.is_some() || (self.received_end && self.sent_end)
    }

    /// Has the exchange woken when something happens here.
    #[inline]
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    /// Wakes the exchange.
    #[inline]
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

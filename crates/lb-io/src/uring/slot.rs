//! What waits for completions: sockets, listeners, and sockets that are being connected.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::task::{Context, Waker};
use std::time::Instant;

use socket2::SockAddr;

use super::inbox::Inbox;
use super::ring::Flight;
use crate::stream::is_of_peer;

/// How the input of a socket has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer will send no more.
    Closed,
    /// An error code of the system.
    Error(i32),
}

/// Operations of one socket that the kernel has not completed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) receive: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) hangup: bool,
    /// Cancellations, which name the operations of this socket and no other.
    pub(crate) cancels: u8,
}

/// A connected socket.
///
/// Its descriptor is closed, and its key given to another, only when no operation names it any more.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) descriptor: OwnedFd,
    pub(crate) inbox: Inbox,
    pub(crate) pending: Pending,
    /// The kernel may hold bytes that no operation will bring.
    pub(crate) may_have_more: bool,
    /// So much arrives that it is read directly, and the ring only reports readiness.
    pub(crate) is_bulk: bool,
    pub(crate) end: Option<End>,
    pub(crate) reader: Option<Waker>,
    /// What the kernel is sending.
    pub(crate) flight: Option<Flight<Vec<u8>>>,
    /// What is to be sent after that.
    pub(crate) queued: Vec<u8>,
    /// Among those whose output the next turn begins to send.
    pub(crate) is_listed: bool,
    /// The error code with which sending failed.
    pub(crate) broken: Option<i32>,
    /// Bytes that were taken to be sent and did not reach the kernel because of that.
    pub(crate) unsent: usize,
    pub(crate) writer: Option<Waker>,
    /// FIN follows what is queued.
    pub(crate) shuts: bool,
    /// Closing resets the connection.
    pub(crate) resets: bool,
    /// The peer has hung up, whatever there is still to read.
    pub(crate) has_hung_up: bool,
    /// Its stream is gone since then; what is queued is still sent.
    pub(crate) closing: Option<Instant>,
}

impl Socket {
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self {
            descriptor,
            inbox: Inbox::default(),
            pending: Pending::default(),
            may_have_more: false,
            is_bulk: false,
            end: None,
            reader: None,
            flight: None,
            queued: Vec::new(),
            is_listed: false,
            broken: None,
            unsent: 0,
            writer: None,
            shuts: false,
            resets: false,
            has_hung_up: false,
            closing: None,
        }
    }

    /// Whether output is on its way through the worker.
    #[inline]
    pub(crate) fn is_sending(&self) -> bool {
        self.flight.is_some() || !self.queued.is_empty()
    }

    /// Sending has failed: what is queued will not be sent. Unless the peer caused the failure, no end will arrive that a read could
    /// return, so reads return the error too.
    pub(crate) fn fail(&mut self, code: i32) {
        self.broken = Some(code);
        if !is_of_peer(code) {
            self.end = self.end.or(Some(End::Error(code)));
        }
        self.unsent = self.unsent.saturating_add(std::mem::take(&mut self.queued).len());
    }

    /// Whether the stream is gone, and what it had not sent with it: the connection ends with a reset.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.closing.is_some() && self.resets
    }

    /// Whether nothing is left to be done for a socket whose stream is gone.
    pub(crate) fn is_done(&self) -> bool {
        self.closing.is_some() && !self.is_sending() && !self.is_listed && self.pending == Pending::default()
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) descriptor: OwnedFd,
    pub(crate) accepted: VecDeque<Result<OwnedFd, i32>>,
    pub(crate) is_accepting: bool,
    /// The ring reports when there is a connection to accept.
    pub(crate) is_polling: bool,
    /// There was no descriptor for a connection: an accept would fail at once, whether there is one or not.
    pub(crate) is_short: bool,
    pub(crate) cancels: u8,
    pub(crate) waker: Option<Waker>,
    pub(crate) is_closing: bool,
}

/// A socket that is being connected.
#[derive(Debug)]
pub(crate) struct Connecting {
    pub(crate) descriptor: Option<OwnedFd>,
    pub(crate) flight: Option<Flight<Box<SockAddr>>>,
    pub(crate) result: Option<Result<(), i32>>,
    pub(crate) cancels: u8,
    pub(crate) waker: Option<Waker>,
    pub(crate) is_closing: bool,
}

/// What a key stands for.
#[derive(Debug)]
pub(crate) enum Slot {
    Socket(Socket),
    Listening(Listening),
    Connecting(Connecting),
}

impl Slot {
    /// Whether its owner is gone and no operation names it any more.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.is_done(),
            Self::Listening(listening) => {
                listening.is_closing
                    && !listening.is_accepting
                    && !listening.is_polling
                    && listening.cancels == 0
            }
            Self::Connecting(connecting) => {
                connecting.is_closing && connecting.flight.is_none() && connecting.cancels == 0
            }
        }
    }

    /// Counts a cancellation.
    pub(crate) fn cancels(&mut self) {
        let cancels = self.cancellations();
        *cancels = cancels.saturating_add(1);
    }

    /// Counts the completion of a cancellation.
    pub(crate) fn cancelled(&mut self) {
        let cancels = self.cancellations();
        *cancels = cancels.saturating_sub(1);
    }

    fn cancellations(&mut self) -> &mut u8 {
        match self {
            Self::Socket(socket) => &mut socket.pending.cancels,
            Self::Listening(listening) => &mut listening.cancels,
            Self::Connecting(connecting) => &mut connecting.cancels,
        }
    }
}

/// Stores the waker of the task that waits.
#[inline]
pub(crate) fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

//! The socket of an HTTP/2 connection, at either end: frames off it, output onto it, and when which of the two last got on.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lb_io::{Scratch, WorkerIo};
use tokio::time::Instant;

use super::frame::{BlockLimits, ErrorCode, FrameError, FrameReader, Piece, Preface};
use super::mux::Mux;
use crate::message::Gone;
use lb_security::Stream;

/// Why reading has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer closed the connection, or it broke.
    Closed,
    /// The peer broke a rule.
    Fault(FrameError),
}

/// Reads before other connections get their turn.
pub(super) const ROUNDS: usize = 8;

/// The PING that asks whether the peer is there.
pub(super) const KEEP_ALIVE_PING: [u8; 8] = *b"alive\0\0\0";

/// Bytes that are read after the end so that a close does not become a reset.
const MAX_DISCARD: usize = 1024 * 1024;

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Stream,
    reader: FrameReader,
    /// What is still to come of the client's preface.
    preface: Option<Preface>,
    /// Read before this began.
    early: Vec<u8>,
    /// The last byte came.
    heard: Instant,
    /// A PING was sent that no byte has answered yet.
    pinged: Option<Instant>,
    /// Output waits since, and the socket takes none of it.
    stalled: Option<Instant>,
    /// A header block is being read since.
    head: Option<Instant>,
    /// Bytes thrown away after the end.
    discarded: usize,
    pub(super) io: Rc<WorkerIo>,
}

impl Wire {
    /// The socket `stream`, from which `early` was read already.
    pub(super) fn new(
        stream: Stream,
        early: Vec<u8>,
        limits: BlockLimits,
        preface: Option<Preface>,
        io: Rc<WorkerIo>,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            reader: FrameReader::new(limits),
            preface,
            early,
            heard: now,
            pinged: None,
            stalled: None,
            head: None,
            discarded: 0,
            io,
        }
    }

    /// Writes output until there is none, or the socket takes no more.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mux: &RefCell<Mux>,
        now: Instant,
    ) -> Poll<Result<(), Gone>> {
        let mut mux = mux.borrow_mut();
        mux.send_queued();
        loop {
            let output = mux.output();
            let result = if output.is_empty() {
                self.stream.poll_flush(cx).map_ok(|()| 0)
            } else {
                self.stream.poll_send(cx, output)
            };
            match result {
                Poll::Ready(Ok(0)) => {
                    self.stalled = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(n)) => {
                    self.stalled = None;
                    mux.wrote(n);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone::Closed)),
                Poll::Pending => {
                    self.stalled.get_or_insert(now);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once and hands each frame, or what is wrong with it, to `each`.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        now: Instant,
        mut each: impl FnMut(Result<Piece<'_>, FrameError>) -> Result<(), FrameError>,
    ) -> Poll<Result<(), Ended>> {
        let early = std::mem::take(&mut self.early);
        let mut input = if early.is_empty() {
            match ready!(self.stream.poll_take(cx, scratch, usize::MAX)) {
                Ok([]) | Err(_) => return Poll::Ready(Err(Ended::Closed)),
                Ok(input) => input,
            }
        } else {
            &early
        };
        self.heard = now;
        self.pinged = None;
        if let Some(preface) = &mut self.preface {
            match preface.take(&mut input) {
                Ok(true) => self.preface = None,
                Ok(false) => return Poll::Ready(Ok(())),
                Err(_) => {
                    let error = FrameError::connection(ErrorCode::PROTOCOL_ERROR, "no HTTP/2 preface");
                    return Poll::Ready(Err(Ended::Fault(error)));
                }
            }
        }
        loop {
            let result = match self.reader.next(&mut input) {
                Ok(Some(piece)) => each(Ok(piece)),
                Ok(None) => break,
                Err(error) => each(Err(error)),
            };
            if let Err(error) = result {
                return Poll::Ready(Err(Ended::Fault(error)));
            }
        }
        self.head = self.reader.is_inside_block().then(|| self.head.unwrap_or(now));
        self.reader.trim();
        Poll::Ready(Ok(()))
    }

    /// Reads and throws away; ready at the end, or when more comes than can have been on its way.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let io = Rc::clone(&self.io);
        let scratch = &mut *io.scratch.borrow_mut();
        loop {
            match ready!(self.stream.poll_take(cx, scratch, usize::MAX)) {
                Ok([]) | Err(_) => return Poll::Ready(()),
                Ok(input) => self.discarded = self.discarded.saturating_add(input.len()),
            }
            if self.discarded > MAX_DISCARD {
                return Poll::Ready(());
            }
        }
    }

    /// Tells the peer that nothing follows.
    pub(super) fn shutdown(&mut self) {
        // Fails only on a connection that is gone already.
        let _ = self.stream.shutdown_write();
    }

    /// Gives memory back while the connection is idle.
    pub(super) fn rest(&mut self) {
        self.reader.shrink();
    }

    /// Whether the kernel has everything that was written.
    pub(super) fn is_flushed(&self) -> bool {
        self.stalled.is_none()
    }

    /// Since when output waits that the socket does not take.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled
    }

    /// Since when a header block is being read.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head
    }

    /// When the peer is to be asked whether it is there, or is taken for gone if it was asked already.
    pub(super) fn ping_due(&self, interval: Duration, timeout: Duration) -> Instant {
        self.pinged.map_or_else(|| self.heard + interval, |since| since + timeout)
    }

    /// Whether a PING waits for an answer.
    pub(super) fn awaits_ping(&self) -> bool {
        self.pinged.is_some()
    }

    /// A PING was sent.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pinged = Some(now);
    }
}

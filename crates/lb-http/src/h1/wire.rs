//! A socket with what waits to leave it and what came too early, and the framing of the body that is being written.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use lb_core::head::Fields;
use lb_io::pipe::Pipe;
use lb_io::{Scratch, WorkerIo};
use lb_security::Stream;

use super::chunked::write_size;
use super::encode;
use crate::message::{Gone, Traffic};

/// Bytes up to which a body joins the head in one send(2); above, head and body leave by one writev(2) without a copy.
const JOIN_BYTES: usize = 16 * 1024;

/// How the body being written ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// No body: bytes pushed are a fault of the source and are ignored (a response to HEAD, say).
    Nothing,
    /// Bytes as they are; the head announced how many.
    Plain,
    /// In chunks.
    Chunked,
    /// Bytes as they are until one side ends; the end shuts the socket's write side down.
    Tunnel,
}

/// A connection's socket and buffers.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Stream,
    /// Read and not yet understood, or not yet wanted.
    pub(super) early: Vec<u8>,
    /// To be written, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    pub(super) writing: Writing,
    /// A shutdown of the write side is due when `out` is empty.
    shutdown: bool,
    broken: bool,
    pub(super) traffic: Traffic,
    io: Rc<WorkerIo>,
}

impl Wire {
    pub(super) fn new(stream: Stream, io: Rc<WorkerIo>) -> Self {
        Self {
            stream,
            early: Vec::new(),
            out: Vec::new(),
            sent: 0,
            writing: Writing::Nothing,
            shutdown: false,
            broken: false,
            traffic: Traffic::default(),
            io,
        }
    }

    /// The buffer that waits to be written, to append a head to.
    #[inline]
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = self.io.buffers.take();
        }
        &mut self.out
    }

    /// Keeps `bytes` for the next read.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.early.capacity() == 0 {
            self.early = self.io.buffers.take();
        }
        self.early.extend_from_slice(bytes);
    }

    /// Removes `n` bytes from the front of what was kept.
    pub(super) fn consume_early(&mut self, n: usize) {
        if n >= self.early.len() {
            self.early.clear();
            self.io.buffers.put(&mut self.early);
        } else {
            self.early.drain(..n);
        }
    }

    /// Body bytes.
    #[inline]
    pub(super) fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        if bytes.is_empty() || self.broken || self.writing == Writing::Nothing {
            return;
        }
        let chunked = self.writing == Writing::Chunked;
        if chunked {
            write_size(self.out(), bytes.len());
        }
        let after: &[u8] = if chunked { b"\r\n" } else { b"" };
        if bytes.len() <= JOIN_BYTES {
            let out = self.out();
            out.extend_from_slice(bytes);
            out.extend_from_slice(after);
        } else {
            self.send_through(cx, bytes, after);
        }
    }

    /// Sends what waits, `bytes` and `after` in one call, and keeps what the kernel does not take.
    fn send_through(&mut self, cx: &mut Context<'_>, bytes: &[u8], after: &[u8]) {
        let waiting = self.out.get(self.sent..).unwrap_or(&[]);
        let result = if waiting.is_empty() && after.is_empty() {
            self.stream.poll_send(cx, bytes)
        } else {
            let slices = [IoSlice::new(waiting), IoSlice::new(bytes), IoSlice::new(after)];
            self.stream.poll_send_vectored(cx, &slices)
        };
        let mut taken = match result {
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(_)) => {
                self.broken = true;
                return;
            }
            Poll::Pending => 0,
        };
        let from_out = taken.min(waiting.len());
        self.count(taken);
        taken = taken.saturating_sub(from_out);
        self.sent = self.sent.saturating_add(from_out);
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        for part in [bytes, after] {
            let n = taken.min(part.len());
            taken = taken.saturating_sub(n);
            let left = part.get(n..).unwrap_or(&[]);
            if !left.is_empty() {
                self.out().extend_from_slice(left);
            }
        }
    }

    pub(super) fn trailers(&mut self, fields: &Fields) {
        if self.writing == Writing::Chunked {
            encode::trailers(fields, self.out());
            // The last chunk is written with its section; the end adds nothing.
            self.writing = Writing::Nothing;
        }
    }

    pub(super) fn end(&mut self) {
        match self.writing {
            Writing::Chunked => self.out().extend_from_slice(b"0\r\n\r\n"),
            Writing::Tunnel => self.shutdown = true,
            Writing::Nothing | Writing::Plain => {}
        }
        self.writing = Writing::Nothing;
    }

    /// Whether everything pushed was handed to the kernel.
    #[inline]
    pub(super) fn is_flushed(&self) -> bool {
        self.out.len() == self.sent && !self.shutdown
    }

    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.broken {
            return Poll::Ready(Err(Gone::Closed));
        }
        while let Some(waiting) = self.out.get(self.sent..).filter(|waiting| !waiting.is_empty()) {
            match ready!(self.stream.poll_send(cx, waiting)) {
                Ok(n) => {
                    self.sent = self.sent.saturating_add(n);
                    self.count(n);
                }
                Err(_) => {
                    self.broken = true;
                    return Poll::Ready(Err(Gone::Closed));
                }
            }
        }
        self.sent = 0;
        self.out.clear();
        self.io.buffers.put(&mut self.out);
        if self.shutdown {
            self.shutdown = false;
            self.broken |= self.stream.shutdown_write().is_err();
        }
        if self.broken || ready!(self.stream.poll_flush(cx)).is_err() {
            self.broken = true;
            return Poll::Ready(Err(Gone::Closed));
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what `pipe` holds; nothing waits in the buffers.
    pub(super) fn poll_splice(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<(), Gone>> {
        while pipe.held() > 0 {
            match ready!(self.stream.poll_splice_out(cx, pipe)) {
                Ok(n) => self.count(n),
                Err(_) => {
                    self.broken = true;
                    return Poll::Ready(Err(Gone::Closed));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a write has failed.
    #[inline]
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Reads what has arrived, at most `room` bytes of it; empty at the end.
    #[inline]
    pub(super) fn poll_recv<'b>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &'b mut Scratch,
        room: usize,
    ) -> Poll<io::Result<&'b [u8]>> {
        let input = ready!(self.stream.poll_take(cx, scratch, room))?;
        self.traffic.received =
            self.traffic.received.saturating_add(u64::try_from(input.len()).unwrap_or(u64::MAX));
        Poll::Ready(Ok(input))
    }

    /// Bytes that passed since the last call.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Gives the buffers back to the worker.
    pub(super) fn release(&mut self) {
        self.io.buffers.put(&mut self.early);
        self.io.buffers.put(&mut self.out);
    }

    fn count(&mut self, n: usize) {
        self.traffic.sent = self.traffic.sent.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
    }
}

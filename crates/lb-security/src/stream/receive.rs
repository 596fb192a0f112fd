//! Bytes from the socket, through rustls, to the caller.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::meter::{MAX_BODY, MAX_HANDSHAKE_BYTES, MAX_HELLO_BYTES};
use super::{Side, State, TlsStream, engine};
use crate::failure::TlsFailure;

/// Reads that bring no data before other connections get their turn.
const ROUNDS: usize = 16;

/// The least that a read asks for, so that one whole record always fits.
const LEAST_READ: usize = MAX_BODY + 5;

impl TlsStream {
    /// Receives data into `buffer` and returns that part of it; empty means that the peer has sent close_notify.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] with [`TlsFailure::Truncated`] when the socket ends without close_notify: what came may
    /// not be all. Otherwise the socket's error, or the failure of TLS.
    #[inline]
    pub fn poll_recv<'b>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &'b mut [u8],
    ) -> Poll<io::Result<&'b [u8]>> {
        if self.given < self.plain.len() {
            let n = self.give(buffer);
            return Poll::Ready(Ok(buffer.get(..n).unwrap_or(&[])));
        }
        for _ in 0..ROUNDS {
            match self.state {
                State::Established => {}
                State::PeerClosed => return Poll::Ready(Ok(&[])),
                State::Failed(failure) => return Poll::Ready(Err(failure.error(None))),
                State::New | State::Handshaking => {
                    return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                }
            }
            match self.poll_records(cx, buffer) {
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(Ok(n)) => return Poll::Ready(Ok(buffer.get(..n).unwrap_or(&[]))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.sent < self.out.len() {
                        // Fails again where it matters, with the next send.
                        let _ = self.poll_out(cx);
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once from the socket and takes in what is complete. Returns how much data stands in `buffer` now; data that do not fit
    /// wait in `plain`.
    pub(super) fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let io = Rc::clone(&self.io);
        let mut sealed = io.sealed.borrow_mut();
        let sealed = sealed.bytes_mut();
        let held = self.held.len();
        // What is opened is shorter than what was sealed, so it fits into a buffer that is as long as this.
        let end = buffer.len().max(held.saturating_add(LEAST_READ)).min(sealed.len());
        let room = sealed.get_mut(held..end).unwrap_or_default();
        if room.is_empty() {
            return Poll::Ready(Err(self.fail(TlsFailure::TooLarge, None)));
        }
        let arrived = ready!(self.tcp.poll_recv(cx, room))?;
        let n = arrived.len();
        if n == 0 {
            let failure =
                if self.state == State::Established { TlsFailure::Truncated } else { TlsFailure::Closed };
            return Poll::Ready(Err(self.fail(failure, None)));
        }
        let records = match self.meter.arrived(arrived) {
            Ok(records) => records,
            Err(failure) => return Poll::Ready(Err(self.fail(failure, None))),
        };
        if self.state != State::Established
            && let Err(failure) = self.charge_handshake(n)
        {
            return Poll::Ready(Err(self.fail(failure, None)));
        }
        if records == 0 {
            // However slowly a record comes, each byte of it is copied once.
            let part = sealed.get(held..held.saturating_add(n)).unwrap_or_default();
            self.hold(part);
            return Poll::Ready(Ok(0));
        }
        if let Some(front) = sealed.get_mut(..held) {
            front.copy_from_slice(&self.held);
        }
        let input = sealed.get_mut(..held.saturating_add(n)).unwrap_or_default();
        Poll::Ready(self.take_in(input, records, buffer))
    }

    fn charge_handshake(&mut self, n: usize) -> Result<(), TlsFailure> {
        self.handshake_bytes = self.handshake_bytes.saturating_add(n);
        let cap = if self.has_answered { MAX_HANDSHAKE_BYTES } else { MAX_HELLO_BYTES };
        if self.handshake_bytes > cap { Err(TlsFailure::TooLarge) } else { Ok(()) }
    }

    /// Runs `input`, which holds whatever was held and `records` more complete records.
    fn take_in(&mut self, input: &mut [u8], records: u32, buffer: &mut [u8]) -> io::Result<usize> {
        let was_established = self.state == State::Established;
        if let Side::Accepting(_) = self.side
            && !self.choose_config(input)?
        {
            self.replace_held(input);
            return Ok(0);
        }
        let Self { side, out, plain, io, .. } = self;
        if out.capacity() == 0 && !was_established {
            *out = io.buffers.take();
        }
        let mut filled = 0usize;
        let mut sink = |data: &[u8]| {
            let room = buffer.get_mut(filled..).unwrap_or_default();
            let fits = if plain.is_empty() { room.len().min(data.len()) } else { 0 };
            let (now, later) = data.split_at_checked(fits).unwrap_or((&[], data));
            if let Some(room) = room.get_mut(..fits) {
                room.copy_from_slice(now);
            }
            filled = filled.saturating_add(fits);
            if !later.is_empty() {
                if plain.capacity() == 0 {
                    *plain = io.buffers.take();
                }
                plain.extend_from_slice(later);
            }
        };
        let result = match side {
            Side::Server(server) => engine::take_in(server.as_mut(), input, out, &mut sink),
            Side::Client(client) => engine::take_in(client.as_mut(), input, out, &mut sink),
            Side::Accepting(_) => Err(rustls::Error::HandshakeNotComplete),
        };
        let progress = match result {
            Ok(progress) => progress,
            // What came before the fault is of no use: the connection ends.
            Err(error) => return Err(self.fail(TlsFailure::of(&error), Some(&error))),
        };
        self.has_answered |= !self.out.is_empty();
        if self.out.is_empty() {
            self.io.buffers.put(&mut self.out);
        }
        if progress.closed {
            self.io.buffers.put(&mut self.held);
            if was_established {
                self.state = State::PeerClosed;
            } else {
                return Err(self.fail(TlsFailure::Closed, None));
            }
        } else {
            self.replace_held(input.get(progress.consumed..).unwrap_or_default());
        }
        if was_established && let Err(failure) = self.meter.charge(records, progress.with_data) {
            return Err(self.fail(failure, None));
        }
        Ok(filled)
    }

    fn hold(&mut self, part: &[u8]) {
        if self.held.capacity() == 0 {
            self.held = self.io.buffers.take();
        }
        self.held.extend_from_slice(part);
    }

    fn replace_held(&mut self, rest: &[u8]) {
        self.held.clear();
        if rest.is_empty() {
            self.io.buffers.put(&mut self.held);
        } else {
            self.hold(rest);
        }
    }

    /// Moves waiting data into `buffer`.
    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let waiting = self.plain.get(self.given..).unwrap_or_default();
        let n = waiting.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), waiting.get(..n)) {
            to.copy_from_slice(from);
        }
        self.given = self.given.saturating_add(n);
        if self.given == self.plain.len() {
            self.given = 0;
            self.io.buffers.put(&mut self.plain);
        }
        n
    }
}

//! Receiving: the kernel puts what arrives into its own buffers, where it is read; a flow that turns out to be bulk is read directly.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, recv};

use super::buffers::BUFFER_SIZE;
use super::ring::{Kind, Ring, Token};
use super::send::gone;
use super::slot::{End, Socket, register};
use super::state::State;
use crate::buffer::Scratch;
use crate::pipe::Pipe;

/// The number of unread bytes from which on the kernel is asked for no more.
const AHEAD: usize = super::ring::RECEIVE_AHEAD as usize;

/// So many bytes at a time show that a flow is bulk: as many calls inside the kernel as they fill buffers cost more than one from here.
const LARGE: usize = 3 * BUFFER_SIZE;

/// A direct read of fewer bytes shows that it is no more.
const SMALL: usize = 4 * 1024;

/// Reads directly; none when there is nothing.
fn receive_now(socket: &mut Socket, buffer: &mut [u8]) -> Option<io::Result<usize>> {
    if buffer.is_empty() {
        // That would look like the end.
        return Some(Ok(0));
    }
    match recv(&socket.descriptor, &mut *buffer, RecvFlags::DONTWAIT) {
        Ok((_, n)) => {
            socket.may_have_more = n == buffer.len();
            socket.is_bulk = n >= LARGE || (socket.is_bulk && n >= SMALL.min(buffer.len()));
            if n == 0 {
                socket.end = Some(End::Closed);
            }
            Some(Ok(n))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
            socket.may_have_more = false;
            None
        }
        Err(error) => {
            socket.end = Some(End::Error(error.raw_os_error()));
            Some(Err(error.into()))
        }
    }
}

/// Whether what comes next is to be read directly; not while the kernel has yet to say that there is anything.
fn reads_directly(socket: &Socket) -> bool {
    (socket.may_have_more || socket.is_bulk) && !socket.pending.receive && !socket.pending.readable
}

/// The least that the kernel is asked for, also when it had no buffers for more.
pub(super) const LEAST_AHEAD: u32 = 4096;

/// Has the kernel receive what comes next, about as much as the `most` that its reader takes, or say when bulk comes.
fn ask(socket: &mut Socket, ring: &mut Ring, key: usize, most: usize) {
    if socket.is_bulk && !socket.pending.receive {
        ask_when(socket, ring, key);
    } else if !socket.pending.receive {
        socket.pending.receive = true;
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(LEAST_AHEAD);
        ring.receive(socket.descriptor.as_fd(), most, Token { kind: Kind::Receive, key });
    }
}

/// Has the kernel say when there is something to read.
fn ask_when(socket: &mut Socket, ring: &mut Ring, key: usize) {
    if !socket.pending.readable {
        socket.pending.readable = true;
        let token = Token { kind: Kind::Readable, key };
        ring.poll(socket.descriptor.as_fd(), libc::POLLIN | libc::POLLRDHUP, token);
    }
}

fn ended(end: End) -> io::Result<()> {
    match end {
        End::Closed => Ok(()),
        End::Error(code) => Err(io::Error::from_raw_os_error(code)),
    }
}

impl State {
    /// What has arrived, at most `most` bytes, where it lies or in `scratch`; empty at the end.
    #[inline]
    pub(super) fn poll_take<'s>(
        &mut self,
        key: usize,
        cx: &Context<'_>,
        scratch: &'s mut Scratch,
        most: usize,
    ) -> Poll<io::Result<&'s [u8]>> {
        let Some((socket, ring)) = self.socket(key) else { return Poll::Ready(Err(gone())) };
        if !socket.inbox.is_empty() {
            let bytes = socket.inbox.take(scratch, most);
            socket.is_bulk |= bytes.len() >= LARGE;
            return Poll::Ready(Ok(bytes));
        }
        if let Some(end) = socket.end {
            return Poll::Ready(ended(end).map(|()| &[][..]));
        }
        if reads_directly(socket) {
            let result = receive_now(socket, scratch.room(most));
            if let Some(result) = result {
                return Poll::Ready(result.map(|n| &*scratch.room(n)));
            }
        }
        ask(socket, ring, key, most);
        register(&mut socket.reader, cx);
        Poll::Pending
    }

    /// Copies what has arrived into `buffer`; 0 at the end.
    pub(super) fn poll_copy(
        &mut self,
        key: usize,
        cx: &Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some((socket, ring)) = self.socket(key) else { return Poll::Ready(Err(gone())) };
        let held = socket.inbox.copy(buffer);
        if held > 0 {
            socket.is_bulk |= held >= LARGE;
            // What is already here and what the kernel has beyond it make one read.
            let rest = buffer.get_mut(held..).filter(|rest| !rest.is_empty());
            let more = match rest {
                Some(rest) if reads_directly(socket) => receive_now(socket, rest),
                _ => None,
            };
            let more = more.and_then(Result::ok).unwrap_or(0);
            return Poll::Ready(Ok(held.saturating_add(more)));
        }
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Some(end) = socket.end {
            return Poll::Ready(ended(end).map(|()| 0));
        }
        if reads_directly(socket)
            && let Some(result) = receive_now(socket, buffer)
        {
            return Poll::Ready(result);
        }
        ask(socket, ring, key, buffer.len());
        register(&mut socket.reader, cx);
        Poll::Pending
    }

    /// Ready when there is something to read, the end included.
    pub(super) fn poll_readable(&mut self, key: usize, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some((socket, ring)) = self.socket(key) else { return Poll::Ready(Err(gone())) };
        if !socket.inbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = socket.end {
            return Poll::Ready(ended(end));
        }
        ask(socket, ring, key, AHEAD);
        register(&mut socket.reader, cx);
        Poll::Pending
    }

    /// Whether nothing has arrived, not the end either, as far as is known; from now on it is known without a call.
    pub(super) fn is_quiet(&mut self, key: usize) -> bool {
        let Some((socket, ring)) = self.socket(key) else { return false };
        if !socket.inbox.is_empty() || socket.end.is_some() || socket.broken.is_some() || socket.has_hung_up {
            return false;
        }
        if !socket.pending.receive && !socket.pending.readable {
            let peek = || recv(&socket.descriptor, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
            // Where bulk was read directly, the last read took all there was, unless it says otherwise.
            if (socket.may_have_more || !socket.is_bulk) && !matches!(peek(), Err(rustix::io::Errno::AGAIN)) {
                return false;
            }
            socket.may_have_more = false;
            ask(socket, ring, key, AHEAD);
        }
        true
    }

    /// Whether anything has arrived that was not read, the end included; what the kernel holds counts too.
    pub(super) fn has_arrived(&mut self, key: usize) -> bool {
        let Some((socket, _)) = self.socket(key) else { return true };
        if !socket.inbox.is_empty() || socket.end.is_some() || socket.broken.is_some() || socket.has_hung_up {
            return true;
        }
        let seen = recv(&socket.descriptor, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(seen, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }

    /// Ready when the peer has closed its side or reset the connection.
    pub(super) fn poll_hangup(&mut self, key: usize, cx: &Context<'_>) -> Poll<()> {
        let Some((socket, ring)) = self.socket(key) else { return Poll::Ready(()) };
        if socket.end.is_some() || socket.has_hung_up {
            return Poll::Ready(());
        }
        if socket.pending.receive {
            // The end will be among what is received.
        } else if socket.inbox.len() < AHEAD && !reads_directly(socket) {
            ask(socket, ring, key, AHEAD);
        } else if !socket.pending.hangup {
            socket.pending.hangup = true;
            let token = Token { kind: Kind::Hangup, key };
            ring.poll(socket.descriptor.as_fd(), libc::POLLRDHUP, token);
        }
        register(&mut socket.reader, cx);
        Poll::Pending
    }

    /// Moves up to `limit` bytes into an empty `pipe`; 0 at the end.
    pub(super) fn poll_splice_in(
        &mut self,
        key: usize,
        cx: &Context<'_>,
        pipe: &mut Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let Some((socket, ring)) = self.socket(key) else { return Poll::Ready(Err(gone())) };
        if let Some(bytes) = socket.inbox.peek() {
            // Came before it was known that the flow is bulk.
            let most = bytes.len().min(limit);
            let result = pipe.put(bytes.get(..most).unwrap_or_default());
            if let Ok(n) = result {
                socket.inbox.consume(n);
            }
            return Poll::Ready(result);
        }
        if let Some(end) = socket.end {
            return Poll::Ready(ended(end).map(|()| 0));
        }
        if socket.pending.receive {
            register(&mut socket.reader, cx);
            if socket.pending.cancels == 0 {
                self.cancel(Token { kind: Kind::Receive, key });
            }
            return Poll::Pending;
        }
        match pipe.fill_from(&socket.descriptor, limit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                register(&mut socket.reader, cx);
                ask_when(socket, ring, key);
                Poll::Pending
            }
            Ok(0) => {
                socket.end = Some(End::Closed);
                Poll::Ready(Ok(0))
            }
            result => {
                socket.may_have_more = true;
                Poll::Ready(result)
            }
        }
    }
}

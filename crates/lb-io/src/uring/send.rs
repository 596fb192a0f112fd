//! Sending: small messages are handed to the kernel together once a turn; large ones at once, from where they lie.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use rustix::net::SendFlags;

use super::ring::{Kind, Token};
use super::slot::{Slot, Socket, register};
use super::state::State;
use crate::pipe::Pipe;

/// Up to so many bytes are copied and wait for the end of the turn.
const SMALL: usize = 4096;

/// Bytes that wait behind others on their way at most.
const QUEUE: usize = 16 * 1024;

/// Slices of one call besides what was queued.
const MAX_SLICES: usize = 7;

/// Sends what is queued and then `slices`, as far as there is room now; how many bytes went, or the error code.
pub(super) fn send_now(socket: &Socket, slices: &[IoSlice<'_>]) -> Result<usize, i32> {
    let mut all = [IoSlice::new(&[]); MAX_SLICES + 1];
    let queued = (!socket.queued.is_empty()).then(|| IoSlice::new(&socket.queued));
    let mut count = 0usize;
    for (to, from) in all.iter_mut().zip(queued.iter().chain(slices)) {
        *to = *from;
        count = count.saturating_add(1);
    }
    let all = all.get(..count).unwrap_or_default();
    loop {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let result = match all {
            [one] => {
                rustix::net::send(&socket.descriptor, one, flags).map_err(rustix::io::Errno::raw_os_error)
            }
            _ => socket2::SockRef::from(&socket.descriptor)
                .send_vectored_with_flags(all, flags.bits().cast_signed())
                .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)),
        };
        match result {
            Err(libc::EINTR) => {}
            Err(libc::EAGAIN) => return Ok(0),
            result => return result,
        }
    }
}

impl State {
    /// Takes some of `slices`.
    pub(super) fn poll_send(
        &mut self,
        key: usize,
        cx: &Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = slices.iter().fold(0usize, |sum, slice| sum.saturating_add(slice.len()));
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return Poll::Ready(Err(gone())) };
        if let Some(code) = socket.broken {
            return Poll::Ready(Err(io::Error::from_raw_os_error(code)));
        }
        if socket.shuts {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if socket.flight.is_some() {
            let room = QUEUE.saturating_sub(socket.queued.len());
            if room == 0 {
                register(&mut socket.writer, cx);
                return Poll::Pending;
            }
            return Poll::Ready(Ok(self.queue(key, slices, room)));
        }
        if socket.queued.len().saturating_add(total) <= SMALL {
            let taken = self.queue(key, slices, SMALL);
            self.list(key);
            return Poll::Ready(Ok(taken));
        }
        let waiting = socket.queued.len();
        let n = match send_now(socket, slices.get(..slices.len().min(MAX_SLICES)).unwrap_or_default()) {
            Ok(n) => n,
            Err(code) => {
                socket.fail(code);
                return Poll::Ready(Err(io::Error::from_raw_os_error(code)));
            }
        };
        drop(socket.queued.drain(..n.min(waiting)));
        match n.saturating_sub(waiting) {
            0 => {
                // The kernel has no room now, and completes this operation when it has.
                let taken = self.queue(key, slices, QUEUE);
                self.fly(key);
                Poll::Ready(Ok(taken))
            }
            taken => Poll::Ready(Ok(taken)),
        }
    }

    /// Copies up to `most` bytes of `slices` behind what is queued.
    fn queue(&mut self, key: usize, slices: &[IoSlice<'_>], most: usize) -> usize {
        let mut fresh = self.spare_buffer(key);
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return 0 };
        if let Some(fresh) = fresh.take() {
            socket.queued = fresh;
        }
        let mut left = most;
        for slice in slices {
            let n = slice.len().min(left);
            socket.queued.extend_from_slice(slice.get(..n).unwrap_or_default());
            left = left.saturating_sub(n);
        }
        most.saturating_sub(left)
    }

    /// Takes back what has not reached the kernel; how many bytes that is.
    pub(super) fn recall(&mut self, key: usize) -> usize {
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return 0 };
        let queued = std::mem::take(&mut socket.queued).len();
        queued.saturating_add(std::mem::take(&mut socket.unsent))
    }

    /// Sends FIN after what is queued; never after something that was lost.
    pub(super) fn shutdown_write(&mut self, key: usize) -> io::Result<()> {
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return Err(gone()) };
        if let Some(code) = socket.broken {
            return Err(io::Error::from_raw_os_error(code));
        }
        if socket.is_sending() {
            socket.shuts = true;
            return Ok(());
        }
        Ok(rustix::net::shutdown(&socket.descriptor, rustix::net::Shutdown::Write)?)
    }

    /// Moves bytes out of `pipe`, after what is queued.
    pub(super) fn poll_splice_out(
        &mut self,
        key: usize,
        cx: &Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let Some((socket, ring)) = self.socket(key) else { return Poll::Ready(Err(gone())) };
        if let Some(code) = socket.broken {
            return Poll::Ready(Err(io::Error::from_raw_os_error(code)));
        }
        if socket.is_sending() {
            register(&mut socket.writer, cx);
            return Poll::Pending;
        }
        match pipe.drain_to(&socket.descriptor) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                register(&mut socket.writer, cx);
                if !socket.pending.writable {
                    socket.pending.writable = true;
                    let token = Token { kind: Kind::Writable, key };
                    ring.poll(std::os::fd::AsFd::as_fd(&socket.descriptor), libc::POLLOUT, token);
                }
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }
}

/// The error of a stream that is not in the driver's state; there is none such.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

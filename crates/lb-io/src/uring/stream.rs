//! A connected socket on the ring.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use socket2::SockRef;

use super::driver::Driver;
use super::release::reset_on_close;
use crate::buffer::Scratch;
use crate::pipe::Pipe;

/// A stream whose bytes io_uring moves. What is sent counts as sent when it is queued here; an error shows with the next call. Dropping
/// the stream closes it after what was queued has gone.
#[derive(Debug)]
pub(crate) struct RingStream {
    driver: Rc<Driver>,
    key: usize,
}

impl RingStream {
    /// Hands a connected socket to the driver.
    pub(crate) fn new(driver: &Rc<Driver>, descriptor: OwnedFd) -> Self {
        let key = driver.with(|state| state.adopt(descriptor));
        Self { driver: Rc::clone(driver), key }
    }

    /// Takes over a slot that stands for a connected socket.
    pub(super) fn of(driver: &Rc<Driver>, key: usize) -> Self {
        Self { driver: Rc::clone(driver), key }
    }

    #[inline]
    pub(crate) fn poll_take<'s>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &'s mut Scratch,
        most: usize,
    ) -> Poll<io::Result<&'s [u8]>> {
        ready!(self.driver.charge(cx));
        self.driver.with(|state| state.poll_take(self.key, cx, scratch, most))
    }

    #[inline]
    pub(crate) fn poll_copy(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.driver.charge(cx));
        self.driver.with(|state| state.poll_copy(self.key, cx, buffer))
    }

    #[inline]
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.driver.charge(cx));
        self.driver.with(|state| state.poll_send(self.key, cx, slices))
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.driver.with(|state| {
            let (socket, _) = state.socket(self.key)?;
            SockRef::from(&socket.descriptor).local_addr().ok()?.as_socket()
        })
    }

    pub(crate) fn recall(&mut self) -> usize {
        self.driver.with(|state| state.recall(self.key))
    }

    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        self.driver.with(|state| state.shutdown_write(self.key))
    }

    pub(crate) fn reset_on_close(&mut self) {
        self.driver.with(|state| {
            if let Some((socket, _)) = state.socket(self.key) {
                reset_on_close(socket);
            }
        });
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.driver.with(|state| state.is_quiet(self.key))
    }

    pub(crate) fn has_arrived(&self) -> bool {
        // What the kernel has received already is among the completions that were not taken in yet.
        self.driver.turn(None);
        self.driver.with(|state| state.has_arrived(self.key))
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.driver.with(|state| state.poll_readable(self.key, cx))
    }

    #[inline]
    pub(crate) fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.driver.with(|state| state.poll_hangup(self.key, cx))
    }

    pub(crate) fn poll_splice_in(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        ready!(self.driver.charge(cx));
        self.driver.with(|state| state.poll_splice_in(self.key, cx, pipe, limit))
    }

    pub(crate) fn poll_splice_out(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        ready!(self.driver.charge(cx));
        self.driver.with(|state| state.poll_splice_out(self.key, cx, pipe))
    }
}

impl Drop for RingStream {
    fn drop(&mut self) {
        self.driver.with(|state| state.release(self.key, Instant::now()));
    }
}

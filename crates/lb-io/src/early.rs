//! Bytes that were read from a stream too early, and what comes behind them.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::socket::Socket;
use crate::stream::ByteStream;

/// Bytes that were given back. With the last of them the stream that they came from goes on by itself.
#[derive(Debug)]
pub(crate) struct Early {
    /// From `at` on they are still to be read.
    bytes: Vec<u8>,
    at: usize,
    then: ByteStream,
}

impl Early {
    /// `bytes`, and `then` behind them.
    pub(crate) fn new(bytes: Vec<u8>, then: ByteStream) -> Self {
        Self { bytes, at: 0, then }
    }
}

impl Socket for Early {
    fn poll_recv(&mut self, _cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let n = left.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), left.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at = self.at.saturating_add(n);
        Poll::Ready(Ok(n))
    }

    fn succeed(&mut self) -> Option<ByteStream> {
        (self.at >= self.bytes.len()).then(|| std::mem::replace(&mut self.then, ByteStream::plugged(Nowhere)))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.then.poll_send_vectored(cx, slices)
    }

    fn recall(&mut self) -> usize {
        self.then.recall()
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.then.shutdown_write()
    }

    fn reset_on_close(&mut self) {
        self.then.reset_on_close();
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.then.local_address()
    }

    fn has_arrived(&self) -> bool {
        true
    }

    fn poll_readable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.then.poll_hangup(cx)
    }
}

/// Stands in for a socket while another takes its place.
#[derive(Debug)]
pub(crate) struct Nowhere;

impl Socket for Nowhere {
    fn poll_recv(&mut self, _cx: &mut Context<'_>, _buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }

    fn poll_send(&mut self, _cx: &mut Context<'_>, _slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn reset_on_close(&mut self) {}

    fn has_arrived(&self) -> bool {
        true
    }

    fn poll_readable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
    }

    fn poll_hangup(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

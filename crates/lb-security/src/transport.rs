//! A connection as protocols see it: plain, or inside TLS.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use lb_io::ByteStream;
use lb_io::buffer::Scratch;
use lb_io::pipe::Pipe;

use crate::stream::TlsStream;

/// A connection to a client or a backend.
///
/// Every method does what the one of that name does on [`ByteStream`]; what TLS adds stands at [`TlsStream`]. A TLS connection
/// is handed on only after its handshake.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are on the wire.
    Plain(ByteStream),
    /// Inside TLS.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Takes what has arrived, at most `most` bytes, and shows where it lies; empty means that the peer will send no more, and that
    /// nothing is missing.
    #[inline]
    pub fn poll_take<'s>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &'s mut Scratch,
        most: usize,
    ) -> Poll<io::Result<&'s [u8]>> {
        match self {
            Self::Plain(stream) => stream.poll_take(cx, scratch, most),
            Self::Tls(stream) => stream.poll_recv(cx, scratch.room(most)),
        }
    }

    /// Receives into `buffer`; empty means that the peer will send no more, and that nothing is missing.
    #[inline]
    pub fn poll_recv<'b>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &'b mut [u8],
    ) -> Poll<io::Result<&'b [u8]>> {
        match self {
            Self::Plain(stream) => stream.poll_recv(cx, buffer),
            Self::Tls(stream) => stream.poll_recv(cx, buffer),
        }
    }

    /// Takes back the data that was handed over to be sent and has not reached the kernel; returns how many bytes that is. Inside TLS that
    /// number is unknown, and none are taken back.
    pub fn recall(&mut self) -> usize {
        match self {
            Self::Plain(stream) => stream.recall(),
            Self::Tls(_) => 0,
        }
    }

    /// Takes some of `bytes`. Inside TLS some may wait afterwards: see [`Self::poll_flush`].
    #[inline]
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_send(cx, bytes),
            Self::Tls(stream) => stream.poll_send(cx, bytes),
        }
    }

    /// Takes some of several slices.
    #[inline]
    pub fn poll_send_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_send_vectored(cx, slices),
            Self::Tls(stream) => stream.poll_send_vectored(cx, slices),
        }
    }

    /// Sends what was taken and still waits. A plain connection never has any.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// Ends the bytes of this side. Inside TLS [`Self::poll_flush`] completes it.
    ///
    /// # Errors
    /// That of the socket.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown_write(),
            Self::Tls(stream) => stream.shutdown_write(),
        }
    }

    /// Makes closing discard what is unsent and reset the connection.
    pub fn reset_on_close(&mut self) {
        match self {
            Self::Plain(stream) => stream.reset_on_close(),
            Self::Tls(stream) => stream.reset_on_close(),
        }
    }

    /// Whether an idle connection can be used again.
    #[inline]
    pub fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_quiet(),
            Self::Tls(stream) => stream.is_quiet(),
        }
    }

    /// Whether anything has arrived on the socket that was not read, its end included.
    pub fn has_arrived(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.has_arrived(),
            Self::Tls(stream) => stream.has_arrived(),
        }
    }

    /// Whether the peer has closed its side of the socket or reset it.
    #[inline]
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_hangup(cx),
            Self::Tls(stream) => stream.poll_hangup(cx),
        }
    }

    /// Whether bytes can move by splice(2).
    #[inline]
    pub fn can_splice(&self) -> bool {
        matches!(self, Self::Plain(stream) if stream.can_splice())
    }

    /// Moves arrived bytes into `pipe`. Only where [`Self::can_splice`].
    ///
    /// # Errors
    /// That of the socket; [`io::ErrorKind::Unsupported`] inside TLS.
    #[inline]
    pub fn poll_splice_in(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_splice_in(cx, pipe, limit),
            Self::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Moves bytes out of `pipe` to the peer. Only where [`Self::can_splice`].
    ///
    /// # Errors
    /// As those of [`Self::poll_splice_in`].
    #[inline]
    pub fn poll_splice_out(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_splice_out(cx, pipe),
            Self::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// The TLS side of it, if it is inside TLS.
    #[inline]
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream),
        }
    }
}

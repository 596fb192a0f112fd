//! The gateway's stream of bytes: a connected TCP or Unix socket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lb_core::address::Address;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::Scratch;
use crate::early::{Early, Nowhere};
use crate::epoll::EpollStream;
use crate::pipe::Pipe;
use crate::socket::{self, no_splice};
use crate::sockopts;
use crate::unix;
use crate::uring::driver::current;
use crate::uring::open::Connect;
use crate::uring::stream::RingStream;

/// A connected stream socket, TCP or Unix, on a worker's event loop.
///
/// Protocols that move bytes themselves use the `poll_*` methods; libraries use it as [`AsyncRead`] and [`AsyncWrite`].
///
/// Bytes that were taken to be sent may still be on their way to the kernel: they go out even when the stream is dropped, unless
/// [`Self::reset_on_close`] was called, and an error shows with a later call.
#[derive(Debug)]
pub struct ByteStream {
    driver: StreamDriver,
}

#[derive(Debug)]
enum StreamDriver {
    Epoll(EpollStream),
    Ring(RingStream),
    Plugged(Box<dyn socket::Socket>),
}

/// Calls the method of this name on the driver in use.
macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.driver {
            StreamDriver::Epoll($stream) => $call,
            StreamDriver::Ring($stream) => $call,
            StreamDriver::Plugged($stream) => $call,
        }
    };
    (ref $self:expr, $stream:ident => $call:expr) => {
        match &$self.driver {
            StreamDriver::Epoll($stream) => $call,
            StreamDriver::Ring($stream) => $call,
            StreamDriver::Plugged($stream) => $call,
        }
    };
}

/// Connects to `address` within `timeout`, with the socket options of backends.
///
/// # Errors
/// Those of connect(2), and [`io::ErrorKind::TimedOut`].
pub async fn connect(address: Address, timeout: Duration) -> io::Result<ByteStream> {
    let connecting = async {
        match address {
            Address::Ip(address) => connect_tcp(address).await,
            Address::Unix(path) => ByteStream::adopt(unix::connect(&path).await?),
        }
    };
    match tokio::time::timeout(timeout, connecting).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<ByteStream> {
    let Some(driver) = current() else {
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()
        } else {
            tokio::net::TcpSocket::new_v6()
        }?;
        sockopts::apply_backend(SockRef::from(&socket))?;
        return Ok(ByteStream::epoll(socket.connect(address).await?));
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    sockopts::apply_backend(SockRef::from(&socket))?;
    let mut connecting = Connect::new(&driver, socket.into(), address);
    Ok(ByteStream::ring(poll_fn(|cx| connecting.poll(cx)).await?))
}

/// Whether an error of sending is the peer's doing. Then reading finds the end of the connection, and before it the last bytes of the peer;
/// after any other error nothing more would arrive, and the next read returns the error.
pub(crate) fn is_of_peer(code: i32) -> bool {
    matches!(code, libc::EPIPE | libc::ECONNRESET)
}

impl ByteStream {
    pub(crate) fn epoll(stream: tokio::net::TcpStream) -> Self {
        Self { driver: StreamDriver::Epoll(EpollStream::new(stream)) }
    }

    pub(crate) fn ring(stream: RingStream) -> Self {
        Self { driver: StreamDriver::Ring(stream) }
    }

    /// A stream whose bytes are moved by `socket`.
    pub fn plugged(socket: impl socket::Socket + 'static) -> Self {
        Self { driver: StreamDriver::Plugged(Box::new(socket)) }
    }

    /// Whether bytes can move by splice(2).
    #[inline]
    pub fn can_splice(&self) -> bool {
        matches!(self.driver, StreamDriver::Epoll(_) | StreamDriver::Ring(_))
    }

    /// Has the next reads return `bytes`, which were read from the stream too early, before what else has arrived or will.
    pub fn give_back(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let nothing = StreamDriver::Plugged(Box::new(Nowhere));
        let then = Self { driver: std::mem::replace(&mut self.driver, nothing) };
        self.driver = StreamDriver::Plugged(Box::new(Early::new(bytes, then)));
    }

    /// Reads from a socket that is plugged in, or for the last time before another stream goes on in its place.
    fn recv_plugged<'b>(&mut self, cx: &mut Context<'_>, buffer: &'b mut [u8]) -> Poll<io::Result<&'b [u8]>> {
        let StreamDriver::Plugged(socket) = &mut self.driver else { return Poll::Ready(Ok(&[])) };
        let n = ready!(socket.poll_recv(cx, buffer))?;
        if let Some(then) = socket.succeed() {
            *self = then;
        }
        Poll::Ready(Ok(buffer.get(..n).unwrap_or_default()))
    }

    /// Takes over a connected socket of any family that does not block.
    fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        match current() {
            Some(driver) => Ok(Self::ring(RingStream::new(&driver, descriptor))),
            None => Self::adopt_epoll(descriptor),
        }
    }

    /// Takes over a connected socket of any family that does not block, for epoll: what is called on it is the same for all families.
    pub(crate) fn adopt_epoll(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self::epoll(tokio::net::TcpStream::from_std(descriptor.into())?))
    }

    /// The address that the peer has connected to. None for a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        each!(ref self, stream => stream.local_address())
    }

    /// Takes what has arrived, at most `most` bytes of it, and shows where it lies: in `scratch`, or in a buffer of the kernel's which
    /// `scratch` keeps until it is used next. Empty means that the peer will send no more.
    #[inline]
    pub fn poll_take<'s>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &'s mut Scratch,
        most: usize,
    ) -> Poll<io::Result<&'s [u8]>> {
        match &mut self.driver {
            StreamDriver::Epoll(stream) => stream.poll_recv(cx, scratch.room(most)),
            StreamDriver::Ring(stream) => stream.poll_take(cx, scratch, most),
            StreamDriver::Plugged(_) => self.recv_plugged(cx, scratch.room(most)),
        }
    }

    /// Reads what has arrived into `buffer` and returns that part of it; empty means that the peer will send no more.
    #[inline]
    pub fn poll_recv<'b>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &'b mut [u8],
    ) -> Poll<io::Result<&'b [u8]>> {
        match &mut self.driver {
            StreamDriver::Epoll(stream) => stream.poll_recv(cx, buffer),
            StreamDriver::Ring(stream) => {
                let n = ready!(stream.poll_copy(cx, buffer))?;
                Poll::Ready(Ok(buffer.get(..n).unwrap_or_default()))
            }
            StreamDriver::Plugged(_) => self.recv_plugged(cx, buffer),
        }
    }

    /// Takes some of `bytes` to be sent.
    #[inline]
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.driver {
            StreamDriver::Epoll(stream) => stream.poll_send(cx, bytes),
            StreamDriver::Ring(stream) => stream.poll_send(cx, &[IoSlice::new(bytes)]),
            StreamDriver::Plugged(socket) => socket.poll_send(cx, &[IoSlice::new(bytes)]),
        }
    }

    /// Takes some of several slices to be sent.
    #[inline]
    pub fn poll_send_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.driver {
            StreamDriver::Epoll(stream) => stream.poll_send_vectored(cx, slices),
            StreamDriver::Ring(stream) => stream.poll_send(cx, slices),
            StreamDriver::Plugged(socket) => socket.poll_send(cx, slices),
        }
    }

    /// Takes back the bytes that were handed over to be sent and have not reached the kernel, and returns how many they are: the peer has
    /// not seen them, and will not.
    pub fn recall(&mut self) -> usize {
        match &mut self.driver {
            StreamDriver::Epoll(_) => 0,
            StreamDriver::Ring(stream) => stream.recall(),
            StreamDriver::Plugged(socket) => socket.recall(),
        }
    }

    /// Ends the bytes of this side; the peer's own may still come.
    ///
    /// # Errors
    /// Those of shutdown(2).
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        each!(self, stream => stream.shutdown_write())
    }

    /// Makes closing discard what is unsent and reset the connection, so that the peer cannot take a cut message for a whole one. A Unix socket
    /// cannot be reset, and ends.
    pub fn reset_on_close(&mut self) {
        each!(self, stream => stream.reset_on_close());
    }

    /// Whether an idle connection can be used again: nothing has arrived on it, not its end either. Known from events already
    /// received; the kernel is asked only where those leave it open.
    pub fn is_quiet(&self) -> bool {
        match &self.driver {
            StreamDriver::Epoll(stream) => stream.is_quiet(),
            StreamDriver::Ring(stream) => stream.is_quiet(),
            StreamDriver::Plugged(socket) => !socket.has_arrived(),
        }
    }

    /// Whether anything has arrived that was not read, the end included: the kernel's answer at this moment. When it is `false` the
    /// connection can be closed without a reset for unread bytes, unless some are still on their way.
    pub fn has_arrived(&self) -> bool {
        each!(ref self, stream => stream.has_arrived())
    }

    /// Whether there is something to read, the end included. Nothing is taken.
    ///
    /// # Errors
    /// Those with which the connection has ended.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(ref self, stream => stream.poll_readable(cx))
    }

    /// Whether the peer has closed its side or reset the connection. Bytes that wait to be read do not count.
    #[inline]
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        each!(ref self, stream => stream.poll_hangup(cx))
    }

    /// Moves up to `limit` arrived bytes into an empty `pipe` without copying them (splice(2)); 0 means that the peer will send
    /// no more.
    pub fn poll_splice_in(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        match &mut self.driver {
            StreamDriver::Epoll(stream) => stream.poll_splice_in(cx, pipe, limit),
            StreamDriver::Ring(stream) => stream.poll_splice_in(cx, pipe, limit),
            StreamDriver::Plugged(_) => Poll::Ready(Err(no_splice())),
        }
    }

    /// Moves bytes out of `pipe` to the peer.
    pub fn poll_splice_out(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        match &mut self.driver {
            StreamDriver::Epoll(stream) => stream.poll_splice_out(cx, pipe),
            StreamDriver::Ring(stream) => stream.poll_splice_out(cx, pipe),
            StreamDriver::Plugged(_) => Poll::Ready(Err(no_splice())),
        }
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.initialize_unfilled();
        let n = ready!(self.poll_recv(cx, room))?.len();
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

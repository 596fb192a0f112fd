//! A connected socket on tokio's epoll loop.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::pipe::Pipe;
use crate::stream::is_of_peer;

/// A stream whose bytes are moved by calls when epoll(7) reports that they can be. [`crate::ByteStream`] documents its methods.
#[derive(Debug)]
pub(crate) struct EpollStream {
    inner: tokio::net::TcpStream,
    /// The error code with which sending has failed, if the peer has nothing to do with it: no end will come that could be read.
    lost: Option<i32>,
}

/// Calls until no signal comes in between.
#[inline]
fn uninterrupted<T>(mut call: impl FnMut() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a call that failed so succeeds later: at once after a signal, otherwise when epoll reports readiness.
fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl EpollStream {
    pub(crate) fn new(inner: tokio::net::TcpStream) -> Self {
        Self { inner, lost: None }
    }

    /// What reading finds where the connection is lost.
    #[inline]
    fn lost(&self) -> io::Result<()> {
        self.lost.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    /// Keeps an error of sending, which the next read returns.
    #[inline]
    fn noted<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.lost = error.raw_os_error().filter(|code| !is_of_peer(*code));
        }
        result
    }

    /// Reads what has arrived into `buffer` and returns that part of it; empty means that the peer will send no more. A read that
    /// does not fill the buffer has drained the socket, and the next call returns Pending without a system call.
    #[inline]
    pub(crate) fn poll_recv<'b>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &'b mut [u8],
    ) -> Poll<io::Result<&'b [u8]>> {
        self.lost()?;
        let mut read = ReadBuf::new(buffer);
        ready!(uninterrupted(|| Pin::new(&mut self.inner).poll_read(cx, &mut read)))?;
        let n = read.filled().len();
        Poll::Ready(Ok(buffer.get(..n).unwrap_or(&[])))
    }

    /// Writes some of `bytes`.
    #[inline]
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = uninterrupted(|| Pin::new(&mut self.inner).poll_write(cx, bytes));
        self.noted(result)
    }

    /// Writes some of several slices in one call to the kernel.
    #[inline]
    pub(crate) fn poll_send_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = uninterrupted(|| Pin::new(&mut self.inner).poll_write_vectored(cx, slices));
        self.noted(result)
    }

    /// The address that the peer has connected to. None for a Unix socket.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        SockRef::from(&self.inner).local_addr().ok()?.as_socket()
    }

    /// Ends the bytes of this side; the peer's own may still come.
    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        SockRef::from(&self.inner).shutdown(std::net::Shutdown::Write)
    }

    /// Makes closing discard what is unsent and reset the connection, so that the peer cannot take a cut message for a whole one.
    pub(crate) fn reset_on_close(&mut self) {
        // Fails only on a socket that is gone already.
        let _ = SockRef::from(&self.inner).set_linger(Some(Duration::ZERO));
    }

    /// Whether an idle connection can be used again: nothing has arrived on it, not its end either. Known from events already
    /// received; the kernel is asked only where the last read took exactly what there was, so that more may have arrived since.
    pub(crate) fn is_quiet(&self) -> bool {
        self.inner.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending()
            || self
                .inner
                .try_io(Interest::READABLE, || {
                    Ok(recv(&self.inner, &mut [0u8], RecvFlags::PEEK | RecvFlags::DONTWAIT)?)
                })
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether anything has arrived that was not read, the end included. The kernel is asked, since its last event may be older.
    pub(crate) fn has_arrived(&self) -> bool {
        let seen = recv(&self.inner, &mut [0u8], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        !matches!(seen, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
    }

    /// Whether there is something to read, the end included. Nothing is taken: the kernel is asked, because a new socket counts
    /// as ready until a read has found nothing.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lost()?;
        loop {
            ready!(self.inner.poll_read_ready(cx))?;
            let peek = || Ok(recv(&self.inner, &mut [0u8], RecvFlags::PEEK | RecvFlags::DONTWAIT)?);
            match self.inner.try_io(Interest::READABLE, peek) {
                Err(error) if is_to_be_repeated(&error) => {}
                result => return Poll::Ready(result.map(|_| ())),
            }
        }
    }

    /// Whether the peer has closed its side or reset the connection. Bytes that wait to be read do not count.
    #[inline]
    pub(crate) fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        use std::future::Future;
        match self.inner.poll_read_ready(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) => {
                // Readable: the flags distinguish bytes from the end. `ready` answers at once.
                let ready = std::pin::pin!(self.inner.ready(Interest::READABLE | Interest::ERROR)).poll(cx);
                match ready {
                    Poll::Ready(Ok(ready)) if !ready.is_read_closed() && !ready.is_error() => Poll::Pending,
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(_) => Poll::Ready(()),
                }
            }
        }
    }

    /// Moves up to `limit` arrived bytes into an empty `pipe` without copying them (splice(2)); 0 means that the peer will send
    /// no more.
    pub(crate) fn poll_splice_in(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        self.lost()?;
        loop {
            ready!(self.inner.poll_read_ready(cx))?;
            match self.inner.try_io(Interest::READABLE, || pipe.fill_from(&self.inner, limit)) {
                Err(error) if is_to_be_repeated(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Moves bytes out of `pipe` to the peer.
    pub(crate) fn poll_splice_out(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.inner.poll_write_ready(cx))?;
            match self.inner.try_io(Interest::WRITABLE, || pipe.drain_to(&self.inner)) {
                Err(error) if is_to_be_repeated(&error) => {}
                result => return self.noted(Poll::Ready(result)),
            }
        }
    }
}

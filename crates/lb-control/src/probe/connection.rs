//! The connection of a probe: made for it, bounded in bytes, and gone with it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use lb_core::health::ProbeOutcome;
use lb_io::{WorkerIo, shortage_of};
use lb_security::{ConnectError, Connector, Stream, TlsFailure, failure_of};

use super::plan::Plan;

/// How much is read at once.
const CHUNK: usize = 4096;

/// Whether a connection comes about, TLS included.
pub(super) async fn check(plan: &Plan, io: &Rc<WorkerIo>) -> Result<(), ProbeOutcome> {
    let mut stream = open(plan, io).await?;
    // Says farewell as far as the socket takes it at once. Nothing depends on it.
    let _ = stream.shutdown_write();
    let _ = poll_fn(|cx| Poll::Ready(stream.poll_flush(cx))).await;
    Ok(())
}

/// Connects, and does the handshake where the backend is inside TLS.
pub(super) async fn open(plan: &Plan, io: &Rc<WorkerIo>) -> Result<Stream, ProbeOutcome> {
    let connector = Connector {
        address: plan.address,
        timeout: plan.timeout,
        tls: plan.tls.clone(),
        handshake_timeout: plan.timeout,
        resets: true,
        preface: plan.preface.clone(),
    };
    connector.connect(io, |_| ()).await.map_err(|error| match error {
        ConnectError::Connect(error) if shortage_of(&error).is_some() => ProbeOutcome::NotAsked,
        ConnectError::Connect(error) if error.kind() == io::ErrorKind::TimedOut => ProbeOutcome::Timeout,
        ConnectError::Connect(_) => ProbeOutcome::Connect,
        ConnectError::Handshake(error) if failure_of(&error) == Some(TlsFailure::Timeout) => {
            ProbeOutcome::Timeout
        }
        ConnectError::Handshake(_) => ProbeOutcome::Tls,
    })
}

/// What has happened to a connection that is in other hands.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The peer will send no more.
    is_closed: Cell<bool>,
    /// The peer has sent more than a probe takes.
    is_over: Cell<bool>,
    /// The answer was as expected: the connection ends in peace.
    pub(super) is_settled: Cell<bool>,
}

impl Trace {
    /// What a failed exchange says of the peer.
    pub(super) fn fault(&self, error: &hyper::Error) -> ProbeOutcome {
        if error.is_parse() || self.is_over.get() || !self.is_closed.get() {
            ProbeOutcome::Malformed
        } else {
            ProbeOutcome::Closed
        }
    }
}

/// A connection from which a bounded number of bytes can be read.
#[derive(Debug)]
pub(super) struct Metered {
    stream: Stream,
    left: usize,
    trace: Rc<Trace>,
}

impl Metered {
    /// `limit` bytes can be read, of whatever kind.
    pub(super) fn new(stream: Stream, limit: usize, trace: Rc<Trace>) -> Self {
        Self { stream, left: limit, trace }
    }
}

impl Drop for Metered {
    /// What a peer has still on its way, or does not read, is no longer of interest: the kernel must not keep the connection for it.
    fn drop(&mut self) {
        if !self.trace.is_settled.get() {
            self.stream.reset_on_close();
        }
    }
}

impl Read for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == 0 {
            this.trace.is_over.set(true);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let mut chunk = [0; CHUNK];
        let room = CHUNK.min(buffer.remaining()).min(this.left);
        let received = match chunk.get_mut(..room) {
            Some(chunk) if room > 0 => ready!(this.stream.poll_recv(cx, chunk)),
            _ => return Poll::Ready(Ok(())),
        };
        let bytes = received.inspect_err(|_| this.trace.is_closed.set(true))?;
        if bytes.is_empty() {
            this.trace.is_closed.set(true);
        }
        this.left = this.left.saturating_sub(bytes.len());
        buffer.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

impl Write for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(self.stream.poll_send(cx, bytes));
        Poll::Ready(sent.inspect_err(|_| self.trace.is_closed.set(true)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.shutdown_write()?;
        self.stream.poll_flush(cx)
    }
}

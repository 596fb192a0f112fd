//! A connection in the making.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_io::WorkerIo;
use lb_security::{ClientTls, Stream, TlsStream};

use crate::h2::DialTicket;

/// How a backend is reached.
pub(super) struct Connect {
    pub(super) address: SocketAddr,
    pub(super) timeout: Duration,
    pub(super) tls: Option<Arc<ClientTls>>,
    pub(super) handshake_timeout: Duration,
    pub(super) io: Rc<WorkerIo>,
}

impl Connect {
    pub(super) async fn run(self) -> io::Result<Stream> {
        let stream = lb_io::connect(self.address, self.timeout).await?;
        let Some(tls) = self.tls else { return Ok(Stream::Plain(stream)) };
        let mut stream = TlsStream::client(stream, self.io, &tls)?;
        match tokio::time::timeout(self.handshake_timeout, poll_fn(|cx| stream.poll_handshake(cx))).await {
            Ok(result) => result.map(|()| Stream::Tls(Box::new(stream))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A connect with its timeouts, the handshake included.
pub(super) struct Dial {
    address: SocketAddr,
    connecting: Pin<Box<dyn Future<Output = io::Result<Stream>>>>,
    /// Held while others wait for this connection.
    pub(super) ticket: Option<DialTicket>,
}

impl Dial {
    pub(super) fn new(connect: Connect, ticket: Option<DialTicket>) -> Self {
        Self { address: connect.address, connecting: Box::pin(connect.run()), ticket }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        self.connecting.as_mut().poll(cx)
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dial").field(&self.address).finish()
    }
}

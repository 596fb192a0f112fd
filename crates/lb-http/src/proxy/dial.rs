//! A connection in the making.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use lb_io::WorkerIo;
use lb_observe::metrics::WorkerMetrics;
use lb_pool::Place;
use lb_security::{Connector, Failure, Stream};

use crate::upstream::DialTicket;

/// How a backend is reached.
pub(super) struct Connect {
    pub(super) to: Connector,
    /// The protocol that the backend must choose inside TLS.
    pub(super) alpn: Option<&'static [u8]>,
    pub(super) io: Rc<WorkerIo>,
    pub(super) metrics: Arc<WorkerMetrics>,
}

impl Connect {
    pub(super) async fn run(self) -> io::Result<Stream> {
        let count = |result| self.metrics.backend_tls_handshakes.of(result).inc();
        let stream = self.to.connect(&self.io, count).await?;
        if let Stream::Tls(stream) = &stream
            && let Some(alpn) = self.alpn
            && stream.alpn() != Some(alpn)
        {
            let error =
                Failure::Incompatible.because("the backend does not choose the protocol it is to speak");
            self.to.tell(&error);
            return Err(error);
        }
        Ok(stream)
    }
}

/// A connect with its timeouts, the handshake included.
pub(super) struct Dial {
    address: SocketAddr,
    connecting: Pin<Box<dyn Future<Output = io::Result<Stream>>>>,
    /// Held while others wait for this connection.
    pub(super) ticket: Option<DialTicket>,
    /// Room for the connection, where its backend has limits.
    pub(super) place: Option<Place>,
}

impl Dial {
    pub(super) fn new(connect: Connect, ticket: Option<DialTicket>, place: Option<Place>) -> Self {
        Self { address: connect.to.address, connecting: Box::pin(connect.run()), ticket, place }
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

//! Connections to backends: made, and brought inside TLS where they are to be.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lb_core::address::Address;
use lb_io::{ByteStream, WorkerIo};
use lb_observe::metrics::TlsResult;

use crate::client::ClientTls;
use crate::failure::{TlsFailure, failure_of};
use crate::stream::TlsStream;
use crate::transport::Stream;

/// How a backend is reached.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Where it listens.
    pub address: Address,
    /// Time for the connect.
    pub timeout: Duration,
    /// TLS towards it, if any.
    pub tls: Option<Arc<ClientTls>>,
    /// Time for the handshake.
    pub handshake_timeout: Duration,
    /// Whether nothing is kept of a connection, in the kernel either, whose handshake is not brought to its end: not even what would
    /// tell the peer why.
    pub resets: bool,
    /// What is said before all other bytes, before TLS too. Empty = nothing.
    pub preface: Vec<u8>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// The socket was not connected.
    Connect(io::Error),
    /// It was, and TLS failed over it: [`failure_of`] returns how.
    Handshake(io::Error),
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Connect(error) | ConnectError::Handshake(error) => error,
        }
    }
}

impl Connector {
    /// Connects, and does the handshake where the backend is inside TLS; `ended` is called with the result of the handshake.
    ///
    /// # Errors
    /// When there is no connection in time, or no handshake.
    pub async fn connect(
        &self,
        io: &Rc<WorkerIo>,
        ended: impl FnOnce(TlsResult),
    ) -> Result<Stream, ConnectError> {
        let mut stream = io.connect(self.address, self.timeout).await.map_err(ConnectError::Connect)?;
        if !self.preface.is_empty() {
            let said = tokio::time::timeout(self.timeout, say(&mut stream, &self.preface)).await;
            said.unwrap_or_else(|late| Err(late.into())).map_err(ConnectError::Connect)?;
        }
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let stream = TlsStream::client(stream, Rc::clone(io), tls).map_err(ConnectError::Handshake)?;
        let mut stream = Box::new(stream);
        let mut handshake = Handshake { stream: &mut stream, resets: self.resets };
        let result = handshake.stream.handshake(self.handshake_timeout).await;
        handshake.resets &= result.is_err();
        drop(handshake);
        ended(match &result {
            Ok(result) => *result,
            // A socket that fails has been closed by its peer.
            Err(error) => failure_of(error).map_or(TlsResult::Closed, |failure| failure.result()),
        });
        let result = result.map_err(|error| match failure_of(&error) {
            Some(_) => error,
            None => TlsFailure::Closed.because(error),
        });
        if let Err(error) = &result {
            self.tell(error);
        }
        result.map(|_| Stream::Tls(stream)).map_err(ConnectError::Handshake)
    }

    /// Writes to the log why TLS has failed, within its rate limit.
    pub fn tell(&self, error: &io::Error) {
        if let Some(tls) = &self.tls {
            tls.tell(self.address, error);
        }
    }
}

/// Sends all of `bytes`. The socket of a new connection has room for them, as a rule.
async fn say(stream: &mut ByteStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| stream.poll_send(cx, bytes)).await?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// A handshake under way, which may be given up at any time.
struct Handshake<'a> {
    stream: &'a mut TlsStream,
    resets: bool,
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if self.resets {
            self.stream.reset_on_close();
        }
    }
}

//! A TLS connection over the gateway's own stream of bytes, for both roles.
//!
//! It stands on rustls' unbuffered API, so that the connection itself holds no buffers. Ciphertext is read into a buffer of the
//! worker and opened there; data are copied into the caller's buffer. Only what is left over owns memory, from the worker's
//! pool and while it exists: an incomplete record, data for which the caller's buffer was too small, ciphertext that the
//! socket did not take. Data that are sent are sealed into another buffer of the worker and leave by one system call.
//!
//! Some ciphertext may wait after any call. It leaves with later sends, with [`TlsStream::poll_flush`], and whenever a
//! receive finds nothing to do.

mod engine;
mod handshake;
mod meter;
mod receive;
mod send;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lb_io::{ByteStream, WorkerIo};
use rustls::client::UnbufferedClientConnection;
use rustls::server::{Acceptor, UnbufferedServerConnection};

use crate::bundle::{Accepted, TlsConfigBundle};
use crate::certificate::PeerCertificate;
use crate::client::ClientTls;
use crate::failure::TlsFailure;
use meter::RecordMeter;

/// A TLS connection. [`Self::poll_handshake`] comes first; then data flow.
pub struct TlsStream {
    tcp: ByteStream,
    io: Rc<WorkerIo>,
    side: Side,
    meter: RecordMeter,
    /// An incomplete record, or an incomplete handshake message, as rustls has left it.
    held: Vec<u8>,
    /// Data that no caller had room for, from `given` on.
    plain: Vec<u8>,
    given: usize,
    /// Ciphertext that is to be sent, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// The socket has refused some of `out`.
    is_blocked: bool,
    /// FIN follows once `out` is sent.
    fin_follows: bool,
    write_shut: bool,
    state: State,
    /// Bytes that the peer has spent on the handshake.
    handshake_bytes: usize,
    /// There was something to send in the handshake: a server has taken the hello for one.
    has_answered: bool,
    /// Bytes that the acceptor has seen.
    looked_at: usize,
    facts: Box<Facts>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    Handshaking,
    Established,
    /// The peer has sent close_notify.
    PeerClosed,
    Failed(TlsFailure),
}

enum Side {
    /// A server that needs the SNI before it can choose its configuration.
    Accepting(Box<Acceptor>),
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What the handshake has settled.
#[derive(Debug, Default)]
struct Facts {
    bundle: Option<Arc<TlsConfigBundle>>,
    server_name: Option<String>,
    peer: Option<PeerCertificate>,
    is_resumed: bool,
}

impl TlsStream {
    /// The server's side of `tcp`. Nothing is sent or received yet.
    ///
    /// # Errors
    /// When rustls finds the configuration wrong.
    pub fn server(tcp: ByteStream, io: Rc<WorkerIo>, bundle: Arc<TlsConfigBundle>) -> io::Result<Self> {
        let side = match bundle.only_config() {
            Some(config) => {
                let connection = UnbufferedServerConnection::new(Arc::clone(config));
                Side::Server(Box::new(connection.map_err(|error| TlsFailure::Internal.error(Some(&error)))?))
            }
            None => Side::Accepting(Box::default()),
        };
        Ok(Self::new(tcp, io, side, Some(bundle)))
    }

    /// The client's side of `tcp`.
    ///
    /// # Errors
    /// When rustls finds the configuration wrong.
    pub fn client(tcp: ByteStream, io: Rc<WorkerIo>, tls: &ClientTls) -> io::Result<Self> {
        let connection = UnbufferedClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map_err(|error| TlsFailure::Internal.error(Some(&error)))?;
        Ok(Self::new(tcp, io, Side::Client(Box::new(connection)), None))
    }

    fn new(tcp: ByteStream, io: Rc<WorkerIo>, side: Side, bundle: Option<Arc<TlsConfigBundle>>) -> Self {
        Self {
            tcp,
            io,
            side,
            meter: RecordMeter::default(),
            held: Vec::new(),
            plain: Vec::new(),
            given: 0,
            out: Vec::new(),
            sent: 0,
            is_blocked: false,
            fin_follows: false,
            write_shut: false,
            state: State::New,
            handshake_bytes: 0,
            has_answered: false,
            looked_at: 0,
            facts: Box::new(Facts { bundle, ..Facts::default() }),
        }
    }

    /// Makes closing discard what is unsent and reset the connection, so that the peer cannot take a cut message for a whole one.
    pub fn reset_on_close(&mut self) {
        self.tcp.reset_on_close();
    }

    /// Whether an idle connection can be used again: neither data nor the end have arrived. Session tickets that a server sends
    /// after its handshake are taken in on the way. Data that had arrived are lost: a connection that is not quiet is of no use.
    pub fn is_quiet(&mut self) -> bool {
        if self.state != State::Established || self.given < self.plain.len() {
            return false;
        }
        if self.tcp.is_quiet() {
            return self.held.is_empty();
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0u8];
        self.poll_recv(&mut cx, &mut byte).is_pending() && self.held.is_empty()
    }

    /// Whether anything has arrived on the socket that was not read, its end included.
    pub fn has_arrived(&self) -> bool {
        self.tcp.has_arrived()
    }

    /// Whether the peer has closed its side of the socket or reset it. Bytes that wait to be read do not count.
    pub fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.tcp.poll_hangup(cx)
    }

    /// The protocol that ALPN has chosen. Known after the handshake.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.common()?.alpn_protocol()
    }

    /// The server name that the client asked for, as it wrote it. On a server's side only.
    pub fn server_name(&self) -> Option<&str> {
        self.facts.server_name.as_deref()
    }

    /// Whether a session was resumed in place of a full handshake.
    pub fn is_resumed(&self) -> bool {
        self.facts.is_resumed
    }

    /// The peer's certificate, where it has shown one and it was accepted.
    pub fn peer_certificate(&self) -> Option<&PeerCertificate> {
        self.facts.peer.as_ref()
    }

    /// The version of TLS, as OpenSSL writes it. Known after the handshake.
    pub fn version(&self) -> &'static str {
        match self.common().and_then(|common| common.protocol_version()) {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "unknown",
        }
    }

    /// The client-certificate rules that the connection was accepted under; `None` where they are the same for every name, and on a
    /// client's side.
    pub fn accepted(&self) -> Option<Accepted> {
        Accepted::under(self.facts.bundle.as_ref()?, self.server_name())
    }

    /// Bytes of memory in buffers of its own, and whether the socket is quiet.
    #[cfg(test)]
    pub(crate) fn looked_into(&self) -> (usize, bool) {
        let capacity = self.held.capacity() + self.plain.capacity() + self.out.capacity();
        (capacity, self.tcp.is_quiet())
    }

    fn common(&self) -> Option<&rustls::CommonState> {
        match &self.side {
            Side::Accepting(_) => None,
            Side::Server(server) => Some(server),
            Side::Client(client) => Some(client),
        }
    }

    /// Notes that the connection has failed, sends the alert if the socket takes it, and returns the error.
    fn fail(&mut self, failure: TlsFailure, detail: Option<&rustls::Error>) -> io::Error {
        self.state = State::Failed(failure);
        self.io.buffers.put(&mut self.held);
        self.io.buffers.put(&mut self.plain);
        self.given = 0;
        if self.sent < self.out.len() && !self.is_blocked {
            let _ = self.poll_out(&mut Context::from_waker(Waker::noop()));
        }
        failure.error(detail)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        for buffer in [&mut self.held, &mut self.plain, &mut self.out] {
            self.io.buffers.put(buffer);
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

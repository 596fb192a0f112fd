//! The handshake, up to the first data.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use lb_observe::metrics::TlsResult;
use rustls::HandshakeKind;
use rustls::server::UnbufferedServerConnection;

use super::{Side, State, TlsStream, engine};
use crate::bundle;
use crate::certificate::{PeerCertificate, unix};
use crate::failure::TlsFailure;

impl TlsStream {
    /// Goes on with the handshake until it is over. The caller keeps the time.
    ///
    /// # Errors
    /// The socket's, or a [`TlsFailure`]; the peer has been sent an alert then where the protocol has one.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Established | State::PeerClosed => return Poll::Ready(Ok(())),
                State::Failed(failure) => return Poll::Ready(Err(failure.error(None))),
                State::New => self.begin()?,
                State::Handshaking => {
                    if self.sent < self.out.len() {
                        ready!(self.poll_out(cx))?;
                    }
                    // Data that come with the last message wait in `plain`.
                    ready!(self.poll_records(cx, &mut []))?;
                    if let Some(name) = bundle::take_server_name() {
                        self.facts.server_name = Some(name);
                    }
                }
            }
            let is_over = match &self.side {
                Side::Accepting(_) => false,
                Side::Server(server) => !server.is_handshaking(),
                Side::Client(client) => !client.is_handshaking(),
            };
            if is_over && self.state == State::Handshaking {
                self.establish()?;
                // A client's last message must leave; a server's tickets go with its first data, or when it next waits.
                if matches!(self.side, Side::Client(_)) && self.sent < self.out.len() {
                    // The socket of a peer that has just read the handshake has room for this.
                    let _ = self.poll_out(cx)?;
                }
            }
        }
    }

    /// The whole handshake, within `limit`; returns how metrics count it.
    ///
    /// # Errors
    /// As those of [`Self::poll_handshake`], and [`TlsFailure::Timeout`].
    pub async fn handshake(&mut self, limit: Duration) -> io::Result<TlsResult> {
        match tokio::time::timeout(limit, poll_fn(|cx| self.poll_handshake(cx))).await {
            Ok(result) => result?,
            Err(_) => return Err(self.fail(TlsFailure::Timeout, None)),
        }
        Ok(if self.is_resumed() { TlsResult::Resumed } else { TlsResult::Full })
    }

    /// A client speaks first.
    fn begin(&mut self) -> io::Result<()> {
        self.state = State::Handshaking;
        let Self { side, out, io, .. } = self;
        if let Side::Client(client) = side {
            *out = io.buffers.take();
            if let Err(error) = engine::take_in(client.as_mut(), &mut [], out, &mut |_| {}) {
                return Err(self.fail(TlsFailure::of(&error), Some(&error)));
            }
            self.has_answered = true;
        }
        Ok(())
    }

    /// Looks for the SNI in what has arrived so far and chooses the configuration by it. False = more of the hello is needed.
    pub(super) fn choose_config(&mut self, input: &[u8]) -> io::Result<bool> {
        let Side::Accepting(acceptor) = &mut self.side else { return Ok(true) };
        let mut new = input.get(self.looked_at..).unwrap_or_default();
        self.looked_at = input.len();
        let accepted = loop {
            if new.is_empty() {
                return Ok(false);
            }
            // Reads from a slice, so only its own buffer can be in the way.
            if acceptor.read_tls(&mut new).is_err() {
                return Err(self.fail(TlsFailure::TooLarge, None));
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let _ = alert.write_all(&mut self.out);
                    return Err(self.fail(TlsFailure::of(&error), Some(&error)));
                }
            }
        };
        let server_name = accepted.client_hello().server_name().map(str::to_owned);
        let config = self
            .facts
            .bundle
            .as_ref()
            .and_then(|bundle| bundle.config_of(bundle.policy_of(server_name.as_deref())).cloned());
        let Some(config) = config else { return Err(self.fail(TlsFailure::Internal, None)) };
        let server = match UnbufferedServerConnection::new(config) {
            Ok(server) => server,
            Err(error) => return Err(self.fail(TlsFailure::Internal, Some(&error))),
        };
        self.facts.server_name = server_name;
        self.side = Side::Server(Box::new(server));
        Ok(true)
    }

    fn establish(&mut self) -> io::Result<()> {
        let common = self.common();
        let is_resumed = common.and_then(|common| common.handshake_kind()) == Some(HandshakeKind::Resumed);
        // Backends' certificates are of no interest once they have been verified.
        let peer = match &self.side {
            Side::Server(server) => {
                server.peer_certificates().and_then(<[_]>::first).map(PeerCertificate::of)
            }
            _ => None,
        };
        // A session may outlive the certificate that its client showed when it began.
        if is_resumed && peer.as_ref().is_some_and(|peer| peer.not_after < unix(SystemTime::now())) {
            return Err(self.fail(TlsFailure::Certificate, None));
        }
        self.facts.is_resumed = is_resumed;
        self.facts.peer = peer;
        self.state = State::Established;
        Ok(())
    }
}

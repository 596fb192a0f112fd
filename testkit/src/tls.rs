//! TLS clients for tests: blocking, and able to hold sessions, to show certificates and to lie.

mod bridge;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use crate::certificates::{Authority, Leaf};

pub use bridge::Bridge;

/// Settings of clients. Clients made from one value share their sessions.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct TlsConnection {
    /// rustls' side.
    pub tls: ClientConnection,
    /// The socket.
    pub tcp: TcpStream,
}

impl TlsClient {
    /// Trusts the authority, and shows a certificate if there is one.
    pub fn new(authority: &Authority, certificate: Option<&Leaf>) -> Self {
        Self::build(&authority.pem(), certificate)
    }

    fn build(authority: &str, certificate: Option<&Leaf>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match certificate {
            Some(leaf) => {
                let chain =
                    CertificateDer::pem_slice_iter(leaf.cert.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        Self { config: Arc::new(config) }
    }

    /// Trusts the authority with this certificate, in PEM.
    pub fn trusting(authority: &str) -> Self {
        Self::build(authority, None)
    }

    /// Speaks nothing newer than TLS 1.2.
    pub fn tls12(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { config: Arc::new(config) }
    }

    /// Offers these protocols by ALPN.
    pub fn alpn(mut self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::make_mut(&mut self.config).alpn_protocols = names;
        self
    }

    /// The bytes of a ClientHello.
    pub fn hello(&self, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.begin(name).write_tls(&mut bytes).unwrap();
        bytes
    }

    fn begin(&self, name: &str) -> ClientConnection {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        ClientConnection::new(Arc::clone(&self.config), name).unwrap()
    }

    /// Connects and does the handshake.
    ///
    /// # Errors
    /// The errors of the socket and of TLS. A client learns of a refused certificate only with its first read.
    pub fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<TlsConnection> {
        self.over(TcpStream::connect(address)?, name)
    }

    /// Does the handshake on a connection that exists.
    ///
    /// # Errors
    /// As those of [`Self::connect`].
    pub fn over(&self, mut tcp: TcpStream, name: &str) -> std::io::Result<TlsConnection> {
        tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
        tcp.set_write_timeout(Some(Duration::from_secs(10)))?;
        tcp.set_nodelay(true)?;
        let mut tls = self.begin(name);
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        while tls.wants_write() {
            tls.write_tls(&mut tcp)?;
        }
        Ok(TlsConnection { tls, tcp })
    }
}

impl TlsConnection {
    /// Whether a session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The errors of the socket and of TLS.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut stream = rustls::Stream::new(&mut self.tls, &mut self.tcp);
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// The protocol that the server has chosen by ALPN.
    pub fn alpn(&self) -> Option<String> {
        self.tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// The errors of the socket and of TLS, and an early end.
    pub fn exactly(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        rustls::Stream::new(&mut self.tls, &mut self.tcp).read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads to a clean end.
    ///
    /// # Errors
    /// The errors of the socket and of TLS; an end without close_notify is one.
    pub fn to_end(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        rustls::Stream::new(&mut self.tls, &mut self.tcp).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends close_notify and ends the sending side.
    ///
    /// # Errors
    /// The errors of the socket.
    pub fn finish(&mut self) -> std::io::Result<()> {
        self.tls.send_close_notify();
        self.tls.write_tls(&mut self.tcp)?;
        self.tcp.shutdown(Shutdown::Write)
    }

    /// Sends a message and reads it back.
    ///
    /// # Errors
    /// The errors of the socket and of TLS.
    pub fn echo(&mut self, bytes: &[u8]) -> std::io::Result<bool> {
        self.send(bytes)?;
        Ok(self.exactly(bytes.len())? == bytes)
    }
}

//! QUIC clients for tests: quinn, driven by a thread in the background, behind calls that block.

pub mod relay;
pub mod server;

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
pub use quinn;
use quinn::crypto::rustls::QuicClientConfig;
pub use quinn::{ConnectionError, ZeroRttAccepted};
use quinn::{Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use rcgen::PublicKeyData;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::Digest;
use tokio::runtime::{Builder, Handle};

use crate::certificates::{Authority, Leaf};
use crate::seconds;
use crate::wire::Fault;

/// The name that clients ask for, and that the certificate of [`site`] is for.
pub const NAME: &str = "test.example";

/// The authority and the files of the QUIC listeners of this process.
pub struct Site {
    /// Who signed the certificate.
    pub authority: Authority,
    directory: tempfile::TempDir,
}

impl Site {
    /// Where the certificate `quic.pem`, its key `quic.key`, the authority's certificate `ca.pem` and the Retry secret are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The SHA-256 hash of the certificate's key in base64, by which Chromium is told to trust it.
    pub fn key_hash(&self) -> String {
        let key = std::fs::read_to_string(self.directory().join("quic.key")).unwrap();
        let key = rcgen::KeyPair::from_pem(&key).unwrap();
        let hash = sha2::Sha256::digest(key.subject_public_key_info());
        let mut text = [0; 44];
        base64::engine::general_purpose::STANDARD.encode_slice(hash, &mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// What [`crate::Listener::quic`] serves.
pub fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("expressgateway-quic-").tempdir().unwrap();
        let authority = Authority::new("the authority of QUIC tests");
        authority.server(&[NAME, "localhost", "127.0.0.1"]).write(directory.path(), "quic");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        Site { authority, directory }
    })
}

/// What drives all connections of this process.
pub(crate) fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let (give, take) = std::sync::mpsc::channel();
        let drive = move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            give.send(runtime.handle().clone()).unwrap();
            runtime.block_on(std::future::pending::<()>());
        };
        std::thread::Builder::new().name("quic".into()).spawn(drive).unwrap();
        take.recv().unwrap()
    })
}

/// Waits for a future on this thread.
pub fn wait<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Fault> {
    runtime().block_on(async { tokio::time::timeout(limit, future).await }).map_err(|_| Fault::TimedOut)
}

/// What a future comes to, if it does within this time.
pub async fn soon<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

/// Settings of clients. Clients made from one value share their sessions.
#[derive(Clone, Debug)]
pub struct QuicClient {
    tls: Arc<ClientConfig>,
    windows: Option<(u32, u32)>,
    keep_alive: Option<Duration>,
    version: u32,
    largest: u16,
}

impl Default for QuicClient {
    fn default() -> Self {
        QuicClient::new(&site().authority.pem(), None)
    }
}

impl QuicClient {
    /// Trusts the authority with this certificate, in PEM, and shows a certificate if there is one. Speaks HTTP/3.
    pub fn new(authority: &str, certificate: Option<&Leaf>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match certificate {
            Some(leaf) => {
                let chain =
                    CertificateDer::pem_slice_iter(leaf.cert.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h3".to_vec()];
        QuicClient { tls: Arc::new(tls), windows: None, keep_alive: None, version: 1, largest: 1472 }
    }

    /// Offers these protocols by ALPN.
    pub fn alpn(mut self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::make_mut(&mut self.tls).alpn_protocols = names;
        self
    }

    /// Lets the server send so many bytes on a stream, and on all of them, that were not read.
    pub fn windows(mut self, stream: u32, connection: u32) -> Self {
        self.windows = Some((stream, connection));
        self
    }

    /// Sends PINGs in such intervals.
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = Some(interval);
        self
    }

    /// Takes datagrams of so many bytes.
    pub fn largest(mut self, bytes: u16) -> Self {
        self.largest = bytes;
        self
    }

    /// Begins with this version of QUIC.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sends early data where the server allows it.
    pub fn early_data(mut self) -> Self {
        Arc::make_mut(&mut self.tls).enable_early_data = true;
        self
    }

    /// Begins a connection that can speak before its handshake is over, if the server has allowed that in an earlier one. What comes with it
    /// tells whether the server has accepted that.
    pub fn connect_early(&self, to: SocketAddr) -> Option<(QuicConnection, ZeroRttAccepted)> {
        let (endpoint, connecting) = self.begin(to, NAME);
        let _context = runtime().enter();
        let (quic, accepted) = connecting.into_0rtt().ok()?;
        Some((QuicConnection { quic, endpoint }, accepted))
    }

    /// Connects to a server with the name of [`site`].
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect(&self, to: SocketAddr) -> Result<QuicConnection, ConnectionError> {
        self.connect_to(to, NAME)
    }

    /// Connects to a server with another name.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect_to(&self, to: SocketAddr, name: &str) -> Result<QuicConnection, ConnectionError> {
        let (endpoint, connecting) = self.begin(to, name);
        let quic = wait(seconds(20), connecting).unwrap_or(Err(ConnectionError::TimedOut))?;
        Ok(QuicConnection { quic, endpoint })
    }

    /// The datagrams with which a client begins. It gets no answer, and ends by itself.
    pub fn hello(&self) -> Vec<Vec<u8>> {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (endpoint, connecting) = self.begin(server.local_addr().unwrap(), NAME);
        let handle = runtime().spawn(connecting);
        server.set_read_timeout(Some(seconds(5))).unwrap();
        let mut bytes = vec![0; 65_536];
        let mut datagrams = Vec::new();
        while let Ok(length) = server.recv(&mut bytes) {
            datagrams.push(bytes[..length].to_vec());
            server.set_read_timeout(Some(crate::ms(20))).unwrap();
        }
        handle.abort();
        endpoint.close(VarInt::from_u32(0), b"");
        datagrams
    }

    fn begin(&self, to: SocketAddr, name: &str) -> (Endpoint, quinn::Connecting) {
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(self.keep_alive);
        if let Some((stream, connection)) = self.windows {
            transport.stream_receive_window(stream.into()).receive_window(connection.into());
        }
        let crypto = QuicClientConfig::try_from(Arc::clone(&self.tls)).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport)).version(self.version);
        let endpoint = {
            let _context = runtime().enter();
            let mut supported = EndpointConfig::default();
            supported.max_udp_payload_size(self.largest).expect("a size that QUIC knows");
            if self.version != 1 {
                supported.supported_versions(vec![self.version, 1]);
            }
            let own = if to.ip().is_loopback() { "127.0.0.1:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(own).unwrap();
            Endpoint::new(supported, None, socket, Arc::new(TokioRuntime)).unwrap()
        };
        let connecting = {
            let _context = runtime().enter();
            endpoint.connect_with(config, to, name).unwrap()
        };
        (endpoint, connecting)
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct QuicConnection {
    /// quinn's connection.
    pub quic: quinn::Connection,
    /// Its socket.
    pub endpoint: Endpoint,
}

impl QuicConnection {
    /// Goes on from another port.
    pub fn move_away(&self) -> SocketAddr {
        let own = self.endpoint.local_addr().unwrap().ip();
        let socket = UdpSocket::bind((own, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let _context = runtime().enter();
        self.endpoint.rebind(socket).unwrap();
        address
    }

    /// Waits for the end of the connection.
    ///
    /// # Errors
    /// [`Fault::TimedOut`] when it goes on.
    pub fn closed(&self, limit: Duration) -> Result<ConnectionError, Fault> {
        wait(limit, self.quic.closed())
    }

    /// The certificate that the server has shown, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        let chain = self.quic.peer_identity().expect("a chain");
        chain.downcast::<Vec<CertificateDer<'static>>>().expect("certificates of rustls")[0].to_vec()
    }
}

/// The code with which a server has ended a connection, with whether it was the application that did.
pub fn code_of(error: &ConnectionError) -> Option<(bool, u64)> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some((true, close.error_code.into_inner())),
        ConnectionError::ConnectionClosed(close) => Some((false, close.error_code.into())),
        _ => None,
    }
}

/// A code as quinn wants it.
pub fn code(value: u64) -> VarInt {
    VarInt::from_u64(value).expect("a code of less than 62 bits")
}

//! A QUIC server for tests: quinn, with what a test does on the connections of its clients.

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime, TransportConfig};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinHandle;

use super::{runtime, site};

/// A server on a free port, with the certificate of [`site`].
#[derive(Debug)]
pub struct QuicServer {
    /// Where it listens.
    pub address: SocketAddr,
    endpoint: Endpoint,
    accepted: Mutex<Receiver<Connection>>,
}

impl QuicServer {
    /// A server that speaks these protocols.
    pub fn start(alpn: &[&str]) -> QuicServer {
        QuicServer::with(alpn, |_| {})
    }

    /// A server under other settings of its transport.
    pub fn with(alpn: &[&str], change: impl FnOnce(&mut TransportConfig)) -> QuicServer {
        let directory = site().directory();
        let chain = CertificateDer::pem_file_iter(directory.join("quic.pem")).unwrap();
        let chain = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(directory.join("quic.key")).unwrap();
        let mut tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        change(&mut transport);
        config.transport_config(Arc::new(transport));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let _context = runtime().enter();
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime)).unwrap();
        let (give, accepted) = channel();
        let accepting = endpoint.clone();
        runtime().spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                let give = give.clone();
                runtime().spawn(async move {
                    if let Ok(connection) = incoming.await {
                        give.send(connection).ok();
                    }
                });
            }
        });
        QuicServer { address, endpoint, accepted: Mutex::new(accepted) }
    }

    /// The next connection whose handshake is over.
    ///
    /// # Panics
    /// When none comes within 10 s.
    #[track_caller]
    pub fn accept(&self) -> Connection {
        self.accept_within(Duration::from_secs(10)).expect("a connection to the backend")
    }

    /// Does this with every connection from now on.
    pub fn on_each(&self, act: impl Fn(Connection) + Send + 'static) {
        let (_, nothing) = channel();
        let accepted = std::mem::replace(&mut *self.accepted.lock().unwrap(), nothing);
        std::thread::spawn(move || accepted.into_iter().for_each(act));
    }

    /// The next connection, if one comes within this time.
    pub fn accept_within(&self, limit: Duration) -> Option<Connection> {
        self.accepted.lock().unwrap().recv_timeout(limit).ok()
    }
}

impl Drop for QuicServer {
    fn drop(&mut self) {
        self.endpoint.close(quinn::VarInt::from_u32(0), b"");
    }
}

/// Runs something beside the test.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    runtime().spawn(future)
}

/// Echoes streams of both kinds and datagrams until the connection ends. A stream that is reset or stopped is ended with the same code.
pub fn echo(connection: Connection) {
    let bidirectional = connection.clone();
    spawn(async move {
        while let Ok((mut send, mut recv)) = bidirectional.accept_bi().await {
            spawn(async move {
                loop {
                    match recv.read_chunk(64 * 1024, true).await {
                        Ok(Some(chunk)) => {
                            if let Err(quinn::WriteError::Stopped(code)) = send.write_chunk(chunk.bytes).await
                            {
                                recv.stop(code).ok();
                                return;
                            }
                        }
                        Ok(None) => return send.finish().unwrap_or_default(),
                        Err(quinn::ReadError::Reset(code)) => {
                            send.reset(code).ok();
                            return;
                        }
                        Err(_) => return,
                    }
                }
            });
        }
    });
    let unidirectional = connection.clone();
    spawn(async move {
        while let Ok(mut recv) = unidirectional.accept_uni().await {
            let connection = unidirectional.clone();
            spawn(async move {
                if let Ok(bytes) = recv.read_to_end(usize::MAX).await
                    && let Ok(mut send) = connection.open_uni().await
                {
                    send.write_all(&bytes).await.ok();
                    send.finish().ok();
                }
            });
        }
    });
    spawn(async move {
        while let Ok(datagram) = connection.read_datagram().await {
            connection.send_datagram(datagram).ok();
        }
    });
}

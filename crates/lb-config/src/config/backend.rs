//! Where traffic is sent.

use std::path::PathBuf;

use lb_core::proxy_protocol::ProxySends;
use lb_core::words;

use super::SocketName;

/// One backend of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketName,
    /// The address as written: its identity in logs and metric labels.
    pub name: String,
    /// What it speaks. On tcp and tls listeners bytes are carried as they are, whatever stands here.
    pub protocol: BackendProtocol,
    /// Its share of the picks. 0 = never picked.
    pub weight: u32,
    /// Which of the pool's groups it belongs to. A group is used when those with lower numbers are not well enough; 0 is the first.
    pub priority: u32,
    /// TLS towards it. Present on h3 backends and where the file says `tls = true`.
    pub tls: Option<BackendTls>,
    /// What it is told of the client at the beginning of each connection; None = nothing. Only where it speaks HTTP/1.1 or raw bytes.
    pub proxy_protocol: Option<ProxySends>,
}

/// TLS towards a backend.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BackendTls {
    /// PEM file of the certificate authorities to trust. None = the system's; on an h3 backend only without `verify_peer`.
    pub ca_path: Option<PathBuf>,
    /// The name the certificate must carry; also the SNI.
    pub verify_hostname: String,
    /// Whether the certificate is checked at all.
    pub verify_peer: bool,
    /// The certificate that the gateway shows.
    pub client_certificate: Option<ClientCertificate>,
}

/// PEM files of the certificate that the gateway shows to a backend.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientCertificate {
    /// The chain, leaf first.
    pub cert_path: PathBuf,
    /// The private key.
    pub key_path: PathBuf,
}

words! {
    /// What a backend speaks.
    BackendProtocol {
        /// Raw bytes; on an HTTP listener the same as `H1`.
        Tcp = "tcp",
        /// HTTP/1.1.
        H1 = "h1",
        /// HTTP/2.
        H2 = "h2",
        /// HTTP/3.
        H3 = "h3",
    }
}

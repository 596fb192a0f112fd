//! Where a listener sends its traffic.

use std::path::PathBuf;

use super::HostPort;
use crate::words::words;

/// One backend of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: HostPort,
    /// The address as written: its identity in logs and metric labels.
    pub name: String,
    /// What it speaks. On tcp and tls listeners bytes are carried as they are, whatever stands here.
    pub protocol: BackendProtocol,
    /// Its share of the picks. 0 = never picked.
    pub weight: u32,
    /// How its certificate is checked. Present on h3 backends, and only there.
    pub tls: Option<BackendTls>,
}

/// TLS towards an h3 backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendTls {
    /// PEM file of the certificate authorities to trust. Always present when `verify_peer` is set.
    pub ca_path: Option<PathBuf>,
    /// The name the certificate must carry; also the SNI.
    pub verify_hostname: String,
    /// Whether the certificate is checked at all.
    pub verify_peer: bool,
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

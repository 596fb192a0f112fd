//! A set of backends, and how one of them is chosen.

use std::path::PathBuf;
use std::time::Duration;

use lb_core::identity::PoolId;
use lb_core::pool::PoolSettings;
use lb_core::words;

use super::{Backend, Discovery, HealthCheck, Protocol};

/// A pool: `[pools.NAME]`, or the backends that stand inside a listener, with all else at its default.
#[derive(Clone, PartialEq, Debug)]
pub struct BackendPool {
    /// What identifies the pool in a configuration, also after a reload.
    pub id: PoolId,
    /// Where traffic goes, in the order of the file. Empty only with `discovery`, or inside a listener that is not started.
    pub backends: Vec<Backend>,
    /// How one is chosen, and what follows when one fails.
    pub settings: PoolSettings,
    /// What the hashing policies hash.
    pub hash_key: HashKey,
    /// The cookie that keeps a client at its backend. Only where every listener of the pool reads HTTP.
    pub sticky: Option<Sticky>,
    /// What is asked of a backend in a health check. Present where [`PoolSettings::health`] is.
    pub health: Option<HealthCheck>,
    /// Where further backends come from.
    pub discovery: Option<Discovery>,
}

impl BackendPool {
    /// Whether anything is, or may come to be, behind it.
    pub fn has_backends(&self) -> bool {
        !self.backends.is_empty() || self.discovery.is_some()
    }

    /// The first setting, by its path inside the pool, that a listener of this protocol cannot honour.
    pub(crate) fn misfit(&self, protocol: Protocol) -> Option<&'static str> {
        if protocol.is_http() {
            None
        } else if self.sticky.is_some() {
            Some("sticky")
        } else {
            self.hash_key.needs_http().then_some("hash_key")
        }
    }
}

/// What the hashing policies hash.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HashKey {
    /// The client's IP address.
    SourceAddress,
    /// The value of this header, whose name is in lower case.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The path of the request.
    Path,
    /// The value of this parameter of the query.
    Query(String),
    /// The connection ID of QUIC; the client's IP address where a connection has none.
    ConnectionId,
}

impl HashKey {
    /// Whether it is found only in a request.
    pub fn needs_http(&self) -> bool {
        match self {
            Self::Header(_) | Self::Cookie(_) | Self::Path | Self::Query(_) => true,
            Self::SourceAddress | Self::ConnectionId => false,
        }
    }

    /// Reads the key as the file spells it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "header" if is_token(name) => Some(Self::Header(name.to_ascii_lowercase())),
            "cookie" if is_token(name) => Some(Self::Cookie(name.to_owned())),
            "query" if is_parameter(name) => Some(Self::Query(name.to_owned())),
            _ => match text {
                "source_address" => Some(Self::SourceAddress),
                "path" => Some(Self::Path),
                "connection_id" => Some(Self::ConnectionId),
                _ => None,
            },
        }
    }
}

/// The cookie that names a client's backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// How long a browser keeps it. None = for its session.
    pub ttl: Option<Duration>,
    /// `Path`.
    pub path: String,
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// File of the 32 bytes that sign it. None = a key of this process.
    pub key_path: Option<PathBuf>,
}

words! {
    /// `SameSite` of a cookie.
    SameSite {
        /// Sent along when a link leads here.
        Lax = "lax",
        /// Sent only from pages of this site.
        Strict = "strict",
        /// Always sent.
        None = "none",
    }
}

/// A token (RFC 9110 §5.6.2): the name of a header or of a cookie.
pub(crate) fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// The name of a parameter of a query, as it stands in one.
fn is_parameter(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#".contains(&byte))
}

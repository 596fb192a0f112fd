//! A set of backends, and how one of them is chosen.

use std::path::PathBuf;
use std::time::Duration;

use lb_core::identity::PoolId;
use lb_core::words;

use super::{Backend, Discovery, Health, Limits, Outlier, Protocol, Retry};

/// A pool: `[pools.NAME]`, or the backends that stand inside a listener, with all else at its default.
#[derive(Clone, PartialEq, Debug)]
pub struct BackendPool {
    /// What identifies the pool in a configuration, also after a reload.
    pub id: PoolId,
    /// Where traffic goes, in the order of the file. Empty only with `discovery`, or inside a listener that is not started.
    pub backends: Vec<Backend>,
    /// How one is chosen.
    pub balance: Balance,
    /// The cookie that keeps a client at its backend. Only where every listener of the pool reads HTTP.
    pub sticky: Option<Sticky>,
    /// Probes. None = a backend is taken to be well until requests say otherwise.
    pub health: Option<Health>,
    /// What requests say about a backend. None = nothing is concluded from failures.
    pub outlier: Option<Outlier>,
    /// What one backend may be given at once.
    pub limits: Limits,
    /// Further tries. None = those of an empty block, as often as the listener's settings allow.
    pub retry: Option<Retry>,
    /// How long a backend that cannot be reached is left alone at first. None = it never is.
    pub rest: Option<Duration>,
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
            self.balance.hash_key.needs_http().then_some("hash_key")
        }
    }
}

/// How a backend is chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Balance {
    /// The rule.
    pub policy: Policy,
    /// What the hashing policies hash.
    pub hash_key: HashKey,
    /// How far above the mean the load of a backend may be under a hashing policy, in percent of the mean; above 100. None = any.
    pub hash_balance_factor_percent: Option<u32>,
    /// Entries of Maglev's table. A prime number.
    pub maglev_table_size: u32,
    /// Points on the ring for each unit of weight.
    pub ring_points_per_weight: u32,
    /// When less than this share of the pool is well, all of it is used. 1 = when no backend is well, 0 = never.
    pub panic_threshold_percent: u32,
    /// How long a backend that has come back takes to reach its share. 0 = it has its share at once.
    pub slow_start: Duration,
    /// How long a measured latency counts.
    pub ewma_decay: Duration,
}

words! {
    /// The rule by which a backend is chosen.
    Policy {
        /// In turn.
        RoundRobin = "round_robin",
        /// By chance.
        Random = "random",
        /// The one with the fewest connections.
        LeastConnections = "least_connections",
        /// The one with the fewest requests.
        LeastRequest = "least_request",
        /// The less busy of two that chance names.
        P2c = "p2c",
        /// The better of two that chance names, by latency, failures and requests under way.
        P2cEwma = "p2c_ewma",
        /// By a hash, through a table.
        Maglev = "maglev",
        /// By a hash, through a ring.
        RingHash = "ring_hash",
        /// By a hash of key and backend.
        Rendezvous = "rendezvous",
    }
}

impl Policy {
    /// Whether it sends equal keys to the same backend.
    pub(crate) fn follows_key(self) -> bool {
        matches!(self, Self::Maglev | Self::RingHash | Self::Rendezvous)
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

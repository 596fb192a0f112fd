//! The small blocks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lb_core::access_log::AccessLogFormat;

/// `[pool]`: idle connections to backends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdlePool {
    /// Idle connections that a worker keeps for one backend.
    pub per_peer_max: usize,
    /// Idle connections that a worker keeps in all.
    pub total_max: usize,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
    /// How old a connection may be when it is used again.
    pub max_age: Duration,
    /// How long a surplus idle connection waits before it is closed.
    pub linger: Duration,
}

/// `[dns]`: name resolution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    /// The servers to ask. Empty = the system's.
    pub servers: Vec<SocketAddr>,
    /// A shorter TTL is raised to this.
    pub min_ttl: Duration,
    /// A longer TTL is lowered to this.
    pub max_ttl: Duration,
    /// How long a failure is remembered.
    pub negative_ttl: Duration,
    /// How long one look-up may take.
    pub timeout: Duration,
}

/// `[observability]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observability {
    /// Where the admin port listens.
    pub metrics_bind: MetricsBind,
    /// Where access log lines go. None = nowhere.
    pub access_log: Option<AccessLogPlace>,
    /// How they are written.
    pub access_log_format: AccessLogFormat,
    /// Where logs of single QUIC connections go. None = nowhere.
    pub qlog_dir: Option<PathBuf>,
    /// One of so many QUIC connections is logged.
    pub qlog_one_in: u64,
    /// How many backends have series of their own.
    pub max_exported_backends: usize,
}

/// Where the admin port listens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MetricsBind {
    /// At [`Self::DEFAULT`] if that is free.
    Default,
    /// Here, or the gateway does not start.
    At(SocketAddr),
    /// There is no admin port.
    Off,
}

impl MetricsBind {
    /// The default address, where the file has none.
    pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
}

impl fmt::Debug for MetricsBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("unset"),
            Self::At(address) => write!(f, "{address}"),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Where access log lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessLogPlace {
    /// To standard output.
    Stdout,
    /// To a file, which is appended to.
    File(PathBuf),
}

/// `[admin]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminAccess {
    /// The SHA-256 of the bearer token.
    pub api_token_hash: Option<[u8; 32]>,
    /// Whether the admin port may listen on an address that others can reach.
    pub allow_non_loopback: bool,
    /// Whether it shows the status page, and lets clients on this machine look at the status without a token.
    pub page: bool,
}

/// `[security]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Security {
    /// Whether `Transfer-Encoding` may be anything but exactly `chunked`.
    pub strict_te: bool,
    /// Whether the group of a key's file may read it.
    pub group_readable_keys: bool,
}

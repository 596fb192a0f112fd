//! How a pool learns that a backend fails, and what it does about it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lb_core::words;

use super::BackendProtocol;

/// `[pools.NAME.health]`: probes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// What a probe does.
    pub probe: Probe,
    /// From one probe of a backend to its next.
    pub interval: Duration,
    /// How long a probe may take, all in all; at most `interval`.
    pub timeout: Duration,
    /// Successes in a row after which a backend is well; at least 1.
    pub rise: u32,
    /// Failures in a row after which it is not; at least 1.
    pub fall: u32,
    /// By how much of itself `interval` varies, in percent.
    pub jitter_percent: u32,
    /// The port that is probed. None = that of the backend.
    pub port: Option<u16>,
}

/// What a probe asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// Whether a connection comes about.
    Tcp,
    /// A request.
    Http(HttpProbe),
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service that the probe asks about. Empty = the server as a whole.
        service: String,
        /// `:authority`. None = the backend's address.
        host: Option<String>,
    },
    /// Whether a server answers there with the versions of QUIC that it speaks.
    Quic,
}

/// The request of a probe, and what its response must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpProbe {
    /// The method.
    pub method: ProbeMethod,
    /// The target: path and query.
    pub path: String,
    /// `Host`. None = the backend's address.
    pub host: Option<String>,
    /// The response's status is in one of these; never empty.
    pub expected_statuses: Vec<RangeInclusive<u16>>,
    /// What the first `max_body_bytes` of its body contain.
    pub body_contains: Option<String>,
    /// How much of the body is read (attack C-04).
    pub max_body_bytes: usize,
}

words! {
    /// The word for a [`Probe`].
    ProbeKind {
        /// A connection.
        Tcp = "tcp",
        /// A request.
        Http = "http",
        /// gRPC's own protocol for health checks.
        Grpc = "grpc",
        /// A QUIC handshake.
        Quic = "quic",
    }
}

words! {
    /// The method of a probe: one that changes nothing.
    ProbeMethod {
        /// `GET`.
        Get = "GET",
        /// `HEAD`.
        Head = "HEAD",
        /// `OPTIONS`.
        Options = "OPTIONS",
    }
}

/// `[pools.NAME.outlier]`: what requests say about a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outlier {
    /// Responses 5xx in a row after which a backend is ejected. None = any number.
    pub consecutive_5xx: Option<u32>,
    /// Failed connects, timeouts and resets in a row after which it is. None = any number.
    pub consecutive_gateway_failures: Option<u32>,
    /// The share of failed requests in an interval above which it is, in percent. None = any.
    pub error_rate_percent: Option<u32>,
    /// Fewer requests than this in an interval say nothing about rate and latency.
    pub min_requests: u32,
    /// How often rate and latency are looked at.
    pub interval: Duration,
    /// The mean latency above which it is, in percent of the pool's median; above 100. None = any.
    pub latency_factor_percent: Option<u32>,
    /// How long the first ejection lasts.
    pub base_ejection: Duration,
    /// How long one lasts at most; at least `base_ejection`.
    pub max_ejection: Duration,
    /// How much of the pool may be ejected at once, in percent.
    pub max_ejection_percent: u32,
    /// How long a backend that has come back is on probation. 0 = not at all.
    pub probation: Duration,
}

/// `[pools.NAME.limits]`: what one backend may be given at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections. None = any number.
    pub max_connections: Option<u32>,
    /// Requests. None = any number.
    pub max_requests: Option<u32>,
    /// How many may wait for room. 0 = none, and what finds no room is refused.
    pub max_pending: u32,
    /// How long one waits at most.
    pub pending_timeout: Duration,
}

/// `[pools.NAME.retry]`: further tries of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retry {
    /// How many further tries a request has.
    pub attempts: u32,
    /// What is tried again, each once, in the order of [`RetryOn::WORDS`]; never empty.
    pub on: Vec<RetryOn>,
    /// How long one try may take to its response head. None = as long as the request.
    pub per_try_timeout: Option<Duration>,
    /// Further tries that may run at once, in percent of the requests that do.
    pub budget_percent: u32,
    /// Further tries that may always run at once.
    pub budget_min: u32,
    /// After this percentile of the latencies a second try starts beside the first; 50 to 99. None = never.
    pub hedge_percentile: Option<u32>,
    /// But never earlier than this.
    pub hedge_min_delay: Duration,
}

words! {
    /// What is tried again.
    RetryOn {
        /// A connect that failed.
        Connect = "connect",
        /// A stream that the backend refused unseen.
        Refused = "refused",
        /// A connection or stream that ended before its response.
        Reset = "reset",
        /// A try that took too long.
        Timeout = "timeout",
        /// Status 502.
        Status502 = "502",
        /// Status 503.
        Status503 = "503",
        /// Status 504.
        Status504 = "504",
    }
}

impl RetryOn {
    /// The status that it stands for.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Status502 => Some(502),
            Self::Status503 => Some(503),
            Self::Status504 => Some(504),
            Self::Connect | Self::Refused | Self::Reset | Self::Timeout => None,
        }
    }
}

/// `[pools.NAME.discovery]`: where further backends come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovery {
    /// Which source.
    pub source: DiscoverySource,
    /// The least time between two looks at it.
    pub refresh: Duration,
}

/// A source of backends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiscoverySource {
    /// SRV records (RFC 2782), which say address, port, priority and weight.
    Srv {
        /// The name that is resolved, in lower case.
        name: String,
        /// What the backends speak; not h3.
        protocol: BackendProtocol,
        /// Whether it may lead to addresses of this machine alone (attack C-03).
        allow_loopback: bool,
    },
    /// A file with a list of backends, TOML or JSON.
    File(PathBuf),
}

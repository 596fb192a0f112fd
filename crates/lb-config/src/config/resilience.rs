//! How a pool learns that a backend fails, and what it does about it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lb_core::words;

use super::BackendProtocol;

/// What a probe of `[pools.NAME.health]` asks, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// What a probe does.
    pub probe: Probe,
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
    /// A datagram.
    Udp(UdpProbe),
}

/// The datagram of a probe, and what its answer must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpProbe {
    /// What is sent.
    pub send: Vec<u8>,
    /// What an answer begins with. Empty = any answer is one.
    pub expect: Vec<u8>,
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
        /// A datagram.
        Udp = "udp",
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
        /// Status 500.
        Status500 = "500",
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
    pub(crate) fn status(self) -> Option<u16> {
        match self {
            Self::Status500 => Some(500),
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

//! Why a flow does not begin, and what the log says of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_core::flows::TableFull;
use lb_core::log_limit::LogLimit;
use lb_observe::metrics::DatagramDrop;
use lb_security::admission::{Cap, Network};

/// Why a flow does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The listener has as many as it may have.
    MaxFlows,
    /// The client's address has.
    PerSource,
    /// A cap on connections leaves no room. It has been told of already.
    Admission(Cap),
    /// The listener drains.
    Draining,
    /// No backend can be used.
    NoBackend,
    /// None has room.
    BackendFull,
    /// No socket to the backend can be had.
    NoSocket,
}

/// Lines of one kind that are written at once, and how often another one is.
const BURST: u32 = 3;
const INTERVAL: Duration = Duration::from_secs(10);

static MAX_FLOWS: LogLimit = LogLimit::new(BURST, INTERVAL);
static PER_SOURCE: LogLimit = LogLimit::new(BURST, INTERVAL);
static NO_BACKEND: LogLimit = LogLimit::new(BURST, INTERVAL);
static BACKEND_FULL: LogLimit = LogLimit::new(BURST, INTERVAL);
static NO_SOCKET: LogLimit = LogLimit::new(BURST, INTERVAL);

impl Refusal {
    /// The label under which the datagram is counted.
    pub(super) fn drop(self) -> DatagramDrop {
        match self {
            Self::MaxFlows => DatagramDrop::MaxFlows,
            Self::PerSource => DatagramDrop::PerSource,
            Self::Admission(_) => DatagramDrop::Admission,
            Self::Draining => DatagramDrop::Draining,
            Self::NoBackend => DatagramDrop::NoBackend,
            Self::BackendFull => DatagramDrop::BackendFull,
            Self::NoSocket => DatagramDrop::NoSocket,
        }
    }

    /// Says in the log that a flow of `client` was refused, unless enough was said lately.
    pub(super) fn tell(self, listener: &str, client: SocketAddr, now: Instant) {
        let (limit, key) = match self {
            Self::MaxFlows => (&MAX_FLOWS, "listeners.udp.max_flows"),
            Self::PerSource => (&PER_SOURCE, "listeners.udp.max_flows_per_source"),
            Self::BackendFull => (&BACKEND_FULL, "limits.max_connections"),
            Self::NoBackend => (&NO_BACKEND, ""),
            Self::NoSocket => (&NO_SOCKET, ""),
            Self::Admission(_) | Self::Draining => return,
        };
        let Some(unsaid) = limit.admit(now) else { return };
        let network = Network::of(client.into());
        if key.is_empty() {
            let reason = if self == Self::NoBackend { "no_backend" } else { "no_socket" };
            tracing::warn!(listener, %network, reason, unsaid, "refused a flow of datagrams — no backend can be reached");
        } else {
            tracing::warn!(listener, %network, key, unsaid, "refused a flow of datagrams — cap reached");
        }
    }
}

impl From<TableFull> for Refusal {
    fn from(_: TableFull) -> Self {
        Self::MaxFlows
    }
}

//! The settings of traces.

use std::fmt;
use std::time::Duration;

use lb_core::trace::Sampler;

lb_core::words! {
    /// A form of OTLP.
    TraceProtocol {
        /// Protocol buffers over HTTP/1.1.
        Http = "http",
        /// gRPC.
        Grpc = "grpc",
    }
}

/// `[tracing]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracing {
    /// Where spans go. None = nowhere.
    pub collector: Option<Collector>,
    /// Which requests are recorded.
    pub sampler: Sampler,
}

/// Where spans go, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Collector {
    /// The URL, as the file has it.
    pub endpoint: String,
    /// The form of OTLP.
    pub protocol: TraceProtocol,
    /// Names and values of fields that each request has.
    pub headers: Vec<(String, String)>,
    /// What the gateway is called.
    pub service_name: String,
    /// So many requests wait at most.
    pub queue: usize,
    /// Time for one batch.
    pub timeout: Duration,
}

impl fmt::Debug for Collector {
    /// The values of fields may be secrets, and are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

//! Requests whose spans are recorded, on their way from the workers to the thread that sends them to a collector.
//!
//! A worker hands over what it knows of a request when that is over, through a channel of bounded length, and never waits: what does not fit is
//! dropped and counted. Spans in the sense of OpenTelemetry are made of it elsewhere.

use std::sync::Arc;
use std::time::Instant;

use lb_core::address::ClientAddress;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::metrics::Metrics;

/// The longest text of a peer that a record holds, in bytes.
const MOST_BYTES: usize = 1024;

/// Tries that a record has spans of; later ones are counted alone.
pub const MOST_TRIES: usize = 32;

/// A request that is over, and its tries.
#[derive(Clone, Debug)]
pub struct TracedRequest {
    /// The trace.
    pub trace: u128,
    /// The span of the request itself.
    pub span: u64,
    /// The span of the client, where the client has named one.
    pub parent: Option<u64>,
    /// When the first byte of the request came, and when the last of its response left.
    pub time: (Instant, Instant),
    /// The listener's name.
    pub listener: String,
    /// The method.
    pub method: String,
    /// The path without the query, which may hold secrets.
    pub path: String,
    /// The host that was asked for.
    pub host: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The version of HTTP: `1.0`, `1.1`, `2` or `3`.
    pub version: &'static str,
    /// The client's address.
    pub client: ClientAddress,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// How a gRPC call ended, by number.
    pub grpc_status: Option<u8>,
    /// Why the gateway stepped in; empty where it did not.
    pub reason: &'static str,
    /// The name of the route; empty where none took the request or it has no name.
    pub route: String,
    /// The name of the pool.
    pub pool: String,
    /// The ID of the request, if it has one.
    pub request_id: Option<String>,
    /// How often the request was sent once more.
    pub retries: u32,
    /// Bytes of the request, and of the response.
    pub bytes: (u64, u64),
    /// The tries, in the order in which they ended.
    pub tries: Vec<TracedTry>,
}

/// One try of a request at a member of the pool.
#[derive(Clone, Debug)]
pub struct TracedTry {
    /// Its span, which the backend is told as its parent.
    pub span: u64,
    /// When it began, and when it ended.
    pub time: (Instant, Instant),
    /// Until when it waited for room at the member, where it had to.
    pub queued_until: Option<Instant>,
    /// When a connection began to be made, and when it stood or had failed.
    pub connect: Option<(Instant, Instant)>,
    /// The backend, as the configuration names it; empty where it found none.
    pub backend: String,
    /// The status that the backend answered with.
    pub status: Option<u16>,
    /// How the try failed; empty where it did not.
    pub reason: &'static str,
    /// It ran beside another one.
    pub is_hedge: bool,
}

impl TracedRequest {
    /// How many spans the request has.
    pub fn spans(&self) -> u64 {
        let of = |one: &TracedTry| {
            1u64.saturating_add(one.queued_until.is_some().into())
                .saturating_add(one.connect.is_some().into())
        };
        self.tries.iter().map(of).fold(1, u64::saturating_add)
    }
}

/// What a peer has sent, as text of bounded length.
pub fn text(bytes: &[u8]) -> String {
    let bytes = bytes.get(..MOST_BYTES).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes a channel that holds `most` requests.
pub fn channel(most: usize, metrics: Arc<Metrics>) -> (TraceHandle, Receiver<TracedRequest>) {
    let (sender, receiver) = mpsc::channel(most.max(1));
    (TraceHandle { sender, metrics }, receiver)
}

/// A worker's end of the channel.
#[derive(Clone, Debug)]
pub struct TraceHandle {
    sender: Sender<TracedRequest>,
    metrics: Arc<Metrics>,
}

impl TraceHandle {
    /// Hands a request over. Never blocks: its spans are dropped and counted where too many wait.
    pub fn record(&self, request: TracedRequest) {
        if let Err(refused) = self.sender.try_send(request) {
            self.metrics.trace_spans_dropped.add(refused.into_inner().spans());
        }
    }
}

//! What one worker counts: for the process, for a listener, for a route.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lb_core::retry::RetryClass;

use super::families;
use super::label::{By, Label};
use super::labels::{
    AcceptErrorKind, AcceptReject, DatagramDrop, DatagramPath, FlowEnd, GrpcStatus, Http2Error, HttpVersion,
    MirrorResult, PassthroughDrop, ProxyHeaderResult, StatusClass, TlsFault, TlsResult, TunnelEnd,
};
use super::quic::{QuicMetrics, RelayShard};
use super::reasons::{ByReason, DryRuns, FilterAnswers, Http2Abuse, Rejections, UpstreamRejections};
use super::routes::NamedRoutes;
use super::values::{Counter, Gauge, Histogram, PerWorker, SharedCounter, SharedGauge};

/// What one worker counts for the whole process. Only that worker may write to it.
// Aligned like a shard of `PerWorker`, since each stands in an allocation of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// `connections_total`: client connections accepted and kept.
    pub connections: Counter,
    /// `bytes_client_to_backend`: bytes written to backends.
    pub bytes_client_to_backend: Counter,
    /// `bytes_backend_to_client`: bytes written to clients.
    pub bytes_backend_to_client: Counter,
    /// `tcp_splice_bytes_total`: the part of both directions that never entered user space.
    pub tcp_splice_bytes: Counter,
    /// `accept_errors_total`.
    pub accept_errors: By<AcceptErrorKind, Counter>,
    /// `accept_reject_total`.
    pub accept_rejects: By<AcceptReject, Counter>,
    /// `backend_connect_timeout_total`.
    pub backend_connect_timeouts: Counter,
    /// `pool_acquires_total`: requests for a backend connection, reused or new.
    pub pool_acquires: Counter,
    /// `pool_reuses_total`: the acquires that an idle connection served.
    pub pool_reuses: Counter,
    /// `pool_probe_failures_total`: idle connections found dead before reuse.
    pub pool_probe_failures: Counter,
    /// `pool_idle_gauge`: idle backend connections of this worker now.
    pub pool_idle: Gauge,
    /// `backend_tls_handshakes_total`.
    pub backend_tls_handshakes: By<TlsResult, Counter>,
    /// `tls_faults_total`.
    pub tls_faults: By<TlsFault, Counter>,
    /// `http_retries_total`.
    pub http_retries: By<RetryClass, Counter>,
    /// `mirrors_total`.
    pub mirrors: By<MirrorResult, Counter>,
    /// `request_rejected_total`.
    pub request_rejected: ByReason<Rejections>,
    /// `http2_abuse_total`.
    pub http2_abuse: ByReason<Http2Abuse>,
    /// `http2_connection_errors_total`.
    pub http2_errors: By<Http2Error, Counter>,
    /// `upstream_rejected_total`.
    pub upstream_rejected: ByReason<UpstreamRejections>,
    /// What is counted of QUIC connections that end here.
    pub quic: QuicMetrics,
    /// What is counted of QUIC that is forwarded without keys.
    pub passthrough: PassthroughMetrics,
}

/// What one worker counts of QUIC that is forwarded without keys.
#[derive(Debug, Default)]
pub struct PassthroughMetrics {
    /// `quic_passthrough_flows`: flows that are tracked now.
    pub flows: Gauge,
    /// `quic_passthrough_connections_total`: connections that were begun.
    pub connections: Counter,
    /// `quic_passthrough_flows_evicted_total`: flows that went to make room for others.
    pub flows_evicted: Counter,
    /// `quic_passthrough_migrations_total`: flows that a known connection ID has made, at a new address of its client.
    pub migrations: Counter,
    /// `quic_passthrough_retry_minted_total`.
    pub retry_minted: Counter,
    /// `quic_passthrough_retry_rejected_total`: tokens that were not accepted where the gateway sends Retry.
    pub retry_rejected: Counter,
    /// `quic_passthrough_header_parse_errors_total`: datagrams that are no QUIC.
    pub header_parse_errors: Counter,
    /// `quic_passthrough_backend_socket_errors_total`: datagrams that could not be sent to a backend.
    pub backend_socket_errors: Counter,
    /// `quic_passthrough_dropped_total`.
    pub dropped: By<PassthroughDrop, Counter>,
}

/// One listener's families. It outlives reloads, so that its counts never go back.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// `lb_drain_timeout_ms_listener`: how long its connections may take to finish in a drain, milliseconds.
    pub drain_timeout_ms: SharedGauge,
    /// `ticket_key_rotations_total`.
    pub ticket_key_rotations: SharedCounter,
    certificates: Mutex<Option<Certificates>>,
    served: AtomicU8,
    grpc: AtomicBool,
    udp: AtomicBool,
    proxied: AtomicBool,
    /// Routes with names.
    pub routes: NamedRoutes,
    quic_relay: AtomicBool,
    shards: PerWorker<ListenerShard>,
}

impl ListenerMetrics {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            drain_timeout_ms: SharedGauge::default(),
            ticket_key_rotations: SharedCounter::default(),
            certificates: Mutex::default(),
            served: AtomicU8::new(0),
            grpc: AtomicBool::new(false),
            udp: AtomicBool::new(false),
            proxied: AtomicBool::new(false),
            routes: NamedRoutes::new(workers),
            quic_relay: AtomicBool::new(false),
            shards: PerWorker::new(workers),
        }
    }

    /// Sets the HTTP versions that this listener serves, so that their series exist at zero. A listener that serves none, such as a TCP
    /// one, has no request families.
    pub fn serves(&self, versions: &[HttpVersion]) {
        for version in versions {
            self.served.fetch_or(1 << *version as u8, Relaxed);
        }
    }

    /// Marks this listener as one that serves gRPC, so that its series exist at zero.
    pub fn set_grpc(&self) {
        self.grpc.store(true, Relaxed);
    }

    /// Marks this listener as one that forwards datagrams, so that its series exist at zero.
    pub fn set_udp(&self) {
        self.udp.store(true, Relaxed);
    }

    /// Marks this listener as one whose connections may begin with a header of the PROXY protocol, so that its series exist at zero.
    pub fn set_proxied(&self) {
        self.proxied.store(true, Relaxed);
    }

    pub(super) fn is_proxied(&self) -> bool {
        self.proxied.load(Relaxed)
    }

    /// Marks this listener as one that relays QUIC without reading it, so that its series exist at zero.
    pub fn set_quic_relay(&self) {
        self.quic_relay.store(true, Relaxed);
    }

    pub(super) fn relays_quic(&self) -> bool {
        self.quic_relay.load(Relaxed)
    }

    pub(super) fn serves_udp(&self) -> bool {
        self.udp.load(Relaxed)
    }

    pub(super) fn serves_grpc(&self) -> bool {
        self.grpc.load(Relaxed)
    }

    /// Sets the certificates that are in force. With the first call the listener's TLS families begin to exist.
    pub fn set_certificates(&self, certificates: Certificates) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificates);
    }

    /// Says that clients of the listener speak TLS no more.
    pub fn clear_certificates(&self) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn certificates(&self) -> Option<Certificates> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the worker with this index counts.
    pub fn worker(&self, worker: usize) -> &ListenerShard {
        self.shards.of(worker)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &ListenerShard> {
        self.shards.iter()
    }

    pub(super) fn is_served(&self, version: HttpVersion) -> bool {
        self.served.load(Relaxed) & (1 << version as u8) != 0
    }

    pub(super) fn serves_http(&self) -> bool {
        self.served.load(Relaxed) != 0
    }
}

/// The certificates in force on a listener.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Unix time at which they were read.
    pub loaded_at: i64,
    /// Unix time at which each runs out, by the path of its file.
    pub expiries: BTreeMap<String, i64>,
}

/// What one worker counts for a listener.
#[derive(Debug, Default)]
pub struct ListenerShard {
    /// `connections_inflight`: client connections open now.
    pub connections_inflight: Gauge,
    /// `accept_inflight`: connections that hold one of the listener's places now.
    pub accept_inflight: Gauge,
    /// `accept_shed_total`: connections closed because the listener had no place left.
    pub accept_shed: Counter,
    /// `proxy_headers_total`.
    pub proxy_headers: By<ProxyHeaderResult, Counter>,
    /// `tls_handshakes_total`.
    pub tls_handshakes: By<TlsResult, Counter>,
    /// `tls_handshakes_inflight`.
    pub tls_handshakes_inflight: Gauge,
    /// `grpc_calls_total`.
    pub grpc_calls: By<GrpcStatus, Counter>,
    /// `websocket_tunnels`: tunnels open now.
    pub websocket_tunnels: Gauge,
    /// `websocket_tunnels_ended_total`.
    pub websocket_tunnels_ended: By<TunnelEnd, Counter>,
    /// `filter_answers_total`.
    pub filter_answers: ByReason<FilterAnswers>,
    /// `filter_dry_run_total`.
    pub filter_dry_runs: ByReason<DryRuns>,
    /// `udp_flows_total`.
    pub udp_flows: Counter,
    /// `udp_flows_ended_total`.
    pub udp_flows_ended: By<FlowEnd, Counter>,
    /// `udp_flows_moved_total`.
    pub udp_flows_moved: Counter,
    /// `udp_datagrams_total`.
    pub udp_datagrams: By<DatagramPath, Counter>,
    /// `udp_datagrams_dropped_total`.
    pub udp_datagrams_dropped: By<DatagramDrop, Counter>,
    /// `udp_backend_sockets`: sockets towards backends that are open now.
    pub udp_uplinks: Gauge,
    /// What is counted of QUIC that is relayed without being read.
    pub quic_relay: RelayShard,
    /// Requests that no named route took: the series with `route=""`.
    pub unrouted: RouteShard,
}

/// What one worker counts for the requests of a route on one listener.
#[derive(Debug, Default)]
pub struct RouteShard {
    versions: By<HttpVersion, RequestShard>,
}

impl RouteShard {
    /// Counts a finished request in `http_requests_total` and `http_request_duration_seconds`. `duration` runs
    /// from the first byte of the request head to the last byte of the response, or to the abort.
    pub fn record(&self, version: HttpVersion, class: StatusClass, duration: Duration) {
        self.versions.of(version).record(class, duration);
    }

    pub(super) fn version(&self, version: HttpVersion) -> &RequestShard {
        self.versions.of(version)
    }
}

/// Requests by status class, and how long they took.
#[derive(Debug)]
pub(super) struct RequestShard {
    pub(super) requests: By<StatusClass, Counter>,
    pub(super) duration: Histogram,
}

impl RequestShard {
    pub(super) fn record(&self, class: StatusClass, duration: Duration) {
        self.requests.of(class).inc();
        self.duration.observe(duration);
    }

    pub(super) fn is_used(&self) -> bool {
        StatusClass::ALL.iter().any(|class| self.requests.of(*class).value() > 0)
    }
}

impl Default for RequestShard {
    fn default() -> Self {
        Self { requests: By::default(), duration: Histogram::new(families::REQUEST_SECONDS) }
    }
}

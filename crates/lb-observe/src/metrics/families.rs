//! Every metric family, declared once: the exposition and METRICS.md are both made from this table.

use lb_core::breaker::Full;
use lb_core::health::ProbeOutcome;
use lb_core::outlier::EjectionCause;
use lb_core::retry::RetryClass;

use super::label::Label;
use super::labels::{
    AcceptErrorKind, AcceptReject, CertFailure, DatagramDrop, DatagramPath, DrainOutcome, DrainPhase,
    FlowEnd, GrpcStatus, Http2Error, HttpVersion, MirrorResult, PassthroughDrop, ProxyHeaderResult,
    RelayDrop, RelayEnd, StatusClass, TlsFault, TlsResult, TunnelEnd,
};
use super::quic::{EarlyRequest, Http3Error, QuicPackets, QuicStray};
use super::reasons::{DryRuns, FilterAnswers, Http2Abuse, ReasonSet, Rejections, UpstreamRejections};

/// A metric family, as a scrape and METRICS.md describe it.
#[derive(Debug)]
pub struct Family {
    /// The heading under which METRICS.md lists it.
    pub subject: &'static str,
    /// The name in the exposition.
    pub name: &'static str,
    /// What sort of value its series have.
    pub kind: FamilyKind,
    /// Its labels, in order.
    pub labels: &'static [LabelNames],
    /// What is counted or measured.
    pub unit: &'static str,
    /// One sentence or two.
    pub help: &'static str,
}

/// What sort of value a series has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by bucket: inclusive upper bounds in nanoseconds, ascending.
    Histogram(&'static [u64]),
}

/// A label of a family.
#[derive(Debug)]
pub struct LabelNames {
    /// The label's name.
    pub name: &'static str,
    /// The values that it can have, or nothing where they come from the configuration.
    pub values: &'static [&'static str],
}

const fn fixed<L: Label>(name: &'static str) -> LabelNames {
    LabelNames { name, values: L::NAMES }
}

const fn reasons<S: ReasonSet>(name: &'static str) -> LabelNames {
    LabelNames { name, values: S::NAMES }
}

const fn configured(name: &'static str) -> LabelNames {
    LabelNames { name, values: &[] }
}

const LISTENER: LabelNames = configured("listener");
const BACKEND: LabelNames = configured("backend");
const POOL: LabelNames = configured("pool");
const POLICY: LabelNames = configured("policy");
const ROUTE: LabelNames = configured("route");
const FIELD: LabelNames = configured("field");

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

/// Buckets of request durations, nanoseconds.
pub(super) const REQUEST_SECONDS: &[u64] = &[
    MILLISECOND / 10,
    MILLISECOND / 2,
    MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
];

/// Buckets of drain phases, nanoseconds.
pub(super) const DRAIN_SECONDS: &[u64] = &[
    100 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2_500 * MILLISECOND,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    120 * SECOND,
    300 * SECOND,
];

macro_rules! families {
    ($($subject:literal { $($family:ident: $kind:expr, $name:literal, [$($label:expr),*], $unit:literal, $help:literal;)+ })+) => {
        $($(pub(super) static $family: Family = Family {
            subject: $subject,
            name: $name,
            kind: $kind,
            labels: &[$($label),*],
            unit: $unit,
            help: $help,
        };)+)+

        /// Every family, in the order in which a scrape and METRICS.md list them.
        pub static FAMILIES: &[&Family] = &[$($(&$family),+),+];
    };
}

families! {
    "Connections and bytes" {
        CONNECTIONS: FamilyKind::Counter, "connections_total", [], "connections",
            "Client connections accepted and kept.";
        CONNECTIONS_INFLIGHT: FamilyKind::Gauge, "connections_inflight", [LISTENER], "connections",
            "Client connections open now.";
        BYTES_CLIENT_TO_BACKEND: FamilyKind::Counter, "bytes_client_to_backend", [], "bytes",
            "Bytes written to backends, counted while connections live.";
        BYTES_BACKEND_TO_CLIENT: FamilyKind::Counter, "bytes_backend_to_client", [], "bytes",
            "Bytes written to clients, counted while connections live.";
        TCP_SPLICE_BYTES: FamilyKind::Counter, "tcp_splice_bytes_total", [], "bytes",
            "Bytes of TCP relays, both directions, that the kernel moved without a copy to user space.";
    }
    "Accepting" {
        ACCEPT_INFLIGHT: FamilyKind::Gauge, "accept_inflight", [LISTENER], "connections",
            "Connections that hold one of the listener's places (`max_inflight_connections`) now.";
        ACCEPT_SHED: FamilyKind::Counter, "accept_shed_total", [LISTENER], "connections",
            "Connections closed at once because the listener had no place left.";
        ACCEPT_ERRORS: FamilyKind::Counter, "accept_errors_total", [fixed::<AcceptErrorKind>("kind")], "errors",
            "Failed accepts. The listener backs off and goes on.";
        ACCEPT_REJECTS: FamilyKind::Counter, "accept_reject_total", [fixed::<AcceptReject>("reason")], "connections",
            "Connections closed at once by a rule other than the listener's own cap.";
        PROXY_HEADERS: FamilyKind::Counter, "proxy_headers_total", [LISTENER, fixed::<ProxyHeaderResult>("result")], "connections",
            "Connections to listeners with `[listeners.proxy_protocol]`, by what became of the header at their beginning.";
    }
    "Datagrams" {
        UDP_FLOWS: FamilyKind::Counter, "udp_flows_total", [LISTENER], "flows",
            "Flows of datagrams that have begun. Those that live now are in `connections_inflight`.";
        UDP_FLOWS_ENDED: FamilyKind::Counter, "udp_flows_ended_total", [LISTENER, fixed::<FlowEnd>("reason")], "flows",
            "Flows of datagrams that have ended, by why.";
        UDP_FLOWS_MOVED: FamilyKind::Counter, "udp_flows_moved_total", [LISTENER], "flows",
            "Flows that went on at another backend because theirs was not used any more.";
        UDP_DATAGRAMS: FamilyKind::Counter, "udp_datagrams_total", [LISTENER, fixed::<DatagramPath>("path")], "datagrams",
            "Datagrams that were forwarded.";
        UDP_DATAGRAMS_DROPPED: FamilyKind::Counter, "udp_datagrams_dropped_total", [LISTENER, fixed::<DatagramDrop>("reason")],
            "datagrams", "Datagrams that were not forwarded, by why.";
        UDP_UPLINKS: FamilyKind::Gauge, "udp_backend_sockets", [LISTENER], "sockets",
            "Sockets towards backends that are open now. Flows to different backends share them.";
    }
    "QUIC and HTTP/3" {
        QUIC_STRAY: FamilyKind::Counter, "quic_stray_datagrams_total", [fixed::<QuicStray>("fate")], "datagrams",
            "Datagrams that belong to no connection of the worker which received them and opened none, by what became of them.";
        QUIC_PACKETS: FamilyKind::Counter, "quic_packets_total", [fixed::<QuicPackets>("what")], "packets",
            "Packets of client connections that have ended.";
        QUIC_BUFFERED: FamilyKind::Gauge, "quic_buffered_bytes", [], "bytes",
            "What QUIC holds for its peers, of clients and of backends, as it counts against `runtime.quic_buffer_bytes`.";
        QUIC_UNBUFFERED: FamilyKind::Counter, "quic_unbuffered_datagrams_total", [], "datagrams",
            "Datagrams of clients that were dropped because `runtime.quic_buffer_bytes` was used up and their connection had more than its part of it.";
        QUIC_MOVES: FamilyKind::Counter, "quic_client_moves_total", [], "moves",
            "How often clients with a connection came to be at another address or port.";
        H3_EARLY_REQUESTS: FamilyKind::Counter, "h3_early_requests_total", [fixed::<EarlyRequest>("handling")], "requests",
            "Requests that came before the end of the handshake (`early_data`), by what became of them.";
        H3_GOAWAYS: FamilyKind::Counter, "h3_goaway_sent_total", [], "frames",
            "GOAWAY frames sent to clients.";
        H3_RECYCLED: FamilyKind::Counter, "h3_connections_recycled_total", [], "connections",
            "Client connections that came to their end because they had carried `max_requests_per_h3_connection`.";
        H3_ERRORS: FamilyKind::Counter, "h3_connection_errors_total", [fixed::<Http3Error>("code")], "connections",
            "Client connections that were ended because the client broke HTTP/3, by the code of the CONNECTION_CLOSE.";
    }
    "XDP" {
        XDP_PACKETS: FamilyKind::Counter, "xdp_packets_total", [configured("action")], "packets",
            "Packets that the programs in the kernel have looked at, by what became of them, and what else they count: `to_backend`, `to_client` and the names of `expressgateway xdp status`. \
             Families of XDP are read once a second, and have series only where it is in use.";
        XDP_BYTES: FamilyKind::Counter, "xdp_bytes_total", [configured("direction")], "bytes",
            "Bytes that were forwarded, from the IP header on: `to_backend`, and in mode `nat` `to_client`.";
        XDP_BACKEND_FLOWS: FamilyKind::Counter, "xdp_backend_flows_total", [configured("service"), BACKEND], "flows",
            "Flows that were begun at a backend of a service.";
        XDP_BACKEND_FLOWS_CURRENT: FamilyKind::Gauge, "xdp_backend_flows_current", [configured("service"), BACKEND], "flows",
            "Flows of a backend that go on, as they were counted last: at most 131072 entries are counted in a second.";
        XDP_BACKEND_PACKETS: FamilyKind::Counter, "xdp_backend_packets_total", [configured("service"), BACKEND, configured("direction")], "packets",
            "Packets of a service, by backend and direction.";
        XDP_BACKEND_BYTES: FamilyKind::Counter, "xdp_backend_bytes_total", [configured("service"), BACKEND, configured("direction")], "bytes",
            "Their bytes.";
        XDP_CONNTRACK_CAPACITY: FamilyKind::Gauge, "xdp_conntrack_capacity", [configured("family")], "flows",
            "Flows that the tables have room for (`xdp.max_flows_v4`, `xdp.max_flows_v6`).";
        XDP_CONNTRACK_ENTRIES: FamilyKind::Gauge, "xdp_conntrack_entries_current", [configured("family")], "flows",
            "Entries of the tables of flows that packets follow, as they were counted last. A flow in mode `nat` has two; an entry whose flow has ended or was idle too long \
             is not counted, though it stays until its place is needed.";
        XDP_CONNTRACK_FULL: FamilyKind::Counter, "xdp_conntrack_full_total", [configured("family")], "counts",
            "Counts of a table that found nine tenths of it or more in use by flows that go on: a new flow takes the place of one of them.";
        XDP_ATTACHED_MODE: FamilyKind::Gauge, "xdp_attached_mode", [configured("mode")], "interfaces",
            "Interfaces that run the programs: `drv` in the driver, `skb` behind it, `hw` on the card, `kept` as an earlier process had them.";
        XDP_ATTACH_PROBE_FAILED: FamilyKind::Counter, "xdp_attach_probe_failed_total", [], "interfaces",
            "Interfaces whose driver would not run the programs, so that the kernel does behind it (`xdp_mode = \"auto\"`).";
        XDP_DETACH: FamilyKind::Counter, "xdp_detach_total", [configured("result")], "interfaces",
            "Interfaces that the programs were taken off, since they are configured no more or the process ends with `at_shutdown = \"detach\"`, by `result`: ok, failed.";
        XDP_TABLE_ERRORS: FamilyKind::Counter, "xdp_table_errors_total", [], "errors",
            "Changes of tables that the kernel refused. They are tried again every second; what was in force stays.";
        XDP_SAMPLER_ERRORS: FamilyKind::Counter, "xdp_sampler_errors_total", [], "errors",
            "Readings of these counts that failed.";
    }
    "QUIC relay" {
        QUIC_RELAY_STREAMS: FamilyKind::Gauge, "quic_relay_streams", [LISTENER], "streams",
            "Streams that are relayed now, each between a client and a backend.";
        QUIC_RELAY_STREAMS_OPENED: FamilyKind::Counter, "quic_relay_streams_total", [LISTENER], "streams",
            "Streams that either side has opened.";
        QUIC_RELAY_RESETS: FamilyKind::Counter, "quic_relay_resets_total", [LISTENER, fixed::<DatagramPath>("path")], "streams",
            "Directions of streams that their sender has reset, or their receiver stopped.";
        QUIC_RELAY_DATAGRAMS: FamilyKind::Counter, "quic_relay_datagrams_total", [LISTENER, fixed::<DatagramPath>("path")], "datagrams",
            "Datagrams (RFC 9221) that were relayed.";
        QUIC_RELAY_DATAGRAMS_DROPPED: FamilyKind::Counter, "quic_relay_datagrams_dropped_total",
            [LISTENER, fixed::<RelayDrop>("reason")], "datagrams", "Datagrams (RFC 9221) that were not relayed, by why.";
        QUIC_RELAYS_ENDED: FamilyKind::Counter, "quic_relays_ended_total", [LISTENER, fixed::<RelayEnd>("reason")], "connections",
            "Relayed connections that have ended after the client's handshake, by why.";
    }
    "QUIC passthrough" {
        PASSTHROUGH_FLOWS: FamilyKind::Gauge, "quic_passthrough_flows", [], "flows",
            "Flows that are tracked now: a client's address, and the backend that it talks to.";
        PASSTHROUGH_CONNECTIONS: FamilyKind::Counter, "quic_passthrough_connections_total", [], "connections",
            "Connections that clients have begun and that were led to a backend.";
        PASSTHROUGH_FLOWS_EVICTED: FamilyKind::Counter, "quic_passthrough_flows_evicted_total", [], "flows",
            "Flows of clients that had not proven their addresses, given up because the table was full.";
        PASSTHROUGH_MIGRATIONS: FamilyKind::Counter, "quic_passthrough_migrations_total", [], "flows",
            "Flows that a known connection ID from a new address of its client has made.";
        PASSTHROUGH_RETRY_MINTED: FamilyKind::Counter, "quic_passthrough_retry_minted_total", [], "packets",
            "Retry packets that the gateway has sent.";
        PASSTHROUGH_RETRY_REJECTED: FamilyKind::Counter, "quic_passthrough_retry_rejected_total", [], "tokens",
            "Tokens that were not accepted where the gateway sends Retry: forged, late, or for another client.";
        PASSTHROUGH_HEADER_PARSE_ERRORS: FamilyKind::Counter, "quic_passthrough_header_parse_errors_total", [], "datagrams",
            "Datagrams whose header is none of QUIC.";
        PASSTHROUGH_BACKEND_SOCKET_ERRORS: FamilyKind::Counter, "quic_passthrough_backend_socket_errors_total", [], "datagrams",
            "Datagrams to backends that the kernel refused, or that nothing took: an ICMP error said so.";
        PASSTHROUGH_DROPPED: FamilyKind::Counter, "quic_passthrough_dropped_total", [fixed::<PassthroughDrop>("reason")], "datagrams",
            "Datagrams that were not forwarded, by why.";
    }
    "TLS" {
        TLS_HANDSHAKES: FamilyKind::Counter, "tls_handshakes_total", [LISTENER, fixed::<TlsResult>("result")], "handshakes",
            "Handshakes with clients that have ended, by how.";
        TLS_HANDSHAKES_INFLIGHT: FamilyKind::Gauge, "tls_handshakes_inflight", [LISTENER], "handshakes",
            "Handshakes with clients that run now.";
        BACKEND_TLS_HANDSHAKES: FamilyKind::Counter, "backend_tls_handshakes_total", [fixed::<TlsResult>("result")],
            "handshakes", "Handshakes with backends that have ended, by how.";
        TLS_FAULTS: FamilyKind::Counter, "tls_faults_total", [fixed::<TlsFault>("reason")], "connections",
            "Established TLS connections of tcp and tls listeners, to clients and backends, that a fault ended. \
             Where TLS carries HTTP its faults end requests, which count by their own reasons.";
        CERT_EXPIRY: FamilyKind::Gauge, "cert_expiry_seconds", [LISTENER, configured("cert")], "seconds",
            "Unix time at which the certificate in force, or another of its chain, runs out.";
        CERT_LOADED_AT: FamilyKind::Gauge, "cert_loaded_at_seconds", [LISTENER], "seconds",
            "Unix time at which the certificates in force were read.";
        CERT_ROTATION_SUCCEEDED: FamilyKind::Counter, "cert_rotation_succeeded_total", [], "listeners",
            "Listeners whose certificates SIGUSR1 has replaced.";
        CERT_ROTATION_FAILED: FamilyKind::Counter, "cert_rotation_failed_total", [fixed::<CertFailure>("reason")],
            "listeners", "Listeners whose certificates SIGUSR1 could not replace. The old ones stay in force.";
        TICKET_KEY_ROTATIONS: FamilyKind::Counter, "ticket_key_rotations_total", [LISTENER], "keys",
            "New session ticket keys, the first not counted.";
    }
    "Requests" {
        HTTP_REQUESTS: FamilyKind::Counter, "http_requests_total",
            [LISTENER, ROUTE, fixed::<HttpVersion>("version"), fixed::<StatusClass>("status_class")], "requests",
            "Finished requests by the status that the client got; `none` if it got none.";
        HTTP_REQUEST_DURATION: FamilyKind::Histogram(REQUEST_SECONDS), "http_request_duration_seconds",
            [LISTENER, ROUTE, fixed::<HttpVersion>("version")], "seconds",
            "From the first byte of the request head to the last byte of the response, or to the abort.";
        GRPC_CALLS: FamilyKind::Counter, "grpc_calls_total", [LISTENER, fixed::<GrpcStatus>("grpc_status")], "calls",
            "Finished gRPC calls by the `grpc-status` that the client got, `CANCELLED` if it gave the call up, `none` if there was none.";
        WEBSOCKET_TUNNELS: FamilyKind::Gauge, "websocket_tunnels", [LISTENER], "tunnels", "WebSocket tunnels open now.";
        WEBSOCKET_TUNNELS_ENDED: FamilyKind::Counter, "websocket_tunnels_ended_total",
            [LISTENER, fixed::<TunnelEnd>("reason")], "tunnels", "WebSocket tunnels that have ended, by how.";
        REQUEST_REJECTED: FamilyKind::Counter, "request_rejected_total", [reasons::<Rejections>("reason")], "requests",
            "Requests that the gateway itself refused or cut.";
        FILTER_ANSWERS: FamilyKind::Counter, "filter_answers_total", [LISTENER, reasons::<FilterAnswers>("reason")], "requests",
            "Requests that a filter answered in place of a backend, or that have no backend by the routes of the file.";
        FILTER_DRY_RUN: FamilyKind::Counter, "filter_dry_run_total", [LISTENER, reasons::<DryRuns>("reason")], "requests",
            "Requests that a filter would have refused, had it not `dry_run`.";
        RATE_LIMIT_EVICTIONS: FamilyKind::Counter, "rate_limit_evictions_total", [POLICY], "keys",
            "Keys that a rate limit has forgotten before their time because their place in its table was needed (`max_keys`).";
        ACCESS_FILE_FAILURES: FamilyKind::Counter, "access_file_failures_total", [POLICY], "reads",
            "Reads of files of an access list (`allow_file`, `deny_file`) that had changed and could not be used; what was read before stays in force.";
        CONCURRENCY_LIMIT: FamilyKind::Gauge, "concurrency_limit", [POLICY], "requests",
            "Requests that adaptive limits of a policy let run at once now, of all workers together. Limits with a fixed `max` have no series.";
        MIRRORS: FamilyKind::Counter, "mirrors_total", [fixed::<MirrorResult>("result")], "requests",
            "Copies of requests to other pools (`mirror` of routes): `answered` by a backend, whatever it said; `failed`, where none could be reached, had room \
             or answered; `timeout`; `behind`, where more of the body waited than may; `abandoned`, where the request ended before its body was \
             complete; `full`, where as many ran in the worker as may, or held as much memory.";
        HTTP_RETRIES: FamilyKind::Counter, "http_retries_total", [fixed::<RetryClass>("reason")], "requests",
            "Requests sent once more: `connect` after a failed connect, `stale` after a reused connection had died, `unprocessed` after a \
             backend had said that it did nothing for them, `reset` after a connection was lost before a response; the others where \
             `[pools.NAME.retry]` asks for it.";
    }
    "Backends" {
        BACKEND_REQUESTS: FamilyKind::Counter, "backend_requests_total",
            [LISTENER, POOL, BACKEND, fixed::<StatusClass>("status_class")], "requests",
            "Finished requests by the status that the backend gave; `none` if it gave none.";
        BACKEND_REQUEST_DURATION: FamilyKind::Histogram(REQUEST_SECONDS), "backend_request_duration_seconds",
            [LISTENER, POOL, BACKEND], "seconds",
            "From the choice of the backend to the last byte of its response, or to the abort.";
        BACKEND_INFLIGHT: FamilyKind::Gauge, "backend_inflight", [LISTENER, POOL, BACKEND], "requests",
            "Requests, or TCP connections, at the backend now.";
        BACKEND_CONNECTIONS: FamilyKind::Counter, "backend_connections_total", [LISTENER, POOL, BACKEND], "connections",
            "Connections opened to the backend.";
        BACKEND_CONNECT_FAILURES: FamilyKind::Counter, "backend_connect_failures_total", [LISTENER, POOL, BACKEND],
            "connections", "Connections to the backend that could not be made, timeouts included.";
        BACKEND_REACHABLE: FamilyKind::Gauge, "backend_reachable", [LISTENER, POOL, BACKEND], "none",
            "1 while the last connect to the backend came about or none was tried yet, 0 after one that failed.";
        BACKENDS_EXPORTED: FamilyKind::Gauge, "backends_exported", [], "backends",
            "Backends that have series of their own, at most `[observability] max_exported_backends`.";
        BACKEND_CONNECT_TIMEOUTS: FamilyKind::Counter, "backend_connect_timeout_total", [], "connections",
            "Connections to any backend that were not made in time.";
        BACKEND_HEALTHY: FamilyKind::Gauge, "backend_healthy", [POOL, BACKEND], "none",
            "1 while the health checks of the pool let some address of the backend be used, or none has ended yet; 0 while they let none be.";
        HEALTH_PROBES: FamilyKind::Counter, "backend_health_probes_total",
            [POOL, BACKEND, fixed::<ProbeOutcome>("result")], "probes",
            "Health checks of the addresses of the backend that have ended, by how.";
        BACKEND_EJECTED: FamilyKind::Gauge, "backend_ejected", [POOL, BACKEND], "addresses",
            "Addresses of the backend that are put aside now because they failed requests.";
        BACKEND_EJECTIONS: FamilyKind::Counter, "backend_ejections_total",
            [POOL, BACKEND, fixed::<EjectionCause>("cause")], "ejections",
            "How often addresses of the backend were put aside, by why.";
        HTTP2_ABUSE: FamilyKind::Counter, "http2_abuse_total", [reasons::<Http2Abuse>("kind")], "connections",
            "Client connections that were ended with GOAWAY and ENHANCE_YOUR_CALM.";
        HTTP2_ERRORS: FamilyKind::Counter, "http2_connection_errors_total", [fixed::<Http2Error>("code")], "connections",
            "Client connections that were ended because the client broke HTTP/2, by the code of the GOAWAY.";
        UPSTREAM_REJECTED: FamilyKind::Counter, "upstream_rejected_total", [reasons::<UpstreamRejections>("reason")],
            "responses", "Responses of backends that were refused, cut or did not come, but for requests that were sent \
             again. Over HTTP/1.1 the backend connection is closed; over HTTP/2 the stream is reset, and the \
             connection goes on unless it was the one that failed.";
    }
    "Limits and retries of pools" {
        POOL_RETRIES: FamilyKind::Counter, "pool_retries_total", [POOL, fixed::<RetryClass>("reason")], "requests",
            "`http_retries_total` by pool, and further connects of tcp and tls listeners.";
        POOL_RETRY_BUDGET_EXHAUSTED: FamilyKind::Counter, "pool_retry_budget_exhausted_total", [POOL], "tries",
            "Further tries and hedges that were not made because the budget had no room: too many ran already, or had begun lately.";
        POOL_HEDGES: FamilyKind::Counter, "pool_hedges_total", [POOL], "requests",
            "Requests sent to a second backend while the first had not answered.";
        POOL_HEDGES_WON: FamilyKind::Counter, "pool_hedges_won_total", [POOL], "requests",
            "The part of `pool_hedges_total` in which the second backend's response was taken.";
        POOL_PENDING: FamilyKind::Gauge, "pool_pending", [POOL], "requests",
            "Requests and TCP connections that wait for room at a backend now.";
        POOL_OVERFLOW: FamilyKind::Counter, "pool_overflow_total", [POOL, fixed::<Full>("reason")], "requests",
            "Requests and TCP connections that were refused because a backend was at its limits.";
        POOL_CIRCUIT_OPEN: FamilyKind::Gauge, "pool_circuit_open", [POOL], "backends",
            "Backends at their limits: the last that came found no room, and nothing has become free since. Each worker counts its own part.";
    }
    "Backends that are left alone" {
        POOL_PANIC: FamilyKind::Gauge, "pool_panic", [POOL], "none",
            "1 while less than `panic_threshold_percent` of the pool is fit, so that all of its backends are used.";
        POOL_RESTING: FamilyKind::Gauge, "pool_resting", [POOL], "addresses",
            "Addresses of backends that are left alone now because they could not be reached.";
        POOL_RESTS: FamilyKind::Counter, "pool_rests_total", [POOL], "addresses",
            "How often an address of a backend came to be left alone.";
    }
    "Backend connection pool" {
        POOL_ACQUIRES: FamilyKind::Counter, "pool_acquires_total", [], "connections",
            "Connections asked of the pool, reused or new.";
        POOL_REUSES: FamilyKind::Counter, "pool_reuses_total", [], "connections",
            "The part of `pool_acquires_total` that an idle connection served.";
        POOL_PROBE_FAILURES: FamilyKind::Counter, "pool_probe_failures_total", [], "connections",
            "Idle connections found dead before reuse.";
        POOL_IDLE: FamilyKind::Gauge, "pool_idle_gauge", [], "connections", "Idle backend connections now.";
    }
    "Name resolution" {
        DNS_CACHE_HITS: FamilyKind::Counter, "dns_cache_hits_total", [], "lookups", "Lookups answered from the cache.";
        DNS_CACHE_MISSES: FamilyKind::Counter, "dns_cache_misses_total", [], "lookups", "Lookups that a name server answered.";
        DNS_CACHE_ENTRIES: FamilyKind::Gauge, "dns_cache_entries", [], "names", "Names in the cache now.";
        DNS_FAILURES: FamilyKind::Counter, "dns_failures_total", [], "lookups",
            "Lookups that failed, or led to no address that may be used. The last good answer stays in use.";
        DISCOVERY_FAILURES: FamilyKind::Counter, "discovery_failures_total", [configured("pool")], "looks",
            "Looks at a pool's source of backends, file or SRV records, that failed. Its last good backends stay in use.";
    }
    "Reload" {
        RELOAD_SUCCEEDED: FamilyKind::Counter, "config_reload_succeeded_total", [], "reloads",
            "Reloads that were carried out.";
        RELOAD_FAILED: FamilyKind::Counter, "config_reload_failed_total", [], "reloads",
            "Reloads that were refused. The running configuration stays.";
        RELOAD_APPLIED: FamilyKind::Counter, "config_reload_applied_swappable_total", [FIELD], "changes",
            "Changes that a reload put in force.";
        RELOAD_RESTART_REQUIRED: FamilyKind::Counter, "config_reload_restart_required_fields_total", [FIELD], "changes",
            "Changes that a reload found and that need a restart, counted at every reload that finds them.";
        RELOAD_VERSION: FamilyKind::Gauge, "config_reload_applied_version", [], "version",
            "Number of the configuration in force: 1 at boot, one more with each reload that changed something of what is in force.";
    }
    "Drain" {
        DRAIN_TIMEOUT: FamilyKind::Gauge, "lb_drain_timeout_ms_listener", [LISTENER], "milliseconds",
            "How long the listener's connections may take to finish in a drain.";
        DRAIN_DURATION: FamilyKind::Histogram(DRAIN_SECONDS), "shutdown_drain_seconds_global",
            [fixed::<DrainPhase>("phase"), fixed::<DrainOutcome>("outcome")], "seconds",
            "How long each phase of the drain took.";
        SHUTDOWN_ABORTED: FamilyKind::Counter, "shutdown_aborted_connections_total", [], "connections",
            "Connections cut at the end of the drain budget.";
        SHUTDOWN_CANCEL_TIMEOUT: FamilyKind::Counter, "shutdown_listener_cancel_timeout_total", [], "drains",
            "Drains in which a listener did not stop accepting in time.";
        SHUTDOWN_DRAIN_TIMEOUT: FamilyKind::Counter, "shutdown_inflight_drain_timeout_total", [], "drains",
            "Drains in which connections did not finish in time.";
    }
    "Process" {
        BUILD_INFO: FamilyKind::Gauge, "build_info", [configured("version")], "none", "Always 1.";
        PROCESS_START: FamilyKind::Gauge, "process_start_time_seconds", [], "seconds", "Unix time of the start.";
        PROCESS_MEMORY: FamilyKind::Gauge, "process_resident_memory_bytes", [], "bytes", "Resident memory.";
        PROCESS_FDS: FamilyKind::Gauge, "process_open_fds", [], "descriptors", "Open file descriptors.";
        WORKERS: FamilyKind::Gauge, "workers", [], "threads", "Worker threads.";
        PANICS: FamilyKind::Counter, "panic_total", [], "panics",
            "Panics. The release build aborts on the first, so a scrape sees it only if it wins that race.";
        ACCESS_LOG_DROPPED: FamilyKind::Counter, "access_log_dropped_total", [], "lines",
            "Access-log lines lost because the writer fell behind or could not write.";
        TRACE_SPANS: FamilyKind::Counter, "trace_spans_total", [], "spans",
            "Spans that the collector of traces has accepted.";
        TRACE_SPANS_DROPPED: FamilyKind::Counter, "trace_spans_dropped_total", [], "spans",
            "Spans lost because too many waited for the collector, or because it did not accept them.";
        LOG_DROPPED: FamilyKind::Counter, "log_dropped_total", [], "lines",
            "Lines of the log lost because standard error was not read in time or could not be written.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::values::MAX_BOUNDS;

    #[test]
    fn names_are_unique_and_legal() {
        let mut names = FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
        for name in FAMILIES.iter().flat_map(|family| {
            std::iter::once(family.name).chain(family.labels.iter().map(|label| label.name))
        }) {
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()), "{name}");
        }
    }

    #[test]
    fn buckets_fit_a_histogram() {
        for family in FAMILIES {
            if let FamilyKind::Histogram(bounds) = family.kind {
                assert!(
                    !bounds.is_empty() && bounds.len() <= MAX_BOUNDS && bounds.is_sorted(),
                    "{}",
                    family.name
                );
            }
        }
    }
}

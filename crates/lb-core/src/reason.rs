//! Reason codes: why the gateway refused, gave up or cut a request.
//!
//! One closed set of words. The access log, the labels of metrics, log lines and traces take them from here, so that each of them can be
//! looked up by the others. METRICS.md and RUNBOOK.md list the whole set, generated from the table below.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $status:literal;)+) => {
        /// Why the gateway refused, gave up or cut a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }

        impl Reason {
            /// All reasons, in the order in which documents list them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code: a word of lower-case letters, digits and underscores.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The statuses with which a request can end for this reason, for documents. Empty where the client is told none.
            pub const fn statuses(self) -> &'static str {
                match self { $(Self::$variant => $status),+ }
            }

            /// What the code means, for documents: one sentence without its full stop.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+)),+ }
            }
        }
    };
}

reasons! {
    /// No backend of the pool can be picked (503: all are drained, of weight 0, without an address, or unfit where `panic_threshold_percent` is 0), or every one that was tried refused the connection (502)
    NoBackend = "no_backend", "502, 503";
    /// The last backend that could be tried did not take the connection
    ConnectFailed = "connect_failed", "502";
    /// The connection to the last backend that could be tried did not come about in `connect_timeout_ms`
    ConnectTimeout = "connect_timeout", "504";
    /// Backends were reached, and TLS with the last of them failed (504: not in time); the log line `TLS handshake with a backend failed` tells why
    TlsFailed = "tls_failed", "502, 504";
    /// The gateway lacks file descriptors for a connection to a backend
    NoDescriptors = "no_descriptors", "503";
    /// The gateway lacks memory for a connection to a backend
    NoMemory = "no_memory", "503";
    /// The gateway lacks local ports for a connection to a backend
    NoPorts = "no_ports", "503";
    /// Every backend has as many connections as `[pools.NAME.limits]` allows
    MaxConnections = "max_connections", "503";
    /// Every backend has as many requests as `[pools.NAME.limits]` allows
    MaxRequests = "max_requests", "503";
    /// As many requests wait for a backend as `[pools.NAME.limits]` allows
    MaxPending = "max_pending", "503";
    /// The request waited for a backend with room, and none had any in time
    PendingTimeout = "pending_timeout", "503";
    /// The backend did not answer, or did not go on, in time
    Timeout = "timeout", "504";
    /// The backend answered with a status with which its pool tries requests again, and its answer was not passed on
    UpstreamStatus = "upstream_status", "";
    /// The connection to the backend ended before the response was complete
    Truncated = "truncated", "502";
    /// The backend reset the connection or the stream
    Reset = "reset", "502";
    /// Length information that contradicts itself, such as both Content-Length and Transfer-Encoding
    Framing = "framing", "400, 502";
    /// Chunked framing that breaks the grammar
    ChunkSyntax = "chunk_syntax", "400, 502";
    /// The head of the backend's response is larger than allowed
    HeadTooLarge = "head_too_large", "502";
    /// A status line or header field of the backend that breaks the grammar
    HeadSyntax = "head_syntax", "502";
    /// More interim (1xx) responses than allowed
    InterimFlood = "interim_flood", "502";
    /// The body of the backend's response is larger than `max_response_body_bytes` of the route; one that was not announced is cut
    ResponseTooLarge = "response_too_large", "502";
    /// A switch of protocols by the backend that the request did not ask for
    UnaskedSwitch = "unasked_switch", "502";
    /// Bytes of the backend after the end of its response
    ExcessBytes = "excess_bytes", "";
    /// The backend does not take the extended CONNECT that a WebSocket needs over HTTP/2 (RFC 8441)
    NoExtendedConnect = "no_extended_connect", "502";
    /// A WebSocket handshake that breaks RFC 6455 §4: of the client, or of the backend that switched protocols without proof (502)
    WebSocketHandshake = "websocket_handshake", "400, 426, 502";
    /// A Content-Length that is no number, or several that differ
    ContentLength = "content_length", "400";
    /// A Transfer-Encoding other than exactly `chunked`
    TransferEncoding = "transfer_encoding", "400, 501";
    /// A line of the request's head that ends without CR
    BareLf = "bare_lf", "400";
    /// A request line or header field that breaks the grammar
    HeaderSyntax = "header_syntax", "400";
    /// The head of the request is larger, or has more fields, than allowed
    HeaderTooLarge = "header_too_large", "431";
    /// The request target is longer than allowed
    UriTooLong = "uri_too_long", "414";
    /// The Host field is absent, repeated, malformed, or contradicts the target
    Host = "host", "400";
    /// The path of the request breaks the grammar, holds an encoded control character or a backslash, or leads above the root; on listeners with routes
    PathSyntax = "path_syntax", "400";
    /// A lenient backend could read the path of the request as that of another route, or of none (`[listeners.paths]`)
    PathAmbiguous = "path_ambiguous", "400";
    /// The path that the route's `rewrite` makes of the one asked for is not canonical, or a lenient backend could read it as one outside of what the route leads to
    Rewrite = "rewrite", "400";
    /// No route takes the request, and the listener or virtual host has no pool for what is left
    NoRoute = "no_route", "404";
    /// The client's address is one that `access` of a policy does not let in; on tcp and tls listeners its connection is closed
    Access = "access", "403";
    /// The client has shown no certificate, or one where none may be shown, as `client_cert` of `access` of a policy has it
    ClientCertificate = "client_certificate", "403";
    /// More requests of its key have come than `rate_limit` of a policy lets pass, or the request lacks what the limit counts by (`on_missing = "deny"`); `status` of the limit may be another
    RateLimit = "rate_limit", "429";
    /// As many requests run at once as `concurrency` of a policy lets
    Concurrency = "concurrency", "503";
    /// A preflight comes from an origin that `cors` of a policy does not list: the browser then keeps the request of the script from being sent
    CorsOrigin = "cors_origin", "403";
    /// `fault` of a policy fails the request on purpose, with the status that it has
    Fault = "fault", "400 to 599";
    /// All weights of the route's `split` are 0
    NoTarget = "no_target", "500";
    /// A redirect leads to the URL that was asked for: mostly the client came inside TLS to something in front of the gateway, which sees no TLS unless `trusted_proxies` of `[listeners.client_address]` lets it be told
    RedirectLoop = "redirect_loop", "500";
    /// The `Host` asks for other client certificates than the connection's server name did; browsers try again on a new connection
    Misdirected = "misdirected", "421";
    /// A field name with an underscore, under the policy that rejects it
    Underscore = "underscore", "400";
    /// A method that is not served
    Method = "method", "400, 405, 501";
    /// A version of HTTP that is not served
    Version = "version", "505";
    /// The body of the request is larger than the operator allows
    BodyTooLarge = "body_too_large", "413";
    /// The head of the request did not arrive in time
    HeaderTimeout = "header_timeout", "408";
    /// The body of the request did not arrive in time
    BodyTimeout = "body_timeout", "408";
    /// The body of the request arrives more slowly than the least rate allowed
    BodyRate = "body_rate", "408";
    /// The client did not take the response, or an end of a tunnel what was sent to it, in time
    WriteTimeout = "write_timeout", "";
    /// A trailer section of the request that breaks the grammar or the limits
    Trailer = "trailer", "400";
    /// An OPTIONS or TRACE with `Max-Forwards: 0`, which is for the gateway itself
    MaxForwards = "max_forwards", "200, 405";
    /// The client left before its response was complete
    ClientGone = "client_gone", "";
    /// The client gave the request up before its response was complete, by a reset of its stream
    ClientReset = "client_reset", "";
    /// The request was cut off at the end of a drain
    Aborted = "aborted", "";
    /// The client, or an end of a WebSocket tunnel, broke its protocol, and its connection or stream was ended; `http2_connection_errors_total` counts HTTP/2's by code
    ProtocolError = "protocol_error", "";
    /// The client's HTTP/2 connection was ended: too many resets of streams that had no response
    PeerReset = "peer_reset", "";
    /// The client's HTTP/2 connection was ended: too many faults for which streams had to be reset
    LocalReset = "local_reset", "";
    /// The client's HTTP/2 connection was ended: too many header blocks beyond a limit
    HeaderOverflow = "header_overflow", "";
    /// The client's HTTP/2 connection was ended: too many DATA frames without content
    EmptyData = "empty_data", "";
    /// The client's HTTP/2 connection was ended: too many DATA frames with hardly any content
    TinyData = "tiny_data", "";
    /// The client's HTTP/2 connection was ended: too many SETTINGS frames
    Settings = "settings", "";
    /// The client's HTTP/2 connection was ended: too many PING frames
    Ping = "ping", "";
    /// The client's HTTP/2 connection was ended: too many PRIORITY or PRIORITY_UPDATE frames
    Priority = "priority", "";
    /// The client's HTTP/2 connection was ended: too many WINDOW_UPDATE frames
    WindowUpdate = "window_update", "";
    /// The client's HTTP/2 connection was ended: too many frames of unknown types
    Unknown = "unknown", "";
    /// The client's HTTP/2 connection was ended: too many frames for streams that are gone
    Unwanted = "unwanted", "";
    /// The gateway ended a WebSocket tunnel at the end of a drain (close code 1001)
    GoingAway = "going_away", "101";
    /// The gateway ended a WebSocket tunnel in which nothing had passed for too long (close code 1001)
    IdleTimeout = "idle_timeout", "101";
    /// The gateway ended a WebSocket tunnel for too many pings (close code 1008)
    PingFlood = "ping_flood", "101";
    /// The gateway ended a WebSocket tunnel for a frame that took too long to arrive (close code 1008)
    ReadFrameTimeout = "read_frame_timeout", "101";
    /// The gateway ended a WebSocket tunnel for a message over the limit (close code 1009)
    MessageTooBig = "message_too_big", "101";
    /// A gRPC call was not over by its deadline
    GrpcDeadline = "grpc_deadline", "200";
    /// A gRPC call without a deadline was silent for `max_deadline_seconds`
    GrpcIdle = "grpc_idle", "200";
    /// A gRPC call with a `grpc-timeout` that cannot be read
    GrpcTimeout = "grpc_timeout", "200";
    /// A gRPC health check that cannot be read
    HealthRequest = "health_request", "200";
}

impl Reason {
    /// The reasons of `request_rejected_total`: requests that the gateway refused or cut on the client's account or its own.
    pub const REJECTIONS: &'static [Self] = &[
        Self::Framing,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::BareLf,
        Self::HeaderSyntax,
        Self::HeaderTooLarge,
        Self::UriTooLong,
        Self::Host,
        Self::PathSyntax,
        Self::PathAmbiguous,
        Self::Rewrite,
        Self::Misdirected,
        Self::Underscore,
        Self::Method,
        Self::Version,
        Self::BodyTooLarge,
        Self::HeaderTimeout,
        Self::BodyTimeout,
        Self::BodyRate,
        Self::WriteTimeout,
        Self::ChunkSyntax,
        Self::Trailer,
        Self::WebSocketHandshake,
        Self::NoDescriptors,
        Self::NoMemory,
        Self::NoPorts,
    ];

    /// The reasons of `filter_answers_total`: requests that a filter or the target of a route answered in place of a backend, as the file has it.
    pub const FILTERS: &'static [Self] = &[
        Self::Access,
        Self::ClientCertificate,
        Self::RateLimit,
        Self::Concurrency,
        Self::CorsOrigin,
        Self::Fault,
        Self::NoRoute,
        Self::NoTarget,
        Self::RedirectLoop,
    ];

    /// The reasons of `filter_dry_run_total`: requests that a filter would have answered if it did not only count.
    pub const DRY_RUNS: &'static [Self] =
        &[Self::Access, Self::ClientCertificate, Self::RateLimit, Self::Concurrency];

    /// The reasons of `upstream_rejected_total`: responses that were refused, cut or did not come, on the backend's account.
    pub const UPSTREAM: &'static [Self] = &[
        Self::Framing,
        Self::HeadTooLarge,
        Self::HeadSyntax,
        Self::InterimFlood,
        Self::ResponseTooLarge,
        Self::UnaskedSwitch,
        Self::ExcessBytes,
        Self::ChunkSyntax,
        Self::Truncated,
        Self::Timeout,
        Self::Reset,
        Self::NoExtendedConnect,
        Self::WebSocketHandshake,
    ];

    /// The reasons of `http2_abuse_total`: what an HTTP/2 client did too much of, so that its connection was ended.
    pub const HTTP2_ABUSE: &'static [Self] = &[
        Self::PeerReset,
        Self::LocalReset,
        Self::HeaderOverflow,
        Self::EmptyData,
        Self::TinyData,
        Self::Settings,
        Self::Ping,
        Self::Priority,
        Self::WindowUpdate,
        Self::Unknown,
        Self::Unwanted,
        Self::HeaderTimeout,
    ];

    /// The whole set as a table in Markdown, for METRICS.md and RUNBOOK.md.
    pub fn table() -> String {
        let mut table = String::from("| `reason` | Status | Means |\n|---|---|---|\n");
        for reason in Self::ALL {
            let line =
                format!("| `{}` | {} | {} |\n", reason.name(), reason.statuses(), reason.meaning().trim());
            table.push_str(&line);
        }
        table
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_code_is_a_word_of_its_own() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for name in names {
            assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{name}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each() {
        let table = Reason::table();
        assert_eq!(table.lines().count(), Reason::ALL.len() + 2);
        assert!(table.contains("| `max_pending` | 503 | As many requests wait"));
    }
}

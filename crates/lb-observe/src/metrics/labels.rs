//! Label values that are fixed by the program.
//!
//! A label whose values a peer could choose would let it grow memory without bound (attack row C-07), so every
//! reason, class, version and phase is an enum, and a family with such a label is an array over that enum.

use std::fmt;

use super::label::{Label, label, labels};

labels! {
    /// What has become of a copy of a request.
    MirrorResult {
        /// The backend has answered, whatever it said.
        Answered = "answered",
        /// No backend could be reached, had room, or answered.
        Failed = "failed",
        /// No answer came in `timeout_ms`.
        Timeout = "timeout",
        /// It was further behind than `max_body_bytes`.
        Behind = "behind",
        /// The request ended before its body was complete.
        Abandoned = "abandoned",
        /// As many run in the worker as may, or hold as much memory: it was not begun.
        Full = "full",
    }

    /// Why `accept` failed.
    AcceptErrorKind {
        /// The process or the machine is out of file descriptors (EMFILE, ENFILE).
        FdExhausted = "fd_exhausted",
        /// The peer was gone before the connection was accepted (ECONNABORTED, ECONNRESET, EPROTO).
        ConnReset = "conn_reset",
        /// The kernel lacks memory or buffers (ENOMEM, ENOBUFS).
        NoMemory = "no_memory",
        /// Anything else.
        Fatal = "fatal",
    }

    /// Why a connection was closed right after it was accepted.
    AcceptReject {
        /// The client's address has as many connections as one address may have.
        PerIp = "per_ip",
        /// The access list of the listener (`access` of a policy) does not let the client in.
        Access = "access",
        /// No route of a tcp or tls listener takes the connection, or its ClientHello did not come, was cut or is too long.
        NoRoute = "no_route",
        /// What QUIC may hold in memory is used up (`runtime.quic_buffer_bytes`).
        Memory = "memory",
    }

    /// Why a datagram was not forwarded.
    DatagramDrop {
        /// It would have begun a flow, and the listener has as many as it may have (`listeners.udp.max_flows`).
        MaxFlows = "max_flows",
        /// As above, for its client's address (`listeners.udp.max_flows_per_source`).
        PerSource = "per_source",
        /// As above, for the connections and flows of its client's address (`runtime.per_ip_connection_cap`), or of the listener
        /// (`runtime.max_inflight_connections`).
        Admission = "admission",
        /// It would have begun a flow, and the listener drains.
        Draining = "draining",
        /// No backend can be used.
        NoBackend = "no_backend",
        /// No backend has room (`[pools.NAME.limits] max_connections`).
        BackendFull = "backend_full",
        /// No socket to the backend could be had.
        NoSocket = "no_socket",
        /// There is no room for the header of the PROXY protocol.
        TooLarge = "too_large",
        /// The client was sent as many bytes as it may be (`listeners.udp.max_amplification`).
        Amplification = "amplification",
        /// The kernel did not take it: too large for the path, no route, a firewall, no room to send.
        NotSent = "not_sent",
        /// It came from a backend and belongs to no flow.
        Unasked = "unasked",
    }

    /// How a flow of datagrams ended.
    FlowEnd {
        /// Nothing had passed for the idle timeout.
        Idle = "idle",
        /// All replies had come.
        Answered = "answered",
        /// Its backend has left, or is not used any more, and no other could take it over.
        BackendGone = "backend_gone",
        /// The drain timeout was over.
        Drained = "drained",
    }

    /// Which way a datagram goes.
    DatagramPath {
        /// From a client to a backend.
        ToBackend = "to_backend",
        /// From a backend to a client.
        ToClient = "to_client",
    }

    /// Why a relay of QUIC has ended: which side did what.
    RelayEnd {
        /// The client has closed its connection.
        Client = "client",
        /// The backend has closed its connection.
        Backend = "backend",
        /// The client was silent for too long.
        ClientIdle = "client_idle",
        /// The backend was silent for too long.
        BackendIdle = "backend_idle",
        /// The client broke QUIC.
        ClientFault = "client_fault",
        /// The backend broke QUIC.
        BackendFault = "backend_fault",
        /// No connection to a backend could be made.
        Unreachable = "unreachable",
        /// The peers have given up more streams than a connection may have given up.
        Streams = "streams",
        /// The listener drained.
        Drained = "drained",
    }

    /// Why a datagram of QUIC was not relayed.
    RelayDrop {
        /// As many as `dgram_queue_cap` were waiting.
        Queue = "queue",
        /// It does not fit into a packet on the other side.
        TooLarge = "too_large",
        /// The other side takes no datagrams.
        Unsupported = "unsupported",
    }

    /// What became of the beginning of a connection, where a header of the PROXY protocol may stand there.
    ProxyHeaderResult {
        /// A header of version 1 has named the client.
        V1 = "v1",
        /// A header of version 2 has named the client.
        V2 = "v2",
        /// A header without a client (`LOCAL`, `UNKNOWN`): the peer counts as the client.
        Local = "local",
        /// There was none, and there need be none: the peer is the client.
        Absent = "absent",
        /// Closed: there was none.
        Missing = "missing",
        /// Closed: the peer is not in `trusted`.
        Untrusted = "untrusted",
        /// Closed: the header breaks the grammar.
        Malformed = "malformed",
        /// Closed: the header is longer than it may be.
        TooLarge = "too_large",
        /// Closed: the checksum of the header is wrong.
        Checksum = "checksum",
        /// Closed: the header was not there in time.
        Timeout = "timeout",
        /// The peer has closed the connection before its header was whole.
        Closed = "closed",
    }

    /// How a TLS handshake ended.
    TlsResult {
        /// With a new session.
        Full = "full",
        /// With an old session taken up again.
        Resumed = "resumed",
        /// Not in time.
        Timeout = "timeout",
        /// The peer went away, or the socket failed.
        Closed = "closed",
        /// The peer sent a fatal alert.
        Alert = "alert",
        /// The peer does not speak TLS.
        NotTls = "not_tls",
        /// The peer's part was larger than allowed.
        TooLarge = "too_large",
        /// No version, cipher suite, group or protocol in common.
        Incompatible = "incompatible",
        /// The peer's certificate is missing or not accepted.
        Certificate = "certificate",
        /// Turned away before any key exchange: too many handshakes ran.
        Overload = "overload",
        /// The peer broke the protocol.
        Protocol = "protocol",
        /// A fault on our side.
        Internal = "internal",
    }

    /// Why an established TLS connection was given up.
    TlsFault {
        /// Too many records without data, key updates among them.
        Flood = "flood",
        /// The peer ended it without close_notify.
        Truncated = "truncated",
        /// The peer sent a fatal alert.
        Alert = "alert",
        /// The peer broke the protocol.
        Protocol = "protocol",
    }

    /// Why a datagram was not forwarded, where QUIC is forwarded without keys.
    PassthroughDrop {
        /// It is no QUIC, or a packet that no client sends.
        Malformed = "malformed",
        /// The destination connection ID that a client has chosen is shorter than `min_client_dcid_len`.
        ShortId = "short_id",
        /// A datagram that begins a connection has fewer than 1200 bytes (RFC 9000 §14.1).
        SmallInitial = "small_initial",
        /// The source begins more connections in a second than `new_connections_per_source`.
        SourceRate = "source_rate",
        /// The address has as many flows as `runtime.per_ip_connection_cap` allows.
        SourceCap = "source_cap",
        /// As many flows are there as `max_quic_connections` allows, and the clients of all have proven their addresses.
        TableFull = "table_full",
        /// A known connection ID came from another address, under `strict_source_binding`.
        SourceBinding = "source_binding",
        /// No backend of the pool can be picked.
        NoBackend = "no_backend",
        /// The kernel gives no socket towards the backend.
        NoSocket = "no_socket",
        /// Too much waits for server names, or it has waited for too long.
        Waiting = "waiting",
        /// A client that has not proven its address would get more than three times what it sent (RFC 9000 §8.1).
        Amplification = "amplification",
        /// Early data came before the first packet of its connection, and the connection begins with a Retry or waits for a server name.
        EarlyData = "early_data",
        /// A connection began after the drain had.
        Draining = "draining",
        /// The socket of the clients had no room, or the kernel refused the datagram: too large for the path, no route.
        ClientSocket = "client_socket",
        /// A socket towards a backend had no room, or the kernel refused the datagram: too large for the path, no route.
        BackendSocket = "backend_socket",
    }

    /// Why certificates could not be loaded anew.
    CertFailure {
        /// A file cannot be read.
        Io = "io",
        /// A key file can be read by group or others.
        Permissions = "permissions",
        /// A certificate is malformed.
        CertParse = "cert_parse",
        /// A key is malformed.
        KeyParse = "key_parse",
        /// No certificate in the file.
        EmptyChain = "empty_chain",
        /// No key in the file.
        NoKey = "no_key",
        /// Too many certificates in the file.
        ChainTooDeep = "chain_too_deep",
        /// Certificate and key do not belong together.
        KeyMismatch = "key_mismatch",
        /// A certificate has passed its date.
        Expired = "expired",
        /// A certificate's time has not come.
        NotYetValid = "not_yet_valid",
        /// Certificate authorities cannot be used.
        Authorities = "authorities",
        /// A revocation list cannot be used.
        RevocationList = "revocation_list",
        /// Ticket keys cannot be used.
        TicketKeys = "ticket_keys",
        /// Anything else.
        Config = "config",
    }

    /// The protocol that a client spoke.
    HttpVersion {
        /// HTTP/1.0 and HTTP/1.1.
        H1 = "h1",
        /// HTTP/2.
        H2 = "h2",
        /// HTTP/3.
        H3 = "h3",
    }

    /// The first digit of the final status.
    StatusClass {
        /// 100 to 199: the connection switched protocols.
        Informational = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 to 599.
        ServerError = "5xx",
        /// The exchange ended without a response.
        NoResponse = "none",
    }

    /// How a WebSocket tunnel ended.
    TunnelEnd {
        /// Both ends were done.
        Done = "done",
        /// An end vanished, or the gateway cut the tunnel.
        Cut = "cut",
        /// The end of a drain (1001).
        GoingAway = "going_away",
        /// Both ends were silent for too long (1001).
        IdleTimeout = "idle_timeout",
        /// A frame that breaks the framing (1002).
        ProtocolError = "protocol_error",
        /// Too many pings (1008).
        PingFlood = "ping_flood",
        /// A frame that took too long to arrive (1008).
        ReadFrameTimeout = "read_frame_timeout",
        /// An end that took too long to accept what was sent to it (1008).
        WriteTimeout = "write_timeout",
        /// A message over the limit (1009).
        MessageTooBig = "message_too_big",
    }

    /// How a gRPC call ended for its client: the names of `grpc-status`.
    GrpcStatus {
        /// 0.
        NoError = "OK",
        /// 1.
        Cancelled = "CANCELLED",
        /// 2.
        Unknown = "UNKNOWN",
        /// 3.
        InvalidArgument = "INVALID_ARGUMENT",
        /// 4.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// 5.
        NotFound = "NOT_FOUND",
        /// 6.
        AlreadyExists = "ALREADY_EXISTS",
        /// 7.
        PermissionDenied = "PERMISSION_DENIED",
        /// 8.
        ResourceExhausted = "RESOURCE_EXHAUSTED",
        /// 9.
        FailedPrecondition = "FAILED_PRECONDITION",
        /// 10.
        Aborted = "ABORTED",
        /// 11.
        OutOfRange = "OUT_OF_RANGE",
        /// 12.
        Unimplemented = "UNIMPLEMENTED",
        /// 13.
        Internal = "INTERNAL",
        /// 14.
        Unavailable = "UNAVAILABLE",
        /// 15.
        DataLoss = "DATA_LOSS",
        /// 16.
        Unauthenticated = "UNAUTHENTICATED",
        /// The call ended without a status.
        Missing = "none",
    }

    /// Why an HTTP/2 connection to a client was ended: the code of our GOAWAY (RFC 9113 §7).
    Http2Error {
        /// PROTOCOL_ERROR.
        Protocol = "PROTOCOL_ERROR",
        /// FLOW_CONTROL_ERROR.
        FlowControl = "FLOW_CONTROL_ERROR",
        /// STREAM_CLOSED.
        StreamClosed = "STREAM_CLOSED",
        /// FRAME_SIZE_ERROR.
        FrameSize = "FRAME_SIZE_ERROR",
        /// SETTINGS_TIMEOUT.
        SettingsTimeout = "SETTINGS_TIMEOUT",
        /// COMPRESSION_ERROR.
        Compression = "COMPRESSION_ERROR",
        /// ENHANCE_YOUR_CALM; `http2_abuse_total` says what for.
        EnhanceYourCalm = "ENHANCE_YOUR_CALM",
        /// Any other.
        Other = "other",
    }

    /// A step of the drain.
    DrainPhase {
        /// Readiness flips to `draining`.
        MarkDraining = "MarkDraining",
        /// The wait for load balancers in front to notice.
        ReadinessSettle = "ReadinessSettle",
        /// The listeners stop accepting.
        ListenerCancel = "ListenerCancel",
        /// What runs is given time to finish.
        InFlightDrain = "InFlightDrain",
        /// The XDP program is detached.
        XdpDetach = "XdpDetach",
        /// The whole drain.
        Total = "Total",
    }

    /// How a step of the drain ended.
    DrainOutcome {
        /// In time.
        Clean = "clean",
        /// At its deadline.
        TimedOut = "timed_out",
        /// With an error.
        Failed = "failed",
        /// There was nothing to do.
        NotAttempted = "not_attempted",
    }
}

impl StatusClass {
    /// The class of a status code. A code outside 100..=599 has none.
    pub fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::NoResponse,
        }
    }
}

impl DrainPhase {
    /// How this phase can end.
    pub fn outcomes(self) -> &'static [DrainOutcome] {
        match self {
            Self::XdpDetach => DrainOutcome::ALL,
            _ => &[DrainOutcome::Clean, DrainOutcome::TimedOut],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::label::By;
    use super::*;
    use crate::metrics::Counter;

    #[test]
    fn each_value_has_its_own_element() {
        let counters = By::<TlsResult, Counter>::default();
        for (index, result) in TlsResult::ALL.iter().enumerate() {
            counters.of(*result).add(index as u64);
        }
        for (index, result) in TlsResult::ALL.iter().enumerate() {
            assert_eq!(counters.of(*result).value(), index as u64);
            assert_eq!(result.name(), TlsResult::NAMES[index]);
        }
    }

    #[test]
    fn status_classes() {
        for (status, class) in [(101, "1xx"), (204, "2xx"), (304, "3xx"), (499, "4xx"), (599, "5xx")] {
            assert_eq!(StatusClass::of(status).name(), class);
        }
        assert_eq!(StatusClass::of(0), StatusClass::NoResponse);
        assert_eq!(StatusClass::of(u16::MAX), StatusClass::NoResponse);
    }
}

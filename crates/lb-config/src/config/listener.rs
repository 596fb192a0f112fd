//! What the gateway binds, and how it treats what arrives there.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lb_core::filter::{AccessList, RequestIdPolicy};
use lb_core::forwarded::TrustPolicy;
use lb_core::identity::{ListenerId, Transport};
use lb_core::proxy_protocol::ProxyTrust;
use lb_core::words;

use super::{BackendPool, Passthrough, Routing, SocketName};

/// One listener.
#[derive(Clone, PartialEq, Debug)]
pub struct Listener {
    /// What to bind; a name may stand for several addresses.
    pub address: SocketName,
    /// The permissions of the file, where the address is a Unix socket that has one.
    pub socket_mode: u32,
    /// The address as written.
    pub written: String,
    /// What logs and metrics call it: the address as written, and over UDP `/udp` behind it, since TCP and UDP may share an address.
    pub name: String,
    /// What clients speak.
    pub protocol: Protocol,
    /// Certificate and key. Present on `Tls` and `H1s`, and only there.
    pub tls: Option<TlsFiles>,
    /// QUIC settings. Present on `Quic`, and only there.
    pub quic: Option<Quic>,
    /// How QUIC is forwarded without keys. Present on `Passthrough`, and only there.
    pub passthrough: Option<Passthrough>,
    /// What to announce as `Alt-Svc` in responses.
    pub alt_svc: Option<AltSvc>,
    /// Whether clients may speak HTTP/2 without TLS by prior knowledge. Only on `H1`.
    pub h2c: bool,
    /// Whether packets for it are balanced in the kernel.
    pub xdp: bool,
    /// HTTP timeouts and limits.
    pub http: Http,
    /// HTTP/2 limits.
    pub h2_security: H2Security,
    /// WebSocket settings. None = an upgrade request is treated as a plain request.
    pub websocket: Option<WebSocket>,
    /// gRPC settings.
    pub grpc: Option<Grpc>,
    /// Raw forwarding (tcp and tls listeners).
    pub tcp: Tcp,
    /// Forwarding of datagrams (udp listeners).
    pub udp: Udp,
    /// How long running work may take to finish in a drain: the listener's own value, or the runtime's.
    pub drain_timeout: Duration,
    /// The spread of the closes in a drain, never above `drain_timeout`.
    pub drain_jitter: Duration,
    /// Where traffic goes: its own pool, or one that it shares with others. May be empty: see [`Self::starts`].
    pub pool: Arc<BackendPool>,
    /// Which requests go elsewhere; None = none. Only where HTTP is spoken.
    pub routing: Option<Arc<Routing>>,
    /// IDs of requests; None = none. Only where HTTP is spoken.
    pub request_id: Option<RequestIdPolicy>,
    /// How the client of a request is found behind other proxies; None = it is the peer. Only where HTTP is spoken.
    pub client_address: Option<Arc<TrustPolicy>>,
    /// Which clients may connect: those that all lists let in. Only where raw bytes are forwarded.
    pub access: Vec<Arc<AccessList>>,
    /// Which connections pass to backends inside TLS; None = none. Only where clients come inside TLS over TCP.
    pub passing: Option<Arc<Routing>>,
    /// Which peers say at the beginning of a connection for whom they connect; None = none. Only where clients come over TCP.
    pub proxy_protocol: Option<Arc<ProxyTrust>>,
    /// Every other pool that `routing` and `passing` lead to, once.
    pub route_pools: Vec<Arc<BackendPool>>,
}

impl Listener {
    /// What tells it from others.
    pub fn id(&self) -> ListenerId {
        ListenerId { name: self.name.clone(), transport: self.transport() }
    }

    /// The kind of socket that the listener binds: TCP and UDP may share an address.
    pub fn transport(&self) -> Transport {
        self.protocol.transport(&self.address)
    }

    /// Every pool that it leads to, the first of them where nothing else is said.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<BackendPool>> {
        let routes = self.passthrough.iter().flat_map(|passthrough| &passthrough.routes);
        std::iter::once(&self.pool).chain(routes.map(|route| &route.pool)).chain(&self.route_pools)
    }

    /// As [`Self::pools`], to be replaced by pools of the same identity.
    pub fn pools_mut(&mut self) -> impl Iterator<Item = &mut Arc<BackendPool>> {
        let routes = self.passthrough.iter_mut().flat_map(|passthrough| &mut passthrough.routes);
        let routes = routes.map(|route| &mut route.pool);
        std::iter::once(&mut self.pool).chain(routes).chain(&mut self.route_pools)
    }

    /// Whether there is anything behind it. A listener with nothing behind it is not started.
    pub fn starts(&self) -> bool {
        self.pool.has_backends() || self.routing.is_some()
    }

    /// How it relays QUIC whose streams it does not read, if it does.
    pub fn raw_proxy(&self) -> Option<&RawProxy> {
        self.quic.as_ref()?.raw_proxy.as_ref()
    }

    /// What a reload cannot change of a listener that goes on.
    pub fn kind(&self) -> ListenerKind {
        ListenerKind { protocol: self.protocol, is_relay: self.raw_proxy().is_some() }
    }

    /// Whether the gateway reads HTTP on it.
    pub fn is_http(&self) -> bool {
        self.protocol.is_http() && self.raw_proxy().is_none()
    }
}

/// What a reload cannot change of a listener that goes on: one of another kind is another listener at the address, and the connections of the
/// one before end within their drain timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenerKind {
    /// What its clients speak.
    pub protocol: Protocol,
    /// Whether it relays QUIC without reading its streams.
    pub is_relay: bool,
}

words! {
    /// What clients of a listener speak.
    Protocol {
        /// Raw bytes.
        Tcp = "tcp",
        /// Raw bytes inside TLS.
        Tls = "tls",
        /// HTTP/1.1.
        H1 = "h1",
        /// HTTP/1.1 and HTTP/2 inside TLS.
        H1s = "h1s",
        /// HTTP/3, or raw QUIC.
        Quic = "quic",
        /// Datagrams.
        Udp = "udp",
        /// QUIC, forwarded without keys: `[passthrough]`. It stands last, since no `[[listeners]]` may have it.
        Passthrough = "passthrough",
    }
}

impl Protocol {
    /// The kind of socket that carries it at `address`.
    pub fn transport(self, address: &SocketName) -> Transport {
        match self {
            _ if address.unix().is_some() => Transport::Unix,
            Self::Tcp | Self::Tls | Self::H1 | Self::H1s => Transport::Tcp,
            Self::Quic | Self::Udp | Self::Passthrough => Transport::Udp,
        }
    }

    /// Whether connections have IDs that identify them (RFC 9000 §5.1).
    pub fn has_connection_ids(self) -> bool {
        matches!(self, Self::Quic | Self::Passthrough)
    }

    /// Whether the gateway reads HTTP on such a listener, unless it is one of QUIC with a raw proxy.
    pub fn is_http(self) -> bool {
        matches!(self, Self::H1 | Self::H1s | Self::Quic)
    }
}

/// Certificate and key of a TLS listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// PEM chain, leaf first.
    pub cert_path: PathBuf,
    /// PEM private key.
    pub key_path: PathBuf,
    /// How often the session ticket key changes.
    pub ticket_rotation_interval: Duration,
    /// How long an old ticket key stays valid.
    pub ticket_rotation_overlap: Duration,
    /// File of ticket keys shared by a fleet. None = keys of this process.
    pub ticket_key_path: Option<PathBuf>,
    /// Client certificates, where no certificate below has rules of its own.
    pub client_auth: ClientAuth,
    /// Whether backends get the client's certificate in header fields.
    pub client_cert_headers: bool,
    /// Further certificates, chosen by SNI.
    pub certificates: Vec<TlsCertificate>,
}

/// A further certificate of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsCertificate {
    /// PEM chain, leaf first.
    pub cert_path: PathBuf,
    /// PEM private key.
    pub key_path: PathBuf,
    /// The server names that the certificate is for, in lower case; the first label may be `*`. Empty = those in the certificate.
    pub server_names: Vec<String>,
    /// Client certificates for these names; what the block leaves out comes from the listener.
    pub client_auth: ClientAuth,
}

/// The rules for clients' certificates.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientAuth {
    /// Whether a certificate is asked for.
    pub mode: ClientAuthMode,
    /// PEM file of the authorities. Always present unless `mode` is off.
    pub ca_path: Option<PathBuf>,
    /// PEM file of revocation lists.
    pub crl_path: Option<PathBuf>,
}

words! {
    /// Whether clients show a certificate.
    ClientAuthMode {
        /// Clients are not asked for one.
        Off = "off",
        /// Clients are asked for one, and may have none.
        Request = "request",
        /// Without one there is no connection.
        Require = "require",
    }
}

words! {
    /// When a client has to prove its address by a Retry (RFC 9000 §8.1.2).
    QuicRetry {
        /// While many handshakes run.
        Auto = "auto",
        /// Before every handshake.
        Always = "always",
    }
}

/// QUIC settings of a listener. Its certificates stand in [`Listener::tls`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quic {
    /// The 32-byte secret that signs Retry tokens.
    pub retry_secret_path: PathBuf,
    /// When clients have to prove their address.
    pub retry: QuicRetry,
    /// Gateways that forward to the listener without keys, and have had clients prove their addresses.
    pub retry_tokens_from: Vec<IpAddr>,
    /// What stands in each connection ID for balancers that are in front; at most 3 bytes, and none without one.
    pub server_id: Vec<u8>,
    /// Whether requests may come before the handshake is over.
    pub early_data: bool,
    /// How long a connection may be silent.
    pub max_idle_timeout: Duration,
    /// The largest UDP payload that is accepted.
    pub max_recv_udp_payload_size: u64,
    /// Raw relay to QUIC backends (Mode B) in place of HTTP/3.
    pub raw_proxy: Option<RawProxy>,
}

/// Raw QUIC relay (Mode B). Its backends are those of the listener's pool: the one that the block names, or those of the listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawProxy {
    /// The protocols that are taken from what clients offer. Empty = any.
    pub alpn: Vec<String>,
    /// How many datagrams may wait in each direction. 0 = there are none.
    pub dgram_queue_cap: usize,
    /// How many streams of each kind either side of a connection may have open.
    pub max_relay_streams: u64,
}

/// The `Alt-Svc` announcement of an HTTP/3 port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AltSvc {
    /// The UDP port.
    pub h3_port: u16,
    /// How long a client may remember it.
    pub max_age: Duration,
}

/// HTTP timeouts and limits of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Http {
    /// From accept, or from the first byte of a later request, to the end of the request head.
    pub header_timeout: Duration,
    /// How long an upload may make no progress.
    pub body_timeout: Duration,
    /// One whole request, from its head to the end of its response. None = no bound.
    pub total_timeout: Option<Duration>,
    /// How long a response that has begun may be silent. None = for ever.
    pub response_idle_timeout: Option<Duration>,
    /// From the end of the upload to the response head.
    pub head_timeout: Duration,
    /// How long an idle connection waits for its next request.
    pub keepalive_timeout: Duration,
    /// How long a write may make no progress, to a client or to a backend.
    pub write_timeout: Duration,
    /// The largest request body. None = no cap.
    pub max_request_body_bytes: Option<u64>,
    /// The largest response body, which routes alone bound. None = no cap.
    pub max_response_body_bytes: Option<u64>,
    /// How much of a request body is read before a backend is chosen, which routes alone say. 0 = none.
    pub buffer_request_bytes: usize,
    /// The largest request body that is kept so that it can be sent again, which routes alone say.
    pub replay_bytes: usize,
    /// The largest request or response head.
    pub max_header_bytes: usize,
    /// How many fields a head may have.
    pub max_header_count: usize,
    /// The longest request target.
    pub max_uri_bytes: usize,
    /// How many further connections or backends are tried for one request.
    pub retries: u32,
}

/// HTTP/2 limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct H2Security {
    /// Reset streams that may wait to be accepted.
    pub max_pending_accept_reset_streams: usize,
    /// Streams that may be reset for the peer's errors.
    pub max_local_error_reset_streams: usize,
    /// How wide the budgets of the ledger are that have no key of their own.
    pub flood_budget_percent: u32,
    /// Streams that may run at once.
    pub max_concurrent_streams: u32,
    /// The largest decoded header list.
    pub max_header_list_size: u32,
    /// Unsent bytes that a stream may hold.
    pub max_send_buf_size: usize,
    /// How often an idle connection is pinged. None = never.
    pub keep_alive_interval: Option<Duration>,
    /// How long a ping may stay unanswered.
    pub keep_alive_timeout: Duration,
    /// The first window of a stream.
    pub initial_stream_window_size: u32,
    /// The first window of a connection.
    pub initial_connection_window_size: u32,
}

/// WebSocket settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebSocket {
    /// False = as if the block were absent.
    pub enabled: bool,
    /// How long both sides may be silent.
    pub idle_timeout: Duration,
    /// The largest message, and the largest frame.
    pub max_message_size_bytes: usize,
    /// Pings a client may send in a window.
    pub ping_rate_limit_per_window: u32,
    /// The length of that window.
    pub ping_rate_limit_window: Duration,
    /// How long one frame may take to arrive.
    pub read_frame_timeout: Duration,
    /// WebSocket over HTTP/2 (RFC 8441).
    pub h2_extended_connect: bool,
    /// WebSocket over HTTP/3 (RFC 9220).
    pub h3_extended_connect: bool,
}

/// gRPC settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grpc {
    /// False = as if the block were absent.
    pub enabled: bool,
    /// The longest deadline that is passed on.
    pub max_deadline: Duration,
    /// Whether the gateway answers health checks itself.
    pub health_synthesized: bool,
}

/// Forwarding of datagrams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Udp {
    /// How long a flow may be silent.
    pub idle_timeout: Duration,
    /// How many flows there may be at once.
    pub max_flows: usize,
    /// How many of them may be of one client address. None = any number.
    pub max_flows_per_source: Option<u32>,
    /// How many datagrams answer one of the client's, after which a flow ends. None = any number.
    pub replies: Option<u32>,
    /// Whether a flow goes on at another backend when its own is not used any more.
    pub move_flows: bool,
    /// Whether the first datagram of a flow begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// How many times as many bytes as a client has sent it may get. None = any number.
    pub max_amplification: Option<u32>,
}

/// Raw forwarding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tcp {
    /// How long both directions may be silent. None = for ever.
    pub idle_timeout: Option<Duration>,
    /// Whether bulk data moves with splice(2).
    pub splice: bool,
    /// How many backends are tried before the client is closed.
    pub connect_tries: u32,
}

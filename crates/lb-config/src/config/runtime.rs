//! Settings of the whole process.

use std::num::NonZeroUsize;
use std::time::Duration;

use lb_core::words;

/// `[runtime]`.
#[derive(Clone, PartialEq, Debug)]
pub struct RuntimeSettings {
    /// Worker threads. None = one for each core that the process may use.
    pub workers: Option<NonZeroUsize>,
    /// What moves the bytes of TCP connections.
    pub io_backend: IoBackend,
    /// How long running work may take to finish in a drain.
    pub drain_timeout: Duration,
    /// How long `/readyz` answers 503 before the listeners stop accepting.
    pub readiness_settle: Duration,
    /// The spread of the closes in a drain, never above `drain_timeout`.
    pub drain_jitter: Duration,
    /// How long a TLS handshake over TCP may take.
    pub handshake_timeout: Duration,
    /// TLS handshakes with clients that a worker runs at once.
    pub max_handshakes_in_flight: u32,
    /// Of those, how many the clients of one network may have.
    pub max_handshakes_per_network: u32,
    /// How long a connect to a backend may take.
    pub connect_timeout: Duration,
    /// Connections that each listener may hold at once.
    pub max_inflight_connections: u32,
    /// Connections that one client address may hold at once.
    pub per_ip_connection_cap: u32,
    /// Bytes that QUIC may hold for its peers, over all workers.
    pub quic_buffer_bytes: u64,
    /// What happens to header names with an underscore.
    pub header_underscore_policy: UnderscorePolicy,
    /// Requests on one HTTP/1.1 connection. 0 = no cap.
    pub max_keepalive_requests: u32,
    /// Requests on one HTTP/2 connection. 0 = no cap.
    pub max_requests_per_h2_connection: u32,
    /// Requests on one HTTP/3 connection. 0 = no cap.
    pub max_requests_per_h3_connection: u32,
    /// `[runtime.watchdog]`.
    pub watchdog: Watchdog,
    /// `SO_RCVBUF` of client connections; `None` leaves it to the kernel.
    pub receive_buffer: Option<NonZeroUsize>,
    /// `SO_SNDBUF` of client and backend connections; `None` leaves it to the kernel.
    pub send_buffer: Option<NonZeroUsize>,
    /// `[runtime.tls] tls13_only`.
    pub tls13_only: bool,
    /// The `xdp_*` keys.
    pub xdp: Xdp,
}

/// `[runtime.watchdog]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watchdog {
    /// From the first byte of a request head to its end.
    pub header_deadline: Duration,
    /// The lowest average rate of an upload, in bytes a second. 0 = any.
    pub body_progress_min_bps: u64,
    /// How often the rate is looked at.
    pub sweep_interval: Duration,
}

/// The `xdp_*` keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Xdp {
    /// Whether the program is attached.
    pub enabled: bool,
    /// The interface; always present when enabled.
    pub interface: Option<String>,
    /// How it is attached.
    pub mode: XdpMode,
    /// New flows a second on one core. 0 = no cap.
    pub new_flow_cap_per_sec_per_cpu: u32,
}

words! {
    /// What moves the bytes of TCP connections.
    IoBackend {
        /// io_uring where the machine has all that is needed, otherwise epoll.
        Auto = "auto",
        /// io_uring or nothing.
        IoUring = "io_uring",
        /// epoll.
        Epoll = "epoll",
    }
}

words! {
    /// What happens to a request with an underscore in a header name.
    UnderscorePolicy {
        /// It is answered 400.
        Reject = "reject",
        /// The header is left out.
        Drop = "drop",
        /// The header passes.
        Allow = "allow",
    }
}

words! {
    /// How the XDP program is attached.
    XdpMode {
        /// The best that the driver offers.
        Auto = "auto",
        /// In the driver.
        Native = "native",
        /// In the generic path of the kernel.
        Skb = "skb",
        /// In the network card.
        Hw = "hw",
    }
}

//! The blocks outside `[[listeners]]`.

use super::key::{BYTES, MS, S, U64};
use super::{Block, Key, On, Text};
use crate::config::{IoBackend, UnderscorePolicy, XdpMode};

/// The largest buffer of a socket: the kernel doubles the value that it is given, and counts in 32 bits.
const MAX_BUFFER: u64 = 1 << 29;

pub(super) static RUNTIME: Block = Block {
    path: "runtime",
    doc: "The process: threads, drain, and the limits that guard it.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("workers", 1, 1024, "threads")
            .or_else("the cores that the process may use")
            .restart("Worker threads. Each has its own sockets, backend connections and buffers."),
        Key::word("io_backend", IoBackend::WORDS).or_word("auto").restart(
            "What moves the bytes of TCP connections. `auto` takes io_uring where all that it needs works, and otherwise epoll, with a \
             line in the log that says what was missing; with `io_uring` the process does not start then.",
        ),
        Key::integer("drain_timeout_ms", 100, 300_000, MS)
            .or(10_000)
            .live("How long running work may take to finish in a drain."),
        Key::integer("readiness_settle_ms", 0, 30_000, MS)
            .or(11_000)
            .live("How long `/readyz` says 503 in a drain before the listeners stop accepting."),
        Key::integer("drain_jitter_ms", 0, 300_000, MS)
            .or_else("a quarter of `drain_timeout_ms`")
            .live(
                "The ends of HTTP connections are spread over this time in a drain. At most `drain_timeout_ms`. More than half of \
                 that counts as half.",
            ),
        Key::integer("handshake_timeout_ms", 100, 60_000, MS)
            .or(5000)
            .live("How long a TLS handshake over TCP may take; applies to tls and h1s listeners."),
        Key::integer("max_handshakes_in_flight", 1, 65_536, "handshakes").or(512).live(
            "How many TLS handshakes with clients one worker runs at once; a connection beyond that is closed before any \
             key exchange.",
        ),
        Key::integer("max_handshakes_per_network", 1, 65_536, "handshakes")
            .or_else("half of `max_handshakes_in_flight`, rounded up")
            .live(
                "How many of them the clients of one network may have while no others want any: of one /24 in IPv4, of one /64 in IPv6. \
                 The same part of what others leave is what the next network may have, so that a few together do not have \
                 all. Raise it where all clients come through a few load balancers. Clients of a Unix socket are in no network, and are not \
                 bound by it.",
            ),
        Key::integer("connect_timeout_ms", 100, 60_000, MS)
            .or(5000)
            .live("How long a connect to a backend may take, on every kind of listener."),
        Key::integer("max_inflight_connections", 100, 2_000_000, "connections")
            .or(65_536)
            .live("How many connections each listener may hold at once."),
        Key::integer("per_ip_connection_cap", 1, 2_000_000, "connections")
            .or(1024)
            .live("How many TCP connections and flows of datagrams one client address may hold at once. Clients of a Unix socket have no address, and are not counted."),
        Key::integer("quic_buffer_bytes", 1_048_576, U64, BYTES).or(1_073_741_824).live(
            "What QUIC may hold in memory for its peers at once, over all workers, which have equal parts of it: what clients and backends have sent and \
             the other side has not taken, and what was sent and is not acknowledged. Where it is used up, no QUIC connection of a client begins, \
             and one that holds 32768 bytes or more loses the datagrams that come, until there is room again.",
        ),
        Key::word("header_underscore_policy", UnderscorePolicy::WORDS).or_word("reject").live(
            "What happens to header names with an underscore: `reject` answers 400, `drop` leaves the header out, \
             `allow` lets it pass.",
        ),
        Key::integer("max_keepalive_requests", 0, 10_000_000, "requests")
            .or(1000)
            .live("Requests on one HTTP/1.1 connection; the last answer says `Connection: close`. 0 = no cap."),
        Key::integer("max_requests_per_h2_connection", 0, 10_000_000, "requests")
            .or_else("1000, or `max_keepalive_requests` where that is more or 0")
            .live(
                "Requests on one HTTP/2 connection; then GOAWAY comes, and what is on its way by then is still served. \
                 0 = no cap.",
            ),
        Key::integer("max_requests_per_h3_connection", 0, 10_000_000, "requests")
            .or(1000)
            .live("Requests on one HTTP/3 connection; applies to quic listeners. 0 = no cap."),
        Key::zero_or("receive_buffer_bytes", 4096, MAX_BUFFER, BYTES).or(262_144).restart(
            "Bytes asked of the kernel for what a client has sent and the gateway has not read (`SO_RCVBUF`), on every TCP listener. A fixed \
             size saves the gateway 8 to 15 % of the CPU of small requests, and bounds uploads: a connection moves half of it to \
             nearly all of it in a round trip, as the kernel has it: by default 10 to 20 Mbit/s at 100 ms. 0 leaves the size to the kernel, which widens \
             the window as the path asks for it, up to `net.ipv4.tcp_rmem`. `net.core.rmem_max` caps what is asked for.",
        ),
        Key::zero_or("send_buffer_bytes", 4096, MAX_BUFFER, BYTES).or(262_144).restart(
            "Bytes asked of the kernel for what a client or a backend has not acknowledged (`SO_SNDBUF`). It bounds downloads to \
             clients and uploads to backends over long paths in the same way. 0 leaves the size to the kernel, up to \
             `net.ipv4.tcp_wmem`; a slow reader may then hold more memory.",
        ),
        Key::flag("xdp_enabled", false).restart("Whether the XDP programs are attached, which balance `[[xdp.services]]` in the kernel; needs `xdp_interface`, Linux 5.15, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON or CAP_SYS_ADMIN: where they \
             cannot be had, the process does not start. Without it the other XDP keys do nothing, and a warning says so."),
        Key::text("xdp_interface", Text::Any).restart("The network interface to attach to: that by which clients' packets come. More stand in `[xdp] interfaces`."),
        Key::word("xdp_mode", XdpMode::WORDS).or_word("auto").restart(
            "How they are attached: `native` in the driver, `skb` in the kernel's generic path, `hw` in the card; `auto` in the driver, or else in \
             the generic path, with a warning.",
        ),
        Key::zero_or("xdp_new_flow_cap_per_sec_per_cpu", 1000, 10_000_000, "flows")
            .or(125_000)
            .restart("New flows a second that one core remembers. What is beyond is forwarded by the table of its service alone, and dropped in mode `nat`. 0 = no cap."),
        Key::block("watchdog", &WATCHDOG),
        Key::block("tls", &RUNTIME_TLS),
    ],
};

static WATCHDOG: Block = Block {
    path: "runtime.watchdog",
    doc: "Clients that are slow on purpose.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("header_deadline_ms", 100, 60_000, MS)
            .or(5000)
            .live("From the first byte of a request head to its end."),
        Key::integer("body_progress_min_bps", 0, 10_000_000, "bytes a second")
            .or(64)
            .live("The lowest average rate of an upload, checked every `sweep_interval_ms`. 0 = any rate."),
        Key::integer("sweep_interval_ms", 100, 60_000, MS)
            .or(1000)
            .live("How often upload rates are checked."),
    ],
};

static RUNTIME_TLS: Block = Block {
    path: "runtime.tls",
    doc: "TLS on all listeners.",
    on: On::EVERYWHERE,
    keys: &[Key::flag("tls13_only", false).live("Whether TLS 1.2 is refused.")],
};

pub(super) static POOL: Block = Block {
    path: "pool",
    doc: "Idle connections to backends, kept to be used again.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("per_peer_max", 0, 65_536, "connections")
            .or(8)
            .live("Idle connections that each worker keeps for one backend. 0 = none is used again."),
        Key::integer("total_max", 0, 1_048_576, "connections")
            .or(256)
            .live("Idle connections that each worker keeps in all, those that linger included; or as many as it had requests at once in the last seconds, if that is more."),
        Key::integer("idle_timeout_ms", 1, U64, MS).or(60_000).live("How long a connection may be idle."),
        Key::integer("max_age_ms", 1, U64, MS)
            .or(300_000)
            .live("How old a connection may be when it is used again."),
        Key::integer("linger_ms", 0, U64, MS).or(1000).live(
            "How long a surplus idle connection waits before it is closed, so that a busy pool does not churn.",
        ),
    ],
};

pub(super) static DNS: Block = Block {
    path: "dns",
    doc: "Resolution of backend and listener names.",
    on: On::EVERYWHERE,
    keys: &[
        Key::texts("servers", Text::DnsServer).or_else("the system's").restart("The servers to ask."),
        Key::integer("min_ttl_seconds", 0, 86_400, S).or(1).restart("A shorter TTL is raised to this."),
        Key::integer("max_ttl_seconds", 1, 86_400, S)
            .or(300)
            .restart("A longer TTL is lowered to this; at least `min_ttl_seconds`."),
        Key::integer("negative_ttl_seconds", 0, 86_400, S).or(5).restart("How long a failure is remembered."),
        Key::integer("timeout_ms", 1, 60_000, MS)
            .or(5000)
            .restart("How long one look-up may take, with its second try at half of the time."),
    ],
};

pub(super) static OBSERVABILITY: Block = Block {
    path: "observability",
    doc: "Metrics, health and logs.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("metrics_bind", Text::SocketAddrOrOff).or_else("127.0.0.1:9090").restart(
            "Where the admin port listens (`/metrics`, `/status`, `/livez`, `/readyz`, `/startupz`, `/healthz`). Anything but a \
             loopback address needs both keys of `[admin]`. An address written here must be free; the default one is \
             left out, with a warning, when another process has it.",
        ),
        Key::text("access_log", Text::Path)
            .or_else("off")
            .restart("Where a line for each request goes: `\"stdout\"`, or a file, which is appended to."),
        Key::text("access_log_format", Text::AccessLogFormat).or_else("`\"json\"`").restart(
            "How a line is written: `json`, `combined` as nginx and Apache have it, or a text in which `${FIELD}` stands for a value. In \
             text, what is absent is `-`; quotes, backslashes and all bytes of peers but printable ASCII stand as `\\xNN`. The fields are \
             those of `access_log_fields` but `tls`.",
        ),
        Key::texts("access_log_fields", Text::AccessField).or_else("all").restart(
            "What a JSON line has, in this order: `time`, `listener`, `client`, `method`, `target`, `host`, `version`, `tls`, `status`, \
             `grpc_status`, `bytes_in`, `bytes_out`, `duration_seconds`, `backend`, `reason`, `route`, `retries`, `request_id`, \
             `trace_id`, `user_agent`, `referer`, which are all unless others are chosen; besides `time_local`, `client_ip`, `tls_version`, `alpn` and \
             `server_name`. Only with the format `json`.",
        ),
        Key::text("qlog_dir", Text::Path).or_else("off").restart(
            "The directory for logs of single QUIC connections from clients in the qlog format, a file for each, which is named after its \
             connection ID and has at most 16 MiB. At most 64 connections are logged at a time. Nothing removes old files.",
        ),
        Key::integer("qlog_one_in", 1, 1_000_000_000, "connections")
            .or(1000)
            .restart("With `qlog_dir`: one of so many QUIC connections of the process is logged."),
        Key::integer("max_exported_backends", 0, 100_000, "backends").or(500).live(
            "How many backends have metric series of their own, of all pools together, in the order in which they are first used. \
             All others of a pool are added up as `backend=\"other\"`. One with all its series takes about 4 KB of a scrape.",
        ),
    ],
};

pub(super) static ADMIN: Block = Block {
    path: "admin",
    doc: "Access to the admin port.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("api_token_hash", Text::Sha256)
            .or_else("no token is asked for")
            .restart("The SHA-256 of the bearer token, as 64 hex digits."),
        Key::flag("allow_non_loopback", false)
            .restart("Whether the admin port may listen on an address that other machines reach."),
        Key::flag("page", false).restart(
            "Whether the admin port shows the status page at `/`. With it, clients on this machine that name an IP address or `localhost` \
             as the host read `/status` and `/status/events` without the token; what the page changes needs it all the same.",
        ),
    ],
};

pub(super) static SECURITY: Block = Block {
    path: "security",
    doc: "Strictness of checks.",
    on: On::EVERYWHERE,
    keys: &[
        Key::flag("strict_te", false).live(
            "Whether a request whose `Transfer-Encoding` names another registered coding than `chunked`, such as gzip, is answered \
             400 like all others that are wrong there, instead of 501. It is refused either way.",
        ),
        Key::flag("group_readable_keys", false).live(
            "Whether files of private keys, ticket keys and cookie keys may be readable by their group (mode 0640 or 0440), as \
             secrets of Kubernetes are. Others may never have access. Counts from the next time that keys are read.",
        ),
    ],
};

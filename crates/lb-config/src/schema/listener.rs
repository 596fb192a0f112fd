//! `[[listeners]]` and the blocks inside it.

use super::http::{GRPC, H2_SECURITY, HTTP, WEBSOCKET};
use super::key::{BYTES, MS, S, U32, U64};
use super::{Block, Key, On, Text, client, filter, pool, route};
use crate::config::{BackendProtocol, ClientAuthMode, Protocol, QuicRetry};

const TLS_PROTOCOLS: &[Protocol] = &[Protocol::Tls, Protocol::H1s];
const RAW_PROTOCOLS: &[Protocol] = &[Protocol::Tcp, Protocol::Tls];
const UDP_PROTOCOLS: &[Protocol] = &[Protocol::Udp];

pub(crate) static LISTENERS: Block = Block {
    path: "listeners",
    doc: "One socket address that clients reach, and the backends behind it. A listener without backends is allowed, \
          is not started, and is named in a warning; giving it backends later is like adding a listener.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("address", Text::SocketName).required().live(
            "What to bind: an IP address or a name, and a port; IPv6 in brackets. `[::]` takes IPv6 alone: for both families write a listener at \
             `0.0.0.0` and one at `[::]`. Or a Unix socket, with the absolute path of its file (`unix:/run/app.sock`) or a name in the abstract \
             namespace (`unix:@name`), not for quic and udp. With the transport (TCP, UDP or Unix) it is \
             the listener's identity in reloads, so two listeners of one transport may not share it.",
        ),
        Key::text("socket_mode", Text::Mode).or_else("`0660`").live(
            "The permissions of the file of a Unix socket: who may write to the file may connect. The file belongs to the user and the group that \
             the gateway runs as. Only where `address` is a Unix socket with a path.",
        ),
        Key::hinted("protocol", PROTOCOLS, PROTOCOL_HINTS).required().live(
            "What clients speak: `tcp` raw bytes, `tls` raw bytes inside TLS, `h1` HTTP/1.1, `h1s` HTTP/1.1 and HTTP/2 \
             inside TLS, `quic` HTTP/3 or raw QUIC, `udp` datagrams of any kind.",
        ),
        Key::flag("h2c", false).live(
            "Whether clients may speak HTTP/2 without TLS, by prior knowledge: their first bytes tell. On h1 listeners only; h1s \
             listeners offer HTTP/2 by ALPN.",
        ),
        Key::flag("xdp", false).live(
            "Whether packets for a tcp or udp listener are balanced in the kernel, as by a service of `[[xdp.services]]` in mode `nat` at the listener's address, which must be an IP \
             address of one host. The listener serves what the kernel does not take: packets that come by interfaces without XDP, connections that were there before, and new ones while no \
             backend can be had there. What the kernel takes has the pool's backends, weights, health checks and drains, and with `hash_key = \"source_address\"` one backend for each client \
             address; other policies, limits, timeouts and caps of listener and pool do not apply to it.",
        ),
        Key::integer("drain_timeout_ms", 100, 300_000, MS).or_else("that of `[runtime]`").live(
            "How long the running work of this listener may take to finish in a drain.",
        ),
        Key::integer("drain_jitter_ms", 0, 300_000, MS)
            .or_else("that of `[runtime]`, at most the drain timeout")
            .live(
                "The ends of HTTP connections are spread over this time in a drain. At most the drain timeout that holds here. More \
                 than half of that counts as half.",
            ),
        Key::text("pool", Text::NotBlank)
            .or_else("the listener's own `[[listeners.backends]]`")
            .live("The name of the `[pools.NAME]` where traffic goes. Not together with `[[listeners.backends]]`."),
        Key::texts("route_tables", Text::NotBlank)
            .or_else("none")
            .live("The names of the `[[routes.NAME]]` tables that requests are looked up in, besides `[[listeners.routes]]`."),
        Key::blocks("routes", &route::OWN_ROUTES),
        Key::blocks("virtual_hosts", &route::VIRTUAL_HOSTS),
        Key::block("paths", &route::PATHS),
        Key::block("request_id", &filter::REQUEST_ID),
        Key::texts("policies", Text::NotBlank)
            .or_else("none")
            .live("The names of the `[policies.NAME]` that hold for all requests, with a route or without. On tcp and tls listeners they may have `access` alone, which then holds for connections; on other listeners that do not speak HTTP there are none."),
        Key::block("client_address", &client::CLIENT_ADDRESS),
        Key::block("proxy_protocol", &client::PROXY_PROTOCOL),
        Key::block("tls", &TLS),
        Key::block("quic", &QUIC),
        Key::block("alt_svc", &ALT_SVC),
        Key::block("http", &HTTP),
        Key::block("tcp", &TCP),
        Key::block("udp", &UDP),
        Key::block("h2_security", &H2_SECURITY),
        Key::block("websocket", &WEBSOCKET),
        Key::block("grpc", &GRPC),
        Key::blocks("backends", &BACKENDS),
        Key::block("sticky", &pool::OWN_STICKY),
        Key::block("health", &pool::OWN_HEALTH),
        Key::block("outlier", &pool::OWN_OUTLIER),
        Key::block("limits", &pool::OWN_LIMITS),
        Key::block("retry", &pool::OWN_RETRY),
        Key::block("discovery", &pool::OWN_DISCOVERY),
    ],
};

/// All but the last, which has a block of its own.
const PROTOCOLS: &[&str] = match Protocol::WORDS {
    [others @ .., _passthrough] => others,
    [] => &[],
};

const PROTOCOL_HINTS: &[(&str, &str)] = &[
    ("http", "HTTP/1.1 is \"h1\", over TLS \"h1s\""),
    ("https", "HTTP over TLS is \"h1s\""),
    ("http1", "HTTP/1.1 is \"h1\", over TLS \"h1s\""),
    ("h2", "HTTP/2 is served by \"h1s\" listeners, and without TLS by \"h1\" ones with h2c = true"),
    ("http2", "HTTP/2 is served by \"h1s\" listeners, and without TLS by \"h1\" ones with h2c = true"),
    ("h2c", "HTTP/2 without TLS is served by \"h1\" listeners with h2c = true"),
    ("h3", "HTTP/3 is served by \"quic\" listeners"),
    ("http3", "HTTP/3 is served by \"quic\" listeners"),
    ("grpc", "gRPC is served by \"h1s\" listeners with [listeners.grpc]"),
    ("ws", "WebSocket is served by \"h1\" listeners with [listeners.websocket]"),
    ("wss", "WebSocket over TLS is served by \"h1s\" listeners with [listeners.websocket]"),
    ("ssl", "raw bytes inside TLS are \"tls\", HTTP over TLS is \"h1s\""),
    ("dns", "DNS over UDP is carried by \"udp\" listeners, over TCP by \"tcp\""),
    ("dtls", "datagrams of any kind are carried by \"udp\" listeners"),
    ("passthrough", "it is a block of its own, [passthrough]"),
    ("unix", "a Unix socket is bound by address = \"unix:/run/app.sock\", whatever the protocol"),
];

static BACKENDS: Block = Block {
    path: "listeners.backends",
    doc: "Where the listener sends its traffic: a pool of its own, in place of `pool`. Picks are spread by weight. The \
          protocols of backends may be mixed.",
    on: On::EVERYWHERE,
    keys: &BACKEND_KEYS,
};

const BACKEND_PROTOCOL_HINTS: &[(&str, &str)] = &[
    ("http", "HTTP/1.1 is \"h1\", over TLS with tls = true"),
    ("https", "HTTP over TLS is \"h1\" or \"h2\" with tls = true"),
    ("http1", "HTTP/1.1 is \"h1\""),
    ("h1s", "HTTP over TLS is \"h1\" or \"h2\" with tls = true"),
    ("h2c", "HTTP/2 without TLS is \"h2\""),
    ("http2", "HTTP/2 is \"h2\", over TLS with tls = true"),
    ("http3", "HTTP/3 is \"h3\""),
    ("grpc", "gRPC is carried by \"h2\""),
    ("tls", "raw bytes inside TLS are \"tcp\" with tls = true"),
    ("ssl", "raw bytes inside TLS are \"tcp\" with tls = true"),
    ("udp", "what a backend of a \"udp\" listener is reached by follows from the listener: leave it out"),
    ("unix", "a Unix socket is reached by address = \"unix:/run/app.sock\", whatever the protocol"),
];

/// The keys of a backend, wherever it stands.
pub(super) static BACKEND_KEYS: [Key; 12] = [
    Key::text("address", Text::SocketName).required().live(
        "Where it listens: a name or an IP address and a port, or a Unix socket (`unix:/run/app.sock`, `unix:@name` in the abstract namespace). \
         A name is resolved, all its addresses are used, and it is resolved again as its TTL runs out. Unix sockets stand in the configuration \
         alone: neither a discovered list nor the admin port may name one.",
    ),
    Key::hinted("protocol", BackendProtocol::WORDS, BACKEND_PROTOCOL_HINTS).or_word("tcp").live(
        "What it speaks. On HTTP listeners `tcp` means `h1`; on tcp, tls and udp listeners bytes are carried as they are.",
    ),
    Key::integer("weight", 0, U32, "")
        .or(1)
        .live("Its share of the picks, relative to the other backends. 0 = never picked. Where all are 0 requests are answered 503 until one rises, and a warning says so."),
    Key::integer("priority", 0, 127, "").or(0).live(
        "Which group of the pool it belongs to. A group is used while too few backends of those with lower numbers are well.",
    ),
    Key::flag("tls", false).live(
        "Whether the connection to it is inside TLS, on every kind of TCP listener; not behind a udp listener. An h3 backend always is, and does not \
         have this key. The keys below need it, or h3.",
    ),
    Key::text("tls_ca_path", Text::Path).or_else("the system's; h3 has no default").live(
        "PEM file of the certificates to trust. An authority vouches for what it has signed. Every certificate, authority or not, stands \
         for itself: a backend that shows exactly this one, self-signed or not, is taken if its dates and its name are right; one that \
         is no authority vouches for no other. An h3 backend must have it unless `tls_verify_peer` is false.",
    ),
    Key::text("tls_verify_hostname", Text::NotBlank)
        .or_else("the host of `address`")
        .live("The name that the certificate must carry; also the SNI. Required with `tls` where `address` is a Unix socket."),
    Key::flag("tls_verify_peer", true)
        .live("Whether the certificate is checked. Without it anyone on the way can be the backend."),
    Key::text("tls_client_cert_path", Text::Path).live(
        "PEM chain of the certificate that the gateway shows to the backend, leaf first. Not on h3 backends.",
    ),
    Key::text("tls_client_key_path", Text::Path).live(
        "PEM private key of that certificate; the file may not be readable by group or others, but see `[security] group_readable_keys`.",
    ),
    Key::word("proxy_protocol", &["v1", "v2"]).or_else("nothing").live(
        "Whether it is told the client at the beginning of each connection, before TLS, by a header of the PROXY protocol of that version; the address \
         is the one that routes and the log have. A connection then carries requests of one client over one connection of it, and ends with that; or one raw \
         connection. It is used for no other client, were that behind the same proxy. Probes say that they come from the gateway itself. Not on h2 and h3 backends, nor behind udp listeners, which have a key of their own.",
    ),
    Key::texts("proxy_tlvs", Text::ProxyTlv).or_else("none").live(
        "What such a header says besides, with `proxy_protocol = \"v2\"`: `authority` the server name that the client asked for (SNI), `alpn` the \
         protocol that was chosen, `ssl` the version of TLS and the common name of the client's certificate, `unique_id` a name for the \
         connection.",
    ),
];

// The keys of certificates, tickets and client certificates, for listeners inside TLS and over QUIC.
const CERT_PATH: Key = Key::text("cert_path", Text::Path).required().live(
    "PEM chain, leaf first, at most 6 certificates. Shown to clients whose SNI names no other certificate.",
);
const KEY_PATH: Key = Key::text("key_path", Text::Path).required().live(
            "PEM private key (PKCS#8, SEC1 or PKCS#1); the file may not be readable by group or others, but see `[security] \
             group_readable_keys`.",
        );
const TICKET_INTERVAL: Key = Key::integer("ticket_rotation_interval_seconds", 1, U64, S)
    .or(86_400)
    .live("How often the session ticket key changes, where there is no `ticket_key_path`.");
const TICKET_OVERLAP: Key = Key::integer("ticket_rotation_overlap_seconds", 0, U64, S)
    .or(86_400)
    .live("How long tickets of the key before are still taken.");
const TICKET_KEY_PATH: Key = Key::text("ticket_key_path", Text::Path).or_else("keys of this process only").live(
            "File of session ticket keys, 80 or 48 random bytes each, newest first: the first key seals, all of them open. \
             Instances that share the file resume each other's sessions, and a restart keeps them. The file may not be \
             readable by group or others; SIGUSR1 reads it again.",
        );
const CLIENT_AUTH: Key = Key::word("client_auth", ClientAuthMode::WORDS).or_word("off").live(
            "Client certificates: `off` asks for none, `request` takes one that verifies or none at all, `require` ends the \
             handshake without one.",
        );
const CLIENT_CA_PATH: Key = Key::text("client_ca_path", Text::Path)
            .live("PEM file of the certificate authorities that clients' certificates must come from. A client's own certificate may stand in it \
             too, and is then trusted for itself alone. Required unless `client_auth` is off.");
const CLIENT_CRL_PATH: Key = Key::text("client_crl_path", Text::Path).live(
    "PEM file of revocation lists. With it, every certificate of a client's chain must be covered by a list; \
             one that stands in `client_ca_path` for itself is not taken then.",
);
const CLIENT_CERT_HEADERS: Key = Key::flag("client_cert_headers", false).live(
            "Whether backends are told the client certificate in `X-Client-Cert-Subject` and `X-Client-Cert-SHA256`. On h1s \
             listeners; clients' own headers of these names are dropped wherever `client_auth` is on.",
        );

static TLS: Block = Block {
    path: "listeners.tls",
    doc: "Certificate and key. SIGUSR1 reads the files again; a file that cannot be used leaves what runs in force.",
    on: On::exactly(TLS_PROTOCOLS),
    keys: &[
        CERT_PATH,
        KEY_PATH,
        TICKET_INTERVAL,
        TICKET_OVERLAP,
        TICKET_KEY_PATH,
        CLIENT_AUTH,
        CLIENT_CA_PATH,
        CLIENT_CRL_PATH,
        CLIENT_CERT_HEADERS,
        Key::blocks("certificates", &CERTIFICATES),
    ],
};

static CERTIFICATES: Block = Block {
    path: "listeners.tls.certificates",
    doc: "A further certificate, chosen by SNI. An exact name goes before a wildcard, and earlier blocks before later ones.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("cert_path", Text::Path).required().live("PEM chain, leaf first, at most 6 certificates."),
        Key::text("key_path", Text::Path)
            .required()
            .live("PEM private key; the file may not be readable by group or others."),
        Key::texts("server_names", Text::ServerName)
            .or_else("the DNS names in the certificate")
            .live("The server names that it is for; `*.example.org` is any one label before `example.org`."),
        Key::word("client_auth", ClientAuthMode::WORDS)
            .or_else("that of the listener")
            .live("Client certificates for these server names."),
        Key::text("client_ca_path", Text::Path)
            .or_else("that of the listener")
            .live("PEM file of the certificate authorities that clients' certificates must come from."),
        Key::text("client_crl_path", Text::Path)
            .or_else("that of the listener")
            .live("PEM file of revocation lists."),
    ],
};

static QUIC: Block = Block {
    path: "listeners.quic",
    doc: "Certificate, key and transport limits of a QUIC listener. Certificates, tickets and client certificates are as in \
          `[listeners.tls]`.",
    on: On::exactly(&[Protocol::Quic]),
    keys: &[
        CERT_PATH,
        KEY_PATH,
        Key::text("retry_secret_path", Text::Path).required().live(
            "File of the 32 bytes that sign Retry tokens and seal connection IDs; made with mode 0600 when it does not exist. Instances that \
             share it take each other's tokens.",
        ),
        Key::word("retry", QuicRetry::WORDS).or_word("auto").live(
            "When a client has to prove its address by a Retry before anything is kept of it: `always`, or `auto` while a quarter of \
             `runtime.max_handshakes_in_flight` is taken.",
        ),
        Key::texts("retry_tokens_from", Text::Ip).or_else("none").live(
            "Addresses of gateways that forward QUIC to this listener without keys (`[passthrough]`) and send Retry for it, with the secret of \
             `retry_secret_path`. Tokens that come from there are taken whatever client they were made for, since that gateway has compared the \
             client's address already.",
        ),
        Key::text("server_id", Text::ServerId).or_else("none").restart(
            "1 to 3 bytes in hex digits that stand in the clear in each connection ID of this gateway (draft-ietf-quic-load-balancers-21, config ID 0, with a \
             nonce of 16 bytes). A balancer in front of several gateways (`[xdp.services.quic_lb]`, `[passthrough.quic_lb]`) leads a connection by it to the gateway that has it, also \
             when the address of its client changes. Connections whose IDs had another one are lost with an upgrade that changes it.",
        ),
        Key::flag("early_data", false).live(
            "Whether clients that come back may send requests before the handshake is over (0-RTT). Such bytes can be sent again by anybody who \
             has seen them, so only requests with a safe method and without a body go to a backend early, with `Early-Data: 1` (RFC 8470); all \
             others, and those of clients with certificates, wait for the handshake.",
        ),
        Key::integer("max_idle_timeout_ms", 1, U64, MS)
            .or(30_000)
            .live("How long a connection may be silent."),
        Key::integer("max_recv_udp_payload_size", 1200, U64, BYTES)
            .or(1350)
            .live("The largest UDP payload that is accepted."),
        TICKET_INTERVAL,
        TICKET_OVERLAP,
        TICKET_KEY_PATH,
        CLIENT_AUTH,
        CLIENT_CA_PATH,
        CLIENT_CRL_PATH,
        CLIENT_CERT_HEADERS,
        Key::blocks("certificates", &QUIC_CERTIFICATES),
        Key::block("raw_proxy", &RAW_PROXY),
    ],
};

static QUIC_CERTIFICATES: Block = Block {
    path: "listeners.quic.certificates",
    doc: CERTIFICATES.doc,
    on: On::EVERYWHERE,
    keys: CERTIFICATES.keys,
};

static RAW_PROXY: Block = Block {
    path: "listeners.quic.raw_proxy",
    doc: "Mode B: QUIC is terminated, and each connection goes on as one to a QUIC backend. Streams, datagrams, resets and the codes that \
          connections end with are relayed, and not read. The backend is the one that the block names, or one of `[[listeners.backends]]` \
          or of the pool, all of which then have `protocol = \"h3\"`: they are reached over QUIC. The windows of \
          `[listeners.h2_security]` bound what is held of each connection, on either side.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("backend_addr", Text::HostPort).or_else("the listener's backends, or its pool").live("The backend."),
        Key::text("sni", Text::NotBlank)
            .or_else("none; required with `backend_addr`")
            .live("The server name sent to the backend; its certificate must carry it."),
        Key::text("backend_ca_path", Text::Path)
            .or_else("the system's")
            .live("PEM file of the certificate authorities to trust. The check cannot be switched off."),
        Key::texts("alpn", Text::Alpn).or_else("any protocol").live(
            "The application protocols that are relayed, such as `doq`. A connection has the first that its client offers and that stands \
             here, and the backend is offered that one alone.",
        ),
        Key::integer("dgram_queue_cap", 0, U64, "datagrams").or(1024).live(
            "How many datagrams may wait in each direction of a connection; the newest is dropped beyond that. 0 = no datagrams. More than \
             65536 counts as that.",
        ),
        Key::integer("max_relay_streams", 0, U64, "streams").or(256).live(
            "How many streams of each kind, bidirectional and unidirectional, either side of a connection may have open at once. More than \
             16383 counts as that.",
        ),
    ],
};

static ALT_SVC: Block = Block {
    path: "listeners.alt_svc",
    doc: "Announces an HTTP/3 port in the `Alt-Svc` header of responses. Where no listener serves HTTP/3 nothing is announced, and a \
          warning says so.",
    on: On::used(&[Protocol::H1, Protocol::H1s]),
    keys: &[
        Key::integer("h3_port", 0, 65_535, "").required().live("The UDP port to announce."),
        Key::integer("max_age", 0, U32, S).or(3600).live("How long a client may remember it."),
    ],
};

static TCP: Block = Block {
    path: "listeners.tcp",
    doc: "Forwarding of raw bytes.",
    on: On::only(RAW_PROTOCOLS),
    keys: &[
        Key::integer("idle_timeout_ms", 1, U64, MS)
            .or_else("none: for ever")
            .live("How long both directions may be silent before the connection is closed."),
        Key::flag("splice", true).live("Whether bulk data is moved with splice(2), without copying it."),
        Key::integer("connect_tries", 1, 16, "backends")
            .or(3)
            .live(
                "How many backends are tried before the client is closed, in a pool without `[pools.NAME.retry]`. Connects that are refused \
                 at once do not count, up to 32; with 1 they do.",
            ),
    ],
};

static UDP: Block = Block {
    path: "listeners.udp",
    doc: "Forwarding of datagrams. What one client address and port sends to one local address is a flow; all of it goes to one backend, by the \
          rules of the pool, and what that backend sends back goes to the client, from the address that it had asked. A flow is a connection \
          to `max_inflight_connections`, to `per_ip_connection_cap` and to the pool's `max_connections`. Where a limit leaves no room for a new \
          flow its datagram is dropped; flows that exist go on.",
    on: On::only(UDP_PROTOCOLS),
    keys: &[
        Key::integer("idle_timeout_ms", 1, U64, MS)
            .or(60_000)
            .live("How long a flow may be silent in both directions before it ends. It is found to have ended up to a thirty-second part later."),
        Key::integer("max_flows", 1, 4_000_000, "flows").or(65_536).live(
            "How many flows the listener may have at once. Each needs a file descriptor for each flow beside it that goes to the same backend; where \
             those run out, or the ports of the machine, no new flow begins either.",
        ),
        Key::integer("max_flows_per_source", 0, U32, "flows")
            .or(0)
            .live("How many of them may be of one client address. 0 = as many as `per_ip_connection_cap` leaves."),
        Key::integer("replies", 0, U32, "datagrams").or_else("any number").live(
            "How many datagrams answer one of the client's. When all are answered the flow ends, and what it needed is free at once: with 1 for \
             DNS. More that come while the flow lives are passed on. 0 = none: each datagram is a flow of its own, and what comes back is \
             dropped, as for syslog.",
        ),
        Key::flag("move_flows", true).live(
            "Whether a flow whose backend is not used any more, because it fails or drains, goes on at another with its next datagram. Where the \
             backend has left the configuration it does in any case.",
        ),
        Key::flag("proxy_protocol", false).live(
            "Whether the first datagram of a flow to a backend begins with a header of the PROXY protocol, version 2, that tells the addresses \
             of the client. The header takes up to 52 bytes: a datagram that has no room for it is dropped.",
        ),
        Key::integer("max_amplification", 0, U32, "times").or(0).live(
            "How many times as many bytes as the client has sent may be sent back to it in a flow. What is beyond that is dropped: so a client \
             whose address is made up does little harm to whoever has the address. 0 = any number.",
        ),
    ],
};

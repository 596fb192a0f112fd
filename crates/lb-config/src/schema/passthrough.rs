//! `[passthrough]`.

use super::key::{BYTES, MS, S, U32, U64};
use super::{Block, Key, On, Text};
use crate::config::MintRetry;

pub(super) static PASSTHROUGH: Block = Block {
    path: "passthrough",
    doc: "Mode A: QUIC is forwarded by connection ID, without keys and without a handshake of our own. Servers need no change. It may be the \
          only thing that the gateway does. A client's address and the backend that it talks to are a flow, which a backend sees as one \
          remote address; when a client comes from a new address with a known connection ID, it gets a flow of its own to the same backend.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("bind_addr", Text::SocketAddr).required().live("What to bind, over UDP."),
        Key::texts("backends", Text::SocketAddr).or_else("the backends of `pool`").live(
            "Where connections go, by a Maglev table over the client's address and port, so that all instances and all processes choose alike. \
             Not together with `pool`.",
        ),
        Key::text("pool", Text::NotBlank).or_else("`backends`").live(
            "The name of the `[pools.NAME]` where connections go, with weights, health checks and a policy. With a policy that follows a key, and \
             `hash_key = \"connection_id\"`, the key is the client's address and port.",
        ),
        Key::text("retry_secret_path", Text::Path).required().live(
            "File of the 32 bytes that sign Retry tokens; made with mode 0600 when it does not exist.",
        ),
        Key::word("mint_retry", MintRetry::WORDS).or_word("auto").live(
            "Whether the gateway answers the first packet of a connection with Retry, so that a client proves its address before anything is \
             kept of it. Only a backend that has the secret of `retry_secret_path` can complete the handshake after that: a `quic` listener of another \
             gateway with `retry_tokens_from`, or a server that reads such tokens. `\"auto\"`: for the backends in `retry_secret_shared_with`. `true`: for all. `false`: for none; \
             the Retry of a backend passes through in any case.",
        ),
        Key::texts("retry_secret_shared_with", Text::SocketAddr)
            .or_else("none")
            .live("The backends that have the secret of `retry_secret_path`, by their addresses."),
        Key::integer("max_quic_connections", 1, 2_000_000, "flows").or(100_000).live(
            "Flows that are tracked at once. Where there is no room, a flow goes whose client has not proven its address; if all have, a new \
             one is refused. As many connection IDs of backends are remembered, and as many of clients.",
        ),
        Key::integer("new_connections_per_source", 0, U32, "connections per second").or(200).live(
            "Connections that one source (an IPv4 address, or a /64 of IPv6) may begin in a second; twice as many at once. 0 = any number. How \
             many flows an address may have is the matter of `runtime.per_ip_connection_cap`.",
        ),
        Key::integer("min_client_dcid_len", 8, 20, BYTES)
            .or(8)
            .live("The shortest destination connection ID that a client may choose."),
        Key::integer("per_flow_backlog", 1, 8192, "datagrams").or(32).live(
            "Datagrams of one connection that may wait until its server name has arrived whole; the newest is dropped beyond that. Only \
             with `[[passthrough.routes]]`.",
        ),
        Key::flag("strict_source_binding", false)
            .live("Whether packets of a connection are taken only from the address that it began from."),
        Key::integer("audit_throttle_window_secs", 1, U64, S)
            .or(60)
            .live("A refusal of one kind is logged once in this time."),
        Key::integer("max_dcid_len_routed", 1, 20, BYTES).or(20).live(
            "The longest connection ID of a backend that is remembered. Connections with longer ones are found by their client's address alone.",
        ),
        Key::integer("flow_idle_timeout_ms", 0, U64, MS)
            .or(60_000)
            .live("How long a flow may be silent before it is forgotten. 0 = for ever."),
        Key::flag("proxy_protocol", false).live(
            "Whether the first datagram of each flow begins with a PROXY v2 header that says where the client is. Only for backends that expect it.",
        ),
        Key::blocks("routes", &ROUTES),
        Key::blocks("quic_lb", &QUIC_LB),
    ],
};

static ROUTES: Block = Block {
    path: "passthrough.routes",
    doc: "Pools by server name. With any route, the first packets of a connection wait until the name in its ClientHello has arrived: these \
          packets are encrypted with keys that everybody can derive (QUIC versions 1 and 2). What no route is for goes to `pool` or `backends`. \
          An exact name goes before a wildcard, and the first of several routes for a name counts.",
    on: On::EVERYWHERE,
    keys: &[
        Key::texts("sni", Text::ServerName)
            .required()
            .live("The server names; one may begin with `*.` in place of its first label."),
        Key::text("pool", Text::NotBlank)
            .required()
            .live("The name of the `[pools.NAME]` that they lead to."),
    ],
};

static QUIC_LB: Block = Block {
    path: "passthrough.quic_lb",
    doc: "How servers make connection IDs that name them (draft-ietf-quic-load-balancers-21). So the gateway finds the backend of an ID that it \
          has never seen: one that a server has issued under encryption, for a client that changes its address on purpose, or one from before \
          a restart.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("config_id", 0, 6, "").or(0).live("The config rotation bits: what the first three bits of such an ID are."),
        Key::integer("nonce_length", 4, 18, BYTES)
            .required()
            .live("The bytes of the nonce. Server ID and nonce have at most 19 together."),
        Key::text("key_path", Text::Path)
            .or_else("IDs are in the clear")
            .live("File of the 16-byte key that IDs are encrypted with. Without a key a client can choose its backend."),
        Key::texts("servers", Text::QuicServer)
            .required()
            .live("Each server ID, in hex digits, with the address of its backend: `\"0a1b=10.0.0.10:443\"`."),
    ],
};

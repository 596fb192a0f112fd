//! Who the client is: `[listeners.client_address]`, `[listeners.proxy_protocol]`.

use super::http::HTTP_PROTOCOLS;
use super::{Block, Key, On, Text};
use crate::config::Protocol;

pub(super) static PROXY_PROTOCOL: Block = Block {
    path: "listeners.proxy_protocol",
    doc: "Who the client is, where a balancer in front says so before all other bytes of a connection (PROXY protocol, version 1 or 2, before \
          TLS). The address that it tells counts everywhere in place of the peer's: for `per_ip_connection_cap`, routes, hashing policies, the \
          log and what backends are told; with `[listeners.client_address]` it is the peer that is trusted or not. A header that names no client \
          (`LOCAL`, `UNKNOWN`) leaves the peer as the client. The header has to be there within `header_timeout_ms` of `[listeners.http]` (10 s on tcp and tls \
          listeners), with at most 107 bytes in version 1 and 4096 in version 2, and its checksum, if there is one, has to be right: \
          otherwise the connection is closed.",
    on: On::only(&[Protocol::Tcp, Protocol::Tls, Protocol::H1, Protocol::H1s]),
    keys: &[
        Key::word("mode", &["require", "optional"]).required().live(
            "`require`: connections without a header, and those of peers outside of `trusted`, are closed. `optional`: they are served, with the \
             peer as the client; of peers outside of `trusted` no header is looked for.",
        ),
        Key::texts("trusted", Text::Network).required().live(
            "Networks (CIDR) of the peers that are believed. Every address in them can take the place of any client. A peer at a Unix socket is never \
             in one.",
        ),
    ],
};

pub(super) static CLIENT_ADDRESS: Block = Block {
    path: "listeners.client_address",
    doc: "Who the client is, where other proxies stand in front. From a peer in `trusted_proxies` the list in `from` is read from its end, past \
          trusted proxies; the first other address is the client, and what is no address ends the reading at the hop before. That address is what \
          routes (`sources`), hashing policies, the access log and backends take for the client's; only `per_ip_connection_cap` counts that of \
          the connection. The scheme, the host and the port that such a proxy tells (`X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Forwarded-Port`, or \
          `proto` and `host` of `Forwarded`) hold for `scheme` and for redirects; which route takes a request depends on the host of the \
          request itself. Backends get new fields: `X-Forwarded-For` with the client and the hops behind it, \
          `X-Forwarded-Proto`, `X-Forwarded-Host`, and `X-Forwarded-Port` if it was told; nothing of what the client wrote itself. \
          `X-Real-IP`, `X-Client-IP`, `True-Client-IP`, `CF-Connecting-IP` and `Fastly-Client-IP` of a trusted proxy are set to the client's \
          address. Without this block the client is the peer, and backends get fields as `[listeners.http]` says.",
    on: On::only(HTTP_PROTOCOLS),
    keys: &[
        Key::texts("trusted_proxies", Text::Network).or_else("none").live(
            "Networks (CIDR) of the proxies that are believed. Every address in them can take the place of any client. A peer at a Unix socket is \
             never in one.",
        ),
        Key::text("from", Text::AddressSource).or_else("`x_forwarded_for`").live(
            "Which field tells the client: `x_forwarded_for`, `forwarded` (RFC 7239), or `header:NAME` for a field with addresses as in \
             `X-Forwarded-For`.",
        ),
        Key::word("untrusted", &["replace", "append"]).or_word("replace").live(
            "What becomes of such fields of other peers. `replace`: everything that begins with `X-Forwarded-`, `Forwarded` and the fields above are \
             dropped, also with `_` for `-`, and made anew. `append`: as without this block.",
        ),
        Key::integer("max_hops", 1, 128, "elements").or(32).live(
            "How many elements of a list are read, within its last 4096 bytes. The hop read last is then the client.",
        ),
        Key::flag("send_forwarded", false).live("Whether backends get `Forwarded` (RFC 7239) besides."),
    ],
};

//! Limits of policies on requests.

use lb_core::limit::OnMissing;

use super::key::S;
use super::{Block, Key, On, Text};

pub(super) static RATE_LIMIT: Block = Block {
    path: "policies.NAME.rate_limit",
    doc: "How often requests may come, counted by a key of each: GCRA, which lets `burst` pass at once and `requests` in each window on average, without \
          windows that begin and end. The limits of all levels hold; a request that one refuses counts with none. Refusals are answered `status` \
          (`rate_limit`) with `Retry-After`, gRPC calls RESOURCE_EXHAUSTED, once the route is known and clients are let in by `access`. All workers \
          and all listeners that have the policy share one table, which a reload keeps unless `key`, a prefix, `on_missing` or `max_keys` changes.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("key", Text::LimitKey).or_else("`client_ip`").live(
            "What requests are counted by: `client_ip`, `header:N`, `cookie:N`, `query:N`, `host`, `path` (canonical, without the query), `route` (by its \
             name; those without one are one), or several of them joined by `+`. What a client may choose limits only who does not choose anew: \
             a field that nobody checks is safe beside `client_ip` alone.",
        ),
        Key::integer("requests", 1, 1_000_000_000, "requests").required().live(
            "Requests of a key that pass in a window on average; at most 1000000 in a second.",
        ),
        Key::integer("window_seconds", 1, 86_400, S).or(1).live("The length of the window."),
        Key::integer("burst", 1, 1_000_000_000, "requests")
            .or_else("`requests`")
            .live("Requests of a key that pass at once."),
        Key::integer("ipv4_prefix", 1, 32, "bits").or(32).live("Bits of IPv4 addresses that count."),
        Key::integer("ipv6_prefix", 1, 128, "bits").or(64).live(
            "Bits of IPv6 addresses that count. An address that has an IPv4 address inside (IPv4-mapped, NAT64 `64:ff9b::/96`, 6to4) counts as that one.",
        ),
        Key::word("on_missing", OnMissing::WORDS).or_word("client_ip").live(
            "What becomes of requests without a value for a part of the key: the client's address stands in, the limit does not hold for them, or they \
             are refused. Clients at Unix sockets have no address; where one is to stand in, they count as one client.",
        ),
        Key::integer("max_keys", 64, 16_777_216, "keys").or(65_536).live(
            "Keys that the table has room for, 16 bytes each, which are taken when the file is read. Where a place is needed, the key that owes least \
             of four is forgotten (`rate_limit_evictions_total`).",
        ),
        Key::integer("status", 400, 599, "").or(429).live("The status of refusals."),
        Key::flag("fields", true).live(
            "Whether responses tell what is left: `RateLimit-Policy: \"NAME\";q=REQUESTS;w=SECONDS` and `RateLimit: \"NAME\";r=LEFT;t=SECONDS`, after which \
             all of `burst` is there again. Of several limits, the one that leaves least.",
        ),
        Key::flag("dry_run", false).live("Whether nothing is refused, only counted (`filter_dry_run_total`)."),
        Key::later("store", "rate limits of several instances together"),
        Key::later("on_store_failure", "rate limits of several instances together"),
    ],
};

pub(super) static CONCURRENCY: Block = Block {
    path: "policies.NAME.concurrency",
    doc: "How many requests may run at once. Those beyond are answered 503 (`concurrency`) with `Retry-After: 1`, after `rate_limit`. A request holds its place \
          until its response has left, however often it is tried, and a tunnel until it ends; a client that leaves gives the place back. The limits of \
          all levels hold.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("max", 1, 1_000_000, "requests").or_else("none").live(
            "Requests that may run at once, of a key or of all together, in all workers. This or `adaptive` must be there; with both, both hold.",
        ),
        Key::text("key", Text::LimitKey).or_else("all requests together").live(
            "What requests are counted by, as in `rate_limit`: of client addresses all of IPv4 and 64 bits of IPv6 count, and the client's address stands in \
             for a value that is missing. It needs `max`.",
        ),
        Key::flag("adaptive", false).live(
            "Whether the limit finds itself, in each worker: it shrinks while responses begin later than they use to, and grows while they do not and at least \
             half of it is used (`concurrency_limit`). It begins with 100.",
        ),
        Key::integer("min", 1, 1_000_000, "requests").or(3).live("The least that an adaptive limit comes to, in each worker."),
        Key::integer("max_limit", 1, 1_000_000, "requests")
            .or(1000)
            .live("The most that an adaptive limit comes to, in each worker."),
        Key::flag("dry_run", false).live("Whether nothing is refused, only counted (`filter_dry_run_total`)."),
    ],
};

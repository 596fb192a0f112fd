//! `split` and `sticky` of routes.

use super::filter::{REQUEST_HEADERS, RESPONSE_HEADERS};
use super::key::{S, U32};
use super::{Block, Key, On, Text};

/// A year.
const LONGEST_COOKIE_SECONDS: u64 = 31_536_000;

pub(super) static SPLIT: Block = Block {
    path: "listeners.routes.split",
    doc: "Pools among which the requests of the route are split by weight, in place of `pool`: at most 64. Where all weights are 0, the answer is \
          500 (`no_target`).",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("pool", Text::NotBlank).required().live("The name of the `[pools.NAME]`."),
        Key::integer("weight", 0, U32, "").or(1).live("Its share, relative to the other branches. 0 = none."),
        Key::block("request_headers", &REQUEST_HEADERS),
        Key::block("response_headers", &RESPONSE_HEADERS),
    ],
};

pub(super) static STICKY: Block = Block {
    path: "listeners.routes.sticky",
    doc: "Keeps clients where they are in a `split`. Nothing is remembered for it. Who can set the cookie or the field chooses the branch: a split \
          guards nothing.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("by", Text::SplitKey).or_else("`cookie`").live(
            "What a client is known by: a `cookie` of the gateway, `client_ip`, or a field (`header:N`). A request without the field goes by chance.",
        ),
        Key::text("cookie", Text::Token).or_else("`eg_split`").live("The name of the cookie."),
        Key::integer("ttl_seconds", 0, LONGEST_COOKIE_SECONDS, S)
            .or(0)
            .live("How long a browser keeps the cookie. 0 = as long as its session."),
        Key::word("follow", &["weights", "pool"]).or_word("weights").live(
            "What stays. `weights`: a client's place on the line of weights, so that a changed weight moves only its share of clients. `pool`: its \
             pool, as long as that has a weight; only with a cookie.",
        ),
    ],
};

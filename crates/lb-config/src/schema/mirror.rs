//! `mirror` of routes.

use super::key::{BYTES, MS};
use super::{Block, Key, On, Text};

/// An hour.
const HOUR_MS: u64 = 3_600_000;

/// The most that may wait for one mirror.
const MOST_WAITING_BYTES: u64 = 16 * 1024 * 1024;

pub(super) static MIRROR: Block = Block {
    path: "listeners.routes.mirror",
    doc: "Pools that get a copy of the requests of the route, at most 8; what they answer is thrown away. A copy has the head as the backend gets it, edits of a \
          branch included, and the body as it passes; it is sent once, without further tries and hedges, and never holds up, fails or slows the \
          request. It counts in the metrics of its pool's backends, and in `mirrors_total`; not in those of requests, nor in the access log. WebSockets \
          are not mirrored. Of one that answers with more than 1 MiB the connection is closed. At most 1024 mirrors run in a worker, whose bodies \
          have 64 MiB together. Only in routes with a `pool` or a `split`.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("pool", Text::NotBlank).required().live("The name of the `[pools.NAME]`."),
        Key::text("fraction", Text::Fraction).or_else("`100%`").live(
            "The share of requests that is copied, by chance: `\"0.1%\"` with up to six decimals, or `\"1/3\"`.",
        ),
        Key::integer("max_body_bytes", 0, MOST_WAITING_BYTES, BYTES).or(65_536).live(
            "How much of a body may wait for the mirror; one that is further behind is dropped. A body of up to so many bytes is never the reason to be \
             dropped.",
        ),
        Key::integer("timeout_ms", 1, HOUR_MS, MS).or(5000).live(
            "From its beginning, when the request is about to go to its backend, to the end of its response. A client that takes longer for its body \
             loses its mirrors.",
        ),
    ],
};

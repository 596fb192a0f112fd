//! `http` and `retry` of routes.

use super::key::{BYTES, MS, U64};
use super::{Block, Key, On, Text};

/// The most that is read of a request body before a backend is chosen.
const MOST_BUFFERED_BYTES: u64 = 64 * 1024 * 1024;

/// The most that is kept of a request body for another try.
const MOST_REPLAYED_BYTES: u64 = 1024 * 1024;

/// What is kept of a request body for another try unless a route says otherwise.
pub(crate) const DEFAULT_REPLAY_BYTES: usize = 16 * 1024;

/// An hour.
const HOUR_MS: u64 = 3_600_000;

pub(super) static ROUTE_HTTP: Block = Block {
    path: "listeners.routes.http",
    doc: "Times and sizes of `[listeners.http]` that are others for the requests of this route; what is not said stays as it is there. A time of \
          0 = no bound.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("total_timeout_ms", 0, HOUR_MS * 24, MS)
            .or_else("that of the listener")
            .live("One whole request, from its head to the end of its response."),
        Key::integer("head_timeout_ms", 0, HOUR_MS * 24, MS)
            .or_else("that of the listener")
            .live("From the end of the upload to the head of the backend's response."),
        Key::integer("body_timeout_ms", 0, HOUR_MS * 24, MS)
            .or_else("that of the listener")
            .live("How long an upload may make no progress."),
        Key::integer("response_idle_timeout_ms", 0, HOUR_MS * 24, MS)
            .or_else("that of the listener")
            .live("How long a response that has begun may be silent."),
        Key::integer("write_timeout_ms", 0, HOUR_MS * 24, MS)
            .or_else("that of the listener")
            .live("How long a write may make no progress, once the route is known."),
        Key::integer("max_request_body_bytes", 0, U64, BYTES)
            .or_else("that of the listener")
            .live("The largest request body; a larger one is answered 413. 0 = no body at all."),
        Key::integer("max_response_body_bytes", 0, U64, BYTES).or_else("no cap").live(
            "The largest response body. A larger one is answered 502 (`response_too_large`) where its length is announced, and cut otherwise.",
        ),
        Key::integer("buffer_request_bytes", 0, MOST_BUFFERED_BYTES, BYTES).or_else("`0`").live(
            "A request body of up to so many bytes is read whole before a backend is chosen, so that backends do not wait for slow clients; one whose \
             length was not announced is given a `Content-Length`. A larger body is streamed: at once if it announces its length, else when more \
             of it is here; nothing is refused for it, which is what `max_request_body_bytes` is for. The requests of a worker have 64 MiB for this and for \
             `replay_bytes` above 16 KiB together, and are streamed while those are used up. gRPC calls and WebSockets are never held up. 0 = streamed.",
        ),
        Key::integer("replay_bytes", 0, MOST_REPLAYED_BYTES, BYTES).or_else("`16384`").live(
            "The largest request body that is kept, until its response begins, so that a further try can send it again. A body that was buffered whole is kept \
             as well.",
        ),
    ],
};

pub(super) static ROUTE_RETRY: Block = Block {
    path: "listeners.routes.retry",
    doc: "Further tries of the requests of this route, in place of what `[pools.NAME.retry]` says of the same; the budget stays that of the pool.",
    on: On::EVERYWHERE,
    keys: &[
        Key::integer("attempts", 0, 10, "")
            .or_else("that of the pool, or 1")
            .live("Further tries of one request. 0 = none."),
        Key::texts("on", Text::RetryOn).or_else("that of the pool").live("What is tried again."),
        Key::integer("per_try_timeout_ms", 0, HOUR_MS, MS)
            .or_else("that of the pool")
            .live("How long one try may take to its response head. 0 = as long as the request."),
        Key::integer("backoff_ms", 0, 60_000, MS)
            .or_else("that of the pool")
            .live("How long a request waits before it is tried again, at most. 0 = not at all."),
    ],
};

//! The blocks of a listener that speaks HTTP.

use super::key::{BYTES, MS, S, U32, U64};
use super::{Block, Key, On};
use crate::config::Protocol;

pub(super) const HTTP_PROTOCOLS: &[Protocol] = &[Protocol::H1, Protocol::H1s, Protocol::Quic];

pub(super) static HTTP: Block = Block {
    path: "listeners.http",
    doc: "Timeouts and limits of HTTP. What backends are told of the client: its address is appended to `X-Forwarded-For`, whose other \
          elements are whatever the client has sent; `X-Forwarded-Proto` and `X-Forwarded-Host` are replaced, by the scheme and the host of \
          the request as it came here. Behind another load balancer they therefore say what that one asked for.",
    on: On::used(HTTP_PROTOCOLS),
    keys: &[
        Key::integer("header_timeout_ms", 1, U64, MS).or(10_000).live(
            "From accept (or from the first byte of a later request) to the end of the request head. Over HTTP/2 also how long a \
             client may take to acknowledge our SETTINGS, after which its connection ends, and a backend, after which it gets no \
             more requests on that connection.",
        ),
        Key::integer("body_timeout_ms", 1, U64, MS)
            .or(30_000)
            .live("How long an upload may make no progress; every byte that is taken starts it again."),
        Key::integer("total_timeout_ms", 0, U64, MS).or(0).live(
            "One whole request, from its head to the end of its response, however well it gets on: a long download or event \
             stream is cut. Bounds a request, never a connection. 0 = no bound: what is slow is bounded by the other \
             timeouts.",
        ),
        Key::integer("response_idle_timeout_ms", 0, U64, MS).or(300_000).live(
            "How long a response that has begun may be silent, with nothing passing either way, before it is cut: an event \
             stream needs an event or a comment in that time. 0 = for ever.",
        ),
        Key::integer("head_timeout_ms", 1, U64, MS)
            .or(60_000)
            .live("From the end of the upload to the head of the backend's response."),
        Key::integer("keepalive_timeout_ms", 1, U64, MS)
            .or(75_000)
            .live("How long an idle connection waits for its next request."),
        Key::integer("write_timeout_ms", 1, U64, MS).or(30_000).live(
            "How long a write may make no progress, to a client or to a backend that does not read.",
        ),
        Key::integer("max_request_body_bytes", 0, U64, BYTES)
            .or_else("no cap")
            .live("The largest request body; a larger one is answered 413. 0 = no body at all."),
        Key::integer("max_header_bytes", 1024, 1_048_576, BYTES)
            .or(65_536)
            .live("The largest head of a request (answered 431) or of a response (502)."),
        Key::integer("max_header_count", 8, 256, "fields")
            .or(128)
            .live("How many fields a head may have."),
        Key::integer("max_uri_bytes", 64, 65_536, BYTES)
            .or(8192)
            .live("The longest request target; a longer one is answered 414."),
        Key::integer("retries", 0, 10, "").or(3).live(
            "How many further backends are tried when a connect fails, in a pool without `[pools.NAME.retry]`; connects that are \
             refused at once do not count, up to 32. Repeatable requests whose connection was lost before a response are sent once more \
             besides. 0 = nothing is tried again.",
        ),
    ],
};

pub(super) static H2_SECURITY: Block = Block {
    path: "listeners.h2_security",
    doc: "Limits of HTTP/2, towards clients and, where it applies, towards h2 backends.",
    on: On::used(HTTP_PROTOCOLS),
    keys: &[
        Key::integer("max_pending_accept_reset_streams", 0, U64, "streams")
            .or(100)
            .live(
                "Streams that the client may reset before their response has begun, at once and half as many with each second, beyond those that may run \
                 at once; more close the connection. A stream that was open for a second or longer is not counted, one that was open for less \
                 counts in part, and each answered request makes up for one.",
            ),
        Key::integer("max_local_error_reset_streams", 0, U64, "streams")
            .or(100)
            .live(
                "Streams that had to be reset for the client's errors, of which 10 come back each second and one with each answered request; \
                 more close the connection.",
            ),
        Key::integer("flood_budget_percent", 100, 10_000, "percent")
            .or(100)
            .live(
                "How wide the budgets are that have no key of their own (see SECURITY.md), of clients and of h2 backends. To be raised for a \
                 peer that does no harm and whose connections end with `a budget is used up` in the log.",
            ),
        Key::integer("max_concurrent_streams", 0, U32, "streams")
            .or(256)
            .live("Streams that may run at once. 0 counts as 1."),
        Key::integer("max_header_list_size", 0, U32, BYTES)
            .or(65_536)
            .live(
                "The largest decoded header list. A larger one is answered 431, or costs a backend its stream, as long as its block \
                 has no more than 256 KiB on the wire, or twice this where that is more; the connection ends otherwise. Less than \
                 1024 counts as that.",
            ),
        Key::integer("max_send_buf_size", 0, U64, BYTES)
            .or(65_536)
            .live("Unsent bytes that a stream may hold."),
        Key::integer("keep_alive_interval_ms", 0, U64, MS)
            .or(30_000)
            .live(
                "After how long a silence a connection is pinged. 0 = never. A backend is asked only while requests are \
                 open, and after two pings without a part of an answer between them only every 5.5 minutes, which \
                 servers of gRPC bear by default.",
            ),
        Key::integer("keep_alive_timeout_ms", 0, U64, MS)
            .or(30_000)
            .live("How long a ping may stay unanswered."),
        Key::integer("initial_stream_window_size", 0, U64, BYTES)
            .or(65_535)
            .live("The first window of a stream. Less than 1024 counts as that: clients would have to send slivers, which count as an attack. More than 2147483647 counts as that."),
        Key::integer("initial_connection_window_size", 0, U64, BYTES)
            .or(1_048_576)
            .live(
                "The first window of a connection. Uploads that a backend does not read hold their streams' windows out of it; what \
                 is left goes round among the others. A backend's connection has as much as all of its streams. The protocol knows \
                 none below 65535 and none above 2147483647: less or more counts as these.",
            ),
    ],
};

pub(super) static WEBSOCKET: Block = Block {
    path: "listeners.websocket",
    doc: "Lets WebSocket upgrades through. Without the block an upgrade request is treated as a plain request.",
    on: On::only(HTTP_PROTOCOLS),
    keys: &[
        Key::flag("enabled", true).live("False = as if the block were absent."),
        Key::integer("idle_timeout_seconds", 1, U64, S)
            .or(60)
            .live("How long both sides may be silent before the connection is closed."),
        Key::integer("max_message_size_bytes", 1, U64, BYTES)
            .or(16_777_216)
            .live("The largest message, and the largest frame."),
        Key::integer("ping_rate_limit_per_window", 1, U32, "pings")
            .or(50)
            .live("How many pings a client may send in a window, beyond one for each of its messages; more close the connection with code 1008."),
        Key::integer("ping_rate_limit_window_seconds", 1, U64, S).or(10).live("The length of that window."),
        Key::integer("read_frame_timeout_seconds", 1, U64, S)
            .or(30)
            .live("How long one frame may take to arrive, and one to be written."),
        Key::flag("h2_extended_connect", true).live("WebSocket over HTTP/2 (RFC 8441)."),
        Key::flag("h3_extended_connect", false).live("WebSocket over HTTP/3 (RFC 9220)."),
    ],
};

pub(super) static GRPC: Block = Block {
    path: "listeners.grpc",
    doc: "gRPC: requests whose content type is `application/grpc` are calls. A call is bounded by its `grpc-timeout` and, where it has \
          none, by silence, in place of `total_timeout_ms`, `head_timeout_ms`, `body_timeout_ms` and the least upload rate; \
          `write_timeout_ms` holds. What goes wrong is told as a `grpc-status`. Without the block calls pass as requests like others. On \
          an h1 listener it takes `h2c = true` to be reached by ordinary clients.",
    on: On::only(&[Protocol::H1, Protocol::H1s]),
    keys: &[
        Key::flag("enabled", true).live("False = as if the block were absent."),
        Key::integer("max_deadline_seconds", 1, U64, S)
            .or(300)
            .live(
                "The longest deadline: a longer `grpc-timeout` is cut to it, and what is left is passed on. A call without one has \
                 no deadline, and ends when nothing has passed either way for so long.",
            ),
        Key::flag("health_synthesized", true).live(
            "Whether the gateway answers `grpc.health.v1.Health` itself, for the empty service name: SERVING while the last connect to some \
             backend came about.",
        ),
    ],
};

//! The block of traces.

use super::key::MS;
use super::{Block, Key, On, Text};
use crate::config::TraceProtocol;

pub(super) static TRACING: Block = Block {
    path: "tracing",
    doc: "Traces of requests, which go to a collector by OTLP (OpenTelemetry). Without `endpoint` there are none, and the `traceparent` of clients is \
          passed on with another parent all the same.",
    on: On::EVERYWHERE,
    keys: &[
        Key::text("endpoint", Text::CollectorUrl).or_else("no traces").restart(
            "Where the collector takes spans: `http://127.0.0.1:4318` for `protocol = \"http\"`, which sends to `/v1/traces` unless a path is \
             written, or `http://127.0.0.1:4317` for `\"grpc\"`. With `https`, the collector's certificate is checked against the system's \
             certificates.",
        ),
        Key::word("protocol", TraceProtocol::WORDS).or_word("http").restart("Which form of OTLP the collector is spoken to in."),
        Key::texts("headers", Text::HeaderLine).or_else("none").restart(
            "Fields of each request to the collector, such as `\"authorization: Bearer ${COLLECTOR_TOKEN}\"`, which comes from the environment.",
        ),
        Key::text("sample", Text::Fraction).or_else("`1%`").live(
            "Of how many traces that begin here the spans are recorded. Traces are chosen by their ID, so that gateways with the same share \
             choose the same ones.",
        ),
        Key::flag("parent_based", true).live(
            "Whether a trace that has begun elsewhere is recorded if its sender has recorded it, and only then. Otherwise `sample` alone decides: clients \
             who are not trusted cannot have their requests recorded.",
        ),
        Key::text("service_name", Text::NotBlank).or_else("`expressgateway`").restart("What the gateway is called in traces."),
        Key::integer("queue", 64, 1_000_000, "requests").or(4096).restart(
            "So many recorded requests wait for the collector at most; more are dropped and counted in `trace_spans_dropped_total`. Requests never wait.",
        ),
        Key::integer("timeout_ms", 100, 60_000, MS)
            .or(10_000)
            .restart("How long the collector may take to accept a batch of spans, which is lost after that."),
    ],
};

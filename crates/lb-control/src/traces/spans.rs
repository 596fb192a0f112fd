//! Spans in the words of OpenTelemetry (semantic conventions for HTTP), made of what is known of a request.
//!
//! A request has a span of its own (kind server). Each try has one below it (kind client), which is the parent that its backend is told, and below
//! that the time in the queue of a member and that for a connection.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use lb_observe::traces::{TracedRequest, TracedTry};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// Methods that a span may be named after: others come from clients, in any number.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// What moments of the monotonic clock are by the calendar.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    now: Instant,
    wall: SystemTime,
}

impl WallClock {
    /// Reads both clocks.
    pub(super) fn now() -> Self {
        Self { now: Instant::now(), wall: SystemTime::now() }
    }

    fn at(&self, moment: Instant) -> SystemTime {
        let ago = self.now.saturating_duration_since(moment);
        let ahead = moment.saturating_duration_since(self.now);
        self.wall.checked_sub(ago).unwrap_or(self.wall).checked_add(ahead).unwrap_or(self.wall)
    }
}

/// The spans of a request.
pub(super) fn of(request: &TracedRequest, clock: &WallClock) -> Vec<SpanData> {
    let method = METHODS.iter().find(|method| **method == request.method).copied();
    let mut spans = vec![of_request(request, method, clock)];
    for (number, one) in request.tries.iter().enumerate() {
        let parent = SpanId::from(request.span);
        let mut span = span(request, one.span, parent, one.time, clock);
        span.span_kind = SpanKind::Client;
        span.name = method.unwrap_or("HTTP").into();
        span.attributes = of_try(request, one, number);
        span.status = match (one.reason, one.status) {
            ("", None | Some(..400)) => Status::Unset,
            ("", Some(_)) => Status::error(""),
            (reason, _) => Status::error(reason),
        };
        spans.push(span);
        spans.extend(parts(request, one, clock));
    }
    spans
}

/// The span of the request itself.
fn of_request(request: &TracedRequest, method: Option<&'static str>, clock: &WallClock) -> SpanData {
    let parent = request.parent.map_or(SpanId::INVALID, SpanId::from);
    let mut span = span(request, request.span, parent, request.time, clock);
    span.parent_span_is_remote = request.parent.is_some();
    span.span_kind = SpanKind::Server;
    span.name = match (method, request.route.as_str()) {
        (method, "") => method.unwrap_or("HTTP").into(),
        (method, route) => format!("{} {route}", method.unwrap_or("HTTP")).into(),
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.unwrap_or("_OTHER")),
        KeyValue::new("url.path", request.path.clone()),
        KeyValue::new("url.scheme", request.scheme),
        KeyValue::new("network.protocol.name", "http"),
        KeyValue::new("network.protocol.version", request.version),
        KeyValue::new("expressgateway.listener", request.listener.clone()),
        KeyValue::new("expressgateway.retries", i64::from(request.retries)),
        KeyValue::new("http.request.size", number(request.bytes.0)),
        KeyValue::new("http.response.size", number(request.bytes.1)),
    ];
    if let Some(ip) = request.client.ip() {
        attributes.push(KeyValue::new("client.address", ip.to_string()));
    }
    if method.is_none() {
        attributes.push(KeyValue::new("http.request.method_original", request.method.clone()));
    }
    let texts = [
        ("server.address", &request.host),
        ("expressgateway.route", &request.route),
        ("expressgateway.pool", &request.pool),
    ];
    attributes.extend(
        texts
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| KeyValue::new(name, text.clone())),
    );
    if !request.reason.is_empty() {
        attributes.push(KeyValue::new("expressgateway.reason", request.reason));
        attributes.push(KeyValue::new("error.type", request.reason));
    }
    if let Some(id) = &request.request_id {
        attributes.push(KeyValue::new("expressgateway.request_id", id.clone()));
    }
    if let Some(status) = request.status {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if let Some(status) = request.grpc_status {
        attributes.push(KeyValue::new("rpc.system", "grpc"));
        attributes.push(KeyValue::new("rpc.grpc.status_code", i64::from(status)));
    }
    span.attributes = attributes;
    span.status = match request.status {
        Some(..500) => Status::Unset,
        _ => Status::error(request.reason),
    };
    span
}

fn of_try(request: &TracedRequest, one: &TracedTry, number: usize) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("expressgateway.backend", one.backend.clone()),
        KeyValue::new("expressgateway.pool", request.pool.clone()),
        KeyValue::new("expressgateway.hedge", one.is_hedge),
        KeyValue::new("http.request.resend_count", i64::try_from(number).unwrap_or(i64::MAX)),
    ];
    if let Some((host, port)) = one.backend.rsplit_once(':') {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
        attributes.extend(port.parse::<u16>().ok().map(|port| KeyValue::new("server.port", i64::from(port))));
    }
    if let Some(status) = one.status {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if !one.reason.is_empty() {
        attributes.push(KeyValue::new("expressgateway.reason", one.reason));
        attributes.push(KeyValue::new("error.type", one.reason));
    }
    attributes
}

/// The time in the queue of a member, and that for a connection.
fn parts<'a>(
    request: &'a TracedRequest,
    one: &'a TracedTry,
    clock: &'a WallClock,
) -> impl Iterator<Item = SpanData> + 'a {
    let queue = one.queued_until.map(|until| ("queue", (one.time.0, until)));
    let connect = one.connect.map(|time| ("connect", time));
    let both = [queue, connect].into_iter().flatten().zip(1u64..);
    both.map(move |((name, time), number)| {
        // Nobody else knows the ID: it need but differ from those of the tries.
        let id = one.span.rotate_left(32).wrapping_add(number);
        let mut span = span(request, id.max(1), SpanId::from(one.span), time, clock);
        span.name = Cow::Borrowed(name);
        span.attributes = vec![KeyValue::new("expressgateway.backend", one.backend.clone())];
        span
    })
}

fn span(
    request: &TracedRequest,
    id: u64,
    parent: SpanId,
    (start, end): (Instant, Instant),
    clock: &WallClock,
) -> SpanData {
    let trace = TraceId::from(request.trace);
    SpanData {
        span_context: SpanContext::new(
            trace,
            SpanId::from(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Borrowed(""),
        start_time: clock.at(start),
        end_time: clock.at(end.max(start)),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("expressgateway").build(),
    }
}

fn number(count: u64) -> Value {
    Value::I64(i64::try_from(count).unwrap_or(i64::MAX))
}

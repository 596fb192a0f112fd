//! What is written down of every exchange: metrics, and a line in the access log.

use std::time::{Duration, SystemTime};

use lb_core::address::ClientAddress;
use lb_core::head::{FieldName, Fields, RequestHead, Span, Version};
use lb_core::reason::Reason;
use lb_core::trace::TraceParent;
use lb_observe::access_log::AccessRecord;
use lb_observe::metrics::{GrpcStatus, HttpVersion, Label, StatusClass};

use crate::grpc::Status;
use crate::routes::Routes;
use crate::service::Service;
use crate::session::Session;

/// Facts of one finished exchange.
pub(crate) struct Entry<'a> {
    pub(crate) service: &'a Service,
    pub(crate) request: &'a RequestHead,
    /// What the client asked for, where the backend was asked for something else.
    pub(crate) asked: Option<Span>,
    /// The ID of the request, if it has one.
    pub(crate) request_id: Option<&'a [u8]>,
    pub(crate) client: ClientAddress,
    pub(crate) session: Option<&'a Session>,
    pub(crate) status: Option<u16>,
    /// How the call ended, if the request was one and as far as that is known.
    pub(crate) call: Option<Option<Status>>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) duration: Duration,
    pub(crate) backend: Option<&'a str>,
    pub(crate) reason: Option<Reason>,
    /// The route that took the request, if any did, and where its name and its counters are.
    pub(crate) route: Option<(&'a Routes, u32)>,
    pub(crate) retries: u32,
}

/// Counts an exchange, logs it if there is an access log, and shows it to open taps.
pub(crate) fn write(entry: &Entry<'_>) {
    let (version, text) = match entry.request.version {
        Version::Http10 => (HttpVersion::H1, "HTTP/1.0"),
        Version::Http11 => (HttpVersion::H1, "HTTP/1.1"),
        Version::H2 => (HttpVersion::H2, "HTTP/2.0"),
        Version::H3 => (HttpVersion::H3, "HTTP/3.0"),
    };
    let worker = &entry.service.worker;
    let class = entry.status.map_or(StatusClass::NoResponse, StatusClass::of);
    let shard = entry.service.metrics.worker(worker.io.id);
    let route = entry.route.and_then(|(routes, at)| routes.metrics(at));
    route.map(|route| route.worker(worker.io.id)).unwrap_or(&shard.unrouted).record(
        version,
        class,
        entry.duration,
    );
    if let Some(status) = entry.call {
        shard.grpc_calls.of(label(status)).inc();
    }
    let is_tapped = worker.taps.is_any();
    if worker.access_log.is_none() && !is_tapped {
        return;
    }
    let fields = &entry.request.fields;
    let record = AccessRecord {
        time: SystemTime::now(),
        listener: &entry.service.name,
        client: entry.client,
        method: entry.request.method(),
        target: fields.slice(entry.asked.unwrap_or(entry.request.target)),
        host: Some(entry.request.authority()).filter(|host| !host.is_empty()),
        version: text,
        tls: entry.session.map(Session::record),
        status: entry.status,
        grpc_status: entry.call.flatten().map(Status::code),
        bytes_in: entry.received,
        bytes_out: entry.sent,
        duration: entry.duration,
        backend: entry.backend,
        reason: entry.reason.map_or("", Reason::name),
        route: entry.route.map_or("", |(routes, at)| routes.name(at)),
        request_id: entry.request_id,
        trace_id: trace_id(fields),
        retries: entry.retries,
        user_agent: fields.value_of(b"user-agent"),
        referer: fields.value_of(b"referer"),
    };
    if let Some(log) = &worker.access_log {
        log.record(&record);
    }
    if is_tapped {
        worker.taps.see(&record, fields);
    }
}

/// The ID of the trace that a request belongs to. What a client has sent in its place is none.
fn trace_id(fields: &Fields) -> Option<&[u8]> {
    let value = fields.values(FieldName::Traceparent).next()?;
    TraceParent::parse(value).and_then(|_| value.get(3..35))
}

/// The metric label of a call's end.
fn label(status: Option<Status>) -> GrpcStatus {
    let same = |status: Status| GrpcStatus::ALL.get(usize::from(status.code())).copied();
    status.and_then(same).unwrap_or(GrpcStatus::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_under_their_names() {
        for status in Status::ALL {
            assert_eq!(label(Some(status)).name(), status.name());
        }
        assert_eq!(label(None).name(), "none");
    }
}

//! What is written down of every exchange: metrics, and a line in the access log.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use lb_core::head::{RequestHead, Version};
use lb_observe::access_log::AccessRecord;
use lb_observe::metrics::{HttpVersion, StatusClass};

use crate::service::Service;
use crate::session::Session;

/// Facts of one finished exchange.
pub(crate) struct Entry<'a> {
    pub(crate) service: &'a Service,
    pub(crate) request: &'a RequestHead,
    pub(crate) client: SocketAddr,
    pub(crate) session: Option<&'a Session>,
    pub(crate) status: Option<u16>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) duration: Duration,
    pub(crate) backend: Option<&'a str>,
    pub(crate) reason: &'static str,
    pub(crate) retries: u32,
}

/// Counts an exchange, and logs it if there is an access log.
pub(crate) fn write(entry: &Entry<'_>) {
    let (version, text) = match entry.request.version {
        Version::Http10 => (HttpVersion::H1, "HTTP/1.0"),
        Version::Http11 => (HttpVersion::H1, "HTTP/1.1"),
        Version::H2 => (HttpVersion::H2, "HTTP/2.0"),
        Version::H3 => (HttpVersion::H3, "HTTP/3.0"),
    };
    let worker = &entry.service.worker;
    let class = entry.status.map_or(StatusClass::NoResponse, StatusClass::of);
    entry.service.metrics.worker(worker.io.id).unrouted.record(version, class, entry.duration);
    let Some(log) = &worker.access_log else { return };
    let fields = &entry.request.fields;
    let mut line = Vec::with_capacity(512);
    AccessRecord {
        time: SystemTime::now(),
        listener: &entry.service.name,
        client: entry.client,
        method: entry.request.method(),
        target: entry.request.target(),
        host: Some(entry.request.authority()).filter(|host| !host.is_empty()),
        version: text,
        tls: entry.session.map(Session::record),
        status: entry.status,
        bytes_in: entry.received,
        bytes_out: entry.sent,
        duration: entry.duration,
        backend: entry.backend,
        reason: entry.reason,
        retries: entry.retries,
        user_agent: fields.value_of(b"user-agent"),
        referer: fields.value_of(b"referer"),
    }
    .append_to(&mut line);
    log.write(line);
}

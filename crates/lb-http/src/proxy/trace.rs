//! What an exchange notes down for its trace, where its spans are recorded.

use lb_core::head::{FieldName, RequestHead, Version};
use lb_core::reason::Reason;
use lb_core::rng::SplitMix64;
use lb_core::trace::{FLAGS_AT, SPAN_AT, Sampler, TraceParent};
use lb_observe::traces::{MOST_TRIES, TracedRequest, TracedTry, text};
use tokio::time::Instant;

use super::exchange::Exchange;
use super::tries::Try;
use crate::grpc::Status;
use crate::routes::split_target;

/// The trace of an exchange.
#[derive(Debug)]
pub(super) struct Trace {
    id: u128,
    /// The span of the client.
    parent: Option<u64>,
    /// The span of the exchange.
    span: u64,
    /// The tries that are over.
    tries: Vec<TracedTry>,
}

/// The span of a try that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrySpan {
    id: u64,
    /// When the try waited for room first, or began.
    begun: Instant,
    /// Until when it waited for room.
    queued_until: Option<Instant>,
    /// When a connection was wanted that did not stand ready.
    connecting: Option<Instant>,
    /// When it stood.
    connected: Option<Instant>,
}

impl Trace {
    /// The trace of a request whose head has its `traceparent` towards the backend already, if the request is recorded. `parent` is what the
    /// client has sent. The flag in the head says what was decided.
    pub(super) fn of(
        sampler: &Sampler,
        parent: Option<TraceParent>,
        head: &mut RequestHead,
        rng: &mut SplitMix64,
    ) -> Option<Self> {
        let own = head.fields.values(FieldName::Traceparent).next().and_then(TraceParent::parse)?;
        let is_recorded = sampler.records(parent.as_ref(), own.trace);
        head.fields.overwrite(FieldName::Traceparent, FLAGS_AT, if is_recorded { b"01" } else { b"00" });
        is_recorded.then(|| Self {
            id: own.trace,
            parent: parent.map(|parent| parent.span),
            span: rng.next_u64() | 1,
            tries: Vec::new(),
        })
    }
}

impl Exchange {
    /// The span of the current try, which begins now unless it has begun; None where nothing is recorded.
    fn try_span(&mut self) -> Option<&mut TrySpan> {
        self.extras.as_ref()?.trace.as_ref()?;
        let (now, rng) = (self.clock.now, &self.service.worker.io.rng);
        let begin = || {
            let id = rng.borrow_mut().next_u64() | 1;
            Box::new(TrySpan { id, begun: now, queued_until: None, connecting: None, connected: None })
        };
        Some(&mut **self.tries.current.span.get_or_insert_with(begin))
    }

    /// The current try waits for room at a member.
    #[inline]
    pub(super) fn trace_queue(&mut self) {
        if self.extras.is_some() {
            self.try_span();
        }
    }

    /// The current try begins at its member; whether it had to wait for room.
    #[inline]
    pub(super) fn trace_attempt(&mut self) {
        if self.extras.is_none() {
            return;
        }
        let now = self.clock.now;
        let has_waited = self.tries.current.span.is_some();
        if let Some(span) = self.try_span().filter(|_| has_waited) {
            span.queued_until = Some(now);
        }
    }

    /// The current try needs a connection that does not stand ready.
    #[inline]
    pub(super) fn trace_connecting(&mut self) {
        let now = self.clock.now;
        if self.extras.is_some()
            && let Some(span) = self.try_span()
        {
            span.connecting.get_or_insert(now);
        }
    }

    /// The request goes out on a connection: the backend is told the span of the try.
    #[inline]
    pub(super) fn trace_request(&mut self) {
        if self.extras.is_none() {
            return;
        }
        let now = self.clock.now;
        let Some(span) = self.try_span() else { return };
        span.connected = span.connecting.and(Some(now));
        let id = format!("{:016x}", span.id);
        self.request.head.fields.overwrite(FieldName::Traceparent, SPAN_AT, id.as_bytes());
    }

    /// The current try is over, with its status or for its failure.
    #[inline]
    pub(super) fn trace_try(&mut self) {
        if self.tries.current.span.is_some() {
            self.keep_try();
        }
    }

    #[cold]
    fn keep_try(&mut self) {
        let now = self.clock.now;
        let Try { span, member, second, status, failure, .. } = &mut self.tries.current;
        let Some(span) = span.take() else { return };
        let trace = self.extras.as_mut().and_then(|extras| extras.trace.as_mut());
        let Some(trace) = trace.filter(|trace| trace.tries.len() < MOST_TRIES) else { return };
        let backend = member.as_ref().map(|chosen| chosen.member.backend.name().to_owned());
        trace.tries.push(TracedTry {
            span: span.id,
            time: (span.begun.into_std(), now.into_std()),
            queued_until: span.queued_until.map(Instant::into_std),
            connect: span.connecting.map(|from| (from.into_std(), span.connected.unwrap_or(now).into_std())),
            backend: backend.unwrap_or_default(),
            status: *status,
            reason: failure.map_or("", |failure| failure.reason().name()),
            is_hedge: *second,
        });
    }

    /// The exchange is over: what was noted down is handed over to be sent.
    pub(super) fn hand_trace_over(&mut self) {
        let trace = self.extras.as_mut().and_then(|extras| extras.trace.take());
        let (Some(trace), Some(handle)) = (trace, &self.service.worker.traces) else { return };
        let head = &self.request.head;
        let filtered = self.filtered.as_deref();
        let target = head.fields.slice(filtered.and_then(|filtered| filtered.asked).unwrap_or(head.target));
        let id = filtered.and_then(|filtered| filtered.id.as_deref());
        let reason = self.tunnel.as_ref().and_then(|tunnel| tunnel.reason()).or(self.reason);
        handle.record(TracedRequest {
            trace: trace.id,
            span: trace.span,
            parent: trace.parent,
            time: (self.clock.started.into_std(), self.clock.now.into_std()),
            listener: self.service.name.clone(),
            method: text(head.method()),
            path: text(split_target(target).0),
            host: text(head.authority()),
            scheme: if self.client.session.is_some() { "https" } else { "http" },
            version: match head.version {
                Version::Http10 => "1.0",
                Version::Http11 => "1.1",
                Version::H2 => "2",
                Version::H3 => "3",
            },
            client: self.client.address,
            status: Some(self.response.status).filter(|status| *status != 0),
            grpc_status: self.call.as_ref().and_then(|call| call.status()).map(Status::code),
            reason: reason.map_or("", Reason::name),
            route: self.request.route.map_or("", |route| self.settings.routes.name(route)).to_owned(),
            pool: self.pool.name.to_string(),
            request_id: id.map(text),
            retries: self.tries.count,
            bytes: (self.client.received, self.client.sent),
            tries: trace.tries,
        });
    }
}

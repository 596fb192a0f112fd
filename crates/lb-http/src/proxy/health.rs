//! Health checks that the gateway answers itself (`grpc.health.v1`), from how the connects to its backends end.
//!
//! Only the server as a whole is known, by the empty name. It serves while some backend can be reached. Somebody who is told that none
//! can stops sending calls, and nothing would ever be tried again: so a check that finds none has one of them tried.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::grpc::health::ServingStatus;
use lb_core::head::{BodyLength, Fields};
use lb_core::reason::Reason;
use lb_io::shortage_of;
use tokio::time::Instant;

use super::exchange::{Exchange, Stage, Turn};
use crate::grpc::Status;
use crate::grpc::health::{Method, Reader};
use crate::message::{Front, FrontError, Gone, Progress, Sink};

/// How often a watch looks for changes, and how often an unreachable pool is tried.
const INTERVAL: Duration = Duration::from_secs(1);

/// A check or a watch.
#[derive(Debug)]
pub(super) struct Health {
    method: Method,
    request: Request,
    /// What a watch was told last; it looks again at this time.
    told: Option<(ServingStatus, Instant)>,
}

impl Health {
    pub(super) fn new(method: Method) -> Self {
        Self { method, request: Request::default(), told: None }
    }

    /// When a watch looks for changes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.told.map(|(_, at)| at)
    }
}

/// The body of the request, as far as it has come.
#[derive(Debug, Default)]
struct Request {
    reader: Reader,
    fault: Option<Status>,
}

impl Sink for Request {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        if self.fault.is_none() {
            self.fault = self.reader.push(bytes).err();
        }
    }

    fn trailers(&mut self, _: &Fields) {}

    fn end(&mut self) {}

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }
}

impl Exchange {
    /// Reads a health check and answers it.
    pub(super) fn health(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let Stage::Health(mut health) = std::mem::replace(&mut self.stage, Stage::Flush) else {
            return Turn::Again;
        };
        let turn = self.answer_health(cx, front, &mut health);
        if matches!(turn, Turn::Wait) {
            self.stage = Stage::Health(health);
        }
        turn
    }

    fn answer_health(&mut self, cx: &mut Context<'_>, front: &mut impl Front, health: &mut Health) -> Turn {
        while self.request.upload.is_wanted() {
            let worker = Rc::clone(&self.service.worker);
            let mut scratch = worker.io.scratch.borrow_mut();
            match front.poll_body(cx, &mut scratch, &mut health.request) {
                Poll::Ready(Ok(Progress::Moved)) => {}
                Poll::Ready(Ok(Progress::End)) => self.request.upload.finish(self.clock.now),
                Poll::Ready(Err(FrontError::Gone(gone))) => return self.client_gone(gone),
                Poll::Ready(Err(FrontError::Reject(reject))) => return self.refuse(cx, front, reject),
                Poll::Pending => return Turn::Wait,
            }
            if let Some(fault) = health.request.fault {
                return self.refuse_health(cx, front, fault);
            }
        }
        let known = match health.request.reader.finish() {
            Ok(service) => service.is_empty(),
            Err(fault) => return self.refuse_health(cx, front, fault),
        };
        match health.method {
            Method::Check if known => self.answer_check(cx, front),
            Method::Check => self.end_call(cx, front, Status::NotFound, "no such service"),
            Method::Watch => self.watch(cx, front, health, known),
        }
    }

    fn refuse_health(&mut self, cx: &mut Context<'_>, front: &mut impl Front, status: Status) -> Turn {
        self.reason = Some(Reason::HealthRequest);
        self.end_call(cx, front, status, "not a health check request")
    }

    fn answer_check(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let serving = self.serving();
        self.begin_health(front);
        front.data(cx, &serving.message());
        self.end_call(cx, front, Status::Ok, "")
    }

    /// Tells a watch how things stand, and then whenever that changes.
    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        health: &mut Health,
        known: bool,
    ) -> Turn {
        if let Some(call) = &mut self.call {
            call.watches();
        }
        if let Poll::Ready(gone) = front.poll_hangup(cx) {
            return self.client_gone(gone);
        }
        if health.told.is_none_or(|(_, at)| at <= self.clock.now) && !self.client.stall.is_on() {
            let serving = if known { self.serving() } else { ServingStatus::ServiceUnknown };
            if health.told.is_none() {
                self.begin_health(front);
            }
            if health.told.is_none_or(|(told, _)| told != serving) {
                front.data(cx, &serving.message());
            }
            health.told = Some((serving, self.clock.now + INTERVAL));
        }
        match front.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.client.stall.end(),
            Poll::Ready(Err(gone)) => return self.client_gone(gone),
            Poll::Pending => self.client.stall.begin(self.clock.now),
        }
        Turn::Wait
    }

    fn begin_health(&mut self, front: &mut impl Front) {
        let worker = Rc::clone(&self.service.worker);
        let mut head = worker.response.borrow_mut();
        head.clear();
        head.status = 200;
        head.body = BodyLength::Unknown;
        head.fields.push(b"content-type", b"application/grpc");
        self.edit_answer(&mut head);
        self.response.begun(&head);
        front.head(&head);
    }

    /// Whether some backend can be reached.
    fn serving(&self) -> ServingStatus {
        if self.pool.is_reachable(self.clock.now) {
            return ServingStatus::Serving;
        }
        self.probe();
        ServingStatus::NotServing
    }

    /// Tries one backend, each in its turn and not too often. The next check finds what came of it.
    fn probe(&self) {
        let Some((at, member)) = self.pool.next_probe(self.clock.now, INTERVAL) else { return };
        let connecting = member.endpoint.upstream.dial(&self.caller(member));
        let balance = Rc::clone(&self.pool.balance);
        let metrics = Arc::clone(&member.backend.metrics);
        let worker = self.service.worker.io.id;
        tokio::task::spawn_local(async move {
            let result = connecting.await;
            if result.as_ref().is_err_and(|error| shortage_of(error).is_some()) {
                return;
            }
            let reached = result.is_ok();
            metrics.set_reachable(reached);
            let shard = metrics.worker(worker);
            if reached {
                let now = std::time::Instant::now();
                balance.answered(at, now, now);
                shard.connections.inc();
            } else {
                shard.connect_failures.inc();
            }
        });
    }
}

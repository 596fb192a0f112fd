//! What an exchange does differently when it carries a gRPC call: the deadline is the call's own, and whatever goes wrong is told to
//! the client as a `grpc-status`.

use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use lb_core::failure::{Failure, Kind, Reach, ResetReason};
use lb_core::head::{Fields, RequestHead, ResponseHead};
use lb_core::reason::Reason;
use tokio::time::Instant;

use super::exchange::{Exchange, Stage, Turn};
use super::health::Health;
use super::timing::Expired;
use crate::answer;
use crate::grpc::{self, Status, Timeout, health};
use crate::message::Front;
use crate::service::Settings;

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    /// When it has failed. `None` when the client has named no time.
    deadline: Option<Instant>,
    /// The client has named a time that cannot be read (attack C-14).
    malformed: bool,
    /// How long a call without a deadline may be silent.
    idle: Duration,
    /// When something has passed last, either way.
    active: Instant,
    /// The method of the health service, if the gateway answers it.
    health: Option<health::Method>,
    /// The client waits for what may never come.
    watches: bool,
    /// How the call ends for the client, once that is known.
    status: Option<Status>,
}

impl Call {
    /// The call that a request makes, if it makes one on a listener that knows gRPC.
    pub(super) fn of(settings: &Settings, request: &RequestHead, started: Instant) -> Option<Box<Self>> {
        let grpc = settings.grpc.as_ref()?;
        if !request.upgrade.is_empty() || !grpc::is_call(request) {
            return None;
        }
        let most = grpc.max_deadline;
        let mut told = request.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(TIMEOUT));
        let timeout = told.next().map(|field| Timeout::parse(field.value));
        let (deadline, malformed) = match timeout {
            None => (None, false),
            Some(Ok(timeout)) => (Some(started + timeout.clamp(most).duration()), told.next().is_some()),
            Some(Err(_)) => (None, true),
        };
        let health = health::Method::of(request.target()).filter(|_| grpc.health_synthesized);
        Some(Box::new(Self {
            deadline,
            malformed,
            idle: most,
            active: started,
            health,
            watches: false,
            status: None,
        }))
    }

    /// Tells the backend how long the call has left: less with every attempt.
    pub(super) fn forward(&self, request: &mut RequestHead, now: Instant) {
        let Some(deadline) = self.deadline else { return };
        let left = Timeout::new(deadline.saturating_duration_since(now));
        request.fields.remove_named(TIMEOUT);
        request.fields.push(TIMEOUT, left.encode().as_bytes());
    }

    /// Something has passed.
    pub(super) fn moved(&mut self, now: Instant) {
        self.active = now;
    }

    /// The call may be silent for as long as it likes.
    pub(super) fn watches(&mut self) {
        self.watches = true;
    }

    /// When the call has failed unless it is over.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.deadline {
            Some(deadline) => Some(deadline),
            None if self.watches => None,
            None => Some(self.active + self.idle),
        }
    }

    /// Which of its times has come when [`Self::due`] has.
    pub(super) fn expiry(&self) -> Expired {
        if self.deadline.is_some() { Expired::CallDeadline } else { Expired::CallIdle }
    }

    /// The client has given the call up.
    pub(super) fn cancelled(&mut self) {
        self.status.get_or_insert(Status::Cancelled);
    }

    /// How the call has ended for the client, as far as is known.
    pub(super) fn status(&self) -> Option<Status> {
        self.status
    }

    /// Looks at the head of the backend's final response, and makes it one of gRPC if it is none. True when no body is to follow whatever
    /// the backend sends.
    pub(super) fn response(&mut self, head: &mut ResponseHead) -> bool {
        if let Some(status) = grpc::answer::from_http(head) {
            self.status = Some(status);
            return true;
        }
        self.trailers(&head.fields);
        false
    }

    /// Looks at the trailers of the response.
    pub(super) fn trailers(&mut self, fields: &Fields) {
        if let Some(status) = fields.value_of(b"grpc-status") {
            self.status = Some(Status::parse(status));
        }
    }
}

impl Exchange {
    /// What becomes of a call before any backend is asked. `None` lets it go on.
    pub(super) fn begin_call(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Option<Turn> {
        let call = self.call.as_mut()?;
        if call.malformed {
            self.reason = Some(Reason::GrpcTimeout);
            return Some(self.end_call(cx, front, Status::InvalidArgument, "grpc-timeout cannot be read"));
        }
        if call.deadline.is_some_and(|deadline| deadline <= self.clock.now) {
            return Some(self.call_expired(cx, front));
        }
        let health = Health::new(call.health?);
        self.stage = Stage::Health(Box::new(health));
        Some(Turn::Again)
    }

    /// The call's deadline has passed.
    pub(super) fn call_expired(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        if self.response.status == 0 && self.tries.current.is_relaying() {
            self.tries.current.status = Some(504);
        }
        // The client has set it, and must not be able to have backends ejected: the failure is on its account.
        self.fail(cx, front, Kind::CallDeadline.at(Reach::Sent))
    }

    /// The gateway answers a call where it would answer another request with the failure's status.
    pub(super) fn answer_call(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        failure: Failure,
    ) -> Turn {
        let message = failure.grpc_message().unwrap_or_else(|| answer::reason_phrase(failure.status()));
        self.end_call(cx, front, failure.grpc_status(), message)
    }

    /// The gateway ends the call: in the only head, or in trailers where a response has begun. Nothing more comes from the backend, which
    /// hears of it by a reset.
    pub(super) fn end_call(
        &mut self,
        _: &mut Context<'_>,
        front: &mut impl Front,
        status: Status,
        message: &str,
    ) -> Turn {
        if self.response.status == 0 {
            let worker = Rc::clone(&self.service.worker);
            let mut head = worker.response.borrow_mut();
            head.clear();
            grpc::trailers_only(status, message, &mut head);
            self.response.status = head.status;
            self.edit_answer(&mut head);
            front.head(&head);
        } else if self.response.takes_trailers && self.client.can.trailers {
            let mut trailers = Fields::default();
            grpc::answer::push_status(status, message, &mut trailers);
            front.trailers(&trailers);
        } else {
            // Its length was announced: all that is left is to make sure that the client does not take it for whole.
            return self.cut(front, ResetReason::Fault);
        }
        front.end();
        if let Some(call) = &mut self.call {
            call.status = Some(status);
        }
        self.response.done = true;
        self.give_room_back();
        self.last_leaves()
    }
}

const TIMEOUT: &[u8] = b"grpc-timeout";

//! A try at a member: over which connection, and how it ends.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::failure::{Failure, Kind, Shortage};
use lb_core::grpc::Status as GrpcStatus;
use lb_core::outlier::Ending;
use lb_core::rest::RestCause;
use lb_io::shortage_of;
use lb_observe::metrics::StatusClass;
use lb_pool::{Pass, Place};
use lb_security::failure_of;

use super::dial::Dial;
use super::exchange::{Exchange, Turn};
use super::stall::Stall;
use super::tries::{Chosen, Leg};
use crate::message::{Back, Front};
use crate::service::Member;
use crate::upstream::{Ask, Caller, DialOutcome, DialTicket, Dialled, Link, Way};

/// A connection that failed within this time was refused, and has kept no request waiting.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Exchange {
    /// Drives the current try.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let turn = match &mut self.tries.current.leg {
            Leg::Choose => return self.choose(cx, front, false),
            Leg::ChooseFresh => return self.choose(cx, front, true),
            Leg::Queue { .. } => return self.queue(cx, front),
            Leg::Pause { until } if *until <= self.clock.now => {
                self.tries.current.leg = Leg::Choose;
                return Turn::Again;
            }
            Leg::Pause { .. } => Turn::Wait,
            Leg::Relay(_) => return self.relay(cx, front),
            Leg::Over => return Turn::Again,
            Leg::Dial(dial) => match dial.poll(cx) {
                Poll::Ready(result) => {
                    let (ticket, place) = (dial.ticket.take(), dial.place.take());
                    self.dialled(cx, front, result, ticket, place)
                }
                Poll::Pending => Turn::Wait,
            },
            Leg::Wait { wait, since } => match wait.poll(cx) {
                Poll::Ready(DialOutcome::Again) => self.find_way(cx, front, false, None),
                Poll::Ready(DialOutcome::Failed(failure)) => {
                    if self.clock.now.saturating_duration_since(*since) < AT_ONCE {
                        self.forgive_refusal();
                    }
                    self.not_connected(cx, front, failure)
                }
                Poll::Pending => Turn::Wait,
            },
        };
        if matches!(turn, Turn::Wait)
            && let Poll::Ready(gone) = front.poll_hangup(cx)
            && self.request.upload.is_done()
        {
            return self.client_gone(gone);
        }
        turn
    }

    /// Begins a try at a member, for which `pass` holds the room.
    pub(super) fn attempt(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        at: usize,
        fresh: bool,
        pass: Pass,
    ) -> Turn {
        let Some(member) = self.pool.members.get(at).map(Rc::clone) else {
            return self.unavailable(cx, front);
        };
        self.pool.balance.begin(at);
        member.backend.metrics.worker(self.service.worker.io.id).inflight.inc();
        self.tries.current.room = pass.request;
        self.tries.current.member = Some(Chosen { at, member, since: self.clock.now });
        self.trace_attempt();
        self.find_way(cx, front, fresh, pass.connection)
    }

    /// What an upstream is told when it is asked for a connection to `member`.
    #[inline]
    pub(super) fn caller<'a>(&'a self, member: &'a Member) -> Caller<'a> {
        let (worker, settings) = (&self.service.worker, &self.settings);
        Caller { worker, settings, member, client: &self.client, now: self.clock.now }
    }

    /// Looks for a way to the member of the current try: a connection that stands ready, one that another exchange is making, or a new one,
    /// for which `place` is the room. Where a new one is needed and there is no room for it, the choice is made anew: the connection that was
    /// waited for has taken fewer requests than were hoped for.
    fn find_way(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        fresh: bool,
        place: Option<Place>,
    ) -> Turn {
        let Some(Chosen { at, member, .. }) = self.tries.current.member.clone() else {
            return self.unavailable(cx, front);
        };
        let (caller, upstream) = (self.caller(&member), &member.endpoint.upstream);
        let mut ask = Ask { body: self.request.has_body(), fresh };
        let place = match (place, self.pool.balance.gate(at)) {
            (None, Some(gate)) if !upstream.has_way(&caller, ask) => match gate.connection() {
                Some(place) => Some(place),
                None if upstream.has_way(&caller, Ask { body: false, ..ask }) => {
                    ask.body = false;
                    None
                }
                None => {
                    self.withdraw();
                    if !self.fall_back() {
                        self.tries.current.leg = Leg::Choose;
                    }
                    return Turn::Again;
                }
            },
            (place, _) => place,
        };
        let metrics = &caller.worker.metrics;
        match upstream.way(&caller, ask) {
            Way::Open(link) => {
                metrics.pool_acquires.inc();
                metrics.pool_reuses.inc();
                self.begin(&member, link);
            }
            Way::Wait(wait) => {
                let since = match self.tries.current.leg {
                    Leg::Wait { since, .. } => since,
                    _ => caller.now,
                };
                self.tries.current.leg = Leg::Wait { wait, since };
                self.trace_connecting();
            }
            Way::Dial(ticket) => {
                metrics.pool_acquires.inc();
                let dial = Dial::new(member.endpoint.key.address, upstream.dial(&caller), ticket, place);
                self.tries.current.leg = Leg::Dial(dial);
                self.trace_connecting();
            }
        }
        Turn::Again
    }

    /// Sends the request on a connection that stands ready.
    fn begin(&mut self, member: &Member, mut link: Link) {
        self.trace_request();
        let (request, now) = (&mut self.request, self.clock.now);
        request.name_host(member.backend.name());
        if let Some(call) = &self.call {
            call.forward(&mut request.head, now);
        }
        link.back.request(&request.head);
        let resend = request.upload.is_consumed().then_some(0);
        if self.tries.beside.is_none() {
            // The clocks of a try beside this one go on; its own is counted from its start.
            request.upload.restart(now);
        }
        self.tries.current.resend = resend;
        self.tries.current.stall = Stall::default();
        self.tries.current.leg = Leg::Relay(link);
    }

    /// A connect came about, or not.
    fn dialled(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        result: std::io::Result<Dialled>,
        ticket: Option<DialTicket>,
        place: Option<Place>,
    ) -> Turn {
        let Some(Chosen { at, member, .. }) = self.tries.current.member.clone() else {
            return self.unavailable(cx, front);
        };
        match result {
            Ok(made) => {
                let link = self.connected(at, &member, made, place);
                drop(ticket);
                let Some(link) = link else { return self.unavailable(cx, front) };
                self.begin(&member, link);
                Turn::Again
            }
            Err(error) => {
                let address = member.endpoint.key.address;
                if let Some(shortage) = shortage_of(&error) {
                    // An exchange that waits for this connection tries for itself.
                    drop(ticket);
                    tracing::debug!(backend = member.backend.name(), %address, %error, "no connection can be made");
                    return self.lacks(cx, front, shortage);
                }
                tracing::debug!(backend = member.backend.name(), %address, %error, "connect failed");
                let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
                let in_tls = failure_of(&error).is_some();
                let kind = if in_tls { Kind::Tls { timed_out } } else { Kind::Connect { timed_out } };
                let failure = kind.unconnected();
                if let Some(ticket) = ticket {
                    ticket.fail(failure);
                }
                self.unreachable(at, &member, RestCause::of_connect(in_tls, timed_out));
                self.not_connected(cx, front, failure)
            }
        }
    }

    /// A connection to a member was made. `None` where it ended at once.
    fn connected(&self, at: usize, member: &Member, made: Dialled, place: Option<Place>) -> Option<Link> {
        let (worker, born) = (&self.service.worker, self.clock.now);
        member.backend.metrics.worker(worker.io.id).connections.inc();
        member.backend.metrics.set_reachable(true);
        self.pool.balance.answered(at, born.into_std(), born.into_std());
        let connection = self.pool.balance.connected(at, place);
        member.endpoint.upstream.adopt(&self.caller(member), made, connection)
    }

    /// A member did not take a connection: the pool hears of it.
    fn unreachable(&mut self, at: usize, member: &Member, cause: RestCause) {
        let worker = &self.service.worker;
        member.backend.metrics.worker(worker.io.id).connect_failures.inc();
        member.backend.metrics.set_reachable(false);
        self.pool.balance.unreachable(at, cause, self.clock.now.into_std());
        if cause.timed_out() {
            worker.metrics.backend_connect_timeouts.inc();
        } else {
            self.forgive_refusal();
        }
    }

    /// No connection to the member of the current try came about.
    fn not_connected(&mut self, cx: &mut Context<'_>, front: &mut impl Front, failure: Failure) -> Turn {
        self.tries.unconnected(failure);
        self.tries.current.failure = Some(failure);
        if self.fall_back() {
            return Turn::Again;
        }
        if self.may_retry(failure) {
            self.tries.current.leg = Leg::Choose;
            return Turn::Again;
        }
        self.fail(cx, front, failure)
    }

    /// The gateway lacks what a connection takes. No backend is to blame, and only for ports another one may be better off.
    fn lacks(&mut self, cx: &mut Context<'_>, front: &mut impl Front, shortage: Shortage) -> Turn {
        self.service.worker.io.tell_shortage(shortage);
        let failure = Kind::Shortage(shortage).unconnected();
        if shortage == Shortage::Ports {
            return self.not_connected(cx, front, failure);
        }
        self.tries.current.failure = Some(failure);
        if self.fall_back() {
            return Turn::Again;
        }
        self.fail(cx, front, failure)
    }

    /// Takes the current try back: there was no room for it after all, and it was no request.
    fn withdraw(&mut self) {
        let current = &mut self.tries.current;
        current.room = None;
        current.span = None;
        let Some(chosen) = current.member.take() else { return };
        self.pool.balance.withdraw(chosen.at, self.clock.now.into_std());
        chosen.member.backend.metrics.worker(self.service.worker.io.id).inflight.dec();
    }

    /// Ends the current try at its member, with what it says of the member.
    pub(super) fn leave_member(&mut self) {
        self.trace_try();
        let current = &mut self.tries.current;
        current.room = None;
        let Some(Chosen { at, member, since }) = current.member.take() else { return };
        let (balance, now) = (&self.pool.balance, self.clock.now);
        let status = current.status.take();
        let broken_call =
            || self.call.as_ref().and_then(|call| call.status()).is_some_and(GrpcStatus::is_breakdown);
        let ending = match current.failure.take() {
            Some(failure) => failure.ending(),
            None => status.map(|status| match Ending::of_status(status) {
                Ending::Fine if broken_call() => Ending::ServerError,
                ending => ending,
            }),
        };
        let latency = current.heard.take().map(|heard| heard.saturating_duration_since(since));
        if balance.hedges() {
            // A try that was given up would have taken at least as long.
            let least = (status == Some(504)).then(|| now.saturating_duration_since(since));
            if let Some(latency) = latency.or(least) {
                balance.record_latency(latency);
            }
        }
        balance.end(at, now.into_std(), ending, latency);
        let shard = member.backend.metrics.worker(self.service.worker.io.id);
        shard.inflight.dec();
        if let Some(status) = status {
            shard.record(StatusClass::of(status), now - since);
        }
    }
}

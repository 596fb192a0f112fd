//! One request on its way to a backend, and its response on the way back.

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::failure::{Failure, Kind, Reach, Reject, ResetReason};
use lb_core::filter::DrawnFault;
use lb_core::head::{FieldName, RequestHead, Span, TunnelBy};
use lb_core::reason::Reason;
use lb_core::trace::TraceParent;
use lb_io::Deadline;
use tokio::time::Instant;

use super::begin::Arrival;
use super::client::ClientSide;
use super::delay::Delayed;
use super::extras::Extras;
use super::grpc::Call;
use super::health::Health;
use super::mirror::Mirrors;
use super::replay::{FREE_BYTES, Replay};
use super::request::Request;
use super::response::Response;
use super::timing::{Clock, Expired};
use super::trace::Trace;
use super::tries::Tries;
use super::tunnel::{self, Tunnel};
use crate::dry_run;
use crate::filter::{self, Asker, Filtered, Marks};
use crate::message::{Front, FrontCapabilities};
use crate::routes::{Action, Found, Matched, OwnAnswer};
use crate::rules::{self, Destination, Forwarding};
use crate::service::{Pool, Service, Settings};
use crate::websocket::handshake;

/// How an exchange has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has its whole response. Its request body may not have been read to the end.
    Complete,
    /// The client is gone, or must be cut off.
    Broken,
}

/// One request on its way to a backend and its response on the way back.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(super) service: Rc<Service>,
    pub(super) settings: Rc<Settings>,
    /// The pool that the request's route leads to.
    pub(super) pool: Rc<Pool>,
    pub(super) client: ClientSide,
    pub(super) request: Request,
    pub(super) response: Response,
    pub(super) tries: Tries,
    pub(super) stage: Stage,
    pub(super) clock: Clock,
    /// What a gRPC call needs besides.
    pub(super) call: Option<Box<Call>>,
    /// What the filters know, where there are some.
    pub(super) filtered: Option<Box<Filtered>>,
    /// Set from the switch of protocols on.
    pub(super) tunnel: Option<Box<Tunnel>>,
    /// What few exchanges have.
    pub(super) extras: Option<Box<Extras>>,
    /// Why the gateway stepped in, for the access log.
    pub(super) reason: Option<Reason>,
}

/// What an exchange is about.
#[derive(Debug)]
pub(super) enum Stage {
    /// The gateway answers itself, before any backend is asked.
    Answer(Failure),
    /// The request may be forwarded no further (RFC 9110 §7.6.2).
    LastHop,
    /// The route has an answer of its own.
    Routed(Box<OwnAnswer>),
    /// The gateway answers itself how its backends are.
    Health(Box<Health>),
    /// The body is read before a backend is chosen.
    Buffer,
    /// It waits on purpose; what follows is among its extras.
    Delayed,
    /// A backend is to answer.
    Tries,
    /// The response is complete and on its last way to the client.
    Flush,
}

impl Stage {
    /// What an exchange is about whose request is served on this connection or not, and goes so far, where `action` is what its route and its
    /// filters say.
    #[inline]
    fn of(serves: bool, destination: Destination, action: Action) -> Self {
        match (serves, destination) {
            // The connection was accepted under other rules for client certificates than those of the host that is asked for
            // (attack T-03). Other requests of the connection are none the worse for it.
            (false, _) => Self::Answer(Reject::new(421, Reason::Misdirected).into()),
            (true, Destination::Here) => Self::LastHop,
            (true, Destination::Backend) => match action {
                Action::Forward => Self::Tries,
                Action::Refuse(reject) => Self::Answer(reject.into()),
                Action::Answer(answer) => Self::Routed(answer),
            },
        }
    }
}

/// What is done with a request that asks for a tunnel where its route lets none be. An upgrade that is not heeded is an ordinary request (RFC 9110 §7.8); an extended
/// CONNECT can be none.
#[cold]
fn close_tunnel(action: Action, head: &mut RequestHead, by: TunnelBy) -> Action {
    match action {
        Action::Forward if by == TunnelBy::ExtendedConnect => {
            Action::Refuse(Reject::new(501, Reason::Method))
        }
        Action::Forward => {
            head.upgrade = Span::default();
            Action::Forward
        }
        action => action,
    }
}

/// What is done with a request once its later phases have spoken: faults that are injected, filters, and the size of its body. What an
/// earlier phase has refused stays refused.
#[inline]
fn refuse_late(action: Action, fault: &DrawnFault, refused: Option<Reject>, request: &Request) -> Action {
    if matches!(action, Action::Refuse(_)) {
        return action;
    }
    match (fault.abort, refused) {
        (Some(status), _) => Action::Refuse(Reject::new(status, Reason::Fault)),
        (None, Some(reject)) => Action::Refuse(reject),
        // Announced already: nothing of it is read.
        (None, None) if request.is_too_large() => Action::Refuse(Reject::new(413, Reason::BodyTooLarge)),
        (None, None) => action,
    }
}

/// What one turn of the state machine came to.
pub(super) enum Turn {
    Again,
    Wait,
    End(End),
}

impl Exchange {
    /// The exchange of a request that has just been read, from a client whose protocol can do so much.
    pub(super) fn new(arrival: Arrival<'_>, mut head: RequestHead, can: FrontCapabilities) -> Self {
        let Arrival { service, settings, client, started } = arrival;
        let (service, settings) = (Rc::clone(service), Rc::clone(settings));
        let origin = client.origin(&head, &settings);
        let mut rng = service.worker.io.rng.borrow_mut();
        let id = settings.request_id.as_ref();
        let id = id.map(|id| filter::take_request_id(id, &origin, &mut head, &mut rng));
        let Found { pool, at, matched, action, is_preflight, cookie, limited } =
            settings.routes.find(&mut head, &origin, client.session.as_deref(), &mut rng);
        if limited.is_dry() {
            dry_run::tell(&limited, origin.client, &service);
        }
        let has_tunnels = |found: Matched| settings.routes.has_tunnels(found.route);
        let action = match head.upgrade.is_empty() || matched.is_none_or(has_tunnels) {
            true => action,
            false => close_tunnel(action, &mut head, can.tunnel),
        };
        let destination = rules::spend_forward(&mut head);
        let serves = client.session.as_ref().is_none_or(|session| session.serves(head.authority()));
        let route = matched.map(|matched| matched.route);
        let http = route.and_then(|route| settings.routes.http(route)).unwrap_or(&settings.http);
        let response = Response { left: http.max_response_body_bytes, ..Response::default() };
        let keeps = http.replay_bytes.max(http.buffer_request_bytes) > FREE_BYTES;
        let replay = Replay::new(http.replay_bytes, keeps.then_some(&service.worker.held));
        let mut request = Request::new(head, route, started, http.max_request_body_bytes, replay);
        let head = &mut request.head;
        let told = settings.client_address.as_deref().map(|policy| Forwarding { policy, origin: &origin });
        let sampler = settings.sampler.as_ref().filter(|_| service.worker.traces.is_some());
        let parent = sampler
            .and_then(|_| head.fields.values(FieldName::Traceparent).next().and_then(TraceParent::parse));
        rules::request(head, &client.hop, told, &mut rng);
        let trace = sampler.and_then(|sampler| Trace::of(sampler, parent, head, &mut rng));
        let asker = Asker { origin: &origin, client };
        let marks = Marks { id, cookie, is_preflight, notice: limited.rates.notice, held: limited.held };
        let (filtered, refused) = filter::request(&settings, at, matched, marks, asker, head);
        let is_refused = is_preflight || matches!(action, Action::Refuse(_));
        let fault = if is_refused { DrawnFault::default() } else { settings.routes.fault(at, &mut rng) };
        let action = refuse_late(action, &fault, refused, &request);
        let head = &mut request.head;
        if can.tunnel == TunnelBy::ExtendedConnect && !head.upgrade.is_empty() {
            let nonce = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
            handshake::complete_h2_request(head, &handshake::key(nonce.to_be_bytes()));
        }
        drop(rng);
        let rules = route.and_then(|route| settings.routes.rules(route, &pool));
        service.worker.begun();
        let (stage, delayed) = match (Stage::of(serves, destination, action), fault.delay) {
            (stage, None) => (stage, None),
            (then, Some(delay)) => (Stage::Delayed, Some(Delayed { until: started + delay, then })),
        };
        // The end of this function: whatever is done to an exchange that stands already has it copied once more.
        Self {
            call: Call::of(&settings, &request.head, started),
            tries: Tries::new(&pool, rules.as_ref().unwrap_or(pool.balance.retry())),
            extras: Extras::of(rules, delayed, trace),
            client: ClientSide::new(origin.client, client, can),
            stage,
            clock: Clock::new(started),
            response,
            filtered,
            tunnel: None,
            reason: None,
            service,
            settings,
            pool,
            request,
        }
    }

    /// Settles what is done with the body before a backend is chosen, once the exchange has its place.
    pub(super) fn prepare(&mut self) {
        let buffers = self.buffers();
        let delayed = self.extras.as_mut().and_then(|extras| extras.delayed.as_mut());
        let stage = delayed.map_or(&mut self.stage, |delayed| &mut delayed.then);
        if !matches!(stage, Stage::Tries) {
            return;
        }
        if buffers {
            *stage = Stage::Buffer;
        }
        let is_mirrored =
            self.request.route.is_some_and(|route| !self.settings.routes.mirrors(route).is_empty());
        if is_mirrored && self.request.head.upgrade.is_empty() {
            self.extras.get_or_insert_default().mirrors = Mirrors::Due;
        }
    }

    /// Drives the exchange as far as it goes. `deadline` belongs to this exchange while it runs.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        deadline: &mut Deadline<'_>,
    ) -> Poll<End> {
        self.clock.now = Instant::now();
        loop {
            let mut turn = self.step(cx, front);
            self.account(front);
            if self.tries.beside.is_some() {
                turn = self.race(cx, front, turn);
            }
            match turn {
                Turn::Again => {}
                Turn::End(end) => {
                    self.clock.ended = true;
                    return Poll::Ready(end);
                }
                Turn::Wait if deadline.poll(cx, self.due()) => {
                    self.clock.now = Instant::now();
                    if let Turn::End(end) = self.expired(cx, front) {
                        self.account(front);
                        self.clock.ended = true;
                        return Poll::Ready(end);
                    }
                }
                Turn::Wait => return Poll::Pending,
            }
        }
    }

    /// Takes one turn.
    pub(super) fn step(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        match &self.stage {
            Stage::Tries => self.drive(cx, front),
            Stage::Buffer => self.buffer(cx, front),
            Stage::Flush => self.flush(cx, front),
            Stage::Answer(failure) => {
                let failure = *failure;
                if failure.reason() == Reason::BodyTooLarge {
                    // Nothing of the body is read, so nothing that follows it either.
                    front.last_request();
                }
                self.fail(cx, front, failure)
            }
            Stage::LastHop => self.last_hop(cx, front),
            Stage::Delayed => self.delayed(cx, front),
            Stage::Routed(_) => self.answer_routed(cx, front),
            Stage::Health(_) => self.health(cx, front),
        }
    }

    /// What to do when the earliest deadline has come.
    fn expired(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let Some(expired) = self.what_expired() else { return Turn::Again };
        self.clock.limit = self.limit_of(expired);
        match expired {
            Expired::Tunnel(expired) => self.tunnel_expired(cx, front, expired),
            Expired::ClientRead => {
                self.service.worker.metrics.request_rejected.of(Reason::WriteTimeout).inc();
                self.reason = Some(Reason::WriteTimeout);
                self.cut(front, ResetReason::Fault)
            }
            Expired::Upload => self.refuse(cx, front, Reject::new(408, Reason::BodyTimeout)),
            Expired::UploadRate => self.refuse(cx, front, Reject::new(408, Reason::BodyRate)),
            Expired::CallDeadline => self.call_expired(cx, front),
            Expired::CallIdle => self.fail(cx, front, Kind::CallIdle.at(Reach::Sent)),
            Expired::HealthWatch | Expired::Queue | Expired::Pause | Expired::Delay => Turn::Again,
            Expired::Try => self.try_expired(cx, front),
            Expired::Hedge => self.hedge(cx, front),
            Expired::Backend => {
                self.blame_silence();
                let failure = Kind::Timeout.at(Reach::Sent);
                if !self.is_out_of_time() && self.give_side_up(failure) {
                    return Turn::Again;
                }
                self.fail(cx, front, failure)
            }
        }
    }

    /// A limit of the tunnel has come.
    fn tunnel_expired(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        expired: tunnel::Expired,
    ) -> Turn {
        match expired {
            tunnel::Expired::Limit(close) => {
                if let (Some(tunnel), Some(back)) = (&mut self.tunnel, self.tries.current.back()) {
                    tunnel.close(cx, close, front, back, self.clock.now);
                }
                Turn::Again
            }
            // What a side has not taken by now, it does not want.
            tunnel::Expired::Linger if self.client.stall.is_on() => {
                front.abort(ResetReason::Cancelled);
                Turn::End(End::Broken)
            }
            tunnel::Expired::Linger => Turn::End(End::Complete),
        }
    }
}

//! Attempts at a backend: whom to ask, over which connection, and whether to try again.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use lb_core::head::FieldName;
use lb_core::outlier::Ending;
use lb_core::retry::Failure;
use lb_observe::metrics::RetryReason;
use lb_pool::{Connection, Pass, Place};
use lb_security::Stream;
use tokio::time::Instant;

use super::dial::{Connect, Dial};
use super::timing::Stall;
use super::{Exchange, Stage, Turn, Verdict};
use crate::affinity;
use crate::back::AnyBack;
use crate::exchange::Front;
use crate::grpc::{Failure as CallFailure, Status as GrpcStatus};
use crate::h1::back::H1Back;
use crate::h2::{ClientConnection, DialTicket, Way};
use crate::service::{Member, Pool};
use crate::upstream::Reused;

/// Where a connection comes from.
pub(super) struct Origin {
    /// It has served before.
    pub(super) reused: bool,
    /// When it was made.
    pub(super) born: Instant,
    /// Its count at its member, unless others share it.
    pub(super) connection: Option<Connection>,
}

impl Exchange {
    /// Chooses a member of the pool, and a pooled connection to it or a new one.
    pub(super) fn choose(&mut self, cx: &mut Context<'_>, front: &mut impl Front, fresh: bool) -> Turn {
        if let Some(turn) = self.begin_call(cx, front) {
            return turn;
        }
        let settings = Rc::clone(&self.settings);
        let Some(pool) = settings.pool(self.pool) else { return self.unavailable(cx, front) };
        if self.ruled && !std::mem::replace(&mut self.counted, true) {
            pool.balance.begin_request();
        }
        let picked = self.pick(pool, fresh);
        let Some(at) = picked else { return self.unavailable(cx, front) };
        let status = self.backend_status.take();
        self.leave_member(status);
        match pool.balance.gate(at) {
            None => self.attempt(cx, front, at, fresh, Pass::default()),
            Some(gate) => self.enter(cx, front, gate, at, fresh),
        }
    }

    /// The member for the next attempt: one that has not failed this request if there is one, and one with room if there is one.
    #[inline]
    fn pick(&mut self, pool: &Pool, fresh: bool) -> Option<usize> {
        let key = match pool.balance.follows_key() {
            true => affinity::key(&pool.hash_key, &self.request, self.client.ip()),
            false => None,
        };
        let stuck_to = pool.sticky.as_ref().and_then(|sticky| sticky.member(&self.request));
        let picked = self.pick_by(pool, key, stuck_to, fresh);
        self.moves = pool.sticky.is_some() && picked != stuck_to;
        picked
    }

    /// The same, once it is known what the request goes by: a key, or the member that its client is stuck to.
    #[inline]
    fn pick_by(&self, pool: &Pool, key: Option<u64>, stuck_to: Option<usize>, fresh: bool) -> Option<usize> {
        let now = self.now.into_std();
        let works = |at: usize| !self.failed.contains(&at);
        if self.avoided.is_empty() && !pool.balance.is_limited() {
            return stuck_to
                .filter(|at| works(*at))
                .and_then(|at| pool.balance.pick_again(now, at))
                .or_else(|| pool.balance.pick(now, key, works));
        }
        let other = |at: usize| works(at) && !self.avoided.contains(&at);
        let has_room =
            |at: usize| pool.balance.gate(at).is_none_or(|gate| gate.has_room(self.need(pool, at, fresh)));
        let pick = |admits: &dyn Fn(usize) -> bool| pool.balance.pick(now, key, admits);
        stuck_to
            .filter(|at| other(*at) && has_room(*at))
            .and_then(|at| pool.balance.pick_again(now, at))
            .or_else(|| pick(&|at| other(at) && has_room(at)))
            .or_else(|| pick(&|at| works(at) && has_room(at)))
            .or_else(|| pick(&other))
            .or_else(|| pick(&works))
    }

    /// Begins an attempt at a member, for which `pass` holds the room.
    pub(super) fn attempt(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        at: usize,
        fresh: bool,
        pass: Pass,
    ) -> Turn {
        let settings = Rc::clone(&self.settings);
        let Some(pool) = settings.pool(self.pool) else { return self.unavailable(cx, front) };
        let Some(member) = pool.members.get(at) else { return self.unavailable(cx, front) };
        pool.balance.begin(at);
        self.member = Some((at, self.now));
        self.room = pass.request;
        member.metrics.worker(self.service.worker.io.id).inflight.inc();
        self.service.worker.metrics.pool_acquires.inc();
        if member.endpoint.key.h2 {
            return self.share(cx, front, pass.connection);
        }
        let upstreams = &self.service.worker.upstreams;
        let pooled = if fresh { None } else { upstreams.take(&member.endpoint, self.now) };
        match pooled {
            Some(reused) => {
                let Reused { stream, born, connection } = reused;
                let back = self.h1_back(stream);
                self.begin(cx, member, back, Origin { reused: true, born, connection });
            }
            None => self.stage = Stage::Dial(Dial::new(self.connect(member), None, pass.connection)),
        }
        Turn::Again
    }

    /// How to reach a member.
    pub(super) fn connect(&self, member: &Member) -> Connect {
        Connect {
            address: member.endpoint.key.address,
            timeout: self.settings.connect_timeout,
            tls: member.tls.clone(),
            h2: member.endpoint.key.h2,
            handshake_timeout: self.settings.handshake_timeout,
            io: Rc::clone(&self.service.worker.io),
            metrics: Arc::clone(&self.service.worker.metrics),
        }
    }

    pub(super) fn h1_back(&self, stream: Stream) -> AnyBack {
        let io = Rc::clone(&self.service.worker.io);
        AnyBack::H1(H1Back::new(stream, io, self.settings.http.max_header_bytes))
    }

    /// Looks for a stream on the connections that a member which speaks HTTP/2 shares among exchanges.
    /// `place` is room for another one.
    pub(super) fn share(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        place: Option<Place>,
    ) -> Turn {
        let settings = Rc::clone(&self.settings);
        let Some(pool) = settings.pool(self.pool) else { return self.unavailable(cx, front) };
        let Some((at, member)) = self.member.and_then(|(at, _)| Some((at, pool.members.get(at)?))) else {
            return self.unavailable(cx, front);
        };
        match member.endpoint.h2.way(self.now) {
            Way::Open(back) => {
                self.service.worker.metrics.pool_reuses.inc();
                self.begin(
                    cx,
                    member,
                    AnyBack::H2(back),
                    Origin { reused: true, born: self.now, connection: None },
                );
            }
            Way::Wait(wait) => {
                let since = match self.stage {
                    Stage::Wait { since, .. } => since,
                    _ => self.now,
                };
                self.stage = Stage::Wait { wait, since };
            }
            Way::Dial(ticket) => {
                let place = match (place, pool.balance.gate(at)) {
                    (None, Some(gate)) => match gate.connection() {
                        Ok(place) => Some(place),
                        Err(full) => return self.overflow(cx, front, full),
                    },
                    (place, _) => place,
                };
                self.stage = Stage::Dial(Dial::new(self.connect(member), Some(ticket), place));
            }
        }
        Turn::Again
    }

    /// Nobody is left who could take the request.
    pub(super) fn unavailable(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        self.call_failed(CallFailure::Connect);
        let status = if self.failed.is_empty() { 503 } else { 502 };
        self.answer(cx, front, status, "no_backend")
    }

    /// Sends the request on a connection that stands ready.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, member: &Member, mut back: AnyBack, origin: Origin) {
        use crate::exchange::{Back, Sink};
        if self.request.fields.values(FieldName::Host).next().is_none() {
            // Only HTTP/1.0 comes without; HTTP/1.1 must name somebody.
            if self.request.authority.is_empty() {
                self.request.fields.push(b"Host", member.name.as_bytes());
            } else {
                self.request.fields.push_copy(b"Host", self.request.authority);
            }
        }
        if let Some(call) = &self.call {
            call.forward(&mut self.request, self.now);
        }
        back.request(&self.request);
        if self.upload.is_consumed() {
            self.replay.send(cx, &mut back);
            if self.upload.is_done() {
                back.end();
            }
        }
        self.back_stall = Stall::default();
        self.upload.restart(self.now);
        let Origin { reused, born, connection } = origin;
        self.stage = Stage::Relay { back, reused, born, connection };
    }

    /// A connect came about, or not.
    pub(super) fn dialled(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        result: std::io::Result<Stream>,
        ticket: Option<DialTicket>,
        place: Option<Place>,
    ) -> Turn {
        let settings = Rc::clone(&self.settings);
        let Some(pool) = settings.pool(self.pool) else { return self.unavailable(cx, front) };
        let Some((at, member)) = self.member.and_then(|(at, _)| Some((at, pool.members.get(at)?))) else {
            return self.unavailable(cx, front);
        };
        let shard = member.metrics.worker(self.service.worker.io.id);
        let error = match result {
            Ok(stream) => {
                shard.connections.inc();
                member.metrics.set_reachable(true);
                let counted = pool.balance.connected(at, place);
                if !member.endpoint.key.h2 {
                    let back = self.h1_back(stream);
                    let origin = Origin { reused: false, born: self.now, connection: counted };
                    self.begin(cx, member, back, origin);
                    return Turn::Again;
                }
                let io = Rc::clone(&self.service.worker.io);
                let connection = ClientConnection::start(
                    stream,
                    member.tls.is_some(),
                    settings.client_settings(),
                    io,
                    counted,
                    self.now,
                );
                let back = connection.open(u32::MAX, self.now);
                member.endpoint.h2.add(connection);
                drop(ticket);
                let Some(back) = back else { return self.unavailable(cx, front) };
                self.begin(
                    cx,
                    member,
                    AnyBack::H2(back),
                    Origin { reused: false, born: self.now, connection: None },
                );
                return Turn::Again;
            }
            Err(error) => error,
        };
        if let Some(ticket) = ticket {
            ticket.fail();
        }
        shard.connect_failures.inc();
        member.metrics.set_reachable(false);
        let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
        if timed_out {
            self.service.worker.metrics.backend_connect_timeouts.inc();
        }
        tracing::debug!(backend = member.name, address = %member.endpoint.key.address, %error, "connect failed");
        self.not_connected(cx, front, timed_out)
    }

    /// No connection to the present member came about.
    pub(super) fn not_connected(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        timed_out: bool,
    ) -> Turn {
        self.failed.extend(self.member.map(|(at, _)| at));
        self.verdict = Verdict::Failure;
        if self.fall_back() {
            return Turn::Again;
        }
        if self.may_retry(Failure::Connect, RetryReason::Connect) {
            self.stage = Stage::Choose { fresh: false };
            return Turn::Again;
        }
        self.call_failed(CallFailure::Connect);
        if timed_out {
            self.answer(cx, front, 504, "connect_timeout")
        } else {
            self.answer(cx, front, 502, "connect_failed")
        }
    }

    /// Ends the attempt at the present member, with the status it gave.
    pub(super) fn leave_member(&mut self, status: Option<u16>) {
        self.room = None;
        let Some((at, since)) = self.member.take() else { return };
        let Some(pool) = self.settings.pool(self.pool) else { return };
        let broken_call =
            || self.call.as_ref().and_then(|call| call.status()).is_some_and(GrpcStatus::is_breakdown);
        let ending = match std::mem::replace(&mut self.verdict, Verdict::Status) {
            Verdict::Failure => Some(Ending::GatewayFailure),
            Verdict::Nothing => None,
            Verdict::Status => status.map(|status| match Ending::of_status(status) {
                Ending::Fine if broken_call() => Ending::ServerError,
                ending => ending,
            }),
        };
        let latency = self.heard.take().map(|heard| heard.saturating_duration_since(since));
        if self.ruled {
            // A try that was given up would have taken at least as long.
            let least = (status == Some(504)).then(|| self.now.saturating_duration_since(since));
            if let Some(latency) = latency.or(least) {
                pool.balance.record_latency(latency);
            }
        }
        pool.balance.end(at, self.now.into_std(), ending, latency);
        if let Some(member) = pool.members.get(at) {
            let shard = member.metrics.worker(self.service.worker.io.id);
            shard.inflight.dec();
            if let Some(status) = status {
                shard.record(lb_observe::metrics::StatusClass::of(status), self.now - since);
            }
        }
    }
}

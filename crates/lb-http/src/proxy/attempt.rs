//! Attempts at a backend: over which connection, and how they end.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use lb_core::failure::{Failure, Kind, Shortage};
use lb_core::grpc::Status as GrpcStatus;
use lb_core::head::{BodyLength, FieldName};
use lb_core::outlier::Ending;
use lb_io::shortage_of;
use lb_pool::{Connection, Pass, Place};
use lb_security::{Connector, Stream, failure_of};
use tokio::time::Instant;

use super::dial::{Connect, Dial};
use super::timing::Stall;
use super::{Exchange, Stage, Turn};
use crate::back::AnyBack;
use crate::exchange::Front;
use crate::h1::back::H1Back;
use crate::h2::{Backend, ClientConnection, DialTicket, Way};
use crate::service::Member;
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
        if member.endpoint.key.h2 {
            return self.share(cx, front, pass.connection);
        }
        self.service.worker.metrics.pool_acquires.inc();
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
            to: Connector {
                address: member.endpoint.key.address,
                timeout: self.settings.connect_timeout,
                tls: member.tls.clone(),
                handshake_timeout: self.settings.handshake_timeout,
                resets: false,
            },
            h2: member.endpoint.key.h2,
            io: Rc::clone(&self.service.worker.io),
            metrics: Arc::clone(&self.service.worker.metrics),
        }
    }

    pub(super) fn h1_back(&self, stream: Stream) -> AnyBack {
        let io = Rc::clone(&self.service.worker.io);
        AnyBack::H1(H1Back::new(stream, io, self.settings.http.max_header_bytes))
    }

    /// Whether something follows the request's head.
    fn has_body(&self) -> bool {
        !self.request.upgrade.is_empty()
            || !matches!(self.request.body, BodyLength::None | BodyLength::Known(0))
    }

    /// Looks for a stream on the connections that a member which speaks HTTP/2 shares among exchanges.
    /// `place` is room for another one. Where one is needed and there is no room for it, the choice is made anew: the connection that was
    /// waited for has taken fewer streams than were hoped for.
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
        let mut body = self.has_body();
        let place = match (place, pool.balance.gate(at)) {
            (None, Some(gate)) if !member.endpoint.h2.has_way(body, self.now) => match gate.connection() {
                Some(place) => Some(place),
                None if member.endpoint.h2.has_way(false, self.now) => {
                    body = false;
                    None
                }
                None => {
                    self.withdraw();
                    if !self.fall_back() {
                        self.stage = Stage::Choose { fresh: false };
                    }
                    return Turn::Again;
                }
            },
            (place, _) => place,
        };
        match member.endpoint.h2.way(body, self.now) {
            Way::Open(back) => {
                self.service.worker.metrics.pool_acquires.inc();
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
                self.service.worker.metrics.pool_acquires.inc();
                self.stage = Stage::Dial(Dial::new(self.connect(member), Some(ticket), place));
            }
        }
        Turn::Again
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
        if self.beside.is_none() {
            // The clocks of a try beside this one go on; its own is counted from its start.
            self.upload.restart(self.now);
        }
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
                let now = self.now.into_std();
                pool.balance.answered(at, now, now);
                let counted = pool.balance.connected(at, place);
                if !member.endpoint.key.h2 {
                    let back = self.h1_back(stream);
                    let origin = Origin { reused: false, born: self.now, connection: counted };
                    self.begin(cx, member, back, origin);
                    return Turn::Again;
                }
                let io = Rc::clone(&self.service.worker.io);
                let backend =
                    Backend { name: member.name.as_str().into(), address: member.endpoint.key.address };
                let connection = ClientConnection::start(
                    stream,
                    member.tls.is_some(),
                    backend,
                    settings.client_settings(),
                    io,
                    counted,
                    self.now,
                );
                let back = connection.open(u32::MAX, self.now);
                member.endpoint.h2.add(connection);
                self.service.worker.upstreams.touched(self.now);
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
        if let Some(shortage) = shortage_of(&error) {
            // Who waits for this connection tries for itself.
            drop(ticket);
            tracing::debug!(backend = member.name, address = %member.endpoint.key.address, %error, "no connection can be made");
            return self.lacks(cx, front, shortage);
        }
        let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
        let kind = match failure_of(&error) {
            Some(_) => Kind::Tls { timed_out },
            None => Kind::Connect { timed_out },
        };
        let failure = kind.unconnected();
        if let Some(ticket) = ticket {
            ticket.fail(failure);
        }
        shard.connect_failures.inc();
        member.metrics.set_reachable(false);
        if timed_out {
            self.service.worker.metrics.backend_connect_timeouts.inc();
        }
        tracing::debug!(backend = member.name, address = %member.endpoint.key.address, %error, "connect failed");
        pool.balance.unreachable(at, timed_out, self.now.into_std());
        if !timed_out {
            self.forgive_refusal();
        }
        self.not_connected(cx, front, failure)
    }

    /// No connection to the present member came about.
    pub(super) fn not_connected(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        failure: Failure,
    ) -> Turn {
        self.failed.extend(self.member.map(|(at, _)| at));
        self.failure = Some(failure);
        let lacks_ports = Kind::Shortage(Shortage::Ports).unconnected();
        self.unconnected =
            Some(failure).filter(|_| self.unconnected != Some(lacks_ports)).or(self.unconnected);
        if self.fall_back() {
            return Turn::Again;
        }
        if self.may_retry(failure) {
            self.stage = Stage::Choose { fresh: false };
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
        self.failure = Some(failure);
        if self.fall_back() {
            return Turn::Again;
        }
        self.fail(cx, front, failure)
    }

    /// Takes the attempt at the present member back: there was no room for it after all, and it was no request.
    fn withdraw(&mut self) {
        self.room = None;
        let Some((at, _)) = self.member.take() else { return };
        let Some(pool) = self.settings.pool(self.pool) else { return };
        pool.balance.withdraw(at, self.now.into_std());
        if let Some(member) = pool.members.get(at) {
            member.metrics.worker(self.service.worker.io.id).inflight.dec();
        }
    }

    /// Ends the attempt at the present member, with the status it gave.
    pub(super) fn leave_member(&mut self, status: Option<u16>) {
        self.room = None;
        let Some((at, since)) = self.member.take() else { return };
        let Some(pool) = self.settings.pool(self.pool) else { return };
        let broken_call =
            || self.call.as_ref().and_then(|call| call.status()).is_some_and(GrpcStatus::is_breakdown);
        let ending = match self.failure.take() {
            Some(failure) => failure.ending(),
            None => status.map(|status| match Ending::of_status(status) {
                Ending::Fine if broken_call() => Ending::ServerError,
                ending => ending,
            }),
        };
        let latency = self.heard.take().map(|heard| heard.saturating_duration_since(since));
        if pool.balance.hedges() {
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

//! Attempts at a backend: whom to ask, over which connection, and whether to try again.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use lb_core::head::FieldName;
use lb_core::outlier::Ending;
use lb_core::retry::{self, Attempt, Failure};
use lb_observe::metrics::RetryReason;
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
use crate::service::Member;

impl Exchange {
    /// Chooses a member of the pool, and a pooled connection to it or a new one.
    pub(super) fn choose(&mut self, cx: &mut Context<'_>, front: &mut impl Front, fresh: bool) -> Turn {
        if let Some(turn) = self.begin_call(cx, front) {
            return turn;
        }
        let settings = Rc::clone(&self.settings);
        let Some(pool) = settings.pool(self.pool) else { return self.unavailable(cx, front) };
        let key = match pool.balance.follows_key() {
            true => affinity::key(&pool.hash_key, &self.request, self.client.ip()),
            false => None,
        };
        let now = self.now.into_std();
        let stuck_to = pool.sticky.as_ref().and_then(|sticky| sticky.member(&self.request));
        let picked = stuck_to
            .filter(|at| !self.failed.contains(at))
            .and_then(|at| pool.balance.pick_again(now, at))
            .or_else(|| pool.balance.pick(now, key, |at| !self.failed.contains(&at)));
        self.moves = pool.sticky.is_some() && picked != stuck_to;
        let Some(at) = picked else { return self.unavailable(cx, front) };
        let Some(member) = pool.members.get(at) else { return self.unavailable(cx, front) };
        self.leave_member(None);
        pool.balance.begin(at);
        self.member = Some((at, self.now));
        member.metrics.worker(self.service.worker.io.id).inflight.inc();
        self.service.worker.metrics.pool_acquires.inc();
        if member.endpoint.key.h2 {
            return self.share(cx, front);
        }
        let upstreams = &self.service.worker.upstreams;
        let pooled = if fresh { None } else { upstreams.take(&member.endpoint, self.now) };
        match pooled {
            Some(reused) => {
                let back = self.h1_back(reused.stream);
                self.begin(cx, member, back, true, reused.born);
            }
            None => self.stage = Stage::Dial(Dial::new(self.connect(member), None)),
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
    pub(super) fn share(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let settings = Rc::clone(&self.settings);
        let Some(member) = self.member.and_then(|(at, _)| settings.pool(self.pool)?.members.get(at)) else {
            return self.unavailable(cx, front);
        };
        match member.endpoint.h2.way(self.now) {
            Way::Open(back) => {
                self.service.worker.metrics.pool_reuses.inc();
                self.begin(cx, member, AnyBack::H2(back), true, self.now);
            }
            Way::Wait(wait) => {
                let since = match self.stage {
                    Stage::Wait { since, .. } => since,
                    _ => self.now,
                };
                self.stage = Stage::Wait { wait, since };
            }
            Way::Dial(ticket) => self.stage = Stage::Dial(Dial::new(self.connect(member), Some(ticket))),
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
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        member: &Member,
        mut back: AnyBack,
        reused: bool,
        born: Instant,
    ) {
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
        self.stage = Stage::Relay { back, reused, born };
    }

    /// A connect came about, or not.
    pub(super) fn dialled(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        result: std::io::Result<Stream>,
        ticket: Option<DialTicket>,
    ) -> Turn {
        let settings = Rc::clone(&self.settings);
        let Some(member) = self.member.and_then(|(at, _)| settings.pool(self.pool)?.members.get(at)) else {
            return self.unavailable(cx, front);
        };
        let shard = member.metrics.worker(self.service.worker.io.id);
        let error = match result {
            Ok(stream) => {
                shard.connections.inc();
                member.metrics.set_reachable(true);
                if !member.endpoint.key.h2 {
                    let back = self.h1_back(stream);
                    self.begin(cx, member, back, false, self.now);
                    return Turn::Again;
                }
                let io = Rc::clone(&self.service.worker.io);
                let connection = ClientConnection::start(
                    stream,
                    member.tls.is_some(),
                    settings.client_settings(),
                    io,
                    self.now,
                );
                let back = connection.open(u32::MAX, self.now);
                member.endpoint.h2.add(connection);
                drop(ticket);
                let Some(back) = back else { return self.unavailable(cx, front) };
                self.begin(cx, member, AnyBack::H2(back), false, self.now);
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
        if self.may_retry(Failure::Connect) {
            self.service.worker.metrics.http_retries.of(RetryReason::Connect).inc();
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

    /// Whether another attempt may follow; counts it if so.
    pub(super) fn may_retry(&mut self, failure: Failure) -> bool {
        let attempt = Attempt {
            tries_left: self.settings.http.retries.saturating_sub(self.retries),
            idempotent: retry::is_idempotent(self.request.method()),
            body_consumed: self.upload.is_consumed() && !self.replay.is_whole(),
        };
        let may =
            self.response.status == 0 && self.response.interims == 0 && retry::may_retry(failure, attempt);
        if may {
            self.retries = self.retries.saturating_add(1);
        }
        may
    }

    /// Ends the attempt at the present member, with the status it gave.
    pub(super) fn leave_member(&mut self, status: Option<u16>) {
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

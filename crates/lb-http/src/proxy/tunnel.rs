//! A WebSocket tunnel while it stands. What passes is watched, not touched; when a limit is reached or a drain ends, each side that stands
//! between two frames is told so by a close frame, and is given a moment to read it and to end what it sends.

use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use lb_core::head::Fields;
use lb_core::reason::Reason;
use lb_io::{Follower, Phase};
use lb_observe::metrics::TunnelEnd;
use lb_security::masking_key;
use std::task::Poll;
use tokio::time::Instant;

use crate::message::{Gone, Sink};
use crate::service::Service;
use crate::websocket::{Close, Idle, Inspector, MessageLimits, Role, Violation};

/// How long both sides are given to take the last bytes and to end what they send. A socket that is closed while the peer's bytes are on
/// their way is reset, and what it was told may be lost with it.
const LINGER: Duration = Duration::from_secs(2);

/// What a listener asks of its tunnels (`[listeners.websocket]`).
#[derive(Clone, Copy, Debug)]
pub struct TunnelLimits {
    frames: MessageLimits,
    idle_timeout: Duration,
}

impl TunnelLimits {
    /// The limits of a listener.
    pub fn new(settings: &lb_config::WebSocket) -> Self {
        Self {
            frames: MessageLimits {
                max_message_size_bytes: u64::try_from(settings.max_message_size_bytes).unwrap_or(u64::MAX),
                ping_rate_limit_per_window: settings.ping_rate_limit_per_window,
                ping_rate_limit_window: settings.ping_rate_limit_window,
                read_frame_timeout: settings.read_frame_timeout,
            },
            idle_timeout: settings.idle_timeout,
        }
    }
}

/// A tunnel from the switch to its end.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Also how long a side may take nothing of what waits for it.
    read_frame_timeout: Duration,
    idle: Idle,
    /// From the client to the backend.
    up: Direction,
    /// From the backend to the client.
    down: Direction,
    /// Until when both sides may take their time to end, once the gateway has ended the tunnel.
    closing: Option<Instant>,
    end: TunnelEnd,
    follower: Follower,
    service: Rc<Service>,
}

impl Tunnel {
    /// A tunnel that opens at `now`. The task behind `cx` is woken when a drain comes to its end.
    pub(super) fn new(limits: TunnelLimits, service: &Rc<Service>, cx: &Context<'_>, now: Instant) -> Self {
        service.metrics.worker(service.worker.io.id).websocket_tunnels.inc();
        Self {
            read_frame_timeout: limits.frames.read_frame_timeout,
            idle: Idle::new(limits.idle_timeout, now.into_std()),
            up: Direction::new(Role::FromClient, limits.frames),
            down: Direction::new(Role::FromServer, limits.frames),
            closing: None,
            end: TunnelEnd::Cut,
            follower: service.connections.follow(cx.waker()),
            service: Rc::clone(service),
        }
    }

    /// The way of the client's bytes to the backend.
    pub(super) fn up<'a, S>(&'a mut self, to: &'a mut S, now: Instant) -> Watched<'a, S> {
        Watched { to, direction: &mut self.up, idle: &mut self.idle, now }
    }

    /// The way of the backend's bytes to the client.
    pub(super) fn down<'a, S>(&'a mut self, to: &'a mut S, now: Instant) -> Watched<'a, S> {
        Watched { to, direction: &mut self.down, idle: &mut self.idle, now }
    }

    /// A side took some of what waited for it.
    pub(super) fn touch(&mut self, now: Instant) {
        self.idle.touch(now.into_std());
    }

    /// Whether the gateway has ended the tunnel: what still comes is thrown away.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Both sides were done.
    pub(super) fn done(&mut self) {
        if self.closing.is_none() {
            self.end = TunnelEnd::Done;
        }
    }

    /// Why the gateway has ended the tunnel, for the access log.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.closing.and_then(|_| reason_of(self.end))
    }

    /// Notes whether the gateway itself holds a direction back: a frame has more time then.
    pub(super) fn hold(&mut self, up: bool, down: bool, now: Instant) {
        self.up.hold(up, now);
        self.down.hold(down, now);
    }

    /// Ends the tunnel if a sender has broken a rule, or if the drain is nearly over and both sides can be told.
    pub(super) fn settle(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Sink,
        back: &mut impl Sink,
        now: Instant,
    ) {
        let violation = self.up.violation.or(self.down.violation);
        if let Some(violation) = violation {
            self.close(cx, violation.kind.close(), front, back, now);
        } else if self.follower.phase() >= Phase::Farewell && self.up.may_close() && self.down.may_close() {
            self.close(cx, Close::GOING_AWAY, front, back, now);
        }
    }

    /// Ends the tunnel. Nothing more is passed on.
    pub(super) fn close(
        &mut self,
        cx: &mut Context<'_>,
        close: Close,
        front: &mut impl Sink,
        back: &mut impl Sink,
        now: Instant,
    ) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(now + LINGER);
        self.end = end_of(close);
        // Without a mask that cannot be foreseen a backend is told nothing (RFC 6455 §5.3).
        let told = masking_key().map(|mask| close.frame(Some(mask))).unwrap_or_default();
        self.up.end(cx, &told, back);
        self.down.end(cx, &close.frame(None), front);
    }

    /// What is due next and when, apart from what stalls.
    pub(super) fn due(&self) -> Option<(Instant, Expired)> {
        if let Some(until) = self.closing {
            return Some((until, Expired::Linger));
        }
        let limit = |at: Option<Instant>, close| at.map(|at| (at, Expired::Limit(close)));
        let up = limit(self.up.due(), Close::READ_FRAME_TIMEOUT);
        let down = limit(self.down.due(), Close::READ_FRAME_TIMEOUT);
        let idle = limit(self.idle.deadline().map(Instant::from_std), Close::IDLE_TIMEOUT);
        [up, down, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// How long a side may take nothing; without bound once the tunnel ends, since that is bounded itself.
    pub(super) fn stall_limit(&self) -> Option<Duration> {
        self.closing.is_none().then_some(self.read_frame_timeout)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let shard = self.service.metrics.worker(self.service.worker.io.id);
        shard.websocket_tunnels.dec();
        shard.websocket_tunnels_ended.of(self.end).inc();
    }
}

/// What a tunnel has a deadline for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// The tunnel is to end with this.
    Limit(Close),
    /// It has ended, and both sides had their time.
    Linger,
}

/// One direction of a tunnel.
#[derive(Debug)]
struct Direction {
    inspector: Inspector,
    violation: Option<Violation>,
    /// Since when the gateway does not read, because the receiver takes nothing.
    held: Option<Instant>,
    /// Nothing more is passed on.
    shut: bool,
}

impl Direction {
    fn new(role: Role, limits: MessageLimits) -> Self {
        Self { inspector: Inspector::new(role, limits), violation: None, held: None, shut: false }
    }

    fn hold(&mut self, held: bool, now: Instant) {
        if held {
            self.held.get_or_insert(now);
        } else if let Some(since) = self.held.take() {
            self.inspector.extend_deadline(now.saturating_duration_since(since));
        }
    }

    fn due(&self) -> Option<Instant> {
        self.inspector.deadline().filter(|_| self.held.is_none()).map(Instant::from_std)
    }

    /// Whether the receiver can be told to close.
    fn may_close(&self) -> bool {
        self.violation.map_or_else(|| self.inspector.may_close(), |violation| violation.may_close)
    }

    /// Ends the direction, with `frame` if it may stand there.
    fn end(&mut self, cx: &mut Context<'_>, frame: &[u8], to: &mut impl Sink) {
        if self.may_close() {
            to.data(cx, frame);
        }
        to.end();
        self.shut = true;
    }
}

/// Passes the bytes of a direction on, as long as they keep the rules.
pub(super) struct Watched<'a, S> {
    to: &'a mut S,
    direction: &'a mut Direction,
    idle: &'a mut Idle,
    now: Instant,
}

impl<S: Sink> Sink for Watched<'_, S> {
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        if self.direction.shut || bytes.is_empty() {
            return;
        }
        let now = self.now.into_std();
        self.idle.touch(now);
        match self.direction.inspector.inspect(bytes, now) {
            Ok(()) => self.to.data(cx, bytes),
            Err(violation) => {
                self.to.data(cx, bytes.get(..violation.passable).unwrap_or(&[]));
                self.direction.violation = Some(violation);
                self.direction.shut = true;
            }
        }
    }

    fn trailers(&mut self, _: &Fields) {
        // A tunnel has none (RFC 8441 §5).
    }

    fn end(&mut self) {
        // After a violation a close frame may have to go before the end.
        if !self.direction.shut {
            self.to.end();
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.to.poll_flush(cx)
    }
}

fn end_of(close: Close) -> TunnelEnd {
    match close {
        Close::GOING_AWAY => TunnelEnd::GoingAway,
        Close::IDLE_TIMEOUT => TunnelEnd::IdleTimeout,
        Close::PING_FLOOD => TunnelEnd::PingFlood,
        Close::READ_FRAME_TIMEOUT => TunnelEnd::ReadFrameTimeout,
        Close::WRITE_TIMEOUT => TunnelEnd::WriteTimeout,
        Close::MESSAGE_TOO_BIG => TunnelEnd::MessageTooBig,
        _ => TunnelEnd::ProtocolError,
    }
}
/// The reason of an end that the gateway has brought about.
fn reason_of(end: TunnelEnd) -> Option<Reason> {
    Some(match end {
        TunnelEnd::Done | TunnelEnd::Cut => return None,
        TunnelEnd::GoingAway => Reason::GoingAway,
        TunnelEnd::IdleTimeout => Reason::IdleTimeout,
        TunnelEnd::ProtocolError => Reason::ProtocolError,
        TunnelEnd::PingFlood => Reason::PingFlood,
        TunnelEnd::ReadFrameTimeout => Reason::ReadFrameTimeout,
        TunnelEnd::WriteTimeout => Reason::WriteTimeout,
        TunnelEnd::MessageTooBig => Reason::MessageTooBig,
    })
}

//! The client's side of a relay: a connection from its handshake to its end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lb_core::address::ClientAddress;
use lb_core::balance::hash;
use lb_io::{ConnectionGuard, Phase, WorkerIo};
use lb_l4::Stay;
use lb_observe::metrics::{RelayEnd, TlsResult, WorkerMetrics};
use lb_security::TlsConfigBundle;
use lb_security::admission::{Admission, Admissions, Handshake};

use super::back::Back;
use super::datagrams::Early;
use super::dial;
use super::end::{Close, Ending, NO_ERROR};
use super::half::Way;
use super::pulse::Pulse;
use super::relay::{Counters, Relay};
use super::session::{finish, turn};
use super::settings::{RawDialer, RawSettings};
use crate::connection::{Application, Connection, Quic};
use crate::endpoint::{Arrived, Shared};
use crate::handshake;
use crate::tally;

/// What the connections of a listener share on one worker.
pub(crate) struct FrontParts {
    pub(crate) io: Rc<WorkerIo>,
    pub(crate) admissions: Rc<Admissions>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) dialer: Rc<RawDialer>,
    pub(crate) settings: RefCell<Rc<RawSettings>>,
}

#[derive(Debug)]
pub(super) enum State {
    /// The handshake runs, and is to be over then.
    Handshake(Instant),
    /// A connection to a backend is being made.
    Dialling,
    Open,
    /// One of both connections has ended.
    Ending(Ending),
    Closed,
}

/// What rides on a connection from a client.
pub(crate) struct Front {
    pub(super) parts: Rc<FrontParts>,
    /// What was in force when the client came.
    pub(super) settings: Rc<RawSettings>,
    pub(super) address: ClientAddress,
    pub(super) state: State,
    pub(super) relay: Relay,
    pub(super) pulse: Option<Pulse>,
    /// More streams than a client can have, unless it gives them up before the backend has heard of them.
    pub(super) most_streams: usize,
    pub(super) back: Option<Shared<Back>>,
    /// What it occupies at the backend.
    pub(super) stay: Option<Stay>,
    early: Early,
    guard: Option<ConnectionGuard>,
    admission: Option<Admission>,
    handshake: Option<Handshake>,
    /// The bundle that the handshake is under.
    _bundle: Arc<TlsConfigBundle>,
}

impl Front {
    pub(crate) fn new(parts: &Rc<FrontParts>, arrived: Arrived) -> Self {
        let Arrived { client, guard, admission, handshake, limit, bundle } = arrived;
        let settings = Rc::clone(&parts.settings.borrow());
        let counters = Counters {
            listener: Arc::clone(&parts.admissions.metrics),
            worker: Arc::clone(&parts.metrics),
            worker_id: parts.io.id,
        };
        let most = usize::try_from(settings.raw.max_streams).unwrap_or(usize::MAX);
        Self {
            parts: Rc::clone(parts),
            settings,
            address: client,
            state: State::Handshake(limit),
            relay: Relay::new(counters),
            pulse: None,
            most_streams: most.saturating_mul(8).saturating_add(16),
            back: None,
            stay: None,
            early: Early::default(),
            guard: Some(guard),
            admission: Some(admission),
            handshake: Some(handshake),
            _bundle: bundle,
        }
    }

    /// What it may do now.
    pub(super) fn phase(&self) -> Phase {
        self.guard.as_ref().map_or(Phase::Abort, ConnectionGuard::phase)
    }

    /// Whether it is to end as soon as it can.
    pub(super) fn is_asked(&self) -> bool {
        self.guard.as_ref().is_none_or(ConnectionGuard::is_asked)
    }

    fn count_handshake(&self, result: TlsResult) {
        let Admissions { metrics, .. } = &*self.parts.admissions;
        metrics.worker(self.parts.io.id).tls_handshakes.of(result).inc();
    }

    /// Goes on with the handshake.
    fn settle_handshake(shared: &Shared<Self>, connection: &mut Connection<Self>, now: Instant) {
        let State::Handshake(limit) = connection.app.state else { return };
        let Connection { app, quic, chosen, .. } = &mut *connection;
        if quic.is_established() {
            app.handshake = None;
            app.count_handshake(if quic.is_resumed() { TlsResult::Resumed } else { TlsResult::Full });
            app.state = State::Dialling;
            let key = app.settings.follows_key().then(|| match app.settings.by_id {
                true => hash::connection(Some(chosen), app.address),
                false => hash::client(app.address),
            });
            // Another one, so that a client can go on from another address without that the two can be linked (RFC 9000 §5.1.1).
            connection.wants_id = true;
            tokio::task::spawn_local(dial::connect(Rc::clone(shared), key));
        } else if let Some(result) = handshake::of_client(quic) {
            app.count_handshake(result);
            app.state = State::Closed;
        } else if now >= limit {
            app.count_handshake(TlsResult::Timeout);
            app.state = State::Closed;
            let _ = quic.close(false, 0x2, b"handshake timeout");
        } else if app.phase() == Phase::Abort {
            app.state = State::Closed;
            let _ = quic.close(false, NO_ERROR, b"");
        } else {
            return;
        }
        connection.speaks();
    }

    /// A client waits for its backend. One that goes away meanwhile needs none.
    fn wait_for_backend(&mut self, quic: &mut Quic, now: Instant) {
        self.early.keep(quic, self.settings.raw.datagrams, self.relay.counters());
        if let Some(ending) = Ending::of(quic, Way::Up, now) {
            finish(self, ending.why, &ending.close);
        } else if self.phase() >= Phase::Farewell {
            let close = Close::of_transport(NO_ERROR, "the gateway drains");
            close.tell(quic);
            finish(self, RelayEnd::Drained, &close);
        }
    }

    /// There is a connection to a backend.
    pub(super) fn join(shared: &Shared<Self>, back: &Shared<Back>, stay: Stay) {
        let connection = &mut *shared.borrow_mut();
        let own = &mut *back.borrow_mut();
        let Connection { app, quic, .. } = connection;
        if !matches!(app.state, State::Dialling) {
            return Back::leave(own);
        }
        app.early.pass(&mut own.quic, app.relay.counters());
        app.pulse = Some(Pulse::new(quic, &own.quic, app.settings.quic.max_idle_timeout, Instant::now()));
        app.state = State::Open;
        app.stay = Some(stay);
        app.back = Some(Rc::clone(back));
        own.app.front = Some(Rc::clone(shared));
        connection.said();
        own.said();
    }
}

impl Application for Front {
    fn progress(shared: &Shared<Self>, now: Instant) {
        let connection = &mut *shared.borrow_mut();
        Self::settle_handshake(shared, connection, now);
        match connection.app.state {
            State::Handshake(_) | State::Closed => {}
            State::Dialling => {
                let Connection { app, quic, .. } = connection;
                app.wait_for_backend(quic, now);
            }
            State::Open | State::Ending(_) => {
                let Some(back) = connection.app.back.clone() else { return };
                let io = Rc::clone(&connection.app.parts.io);
                turn(connection, &mut back.borrow_mut(), Way::Up, &io, now);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Handshake(limit) => Some(*limit),
            State::Open => {
                let pulse = self.pulse.as_ref().map(|pulse| pulse.next);
                pulse.into_iter().chain(self.relay.deadline()).min()
            }
            State::Ending(ending) => Some(ending.look),
            State::Dialling | State::Closed => None,
        }
    }

    fn is_busy(&self) -> bool {
        self.relay.open() > 0
    }

    fn closed(&mut self, quic: &Quic, moves: u64) {
        tally::ended(&self.parts.metrics.quic, quic, moves);
        match self.state {
            State::Handshake(_) => {
                self.count_handshake(TlsResult::Closed);
                self.state = State::Closed;
            }
            State::Dialling => {
                finish(self, RelayEnd::Client, &Close::of_transport(NO_ERROR, ""));
            }
            State::Open | State::Ending(_) | State::Closed => {}
        }
        // The backend's side may go on for a moment.
        if let Some(back) = self.back.take() {
            back.borrow_mut().due();
        }
        (self.guard, self.admission, self.handshake, self.stay) = (None, None, None, None);
    }
}

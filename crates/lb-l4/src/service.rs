//! The settings and counters of one TCP listener in one worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_config::Tcp;
use lb_core::retry::RetrySettings;
use lb_io::{Connections, WorkerIo};
use lb_observe::metrics::{ListenerMetrics, WorkerMetrics};
use lb_pool::{Need, WorkerMember, WorkerPool};
use lb_security::ClientTls;

use crate::names::NameRoutes;

/// So many backends may refuse a connection without that it counts as a try, where their pool has no rules of its own.
const MOST_REFUSED: u32 = 32;

/// A pool as this worker sees it, for all listeners that use it.
#[derive(Debug)]
pub struct TcpPool {
    members: Vec<WorkerMember<ClientTls>>,
    balance: Rc<WorkerPool>,
}

impl TcpPool {
    /// A pool whose members are those of `balance`, in its order.
    pub fn new(members: Vec<WorkerMember<ClientTls>>, balance: Rc<WorkerPool>) -> Rc<Self> {
        Rc::new(Self { members, balance })
    }

    pub(crate) fn balance(&self) -> &Rc<WorkerPool> {
        &self.balance
    }

    pub(crate) fn members(&self) -> &[WorkerMember<ClientTls>] {
        &self.members
    }
}

/// Everything about a listener that a reload can change; a connection keeps what it was accepted under.
#[derive(Debug)]
pub struct TcpSettings {
    /// Idle timeout, splice, tries.
    pub tcp: Tcp,
    /// Time for one connect.
    pub connect_timeout: Duration,
    /// Time for one handshake with a backend.
    pub handshake_timeout: Duration,
    pool: Rc<TcpPool>,
    /// Where connections go besides, by what their clients ask for.
    names: Option<NameRoutes>,
}

impl TcpSettings {
    /// Settings for one worker.
    pub fn new(
        tcp: Tcp,
        connect_timeout: Duration,
        handshake_timeout: Duration,
        pool: Rc<TcpPool>,
        names: Option<NameRoutes>,
    ) -> Rc<Self> {
        Rc::new(Self { tcp, connect_timeout, handshake_timeout, pool, names })
    }

    pub(crate) fn names(&self) -> Option<&NameRoutes> {
        self.names.as_ref()
    }

    /// The pool.
    pub fn pool(&self) -> &Rc<WorkerPool> {
        &self.pool.balance
    }

    pub(crate) fn member(&self, at: usize) -> Option<&WorkerMember<ClientTls>> {
        self.pool.members.get(at)
    }

    pub(crate) fn pick(
        &self,
        key: Option<u64>,
        tried: &[usize],
    ) -> Option<(usize, &WorkerMember<ClientTls>)> {
        let pool = self.pool();
        let now = Instant::now();
        let other = |at: usize| !tried.contains(&at);
        let has_room = |at: usize| pool.gate(at).is_none_or(|gate| gate.has_room(Need::Connection));
        let roomy = match pool.is_limited() {
            true => pool.pick(now, key, |at| other(at) && has_room(at)),
            false => None,
        };
        let at = roomy.or_else(|| pool.pick(now, key, other))?;
        Some((at, self.member(at)?))
    }

    /// Connects that may be tried for one client.
    pub(crate) fn tries(&self) -> u32 {
        match self.pool().retry() {
            RetrySettings { attempts: None, .. } => self.tcp.connect_tries,
            RetrySettings { attempts: Some(attempts), conditions, .. } if conditions.connect => {
                attempts.saturating_add(1)
            }
            RetrySettings { .. } => 1,
        }
    }

    /// How many connects backends may refuse at once besides those: while it is found out that most of a pool is dead, clients must not be
    /// turned away.
    pub(crate) fn refusals(&self) -> u32 {
        if self.pool().retry().attempts.is_none() && self.tcp.connect_tries > 1 { MOST_REFUSED } else { 0 }
    }
}

/// One TCP listener on one worker.
#[derive(Debug)]
pub struct TcpService {
    /// Buffers and pipes.
    pub io: Rc<WorkerIo>,
    /// This worker's counters.
    pub worker_metrics: Arc<WorkerMetrics>,
    /// Counters of the listener.
    pub metrics: Arc<ListenerMetrics>,
    /// Live connections.
    pub connections: Rc<Connections>,
    settings: RefCell<Rc<TcpSettings>>,
}

impl TcpService {
    /// A listener with its first settings.
    pub fn new(
        io: Rc<WorkerIo>,
        worker_metrics: Arc<WorkerMetrics>,
        metrics: Arc<ListenerMetrics>,
        connections: Rc<Connections>,
        settings: Rc<TcpSettings>,
    ) -> Rc<Self> {
        Rc::new(Self { io, worker_metrics, metrics, connections, settings: RefCell::new(settings) })
    }

    /// The settings for a connection that is accepted now.
    pub fn settings(&self) -> Rc<TcpSettings> {
        Rc::clone(&self.settings.borrow())
    }

    /// Puts new settings in force for connections to come.
    pub fn replace(&self, settings: Rc<TcpSettings>) {
        *self.settings.borrow_mut() = settings;
    }
}

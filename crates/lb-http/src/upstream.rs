//! Idle connections to backends, per worker.
//!
//! Last in, first out: a busy pool uses few connections often, and the rest ages at the bottom until [`Upstreams::sweep`] closes it. A
//! connection is known to be usable from events already received; nothing is read to find out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use lb_config::Pool as PoolLimits;
use lb_io::TcpStream;
use lb_observe::metrics::WorkerMetrics;
use tokio::time::Instant;

/// One address of a backend, and the idle connections to it. Lives as long as any configuration or connection uses it.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    idle: RefCell<Vec<Idle>>,
    /// No configuration names the address any more: nothing is kept for it.
    retired: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    born: Instant,
    since: Instant,
}

/// A connection taken from the pool.
#[derive(Debug)]
pub struct Reused {
    /// The connection.
    pub stream: TcpStream,
    /// When it was made.
    pub born: Instant,
}

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Upstreams {
    limits: RefCell<PoolLimits>,
    endpoints: RefCell<HashMap<SocketAddr, Weak<Endpoint>>>,
    idle: Cell<usize>,
    metrics: std::sync::Arc<WorkerMetrics>,
}

impl Upstreams {
    /// An empty pool.
    pub fn new(limits: PoolLimits, metrics: std::sync::Arc<WorkerMetrics>) -> Rc<Self> {
        Rc::new(Self {
            limits: RefCell::new(limits),
            endpoints: RefCell::default(),
            idle: Cell::new(0),
            metrics,
        })
    }

    /// Applies new limits; [`Self::sweep`] enforces them.
    pub fn set_limits(&self, limits: PoolLimits) {
        *self.limits.borrow_mut() = limits;
    }

    /// The endpoint of an address; the same one for every configuration that names it.
    pub fn endpoint(&self, address: SocketAddr) -> Rc<Endpoint> {
        let mut endpoints = self.endpoints.borrow_mut();
        if let Some(endpoint) = endpoints.get(&address).and_then(Weak::upgrade) {
            endpoint.retired.set(false);
            return endpoint;
        }
        let endpoint = Rc::new(Endpoint { address, idle: RefCell::default(), retired: Cell::new(false) });
        endpoints.insert(address, Rc::downgrade(&endpoint));
        endpoint
    }

    /// An idle connection that is still open as far as this process knows.
    #[inline]
    pub fn take(&self, endpoint: &Endpoint, now: Instant) -> Option<Reused> {
        let limits = self.limits.borrow();
        loop {
            let idle = endpoint.idle.borrow_mut().pop()?;
            self.count(-1);
            if !idle.stream.is_quiet() {
                self.metrics.pool_probe_failures.inc();
            } else if now < idle.born + limits.max_age && now < idle.since + limits.idle_timeout {
                self.metrics.pool_reuses.inc();
                return Some(Reused { stream: idle.stream, born: idle.born });
            }
        }
    }

    /// Keeps a connection for later. One more than the limits allow is kept all the same, for `linger`: the next request of a busy
    /// pool will want it.
    #[inline]
    pub fn put(&self, endpoint: &Endpoint, stream: TcpStream, born: Instant, now: Instant) {
        if !endpoint.retired.get() {
            endpoint.idle.borrow_mut().push(Idle { stream, born, since: now });
            self.count(1);
        }
    }

    /// Closes what is dead, too old, idle for too long, or surplus for longer than `linger`. Called about once a second.
    pub fn sweep(&self, now: Instant) {
        let limits = self.limits.borrow().clone();
        let mut kept_in_all = 0usize;
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            let Some(endpoint) = endpoint.upgrade() else { return false };
            let mut idle = endpoint.idle.borrow_mut();
            let before = idle.len();
            let mut kept = 0usize;
            // From the top of the stack down: the surplus is what was used longest ago.
            let mut keep: Vec<bool> = idle
                .iter()
                .rev()
                .map(|idle| {
                    let fresh = idle.stream.is_quiet()
                        && now < idle.born + limits.max_age
                        && now < idle.since + limits.idle_timeout;
                    let room = kept < limits.per_peer_max && kept_in_all < limits.total_max;
                    let stays = fresh && (room || now < idle.since + limits.linger);
                    if stays {
                        kept = kept.saturating_add(1);
                        kept_in_all = kept_in_all.saturating_add(1);
                    }
                    stays
                })
                .collect();
            idle.retain(|_| keep.pop().unwrap_or(false));
            self.count(i64::try_from(idle.len()).unwrap_or(0) - i64::try_from(before).unwrap_or(0));
            true
        });
    }

    /// Closes the idle connections of endpoints for which `keep` is false, and keeps none from now on: after a reload, those that nothing
    /// names any more.
    pub fn retire(&self, keep: impl Fn(SocketAddr) -> bool) {
        for (address, endpoint) in self.endpoints.borrow().iter() {
            if let Some(endpoint) = endpoint.upgrade().filter(|_| !keep(*address)) {
                endpoint.retired.set(true);
                let closed = std::mem::take(&mut *endpoint.idle.borrow_mut()).len();
                self.count(-i64::try_from(closed).unwrap_or(0));
            }
        }
    }

    fn count(&self, change: i64) {
        let now = i64::try_from(self.idle.get()).unwrap_or(0).saturating_add(change);
        self.idle.set(usize::try_from(now).unwrap_or(0));
        self.metrics.pool_idle.add(change);
    }
}

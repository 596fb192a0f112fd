//! Idle connections to backends, per worker.
//!
//! Last in, first out: a busy pool uses few connections often, and the rest ages at the bottom until [`Upstreams::sweep`] closes it. A
//! connection is known to be usable from events already received; nothing is read to find out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use lb_config::{BackendTls, Pool as PoolLimits};
use lb_observe::metrics::WorkerMetrics;
use lb_pool::Connection;
use lb_security::Stream;
use tokio::time::Instant;

use crate::h2::H2Pool;

/// What makes connections to a backend exchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// Where it listens.
    pub address: SocketAddr,
    /// It speaks HTTP/2.
    pub h2: bool,
    /// How it is reached inside TLS, if it is.
    pub tls: Option<BackendTls>,
}

/// One address of a backend, and the connections to it. Lives as long as any configuration or connection uses it.
#[derive(Debug)]
pub struct Endpoint {
    /// What its connections have in common.
    pub key: EndpointKey,
    /// The connections of a backend that speaks HTTP/2.
    pub(crate) h2: Rc<H2Pool>,
    idle: RefCell<Vec<Idle>>,
    /// No configuration names the address any more: nothing is kept for it.
    retired: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    born: Instant,
    since: Instant,
    connection: Option<Connection>,
}

impl Idle {
    /// Ends the connection. Inside TLS the backend is told that this is the end, and no cut.
    fn close(mut self) {
        farewell(&mut self.stream);
    }
}

/// Says that nothing follows on a connection that is to be closed.
fn farewell(stream: &mut Stream) {
    // Fails only where the backend has gone already.
    let _ = stream.shutdown_write();
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.idle.get_mut().drain(..).for_each(Idle::close);
    }
}

/// A connection taken from the pool.
#[derive(Debug)]
pub struct Reused {
    /// The connection.
    pub stream: Stream,
    /// When it was made.
    pub born: Instant,
    /// Its count at its member.
    pub connection: Option<Connection>,
}

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Upstreams {
    limits: RefCell<PoolLimits>,
    endpoints: RefCell<HashMap<EndpointKey, Weak<Endpoint>>>,
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

    /// The endpoint of a backend; the same one for every configuration that names it.
    pub fn endpoint(&self, key: EndpointKey) -> Rc<Endpoint> {
        let mut endpoints = self.endpoints.borrow_mut();
        if let Some(endpoint) = endpoints.get(&key).and_then(Weak::upgrade) {
            endpoint.retired.set(false);
            return endpoint;
        }
        let endpoint = Rc::new(Endpoint {
            key: key.clone(),
            h2: Rc::default(),
            idle: RefCell::default(),
            retired: Cell::new(false),
        });
        endpoints.insert(key, Rc::downgrade(&endpoint));
        endpoint
    }

    /// An idle connection that is still open as far as this process knows.
    #[inline]
    pub fn take(&self, endpoint: &Endpoint, now: Instant) -> Option<Reused> {
        if !self.is_ready(endpoint, now) {
            return None;
        }
        let Idle { stream, born, connection, .. } = endpoint.idle.borrow_mut().pop()?;
        self.count(-1);
        self.metrics.pool_reuses.inc();
        Some(Reused { stream, born, connection })
    }

    /// Whether [`Self::take`] would find a connection. Closes what it would pass over.
    #[inline]
    pub fn is_ready(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let limits = self.limits.borrow();
        loop {
            let mut idle = endpoint.idle.borrow_mut();
            let Some(last) = idle.last_mut() else { return false };
            let quiet = last.stream.is_quiet();
            if quiet && now < last.born + limits.max_age && now < last.since + limits.idle_timeout {
                return true;
            }
            if !quiet {
                self.metrics.pool_probe_failures.inc();
            }
            let dead = idle.pop();
            drop(idle);
            self.count(-1);
            if let Some(dead) = dead {
                dead.close();
            }
        }
    }

    /// Closes the idle connection that was used longest ago: its room is wanted for another one. Says whether there was any.
    pub(crate) fn give_way(&self, endpoint: &Endpoint) -> bool {
        let mut idle = endpoint.idle.borrow_mut();
        if idle.is_empty() {
            return false;
        }
        let oldest = idle.remove(0);
        drop(idle);
        self.count(-1);
        oldest.close();
        true
    }

    /// Keeps a connection for later. One more than the limits allow is kept all the same, for `linger`: the next request of a busy
    /// pool will want it.
    #[inline]
    pub fn put(
        &self,
        endpoint: &Endpoint,
        stream: Stream,
        born: Instant,
        connection: Option<Connection>,
        now: Instant,
    ) {
        let idle = Idle { stream, born, since: now, connection };
        if endpoint.retired.get() {
            idle.close();
        } else {
            endpoint.idle.borrow_mut().push(idle);
            self.count(1);
        }
    }

    /// Closes what is dead, too old, idle for too long, or surplus for longer than `linger`. Called about once a second.
    pub fn sweep(&self, now: Instant) {
        let limits = self.limits.borrow().clone();
        let mut kept_in_all = 0usize;
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            let Some(endpoint) = endpoint.upgrade() else { return false };
            endpoint.h2.sweep(&limits, now);
            let mut idle = endpoint.idle.borrow_mut();
            let before = idle.len();
            let mut kept = 0usize;
            // From the top of the stack down: the surplus is what was used longest ago.
            let mut keep: Vec<bool> = idle
                .iter_mut()
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
            idle.retain_mut(|idle| {
                let stays = keep.pop().unwrap_or(false);
                if !stays {
                    farewell(&mut idle.stream);
                }
                stays
            });
            self.count(i64::try_from(idle.len()).unwrap_or(0) - i64::try_from(before).unwrap_or(0));
            true
        });
    }

    /// Closes the idle connections of endpoints for which `keep` is false, and keeps none from now on: after a reload, those that nothing
    /// names any more.
    pub fn retire(&self, keep: impl Fn(&EndpointKey) -> bool) {
        for (key, endpoint) in self.endpoints.borrow().iter() {
            if let Some(endpoint) = endpoint.upgrade().filter(|_| !keep(key)) {
                endpoint.retired.set(true);
                endpoint.h2.retire();
                let closed = std::mem::take(&mut *endpoint.idle.borrow_mut());
                self.count(-i64::try_from(closed.len()).unwrap_or(0));
                closed.into_iter().for_each(Idle::close);
            }
        }
    }

    fn count(&self, change: i64) {
        let now = i64::try_from(self.idle.get()).unwrap_or(0).saturating_add(change);
        self.idle.set(usize::try_from(now).unwrap_or(0));
        self.metrics.pool_idle.add(change);
    }
}

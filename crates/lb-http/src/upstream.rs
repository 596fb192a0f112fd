//! Connections to backends, per worker: how each protocol makes and shares them, and those that are idle.
//!
//! Last in, first out: a busy pool uses few connections often, and the rest ages at the bottom until [`Upstreams::sweep`] closes it. A
//! connection is known to be usable from events already received; nothing is read to find out.
//!
//! No more are kept than the limit says, those that linger included, or than requests ran at once lately where that is more: a busy
//! pool uses them all again at once. When there is no room for one more, a part of those that were used longest ago makes room. Where the
//! process is out of descriptors, half of them do ([`Upstreams::give_way_to_all`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use lb_config::{BackendProtocol, BackendTls, IdlePool};
use lb_core::address::Address;
use lb_io::shortage::Watch;
use lb_observe::metrics::WorkerMetrics;
use lb_pool::Connection;
use lb_security::Stream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::h1::H1Upstream;
use crate::h1::back::H1Back;
use crate::h2::H2Pool;

mod dials;
pub(crate) mod tcp;
mod told;
mod way;

pub use dials::{DialOutcome, DialTicket, Dials, Wait};
pub use told::ToldClient;
pub(crate) use told::Whose;
pub use way::{Ask, Caller, Dialled, Dialling, Link, Upstream, Way};

/// What makes connections to a backend exchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    pub protocol: BackendProtocol,
    /// How it is reached inside TLS, if it is.
    pub tls: Option<BackendTls>,
}

/// One address of a backend, and the connections to it. The configurations that name it have it in common, and
/// so have the exchanges that began under one of them. When the last of these is gone its connections are told that this is the end.
#[derive(Debug)]
pub struct Endpoint {
    /// What its connections have in common.
    pub key: EndpointKey,
    /// How requests get on connections to it.
    pub(crate) upstream: Rc<dyn Upstream>,
    /// Idle connections that carry one request at a time.
    idle: RefCell<Vec<Idle>>,
    /// The configuration in force does not name it: nothing is kept for it.
    retired: Cell<bool>,
    metrics: Arc<WorkerMetrics>,
    /// Idle connections of the worker.
    kept: Rc<Cell<usize>>,
}

#[derive(Debug)]
struct Idle {
    back: Box<H1Back>,
    born: Instant,
    since: Instant,
    connection: Option<Connection>,
}

impl Idle {
    /// Whether it is neither too old nor idle for too long.
    #[inline]
    fn is_fresh(&self, limits: &IdlePool, now: Instant) -> bool {
        now < self.born + limits.max_age && now < self.since + limits.idle_timeout
    }

    /// Ends the connection. Inside TLS the backend is told that this is the end, and no cut.
    fn close(mut self) {
        farewell(self.back.stream());
    }
}

/// Says that nothing follows on a connection that is to be closed.
fn farewell(stream: &mut Stream) {
    // Fails only where the backend has gone already.
    let _ = stream.shutdown_write();
}

impl Endpoint {
    /// So many idle connections were `kept`, and so many are idle no more.
    fn count(&self, kept: usize, gone: usize) {
        self.kept.set(self.kept.get().saturating_add(kept).saturating_sub(gone));
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.pool_idle.add(number(kept).saturating_sub(number(gone)));
    }

    /// Closes all idle connections.
    fn close_idle(&self) {
        let closed = self.idle.take();
        self.count(0, closed.len());
        closed.into_iter().for_each(Idle::close);
    }

    /// Closes those that were used before `then`.
    fn close_before(&self, then: Instant) {
        let mut idle = self.idle.borrow_mut();
        // The oldest are at the bottom.
        let gone = idle.iter().take_while(|idle| idle.since < then).count();
        let closed: Vec<Idle> = idle.drain(..gone).collect();
        drop(idle);
        self.count(0, closed.len());
        closed.into_iter().for_each(Idle::close);
    }

    /// Closes what is dead, too old, idle for too long, or surplus for longer than `linger`. `kept_in_all` is what other endpoints keep,
    /// and this one with them afterwards. When there will be something to close, if anything is kept.
    fn sweep(&self, limits: &IdlePool, kept_in_all: &mut usize, now: Instant) -> Option<Instant> {
        let mut next = self.upstream.sweep(limits, self.retired.get(), now);
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        let mut kept = 0usize;
        // From the top of the stack down: the surplus is what was used longest ago.
        let mut keep: Vec<bool> = idle
            .iter_mut()
            .rev()
            .map(|idle| {
                let room = kept < limits.per_peer_max && *kept_in_all < limits.total_max;
                let stays = idle.back.stream().is_quiet()
                    && idle.is_fresh(limits, now)
                    && (room || now < idle.since + limits.linger);
                if stays {
                    let idle_until = idle.since + if room { limits.idle_timeout } else { limits.linger };
                    next = [next, Some(idle_until), Some(idle.born + limits.max_age)]
                        .into_iter()
                        .flatten()
                        .min();
                    kept = kept.saturating_add(1);
                    *kept_in_all = kept_in_all.saturating_add(1);
                }
                stays
            })
            .collect();
        idle.retain_mut(|idle| {
            let stays = keep.pop().unwrap_or(false);
            if !stays {
                farewell(idle.back.stream());
            }
            stays
        });
        self.count(idle.len(), before);
        next
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close_idle();
    }
}

/// A connection taken from the pool.
#[derive(Debug)]
pub struct Reused {
    /// The connection.
    pub(crate) back: Box<H1Back>,
    /// When it was made.
    pub born: Instant,
    /// Its count at its member.
    pub connection: Option<Connection>,
}

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Upstreams {
    limits: RefCell<IdlePool>,
    endpoints: RefCell<HashMap<EndpointKey, Weak<Endpoint>>>,
    metrics: Arc<WorkerMetrics>,
    /// When [`Self::sweep`] is due. `None` while nothing is kept, so that a worker without connections sleeps.
    due: Cell<Option<Instant>>,
    /// It is due earlier than it was.
    sooner: Notify,
    /// How many are idle.
    kept: Rc<Cell<usize>>,
    wanted: Watch,
    plugs: Plugs,
    /// Clients that have connections of their own.
    told: RefCell<Vec<Weak<ToldClient>>>,
}

/// Makes the upstream of an endpoint.
type MakeUpstream = Box<dyn Fn(&EndpointKey) -> Rc<dyn Upstream>>;

/// The protocols that other crates have plugged in.
#[derive(Default)]
struct Plugs(RefCell<Vec<(BackendProtocol, MakeUpstream)>>);

impl Plugs {
    fn make(&self, key: &EndpointKey) -> Rc<dyn Upstream> {
        let plugs = self.0.borrow();
        match plugs.iter().rev().find(|(protocol, _)| *protocol == key.protocol) {
            Some((_, make)) => make(key),
            None if key.protocol == BackendProtocol::H2 => Rc::new(H2Pool::default()),
            None => Rc::new(H1Upstream),
        }
    }
}

impl fmt::Debug for Plugs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.borrow().iter().map(|(protocol, _)| protocol)).finish()
    }
}

/// When there is no room for one more, this part of them makes room at once, so that looking for the oldest is rare.
const PART: usize = 4;

/// How soon connections are looked over after one was kept.
const SWEEP: Duration = Duration::from_secs(1);

/// How often they are looked over without any news: a backend may close its end at any time.
const LOOK: Duration = Duration::from_secs(5);

impl Upstreams {
    /// An empty pool.
    pub fn new(limits: IdlePool, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        Rc::new(Self {
            limits: RefCell::new(limits),
            endpoints: RefCell::default(),
            metrics,
            due: Cell::new(None),
            sooner: Notify::new(),
            kept: Rc::default(),
            wanted: Watch::default(),
            plugs: Plugs::default(),
            told: RefCell::default(),
        })
    }

    /// Has endpoints of this protocol reached by the upstream that `make` returns: endpoints that are made from now on. A protocol of this
    /// crate is replaced.
    pub fn plug(&self, protocol: BackendProtocol, make: impl Fn(&EndpointKey) -> Rc<dyn Upstream> + 'static) {
        self.plugs.0.borrow_mut().push((protocol, Box::new(make)));
    }

    /// Applies new limits; [`Self::sweep`] enforces them.
    pub fn set_limits(&self, limits: IdlePool) {
        *self.limits.borrow_mut() = limits;
        self.touched(Instant::now());
    }

    /// There is something new to be looked over.
    #[inline]
    pub(crate) fn touched(&self, now: Instant) {
        let soon = now + SWEEP;
        if self.due.get().is_none_or(|due| due > soon) {
            self.due.set(Some(soon));
            self.sooner.notify_one();
        }
    }

    /// Ready when [`Self::sweep`] is due.
    pub async fn sweep_is_due(&self) {
        loop {
            match self.due.get() {
                None => self.sooner.notified().await,
                Some(due) => tokio::select! {
                    () = sleep_until(due) => return,
                    () = self.sooner.notified() => {}
                },
            }
        }
    }

    /// The endpoint of a backend. All configurations that name the backend share it.
    pub fn endpoint(&self, key: EndpointKey) -> Rc<Endpoint> {
        let mut endpoints = self.endpoints.borrow_mut();
        if let Some(endpoint) = endpoints.get(&key).and_then(Weak::upgrade) {
            endpoint.retired.set(false);
            return endpoint;
        }
        let endpoint = Rc::new(Endpoint {
            key: key.clone(),
            upstream: self.plugs.make(&key),
            idle: RefCell::default(),
            retired: Cell::new(false),
            metrics: Arc::clone(&self.metrics),
            kept: Rc::clone(&self.kept),
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
        let Idle { back, born, connection, .. } = endpoint.idle.borrow_mut().pop()?;
        endpoint.count(0, 1);
        Some(Reused { back, born, connection })
    }

    /// Whether [`Self::take`] would find a connection. Closes what it would pass over.
    #[inline]
    pub fn is_ready(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let limits = self.limits.borrow();
        loop {
            let mut idle = endpoint.idle.borrow_mut();
            let Some(last) = idle.last_mut() else { return false };
            let quiet = last.back.stream().is_quiet();
            if quiet && last.is_fresh(&limits, now) {
                return true;
            }
            if !quiet {
                self.metrics.pool_probe_failures.inc();
            }
            let dead = idle.pop();
            drop(idle);
            endpoint.count(0, 1);
            if let Some(dead) = dead {
                dead.close();
            }
        }
    }

    /// Closes the idle connection that was used longest ago: its room is wanted for another one. Says whether there was any.
    pub(crate) fn give_way(&self, endpoint: &Endpoint) -> bool {
        let mut idle = endpoint.idle.borrow_mut();
        if idle.is_empty() {
            drop(idle);
            return self.give_way_told(endpoint);
        }
        let oldest = idle.remove(0);
        drop(idle);
        endpoint.count(0, 1);
        oldest.close();
        true
    }

    /// Keeps a connection for later. One more than the limit of its backend allows is kept all the same, for `linger`: the next request
    /// of a busy pool will want it. The limit for all holds at once, but is never lower than `busiest`, the number of requests that ran at
    /// once lately.
    #[inline]
    pub fn put(
        &self,
        endpoint: &Endpoint,
        back: Box<H1Back>,
        born: Instant,
        connection: Option<Connection>,
        busiest: usize,
        now: Instant,
    ) {
        let idle = Idle { back, born, since: now, connection };
        if self.wanted.is_called() {
            self.give_way_to_all();
        }
        let most = self.limits.borrow().total_max;
        if endpoint.retired.get() || most == 0 {
            idle.close();
            return;
        }
        let most = most.max(busiest);
        if self.kept.get() >= most {
            self.close_oldest((most / PART).max(1).saturating_add(self.kept.get().saturating_sub(most)));
        }
        endpoint.idle.borrow_mut().push(idle);
        endpoint.count(1, 0);
        self.touched(now);
    }

    /// Closes so many of the idle connections, those first that were used longest ago.
    #[cold]
    fn close_oldest(&self, count: usize) {
        let endpoints: Vec<Rc<Endpoint>> =
            self.endpoints.borrow().values().filter_map(Weak::upgrade).collect();
        let mut times: Vec<Instant> = Vec::with_capacity(self.kept.get());
        for endpoint in &endpoints {
            times.extend(endpoint.idle.borrow().iter().map(|idle| idle.since));
        }
        if times.len() <= count {
            return endpoints.iter().for_each(|endpoint| endpoint.close_idle());
        }
        let (_, then, _) = times.select_nth_unstable(count);
        let then = *then;
        endpoints.iter().for_each(|endpoint| endpoint.close_before(then));
        if self.kept.get().saturating_add(count) > times.len() {
            // Many were put back at one moment: any of these are as good.
            let mut left = self.kept.get().saturating_add(count).saturating_sub(times.len());
            for endpoint in &endpoints {
                while left > 0 && self.give_way(endpoint) {
                    left = left.saturating_sub(1);
                }
            }
        }
    }

    /// The process is out of descriptors: half of the idle connections are closed, and those that HTTP/2 keeps without a stream.
    pub fn give_way_to_all(&self) {
        self.close_oldest(self.kept.get().div_ceil(2));
        self.sweep_told(None, Instant::now());
        for endpoint in self.endpoints.borrow().values().filter_map(Weak::upgrade) {
            endpoint.upstream.close_idle();
        }
    }

    /// Closes what is dead, too old, idle for too long, or surplus for longer than `linger`. To be called when
    /// [`Self::sweep_is_due`].
    pub fn sweep(&self, now: Instant) {
        if self.wanted.is_called() {
            self.give_way_to_all();
        }
        let limits = self.limits.borrow().clone();
        let (mut kept_in_all, mut next) = (0usize, self.sweep_told(Some(&limits), now));
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            let Some(endpoint) = endpoint.upgrade() else { return false };
            let due = endpoint.sweep(&limits, &mut kept_in_all, now);
            next = [next, due].into_iter().flatten().min();
            true
        });
        self.due.set(next.map(|next| next.clamp(now + SWEEP, now + LOOK)));
    }

    /// Puts a configuration in force: `build` asks for the endpoints that it names. The idle connections of all others are closed, and
    /// none are kept for them from now on.
    pub fn replace(&self, build: impl FnOnce()) {
        let all: Vec<Rc<Endpoint>> = self.endpoints.borrow().values().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|endpoint| endpoint.retired.set(true));
        build();
        for endpoint in all.iter().filter(|endpoint| endpoint.retired.get()) {
            endpoint.upstream.retire();
            endpoint.close_idle();
        }
    }
}

//! Limits on requests at once: the places that requests hold while they run.
//!
//! A place belongs to an exchange and goes back when that is dropped, whatever it came to: so no way out of an exchange can lose one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use lb_core::filter::ConcurrencyLimit;
use lb_core::limit::{AdaptiveBounds, AdaptiveLimit, LimitRequest, LimitTables, PlaceTable, PlaceTaken};
use lb_observe::metrics::{Metrics, PolicyMetrics};
use tokio::time::Instant;

/// The adaptive limits of a worker, by policy: what one has come to outlives reloads.
#[derive(Debug, Default)]
pub struct AdaptiveLimits {
    worker: usize,
    limits: RefCell<HashMap<Box<str>, Weak<Adaptive>>>,
}

/// An adaptive limit, and its gauge.
#[derive(Debug)]
struct Adaptive {
    limit: RefCell<AdaptiveLimit>,
    metrics: Arc<PolicyMetrics>,
    worker: usize,
}

/// A limit in force in one worker.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimiter {
    limit: Arc<ConcurrencyLimit>,
    places: Option<Arc<PlaceTable>>,
    adaptive: Option<Rc<Adaptive>>,
}

/// The places that an exchange holds.
#[derive(Debug)]
pub(crate) struct Held {
    places: Vec<HeldPlace>,
    since: Instant,
    /// How long the response took to begin; also where it was waited for in vain.
    latency: Cell<Option<Duration>>,
    /// When the exchange was looked at last.
    now: Cell<Instant>,
}

#[derive(Debug)]
struct HeldPlace {
    of: Rc<ConcurrencyLimiter>,
    /// The key in the table of the process, if there is a place in it.
    hash: Option<u64>,
    /// There is a place in the limit of the worker.
    is_adaptive: bool,
}

impl AdaptiveLimits {
    /// Those of the worker with this index.
    pub(crate) fn of_worker(worker: usize) -> Self {
        Self { worker, limits: RefCell::default() }
    }

    fn named(&self, policy: &str, bounds: AdaptiveBounds, metrics: &Metrics) -> Rc<Adaptive> {
        let mut limits = self.limits.borrow_mut();
        limits.retain(|_, limit| limit.strong_count() > 0);
        if let Some(adaptive) = limits.get(policy).and_then(Weak::upgrade) {
            adaptive.limit.borrow_mut().set_bounds(bounds);
            adaptive.show();
            return adaptive;
        }
        let limit = RefCell::new(AdaptiveLimit::new(bounds));
        let adaptive = Rc::new(Adaptive { limit, metrics: metrics.policy(policy), worker: self.worker });
        adaptive.show();
        limits.insert(policy.into(), Rc::downgrade(&adaptive));
        adaptive
    }
}

impl Adaptive {
    fn show(&self) {
        self.metrics.concurrency_limit(self.worker).set(self.limit.borrow().limit().into());
    }
}

impl Drop for Adaptive {
    fn drop(&mut self) {
        self.metrics.concurrency_limit(self.worker).set(0);
    }
}

impl ConcurrencyLimiter {
    pub(crate) fn new(
        limit: &Arc<ConcurrencyLimit>,
        tables: &LimitTables,
        adaptive: &AdaptiveLimits,
        metrics: &Metrics,
    ) -> Self {
        Self {
            places: tables.places.get(&limit.policy).map(Arc::clone),
            adaptive: limit.adaptive.map(|bounds| adaptive.named(&limit.policy, bounds, metrics)),
            limit: Arc::clone(limit),
        }
    }

    /// Whether it only counts.
    pub(crate) fn is_dry(&self) -> bool {
        self.limit.dry_run
    }
}

impl Held {
    /// No place yet, of a request that runs from now on.
    pub(crate) fn since(now: Instant) -> Self {
        Self { places: Vec::new(), since: now, latency: Cell::new(None), now: Cell::new(now) }
    }

    /// Takes a place of a limit. False where there is none.
    pub(crate) fn take(&mut self, limiter: &Rc<ConcurrencyLimiter>, request: &LimitRequest<'_>) -> bool {
        let mut place = HeldPlace { of: Rc::clone(limiter), hash: None, is_adaptive: false };
        if let (Some(max), Some(table)) = (limiter.limit.max, &limiter.places) {
            let key = limiter.limit.key.as_ref();
            // What has no key is not counted; a key whose values may be missing has the client's address for them.
            let hash = key.map_or(Ok(0), |key| key.hash(request, table.hasher()));
            if let Ok(hash) = hash {
                match table.take(hash, max) {
                    PlaceTaken::Held => place.hash = Some(hash),
                    PlaceTaken::Uncounted => {}
                    PlaceTaken::Refused => return false,
                }
            }
        }
        if let Some(adaptive) = &limiter.adaptive {
            place.is_adaptive = adaptive.limit.borrow_mut().begin();
            if !place.is_adaptive {
                return false;
            }
        }
        self.places.push(place);
        true
    }

    /// A response of a backend begins. What a broken backend says at once tells nothing of how much it takes.
    pub(crate) fn answered(&self, status: u16, now: Instant) {
        if status < 500 {
            self.latency.set(Some(now.saturating_duration_since(self.since)));
        }
    }

    /// The exchange ends now, perhaps because the time for its response was over.
    pub(crate) fn ends(&self, now: Instant, is_late: bool) {
        self.now.set(now);
        if is_late {
            self.latency.set(Some(now.saturating_duration_since(self.since)));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for HeldPlace { of, is_adaptive, .. } in &self.places {
            if let (Some(adaptive), true) = (&of.adaptive, is_adaptive) {
                let now = self.now.get().into_std();
                adaptive.limit.borrow_mut().end(self.latency.get(), now);
                adaptive.show();
            }
        }
    }
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        if let (Some(hash), Some(table)) = (self.hash, &self.of.places) {
            table.give_back(hash);
        }
    }
}

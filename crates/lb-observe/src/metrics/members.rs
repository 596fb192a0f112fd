//! What one worker counts for a backend of a pool, and for a pool.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use lb_core::breaker::Full;
use lb_core::retry::RetryClass;

use super::families;
use super::label::{By, Label};
use super::labels::StatusClass;
use super::pools::add_each;
use super::reading::{BackendReading, Requests};
use super::scrape::Scrape;
use super::shards::RequestShard;
use super::values::{Counter, Gauge, HistogramTotals, PerWorker, SharedCounter};

/// The families of one backend of a pool, whatever listeners stand in front of it.
#[derive(Debug)]
pub struct BackendMetrics {
    unreachable: AtomicBool,
    shards: PerWorker<BackendShard>,
}

impl BackendMetrics {
    pub(super) fn new(workers: usize) -> Self {
        Self { unreachable: AtomicBool::new(false), shards: PerWorker::new(workers) }
    }

    /// Sets `backend_reachable`: how the last connect of any worker ended.
    pub fn set_reachable(&self, reachable: bool) {
        // Hardly ever changes: a load leaves the cache line shared by all workers.
        if self.unreachable.load(Relaxed) == reachable {
            self.unreachable.store(!reachable, Relaxed);
        }
    }

    /// Whether the last connect of any worker came about, or none was tried yet.
    pub fn is_reachable(&self) -> bool {
        !self.unreachable.load(Relaxed)
    }

    /// What the worker with this index counts.
    pub fn worker(&self, worker: usize) -> &BackendShard {
        self.shards.of(worker)
    }

    /// All workers together, as numbers.
    pub(super) fn reading(&self) -> BackendReading {
        let mut sum = BackendReading::default();
        for shard in self.shards.iter() {
            sum.connections = sum.connections.saturating_add(shard.connections.value());
            sum.connect_failures = sum.connect_failures.saturating_add(shard.connect_failures.value());
            sum.inflight = sum.inflight.saturating_add(shard.inflight.value());
            sum.requests.add_shard(&shard.requests);
        }
        sum
    }

    /// All workers together.
    pub(super) fn read(&self) -> Traffic {
        let mut sum = Traffic { is_reachable: self.is_reachable(), ..Traffic::default() };
        for shard in self.shards.iter() {
            sum.connections = sum.connections.saturating_add(shard.connections.value());
            sum.connect_failures = sum.connect_failures.saturating_add(shard.connect_failures.value());
            sum.inflight = sum.inflight.saturating_add(shard.inflight.value());
            let requests = StatusClass::ALL.iter().map(|class| shard.requests.requests.of(*class).value());
            add_each(&mut sum.requests, &requests.collect::<Vec<_>>());
            shard.requests.duration.add_to(&mut sum.duration);
        }
        sum
    }
}

/// The values of a [`BackendMetrics`] at one moment, or the sum of several.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    connections: u64,
    connect_failures: u64,
    inflight: i64,
    /// Whether the last connects to all of them came about.
    is_reachable: bool,
    requests: Vec<u64>,
    duration: HistogramTotals,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            connections: 0,
            connect_failures: 0,
            inflight: 0,
            is_reachable: true,
            requests: vec![0; StatusClass::ALL.len()],
            duration: HistogramTotals::default(),
        }
    }
}

impl Traffic {
    /// The numbers of it.
    pub(super) fn reading(&self) -> BackendReading {
        BackendReading {
            connections: self.connections,
            connect_failures: self.connect_failures,
            inflight: self.inflight,
            requests: Requests::of(&self.requests, &self.duration),
        }
    }

    pub(super) fn is_used(&self) -> bool {
        self.connections > 0
            || self.connect_failures > 0
            || self.inflight != 0
            || !self.is_reachable
            || self.has_requests()
    }

    fn has_requests(&self) -> bool {
        self.requests.iter().any(|count| *count > 0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.inflight = self.inflight.saturating_add(other.inflight);
        self.is_reachable &= other.is_reachable;
        self.add_counts(other);
    }

    /// Adds what outlives a backend.
    pub(super) fn add_counts(&mut self, other: &Self) {
        self.connections = self.connections.saturating_add(other.connections);
        self.connect_failures = self.connect_failures.saturating_add(other.connect_failures);
        add_each(&mut self.requests, &other.requests);
        self.duration.add(&other.duration);
    }

    /// `labels` are listener, pool and backend.
    pub(super) fn scrape(&self, scrape: &mut Scrape, labels: [&str; 3], serves_http: bool) {
        scrape.gauge(&families::BACKEND_INFLIGHT, &labels, self.inflight as f64);
        scrape.counter(&families::BACKEND_CONNECTIONS, &labels, self.connections);
        scrape.counter(&families::BACKEND_CONNECT_FAILURES, &labels, self.connect_failures);
        scrape.gauge(&families::BACKEND_REACHABLE, &labels, f64::from(u8::from(self.is_reachable)));
        if serves_http || self.has_requests() {
            let [listener, pool, backend] = labels;
            for (class, count) in StatusClass::ALL.iter().zip(&self.requests) {
                scrape.counter(&families::BACKEND_REQUESTS, &[listener, pool, backend, class.name()], *count);
            }
            scrape.histogram_of(&families::BACKEND_REQUEST_DURATION, &labels, &self.duration);
        }
    }
}

/// What one worker counts for a backend of a pool.
#[derive(Debug, Default)]
pub struct BackendShard {
    /// `backend_connections_total`: connections opened to the backend.
    pub connections: Counter,
    /// `backend_connect_failures_total`: connections to the backend that could not be made, timeouts included.
    pub connect_failures: Counter,
    /// `backend_inflight`: requests, or TCP connections, at the backend now.
    pub inflight: Gauge,
    requests: RequestShard,
}

impl BackendShard {
    /// Counts a finished request in `backend_requests_total` and `backend_request_duration_seconds`. `duration`
    /// runs from the moment when the backend was chosen to the last byte of its response, or to the abort.
    pub fn record(&self, class: StatusClass, duration: Duration) {
        self.requests.record(class, duration);
    }
}

/// The families of a pool.
#[derive(Debug)]
pub struct PoolMetrics {
    /// `pool_rests_total`.
    pub rests: SharedCounter,
    limits: AtomicBool,
    panic: AtomicBool,
    resting: AtomicUsize,
    shards: PerWorker<PoolShard>,
}

impl PoolMetrics {
    /// Metrics for this many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            rests: SharedCounter::default(),
            limits: AtomicBool::new(false),
            panic: AtomicBool::new(false),
            resting: AtomicUsize::new(0),
            shards: PerWorker::new(workers),
        }
    }

    /// Sets whether the families of limits exist, even at zero.
    pub fn set_kinds(&self, limits: bool) {
        self.limits.store(limits, Relaxed);
    }

    /// `pool_panic`, and `pool_resting`: how many members are left alone.
    pub fn set_standing(&self, panic: bool, resting: usize) {
        self.panic.store(panic, Relaxed);
        self.resting.store(resting, Relaxed);
    }

    pub(super) fn is_in_panic(&self) -> bool {
        self.panic.load(Relaxed)
    }

    pub(super) fn resting(&self) -> usize {
        self.resting.load(Relaxed)
    }

    pub(super) fn has_limits(&self) -> bool {
        self.limits.load(Relaxed)
    }

    /// What the worker with this index counts.
    pub fn worker(&self, worker: usize) -> &PoolShard {
        self.shards.of(worker)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &PoolShard> {
        self.shards.iter()
    }
}

/// What one worker counts for a pool.
#[derive(Debug, Default)]
pub struct PoolShard {
    /// `pool_retries_total`.
    pub retries: By<RetryClass, Counter>,
    /// `pool_retry_budget_exhausted_total`.
    pub budget_exhausted: Counter,
    /// `pool_hedges_total`.
    pub hedges: Counter,
    /// `pool_hedges_won_total`.
    pub hedges_won: Counter,
    /// `pool_pending`: how many wait for room now.
    pub pending: Gauge,
    /// `pool_overflow_total`.
    pub overflow: By<Full, Counter>,
    /// `pool_circuit_open`: backends without room now.
    pub circuit_open: Gauge,
}

//! Metric families: what is counted, who may count it, and how a scrape reads it.
//!
//! No lock, no shared reference count and no read-modify-write that cores share stands on the path of a request.
//! A worker takes its handles once ([`Metrics::worker`], [`Metrics::listener`], [`Metrics::backend`]) and then
//! bumps plain counters in memory of its own; [`Metrics::encode`] adds the workers up. A sum may therefore be
//! some nanoseconds older in one worker than in another, but no count is ever lost.
//!
//! The families stand in one table, [`FAMILIES`]; METRICS.md is made from it.

mod backends;
mod document;
mod families;
mod label;
mod labels;
mod listeners;
mod members;
mod passthrough;
mod policies;
mod pools;
mod process;
mod quic;
mod reading;
mod reasons;
mod routes;
mod scrape;
mod shards;
mod values;
mod xdp;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use document::render_metrics_md;
pub use families::{FAMILIES, Family, FamilyKind, LabelNames};
pub use label::{By, Label};
pub use labels::{
    AcceptErrorKind, AcceptReject, CertFailure, DatagramDrop, DatagramPath, DrainOutcome, DrainPhase,
    FlowEnd, GrpcStatus, Http2Error, HttpVersion, MirrorResult, PassthroughDrop, ProxyHeaderResult,
    RelayDrop, RelayEnd, StatusClass, TlsFault, TlsResult, TunnelEnd,
};
pub use members::{BackendMetrics, BackendShard, PoolMetrics, PoolShard};
pub use policies::PolicyMetrics;
pub use pools::PoolBackend;
pub use quic::{EarlyRequest, Http3Error, QuicMetrics, QuicPackets, QuicStray, RelayShard};
pub use reading::{
    BackendReading, Latency, ListenerReading, MetricsReading, PoolReading, Requests, WorkerReading,
};
pub use reasons::{ByReason, DryRuns, FilterAnswers, Http2Abuse, ReasonSet, Rejections, UpstreamRejections};
pub use routes::{NamedRoutes, RouteMetrics};
pub use shards::{
    Certificates, ListenerMetrics, ListenerShard, PassthroughMetrics, RouteShard, WorkerMetrics,
};
pub use values::{
    Counter, Gauge, Histogram, MAX_BOUNDS, NamedCounters, PerWorker, SharedCounter, SharedCounters,
    SharedGauge,
};
pub use xdp::{XdpBackend, XdpMetrics, XdpReading};

use lb_core::breaker::Full;
use lb_core::identity::PoolId;
use lb_core::retry::RetryClass;

use crate::tap::Taps;
use scrape::Scrape;

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    /// What is balanced in the kernel.
    pub xdp: XdpMetrics,
    /// Who looks on as requests end.
    pub taps: Arc<Taps>,
    /// `panic_total`.
    pub panics: SharedCounter,
    /// `config_reload_succeeded_total`.
    pub reload_succeeded: SharedCounter,
    /// `config_reload_failed_total`.
    pub reload_failed: SharedCounter,
    /// `config_reload_applied_swappable_total`, by configuration field.
    pub reload_applied: SharedCounters,
    /// `config_reload_restart_required_fields_total`, by configuration field.
    pub reload_restart_required: SharedCounters,
    /// `config_reload_applied_version`: 1 at boot.
    pub reload_version: SharedGauge,
    /// `dns_cache_hits_total`.
    pub dns_cache_hits: SharedCounter,
    /// `dns_cache_misses_total`.
    pub dns_cache_misses: SharedCounter,
    /// `dns_cache_entries`.
    pub dns_cache_entries: SharedGauge,
    /// `dns_failures_total`.
    pub dns_failures: SharedCounter,
    /// `discovery_failures_total`, by pool.
    pub discovery_failures: NamedCounters,
    /// `shutdown_aborted_connections_total`.
    pub shutdown_aborted_connections: SharedCounter,
    /// `shutdown_listener_cancel_timeout_total`.
    pub shutdown_listener_cancel_timeouts: SharedCounter,
    /// `shutdown_inflight_drain_timeout_total`.
    pub shutdown_inflight_drain_timeouts: SharedCounter,
    /// `cert_rotation_succeeded_total`.
    pub cert_rotation_succeeded: SharedCounter,
    /// `cert_rotation_failed_total`.
    pub cert_rotation_failed: By<CertFailure, SharedCounter>,
    /// `access_log_dropped_total`.
    pub access_log_dropped: SharedCounter,
    /// `trace_spans_total`.
    pub trace_spans: SharedCounter,
    /// `trace_spans_dropped_total`.
    pub trace_spans_dropped: SharedCounter,
    drain: By<DrainPhase, By<DrainOutcome, DrainDuration>>,
    start: SystemTime,
    workers: PerWorker<Arc<WorkerMetrics>>,
    listeners: Mutex<BTreeMap<String, Arc<ListenerMetrics>>>,
    /// Listeners that are gone from the configuration, and whose connections may still run.
    gone_listeners: Mutex<BTreeSet<String>>,
    backends: backends::Backends,
    pool_metrics: Mutex<BTreeMap<String, Arc<PoolMetrics>>>,
    policies: policies::Policies,
}

impl Metrics {
    /// Metrics of a process that starts now, with this many workers and at least one.
    pub fn new(workers: usize) -> Arc<Self> {
        let metrics = Self {
            xdp: XdpMetrics::default(),
            taps: Arc::default(),
            panics: SharedCounter::default(),
            reload_succeeded: SharedCounter::default(),
            reload_failed: SharedCounter::default(),
            reload_applied: SharedCounters::default(),
            reload_restart_required: SharedCounters::default(),
            reload_version: SharedGauge::default(),
            dns_cache_hits: SharedCounter::default(),
            dns_cache_misses: SharedCounter::default(),
            dns_cache_entries: SharedGauge::default(),
            dns_failures: SharedCounter::default(),
            discovery_failures: NamedCounters::default(),
            shutdown_aborted_connections: SharedCounter::default(),
            shutdown_listener_cancel_timeouts: SharedCounter::default(),
            shutdown_inflight_drain_timeouts: SharedCounter::default(),
            cert_rotation_succeeded: SharedCounter::default(),
            cert_rotation_failed: By::default(),
            access_log_dropped: SharedCounter::default(),
            trace_spans: SharedCounter::default(),
            trace_spans_dropped: SharedCounter::default(),
            drain: By::default(),
            start: SystemTime::now(),
            workers: PerWorker::new(workers),
            listeners: Mutex::default(),
            gone_listeners: Mutex::default(),
            backends: backends::Backends::new(),
            pool_metrics: Mutex::default(),
            policies: policies::Policies::new(workers),
        };
        metrics.reload_version.set(1);
        Arc::new(metrics)
    }

    /// What the worker with this index counts for the process. To be taken once; an index out of range
    /// gets the first worker's.
    pub fn worker(&self, worker: usize) -> Arc<WorkerMetrics> {
        Arc::clone(self.workers.of(worker))
    }

    /// The families of the listener with this name, which begin to exist with the first call.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let mut listeners = lock(&self.listeners);
        if let Some(listener) = listeners.get(name) {
            return Arc::clone(listener);
        }
        let listener = Arc::new(ListenerMetrics::new(self.worker_count()));
        listeners.insert(name.to_owned(), Arc::clone(&listener));
        listener
    }

    /// Forgets every listener for which `keep` is false, each as soon as nothing holds its handle any more: what still runs there stays
    /// visible until it ends.
    pub fn retain_listeners(&self, keep: impl Fn(&str) -> bool) {
        let listeners = lock(&self.listeners);
        *lock(&self.gone_listeners) = listeners.keys().filter(|name| !keep(name)).cloned().collect();
    }

    /// The families of a backend of a pool, which begin to exist with the first call. `serves_http` is for traffic that consists of
    /// requests, and not only of connections.
    pub fn backend(&self, pool: &PoolId, serves_http: bool, backend: &str) -> Arc<BackendMetrics> {
        self.backends.traffic(self.worker_count(), pool, serves_http, backend)
    }

    /// The families of a pool. They exist as long as a handle to them is held.
    pub fn pool(&self, id: &PoolId) -> Arc<PoolMetrics> {
        let mut pools = lock(&self.pool_metrics);
        if let Some(pool) = pools.get(id.name()) {
            return Arc::clone(pool);
        }
        let pool = Arc::new(PoolMetrics::new(self.worker_count()));
        pools.insert(id.name().to_owned(), Arc::clone(&pool));
        pool
    }

    /// The families of a policy. They exist as long as a handle to them is held.
    pub fn policy(&self, name: &str) -> Arc<PolicyMetrics> {
        self.policies.named(name)
    }

    /// Forgets every backend of a pool for which `keep` is false, each as soon as no handle to it is held any more: what still runs there
    /// stays visible until it ends.
    pub fn retain_backends(&self, keep: impl Fn(&str, &str) -> bool) {
        self.backends.retain_traffic(keep);
    }

    /// How many backends may have series of their own. A backend that already has series keeps them.
    pub fn export_backends(&self, most: usize) {
        self.backends.set_most(most);
    }

    /// The metrics of health checks and ejections of a backend of a pool, which begin to exist with the first call.
    pub fn pool_backend(&self, pool: &PoolId, backend: &str) -> Arc<PoolBackend> {
        self.backends.checks(pool, backend)
    }

    /// Forgets the metrics of health checks and ejections of every backend of a pool for which `keep` is false.
    pub fn retain_pool_backends(&self, keep: impl Fn(&str, &str) -> bool) {
        self.backends.retain_checks(keep);
    }

    /// Records how long a phase of the drain took. Only the thread that conducts the drain may call this.
    pub fn drain_phase(&self, phase: DrainPhase, outcome: DrainOutcome, duration: Duration) {
        self.drain.of(phase).of(outcome).0.observe(duration);
    }

    /// All families in the Prometheus text format 0.0.4.
    pub fn encode(&self) -> String {
        let mut scrape = Scrape::default();
        self.scrape_workers(&mut scrape);
        self.scrape_listeners(&mut scrape);
        self.backends.scrape(&mut scrape);
        self.scrape_pool_metrics(&mut scrape);
        self.policies.scrape(&mut scrape);
        self.scrape_control(&mut scrape);
        self.scrape_process(&mut scrape);
        scrape.into_text()
    }

    fn worker_count(&self) -> usize {
        self.workers.iter().count()
    }

    fn scrape_workers(&self, scrape: &mut Scrape) {
        let sum = |value: fn(&WorkerMetrics) -> &Counter| self.workers.iter().map(|w| value(w).value()).sum();
        scrape.counter(&families::CONNECTIONS, &[], sum(|w| &w.connections));
        scrape.counter(&families::BYTES_CLIENT_TO_BACKEND, &[], sum(|w| &w.bytes_client_to_backend));
        scrape.counter(&families::BYTES_BACKEND_TO_CLIENT, &[], sum(|w| &w.bytes_backend_to_client));
        scrape.counter(&families::TCP_SPLICE_BYTES, &[], sum(|w| &w.tcp_splice_bytes));
        scrape.counter(&families::BACKEND_CONNECT_TIMEOUTS, &[], sum(|w| &w.backend_connect_timeouts));
        scrape.counter(&families::POOL_ACQUIRES, &[], sum(|w| &w.pool_acquires));
        scrape.counter(&families::POOL_REUSES, &[], sum(|w| &w.pool_reuses));
        scrape.counter(&families::POOL_PROBE_FAILURES, &[], sum(|w| &w.pool_probe_failures));
        let idle = self.workers.iter().map(|worker| worker.pool_idle.value()).sum::<i64>();
        scrape.gauge(&families::POOL_IDLE, &[], idle as f64);
        self.scrape_reasons(scrape, &families::ACCEPT_ERRORS, |w| &w.accept_errors);
        self.scrape_reasons(scrape, &families::ACCEPT_REJECTS, |w| &w.accept_rejects);
        self.scrape_reasons(scrape, &families::BACKEND_TLS_HANDSHAKES, |w| &w.backend_tls_handshakes);
        self.scrape_reasons(scrape, &families::TLS_FAULTS, |w| &w.tls_faults);
        quic::scrape(scrape, &self.workers.iter().map(|worker| &worker.quic).collect::<Vec<_>>());
        self.xdp.scrape(scrape);
        passthrough::scrape(
            scrape,
            &self.workers.iter().map(|worker| &worker.passthrough).collect::<Vec<_>>(),
        );
        self.scrape_reasons(scrape, &families::MIRRORS, |w| &w.mirrors);
        self.scrape_reasons(scrape, &families::HTTP_RETRIES, |w| &w.http_retries);
        self.scrape_set(scrape, &families::REQUEST_REJECTED, |w| &w.request_rejected);
        self.scrape_set(scrape, &families::HTTP2_ABUSE, |w| &w.http2_abuse);
        self.scrape_reasons(scrape, &families::HTTP2_ERRORS, |w| &w.http2_errors);
        self.scrape_set(scrape, &families::UPSTREAM_REJECTED, |w| &w.upstream_rejected);
    }

    fn scrape_set<S: ReasonSet>(
        &self,
        scrape: &mut Scrape,
        family: &Family,
        counters: fn(&WorkerMetrics) -> &ByReason<S>,
    ) {
        for reason in S::REASONS {
            let sum = self.workers.iter().map(|worker| counters(worker).of(*reason).value()).sum();
            scrape.counter(family, &[reason.name()], sum);
        }
    }

    fn scrape_reasons<L: Label>(
        &self,
        scrape: &mut Scrape,
        family: &Family,
        counters: fn(&WorkerMetrics) -> &By<L, Counter>,
    ) {
        for reason in L::ALL {
            let sum = self.workers.iter().map(|worker| counters(worker).of(*reason).value()).sum();
            scrape.counter(family, &[reason.name()], sum);
        }
    }

    fn scrape_listeners(&self, scrape: &mut Scrape) {
        let mut listeners = lock(&self.listeners);
        lock(&self.gone_listeners).retain(|name| {
            // Handles are made under this lock only, so a count of one means that nothing can write any more.
            let is_held = listeners.get(name).is_some_and(|listener| Arc::strong_count(listener) > 1);
            if !is_held {
                listeners.remove(name);
            }
            is_held
        });
        for (name, listener) in &*listeners {
            listeners::scrape(scrape, name, listener);
        }
    }

    fn scrape_pool_metrics(&self, scrape: &mut Scrape) {
        let mut pools = lock(&self.pool_metrics);
        // Handles are made under this lock only, so a count of one means that no other handle exists.
        pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        for (name, pool) in &*pools {
            for reason in RetryClass::ALL {
                let sum = pool.shards().map(|shard| shard.retries.of(*reason).value()).sum();
                scrape.counter(&families::POOL_RETRIES, &[name, reason.name()], sum);
            }
            let sum = |of: fn(&PoolShard) -> &Counter| pool.shards().map(|shard| of(shard).value()).sum();
            let exhausted = sum(|shard| &shard.budget_exhausted);
            scrape.counter(&families::POOL_RETRY_BUDGET_EXHAUSTED, &[name], exhausted);
            scrape.counter(&families::POOL_HEDGES, &[name], sum(|shard| &shard.hedges));
            scrape.counter(&families::POOL_HEDGES_WON, &[name], sum(|shard| &shard.hedges_won));
            scrape.gauge(&families::POOL_PANIC, &[name], f64::from(u8::from(pool.is_in_panic())));
            scrape.gauge(&families::POOL_RESTING, &[name], pool.resting() as f64);
            scrape.counter(&families::POOL_RESTS, &[name], pool.rests.value());
            if pool.has_limits() {
                for reason in Full::ALL {
                    let sum = pool.shards().map(|shard| shard.overflow.of(*reason).value()).sum();
                    scrape.counter(&families::POOL_OVERFLOW, &[name, reason.name()], sum);
                }
                let pending = pool.shards().map(|shard| shard.pending.value()).sum::<i64>();
                scrape.gauge(&families::POOL_PENDING, &[name], pending as f64);
                let open = pool.shards().map(|shard| shard.circuit_open.value()).sum::<i64>();
                scrape.gauge(&families::POOL_CIRCUIT_OPEN, &[name], open as f64);
            }
        }
    }

    fn scrape_control(&self, scrape: &mut Scrape) {
        for (family, counter) in [
            (&families::DNS_CACHE_HITS, &self.dns_cache_hits),
            (&families::DNS_CACHE_MISSES, &self.dns_cache_misses),
            (&families::DNS_FAILURES, &self.dns_failures),
            (&families::RELOAD_SUCCEEDED, &self.reload_succeeded),
            (&families::RELOAD_FAILED, &self.reload_failed),
            (&families::SHUTDOWN_ABORTED, &self.shutdown_aborted_connections),
            (&families::SHUTDOWN_CANCEL_TIMEOUT, &self.shutdown_listener_cancel_timeouts),
            (&families::SHUTDOWN_DRAIN_TIMEOUT, &self.shutdown_inflight_drain_timeouts),
            (&families::PANICS, &self.panics),
            (&families::ACCESS_LOG_DROPPED, &self.access_log_dropped),
            (&families::TRACE_SPANS, &self.trace_spans),
            (&families::TRACE_SPANS_DROPPED, &self.trace_spans_dropped),
            (&families::CERT_ROTATION_SUCCEEDED, &self.cert_rotation_succeeded),
        ] {
            scrape.counter(family, &[], counter.value());
        }
        scrape.counter(&families::LOG_DROPPED, &[], crate::logs::dropped());
        for reason in CertFailure::ALL {
            let count = self.cert_rotation_failed.of(*reason).value();
            scrape.counter(&families::CERT_ROTATION_FAILED, &[reason.name()], count);
        }
        scrape.gauge(&families::DNS_CACHE_ENTRIES, &[], self.dns_cache_entries.value() as f64);
        scrape.gauge(&families::RELOAD_VERSION, &[], self.reload_version.value() as f64);
        for (pool, count) in self.discovery_failures.values() {
            scrape.counter(&families::DISCOVERY_FAILURES, &[&pool], count);
        }
        for (family, counters) in [
            (&families::RELOAD_APPLIED, &self.reload_applied),
            (&families::RELOAD_RESTART_REQUIRED, &self.reload_restart_required),
        ] {
            for (field, count) in counters.values() {
                scrape.counter(family, &[field], count);
            }
        }
        for phase in DrainPhase::ALL {
            for outcome in phase.outcomes() {
                let histogram = &self.drain.of(*phase).of(*outcome).0;
                scrape.histogram(
                    &families::DRAIN_DURATION,
                    &[phase.name(), outcome.name()],
                    std::iter::once(histogram),
                );
            }
        }
    }

    fn scrape_process(&self, scrape: &mut Scrape) {
        scrape.gauge(&families::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        scrape.gauge(&families::WORKERS, &[], self.worker_count() as f64);
        let start = self.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        scrape.gauge(&families::PROCESS_START, &[], start.as_millis() as f64 / 1e3);
        if let Some(bytes) = process::resident_memory() {
            scrape.gauge(&families::PROCESS_MEMORY, &[], bytes as f64);
        }
        if let Some(count) = process::open_fds() {
            scrape.gauge(&families::PROCESS_FDS, &[], count as f64);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each use leaves the map whole at every step, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct DrainDuration(Histogram);

impl Default for DrainDuration {
    fn default() -> Self {
        Self(Histogram::new(families::DRAIN_SECONDS))
    }
}

#[cfg(test)]
mod tests;

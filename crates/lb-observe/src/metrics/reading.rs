//! What the counters say at one moment, as numbers: for the status of the process, which shows them beside what they are about.
//!
//! A reading takes no lock that a worker may wait for longer than it takes to copy handles, and stops no worker: sums are as old as those of
//! a scrape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_core::breaker::Full;
use lb_core::retry::RetryClass;

use super::families::{self, REQUEST_SECONDS};
use super::label::{By, Label};
use super::labels::{HttpVersion, StatusClass, TlsResult};
use super::reasons::{ByReason, ReasonSet};
use super::scrape::NANOSECONDS_PER_SECOND;
use super::shards::{ListenerMetrics, RequestShard, RouteShard};
use super::values::{Counter, HistogramTotals};
use super::{Metrics, WorkerMetrics, lock, process};

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct MetricsReading {
    /// The version of the program.
    pub version: &'static str,
    /// When the process began.
    pub start: SystemTime,
    /// Resident memory in bytes, where the kernel tells.
    pub resident_memory: Option<u64>,
    /// Open file descriptors, where the kernel tells.
    pub open_fds: Option<u64>,
    /// Client connections accepted and kept, of all workers.
    pub connections: u64,
    /// Bytes written to backends.
    pub bytes_to_backends: u64,
    /// Bytes written to clients.
    pub bytes_to_clients: u64,
    /// Connections to backends that were asked for, and those of them that an idle one served.
    pub backend_connections: (u64, u64),
    /// What each worker does, in their order.
    pub workers: Vec<WorkerReading>,
    /// Each listener, by its name.
    pub listeners: BTreeMap<String, ListenerReading>,
    /// Each pool, by its name.
    pub pools: BTreeMap<String, PoolReading>,
    /// Counts by reason that are not zero: family, reason, count.
    pub reasons: Vec<(&'static str, &'static str, u64)>,
}

/// One worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerReading {
    /// Client connections that it holds.
    pub connections: i64,
    /// Requests that it finished.
    pub requests: u64,
    /// Idle connections to backends that it keeps.
    pub idle: i64,
}

/// One listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerReading {
    /// Client connections open now.
    pub connections: i64,
    /// Connections closed because the listener had no place left.
    pub shed: u64,
    /// TLS handshakes that came about, and those that did not.
    pub handshakes: (u64, u64),
    /// All its requests.
    pub requests: Requests,
    /// Flows of datagrams that were begun.
    pub flows: u64,
    /// Requests by the route with a name that took them.
    pub routes: BTreeMap<String, Requests>,
    /// Unix times at which its certificates run out, by their files.
    pub certificates: BTreeMap<String, i64>,
}

/// One pool.
#[derive(Clone, Debug, Default)]
pub struct PoolReading {
    /// What all its backends have done, those that are gone included as far as they are counted.
    pub traffic: BackendReading,
    /// Each backend, by its name.
    pub backends: BTreeMap<String, BackendReading>,
    /// Requests that were sent once more.
    pub retries: u64,
    /// Second tries that were sent beside the first.
    pub hedges: u64,
    /// Requests that wait for room now.
    pub pending: i64,
    /// Requests that found no room.
    pub overflow: u64,
    /// Backends without room now, of all workers.
    pub circuits_open: i64,
    /// Whether the pool has limits, without which the three before mean nothing.
    pub has_limits: bool,
}

/// One backend of a pool.
#[derive(Clone, Debug, Default)]
pub struct BackendReading {
    /// Connections opened to it.
    pub connections: u64,
    /// Connections to it that could not be made.
    pub connect_failures: u64,
    /// Requests, or connections of raw bytes, that it has now.
    pub inflight: i64,
    /// Its requests.
    pub requests: Requests,
}

/// Finished requests.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// How many, by [`StatusClass`], in the order of [`StatusClass::ALL`].
    pub classes: [u64; 6],
    /// How long they took.
    pub latency: Latency,
}

/// How long requests took, sorted into the buckets of the metrics.
#[derive(Clone, Debug, Default)]
pub struct Latency(HistogramTotals);

impl Requests {
    /// All of them.
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Those that failed: with a status of 500 or more, or without any.
    pub fn errors(&self) -> u64 {
        StatusClass::ALL
            .iter()
            .zip(self.classes)
            .filter(|(class, _)| matches!(class, StatusClass::ServerError | StatusClass::NoResponse))
            .map(|(_, count)| count)
            .sum()
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.classes.iter_mut().zip(other.classes) {
            *sum = sum.saturating_add(count);
        }
        self.latency.0.add(&other.latency.0);
    }

    pub(super) fn of(classes: &[u64], duration: &HistogramTotals) -> Self {
        let mut requests = Self { latency: Latency(duration.clone()), ..Self::default() };
        for (sum, count) in requests.classes.iter_mut().zip(classes) {
            *sum = *count;
        }
        requests
    }

    pub(super) fn add_shard(&mut self, shard: &RequestShard) {
        for (sum, class) in self.classes.iter_mut().zip(StatusClass::ALL) {
            *sum = sum.saturating_add(shard.requests.of(*class).value());
        }
        shard.duration.add_to(&mut self.latency.0);
    }

    fn add_route(&mut self, shard: &RouteShard) {
        for version in HttpVersion::ALL {
            let shard = shard.version(*version);
            if shard.is_used() {
                self.add_shard(shard);
            }
        }
    }
}

impl BackendReading {
    pub(super) fn add(&mut self, other: &Self) {
        self.connections = self.connections.saturating_add(other.connections);
        self.connect_failures = self.connect_failures.saturating_add(other.connect_failures);
        self.inflight = self.inflight.saturating_add(other.inflight);
        self.requests.add(&other.requests);
    }
}

impl Latency {
    /// What was observed after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(self.0.since(&earlier.0))
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// The time within which the share `quantile` of them ended, interpolated within its bucket as Prometheus does. What exceeds the greatest
    /// bound counts as that bound. `None` before the first.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.0.count();
        if count == 0 {
            return None;
        }
        let wanted = quantile.clamp(0.0, 1.0) * count as f64;
        let (mut below, mut lower) = (0u64, 0u64);
        for (bound, upto) in REQUEST_SECONDS.iter().zip(self.0.cumulative()) {
            if upto as f64 >= wanted && upto > below {
                let share = (wanted - below as f64) / (upto - below) as f64;
                let nanoseconds = lower as f64 + share * (bound - lower) as f64;
                return Some(Duration::from_secs_f64(nanoseconds / NANOSECONDS_PER_SECOND));
            }
            (below, lower) = (upto, *bound);
        }
        Some(Duration::from_nanos(lower))
    }
}

impl Metrics {
    /// Reads everything.
    pub fn reading(&self) -> MetricsReading {
        let sum = |of: fn(&WorkerMetrics) -> &Counter| self.workers.iter().map(|one| of(one).value()).sum();
        let mut workers: Vec<WorkerReading> = self
            .workers
            .iter()
            .map(|one| WorkerReading { idle: one.pool_idle.value(), ..WorkerReading::default() })
            .collect();
        let mut reasons = Reasons::default();
        self.read_reasons(&mut reasons);
        let handles: Vec<_> =
            lock(&self.listeners).iter().map(|(name, one)| (name.clone(), Arc::clone(one))).collect();
        let listeners = handles.into_iter().map(|(name, listener)| {
            let reading = read_listener(&listener, &mut workers, &mut reasons);
            (name, reading)
        });
        MetricsReading {
            version: env!("CARGO_PKG_VERSION"),
            start: self.start,
            resident_memory: process::resident_memory(),
            open_fds: process::open_fds(),
            connections: sum(|one| &one.connections),
            bytes_to_backends: sum(|one| &one.bytes_client_to_backend),
            bytes_to_clients: sum(|one| &one.bytes_backend_to_client),
            backend_connections: (sum(|one| &one.pool_acquires), sum(|one| &one.pool_reuses)),
            listeners: listeners.collect(),
            pools: self.read_pools(&mut reasons),
            workers,
            reasons: reasons.into_list(),
        }
    }

    fn read_reasons(&self, reasons: &mut Reasons) {
        for worker in self.workers.iter() {
            reasons.add_labels(&families::ACCEPT_ERRORS, &worker.accept_errors);
            reasons.add_labels(&families::ACCEPT_REJECTS, &worker.accept_rejects);
            reasons.add_labels(&families::TLS_FAULTS, &worker.tls_faults);
            reasons.add_labels(&families::HTTP2_ERRORS, &worker.http2_errors);
            reasons.add_set(&families::REQUEST_REJECTED, &worker.request_rejected);
            reasons.add_set(&families::UPSTREAM_REJECTED, &worker.upstream_rejected);
            reasons.add_set(&families::HTTP2_ABUSE, &worker.http2_abuse);
        }
    }

    fn read_pools(&self, reasons: &mut Reasons) -> BTreeMap<String, PoolReading> {
        let mut pools = self.backends.reading();
        let handles: Vec<_> =
            lock(&self.pool_metrics).iter().map(|(name, one)| (name.clone(), Arc::clone(one))).collect();
        for (name, metrics) in handles {
            let pool = pools.entry(name).or_default();
            pool.has_limits = metrics.has_limits();
            for shard in metrics.shards() {
                let retries = RetryClass::ALL.iter().map(|class| shard.retries.of(*class).value());
                pool.retries = pool.retries.saturating_add(retries.sum());
                pool.hedges = pool.hedges.saturating_add(shard.hedges.value());
                pool.pending = pool.pending.saturating_add(shard.pending.value());
                pool.circuits_open = pool.circuits_open.saturating_add(shard.circuit_open.value());
                let overflow = Full::ALL.iter().map(|full| shard.overflow.of(*full).value());
                pool.overflow = pool.overflow.saturating_add(overflow.sum());
                reasons.add_labels(&families::POOL_OVERFLOW, &shard.overflow);
            }
        }
        pools
    }
}

fn read_listener(
    listener: &ListenerMetrics,
    workers: &mut [WorkerReading],
    reasons: &mut Reasons,
) -> ListenerReading {
    let mut reading = ListenerReading {
        certificates: listener.certificates().map(|one| one.expiries).unwrap_or_default(),
        ..ListenerReading::default()
    };
    for (shard, worker) in listener.shards().zip(workers.iter_mut()) {
        let open = shard.connections_inflight.value();
        reading.connections = reading.connections.saturating_add(open);
        worker.connections = worker.connections.saturating_add(open);
        reading.shed = reading.shed.saturating_add(shard.accept_shed.value());
        reading.flows = reading.flows.saturating_add(shard.udp_flows.value());
        for result in TlsResult::ALL {
            let count = shard.tls_handshakes.of(*result).value();
            let sum = match result {
                TlsResult::Full | TlsResult::Resumed => &mut reading.handshakes.0,
                _ => &mut reading.handshakes.1,
            };
            *sum = sum.saturating_add(count);
        }
        let mut requests = Requests::default();
        requests.add_route(&shard.unrouted);
        worker.requests = worker.requests.saturating_add(requests.count());
        reading.requests.add(&requests);
        reasons.add_set(&families::FILTER_ANSWERS, &shard.filter_answers);
    }
    for (name, route) in listener.routes.handles() {
        let mut requests = Requests::default();
        for (shard, worker) in route.shards().zip(workers.iter_mut()) {
            let before = requests.count();
            requests.add_route(shard);
            worker.requests = worker.requests.saturating_add(requests.count().saturating_sub(before));
        }
        reading.requests.add(&requests);
        reading.routes.insert(name, requests);
    }
    reading
}

/// Counts by family and reason.
#[derive(Default)]
struct Reasons(BTreeMap<(&'static str, &'static str), u64>);

impl Reasons {
    fn add_labels<L: Label>(&mut self, family: &super::Family, counters: &By<L, Counter>) {
        for label in L::ALL {
            self.add(family, label.name(), counters.of(*label).value());
        }
    }

    fn add_set<S: ReasonSet>(&mut self, family: &super::Family, counters: &ByReason<S>) {
        for (reason, count) in counters.values() {
            self.add(family, reason.name(), count);
        }
    }

    fn add(&mut self, family: &super::Family, reason: &'static str, count: u64) {
        if count > 0 {
            let sum = self.0.entry((family.name, reason)).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    fn into_list(self) -> Vec<(&'static str, &'static str, u64)> {
        self.0.into_iter().map(|((family, reason), count)| (family, reason, count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use lb_core::identity::PoolId;
    use lb_core::reason::Reason;

    use super::*;

    #[test]
    fn everything_that_is_counted_is_read_over_all_workers() {
        let metrics = Metrics::new(2);
        let listener = metrics.listener("web");
        let route = listener.routes.named("shop").unwrap();
        let took = Duration::from_millis(3);
        listener.worker(0).unrouted.record(HttpVersion::H1, StatusClass::Success, took);
        route.worker(1).record(HttpVersion::H2, StatusClass::ServerError, took);
        route.worker(1).record(HttpVersion::H3, StatusClass::NoResponse, took);
        listener.worker(1).connections_inflight.add(4);
        metrics.worker(1).upstream_rejected.of(Reason::UPSTREAM[0]).add(5);
        let id = PoolId::from("api");
        let backend = metrics.backend(&id, true, "10.0.0.1:80");
        backend.worker(0).record(StatusClass::Success, took);
        backend.worker(1).inflight.inc();
        let pool = metrics.pool(&id);
        pool.worker(1).overflow.of(Full::Pending).inc();

        let reading = metrics.reading();
        let web = &reading.listeners["web"];
        assert_eq!((web.requests.count(), web.requests.errors(), web.connections), (3, 2, 4));
        assert_eq!(web.routes["shop"].count(), 2);
        assert_eq!(reading.workers.iter().map(|one| one.requests).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(reading.workers.iter().map(|one| one.connections).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(
            reading.reasons,
            [
                ("pool_overflow_total", "max_pending", 1),
                ("upstream_rejected_total", Reason::UPSTREAM[0].name(), 5)
            ]
        );
        let api = &reading.pools["api"];
        assert_eq!((api.traffic.requests.count(), api.traffic.inflight, api.overflow), (1, 1, 1));
        assert_eq!(api.backends["10.0.0.1:80"].requests.latency.count(), 1);
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let metrics = Metrics::new(1);
        let listener = metrics.listener("web");
        let read = || metrics.reading().listeners["web"].requests.latency.clone();
        assert_eq!(read().quantile(0.5), None);
        let record = |millis| {
            let took = Duration::from_millis(millis);
            listener.worker(0).unrouted.record(HttpVersion::H1, StatusClass::Success, took);
        };
        (0..90).for_each(|_| record(3));
        (0..9).for_each(|_| record(40));
        record(60_000);
        let latency = read();
        let millis = |quantile| latency.quantile(quantile).unwrap().as_secs_f64() * 1e3;
        assert!((1.0..=5.0).contains(&millis(0.5)), "{}", millis(0.5));
        assert!((25.0..=50.0).contains(&millis(0.95)), "{}", millis(0.95));
        assert_eq!(millis(1.0), 10_000.0, "the greatest bound stands for all beyond it");
        record(60_000);
        let since = read().since(&latency);
        assert_eq!((since.count(), since.quantile(0.5)), (1, Some(Duration::from_secs(10))));
    }
}

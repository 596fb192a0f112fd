//! What is known of the backends of pools. All of it changes rarely, whoever writes it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::families;
use super::labels::{By, EjectionCause, Label, ProbeResult};
use super::lock;
use super::scrape::Scrape;
use super::values::SharedCounter;

/// The families of one backend of a pool.
#[derive(Debug)]
pub struct PoolBackend {
    /// `backend_health_probes_total`.
    pub probes: By<ProbeResult, SharedCounter>,
    /// `backend_ejections_total`.
    pub ejections: By<EjectionCause, SharedCounter>,
    /// `backend_healthy`; negative where there are no health checks.
    healthy: AtomicI64,
    /// `backend_ejected`; negative where nothing is ejected.
    ejected: AtomicI64,
}

impl PoolBackend {
    fn new() -> Self {
        let none = || AtomicI64::new(NONE);
        Self { probes: By::default(), ejections: By::default(), healthy: none(), ejected: none() }
    }

    /// `backend_healthy`: whether some address may be used. `None` where the pool has no health checks, and then there are no series
    /// about them.
    pub fn set_healthy(&self, healthy: Option<bool>) {
        self.healthy.store(healthy.map_or(NONE, i64::from), Relaxed);
    }

    /// `backend_ejected`: how many addresses are put aside. `None` where that never happens, and then there are no series about it.
    pub fn set_ejected(&self, ejected: Option<usize>) {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.ejected.store(ejected.map_or(NONE, count), Relaxed);
    }

    fn scrape(&self, scrape: &mut Scrape, labels: [&str; 2]) {
        let [pool, backend] = labels;
        let healthy = self.healthy.load(Relaxed);
        if healthy != NONE {
            scrape.gauge(&families::BACKEND_HEALTHY, &labels, healthy as f64);
            for result in ProbeResult::ALL {
                let count = self.probes.of(*result).value();
                scrape.counter(&families::HEALTH_PROBES, &[pool, backend, result.name()], count);
            }
        }
        let ejected = self.ejected.load(Relaxed);
        if ejected != NONE {
            scrape.gauge(&families::BACKEND_EJECTED, &labels, ejected as f64);
            for cause in EjectionCause::ALL {
                let count = self.ejections.of(*cause).value();
                scrape.counter(&families::BACKEND_EJECTIONS, &[pool, backend, cause.name()], count);
            }
        }
    }
}

/// Stands for a gauge that has no meaning.
const NONE: i64 = -1;

/// Those of all pools, by the names of pool and backend.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<BTreeMap<(String, String), Arc<PoolBackend>>>);

impl Pools {
    pub(super) fn backend(&self, pool: &str, backend: &str) -> Arc<PoolBackend> {
        let mut backends = lock(&self.0);
        let entry = backends.entry((pool.to_owned(), backend.to_owned()));
        Arc::clone(entry.or_insert_with(|| Arc::new(PoolBackend::new())))
    }

    pub(super) fn retain(&self, keep: impl Fn(&str, &str) -> bool) {
        lock(&self.0).retain(|(pool, backend), _| keep(pool, backend));
    }

    pub(super) fn scrape(&self, scrape: &mut Scrape) {
        for ((pool, backend), metrics) in &*lock(&self.0) {
            metrics.scrape(scrape, [pool, backend]);
        }
    }
}

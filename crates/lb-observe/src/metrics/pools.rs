//! Health checks and ejections of the backends of pools. They change rarely.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use lb_core::health::ProbeOutcome;
use lb_core::outlier::EjectionCause;

use super::families;
use super::label::{By, Label};
use super::scrape::Scrape;
use super::values::SharedCounter;

/// The families of one backend of a pool.
#[derive(Debug)]
pub struct PoolBackend {
    /// `backend_health_probes_total`.
    pub probes: By<ProbeOutcome, SharedCounter>,
    /// `backend_ejections_total`.
    pub ejections: By<EjectionCause, SharedCounter>,
    /// `backend_healthy`; negative where there are no health checks.
    healthy: AtomicI64,
    /// `backend_ejected`; negative where nothing is ejected.
    ejected: AtomicI64,
}

impl PoolBackend {
    pub(super) fn new() -> Self {
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

    pub(super) fn read(&self) -> Checks {
        let value = |gauge: &AtomicI64| Some(gauge.load(Relaxed)).filter(|value| *value != NONE);
        let probes = ProbeOutcome::ALL.iter().map(|result| self.probes.of(*result).value());
        let ejections = EjectionCause::ALL.iter().map(|cause| self.ejections.of(*cause).value());
        Checks {
            healthy: value(&self.healthy).map(|healthy| healthy != 0),
            ejected: value(&self.ejected),
            probes: probes.collect(),
            ejections: ejections.collect(),
        }
    }
}

/// Stands for a gauge that has no meaning.
const NONE: i64 = -1;

/// The values of a [`PoolBackend`] at one moment, or the sum of several.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    /// Whether all that have health checks may be used.
    healthy: Option<bool>,
    ejected: Option<i64>,
    probes: Vec<u64>,
    ejections: Vec<u64>,
}

impl Checks {
    pub(super) fn is_used(&self) -> bool {
        self.healthy == Some(false)
            || self.ejected.is_some_and(|ejected| ejected > 0)
            || self.probes.iter().chain(&self.ejections).any(|count| *count > 0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        if let Some(healthy) = other.healthy {
            self.healthy = Some(healthy && self.healthy.unwrap_or(true));
        }
        if let Some(ejected) = other.ejected {
            self.ejected = Some(ejected.saturating_add(self.ejected.unwrap_or(0)));
        }
        self.add_counts(other);
    }

    /// Has the families that another one has, and adds nothing of it.
    pub(super) fn go_along_with(&mut self, other: &Self) {
        let Self { healthy, ejected, probes, ejections } = other;
        let none = |counts: &[u64]| vec![0; counts.len()];
        self.add(&Self {
            healthy: healthy.map(|_| true),
            ejected: ejected.map(|_| 0),
            probes: none(probes),
            ejections: none(ejections),
        });
    }

    /// Adds what outlives a backend.
    pub(super) fn add_counts(&mut self, other: &Self) {
        add_each(&mut self.probes, &other.probes);
        add_each(&mut self.ejections, &other.ejections);
    }

    pub(super) fn scrape(&self, scrape: &mut Scrape, labels: [&str; 2]) {
        let [pool, backend] = labels;
        if let Some(healthy) = self.healthy {
            scrape.gauge(&families::BACKEND_HEALTHY, &labels, f64::from(u8::from(healthy)));
            for (result, count) in ProbeOutcome::ALL.iter().zip(&self.probes) {
                scrape.counter(&families::HEALTH_PROBES, &[pool, backend, result.name()], *count);
            }
        }
        if let Some(ejected) = self.ejected {
            scrape.gauge(&families::BACKEND_EJECTED, &labels, ejected as f64);
            for (cause, count) in EjectionCause::ALL.iter().zip(&self.ejections) {
                scrape.counter(&families::BACKEND_EJECTIONS, &[pool, backend, cause.name()], *count);
            }
        }
    }
}

/// Adds counts label by label; `sums` may be empty, for nothing yet.
pub(super) fn add_each(sums: &mut Vec<u64>, counts: &[u64]) {
    if sums.len() < counts.len() {
        sums.resize(counts.len(), 0);
    }
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum = sum.saturating_add(*count);
    }
}

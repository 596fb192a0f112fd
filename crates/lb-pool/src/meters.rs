//! The metrics of the members of a pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_core::health::ProbeOutcome;
use lb_core::identity::PoolId;
use lb_core::outlier::EjectionCause;
use lb_observe::metrics::{Metrics, PoolBackend};

/// The metrics of each member, by position: members of one backend share them. Empty where no metrics are kept.
#[derive(Debug, Default)]
pub(crate) struct Meters(Vec<Arc<PoolBackend>>);

/// What a member adds to the gauges of its backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Whether its health checks let it be used; `None` without any.
    pub(crate) usable: Option<bool>,
    /// Whether it is put aside; `None` where that never happens.
    pub(crate) ejected: Option<bool>,
}

impl Meters {
    /// The metrics of a pool whose members belong to these backends.
    pub(crate) fn new<'a>(
        metrics: &Metrics,
        pool: &PoolId,
        backends: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self(backends.into_iter().map(|backend| metrics.pool_backend(pool, backend)).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn probed(&self, at: usize, outcome: ProbeOutcome) {
        if let Some(metrics) = self.0.get(at) {
            metrics.probes.of(outcome).inc();
        }
    }

    pub(crate) fn ejected(&self, at: usize, why: EjectionCause) {
        if let Some(metrics) = self.0.get(at) {
            metrics.ejections.of(why).inc();
        }
    }

    /// Updates the gauges, by the part that each member adds to them.
    pub(crate) fn show(&self, readings: impl Iterator<Item = Reading>) {
        let mut backends: BTreeMap<*const PoolBackend, (&PoolBackend, Option<bool>, Option<usize>)> =
            BTreeMap::new();
        for (metrics, reading) in self.0.iter().zip(readings) {
            let (_, healthy, ejected) =
                backends.entry(Arc::as_ptr(metrics)).or_insert((metrics.as_ref(), None, None));
            if let Some(usable) = reading.usable {
                *healthy = Some(healthy.unwrap_or(false) || usable);
            }
            if let Some(is_out) = reading.ejected {
                *ejected = Some(ejected.unwrap_or(0).saturating_add(usize::from(is_out)));
            }
        }
        for (metrics, healthy, ejected) in backends.into_values() {
            metrics.set_healthy(healthy);
            metrics.set_ejected(ejected);
        }
    }
}

//! Families of backends, by pool and backend.
//!
//! A pool may have thousands of backends, and a hundred listeners in front of it. So the series belong to the backend of the pool, those of
//! a backend that was never used are left out, and there is a bound on the backends that have series of their own. All others of a pool
//! are added up under the name [`OTHER`], which is always there: sums over a pool are complete, and exist from the start.
//!
//! No count may go back. So a backend that was once counted among the others stays there as long as it lives, and what it had counted
//! stays there after it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lb_core::identity::PoolId;

use super::families;
use super::lock;
use super::members::{BackendMetrics, Traffic};
use super::pools::{Checks, PoolBackend};
use super::reading::PoolReading;
use super::scrape::Scrape;

/// The name under which backends without series of their own are added up. No backend can have it: it lacks a port.
pub(super) const OTHER: &str = "other";

/// The backends of all pools.
#[derive(Debug)]
pub(super) struct Backends(Mutex<State>);

#[derive(Debug)]
struct State {
    /// How many backends may have series of their own.
    most: usize,
    pools: BTreeMap<String, OfPool>,
}

#[derive(Debug, Default)]
struct OfPool {
    /// The listener whose own it is; empty where any number of listeners may share it.
    listener: String,
    /// Whether it serves requests, and not only connections.
    serves_http: bool,
    members: BTreeMap<String, Entry>,
    /// The counts of backends that were added up under [`OTHER`] and are gone.
    gone: (Traffic, Checks),
}

#[derive(Debug, Default)]
struct Entry {
    traffic: Option<Arc<BackendMetrics>>,
    /// No configuration names it; what still runs there is counted until it ends.
    removed: bool,
    checks: Option<Arc<PoolBackend>>,
    place: Option<Shown>,
}

/// Where a backend that was used is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Alone,
    AmongOthers,
}

impl Backends {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { most: DEFAULT_MOST, pools: BTreeMap::new() }))
    }

    pub(super) fn set_most(&self, most: usize) {
        lock(&self.0).most = most;
    }

    pub(super) fn traffic(
        &self,
        workers: usize,
        id: &PoolId,
        serves_http: bool,
        backend: &str,
    ) -> Arc<BackendMetrics> {
        let mut state = lock(&self.0);
        let pool = state.pool(id);
        pool.serves_http |= serves_http;
        let entry = pool.entry(backend);
        entry.removed = false;
        Arc::clone(entry.traffic.get_or_insert_with(|| Arc::new(BackendMetrics::new(workers))))
    }

    pub(super) fn checks(&self, pool: &PoolId, backend: &str) -> Arc<PoolBackend> {
        let mut state = lock(&self.0);
        let entry = state.pool(pool).entry(backend);
        Arc::clone(entry.checks.get_or_insert_with(|| Arc::new(PoolBackend::new())))
    }

    pub(super) fn retain_traffic(&self, keep: impl Fn(&str, &str) -> bool) {
        for (pool, of_pool) in &mut lock(&self.0).pools {
            for (backend, entry) in &mut of_pool.members {
                entry.removed = !keep(pool, backend);
            }
        }
    }

    pub(super) fn retain_checks(&self, keep: impl Fn(&str, &str) -> bool) {
        for (pool, of_pool) in &mut lock(&self.0).pools {
            let OfPool { members, gone, .. } = of_pool;
            for (backend, entry) in members {
                let Some(checks) = entry.checks.take_if(|_| !keep(pool, backend)) else { continue };
                if entry.place == Some(Shown::AmongOthers) {
                    gone.1.add_counts(&checks.read());
                }
            }
        }
    }

    /// What the backends of each pool have done. Handles are copied under the lock, and counters read without it.
    pub(super) fn reading(&self) -> BTreeMap<String, PoolReading> {
        let mut handles = Vec::new();
        for (name, pool) in &lock(&self.0).pools {
            let members = pool.members.iter();
            let members =
                members.filter_map(|(backend, entry)| Some((backend.clone(), entry.traffic.clone()?)));
            handles.push((name.clone(), pool.gone.0.clone(), members.collect::<Vec<_>>()));
        }
        let pools = handles.into_iter().map(|(name, gone, members)| {
            let mut pool = PoolReading { traffic: gone.reading(), ..PoolReading::default() };
            for (backend, metrics) in members {
                let reading = metrics.reading();
                pool.traffic.add(&reading);
                pool.backends.insert(backend, reading);
            }
            (name, pool)
        });
        pools.collect()
    }

    pub(super) fn scrape(&self, scrape: &mut Scrape) {
        let mut state = lock(&self.0);
        state.forget();
        let State { most, pools } = &mut *state;
        let members = pools.values().flat_map(|pool| pool.members.values());
        let mut alone = members.filter(|entry| entry.place == Some(Shown::Alone)).count();
        for (name, pool) in pools {
            let OfPool { listener, serves_http, members, gone } = pool;
            let (mut others, mut other_checks) = gone.clone();
            for (backend, entry) in members {
                let (traffic, checks) = (entry.traffic.as_deref(), entry.checks.as_deref());
                let traffic = traffic.map(BackendMetrics::read);
                let checks = checks.map(PoolBackend::read);
                let is_used = traffic.as_ref().is_some_and(Traffic::is_used)
                    || checks.as_ref().is_some_and(Checks::is_used);
                if entry.place.is_none() && is_used {
                    let place = if alone < *most { Shown::Alone } else { Shown::AmongOthers };
                    alone = alone.saturating_add(usize::from(place == Shown::Alone));
                    entry.place = Some(place);
                }
                if entry.place == Some(Shown::Alone) {
                    if let Some(traffic) = traffic.filter(Traffic::is_used) {
                        traffic.scrape(scrape, [listener, name, backend], *serves_http);
                    }
                    if let Some(checks) = checks {
                        other_checks.go_along_with(&checks);
                        checks.scrape(scrape, [name, backend]);
                    }
                } else {
                    if let Some(traffic) = traffic {
                        others.add(&traffic);
                    }
                    if let Some(checks) = checks {
                        other_checks.add(&checks);
                    }
                }
            }
            others.scrape(scrape, [listener, name, OTHER], *serves_http);
            other_checks.scrape(scrape, [name, OTHER]);
        }
        scrape.gauge(&families::BACKENDS_EXPORTED, &[], alone as f64);
    }
}

impl State {
    fn pool(&mut self, id: &PoolId) -> &mut OfPool {
        let pool = self.pools.entry(id.name().to_owned()).or_default();
        let listener = id.listener().unwrap_or_default();
        if pool.listener != listener {
            listener.clone_into(&mut pool.listener);
        }
        pool
    }

    /// Forgets backends that no configuration names, each as soon as no handle to it is held any more. New handles are made under the lock
    /// only, so a count of one means that no other handle exists.
    fn forget(&mut self) {
        self.pools.retain(|_, pool| {
            let OfPool { members, gone, .. } = pool;
            members.retain(|_, entry| {
                let is_over =
                    |metrics: &Arc<BackendMetrics>| entry.removed && Arc::strong_count(metrics) == 1;
                if let Some(metrics) = entry.traffic.take_if(|metrics| is_over(metrics))
                    && entry.place == Some(Shown::AmongOthers)
                {
                    gone.0.add_counts(&metrics.read());
                }
                entry.traffic.is_some() || entry.checks.is_some()
            });
            !members.is_empty()
        });
    }
}

impl OfPool {
    fn entry(&mut self, backend: &str) -> &mut Entry {
        if !self.members.contains_key(backend) {
            self.members.insert(backend.to_owned(), Entry::default());
        }
        self.members.entry(backend.to_owned()).or_default()
    }
}

/// Until a configuration is in force.
const DEFAULT_MOST: usize = 500;

#[cfg(test)]
mod tests;

//! Requests by the routes that took them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::families;
use super::label::Label;
use super::labels::HttpVersion;
use super::listeners::scrape_requests;
use super::scrape::Scrape;
use super::shards::RouteShard;
use super::values::PerWorker;

/// Names of routes that have series of their own on a listener.
const MOST_ROUTES: usize = 1000;

/// The routes with names of one listener.
#[derive(Debug)]
pub struct NamedRoutes {
    workers: usize,
    routes: Mutex<BTreeMap<String, Arc<RouteMetrics>>>,
}

impl NamedRoutes {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, routes: Mutex::default() }
    }

    /// The families of the route with this name, which exist as long as a handle to them is held. `None` where too many names are in use:
    /// such requests count as if their route had none.
    pub fn named(&self, name: &str) -> Option<Arc<RouteMetrics>> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(name) {
            return Some(Arc::clone(route));
        }
        if routes.len() >= MOST_ROUTES {
            routes.retain(|_, route| Arc::strong_count(route) > 1);
        }
        if routes.len() >= MOST_ROUTES {
            return None;
        }
        let route = Arc::new(RouteMetrics { shards: PerWorker::new(self.workers) });
        routes.insert(name.to_owned(), Arc::clone(&route));
        Some(route)
    }

    /// A handle to the families of each route that is in use, by its name.
    pub(super) fn handles(&self) -> Vec<(String, Arc<RouteMetrics>)> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let used = routes.iter().filter(|(_, route)| Arc::strong_count(route) > 1);
        used.map(|(name, route)| (name.clone(), Arc::clone(route))).collect()
    }

    /// The series of each route, by the versions of HTTP that its requests came by.
    pub(super) fn scrape(&self, scrape: &mut Scrape, listener: &str) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        // Handles are made under this lock only, so a count of one means that no other handle exists.
        routes.retain(|_, route| Arc::strong_count(route) > 1);
        for (name, route) in &*routes {
            for version in HttpVersion::ALL {
                let shards = route.shards.iter().map(|shard| shard.version(*version)).collect::<Vec<_>>();
                if shards.iter().any(|shard| shard.is_used()) {
                    let labels = [listener, name, version.name()];
                    let families = [&families::HTTP_REQUESTS, &families::HTTP_REQUEST_DURATION];
                    scrape_requests(scrape, &shards, families, &labels);
                }
            }
        }
    }
}

/// The families of a route with a name on one listener.
#[derive(Debug)]
pub struct RouteMetrics {
    shards: PerWorker<RouteShard>,
}

impl RouteMetrics {
    /// What the worker with this index counts.
    pub fn worker(&self, worker: usize) -> &RouteShard {
        self.shards.of(worker)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &RouteShard> {
        self.shards.iter()
    }
}

//! Backends and routes that one configuration has and another has not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lb_core::filter::Chain;

use super::describe::keys;
use crate::config::{Backend, BackendPool, Config, ListenerId, PoolId, Route, RouteTarget, Routing};

/// What becomes of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElementChange {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It stays, with other settings.
    Changed,
}

impl ElementChange {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// A backend of a pool in use that comes, goes or changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendChange {
    /// The pool.
    pub pool: PoolId,
    /// The address as written.
    pub backend: String,
    /// What becomes of it.
    pub change: ElementChange,
    /// For one that changes: the keys, as in `weight: 1 -> 5`.
    pub keys: Vec<String>,
}

/// A route of a listener that comes, goes or changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteChange {
    /// The listener.
    pub listener: ListenerId,
    /// Its name, or what can be said of one that has none.
    pub route: String,
    /// What becomes of it.
    pub change: ElementChange,
}

/// The backends of pools in use that differ, by pool and address. A pool that comes into use brings all of its own, one that goes out of use takes
/// them along.
pub fn backend_changes(before: &Config, after: &Config) -> Vec<BackendChange> {
    let (before, after) = (pools(before), pools(after));
    let mut changes = Vec::new();
    for id in before.keys().chain(after.keys().filter(|id| !before.contains_key(*id))) {
        let (old, new) = (backends(&before, id), backends(&after, id));
        if old == new {
            continue;
        }
        let (old, new) = (by_name(old), by_name(new));
        for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
            let (change, keys) = match (old.get(name), new.get(name)) {
                (Some(old), Some(new)) if old == new => continue,
                (Some(old), Some(new)) => (ElementChange::Changed, differing(old, new)),
                (Some(_), None) => (ElementChange::Removed, Vec::new()),
                _ => (ElementChange::Added, Vec::new()),
            };
            let (pool, backend) = ((*id).clone(), (*name).to_owned());
            changes.push(BackendChange { pool, backend, change, keys });
        }
    }
    changes.sort_by(|a, b| (a.pool.name(), &a.backend).cmp(&(b.pool.name(), &b.backend)));
    changes
}

/// The routes of started listeners that differ in themselves or in their filters, in the order of the listeners. A route without a name is told by
/// what it says: one that says something else is another one.
pub fn route_changes(before: &Config, after: &Config) -> Vec<RouteChange> {
    let mut changes = Vec::new();
    let ids = before.listeners.iter().chain(&after.listeners).filter(|listener| listener.starts());
    let mut seen = std::collections::HashSet::new();
    for id in ids.map(|listener| listener.id()).filter(|id| seen.insert(id.clone())) {
        let of = |config: &Config| {
            let listener = config.listener(&id).filter(|listener| listener.starts());
            listener.and_then(|listener| listener.routing.clone())
        };
        let (before, after) = (of(before), of(after));
        if before == after {
            continue;
        }
        let (before, after) = (routes(before.as_deref()), routes(after.as_deref()));
        let mut note = |route: &str, change| {
            changes.push(RouteChange { listener: id.clone(), route: route.to_owned(), change });
        };
        for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))) {
            let mut old = before.get(key).cloned().unwrap_or_default();
            let mut new = after.get(key).cloned().unwrap_or_default();
            if old == new {
                continue;
            }
            if key.is_named && !old.is_empty() && !new.is_empty() {
                note(&key.shown, ElementChange::Changed);
                continue;
            }
            if !key.is_named {
                // Those of both sides that say the same are the same ones.
                old.retain(|route| match new.iter().position(|other| other == route) {
                    Some(at) => {
                        new.swap_remove(at);
                        false
                    }
                    None => true,
                });
            }
            // One that is named stands there once for each scope in which it is looked up.
            let times =
                |routes: &[InForce<'_>]| if key.is_named { routes.len().min(1) } else { routes.len() };
            (0..times(&old)).for_each(|_| note(&key.shown, ElementChange::Removed));
            (0..times(&new)).for_each(|_| note(&key.shown, ElementChange::Added));
        }
    }
    changes
}

fn backends<'a>(pools: &HashMap<&PoolId, &'a Arc<BackendPool>>, id: &PoolId) -> &'a [Backend] {
    pools.get(id).map_or(&[], |pool| &pool.backends)
}

fn pools(config: &Config) -> HashMap<&PoolId, &Arc<BackendPool>> {
    config.pools_in_use().into_iter().map(|pool| (&pool.id, pool)).collect()
}

/// A file may name one address several times, for several shares.
fn by_name(backends: &[Backend]) -> BTreeMap<&str, Vec<&Backend>> {
    let mut by_name: BTreeMap<&str, Vec<&Backend>> = BTreeMap::new();
    for backend in backends {
        by_name.entry(&backend.name).or_default().push(backend);
    }
    by_name
}

fn differing(old: &[&Backend], new: &[&Backend]) -> Vec<String> {
    match (old, new) {
        ([old], [new]) => {
            let pairs = keys(old).into_iter().zip(keys(new)).filter(|(old, new)| old != new);
            pairs.map(|((key, old), (_, new))| format!("{key}: {old} -> {new}")).collect()
        }
        _ => vec![format!("named {} times -> {} times", old.len(), new.len())],
    }
}

/// What tells a route from others.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RouteKey {
    is_named: bool,
    /// What it is called.
    shown: String,
}

/// A route with the filters that are in force on it.
type InForce<'a> = (&'a Route, &'a Option<Arc<Chain>>);

type Routes<'a> = BTreeMap<RouteKey, Vec<InForce<'a>>>;

fn routes(routing: Option<&Routing>) -> Routes<'_> {
    let mut routes = Routes::new();
    let Some(routing) = routing else { return routes };
    for (route, chain) in routing.routes.iter().zip(&routing.chains) {
        let key = match route.spec.name.as_str() {
            "" => RouteKey { is_named: false, shown: nameless(route) },
            name => RouteKey { is_named: true, shown: name.to_owned() },
        };
        routes.entry(key).or_default().push((route, chain));
    }
    routes
}

fn nameless(route: &Route) -> String {
    let hosts: Vec<String> = route.spec.hosts.iter().map(ToString::to_string).collect();
    let hosts = if hosts.is_empty() { "any host".to_owned() } else { hosts.join(", ") };
    let target = match &route.target {
        RouteTarget::Pool(pool) => format!("pool {}", pool.name()),
        RouteTarget::Split(_) => "a split".to_owned(),
        RouteTarget::Redirect(redirect) => format!("a redirect with status {}", redirect.status),
        RouteTarget::Respond(fixed) => format!("an answer with status {}", fixed.status),
    };
    format!("(without a name, {hosts}, to {target})")
}

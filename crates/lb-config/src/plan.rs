//! The difference between the running configuration and a new one: what applies at once, and what needs a restart.

mod describe;
mod field;

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{BackendPool, Config, Listener, PoolId, Transport};
use field::{CONFIG_FIELDS, Field, LISTENER_FIELDS, POOL_FIELDS};

/// What a reload would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Changes that apply while running.
    pub live: Vec<Change>,
    /// Changes that need a restart; every reload reports them until then.
    pub restart: Vec<Change>,
}

/// One changed setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where and what, for people: `listener 0.0.0.0:80 backends: added 10.0.0.3:80`.
    pub scope: String,
    /// A metric label out of a fixed set.
    pub field: &'static str,
}

impl Plan {
    /// Compares two configurations. Listeners are the same when address (as written) and transport are; a listener that
    /// has nothing behind it is not started, and counts as absent.
    pub fn between(running: &Config, new: &Config) -> Self {
        let mut plan = Self::default();
        for field in CONFIG_FIELDS {
            plan.compare(field, "", running, new);
        }
        plan.compare_pools(running, new);
        let (before, after) = (started(running), started(new));
        for old in running.listeners.iter().filter(|listener| listener.starts()) {
            match after.get(&identity(old)) {
                Some(new) => plan.compare_listeners(old, new),
                None => plan.restart.push(listener_change(old, "listener.removed", "removed")),
            }
        }
        for new in new.listeners.iter().filter(|listener| listener.starts()) {
            if !before.contains_key(&identity(new)) {
                plan.restart.push(listener_change(new, "listener.added", "added"));
            }
        }
        plan
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }

    /// The configuration to run after the reload: what is live comes from `new`, all else stays as it runs, so that
    /// the next reload reports the same restart-required drift again.
    pub fn apply(running: &Config, new: Config) -> Config {
        let listeners = {
            let after = started(&new);
            running
                .listeners
                .iter()
                .map(|old| merged(old, after.get(&identity(old)).copied(), &new.pools))
                .collect()
        };
        let mut next = new;
        for keep in CONFIG_FIELDS.iter().filter_map(|field| field.keep) {
            keep(&mut next, running);
        }
        next.listeners = listeners;
        next
    }

    fn compare_pools(&mut self, running: &Config, new: &Config) {
        let (before, after) = (named(running), named(new));
        for old in &running.pools {
            match after.get(&old.id) {
                Some(new) => {
                    for field in POOL_FIELDS {
                        self.compare(field, &format!("pool {} ", old.id), old.as_ref(), new);
                    }
                }
                None => self.live.push(pool_change(old, "pool.removed", "removed")),
            }
        }
        for new in new.pools.iter().filter(|new| !before.contains_key(&new.id)) {
            self.live.push(pool_change(new, "pool.added", "added"));
        }
    }

    fn compare_listeners(&mut self, running: &Listener, new: &Listener) {
        if running.protocol != new.protocol {
            let what = format!("protocol: {} -> {}", running.protocol, new.protocol);
            self.restart.push(listener_change(running, "listener.protocol", &what));
            return;
        }
        let scope = format!("listener {} ", running.name);
        for field in LISTENER_FIELDS {
            self.compare(field, &scope, running, new);
        }
    }

    fn compare<T>(&mut self, field: &Field<T>, scope: &str, running: &T, new: &T) {
        if let Some(difference) = (field.difference)(running, new) {
            let change = Change { scope: format!("{scope}{}: {difference}", field.what), field: field.label };
            match field.keep {
                Some(_) => self.restart.push(change),
                None => self.live.push(change),
            }
        }
    }
}

/// What tells one listener from another.
fn identity(listener: &Listener) -> (&str, Transport) {
    (&listener.name, listener.transport())
}

fn started(config: &Config) -> HashMap<(&str, Transport), &Listener> {
    let started = config.listeners.iter().filter(|listener| listener.starts());
    started.map(|listener| (identity(listener), listener)).collect()
}

fn named(config: &Config) -> HashMap<&PoolId, &BackendPool> {
    config.pools.iter().map(|pool| (&pool.id, pool.as_ref())).collect()
}

fn pool_change(pool: &BackendPool, field: &'static str, what: &str) -> Change {
    Change { scope: format!("pool {} {what}", pool.id), field }
}

fn listener_change(listener: &Listener, field: &'static str, what: &str) -> Change {
    Change { scope: format!("listener {} {what}", listener.name), field }
}

/// The running listener with what is live in the new one.
fn merged(running: &Listener, new: Option<&Listener>, pools: &[Arc<BackendPool>]) -> Listener {
    match new {
        Some(new) if running.starts() && new.protocol == running.protocol => {
            let mut next = new.clone();
            for keep in LISTENER_FIELDS.iter().filter_map(|field| field.keep) {
                keep(&mut next, running);
            }
            next
        }
        _ => Listener { pool: kept_pool(running, pools), ..running.clone() },
    }
}

/// The pool of a listener that goes on as it is: what changes in a pool with a name holds there too. A pool that is no
/// longer there, or that the listener cannot use any more, lives on as its own, so that no two have one id.
fn kept_pool(running: &Listener, pools: &[Arc<BackendPool>]) -> Arc<BackendPool> {
    if let PoolId::Listener(..) = running.pool.id {
        return Arc::clone(&running.pool);
    }
    let new = pools.iter().find(|pool| pool.id == running.pool.id);
    match new.filter(|pool| pool.misfit(running.protocol).is_none()) {
        Some(pool) => Arc::clone(pool),
        None => {
            let id = PoolId::Listener(running.name.clone(), running.transport());
            Arc::new(BackendPool { id, ..BackendPool::clone(&running.pool) })
        }
    }
}

//! The difference between the running configuration and a new one: what applies at once, and what needs a restart.

mod describe;
mod field;

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{BackendPool, Config, Listener, PoolId, Transport};
use crate::written::{Settings, Written};
use describe::Difference;
use field::{CONFIG_FIELDS, Field, LISTENER_FIELDS, POOL_FIELDS};

/// What a reload would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Changes that apply while running.
    pub live: Vec<Change>,
    /// Changes that need a restart; every reload reports them until then.
    pub restart: Vec<Change>,
}

/// One changed key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where and what, for people and as the file spells it: `listener 0.0.0.0:80 http.head_timeout_ms: 60000 -> 5000`.
    pub scope: String,
    /// A metric label out of a fixed set.
    pub field: &'static str,
}

impl Plan {
    /// Compares two configurations. Listeners are the same when address (as written) and transport are; a listener that
    /// has nothing behind it is not started, and counts as absent.
    pub fn between(running: &Config, new: &Config) -> Self {
        let mut plan = Self::default();
        let written = (&running.written.process, &new.written.process);
        for field in CONFIG_FIELDS {
            plan.compare(field, "", running, new, written);
        }
        plan.compare_pools(running, new);
        let (before, after) = (started(running), started(new));
        for old in running.listeners.iter().filter(|listener| listener.starts()) {
            match after.get(&identity(old)) {
                Some(listener) => {
                    let written = (running.written.of_listener(old), new.written.of_listener(listener));
                    plan.compare_listeners(old, listener, written);
                }
                None => plan.restart.push(listener_change(old, LISTENER_REMOVED, "removed")),
            }
        }
        for new in new.listeners.iter().filter(|listener| listener.starts()) {
            if !before.contains_key(&identity(new)) {
                plan.restart.push(listener_change(new, LISTENER_ADDED, "added"));
            }
        }
        plan
    }

    /// The label of every change that can need a restart.
    pub fn restart_fields() -> Vec<&'static str> {
        let of_listeners =
            LISTENER_FIELDS.iter().filter(|field| field.keep.is_some()).map(|field| field.label);
        let of_process = CONFIG_FIELDS.iter().filter(|field| field.keep.is_some()).map(|field| field.label);
        [LISTENER_ADDED, LISTENER_REMOVED, LISTENER_PROTOCOL]
            .into_iter()
            .chain(of_listeners)
            .chain(of_process)
            .collect()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }

    /// The configuration to run after the reload: what is live comes from `new`, all else stays as it runs, so that
    /// the next reload reports the same restart-required drift again.
    pub fn apply(running: &Config, new: Config) -> Config {
        let after = started(&new);
        let (listeners, written) = running
            .listeners
            .iter()
            .map(|old| {
                let new_listener = after.get(&identity(old)).copied();
                let new_listener = new_listener.filter(|new| old.starts() && new.protocol == old.protocol);
                let written = merged_words(&running.written, old, &new.written, new_listener);
                (merged(old, new_listener, &new.pools), (Written::key(old), written))
            })
            .unzip();
        let mut next = new;
        for field in CONFIG_FIELDS {
            let Some(keep) = field.keep else { continue };
            keep(&mut next, running);
            field.keys().for_each(|key| next.written.process.keep(&running.written.process, key));
        }
        next.listeners = listeners;
        next.written.listeners = written;
        next
    }

    fn compare_pools(&mut self, running: &Config, new: &Config) {
        let (before, after) = (named(running), named(new));
        for old in &running.pools {
            match after.get(&old.id) {
                Some(pool) => {
                    let name = old.id.name();
                    let written = (running.written.of_pool(name), new.written.of_pool(name));
                    for field in POOL_FIELDS {
                        self.compare(field, &format!("pool {name} "), old.as_ref(), pool, written);
                    }
                }
                None => self.live.push(pool_change(old, "pool.removed", "removed")),
            }
        }
        for new in new.pools.iter().filter(|new| !before.contains_key(&new.id)) {
            self.live.push(pool_change(new, "pool.added", "added"));
        }
    }

    fn compare_listeners(&mut self, running: &Listener, new: &Listener, written: (&Settings, &Settings)) {
        if running.protocol != new.protocol {
            let what = format!("protocol: {} -> {}", running.protocol, new.protocol);
            self.restart.push(listener_change(running, LISTENER_PROTOCOL, &what));
            return;
        }
        let scope = format!("listener {} ", running.name);
        for field in LISTENER_FIELDS {
            self.compare(field, &scope, running, new, written);
        }
    }

    /// Notes what differs in a setting. `written` is what the two files say where it stands.
    fn compare<T>(
        &mut self,
        field: &Field<T>,
        scope: &str,
        running: &T,
        new: &T,
        written: (&Settings, &Settings),
    ) {
        let Some(difference) = (field.difference)(running, new) else { return };
        let changes = match field.keep {
            Some(_) => &mut self.restart,
            None => &mut self.live,
        };
        for line in lines(field, difference, written) {
            changes.push(Change { scope: format!("{scope}{line}"), field: field.label });
        }
    }
}

/// A difference in words, one line for each key.
fn lines<T>(field: &Field<T>, difference: Difference, written: (&Settings, &Settings)) -> Vec<String> {
    let came = match difference {
        Difference::Said(lines) => return lines,
        Difference::To(text) => return vec![format!("{}: {text}", field.what)],
        Difference::Came => Some("added"),
        Difference::Went => Some("removed"),
        Difference::InKeys => None,
    };
    let (running, new) = written;
    if let Some(came) = came.filter(|_| new.is_block(field.what)) {
        return vec![format!("{}: {came}", field.what)];
    }
    let mut lines: Vec<_> = field.keys().flat_map(|key| running.changes(new, key)).collect();
    if lines.is_empty() {
        // It follows from other keys, which have lines of their own.
        lines.push(format!("{}: changed", field.what));
    }
    lines
}

const LISTENER_ADDED: &str = "listener.added";
const LISTENER_REMOVED: &str = "listener.removed";
const LISTENER_PROTOCOL: &str = "listener.protocol";

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

/// The running listener with what is live in the new one, or as it is where that is gone or has become another.
fn merged(running: &Listener, new: Option<&Listener>, pools: &[Arc<BackendPool>]) -> Listener {
    let Some(new) = new else {
        return Listener { pool: kept_pool(running, pools), ..running.clone() };
    };
    let mut next = new.clone();
    for keep in LISTENER_FIELDS.iter().filter_map(|field| field.keep) {
        keep(&mut next, running);
    }
    next
}

/// What the two files say of that listener, merged in the same way.
fn merged_words(before: &Written, running: &Listener, after: &Written, new: Option<&Listener>) -> Settings {
    let old = before.of_listener(running);
    let Some(new) = new else { return old.clone() };
    let mut next = after.of_listener(new).clone();
    for field in LISTENER_FIELDS.iter().filter(|field| field.keep.is_some()) {
        field.keys().for_each(|key| next.keep(old, key));
    }
    next
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

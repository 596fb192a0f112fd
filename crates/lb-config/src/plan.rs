//! The difference between the running configuration and a new one: what applies at once, and what needs a restart.

mod describe;
mod elements;
mod field;

use crate::config::{BackendPool, Config, Listener, ListenerId, PoolId};
use crate::written::WrittenKeys;
use describe::Difference;
pub use elements::{BackendChange, ElementChange, RouteChange, backend_changes, route_changes};
use field::{CONFIG_FIELDS, Field, LISTENER_FIELDS, POOL_FIELDS};
use std::collections::HashMap;

/// What a reload would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Changes that apply while running.
    pub live: Vec<KeyChange>,
    /// Changes that need a restart; every reload reports them until then.
    pub restart: Vec<KeyChange>,
}

/// Whether a listener is started.
type Started<'a> = &'a dyn Fn(&Listener) -> bool;

/// One changed key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyChange {
    /// Where and what, for people and as the file spells it: `listener 0.0.0.0:80 http.head_timeout_ms: 60000 -> 5000`.
    pub scope: String,
    /// A metric label out of a fixed set.
    pub field: &'static str,
    /// What the key belongs to.
    pub owner: KeyOwner,
    /// Whether the connections of the listener that it belongs to end within their drain timeout.
    pub ends_connections: bool,
}

/// What a key belongs to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KeyOwner {
    /// The process.
    Process,
    /// The tables of routes that listeners share.
    RouteTables,
    /// A listener.
    Listener(ListenerId),
    /// A pool with a name.
    Pool(PoolId),
}

impl Plan {
    /// Compares two configurations. Listeners are the same when address (as written) and transport are; a listener that
    /// has nothing behind it is not started, and counts as absent.
    pub fn between(running: &Config, new: &Config) -> Self {
        Self::between_started(running, new, (&Listener::starts, &Listener::starts))
    }

    /// As [`Self::between`], where backends may lie over those of the files: `starts` tells of the listeners of each configuration whether they are
    /// started.
    pub fn between_started(running: &Config, new: &Config, starts: (Started<'_>, Started<'_>)) -> Self {
        let mut plan = Self::default();
        let written = (&running.written.process, &new.written.process);
        for field in CONFIG_FIELDS {
            let owner = match field.label {
                ROUTE_TABLES => KeyOwner::RouteTables,
                _ => KeyOwner::Process,
            };
            plan.compare(field, &Place { scope: "", owner, is_another: false }, running, new, written);
        }
        plan.compare_pools(running, new);
        let (before, after) = (started(running, starts.0), started(new, starts.1));
        for old in running.listeners.iter().filter(|listener| starts.0(listener)) {
            match after.get(&old.id()) {
                Some(listener) => {
                    let written = (running.written.of_listener(old), new.written.of_listener(listener));
                    plan.compare_listeners(old, listener, written);
                }
                None => plan.live.push(listener_change(old, LISTENER_REMOVED, "removed")),
            }
        }
        for new in new.listeners.iter().filter(|listener| starts.1(listener)) {
            if !before.contains_key(&new.id()) {
                plan.live.push(listener_change(new, LISTENER_ADDED, "added"));
            }
        }
        plan
    }

    /// The label of every change that can need a restart.
    pub fn restart_fields() -> Vec<&'static str> {
        let of_listeners =
            LISTENER_FIELDS.iter().filter(|field| field.keep.is_some()).map(|field| field.label);
        let of_process = CONFIG_FIELDS.iter().filter(|field| field.keep.is_some()).map(|field| field.label);
        of_listeners.chain(of_process).collect()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }

    /// The configuration to run after the reload: what is live comes from `new`, all else stays as it runs, so that
    /// the next reload reports the same restart-required drift again.
    pub fn apply(running: &Config, new: Config) -> Config {
        let before = started(running, &Listener::starts);
        let mut next = new;
        for field in CONFIG_FIELDS {
            let Some(keep) = field.keep else { continue };
            keep(&mut next, running);
            field.keys().for_each(|key| next.written.process.keep(&running.written.process, key));
        }
        for listener in &mut next.listeners {
            let Some(old) = before.get(&listener.id()) else { continue };
            if !listener.starts() || old.protocol != listener.protocol {
                continue;
            }
            let written = next
                .written
                .listeners
                .entry(listener.id())
                .or_insert_with(|| running.written.of_listener(old).clone());
            for field in LISTENER_FIELDS {
                let Some(keep) = field.keep else { continue };
                keep(listener, old);
                field.keys().for_each(|key| written.keep(running.written.of_listener(old), key));
            }
        }
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
                        let (scope, owner) = (format!("pool {name} "), KeyOwner::Pool(old.id.clone()));
                        let place = Place { scope: &scope, owner, is_another: false };
                        self.compare(field, &place, old.as_ref(), pool, written);
                    }
                }
                None => self.live.push(pool_change(old, "pool.removed", "removed")),
            }
        }
        for new in new.pools.iter().filter(|new| !before.contains_key(&new.id)) {
            self.live.push(pool_change(new, "pool.added", "added"));
        }
    }

    fn compare_listeners(
        &mut self,
        running: &Listener,
        new: &Listener,
        written: (&WrittenKeys, &WrittenKeys),
    ) {
        let is_another = running.protocol != new.protocol;
        if is_another {
            let what = format!("protocol: {} -> {}", running.protocol, new.protocol);
            self.live.push(listener_change(running, LISTENER_PROTOCOL, &what));
        }
        let scope = format!("listener {} ", running.name);
        // A relay of QUIC differs from a listener that reads QUIC in the block `quic` alone.
        let is_another_relay = !is_another && running.kind() != new.kind();
        // A listener of another protocol begins with all that the new file says of it.
        for field in LISTENER_FIELDS.iter().filter(|field| !is_another || field.keep.is_none()) {
            let is_another = is_another_relay && field.label == LISTENER_QUIC;
            let place = Place { scope: &scope, owner: KeyOwner::Listener(running.id()), is_another };
            self.compare(field, &place, running, new, written);
        }
    }

    /// Notes what differs in a setting. `written` is what the two files say where it stands.
    fn compare<T>(
        &mut self,
        field: &Field<T>,
        place: &Place<'_>,
        running: &T,
        new: &T,
        written: (&WrittenKeys, &WrittenKeys),
    ) {
        let Some(difference) = (field.difference)(running, new) else { return };
        let changes = match field.keep {
            Some(_) => &mut self.restart,
            None => &mut self.live,
        };
        for line in lines(field, difference, written) {
            changes.push(KeyChange {
                scope: format!("{}{line}", place.scope),
                field: field.label,
                owner: place.owner.clone(),
                ends_connections: place.is_another,
            });
        }
    }
}

/// Where a setting stands.
struct Place<'a> {
    /// What stands before the key.
    scope: &'a str,
    owner: KeyOwner,
    /// Whether a change makes another listener of it.
    is_another: bool,
}

/// A difference in words, one line for each key.
fn lines<T>(field: &Field<T>, difference: Difference, written: (&WrittenKeys, &WrittenKeys)) -> Vec<String> {
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
const LISTENER_QUIC: &str = "quic";
const ROUTE_TABLES: &str = "routes";

fn started<'a>(config: &'a Config, starts: Started<'_>) -> HashMap<ListenerId, &'a Listener> {
    let started = config.listeners.iter().filter(|listener| starts(listener));
    started.map(|listener| (listener.id(), listener)).collect()
}

fn named(config: &Config) -> HashMap<&PoolId, &BackendPool> {
    config.pools.iter().map(|pool| (&pool.id, pool.as_ref())).collect()
}

fn pool_change(pool: &BackendPool, field: &'static str, what: &str) -> KeyChange {
    let owner = KeyOwner::Pool(pool.id.clone());
    KeyChange { scope: format!("pool {} {what}", pool.id), field, owner, ends_connections: false }
}

/// One that comes has no connections yet; one that goes, or turns into another, has those of before end.
fn listener_change(listener: &Listener, field: &'static str, what: &str) -> KeyChange {
    KeyChange {
        scope: format!("listener {} {what}", listener.name),
        field,
        owner: KeyOwner::Listener(listener.id()),
        ends_connections: field != LISTENER_ADDED,
    }
}

//! What differs between two values, in words.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::config::{Backend, Listener, PoolId};

/// What differs, found in what `Debug` says about the values: `header_timeout: 1s -> 2s` for each field of a struct,
/// `1s -> 2s` for any other value.
pub(super) fn difference<T: PartialEq + Debug>(running: &T, new: &T) -> Option<String> {
    if running == new {
        return None;
    }
    let (running, new) = (format!("{running:#?}"), format!("{new:#?}"));
    let (running, new) = (unwrapped(&running), unwrapped(&new));
    let changes: Vec<_> = match (fields(&running), fields(&new)) {
        (Some(running), Some(new)) => {
            let pairs = running.iter().zip(&new).filter(|(running, new)| running != new);
            pairs.map(|((name, running), (_, new))| format!("{name}: {running} -> {new}")).collect()
        }
        (Some(_), None) => vec!["no longer set".to_owned()],
        (None, Some(_)) => vec!["set".to_owned()],
        (None, None) => vec![format!("{} -> {}", on_one_line(&running), on_one_line(&new))],
    };
    Some(changes.join(", "))
}

/// The value inside `Some(…)`; any other as it is.
fn unwrapped(debug: &str) -> String {
    match debug.strip_prefix("Some(\n").and_then(|rest| rest.strip_suffix(",\n)")) {
        Some(inner) => {
            inner.lines().map(|line| line.strip_prefix(INDENT).unwrap_or(line)).collect::<Vec<_>>().join("\n")
        }
        None => debug.to_owned(),
    }
}

/// The fields of a struct with their values, in their order.
fn fields(debug: &str) -> Option<Vec<(String, String)>> {
    let (_, body) = debug.strip_suffix("\n}")?.split_once(" {\n")?;
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in body.lines() {
        let line = line.strip_prefix(INDENT)?;
        match (line.split_once(": "), fields.last_mut()) {
            (Some((name, value)), _) if !line.starts_with(' ') => {
                fields.push((name.to_owned(), value.to_owned()));
            }
            (_, Some((_, value))) => {
                value.push('\n');
                value.push_str(line);
            }
            _ => return None,
        }
    }
    for (_, value) in &mut fields {
        *value = on_one_line(&unwrapped(value.trim_end_matches(',')));
    }
    Some(fields)
}

fn on_one_line(debug: &str) -> String {
    match debug {
        "None" => "unset".to_owned(),
        _ => debug.lines().map(str::trim).collect::<Vec<_>>().join(" "),
    }
}

/// What `{:#?}` puts before what is inside something.
const INDENT: &str = "    ";

/// Only that something differs, for what a log must not show.
pub(super) fn hidden<T: PartialEq>(running: &T, new: &T) -> Option<String> {
    (running != new).then(|| "changed".to_owned())
}

/// Which backends came, went and changed.
pub(super) fn backends(running: &Vec<Backend>, new: &Vec<Backend>) -> Option<String> {
    if running == new {
        return None;
    }
    let by_name = |backends: &'_ [Backend]| -> BTreeMap<String, Backend> {
        backends.iter().map(|backend| (backend.name.clone(), backend.clone())).collect()
    };
    let (before, after) = (by_name(running), by_name(new));
    let removed =
        before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("removed {name}"));
    let added = after.keys().filter(|name| !before.contains_key(*name)).map(|name| format!("added {name}"));
    let changed = after
        .iter()
        .filter_map(|(name, new)| difference(before.get(name)?, new).map(|what| format!("{name} ({what})")));
    let changes: Vec<_> = removed.chain(added).chain(changed).collect();
    // The same backends in another order, or one of them once more, pick differently too.
    Some(if changes.is_empty() { "in another order or number".to_owned() } else { changes.join(", ") })
}

/// The same for the pool that a listener has for itself; what happens in a pool with a name is told of the pool.
pub(super) fn own_backends(running: &Listener, new: &Listener) -> Option<String> {
    match (&running.pool.id, &new.pool.id) {
        (PoolId::Listener(..), PoolId::Listener(..)) => backends(&running.pool.backends, &new.pool.backends),
        _ => None,
    }
}

/// Whether a listener sends its traffic to another pool.
pub(super) fn pool_name(running: &Listener, new: &Listener) -> Option<String> {
    let name = |listener: &Listener| match &listener.pool.id {
        PoolId::Named(name) => name.clone(),
        PoolId::Listener(..) => "its own backends".to_owned(),
    };
    (running.pool.id != new.pool.id).then(|| format!("{} -> {}", name(running), name(new)))
}

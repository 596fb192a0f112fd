//! What differs between two values, in words.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::config::Backend;

/// The fields that differ, found in what `Debug` says about the values: `header_timeout: 1s -> 2s`.
pub(super) fn difference<T: PartialEq + Debug>(running: &T, new: &T) -> Option<String> {
    if running == new {
        return None;
    }
    let (running, new) = (format!("{running:#?}"), format!("{new:#?}"));
    if running == "None" {
        return Some("set".to_owned());
    }
    if new == "None" {
        return Some("no longer set".to_owned());
    }
    if running.lines().count() != new.lines().count() {
        return Some("changed".to_owned());
    }
    let text = |line: &str| line.trim().trim_end_matches(',').to_owned();
    let pairs = running.lines().map(text).zip(new.lines().map(text)).filter(|(running, new)| running != new);
    let changes: Vec<_> = pairs
        .map(|(running, new)| match new.split_once(": ") {
            Some((field, value)) if running.starts_with(field) => format!("{running} -> {value}"),
            _ => format!("{running} -> {new}"),
        })
        .collect();
    Some(changes.join(", "))
}

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

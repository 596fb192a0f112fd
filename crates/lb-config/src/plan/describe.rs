//! What differs between two values, in the words of the file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use crate::config::{Backend, BackendPool, BackendTls, Listener, PoolId};

/// How a difference is described.
pub(super) enum Difference {
    /// By what the two files say under the keys.
    InKeys,
    /// The block is there now.
    Came,
    /// The block is there no more.
    Went,
    /// The key, and this behind it.
    To(String),
    /// In these lines.
    Said(Vec<String>),
}

/// Whether something differs.
pub(super) fn difference<T: PartialEq>(running: &T, new: &T) -> Option<Difference> {
    (running != new).then_some(Difference::InKeys)
}

/// Whether something differs in a block that may be absent.
pub(super) fn block<T: PartialEq>(running: &Option<T>, new: &Option<T>) -> Option<Difference> {
    match (running, new) {
        (None, Some(_)) => Some(Difference::Came),
        (Some(_), None) => Some(Difference::Went),
        _ => difference(running, new),
    }
}

/// Describes a number that may follow from other keys.
pub(super) fn number<T: PartialEq + Display>(running: &T, new: &T) -> Option<Difference> {
    (running != new).then(|| Difference::To(format!("{running} -> {new}")))
}

/// Describes a time in milliseconds.
pub(super) fn millis(running: &Duration, new: &Duration) -> Option<Difference> {
    number(&running.as_millis(), &new.as_millis())
}

/// How many backends one reload names in a line, and how many it has lines for.
const MOST_NAMED: usize = 20;

/// Which backends came, went and changed.
pub(super) fn backends(running: &Vec<Backend>, new: &Vec<Backend>) -> Option<Difference> {
    if running == new {
        return None;
    }
    let by_name = |backends: &'_ [Backend]| -> BTreeMap<String, Backend> {
        backends.iter().map(|backend| (backend.name.clone(), backend.clone())).collect()
    };
    let (before, after) = (by_name(running), by_name(new));
    let without = |all: &BTreeMap<String, Backend>, others: &BTreeMap<String, Backend>| -> Vec<String> {
        all.keys().filter(|name| !others.contains_key(*name)).cloned().collect()
    };
    let (removed, added) = (without(&before, &after), without(&after, &before));
    let moved: Vec<_> = [("removed", removed), ("added", added)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} {}", some_of(&names)))
        .collect();
    let mut lines = Vec::new();
    if !moved.is_empty() {
        lines.push(format!("backends: {}", moved.join(", ")));
    }
    let changed: Vec<_> = after
        .iter()
        .filter_map(|(name, new)| Some((name, before.get(name)?, new)))
        .filter(|(_, old, new)| old != new)
        .collect();
    for (name, old, new) in changed.iter().take(MOST_NAMED) {
        let pairs = keys(old).into_iter().zip(keys(new)).filter(|(old, new)| old != new);
        lines.extend(pairs.map(|((key, old), (_, new))| format!("backend {name} {key}: {old} -> {new}")));
    }
    if changed.len() > MOST_NAMED {
        lines.push(format!("backends: {} more changed", changed.len() - MOST_NAMED));
    }
    if lines.is_empty() {
        // Backends in another order, or one of them once more, change picks too.
        lines.push("backends: in another order or number".to_owned());
    }
    Some(Difference::Said(lines))
}

fn some_of(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(MOST_NAMED).map(String::as_str).collect();
    match names.len().saturating_sub(MOST_NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Every key of a backend but its address, with its value.
pub(super) fn keys(backend: &Backend) -> Vec<(&'static str, String)> {
    let Backend { address: _, name: _, protocol, weight, priority, tls, proxy_protocol } = backend;
    let path = |path: Option<&std::path::PathBuf>| {
        path.map_or("unset".to_owned(), |path| format!("\"{}\"", path.display()))
    };
    let of = |show: fn(&BackendTls) -> String| tls.as_ref().map_or("unset".to_owned(), show);
    let client = tls.as_ref().and_then(|tls| tls.client_certificate.as_ref());
    vec![
        ("protocol", format!("\"{protocol}\"")),
        ("weight", weight.to_string()),
        ("priority", priority.to_string()),
        ("tls", tls.is_some().to_string()),
        ("tls_ca_path", path(tls.as_ref().and_then(|tls| tls.ca_path.as_ref()))),
        ("tls_verify_hostname", of(|tls| format!("\"{}\"", tls.verify_hostname))),
        ("tls_verify_peer", of(|tls| tls.verify_peer.to_string())),
        ("tls_client_cert_path", path(client.map(|client| &client.cert_path))),
        ("tls_client_key_path", path(client.map(|client| &client.key_path))),
        ("proxy_protocol", proxy_protocol.map_or("unset", |sends| sends.version.name()).to_owned()),
        ("proxy_tlvs", proxy_protocol.map_or(String::new(), |sends| sends.tlv_names().join(", "))),
    ]
}

/// The pools that a listener has for itself, before and after; changes of a pool with a name are reported under that pool.
pub(super) fn own_pools<'a>(
    running: &'a Listener,
    new: &'a Listener,
) -> Option<(&'a BackendPool, &'a BackendPool)> {
    match (&running.pool.id, &new.pool.id) {
        (PoolId::Listener(..), PoolId::Listener(..)) => Some((&running.pool, &new.pool)),
        _ => None,
    }
}

/// Which backends of those pools came, went and changed.
pub(super) fn own_backends(running: &Listener, new: &Listener) -> Option<Difference> {
    own_pools(running, new).and_then(|(running, new)| backends(&running.backends, &new.backends))
}

/// Whether a listener sends its traffic to another pool.
pub(super) fn pool_name(running: &Listener, new: &Listener) -> Option<Difference> {
    let name = |listener: &Listener| match &listener.pool.id {
        PoolId::Named(name) => name.to_string(),
        PoolId::Listener(..) => "its own backends".to_owned(),
    };
    (running.pool.id != new.pool.id).then(|| Difference::To(format!("{} -> {}", name(running), name(new))))
}

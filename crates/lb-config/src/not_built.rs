//! Settings that are valid but that this build cannot honour yet.
//!
//! They are refused rather than ignored. The change that builds a feature deletes its entry.

use std::collections::HashMap;

use crate::config::Protocol;
use crate::document::{Source, Value, View};
use crate::error::ConfigError;
use crate::read::pool;

/// A setting that is refused.
struct Missing {
    block: &'static str,
    key: &'static str,
    when: When,
    what: &'static str,
}

/// Which uses of a key are refused.
enum When {
    /// Any, even with the default's value: to write it is to rely on it.
    Set,
    /// Only `true`.
    True,
    /// Only this word, and only where the gateway reads HTTP: elsewhere it has no meaning.
    HttpIs(&'static str),
}

const NOT_BUILT: &[Missing] = &[
    missing("listeners.quic", "raw_proxy", When::Set, "QUIC that is not HTTP/3"),
    missing("listeners.backends", "protocol", When::HttpIs("h3"), "HTTP/3 to backends"),
    missing("pools.NAME.backends", "protocol", When::HttpIs("h3"), "HTTP/3 to backends"),
    missing("listeners.websocket", "h3_extended_connect", When::True, "WebSocket over HTTP/3"),
    missing("runtime", "xdp_enabled", When::True, "XDP"),
    missing("", "passthrough", When::Set, "QUIC passthrough"),
    // The other xdp_* keys are not here: they apply to what is refused above, so that
    // nothing is left for which they could be ignored.
];

const fn missing(block: &'static str, key: &'static str, when: When, what: &'static str) -> Missing {
    Missing { block, key, when, what }
}

/// Everything in a configuration that is refused, in the order of the file.
pub(crate) fn find(root: View<'_>, source: &Source<'_>) -> Vec<ConfigError> {
    find_in(root, None, &pool::users(root), source)
}

/// The entries for a list of backends, which may come to stand behind any listener.
pub(crate) fn find_in_list(list: View<'_>, source: &Source<'_>) -> Vec<ConfigError> {
    find_in(list, Some(Protocol::H1), &HashMap::new(), source)
}

fn find_in(
    root: View<'_>,
    protocol: Option<Protocol>,
    users: &HashMap<&str, Vec<Protocol>>,
    source: &Source<'_>,
) -> Vec<ConfigError> {
    let mut found: Vec<ConfigError> = Vec::new();
    visit(root, protocol, users, &mut |view, protocol| {
        let block = if view.block.path == "backends" { "pools.NAME.backends" } else { view.block.path };
        let has = |missing: &&Missing| missing.block == block && view.block.key(missing.key).is_some();
        for missing in NOT_BUILT.iter().filter(has) {
            if missing.when.applies(view, missing.key, protocol) {
                let problem = format!("not built yet: {}", missing.what);
                found.push(source.error_about(view, missing.key, problem));
            }
        }
    });
    found.sort_by_key(ConfigError::line);
    // One reason to refuse a key is enough.
    found.dedup_by(|next, first| next.path() == first.path());
    found
}

/// One line for each entry, for CONFIG.md.
pub(crate) fn lines() -> impl Iterator<Item = String> {
    NOT_BUILT.iter().map(|Missing { block, key, when, what }| {
        let path = if block.is_empty() { (*key).to_owned() } else { format!("{block}.{key}") };
        match when {
            When::Set => format!("`{path}`: {what}"),
            When::True => format!("`{path} = true`: {what}"),
            When::HttpIs(word) => format!("`{path} = \"{word}\"` on HTTP listeners: {what}"),
        }
    })
}

impl When {
    fn applies(&self, view: View<'_>, key: &str, protocol: Option<Protocol>) -> bool {
        if view.entry(key).is_none() {
            return false;
        }
        match self {
            Self::Set => true,
            Self::True => view.flag(key),
            Self::HttpIs(word) => view.word(key) == Some(word) && protocol.is_some_and(Protocol::is_http),
        }
    }
}

/// Calls `act` on every block that is there, with the protocol of the listener that it belongs to. A pool belongs to every listener
/// that uses it: one that reads HTTP counts before others.
fn visit<'a>(
    view: View<'a>,
    protocol: Option<Protocol>,
    users: &HashMap<&str, Vec<Protocol>>,
    act: &mut impl FnMut(View<'a>, Option<Protocol>),
) {
    act(view, protocol);
    let Some(node) = view.node else { return };
    let protocol = match view.block.path {
        "listeners" => view.word("protocol").and_then(Protocol::from_word),
        _ => protocol,
    };
    for entry in node.entries.values() {
        match &entry.value {
            Value::Block(inner) => visit(View::root(inner), protocol, users, act),
            Value::Blocks(inner) => {
                inner.iter().for_each(|inner| visit(View::root(inner), protocol, users, act));
            }
            Value::Named(inner) => {
                for (name, inner) in inner {
                    let of_pool = users.get(name.as_str()).map_or(&[][..], Vec::as_slice);
                    let protocol = of_pool.iter().find(|protocol| protocol.is_http()).or(of_pool.first());
                    visit(View::root(inner), protocol.copied(), users, act);
                }
            }
            _ => {}
        }
    }
}

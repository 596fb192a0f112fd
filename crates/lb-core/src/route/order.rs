//! Precedence: the Gateway API's, continued on ties.
//!
//! (1) Host: more characters of an exact one, then of a wildcard, then none. (2) `priority`. (3) Path: exact, then regex, then the longer
//! prefix. (4) A method. (5) More conditions on fields, (6) on parameters of the query, (7) on cookies. (8) The longer source prefix. (9)
//! RouteConditions on the connection. (10) The route that stands first. When conditions fail, the next is tried, across hosts too.

use super::condition::{PathCondition, RouteConditions};
use super::host::HostPattern;

/// Where a route stands for one of its hosts and one of its sets of conditions. The greater goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank {
    host: (u8, usize),
    priority: u32,
    path: (u8, usize),
    method: bool,
    headers: usize,
    query: usize,
    cookies: usize,
    source: u8,
    connection: u8,
}

impl Rank {
    /// The rank of a route of this priority for a host and a set of conditions.
    pub fn of(host: Option<&HostPattern>, priority: u32, conditions: &RouteConditions) -> Self {
        Self {
            host: match host {
                Some(HostPattern::Exact(name)) => (2, name.len()),
                Some(HostPattern::Under(suffix)) => (1, suffix.len()),
                None => (0, 0),
            },
            priority,
            path: match &conditions.path {
                PathCondition::Exact(path) => (2, path.len()),
                PathCondition::Regex(_) => (1, 0),
                PathCondition::Prefix(prefix) => (0, prefix.len()),
                PathCondition::Any => (0, 0),
            },
            method: !conditions.methods.is_empty(),
            headers: conditions.headers.len(),
            query: conditions.query.len(),
            cookies: conditions.cookies.len(),
            // Of several, the one that says least.
            source: conditions.sources.iter().map(|network| network.length()).min().unwrap_or_default(),
            connection: u8::from(conditions.scheme.is_some())
                .saturating_add(conditions.connection.as_ref().map_or(0, |connection| connection.count())),
        }
    }
}

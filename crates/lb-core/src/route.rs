//! Which route takes a request.
//!
//! A listener has a table of routes ([`RouteTable`]): conditions on host, path, method, fields and more, in the precedence of the Gateway
//! API ([`order`]), so that the order of lines in a file never decides who is let in. A path has one canonical form ([`path`]), which is
//! matched and forwarded, and a request whose path a lenient backend could read as another route's is refused ([`readings`]): what is
//! matched is what is forwarded.
//!
//! The table is compiled ([`table`]). [`naive`] tries one route after the other, is what the compiled table is held against in tests, and
//! tells `expressgateway explain` why each route did or did not take a request.

pub mod condition;
pub mod connection;
mod hash;
pub mod host;
mod host_map;
mod levels;
pub mod location;
pub mod naive;
pub mod order;
pub mod path;
pub mod pattern;
mod pattern_set;
pub mod readings;
pub mod table;
#[cfg(test)]
mod tests;
mod texts;

pub use condition::{IpNetwork, PathCondition, RouteConditions, RouteRequest, Scheme, ValueCondition, Want};
pub use connection::{CertificatePattern, ConnectionConditions, ConnectionFacts, ShownCertificate};
pub use host::{Host, HostPattern};
pub use path::{PathFault, PathPolicy};
pub use pattern::{Pattern, PatternCaches, RouteCaptures};
pub use table::{Resolution, RouteDestination, RouteTable, RoutedPath};

/// A route without its target: when a request is its own.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RouteSpec {
    /// What messages, metrics and the log call it; may be empty.
    pub name: String,
    /// Hosts, one of which the request asks for; none for any.
    pub hosts: Vec<HostPattern>,
    /// What goes before the path where two routes fit; more is first.
    pub priority: u32,
    /// RouteConditions, all those of one of which hold. At least one; the empty one always holds.
    pub matches: Vec<RouteConditions>,
}

impl RouteSpec {
    /// How much of a path that the route has taken is the longest of its prefixes that the path begins with.
    pub fn matched_prefix(&self, path: &[u8]) -> usize {
        let prefixes = self.matches.iter().filter_map(|conditions| match &conditions.path {
            PathCondition::Prefix(prefix) => {
                let (start, rest) = path.split_at_checked(prefix.len())?;
                let is_it = matches!(rest, [] | [b'/', ..])
                    && (start == &**prefix || conditions.ignore_case && start.eq_ignore_ascii_case(prefix));
                is_it.then_some(prefix.len())
            }
            _ => None,
        });
        prefixes.max().unwrap_or_default()
    }

    /// What the first of its patterns that match finds in a path that the route has taken. The route is one of a table, to which `caches` belong.
    pub fn captures<'a>(&self, path: &'a [u8], caches: &mut PatternCaches) -> RouteCaptures<'a> {
        let patterns = self.matches.iter().filter_map(|found| match &found.path {
            PathCondition::Regex(pattern) => Some(pattern),
            _ => None,
        });
        let mut found = patterns.map(|pattern| RouteCaptures::of(pattern, path, caches));
        found.find(RouteCaptures::is_match).unwrap_or_default()
    }
}

/// Routes that are looked at together: those of a listener, or of one of its virtual hosts.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ScopeSpec {
    /// The hosts of the virtual host; none for the listener itself.
    pub hosts: Vec<HostPattern>,
    /// Its routes, by their positions among all routes of the listener, in the order in which ties are broken.
    pub routes: Vec<u32>,
    /// Whether there is somewhere to go when no route takes a request.
    pub has_fallback: bool,
}

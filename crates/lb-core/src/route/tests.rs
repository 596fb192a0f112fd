//! The table and the naive matcher: cases of the Gateway API's own suite, each on both, and random tables.

use super::*;
use crate::head::{RequestHead, Span};

mod cases;
mod random;
mod readers;

/// A request for routes, with what it borrows.
#[derive(Debug)]
pub(super) struct Asking {
    head: RequestHead,
    host: Host,
    path: String,
    query: String,
}

impl Asking {
    pub(super) fn new(method: &str, authority: &str, target: &str, fields: &[(&str, &str)]) -> Self {
        let mut head = RequestHead::default();
        let start = head.fields.append_text(method.as_bytes());
        head.method = Span::new(start, start + method.len());
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let host = Host::of(authority.as_bytes()).unwrap();
        Self { head, host, path: path.to_owned(), query: query.to_owned() }
    }

    pub(super) fn request(&self) -> RouteRequest<'_> {
        RouteRequest {
            host: &self.host,
            method: self.head.method(),
            path: self.path.as_bytes(),
            query: self.query.as_bytes(),
            head: &self.head,
            client: Some([192, 0, 2, 1].into()),
            scheme: Scheme::Http,
            connection: None,
        }
    }

    /// Where both matchers send it, as a path that stands for itself.
    pub(super) fn destination(&self, table: &RouteTable) -> RouteDestination {
        let mut caches = PatternCaches::default();
        let compiled = table.find(&self.request(), &mut caches);
        let naive = naive::find(table, &self.request(), &mut caches);
        assert_eq!(
            compiled,
            naive,
            "compiled and naive differ: {:?} {:?} {}?{}",
            self.head.method(),
            self.host,
            self.path,
            self.query
        );
        compiled
    }
}

/// A table of one scope without a fallback.
pub(super) fn table(specs: Vec<RouteSpec>) -> RouteTable {
    let routes = (0..specs.len() as u32).collect();
    RouteTable::new(specs, vec![ScopeSpec { routes, ..ScopeSpec::default() }], PathPolicy::default())
}

/// RouteConditions in the notation of the cases: `p:` prefix, `=` exact, `~` regex, `h:` field, `q:` parameter, `m:` method, `c:` cookie.
pub(super) fn conditions(text: &str) -> RouteConditions {
    let mut conditions = RouteConditions::default();
    let value = |text: &str| {
        let (name, want) = match (text.strip_prefix('!'), text.split_once('~'), text.split_once('=')) {
            (Some(name), ..) => (name, Want::Absent),
            (_, Some((name, pattern)), _) => (name, Want::Fits(Pattern::new(pattern, false).unwrap())),
            (_, _, Some((name, value))) => (name, Want::Is(value.as_bytes().into())),
            _ => (text, Want::Present),
        };
        ValueCondition { name: name.as_bytes().into(), want }
    };
    for part in text.split_whitespace() {
        if let Some(path) = part.strip_prefix("p:") {
            conditions.path = PathCondition::Prefix(path.trim_end_matches('/').as_bytes().into());
        } else if let Some(path) = part.strip_prefix('=') {
            conditions.path = PathCondition::Exact(path.as_bytes().into());
        } else if let Some(pattern) = part.strip_prefix('~') {
            conditions.path = PathCondition::Regex(Pattern::new(pattern, false).unwrap());
        } else if let Some(method) = part.strip_prefix("m:") {
            conditions.methods.push(method.as_bytes().into());
        } else if let Some(field) = part.strip_prefix("h:") {
            conditions.headers.push(value(field));
        } else if let Some(parameter) = part.strip_prefix("q:") {
            conditions.query.push(value(parameter));
        } else if let Some(cookie) = part.strip_prefix("c:") {
            conditions.cookies.push(value(cookie));
        } else {
            panic!("{part}");
        }
    }
    conditions
}

/// A route with these hosts, separated by commas, and these sets of conditions, separated by ` | `.
pub(super) fn route(hosts: &str, matches: &str) -> RouteSpec {
    RouteSpec {
        hosts: hosts
            .split(',')
            .filter(|host| !host.is_empty())
            .map(|host| HostPattern::parse(host).unwrap())
            .collect(),
        matches: matches.split(" | ").map(conditions).collect(),
        ..RouteSpec::default()
    }
}

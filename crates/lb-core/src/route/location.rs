//! Paths that a rewrite or a redirect makes, and where a redirect leads.

use super::condition::Scheme;
use super::pattern::RouteCaptures;
use crate::filter::{Template, TemplateSource, TemplateVariable};

/// What becomes of a path.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum NewPath {
    /// Nothing.
    #[default]
    Same,
    /// This instead, in which captured text of the route's `path_regex` may stand.
    Whole(Template),
    /// This instead of the prefix that the route was found by.
    Prefix(Box<[u8]>),
}

impl NewPath {
    /// The path that comes of a canonical one, of which the first `matched` bytes are the prefix of the route; `None` where nothing changes.
    pub fn of(&self, path: &[u8], matched: usize, captures: &RouteCaptures<'_>) -> Option<Vec<u8>> {
        match self {
            Self::Same => None,
            Self::Whole(new) => {
                let mut changed = Vec::new();
                new.render(captures, &mut changed);
                Some(changed)
            }
            Self::Prefix(new) => {
                let rest = path.get(matched..).unwrap_or_default();
                // One slash between the two, whoever brings it.
                let mut changed = new.strip_suffix(b"/").unwrap_or(new).to_vec();
                changed.extend_from_slice(rest);
                if changed.is_empty() {
                    changed.push(b'/');
                }
                Some(changed)
            }
        }
    }

    /// The segments that every path which comes of it begins with, without a slash at the end.
    pub fn floor(&self) -> &[u8] {
        let start = match self {
            Self::Same => &[],
            Self::Prefix(new) => return new.strip_suffix(b"/").unwrap_or(new),
            Self::Whole(new) => match new.as_constant() {
                Some(_) => return &[],
                None => new.start(),
            },
        };
        let end = start.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
        start.get(..end).unwrap_or_default()
    }

    /// Whether it takes a prefix off, with nothing in its place.
    pub fn takes_off(&self) -> bool {
        matches!(self, Self::Prefix(new) if matches!(&**new, b"" | b"/"))
    }

    /// Whether captured text stands in it.
    pub fn has_captures(&self) -> bool {
        matches!(self, Self::Whole(new) if new.as_constant().is_none())
    }
}

/// Captured text is all that a path can hold.
impl TemplateSource for RouteCaptures<'_> {
    fn value(&self, variable: &TemplateVariable, out: &mut Vec<u8>) {
        if let TemplateVariable::Capture(group) = variable {
            out.extend_from_slice(self.group(group));
        }
    }
}

/// Where a redirect leads; what is not said stays as it was asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Redirect {
    /// Another scheme.
    pub scheme: Option<Scheme>,
    /// Another host.
    pub host: Option<Box<str>>,
    /// Another port.
    pub port: Option<u16>,
    /// Another path.
    pub path: NewPath,
    /// The status, a redirection.
    pub status: u16,
    /// The query goes along.
    pub keep_query: bool,
}

/// What of a request a redirect begins with.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// How it came.
    pub scheme: Scheme,
    /// Host and port as the client has them.
    pub authority: &'a [u8],
    /// The canonical path.
    pub path: &'a [u8],
    /// What follows `?`; empty where there is none.
    pub query: &'a [u8],
}

impl Redirect {
    /// The absolute URL for `Location`; `None` when it is the one that was asked for, which would never end. `matched` is as in
    /// [`NewPath::of`].
    ///
    /// The port is the one that is said; of a new scheme its own; else that of the client, since nobody else knows which port is forwarded to
    /// this one. It is left out where it follows from the scheme.
    pub fn location(
        &self,
        asked: &Asked<'_>,
        matched: usize,
        captures: &RouteCaptures<'_>,
    ) -> Option<Vec<u8>> {
        let (host, port) = split(asked.authority);
        let scheme = self.scheme.unwrap_or(asked.scheme);
        let asked_port = port.unwrap_or(asked.scheme.port());
        let port = match (self.port, self.scheme) {
            (Some(port), _) => port,
            (None, Some(scheme)) if scheme != asked.scheme => scheme.port(),
            (None, _) => asked_port,
        };
        let same_place = scheme == asked.scheme && port == asked_port;
        let new_host = self.host.as_deref().map(str::as_bytes);
        let path = self.path.of(asked.path, matched, captures);
        let query = if self.keep_query { asked.query } else { &[] };
        let is_same = same_place
            && new_host.is_none_or(|new| new.eq_ignore_ascii_case(host))
            && path.as_deref().is_none_or(|path| path == asked.path)
            && query == asked.query;
        if is_same {
            return None;
        }
        let mut url = format!("{scheme}://").into_bytes();
        url.extend_from_slice(new_host.unwrap_or(host));
        if port != scheme.port() {
            url.extend_from_slice(format!(":{port}").as_bytes());
        }
        url.extend_from_slice(path.as_deref().unwrap_or(asked.path));
        if !query.is_empty() {
            url.push(b'?');
            url.extend_from_slice(query);
        }
        Some(url)
    }
}

/// Host and port of a valid authority.
fn split(authority: &[u8]) -> (&[u8], Option<u16>) {
    match authority.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if authority.get(at) == Some(&b':') => {
            let (host, port) = authority.split_at(at);
            let port = std::str::from_utf8(port.get(1..).unwrap_or_default());
            (host, port.ok().and_then(|port| port.parse().ok()))
        }
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_01_to_t_11_a_prefix_is_replaced() {
        for (row, path, prefix, new, forwarded) in [
            ("T01", "/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("T02", "/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("T03", "/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("T04", "/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("T05", "/foo", "/foo", "/xyz", "/xyz"),
            ("T06", "/foo/", "/foo", "/xyz", "/xyz/"),
            ("T07", "/foo/bar", "/foo", "", "/bar"),
            ("T08", "/foo/", "/foo", "", "/"),
            ("T09", "/foo", "/foo", "", "/"),
            ("T10", "/foo/", "/foo", "/", "/"),
            ("T11", "/foo", "/foo", "/", "/"),
        ] {
            let matched = prefix.trim_end_matches('/').len();
            let made = NewPath::Prefix(new.as_bytes().into())
                .of(path.as_bytes(), matched, &RouteCaptures::default())
                .unwrap();
            assert_eq!(String::from_utf8(made).unwrap(), forwarded, "{row}");
        }
    }

    #[test]
    fn t_12_to_t_23_a_redirect_is_absolute_and_has_a_port_where_it_needs_one() {
        use Scheme::{Http, Https};
        let to = |scheme, host: Option<&str>, port| Redirect {
            scheme,
            host: host.map(Into::into),
            port,
            path: NewPath::Same,
            status: 302,
            keep_query: true,
        };
        let other = Some("b.example");
        for (row, scheme, authority, redirect, location) in [
            ("T12", Http, "a.example", to(None, other, None), "http://b.example/x?y"),
            ("T13", Http, "a.example", to(None, other, Some(80)), "http://b.example/x?y"),
            ("T14", Http, "a.example", to(None, None, Some(8080)), "http://a.example:8080/x?y"),
            ("T15", Http, "a.example", to(Some(Https), None, None), "https://a.example/x?y"),
            ("T16", Http, "a.example", to(Some(Https), None, Some(443)), "https://a.example/x?y"),
            ("T17", Http, "a.example", to(Some(Https), None, Some(8443)), "https://a.example:8443/x?y"),
            ("T18", Http, "a.example:8080", to(None, other, None), "http://b.example:8080/x?y"),
            ("T19", Http, "a.example:8080", to(Some(Https), None, None), "https://a.example/x?y"),
            ("T20", Https, "a.example", to(None, other, None), "https://b.example/x?y"),
            ("T21", Https, "a.example", to(Some(Http), None, Some(8080)), "http://a.example:8080/x?y"),
            ("IPv6", Http, "[::1]:8080", to(Some(Https), None, None), "https://[::1]/x?y"),
        ] {
            let asked = Asked { scheme, authority: authority.as_bytes(), path: b"/x", query: b"y" };
            assert_eq!(
                String::from_utf8(redirect.location(&asked, 0, &RouteCaptures::default()).unwrap()).unwrap(),
                location,
                "{row}"
            );
        }
    }

    #[test]
    fn r_20_a_redirect_to_itself_is_none() {
        let redirect = Redirect {
            scheme: Some(Scheme::Https),
            host: Some("A.example".into()),
            port: None,
            path: NewPath::Prefix(b"/".as_slice().into()),
            status: 308,
            keep_query: false,
        };
        let asked = |scheme, query| Asked { scheme, authority: b"a.example:443", path: b"/x", query };
        assert_eq!(redirect.location(&asked(Scheme::Https, b""), 0, &RouteCaptures::default()), None);
        assert!(redirect.location(&asked(Scheme::Https, b"q"), 0, &RouteCaptures::default()).is_some());
        assert!(redirect.location(&asked(Scheme::Http, b""), 0, &RouteCaptures::default()).is_some());
    }
}

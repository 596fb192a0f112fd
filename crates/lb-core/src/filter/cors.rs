//! Cross-origin resource sharing (CORS, the Fetch standard §3.2): what scripts of other sites may ask for and read.
//!
//! A browser asks before it sends what a form could not (a *preflight*), and keeps a response from a script whose origin the response does not
//! name. So all of it is advice to browsers: it keeps no other client from anything, and a request whose origin is not listed is served as any other.

use std::fmt::Write;

use crate::head::{Fields, RequestHead, reads_as};

/// Which origins, methods and fields a site shares with the scripts of other sites.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorsPolicy {
    /// Origins whose scripts may ask.
    pub origins: Vec<OriginPattern>,
    /// Methods that they may ask with, besides those that need no leave; `None` for any.
    pub methods: Option<Vec<Box<str>>>,
    /// Fields that they may send; `None` for any.
    pub headers: Option<Vec<Box<str>>>,
    /// Fields of responses that they may read, as the field of a response lists them; empty for none but those that need no leave.
    pub exposed: Box<str>,
    /// Whether browsers send cookies along, and let scripts read what comes of it.
    pub credentials: bool,
    /// Whether an origin that [`OriginPattern::Any`] lets in is named back to itself, where otherwise all are named by `*`.
    pub reflects: bool,
    /// How long a browser remembers the answer to a preflight, in seconds.
    pub max_age_seconds: u32,
}

/// An origin (RFC 6454), or many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OriginPattern {
    /// Every origin, `null` as well.
    Any,
    /// This origin, as browsers write it. `null` is that of files and sandboxes: of no site, and so of every one.
    Exact(Box<str>),
    /// Hosts below a domain, with this scheme and port.
    Under {
        /// `https://` or another scheme.
        scheme: Box<str>,
        /// The domain with its dot and the port if it is not that of the scheme.
        rest: Box<str>,
    },
}

impl OriginPattern {
    /// Reads `*`, `null`, `https://app.example.com`, `https://app.example.com:8443` or `https://*.example.com`: any number of labels, but not none.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => return Some(Self::Any),
            "null" => return Some(Self::Exact("null".into())),
            _ => {}
        }
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|first: char| first.is_ascii_lowercase()) || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, after)) => {
                inside.parse::<std::net::Ipv6Addr>().ok()?;
                (rest.get(..inside.len().saturating_add(2))?, after)
            }
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0 && !text.ends_with(":0"))?),
            None if port.is_empty() => None,
            None => return None,
        };
        let is_default = matches!((scheme, port), ("http", Some(80)) | ("https", Some(443)));
        // Browsers leave the port of the scheme out.
        let port = port.filter(|_| !is_default).map(|port| format!(":{port}")).unwrap_or_default();
        let is_host = |host: &str| {
            let label = |label: &str| {
                !label.is_empty()
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            };
            host.starts_with('[') || host.split('.').all(label)
        };
        match host.strip_prefix("*.") {
            Some(domain) if is_host(domain) && !domain.starts_with('[') => Some(Self::Under {
                scheme: format!("{scheme}://").into(),
                rest: format!(".{domain}{port}").into(),
            }),
            None if is_host(host) => Some(Self::Exact(format!("{scheme}://{host}{port}").into())),
            _ => None,
        }
    }

    /// Whether an origin, as a browser has written it, is one of these (attack R-13).
    pub fn fits(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact.as_bytes() == origin,
            Self::Under { scheme, rest } => {
                let inside = origin
                    .strip_prefix(scheme.as_bytes())
                    .and_then(|host| host.strip_suffix(rest.as_bytes()));
                let is_label = |label: &[u8]| {
                    !label.is_empty()
                        && label
                            .iter()
                            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                };
                inside.is_some_and(|labels| labels.split(|byte| *byte == b'.').all(is_label))
            }
        }
    }
}

/// The method that a preflight announces; `None` where a request is none: it is OPTIONS with `Origin` and `Access-Control-Request-Method`.
pub fn announced_method(head: &RequestHead) -> Option<&[u8]> {
    if head.method() != b"OPTIONS" {
        return None;
    }
    head.fields.value_of(b"origin")?;
    head.fields.value_of(b"access-control-request-method").filter(|method| !method.is_empty())
}

/// What the fields of a response to one request say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorsAnswer {
    /// The origin that may read it, and whether credentials may be sent; `None` where the origin is not listed.
    origin: Option<Box<[u8]>>,
    /// Names and values besides.
    fields: Vec<(&'static str, Box<[u8]>)>,
    /// What caches are to tell responses by; empty where they are alike for all.
    vary: &'static str,
}

impl CorsPolicy {
    /// Whether the scripts of an origin may ask.
    pub fn lets_in(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|pattern| pattern.fits(origin))
    }

    /// Whether responses are alike for every origin.
    fn is_for_all(&self) -> bool {
        !self.credentials && !self.reflects && self.origins.contains(&OriginPattern::Any)
    }

    /// The fields of the response to a request, or of the answer to a preflight.
    pub fn answer(&self, head: &RequestHead, is_preflight: bool) -> CorsAnswer {
        let sent = head.fields.value_of(b"origin");
        let allowed = sent.filter(|origin| self.lets_in(origin));
        let vary = match (self.is_for_all(), is_preflight) {
            (true, _) => "",
            (false, true) => "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            (false, false) => "Origin",
        };
        let Some(allowed) = allowed else { return CorsAnswer { origin: None, fields: Vec::new(), vary } };
        let mut fields: Vec<(&'static str, Box<[u8]>)> = Vec::new();
        if self.credentials {
            fields.push(("Access-Control-Allow-Credentials", (*b"true").into()));
        }
        if is_preflight {
            // With credentials `*` is a name like any other, and stands for nothing.
            let of = |list: &Option<Vec<Box<str>>>, asked: &[u8]| -> Box<[u8]> {
                let asked = head.fields.value_of(asked).unwrap_or_default();
                match list {
                    Some(list) => list.join(", ").into_bytes().into(),
                    None if self.credentials => asked.into(),
                    None => (*b"*").into(),
                }
            };
            fields
                .push(("Access-Control-Allow-Methods", of(&self.methods, b"access-control-request-method")));
            let headers = of(&self.headers, b"access-control-request-headers");
            if !headers.is_empty() {
                fields.push(("Access-Control-Allow-Headers", headers));
            }
            let mut age = String::new();
            // Writing to a string cannot fail.
            let _ = write!(age, "{}", self.max_age_seconds);
            fields.push(("Access-Control-Max-Age", age.into_bytes().into()));
        } else if !self.exposed.is_empty() {
            fields.push(("Access-Control-Expose-Headers", self.exposed.as_bytes().into()));
        }
        let origin = if self.is_for_all() { b"*" } else { allowed };
        CorsAnswer { origin: Some(origin.into()), fields, vary }
    }
}

impl CorsAnswer {
    /// Whether the origin of the request is listed.
    pub fn lets_in(&self) -> bool {
        self.origin.is_some()
    }

    /// Writes the fields in place of those of the backend, whose view of origins does not count.
    pub fn apply(&self, fields: &mut Fields) {
        fields.remove_where(|field| {
            field.get(..21).is_some_and(|start| start.eq_ignore_ascii_case(b"access-control-allow-"))
                || [&b"access-control-expose-headers"[..], b"access-control-max-age"]
                    .iter()
                    .any(|name| reads_as(field, name))
        });
        if let Some(origin) = &self.origin {
            fields.push(b"Access-Control-Allow-Origin", origin);
            for (name, value) in &self.fields {
                fields.push(name.as_bytes(), value);
            }
        }
        if !self.vary.is_empty() {
            fields.push(b"Vary", self.vary.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Span;

    fn request(method: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        let start = head.fields.append_text(method.as_bytes());
        head.method = Span::new(start, start + method.len());
        fields.iter().for_each(|(name, value)| head.fields.push(name.as_bytes(), value.as_bytes()));
        head
    }

    fn policy(origins: &[&str]) -> CorsPolicy {
        CorsPolicy {
            origins: origins.iter().map(|text| OriginPattern::parse(text).unwrap()).collect(),
            methods: Some(vec!["GET".into(), "PUT".into()]),
            headers: Some(vec!["authorization".into()]),
            exposed: "".into(),
            credentials: false,
            reflects: false,
            max_age_seconds: 5,
        }
    }

    fn told(policy: &CorsPolicy, head: &RequestHead, is_preflight: bool) -> String {
        let mut fields = Fields::default();
        fields.push(b"Access-Control-Allow-Origin", b"https://backend.example");
        fields.push(b"access-control-expose-headers", b"x-backend");
        policy.answer(head, is_preflight).apply(&mut fields);
        let lines = fields.iter().map(|field| {
            format!("{}: {}\n", String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value))
        });
        lines.collect()
    }

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        for (text, fits, not) in [
            (
                "https://app.example.com",
                vec!["https://app.example.com"],
                vec!["http://app.example.com", "https://app.example.com:8443", "null"],
            ),
            (
                "HTTPS://App.example.com:443",
                vec!["https://app.example.com"],
                vec!["https://app.example.com:443"],
            ),
            ("http://a:8080", vec!["http://a:8080"], vec!["http://a", "http://a:80"]),
            ("https://[::1]:3000", vec!["https://[::1]:3000"], vec!["https://[::1]"]),
            ("null", vec!["null"], vec!["https://null", ""]),
            ("*", vec!["null", "https://a", ""], vec![]),
            ("app://x", vec!["app://x"], vec![]),
        ] {
            let pattern = OriginPattern::parse(text).unwrap();
            assert!(fits.iter().all(|origin| pattern.fits(origin.as_bytes())), "{text}");
            assert!(!not.iter().any(|origin| pattern.fits(origin.as_bytes())), "{text}");
        }
        for bad in [
            "",
            "example.com",
            "https://",
            "https://a/",
            "https://a:0",
            "https://a:b",
            "https://*",
            "https://a.*.b",
            "https://*.*.a",
            "://a",
            "https://[::1",
            "https://*.[::1]",
            "https://a b",
        ] {
            assert_eq!(OriginPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn r_13_what_only_looks_like_a_listed_origin_is_none() {
        let pattern = OriginPattern::parse("https://*.example.com").unwrap();
        for origin in ["https://app.example.com", "https://a.b.example.com"] {
            assert!(pattern.fits(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "https://app.example.com.evil",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://evil/.example.com",
            "https://evil#.example.com",
            "https://evil:1.example.com",
            "null",
            "https://a..example.com",
            "HTTPS://app.example.com",
        ] {
            assert!(!pattern.fits(origin.as_bytes()), "{origin}");
        }
    }

    #[test]
    fn preflights_are_options_with_origin_and_method() {
        let origin = ("Origin", "https://a.b");
        let method = ("access-control-request-method", "PUT");
        assert_eq!(announced_method(&request("OPTIONS", &[origin, method])), Some(&b"PUT"[..]));
        for (verb, fields) in
            [("OPTIONS", vec![origin]), ("OPTIONS", vec![method]), ("GET", vec![origin, method])]
        {
            assert_eq!(announced_method(&request(verb, &fields)), None, "{verb}");
        }
    }

    #[test]
    fn x_15_fields_by_origin_and_policy() {
        let from = |origin| request("GET", &[("Origin", origin)]);
        let exact = policy(&["https://a.b"]);
        assert_eq!(
            told(&exact, &from("https://a.b"), false),
            "Access-Control-Allow-Origin: https://a.b\nVary: Origin\n"
        );
        assert_eq!(told(&exact, &from("https://c.d"), false), "Vary: Origin\n");
        assert_eq!(told(&exact, &request("GET", &[]), false), "Vary: Origin\n");
        let asks = request(
            "OPTIONS",
            &[
                ("Origin", "https://a.b"),
                ("Access-Control-Request-Method", "DELETE"),
                ("Access-Control-Request-Headers", "x-one,x-two"),
            ],
        );
        let vary = "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\n";
        assert_eq!(
            told(&exact, &asks, true),
            format!(
                "Access-Control-Allow-Origin: https://a.b\nAccess-Control-Allow-Methods: GET, PUT\nAccess-Control-Allow-Headers: authorization\nAccess-Control-Max-Age: 5\n{vary}"
            )
        );
        let open = CorsPolicy { methods: None, headers: None, exposed: "X-Total".into(), ..policy(&["*"]) };
        assert_eq!(
            told(&open, &from("null"), false),
            "Access-Control-Allow-Origin: *\nAccess-Control-Expose-Headers: X-Total\n"
        );
        assert_eq!(
            told(&open, &asks, true),
            "Access-Control-Allow-Origin: *\nAccess-Control-Allow-Methods: *\nAccess-Control-Allow-Headers: *\nAccess-Control-Max-Age: 5\n"
        );
        let reflecting = CorsPolicy { credentials: true, ..open };
        assert_eq!(
            told(&reflecting, &asks, true),
            format!(
                "Access-Control-Allow-Origin: https://a.b\nAccess-Control-Allow-Credentials: true\nAccess-Control-Allow-Methods: DELETE\nAccess-Control-Allow-Headers: x-one,x-two\nAccess-Control-Max-Age: 5\n{vary}"
            )
        );
    }
}

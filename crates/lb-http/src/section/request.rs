//! Request heads from field sections: what is understood, and what is refused before a backend hears of it (RFC 9113 §8.3, RFC 9114
//! §4.3).

use lb_config::UnderscorePolicy;
use lb_core::failure::Reject;
use lb_core::head::{BodyLength, FieldName, RequestHead, Span, Version};
use lb_core::reason::Reason;

use super::field::{self, FIELD_OVERHEAD, Fault};
use crate::h1::authority;
use crate::h1::request::HeadLimits;

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The stream is reset, with PROTOCOL_ERROR in HTTP/2 and H3_MESSAGE_ERROR in HTTP/3.
    Malformed(Fault),
    /// The request is answered.
    Answer(Reject),
}

/// Limits of a request head in a field section.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits<'a> {
    /// Limits that hold in any version.
    pub head: &'a HeadLimits,
    /// Bytes of the decoded list, counted as SETTINGS_MAX_HEADER_LIST_SIZE and SETTINGS_MAX_FIELD_SECTION_SIZE count them.
    pub list: usize,
    /// Whether the extended CONNECT was offered (RFC 8441, RFC 9220).
    pub extended_connect: bool,
}

/// Takes the fields of one request head.
#[derive(Debug)]
pub(crate) struct RequestReader<'a> {
    head: &'a mut RequestHead,
    limits: RequestLimits<'a>,
    bytes: usize,
    fields: usize,
    regular: bool,
    method: Option<Span>,
    path: Option<Span>,
    authority: Option<Span>,
    protocol: Option<Span>,
    /// The port that the scheme stands for.
    default_port: Option<u16>,
    host: Option<Span>,
    length: Option<u64>,
    cookies: usize,
    refusal: Option<Refusal>,
}

impl<'a> RequestReader<'a> {
    /// A reader into `head`. Whatever an earlier block has left there, of a request that was refused say, is thrown away: nothing of one
    /// request may stand in another.
    #[inline]
    pub(crate) fn new(head: &'a mut RequestHead, limits: RequestLimits<'a>, version: Version) -> Self {
        head.clear();
        head.version = version;
        Self {
            head,
            limits,
            bytes: 0,
            fields: 0,
            regular: false,
            method: None,
            path: None,
            authority: None,
            protocol: None,
            default_port: None,
            host: None,
            length: None,
            cookies: 0,
            refusal: None,
        }
    }

    /// Takes one field. Bytes and fields are counted before anything is kept of them: one byte on the wire can stand for four thousand
    /// (attack H2-04).
    #[inline]
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        if self.refusal.is_some() {
            return;
        }
        self.fields = self.fields.saturating_add(1);
        self.bytes =
            self.bytes.saturating_add(name.len()).saturating_add(value.len()).saturating_add(FIELD_OVERHEAD);
        let result = if self.fields > self.limits.head.fields || self.bytes > self.limits.list {
            Err(Refusal::Answer(if name == b":path" && value.len() > self.limits.head.target {
                Reject::new(414, Reason::UriTooLong)
            } else {
                Reject::new(431, Reason::HeaderTooLarge)
            }))
        } else if name.first() == Some(&b':') {
            self.pseudo(name, value).map_err(Refusal::Malformed)
        } else {
            self.regular(name, value)
        };
        self.refusal = result.err();
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        if self.regular {
            return Err("pseudo-header field after a regular one");
        }
        if !field::is_value(value) {
            return Err("pseudo-header field value");
        }
        if name == b":scheme" {
            let port = match value.len() {
                4 if value.eq_ignore_ascii_case(b"http") => 80,
                5 if value.eq_ignore_ascii_case(b"https") => 443,
                _ => return Err(":scheme"),
            };
            return if self.default_port.replace(port).is_some() { Err(":scheme") } else { Ok(()) };
        }
        let start = self.head.fields.append_text(value);
        let span = Span::new(start, start.saturating_add(value.len()));
        let slot = match name {
            b":method" => &mut self.method,
            b":path" => &mut self.path,
            b":authority" => &mut self.authority,
            b":protocol" => &mut self.protocol,
            _ => return Err("unknown pseudo-header field"),
        };
        if slot.replace(span).is_some() || span.is_empty() {
            Err("pseudo-header field twice or empty")
        } else {
            Ok(())
        }
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.regular = true;
        let known = field::check(name, value).map_err(Refusal::Malformed)?;
        match known {
            FieldName::Host => {
                let start = self.head.fields.append_text(value);
                let span = Span::new(start, start.saturating_add(value.len()));
                // The field itself is written anew for backends that want it.
                return match self.host.replace(span) {
                    None => Ok(()),
                    Some(_) => Err(Refusal::Malformed("host twice")),
                };
            }
            FieldName::ContentLength => {
                let length = field::content_length(value).map_err(Refusal::Malformed)?;
                if self.length.replace(length).is_some() {
                    return Err(Refusal::Malformed("content-length twice"));
                }
            }
            FieldName::Te => self.head.takes_trailers = true,
            FieldName::Cookie => self.cookies = self.cookies.saturating_add(1),
            FieldName::Other if name.contains(&b'_') => match self.limits.head.underscore {
                UnderscorePolicy::Reject => {
                    return Err(Refusal::Answer(Reject::new(400, Reason::Underscore)));
                }
                UnderscorePolicy::Drop => return Ok(()),
                UnderscorePolicy::Allow => {}
            },
            _ => {}
        }
        self.head.fields.push_known(known, name, value);
        Ok(())
    }

    /// The block is complete; `end_stream` says that no body follows. Returns the announced length of the body.
    pub(crate) fn finish(self, end_stream: bool) -> Result<Option<u64>, Refusal> {
        // What is answered without being served is still recorded, and by its method.
        self.head.method = self.method.unwrap_or_default();
        self.head.target = self.path.unwrap_or_default();
        self.head.authority = self.authority.unwrap_or_default();
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let malformed = |what| Err(Refusal::Malformed(what));
        let Self { head, limits, method, path, authority, protocol, default_port, host, length, .. } = self;
        let Some(method) = method.filter(|method| field::is_token(head.fields.slice(*method))) else {
            return malformed(":method");
        };
        head.method = method;
        let connect = head.method() == b"CONNECT";
        if connect && protocol.is_none() {
            if default_port.is_some() || path.is_some() || authority.is_none() {
                return malformed("CONNECT");
            }
            return Err(Refusal::Answer(Reject::new(405, Reason::Method)));
        }
        if protocol.is_some() && !(connect && limits.extended_connect) {
            return malformed(":protocol");
        }
        let Some((path, default_port)) = path.zip(default_port) else {
            return malformed(":path or :scheme missing");
        };
        head.target = path;
        head.authority = match (authority, host) {
            (Some(authority), Some(host))
                if !authority::is_same(
                    head.fields.slice(authority),
                    head.fields.slice(host),
                    default_port,
                ) =>
            {
                return malformed("host and :authority differ");
            }
            (None, None) => return malformed("no authority"),
            (authority, host) => authority.or(host).unwrap_or_default(),
        };
        if !authority::is_valid(head.authority()) {
            return malformed("authority");
        }
        let target = head.target();
        if target.len() > limits.head.target {
            return Err(Refusal::Answer(Reject::new(414, Reason::UriTooLong)));
        }
        let origin_form = target.first() == Some(&b'/') || (target == b"*" && head.method() == b"OPTIONS");
        if !origin_form || !target.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#') {
            return malformed(":path");
        }
        head.body = match (end_stream, length) {
            (true, Some(1..)) => return malformed("a body was announced and none follows"),
            (true, Some(0)) => BodyLength::Known(0),
            (true, None) => BodyLength::None,
            // Whether nothing follows is known when the stream ends, and not before (attack H2-09): the field stays, and the body is awaited.
            (false, Some(0) | None) => BodyLength::Unknown,
            (false, Some(length)) => BodyLength::Known(length),
        };
        if let Some(protocol) = protocol {
            if !head.fields.slice(protocol).eq_ignore_ascii_case(b"websocket") {
                return Err(Refusal::Answer(Reject::new(501, Reason::Method)));
            }
            if end_stream || length.is_some() {
                return malformed("a tunnel has no length");
            }
            // In the words of HTTP/1.1, which the exchange speaks: a GET that asks for another protocol.
            let get = head.fields.append_text(b"GET");
            head.method = Span::new(get, get.saturating_add(3));
            head.upgrade = protocol;
            head.body = BodyLength::None;
        }
        if self.cookies > 1 {
            join_cookies(head);
        }
        Ok(length)
    }
}

/// Puts the crumbs of a cookie together (RFC 9113 §8.2.3, RFC 9114 §4.2.1).
fn join_cookies(head: &mut RequestHead) {
    let mut joined = Vec::new();
    for crumb in head.fields.values(FieldName::Cookie) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb);
    }
    head.fields.remove(FieldName::Cookie);
    head.fields.push_known(FieldName::Cookie, b"cookie", &joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 65_536,
        fields: 8,
        target: 64,
        underscore: UnderscorePolicy::Reject,
        strict_te: false,
        websocket: true,
    };

    fn read(fields: &[(&str, &str)], end_stream: bool) -> Result<RequestHead, Refusal> {
        let mut head = RequestHead::default();
        let limits = RequestLimits { head: &LIMITS, list: 1024, extended_connect: true };
        let mut reader = RequestReader::new(&mut head, limits, Version::H2);
        for (name, value) in fields {
            reader.field(name.as_bytes(), value.as_bytes());
        }
        reader.finish(end_stream).map(|_| head)
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":path", "/p?q"), (":authority", "a.example:8443")];

    fn with(extra: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        GET.iter().chain(extra).copied().collect()
    }

    #[test]
    fn a_request_is_read() {
        let head = read(&with(&[("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")]), true).unwrap();
        assert_eq!(
            (head.method(), head.target(), head.authority()),
            (&b"GET"[..], &b"/p?q"[..], &b"a.example:8443"[..])
        );
        assert_eq!((head.body, head.version), (BodyLength::None, Version::H2));
        assert_eq!(head.fields.value_of(b"cookie"), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.fields.iter().count(), 2);
        let head = read(&with(&[("content-length", "5"), ("te", "trailers")]), false).unwrap();
        assert_eq!((head.body, head.takes_trailers), (BodyLength::Known(5), true));
        assert_eq!(read(&GET, false).unwrap().body, BodyLength::Unknown);
        let head = read(&with(&[("content-length", "0")]), false).unwrap();
        assert_eq!(
            (head.body, head.fields.value_of(b"content-length")),
            (BodyLength::Unknown, Some(&b"0"[..]))
        );
        let host = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "b")];
        assert_eq!(read(&host, true).unwrap().authority(), b"b");
    }

    #[test]
    fn h2_08_h2_09_h2_10_malformed_requests() {
        let malformed = |fields: &[(&str, &str)]| {
            let result = read(fields, true);
            assert!(matches!(result, Err(Refusal::Malformed(_))), "{fields:?}: {result:?}");
        };
        for missing in 0..3 {
            let mut fields = GET.to_vec();
            fields.remove(missing);
            malformed(&fields);
        }
        for twice in GET {
            malformed(&with(&[twice]));
        }
        for (at, value) in [
            (0, ""),
            (0, "G T"),
            (1, "ftp"),
            (2, ""),
            (2, "p"),
            (2, "*"),
            (2, "/a b"),
            (2, "/#f"),
            (3, "u@a"),
            (3, "a,b"),
            (3, ""),
        ] {
            let mut fields = GET.to_vec();
            fields[at].1 = value;
            malformed(&fields);
        }
        for extra in [
            ("host", "other"),
            (":status", "200"),
            ("content-length", "5"),
            ("content-length", "x"),
            ("transfer-encoding", "chunked"),
            ("Upper", "x"),
            ("te", "gzip"),
        ] {
            malformed(&with(&[extra]));
        }
        malformed(&with(&[("a", "b"), (":protocol", "websocket")]));
        malformed(&[("a", "b"), GET[0], GET[1], GET[2], GET[3]]);
        malformed(&with(&[(":protocol", "websocket")]));
    }

    #[test]
    fn h2_04_fields_and_bytes_are_counted_crumbs_included() {
        let answer = |status, reason| Some(Refusal::Answer(Reject::new(status, reason)));
        let crumbs = [("cookie", "x"); 5];
        assert_eq!(read(&with(&crumbs), true).err(), answer(431, Reason::HeaderTooLarge));
        let large = "v".repeat(900);
        let fields: Vec<_> = GET.iter().copied().chain([("a", large.as_str())]).collect();
        assert_eq!(read(&fields, true).err(), answer(431, Reason::HeaderTooLarge));
        let long = format!("/{}", "p".repeat(64));
        let fields = [GET[0], GET[1], (":path", long.as_str()), GET[3]];
        assert_eq!(read(&fields, true).err(), answer(414, Reason::UriTooLong));
        assert_eq!(read(&with(&[("a_b", "1")]), true).err(), answer(400, Reason::Underscore));
        let connect = [(":method", "CONNECT"), (":authority", "a:1")];
        assert_eq!(read(&connect, false).err(), answer(405, Reason::Method));
    }

    #[test]
    fn an_extended_connect_asks_for_an_upgrade() {
        let fields = [(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]];
        let head = read(&fields, false).unwrap();
        assert_eq!(
            (head.method(), head.upgrade(), head.body),
            (&b"GET"[..], &b"websocket"[..], BodyLength::None)
        );
    }
}

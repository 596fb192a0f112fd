//! Heads and trailers onto the wire. Untouched field lines are copied in the longest runs that stand together.

use lb_core::head::{BodyLength, FieldName, Fields, RequestHead, ResponseHead};

/// Appends the lines of `fields` that are not dropped, each with its CRLF.
///
/// Lines are joined into one copy where exactly two bytes lie between them: no head with a bare LF gets this far, so those two
/// bytes are CRLF.
fn write_fields(fields: &Fields, out: &mut Vec<u8>) {
    let text = fields.text();
    let mut run: Option<(u32, u32)> = None;
    let flush = |run: Option<(u32, u32)>, out: &mut Vec<u8>| {
        if let Some((start, end)) = run {
            out.extend_from_slice(text.get(start as usize..end as usize).unwrap_or(&[]));
            out.extend_from_slice(b"\r\n");
        }
    };
    for line in fields.lines() {
        if line.dropped {
            continue;
        }
        // A line that is not laid out as `name: value` cannot be copied as it stands.
        run = match run {
            Some((start, end)) if line.name.start == end.wrapping_add(2) => Some((start, line.value.end)),
            _ => {
                flush(run, out);
                Some((line.name.start, line.value.end))
            }
        };
    }
    flush(run, out);
}

/// Whether a request announces a length of 0 before its end is known, as clients of HTTP/2 may. What breaks the promise never gets here.
pub(super) fn promises_nothing(head: &RequestHead) -> bool {
    head.body == BodyLength::Unknown && head.fields.values(FieldName::ContentLength).next().is_some()
}

/// Appends a request head in HTTP/1.1.
pub(crate) fn request(head: &RequestHead, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(&head.fields, out);
    match head.body {
        BodyLength::Unknown if promises_nothing(head) => {}
        BodyLength::Unknown => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        // In HTTP/2 and later the end of the stream says it; servers of HTTP/1.1 answer 411 where nothing does (RFC 9110 §8.6).
        BodyLength::None if matches!(head.method(), b"POST" | b"PUT" | b"PATCH") => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        _ => {}
    }
    if !head.upgrade.is_empty() {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
        out.extend_from_slice(head.upgrade());
        out.extend_from_slice(b"\r\n");
    } else if head.takes_trailers {
        // This hop carries trailers on, so it may ask for them (RFC 9110 §10.1.4).
        out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What to say about the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Nothing: it stays open, as is usual in HTTP/1.1.
    Silent,
    /// It stays open, which an HTTP/1.0 client needs to be told.
    KeepAlive,
    /// It closes after this response.
    Close,
}

/// What a response head says about the connection that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) persistence: Persistence,
    /// The protocols that the server names in `Upgrade` are told (RFC 9110 §7.8).
    pub(super) upgrade: bool,
}

impl Hop {
    /// Nothing is said.
    pub(super) const SILENT: Self = Self { persistence: Persistence::Silent, upgrade: false };
}

/// Appends a response head.
pub(super) fn response(head: &ResponseHead, chunked: bool, hop: Hop, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let digit = |n: u16| b'0'.wrapping_add(u8::try_from(n % 10).unwrap_or_default());
    out.extend_from_slice(&[digit(head.status / 100), digit(head.status / 10), digit(head.status), b' ']);
    out.extend_from_slice(head.fields.slice(head.reason));
    out.extend_from_slice(b"\r\n");
    write_fields(&head.fields, out);
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    } else if head.body == BodyLength::Known(0)
        && head.fields.values(FieldName::ContentLength).next().is_none()
    {
        // In HTTP/2 and later the end of the stream says it.
        out.extend_from_slice(b"Content-Length: 0\r\n");
    }
    // The field itself was taken out as one of the backend's hop.
    let lines = if hop.upgrade { head.fields.lines() } else { &[] };
    let mut protocols = lines.iter().filter(|line| line.known == FieldName::Upgrade);
    let first = protocols.next();
    match (hop.persistence, first) {
        (Persistence::Silent, None) => {}
        (Persistence::Silent, Some(_)) => out.extend_from_slice(b"Connection: Upgrade\r\n"),
        (Persistence::KeepAlive, _) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (Persistence::Close, None) => out.extend_from_slice(b"Connection: close\r\n"),
        (Persistence::Close, Some(_)) => out.extend_from_slice(b"Connection: close, Upgrade\r\n"),
    }
    if let Some(line) = first {
        out.extend_from_slice(b"Upgrade: ");
        out.extend_from_slice(head.fields.slice(line.value));
        for line in protocols {
            out.extend_from_slice(b", ");
            out.extend_from_slice(head.fields.slice(line.value));
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk with a trailer section.
pub(super) fn trailers(fields: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    write_fields(fields, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use lb_config::UnderscorePolicy;
    use lb_core::head::Version;

    use super::*;
    use crate::h1::request::{HeadLimits, parse};

    #[test]
    fn kept_lines_are_copied_and_dropped_ones_leave_no_trace() {
        let text = b"POST /p HTTP/1.1\r\nHost: a\r\nConnection: x-drop\r\nX-Drop: 1\r\nA:b\r\nC:   d  \r\nE: f\r\nTransfer-Encoding: chunked\r\n\r\n";
        let limits = HeadLimits {
            bytes: 4096,
            fields: 16,
            target: 256,
            underscore: UnderscorePolicy::Reject,
            strict_te: false,
            websocket: false,
        };
        let mut head = RequestHead::default();
        parse(text, &limits, &mut head).unwrap().unwrap();
        head.fields.drop_hop_by_hop();
        head.fields.push(b"Via", b"1.1 x");
        head.fields.push(b"X-B", b"2");
        let mut out = Vec::new();
        request(&head, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "POST /p HTTP/1.1\r\nHost: a\r\nA:b\r\nC:   d\r\nE: f\r\nVia: 1.1 x\r\nX-B: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn responses_say_what_happens_to_the_connection() {
        let mut head = ResponseHead { status: 204, ..ResponseHead::default() };
        head.fields.push(b"A", b"b");
        for (persistence, line) in [
            (Persistence::Silent, ""),
            (Persistence::Close, "Connection: close\r\n"),
            (Persistence::KeepAlive, "Connection: keep-alive\r\n"),
        ] {
            let mut out = Vec::new();
            response(&head, false, Hop { persistence, upgrade: true }, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("HTTP/1.1 204 \r\nA: b\r\n{line}\r\n"));
        }
        for value in ["a", "b/2, c"] {
            head.fields.push(b"Upgrade", value.as_bytes());
        }
        head.fields.drop_hop_by_hop();
        for (persistence, upgrade, lines) in [
            (Persistence::Silent, true, "Connection: Upgrade\r\nUpgrade: a, b/2, c\r\n"),
            (Persistence::Close, true, "Connection: close, Upgrade\r\nUpgrade: a, b/2, c\r\n"),
            (Persistence::Close, false, "Connection: close\r\n"),
            (Persistence::Silent, false, ""),
        ] {
            let mut out = Vec::new();
            response(&head, false, Hop { persistence, upgrade }, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("HTTP/1.1 204 \r\nA: b\r\n{lines}\r\n"));
        }
    }

    #[test]
    fn a_request_without_content_says_so_where_its_method_has_a_meaning_for_it() {
        for (method, line) in [
            ("POST", "Content-Length: 0\r\n"),
            ("PUT", "Content-Length: 0\r\n"),
            ("PATCH", "Content-Length: 0\r\n"),
            ("GET", ""),
            ("DELETE", ""),
            ("post", ""),
        ] {
            let mut head = RequestHead { version: Version::H2, ..RequestHead::default() };
            let start = head.fields.append_text(method.as_bytes());
            head.method = lb_core::head::Span::new(start, start + method.len());
            let mut out = Vec::new();
            request(&head, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{method}  HTTP/1.1\r\n{line}\r\n"));
        }
    }

    #[test]
    fn a_body_of_unknown_length_goes_in_chunks_unless_nothing_is_announced() {
        let mut head = RequestHead { body: BodyLength::Unknown, ..RequestHead::default() };
        let mut written = |length: Option<&str>| {
            if let Some(value) = length {
                head.fields.push(b"Content-Length", value.as_bytes());
            }
            let mut out = Vec::new();
            request(&head, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(None), "  HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(written(Some("0")), "  HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn an_empty_body_is_announced_where_nothing_else_ends_it() {
        let mut head = ResponseHead {
            status: 403,
            body: BodyLength::Known(0),
            version: Version::H2,
            ..Default::default()
        };
        for _ in 0..2 {
            let mut out = Vec::new();
            response(&head, false, Hop::SILENT, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), "HTTP/1.1 403 \r\nContent-Length: 0\r\n\r\n");
            head.fields = Fields::default();
            head.fields.push(b"Content-Length", b"0");
        }
    }
}

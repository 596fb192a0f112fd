//! Response heads. A backend is trusted with its content, not with the framing.

use std::mem::MaybeUninit;

use httparse::{Error, Status};
use lb_core::head::{BodyLength, FieldName, ResponseHead, Version};
use lb_core::reason::Reason;

use super::framing::{Delimiter, Framing};
use super::request::{MAX_FIELDS, has_bare_lf, span_in};

/// What a head says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedResponse {
    /// Bytes that the head took.
    pub consumed: usize,
    /// How the body ends on the wire.
    pub body: WireBody,
    /// The backend would keep the connection open after this response.
    pub keep_alive: bool,
}

/// How a body ends on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireBody {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Parses one head from the start of `bytes` into `head`, which is empty. `None` means that more bytes are needed. `to_head` says that
/// the request was HEAD; `upgrading` that it asked for another protocol.
///
/// # Errors
/// When the head is broken or larger than `max_bytes` (attack H1-15).
pub fn parse(
    bytes: &[u8],
    max_bytes: usize,
    to_head: bool,
    upgrading: bool,
    head: &mut ResponseHead,
) -> Result<Option<ParsedResponse>, Reason> {
    let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut lines,
    );
    let consumed = match parsed {
        Ok(Status::Complete(consumed)) if consumed <= max_bytes => consumed,
        Ok(Status::Partial) if bytes.len() < max_bytes => return Ok(None),
        Ok(_) | Err(Error::TooManyHeaders) => return Err(Reason::HeadTooLarge),
        Err(_) => return Err(Reason::HeadSyntax),
    };
    let raw = bytes.get(..consumed).unwrap_or(bytes);
    let status = response.code.unwrap_or_default();
    if has_bare_lf(raw) || !(100..=599).contains(&status) {
        return Err(Reason::HeadSyntax);
    }
    let http10 = response.version == Some(0);
    head.status = status;
    head.version = if http10 { Version::Http10 } else { Version::Http11 };
    head.fields.append_text(raw);
    head.reason = response.reason.map(|reason| span_in(raw, reason.as_bytes())).unwrap_or_default();

    let mut framing = Framing::default();
    let (mut close, mut keep_alive) = (false, false);
    for line in response.headers.iter() {
        let known = head.fields.add_span(span_in(raw, line.name.as_bytes()), span_in(raw, line.value));
        if known == FieldName::Connection {
            for option in line.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                close |= option.eq_ignore_ascii_case(b"close");
                keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else {
            framing.line(known, line.value);
        }
    }
    if status == 101 && !upgrading {
        return Err(Reason::UnaskedSwitch);
    }
    let delimiter = framing.decide(http10).map_err(|_| Reason::Framing)?;
    let bodiless = status < 200 || status == 204;
    if bodiless {
        // RFC 9110 §8.6: no length may stand here. It says nothing, so it is taken out, not passed on.
        head.fields.remove(FieldName::ContentLength);
    }
    let body = match delimiter {
        _ if bodiless || to_head || status == 304 => WireBody::None,
        Delimiter::Length(length) => WireBody::Length(length),
        Delimiter::Chunked => WireBody::Chunked,
        Delimiter::Absent => WireBody::UntilClose,
    };
    head.body = match body {
        WireBody::None => BodyLength::None,
        WireBody::Length(length) => BodyLength::Known(length),
        WireBody::Chunked | WireBody::UntilClose => BodyLength::Unknown,
    };
    let keep_alive = if http10 { keep_alive && !close } else { !close };
    // A backend that announces a body where none may be might send it.
    let clean = !bodiless || matches!(delimiter, Delimiter::Absent | Delimiter::Length(0));
    Ok(Some(ParsedResponse {
        consumed,
        body,
        keep_alive: keep_alive && clean && body != WireBody::UntilClose,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, to_head: bool) -> Result<Option<(ParsedResponse, ResponseHead)>, Reason> {
        let mut head = ResponseHead::default();
        let parsed = parse(text.as_bytes(), 4096, to_head, false, &mut head)?;
        Ok(parsed.map(|parsed| (parsed, head)))
    }

    fn body(text: &str, to_head: bool) -> WireBody {
        read(text, to_head).unwrap().unwrap().0.body
    }

    #[test]
    fn bodies_end_where_rfc_9112_6_3_says() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false), WireBody::Length(3));
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true), WireBody::None);
        assert_eq!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false), WireBody::Chunked);
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n", false), WireBody::UntilClose);
        assert_eq!(body("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", false), WireBody::None);
        assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n", false), WireBody::None);
        assert_eq!(body("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", false), WireBody::None);
    }

    #[test]
    fn a_length_on_204_and_1xx_is_taken_out() {
        let (_, head) = read("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false).unwrap().unwrap();
        assert!(head.fields.is_empty());
    }

    #[test]
    fn connections_stay_open_only_when_both_ends_can_tell_the_end() {
        let keep = |text| read(text, false).unwrap().unwrap().0.keep_alive;
        assert!(keep("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!keep("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        assert!(!keep("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(keep("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"));
        assert!(!keep("HTTP/1.1 200 OK\r\n\r\n"));
    }

    #[test]
    fn h1_15_broken_responses_are_refused() {
        let refused = |text: &str| read(text, false).unwrap_err();
        assert_eq!(
            refused("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Reason::Framing
        );
        assert_eq!(refused("HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n"), Reason::Framing);
        assert_eq!(
            refused("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"),
            Reason::Framing
        );
        assert_eq!(refused("HTTP/1.1 101 Switching Protocols\r\n\r\n"), Reason::UnaskedSwitch);
        assert_eq!(refused("HTTP/1.1 200 OK\nContent-Length: 3\n\n"), Reason::HeadSyntax);
        assert_eq!(refused("HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), Reason::HeadSyntax);
        assert_eq!(refused("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), Reason::HeadSyntax);
        assert_eq!(refused("HTTP/1.1 099 x\r\n\r\n"), Reason::HeadSyntax);
        assert_eq!(refused("SSH-2.0-OpenSSH\r\n"), Reason::HeadSyntax);
        assert_eq!(refused(&format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(4096))), Reason::HeadTooLarge);
    }
}

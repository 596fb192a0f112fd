//! Answers that the gateway gives itself: short, in plain text, and alike for every cause of a status. The cause goes to the
//! metrics and the access log.

use std::task::Context;

use lb_core::head::{BodyLength, FieldName, RequestHead, ResponseHead, Span};

use crate::filter::ErrorBody;
use crate::grpc::{self, Status};
use crate::message::Front;
use crate::service::Settings;

/// Status line text and body of the statuses that the gateway answers with.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        205 => "Reset Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// Sends an answer that the configuration gives, or that leads elsewhere. `head` is used as a scratch pad.
pub(crate) fn fixed(
    cx: &mut Context<'_>,
    front: &mut impl Front,
    fixed: &Fixed<'_>,
    head: &mut ResponseHead,
    edit: impl FnOnce(&mut ResponseHead),
) {
    head.clear();
    head.status = fixed.status;
    let phrase = reason_phrase(fixed.status);
    let start = head.fields.append_text(phrase.as_bytes());
    head.reason = Span::new(start, start.saturating_add(phrase.len()));
    // RFC 9110 §6.4.1.
    let has_no_body = matches!(fixed.status, 204 | 304);
    if let Some(location) = fixed.location {
        head.fields.push(b"Location", location);
    }
    if !has_no_body {
        head.body = BodyLength::Known(u64::try_from(fixed.body.len()).unwrap_or_default());
        if !fixed.body.is_empty() {
            head.fields.push(b"Content-Type", fixed.content_type.as_bytes());
        }
        head.fields.push(b"Content-Length", fixed.body.len().to_string().as_bytes());
    }
    edit(head);
    front.head(head);
    if !has_no_body && !fixed.body.is_empty() {
        front.data(cx, fixed.body);
    }
    front.end();
}

/// An answer of the gateway that no failure is the cause of.
#[derive(Debug)]
pub(crate) struct Fixed<'a> {
    pub(crate) status: u16,
    /// Where the client is to go instead.
    pub(crate) location: Option<&'a [u8]>,
    /// A body and what it is.
    pub(crate) body: &'a [u8],
    pub(crate) content_type: &'a str,
}

/// Sends a whole answer through `front`, with `edit` applied to its head. `head` is used as a scratch pad.
pub(crate) fn send(
    cx: &mut Context<'_>,
    front: &mut impl Front,
    status: u16,
    varies: bool,
    head: &mut ResponseHead,
    edit: impl FnOnce(&mut ResponseHead),
) {
    let body = format!("{status} {}\n", reason_phrase(status)).into_bytes().into();
    let told = ErrorBody { content_type: "text/plain; charset=utf-8", body, varies };
    send_body(cx, front, status, &told, head, edit);
}

/// As [`send`], with another body.
pub(crate) fn send_body(
    cx: &mut Context<'_>,
    front: &mut impl Front,
    status: u16,
    told: &ErrorBody<'_>,
    head: &mut ResponseHead,
    edit: impl FnOnce(&mut ResponseHead),
) {
    let phrase = reason_phrase(status);
    head.clear();
    head.status = status;
    let start = head.fields.append_text(phrase.as_bytes());
    head.reason = Span::new(start, start.saturating_add(phrase.len()));
    describe(told, head);
    if status == 405 {
        head.fields.push(b"Allow", ALLOWED);
    }
    if status == 426 {
        // RFC 6455 §4.4.
        head.fields.push(b"Sec-WebSocket-Version", b"13");
        // RFC 9110 §15.5.22. The connection of a client that has such a field writes it.
        head.fields.push(b"Upgrade", b"websocket");
        head.fields.remove(FieldName::Upgrade);
    }
    edit(head);
    front.head(head);
    if !told.body.is_empty() {
        front.data(cx, &told.body);
    }
    front.end();
}

/// Fields that describe a body, and go where another stands in its place (RFC 9110 §8, RFC 9530).
const OF_BODY: &[&[u8]] = &[
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"content-language",
    b"content-location",
    b"content-range",
    b"content-disposition",
    b"content-digest",
    b"repr-digest",
    b"digest",
    b"content-md5",
    b"etag",
    b"last-modified",
    b"accept-ranges",
    b"trailer",
];

/// Has a head, which tells of no body or of another, tell of this one.
pub(crate) fn describe(told: &ErrorBody<'_>, head: &mut ResponseHead) {
    for name in OF_BODY {
        head.fields.remove_named(name);
    }
    head.body = BodyLength::Known(u64::try_from(told.body.len()).unwrap_or_default());
    head.fields.push(b"Content-Type", told.content_type.as_bytes());
    head.fields.push(b"Content-Length", told.body.len().to_string().as_bytes());
    if told.varies {
        head.fields.push(b"Vary", b"Accept");
    }
}

/// The methods that are told to be allowed: the usual ones. Others pass as well, but for CONNECT; a TRACE of which the gateway is the last
/// recipient is not served.
const ALLOWED: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Answers OPTIONS for the gateway itself: what passes it. `head` is used as a scratch pad.
pub(crate) fn options(front: &mut impl Front, head: &mut ResponseHead, edit: impl FnOnce(&mut ResponseHead)) {
    head.clear();
    head.status = 200;
    let start = head.fields.append_text(b"OK");
    head.reason = Span::new(start, start.saturating_add(2));
    head.body = BodyLength::Known(0);
    head.fields.push(b"Allow", ALLOWED);
    head.fields.push(b"Content-Length", b"0");
    edit(head);
    front.head(head);
    front.end();
}

/// What a refused request was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: u16,
    /// How the call has ended, if it was one.
    pub(crate) call: Option<Option<Status>>,
}

/// Refuses a request for which there is no exchange; a call in its own words. `head` is used as a scratch pad.
pub(crate) fn refuse(
    cx: &mut Context<'_>,
    front: &mut impl Front,
    settings: &Settings,
    request: &RequestHead,
    status: u16,
    head: &mut ResponseHead,
) -> Refused {
    if settings.grpc.is_none() || !grpc::is_call(request) {
        send(cx, front, status, false, head, |_| {});
        return Refused { status, call: None };
    }
    let call = Status::from_refusal(status);
    head.clear();
    grpc::trailers_only(call, reason_phrase(status), head);
    front.head(head);
    front.end();
    Refused { status: head.status, call: Some(Some(call)) }
}

/// What a listener that is full says before it closes; written without a parser, since none is spent on the request.
pub const OVER_CAPACITY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 23\r\nConnection: close\r\n\r\nlistener over capacity\n";

#[cfg(test)]
mod tests {
    use super::OVER_CAPACITY;

    #[test]
    fn the_fixed_answer_tells_its_length() {
        let text = std::str::from_utf8(OVER_CAPACITY).unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1;
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}

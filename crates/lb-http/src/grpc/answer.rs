//! Answers of the gateway's own to a call.

use lb_core::head::{BodyLength, Fields, ResponseHead, Span};

use super::Status;

/// Makes a head a whole response: status and message in the only block of fields (the protocol, "Trailers-Only"). The
/// HTTP status is 200 whatever happened, or clients would not look for the other.
pub fn trailers_only(status: Status, message: &str, head: &mut ResponseHead) {
    head.status = 200;
    head.body = BodyLength::Known(0);
    head.fields.push(b"content-type", b"application/grpc");
    push_status(status, message, &mut head.fields);
}

/// Turns a response that is not gRPC into a trailers-only one, by its HTTP status
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>), and returns the status. What bears a status already, or
/// HTTP 200, stays as it is. The body is not to be passed on.
pub fn from_http(head: &mut ResponseHead) -> Option<Status> {
    let fields = &head.fields;
    let speaks = fields.value_of(b"content-type").is_some_and(super::is_grpc);
    if head.status == 200 || speaks || fields.value_of(b"grpc-status").is_some() {
        return None;
    }
    let status = Status::from_http(head.status);
    let message = format!("the backend answered with HTTP status {}", head.status);
    for described in ["content-type", "content-length", "content-encoding", "content-range", "trailer"] {
        head.fields.remove_named(described.as_bytes());
    }
    head.reason = Span::default();
    trailers_only(status, &message, head);
    Some(status)
}

/// Adds what ends a call: to the head of a trailers-only response, or to the trailers of one whose body has begun.
pub fn push_status(status: Status, message: &str, fields: &mut Fields) {
    fields.push(b"grpc-status", status.text().as_bytes());
    if !message.is_empty() {
        fields.push(b"grpc-message", &percent_encode(message));
    }
}

/// The value of `grpc-message` (the protocol, "Responses"): any text, with all but printable ASCII percent-encoded.
pub fn percent_encode(message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => out.extend([b'%', hexadecimal(byte >> 4), hexadecimal(byte & 15)]),
            _ => out.push(byte),
        }
    }
    out
}

fn hexadecimal(nibble: u8) -> u8 {
    match nibble {
        0..10 => b'0'.saturating_add(nibble),
        _ => (b'A' - 10).saturating_add(nibble),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_so_that_no_byte_breaks_a_field() {
        assert_eq!(percent_encode("plain text, ~!"), b"plain text, ~!");
        assert_eq!(percent_encode("100%\r\n\u{7f}é"), b"100%25%0D%0A%7F%C3%A9");
    }

    #[test]
    fn an_answer_in_plain_http_is_told_by_its_status() {
        let head = |status, fields: &[(&str, &str)]| {
            let mut head = ResponseHead { status, body: BodyLength::Known(9), ..ResponseHead::default() };
            for (name, value) in fields {
                head.fields.push(name.as_bytes(), value.as_bytes());
            }
            head
        };
        let mut page = head(
            503,
            &[
                ("Content-Type", "text/html"),
                ("Content-Length", "9"),
                ("Retry-After", "7"),
                ("content-type", "x"),
            ],
        );
        assert_eq!(from_http(&mut page), Some(Status::Unavailable));
        assert_eq!((page.status, page.body), (200, BodyLength::Known(0)));
        let names: Vec<_> = page.fields.iter().map(|field| field.name.to_ascii_lowercase()).collect();
        assert_eq!(names, [&b"retry-after"[..], b"content-type", b"grpc-status", b"grpc-message"]);
        for (status, fields) in [
            (200, &[("content-type", "text/html")][..]),
            (404, &[("content-type", "application/grpc")]),
            (500, &[("grpc-status", "5")]),
        ] {
            let mut untouched = head(status, fields);
            assert_eq!(from_http(&mut untouched), None);
            assert_eq!((untouched.status, untouched.body), (status, BodyLength::Known(9)));
        }
    }

    #[test]
    fn a_trailers_only_answer_is_one_block_of_fields() {
        let mut head = ResponseHead::default();
        trailers_only(Status::Unavailable, "no backend", &mut head);
        assert_eq!((head.status, head.body), (200, BodyLength::Known(0)));
        let fields: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
        let wanted: [(&[u8], &[u8]); 3] = [
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"14"),
            (b"grpc-message", b"no backend"),
        ];
        assert_eq!(fields, wanted);
    }
}

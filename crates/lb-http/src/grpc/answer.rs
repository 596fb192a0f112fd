//! Answers of the gateway's own to a call.

use lb_core::head::{BodyLength, Fields, ResponseHead};

use super::Status;

/// Fills an empty head with a whole response: status and message in the only block of fields (the protocol, "Trailers-Only"). The
/// HTTP status is 200 whatever happened, or clients would not look for the other.
pub fn trailers_only(status: Status, message: &str, head: &mut ResponseHead) {
    head.status = 200;
    head.body = BodyLength::None;
    head.fields.push(b"content-type", b"application/grpc");
    push_status(status, message, &mut head.fields);
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
    fn a_trailers_only_answer_is_one_block_of_fields() {
        let mut head = ResponseHead::default();
        trailers_only(Status::Unavailable, "no backend", &mut head);
        assert_eq!((head.status, head.body), (200, BodyLength::None));
        let fields: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
        let wanted: [(&[u8], &[u8]); 3] = [
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"14"),
            (b"grpc-message", b"no backend"),
        ];
        assert_eq!(fields, wanted);
    }
}

//! Heads and trailers into header blocks.

use lb_core::head::{BodyLength, FieldName, Fields, RequestHead, ResponseHead};

use super::hpack::{Encoder, Indexing};

/// Appends the block of a request head. Upgrades are asked for by the extended CONNECT (RFC 8441).
pub(super) fn request(head: &RequestHead, scheme: &[u8], encoder: &mut Encoder, out: &mut Vec<u8>) {
    let tunnel = !head.upgrade.is_empty();
    encoder.begin(out);
    encoder.field(b":method", if tunnel { b"CONNECT" } else { head.method() }, Indexing::No, out);
    encoder.field(b":scheme", scheme, Indexing::Yes, out);
    encoder.field(b":path", head.target(), Indexing::No, out);
    // An HTTP/1.0 request may name nobody; then the field that was added for the backend does.
    let named = if head.authority.is_empty() { head.fields.values(FieldName::Host).next() } else { None };
    encoder.field(b":authority", named.unwrap_or_else(|| head.authority()), Indexing::Yes, out);
    if tunnel {
        encoder.field(b":protocol", head.upgrade(), Indexing::Yes, out);
    }
    let mut lower = Vec::new();
    for field in head.fields.iter() {
        let indexing = match field.known {
            // Said by `:authority`.
            FieldName::Host => continue,
            FieldName::Cookie => Indexing::Never,
            FieldName::Via | FieldName::XForwardedProto | FieldName::XForwardedHost => Indexing::Yes,
            FieldName::Other => match field.name.len() {
                13 if field.name.eq_ignore_ascii_case(b"authorization") => Indexing::Never,
                17 | 18 if tunnel && is_handshake(field.name) => continue,
                _ if is_repeated(field.name) => Indexing::Yes,
                _ => Indexing::No,
            },
            _ => Indexing::No,
        };
        encoder.field(lower_case(field.name, &mut lower), field.value, indexing, out);
    }
    if head.takes_trailers {
        encoder.field(b"te", b"trailers", Indexing::Yes, out);
    }
}

/// Fields of the HTTP/1.1 handshake that the extended CONNECT does without (RFC 8441 §5).
fn is_handshake(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"sec-websocket-key") || name.eq_ignore_ascii_case(b"sec-websocket-accept")
}

/// Request fields whose values come again from client after client. The others would only push them out of the table, and a table that is
/// shared by all clients must not hold their secrets.
fn is_repeated(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] =
        [b"accept", b"accept-encoding", b"accept-language", b"content-type", b"grpc-encoding", b"user-agent"];
    NAMES.iter().any(|repeated| name.eq_ignore_ascii_case(repeated))
}

/// Appends the block of a response head. A switch of protocols is an acceptance (RFC 8441 §5).
pub(super) fn response(head: &ResponseHead, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let tunnel = head.status == 101;
    encoder.begin(out);
    encoder.status(if tunnel { 200 } else { head.status }, out);
    fields(&head.fields, tunnel, encoder, out);
}

/// Appends the block of a trailer section.
pub(super) fn trailers(section: &Fields, encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    fields(section, false, encoder, out);
}

fn fields(section: &Fields, tunnel: bool, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let mut lower = Vec::new();
    for field in section.iter() {
        if tunnel && field.name.len() == 20 && is_handshake(field.name) {
            continue;
        }
        let name = lower_case(field.name, &mut lower);
        encoder.field(name, field.value, response_indexing(name), out);
    }
}

/// Values that differ from response to response would push the others out of the table.
fn response_indexing(name: &[u8]) -> Indexing {
    match name {
        b"set-cookie" => Indexing::Never,
        b"age" | b"content-length" | b"content-range" | b"date" | b"etag" | b"expires" | b"last-modified"
        | b"location" => Indexing::No,
        _ => Indexing::Yes,
    }
}

/// `name` as HTTP/2 writes it, copied into `buffer` only where it must change.
#[inline]
fn lower_case<'a>(name: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if !name.iter().any(u8::is_ascii_uppercase) {
        return name;
    }
    buffer.clear();
    buffer.extend(name.iter().map(u8::to_ascii_lowercase));
    buffer
}

/// Whether the head alone is the whole message.
pub(super) fn is_whole(body: BodyLength, to_head: bool) -> bool {
    to_head || matches!(body, BodyLength::None | BodyLength::Known(0))
}

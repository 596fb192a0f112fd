//! Heads and trailers into field sections.

use lb_core::head::{BodyLength, FieldName, Fields, RequestHead, ResponseHead};

/// What to do with a field that no table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// Add it to the table: it will come again.
    Yes,
    /// Leave the table alone: it is different every time.
    No,
    /// Leave the table alone, and forbid intermediaries further on to add it to theirs: a secret that could be guessed (RFC 7541 §7.1.3).
    Never,
}

/// The sending half of a field compression.
pub(crate) trait FieldEncoder {
    /// Starts a section.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Writes `:status`.
    fn status(&mut self, code: u16, out: &mut Vec<u8>);

    /// Writes a field, whose name is in lower case already.
    fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>);
}

/// Appends the section of a request head. Upgrades are asked for by the extended CONNECT (RFC 8441, RFC 9220).
pub(crate) fn request(head: &RequestHead, scheme: &[u8], encoder: &mut impl FieldEncoder, out: &mut Vec<u8>) {
    let tunnel = !head.upgrade.is_empty();
    encoder.begin(out);
    encoder.field(b":method", if tunnel { b"CONNECT" } else { head.method() }, Indexing::No, out);
    encoder.field(b":scheme", scheme, Indexing::Yes, out);
    encoder.field(b":path", head.target(), Indexing::No, out);
    // An HTTP/1.0 request may come without a host; the field that was added for the backend then has it.
    let named = if head.authority.is_empty() { head.fields.values(FieldName::Host).next() } else { None };
    encoder.field(b":authority", named.unwrap_or_else(|| head.authority()), Indexing::Yes, out);
    if tunnel {
        encoder.field(b":protocol", head.upgrade(), Indexing::Yes, out);
    }
    let mut lower = Lower::new();
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
        encoder.field(lower.case(field.name), field.value, indexing, out);
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

/// Appends the section of a response head. A switch of protocols is an acceptance (RFC 8441 §5).
pub(crate) fn response(head: &ResponseHead, encoder: &mut impl FieldEncoder, out: &mut Vec<u8>) {
    let tunnel = head.status == 101;
    encoder.begin(out);
    encoder.status(if tunnel { 200 } else { head.status }, out);
    fields(&head.fields, tunnel, encoder, out);
}

/// Appends a trailer section.
pub(crate) fn trailers(section: &Fields, encoder: &mut impl FieldEncoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    fields(section, false, encoder, out);
}

fn fields(section: &Fields, tunnel: bool, encoder: &mut impl FieldEncoder, out: &mut Vec<u8>) {
    let mut lower = Lower::new();
    for field in section.iter() {
        if tunnel && field.name.len() == 20 && is_handshake(field.name) {
            continue;
        }
        let name = lower.case(field.name);
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

/// Room for a field name in lower case. Names of usual length need no memory of their own.
struct Lower {
    short: [u8; 48],
    long: Vec<u8>,
}

impl Lower {
    fn new() -> Self {
        Self { short: [0; 48], long: Vec::new() }
    }

    /// `name` as HTTP/2 and HTTP/3 write it, copied only where it must change.
    #[inline]
    fn case<'a>(&'a mut self, name: &'a [u8]) -> &'a [u8] {
        if !name.iter().any(u8::is_ascii_uppercase) {
            return name;
        }
        let copy = match self.short.get_mut(..name.len()) {
            Some(short) => short,
            None => {
                self.long.clear();
                self.long.resize(name.len(), 0);
                self.long.as_mut_slice()
            }
        };
        for (to, from) in copy.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
        copy
    }
}

/// Whether the head alone is the whole message.
pub fn is_whole(body: BodyLength, to_head: bool) -> bool {
    to_head || matches!(body, BodyLength::None | BodyLength::Known(0))
}

#[cfg(test)]
mod tests {
    use super::Lower;

    #[test]
    fn names_of_any_length_become_lower_case() {
        let mut lower = Lower::new();
        for name in ["server", "Content-Type", &"X".repeat(47), &"X".repeat(48), &"x-Y".repeat(100)] {
            assert_eq!(lower.case(name.as_bytes()), name.to_ascii_lowercase().as_bytes(), "{name}");
        }
    }
}

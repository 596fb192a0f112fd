//! Heads of requests and responses, independent of the protocol that carried them.
//!
//! A head is one buffer of text and a list of spans into it. HTTP/1.1 fills the buffer with the bytes of the wire and
//! can copy long runs of untouched fields back out; HTTP/2 and HTTP/3 append what they decode. Nothing is hashed
//! and nothing is allocated per field.

mod field_name;
mod fields;

pub use field_name::{FieldName, FieldNames};
pub use fields::{Field, FieldRef, Fields, Span};

/// Whether a backend may read the name of a field as `name`: letter case does not count, and many take `_` for `-`.
pub fn reads_as(field: &[u8], name: &[u8]) -> bool {
    let same = |(byte, wanted): (&u8, &u8)| {
        let spelled = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
        spelled(*byte) == spelled(*wanted)
    };
    field.len() == name.len() && field.iter().zip(name).all(same)
}

/// Protocol version that a peer spoke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no interim responses, persistent only on request.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    H2,
    /// HTTP/3.
    H3,
}

/// How a request asks for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelBy {
    /// By the Upgrade field (RFC 9110 §7.8).
    Upgrade,
    /// By the CONNECT method with a protocol (RFC 8441, RFC 9220).
    ExtendedConnect,
}

/// How long a message body is, known before its first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// No body follows, whatever the fields say (HEAD, 204, 304, or a request without one).
    #[default]
    None,
    /// Exactly so many bytes (`Content-Length`).
    Known(u64),
    /// Ends when the sender says so (chunked coding, END_STREAM, or the end of the connection).
    Unknown,
}

/// A request head. Spans refer to `fields.text()`.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method token as sent.
    pub method: Span,
    /// Request target in origin form (`/path?query`) or `*`; never absolute form.
    pub target: Span,
    /// Host and optional port: `Host` or `:authority`. Empty only for HTTP/1.0.
    pub authority: Span,
    /// Version the client spoke.
    pub version: Version,
    /// Length of the body.
    pub body: BodyLength,
    /// The client takes trailers (`TE: trailers`).
    pub takes_trailers: bool,
    /// The protocol of an `Upgrade` that the listener honours (RFC 9110 §7.8); empty when there is none.
    pub upgrade: Span,
    /// The field lines, in order.
    pub fields: Fields,
}

impl RequestHead {
    /// Empties the head for reuse and keeps its allocations.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// The method token.
    pub fn method(&self) -> &[u8] {
        self.fields.slice(self.method)
    }

    /// Path and query.
    pub fn target(&self) -> &[u8] {
        self.fields.slice(self.target)
    }

    /// Host and optional port.
    pub fn authority(&self) -> &[u8] {
        self.fields.slice(self.authority)
    }

    /// The honoured `Upgrade` token, empty when there is none.
    pub fn upgrade(&self) -> &[u8] {
        self.fields.slice(self.upgrade)
    }

    /// Whether the response to this request has no body by its method (RFC 9110 §9.3.2).
    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }
}

/// A response head. Spans refer to `fields.text()`.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// Status code, 100..=599 once parsed.
    pub status: u16,
    /// Reason phrase as sent; HTTP/2 and HTTP/3 have none.
    pub reason: Span,
    /// Version the backend spoke.
    pub version: Version,
    /// Length of the body.
    pub body: BodyLength,
    /// The field lines, in order.
    pub fields: Fields,
}

impl ResponseHead {
    /// Empties the head for reuse and keeps its allocations.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// An interim response: 1xx other than a switch of protocols.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

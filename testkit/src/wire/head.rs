//! Heads of messages, and the fields that they and trailers consist of.

use std::fmt;

use super::fault::{Fault, malformed};

/// Header or trailer fields in the order in which they came, names as sent.
#[derive(Clone, Default)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(n, v)| (n, String::from_utf8_lossy(v)))).finish()
    }
}

impl Headers {
    /// The first value under `name`, as text.
    pub fn get(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }

    /// The first value under `name`, byte for byte.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice())
    }

    /// Every value under `name`, as text.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        values.map(|(_, v)| String::from_utf8_lossy(v).into_owned()).collect()
    }

    /// Whether a field of that name came.
    pub fn has(&self, name: &str) -> bool {
        self.bytes(name).is_some()
    }

    /// All values under `name` as one list, items trimmed.
    pub fn list(&self, name: &str) -> Vec<String> {
        let joined = self.all(name).join(",");
        joined.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    }

    /// Whether the list under `name` holds `item`, whatever the case.
    pub fn lists(&self, name: &str, item: &str) -> bool {
        self.list(name).iter().any(|i| i.eq_ignore_ascii_case(item))
    }
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By `Content-Length`.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// A request head.
#[derive(Clone)]
pub struct RequestHead {
    /// As sent.
    pub method: String,
    /// As sent; bytes that are not UTF-8 are replaced (see `raw`).
    pub target: String,
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// In order.
    pub headers: Headers,
    /// How the body is delimited.
    pub framing: Framing,
    /// Every byte of the head.
    pub raw: Vec<u8>,
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?})", String::from_utf8_lossy(&self.raw), self.framing)
    }
}

/// A response head.
#[derive(Clone)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// Reason phrase.
    pub reason: String,
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// In order.
    pub headers: Headers,
    /// How the body is delimited.
    pub framing: Framing,
    /// Every byte of the head.
    pub raw: Vec<u8>,
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?})", String::from_utf8_lossy(&self.raw), self.framing)
    }
}

pub(super) fn minor(version: &[u8]) -> Result<u8, Fault> {
    match version {
        b"HTTP/1.0" => Ok(0),
        b"HTTP/1.1" => Ok(1),
        other => malformed(format!("version {:?}", String::from_utf8_lossy(other))),
    }
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(super) fn field(line: &[u8]) -> Result<(String, Vec<u8>), Fault> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let Some(colon) = line.iter().position(|&b| b == b':') else {
        return malformed(format!("field without a colon: {:?}", shown()));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
        return malformed(format!("field name: {:?}", shown()));
    }
    if value.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return malformed(format!("control byte in a field: {:?}", shown()));
    }
    let value = value.trim_ascii();
    Ok((String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

/// The framing that the fields declare; an error when they declare more than one or an odd one.
pub(super) fn declared(headers: &Headers) -> Result<Option<Framing>, Fault> {
    let lengths = headers.all("content-length");
    let codings = headers.all("transfer-encoding");
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            let length = length.parse().map_err(|_| Fault::Malformed("Content-Length too large".into()))?;
            Ok(Some(Framing::Length(length)))
        }
        _ => malformed(format!("Content-Length {lengths:?} with Transfer-Encoding {codings:?}")),
    }
}

//! Field sections as QPACK codes them (RFC 9204), without a dynamic table: this side announces none, and uses none.

use crate::h2::{hpack, huffman};
use crate::wire::Headers;

/// The static table (RFC 9204 appendix A).
const STATIC: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

/// What stands before the field lines of a section that refers to no dynamic table.
pub const PREFIX: [u8; 2] = [0, 0];

/// A field as a literal with a literal name.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let (name, value) = (name.as_ref(), value.as_ref());
    [&hpack::integer(0x20, 3, name.len()), name, &hpack::integer(0, 7, value.len()), value].concat()
}

/// A field that stands in the static table.
pub fn indexed(index: usize) -> Vec<u8> {
    hpack::integer(0xc0, 6, index)
}

/// A field whose name stands in the static table.
pub fn indexed_name(index: usize, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [&hpack::integer(0x50, 4, index), &hpack::integer(0, 7, value.len()), value].concat()
}

/// A field section that uses the static table wherever it can.
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = PREFIX.to_vec();
    for &(name, value) in fields {
        let whole = STATIC.iter().position(|entry| *entry == (name, value));
        let named = STATIC.iter().position(|entry| entry.0 == name);
        out.extend(match (whole, named) {
            (Some(index), _) => indexed(index),
            (None, Some(index)) => indexed_name(index, value),
            (None, None) => literal(name, value),
        });
    }
    out
}

/// Reads a field section.
pub fn decode(section: &[u8]) -> Result<Headers, String> {
    let mut input = Input(section);
    if (input.integer(8)?, input.integer(7)?) != (0, 0) {
        return Err("a section that refers to a dynamic table".into());
    }
    let own = |index: usize| STATIC.get(index).ok_or_else(|| format!("index {index} of the static table"));
    let mut fields = Vec::new();
    while let Some(&first) = input.0.first() {
        let field = match first {
            0xc0.. => {
                let (name, value) = own(input.integer(6)?)?;
                ((*name).to_owned(), value.as_bytes().to_vec())
            }
            0x50..0x60 | 0x70..0x80 => {
                let name = own(input.integer(4)?)?.0.to_owned();
                (name, input.string(7)?)
            }
            0x20..0x40 => {
                let name = String::from_utf8(input.string(3)?).map_err(|e| format!("a name: {e}"))?;
                (name, input.string(7)?)
            }
            _ => return Err(format!("a field line of the dynamic table: {first:#x}")),
        };
        fields.push(field);
    }
    Ok(Headers(fields))
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let (&first, rest) = self.0.split_first().ok_or("a section that ends too early")?;
        self.0 = rest;
        Ok(first)
    }

    fn integer(&mut self, bits: u8) -> Result<usize, String> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("an integer of too many bytes".into())
    }

    /// A string whose length has a prefix of `bits`, with the bit of the Huffman code before it.
    fn string(&mut self, bits: u8) -> Result<Vec<u8>, String> {
        let is_coded = self.0.first().is_some_and(|first| first >> bits & 1 == 1);
        let length = self.integer(bits)?;
        let text = self.0.split_at_checked(length).ok_or("a string that ends too early")?;
        self.0 = text.1;
        if is_coded { huffman::decode(text.0).ok_or("bad Huffman code".into()) } else { Ok(text.0.to_vec()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 9204 appendix B.1.
        let example = b"\x00\x00\x51\x0b/index.html";
        assert_eq!(decode(example).unwrap().get(":path").as_deref(), Some("/index.html"));
        assert_eq!(section(&[(":path", "/index.html")]), example);
    }

    #[test]
    fn what_is_coded_is_read() {
        let fields = [(":method", "GET"), (":path", "/a"), ("x-own", "1"), ("cookie", "b=2")];
        let read = decode(&section(&fields)).unwrap();
        assert!(
            read.0.iter().map(|(n, v)| (n.as_str(), v.as_slice())).eq(fields.map(|(n, v)| (n, v.as_bytes())))
        );
    }
}

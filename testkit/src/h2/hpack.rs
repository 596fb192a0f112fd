//! HPACK (RFC 7541): a writer without choices of its own, and a strict reader.
//!
//! The writer is a set of functions without memory: a test that wants a dynamic table keeps count itself. That lets many
//! threads write, and lets an attack refer to what is not there.

use super::huffman;
use crate::wire::Headers;
use std::collections::VecDeque;

/// The table of appendix A; the first entry has index 1.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The first index of the dynamic table, that of its newest entry.
pub const FIRST_DYNAMIC: usize = 62;

/// An integer with a prefix of `bits`, whose other bits are `pattern` (section 5.1).
pub fn integer(pattern: u8, bits: u8, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![pattern | value as u8];
    }
    let mut out = vec![pattern | most as u8];
    let mut rest = value - most;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

fn string(text: &[u8]) -> Vec<u8> {
    [&integer(0, 7, text.len()), text].concat()
}

/// A field as a literal that enters no table.
pub fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0], string(name.as_ref()), string(value.as_ref())].concat()
}

/// A field as a literal that becomes the newest entry of the dynamic table.
pub fn incremental(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x40], string(name.as_ref()), string(value.as_ref())].concat()
}

/// A field whose name stands in a table, as a literal that enters none.
pub fn indexed_name(index: usize, value: impl AsRef<[u8]>) -> Vec<u8> {
    [integer(0, 4, index), string(value.as_ref())].concat()
}

/// A field that stands in a table.
pub fn indexed(index: usize) -> Vec<u8> {
    integer(0x80, 7, index)
}

/// An announcement of the dynamic table's size.
pub fn table_size(size: usize) -> Vec<u8> {
    integer(0x20, 5, size)
}

/// A block of plain literals.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// What a peer's blocks mean, with the dynamic table that they build up.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<(String, Vec<u8>)>,
    size: usize,
    limit: usize,
    /// The largest limit that the peer may choose: our SETTINGS_HEADER_TABLE_SIZE.
    allowed: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { entries: VecDeque::new(), size: 0, limit: 4096, allowed: 4096 }
    }
}

impl Decoder {
    /// Takes note of the table size that this side has announced.
    pub fn allow(&mut self, size: usize) {
        self.allowed = size;
    }

    /// Reads a whole block.
    pub fn decode(&mut self, block: &[u8]) -> Result<Headers, String> {
        let mut input = Input(block);
        let mut fields = Vec::new();
        while let Some(&first) = input.0.first() {
            if first & 0x80 != 0 {
                let index = input.integer(7)?;
                fields.push(self.entry(index)?);
            } else if first & 0xc0 == 0x40 {
                let field = self.field(&mut input, 6)?;
                self.insert(field.clone());
                fields.push(field);
            } else if first & 0xe0 == 0x20 {
                if !fields.is_empty() {
                    return Err("a table size after the first field".into());
                }
                let limit = input.integer(5)?;
                if limit > self.allowed {
                    return Err(format!("a table of {limit} where {} are allowed", self.allowed));
                }
                self.limit = limit;
                self.evict();
            } else {
                fields.push(self.field(&mut input, 4)?);
            }
        }
        Ok(Headers(fields))
    }

    fn field(&self, input: &mut Input<'_>, bits: u8) -> Result<(String, Vec<u8>), String> {
        let name = match input.integer(bits)? {
            0 => String::from_utf8(input.string()?).map_err(|e| format!("a name: {e}"))?,
            index => self.entry(index)?.0,
        };
        Ok((name, input.string()?))
    }

    fn entry(&self, index: usize) -> Result<(String, Vec<u8>), String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        let found = match index {
            0 => None,
            1..FIRST_DYNAMIC => STATIC.get(index - 1).map(own),
            _ => self.entries.get(index - FIRST_DYNAMIC).cloned(),
        };
        found.ok_or_else(|| format!("index {index}, with {} dynamic entries", self.entries.len()))
    }

    fn insert(&mut self, field: (String, Vec<u8>)) {
        self.size += weight(&field);
        self.entries.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some(gone) = self.entries.pop_back() else { break };
            self.size -= weight(&gone);
        }
    }
}

fn weight(field: &(String, Vec<u8>)) -> usize {
    field.0.len() + field.1.len() + 32
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let (&first, rest) = self.0.split_first().ok_or("the block ends inside a field")?;
        self.0 = rest;
        Ok(first)
    }

    fn integer(&mut self, bits: u8) -> Result<usize, String> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        let mut shift = 0;
        let mut more = value == most;
        while more {
            let byte = self.byte()?;
            if shift > 28 {
                return Err("an integer of more than 32 bits".into());
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            more = byte & 0x80 != 0;
        }
        Ok(value)
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        let coded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let len = self.integer(7)?;
        if len > self.0.len() {
            return Err("a string longer than its block".into());
        }
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        if coded { huffman::decode(text).ok_or_else(|| "Huffman code".into()) } else { Ok(text.to_vec()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(headers: &Headers) -> Vec<(&str, &str)> {
        headers.0.iter().map(|(n, v)| (n.as_str(), std::str::from_utf8(v).unwrap())).collect()
    }

    #[test]
    fn requests_of_appendix_c4() {
        let mut decoder = Decoder::default();
        let first = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4,
            0xff,
        ];
        let common =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(pairs(&decoder.decode(&first).unwrap()), common);
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        let wanted = [&common[..], &[("cache-control", "no-cache")]].concat();
        assert_eq!(pairs(&decoder.decode(&second).unwrap()), wanted);
        assert_eq!(decoder.size, 110);
    }

    #[test]
    fn what_the_writer_says_the_reader_understands() {
        let mut decoder = Decoder::default();
        let long = "v".repeat(300);
        let block = [
            table_size(200),
            literal("x-plain", &long),
            incremental("x-kept", "1"),
            indexed(FIRST_DYNAMIC),
            indexed_name(FIRST_DYNAMIC, "2"),
        ]
        .concat();
        let wanted = [("x-plain", long.as_str()), ("x-kept", "1"), ("x-kept", "1"), ("x-kept", "2")];
        assert_eq!(pairs(&decoder.decode(&block).unwrap()), wanted);
        decoder.decode(&table_size(0)).unwrap();
        assert!(decoder.decode(&indexed(FIRST_DYNAMIC)).is_err(), "evicted");
        assert!(decoder.decode(&table_size(4097)).is_err(), "more than allowed");
        assert!(decoder.decode(&[0x40, 0x7f]).is_err(), "cut short");
    }
}

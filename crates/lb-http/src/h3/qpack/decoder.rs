//! Field sections into fields (RFC 9204 §4.5).

use super::{QpackError, static_table};
use crate::section::string;
use crate::section::{CodingError, integer};

/// The most scratch memory that stays allocated between two sections.
const KEPT_SCRATCH: usize = 4096;

/// Decodes field sections. It holds memory to work in and nothing of a connection, so that one serves all connections of a worker.
#[derive(Debug, Default)]
pub struct QpackDecoder {
    /// Literals that were Huffman-coded.
    scratch: Vec<u8>,
}

impl QpackDecoder {
    /// A decoder that takes no memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes a whole section, and hands each field to `each` as name, value, and whether it must never be indexed further on (RFC 9204
    /// §4.5.4). Names and values are any bytes at all.
    ///
    /// What this costs is in proportion to the length of the section plus what `each` does: a reference to the table copies nothing
    /// (attack Q-09), and a literal takes eight bytes for each five of the section at most, until the next field is decoded.
    ///
    /// # Errors
    /// When the section is broken. Fields before the fault have been handed over by then.
    pub fn decode(
        &mut self,
        section: &[u8],
        each: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), QpackError> {
        let result = self.decode_fields(section, each);
        if self.scratch.capacity() > KEPT_SCRATCH {
            self.scratch = Vec::new();
        }
        result
    }

    #[inline]
    fn decode_fields(
        &mut self,
        section: &[u8],
        each: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), QpackError> {
        let scratch = &mut self.scratch;
        let mut rest = prefix(section)?;
        while let Some((first, behind)) = rest.split_first() {
            rest = behind;
            scratch.clear();
            match *first {
                // An indexed field, or a literal with a name, of the static table.
                0xc0.. => {
                    let (name, value) = entry(integer::decode(*first, 6, &mut rest)?)?;
                    each(name, value, false);
                }
                first @ 0x50..=0x5f | first @ 0x70..=0x7f => {
                    let (name, _) = entry(integer::decode(first, 4, &mut rest)?)?;
                    let value = value(&mut rest, scratch)?;
                    each(name, value.bytes(scratch), first & 0x20 != 0);
                }
                first @ 0x20..=0x3f => {
                    let name = string::decode(first, 3, &mut rest, scratch)?;
                    let value = value(&mut rest, scratch)?;
                    each(name.bytes(scratch), value.bytes(scratch), first & 0x10 != 0);
                }
                // Of the dynamic table, by an index before or behind the base.
                _ => return Err(QpackError::Dynamic),
            }
        }
        Ok(())
    }
}

/// Takes the prefix of a section (RFC 9204 §4.5.1); returns what follows it.
#[inline]
fn prefix(section: &[u8]) -> Result<&[u8], QpackError> {
    if let [0, 0, rest @ ..] = section {
        return Ok(rest);
    }
    let (first, mut rest) = section.split_first().ok_or(CodingError::Truncated)?;
    // A table without entries leaves no other count than 0 (RFC 9204 §4.5.1.1).
    if *first != 0 {
        return Err(QpackError::Dynamic);
    }
    let (sign, behind) = rest.split_first().ok_or(CodingError::Truncated)?;
    rest = behind;
    integer::decode(*sign, 7, &mut rest)?;
    if sign & 0x80 != 0 { Err(QpackError::Base) } else { Ok(rest) }
}

#[inline]
fn entry(index: usize) -> Result<(&'static [u8], &'static [u8]), QpackError> {
    static_table::entry(index).ok_or(QpackError::Index)
}

#[inline]
fn value<'a>(rest: &mut &'a [u8], scratch: &mut Vec<u8>) -> Result<string::Text<'a>, CodingError> {
    let (first, behind) = rest.split_first().ok_or(CodingError::Truncated)?;
    *rest = behind;
    string::decode(*first, 7, rest, scratch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h3::tests::hex;

    fn decode(section: &str) -> Result<Vec<(String, String, bool)>, QpackError> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        QpackDecoder::new()
            .decode(&hex(section), &mut |name, value, never| fields.push((text(name), text(value), never)))?;
        Ok(fields)
    }

    #[track_caller]
    fn check(section: &str, fields: &[(&str, &str, bool)]) {
        let got = decode(section).unwrap();
        assert!(
            got.iter().map(|(n, v, never)| (&n[..], &v[..], *never)).eq(fields.iter().copied()),
            "{got:?}"
        );
    }

    #[test]
    fn the_example_of_appendix_b_1() {
        check("0000 510b2f696e6465782e68746d6c", &[(":path", "/index.html", false)]);
    }

    #[test]
    fn each_representation_is_read() {
        check(
            "0000 d1 c0 ff00 ff23",
            &[
                (":method", "GET", false),
                (":authority", "", false),
                (":status", "100", false),
                ("x-frame-options", "sameorigin", false),
            ],
        );
        // A literal with a name of the table, one that must not be indexed, and literals with names of their own.
        check(
            "0000 5f1d 0161 75 0162 2161 0163 3161 0164",
            &[("content-type", "a", false), ("cookie", "b", true), ("a", "c", false), ("a", "d", true)],
        );
        // Huffman-coded: a name and a value.
        check("0000 2f01 25a849e95ba97d7f 89 25a849e95bb8e8b4bf", &[("custom-key", "custom-value", false)]);
        // A base beyond the first entry is of no consequence.
        check("0005 c1", &[(":path", "/", false)]);
        check("0000", &[]);
    }

    #[test]
    fn q_08_broken_sections_are_told_apart() {
        let coding = QpackError::Coding;
        for (section, error) in [
            ("", coding(CodingError::Truncated)),
            ("00", coding(CodingError::Truncated)),
            // A required insert count, a sign, and a base that does not end.
            ("0100", QpackError::Dynamic),
            ("0080", QpackError::Base),
            ("007f", coding(CodingError::Truncated)),
            // Indexed, post-base, and names by reference in the dynamic table.
            ("0000 80", QpackError::Dynamic),
            ("0000 10", QpackError::Dynamic),
            ("0000 40 00", QpackError::Dynamic),
            ("0000 60 00", QpackError::Dynamic),
            ("0000 00 00", QpackError::Dynamic),
            // Index 98 is the last one.
            ("0000 ff24", QpackError::Index),
            ("0000 5f54 00", QpackError::Index),
            ("0000 ff", coding(CodingError::Truncated)),
            ("0000 ffffffffffff7f", coding(CodingError::Integer)),
            ("0000 51", coding(CodingError::Truncated)),
            ("0000 5105 61", coding(CodingError::Truncated)),
            ("0000 25 61", coding(CodingError::Truncated)),
            ("0000 51 83 0fffff", coding(CodingError::Huffman)),
        ] {
            assert_eq!(decode(section), Err(error), "{section}");
        }
    }

    #[test]
    fn q_09_literals_of_any_length_are_decoded_and_not_kept() {
        let mut decoder = QpackDecoder::new();
        // 80000 times the letter `a`, in five bits each.
        let mut section = hex("0000 21 6c ffd18503");
        section.extend_from_slice(&[0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(10_000));
        section.resize(section.len() + 10_000, 0xc0 | 41);
        let (mut fields, mut longest) = (0, 0);
        decoder
            .decode(&section, &mut |_, value, _| {
                fields += 1;
                longest = longest.max(value.len());
            })
            .unwrap();
        assert_eq!((fields, longest, decoder.scratch.capacity()), (10_001, 80_000, 0));
    }
}

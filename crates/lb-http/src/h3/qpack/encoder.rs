//! Fields into field sections (RFC 9204 §4.5), by the static table alone.

use super::static_table;
use crate::section::encode::{FieldEncoder, Indexing};
use crate::section::{integer, string};

/// An encoder without a dynamic table. It has no state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StaticEncoder;

impl FieldEncoder for StaticEncoder {
    #[inline]
    fn begin(&mut self, out: &mut Vec<u8>) {
        // No entry of a dynamic table is needed, and the base is at its start (RFC 9204 §4.5.1).
        out.extend_from_slice(&[0, 0]);
    }

    #[inline]
    fn status(&mut self, code: u16, out: &mut Vec<u8>) {
        match static_table::status(code) {
            Some(index) => integer::encode(index, 6, 0xc0, out),
            None => {
                let digit = |value: u16| b'0' + (value % 10) as u8;
                integer::encode(static_table::STATUS, 4, 0x50, out);
                out.extend_from_slice(&[3, digit(code / 100), digit(code / 10), digit(code)]);
            }
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        let never = indexing == Indexing::Never;
        match static_table::name(name) {
            Some(first) => {
                if !never && let Some(index) = static_table::value(first, value) {
                    integer::encode(index, 6, 0xc0, out);
                    return;
                }
                integer::encode(first, 4, if never { 0x70 } else { 0x50 }, out);
            }
            None => string::encode(name, 3, if never { 0x30 } else { 0x20 }, out),
        }
        string::encode(value, 7, 0x00, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::h3::QpackDecoder;
    use crate::h3::tests::hex;

    fn encode(fields: &[(&str, &str, Indexing)]) -> Vec<u8> {
        let mut out = Vec::new();
        StaticEncoder.begin(&mut out);
        for (name, value, indexing) in fields {
            StaticEncoder.field(name.as_bytes(), value.as_bytes(), *indexing, &mut out);
        }
        out
    }

    #[test]
    fn the_shortest_representation_is_chosen() {
        let yes = Indexing::Yes;
        assert_eq!(encode(&[(":method", "GET", yes), (":status", "503", yes)]), hex("0000 d1 dc"));
        assert_eq!(encode(&[("x-frame-options", "sameorigin", yes)]), hex("0000 ff23"));
        // RFC 9204 appendix B.1, Huffman-coded.
        assert_eq!(encode(&[(":path", "/index.html", yes)]), hex("0000 51 88 60d5485f2bce9a68"));
        assert_eq!(encode(&[("cookie", "", Indexing::Never)]), hex("0000 75 00"));
        assert_eq!(
            encode(&[("zz", "!", Indexing::Never), ("z", "!", yes)]),
            hex("0000 32 7a7a 0121 21 7a 0121")
        );
    }

    /// What another implementation (ls-qpack, without a dynamic table) writes is written here too, byte for byte, and read.
    #[test]
    fn sections_are_those_of_another_implementation() {
        let request = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "www.example.com"),
            (":path", "/a?b=c"),
            ("user-agent", "curl/8.16.0"),
            ("accept", "*/*"),
            ("x-custom", "{\"k\": [1, 2]}"),
        ];
        let response = [
            (":status", "404"),
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("content-length", "1234"),
            ("vary", "origin"),
            ("x-frame-options", "sameorigin"),
            ("server", "a b"),
        ];
        let of_request = "0000d1d7508cf1e3c2e5f23a6ba0ab90f4ff5185607fe470135f508825b650c3cb85c5c1dd2ef2b12d424f4f0d7b226b223a205b312c20325d7d";
        for (fields, section) in [(request, of_request), (response, "0000dbf4e8548308996bfcff235f4d03612062")]
        {
            assert_eq!(encode(&fields.map(|(name, value)| (name, value, Indexing::No))), hex(section));
            let mut seen = Vec::new();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            QpackDecoder::new()
                .decode(&hex(section), &mut |name, value, _| seen.push((text(name), text(value))))
                .unwrap();
            assert!(seen.iter().map(|(name, value)| (&name[..], &value[..])).eq(fields));
        }
    }

    #[test]
    fn statuses_are_indexed_or_written_out() {
        for code in 100..600 {
            let mut out = Vec::new();
            StaticEncoder.begin(&mut out);
            StaticEncoder.status(code, &mut out);
            let mut seen = Vec::new();
            QpackDecoder::new()
                .decode(&out, &mut |name, value, _| seen.push((name.to_vec(), value.to_vec())))
                .unwrap();
            assert_eq!(seen, [(b":status".to_vec(), format!("{code}").into_bytes())]);
        }
    }

    proptest! {
        #[test]
        fn fields_come_back(fields in prop::collection::vec(
            (prop_oneof![prop::collection::vec(any::<u8>(), 0..40), Just(b"content-type".to_vec()), Just(b"vary".to_vec())],
             prop_oneof![prop::collection::vec(any::<u8>(), 0..200), Just(b"text/css".to_vec()), Just(b"origin".to_vec())],
             any::<bool>()), 0..12)) {
            let mut out = Vec::new();
            StaticEncoder.begin(&mut out);
            for (name, value, never) in &fields {
                StaticEncoder.field(name, value, if *never { Indexing::Never } else { Indexing::Yes }, &mut out);
            }
            let mut seen = Vec::new();
            QpackDecoder::new()
                .decode(&out, &mut |name, value, never| seen.push((name.to_vec(), value.to_vec(), never)))
                .unwrap();
            prop_assert_eq!(seen, fields);
        }
    }
}

//! Blocks of fields into fields (RFC 7541 §3 and §6).

use super::table::Table;
use super::{HpackError, static_table};
use crate::section::integer;
use crate::section::string::{self, Text};

/// Table size updates that a block may start with (RFC 7541 §4.2).
const MAX_SIZE_UPDATES: u32 = 2;

/// The most scratch memory that stays allocated between two blocks.
const KEPT_SCRATCH: usize = 4096;

/// The receiving half of a connection's compression.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Our SETTINGS_HEADER_TABLE_SIZE.
    limit: usize,
    /// Literals that were Huffman-coded.
    scratch: Vec<u8>,
}

impl Decoder {
    /// A decoder whose table may grow to `max_table_size` bytes.
    pub fn new(max_table_size: u32) -> Self {
        let limit = max_table_size as usize;
        // Without a size update the peer's table has the default size, or what we allow if that is less.
        let size = limit.min(super::DEFAULT_TABLE_SIZE as usize);
        Self { table: Table::new(size), limit, scratch: Vec::new() }
    }

    /// Changes our SETTINGS_HEADER_TABLE_SIZE, once the peer has acknowledged it. When the table is larger than that, the next
    /// block has to begin with an update that says so (RFC 7541 §4.2).
    pub fn set_max_table_size(&mut self, max_table_size: u32) {
        self.limit = max_table_size as usize;
    }

    /// Decodes a whole block, and hands each field to `each` as name, value, and whether it must never be indexed further on
    /// (RFC 7541 §6.2.3). Names and values are any bytes at all.
    ///
    /// What this costs is in proportion to the length of the block plus what `each` does: a reference to a table copies nothing
    /// (attack H2-04), and a literal takes eight bytes for each five of the block at most, until the block is decoded. Fields beyond a
    /// limit are for `each` to ignore; they have to be decoded all the same, or the tables would differ for the blocks that follow.
    ///
    /// # Errors
    /// When the block is broken. Fields before the fault have been handed over by then; the connection cannot go on.
    pub fn decode(
        &mut self,
        block: &[u8],
        each: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), HpackError> {
        let result = self.decode_fields(block, each);
        if self.scratch.capacity() > KEPT_SCRATCH {
            self.scratch = Vec::new();
        }
        result
    }

    #[inline]
    fn decode_fields(
        &mut self,
        block: &[u8],
        each: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), HpackError> {
        let mut rest = self.size_updates(block)?;
        while let Some((first, behind)) = rest.split_first() {
            rest = behind;
            match *first {
                0x80.. => {
                    let index = integer::decode(*first, 7, &mut rest)?;
                    let (name, value) = self.entry(index)?;
                    each(name, value, false);
                }
                0x40.. => self.literal(*first, 6, &mut rest, each)?,
                0x20.. => return Err(HpackError::TableSize),
                _ => self.literal(*first, 4, &mut rest, each)?,
            }
        }
        Ok(())
    }

    /// Takes the updates at the start of a block; returns what follows them.
    fn size_updates<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], HpackError> {
        let mut rest = block;
        let mut updates = 0;
        while let Some((first @ 0x20..=0x3f, behind)) = rest.split_first() {
            rest = behind;
            let size = integer::decode(*first, 5, &mut rest)?;
            updates += 1;
            if size > self.limit || updates > MAX_SIZE_UPDATES {
                return Err(HpackError::TableSize);
            }
            self.table.set_max_size(size);
        }
        if self.table.max_size() > self.limit {
            return Err(HpackError::TableSize);
        }
        Ok(rest)
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        match index.checked_sub(static_table::LENGTH + 1) {
            None => static_table::entry(index),
            Some(at) => self.table.entry(at),
        }
        .ok_or(HpackError::Index)
    }

    #[inline]
    fn literal(
        &mut self,
        first: u8,
        prefix: u32,
        rest: &mut &[u8],
        each: &mut impl FnMut(&[u8], &[u8], bool),
    ) -> Result<(), HpackError> {
        let (indexed, never) = (first & 0x40 != 0, first & 0xf0 == 0x10);
        let index = integer::decode(first, prefix, rest)?;
        self.scratch.clear();
        if index == 0 {
            let name = self.string(rest)?;
            let value = self.string(rest)?;
            let (name, value) = (name.bytes(&self.scratch), value.bytes(&self.scratch));
            each(name, value, never);
            if indexed {
                self.table.insert(name, value);
            }
            return Ok(());
        }
        // An index that is wrong is found before the value is decoded for nothing.
        self.entry(index)?;
        let value = self.string(rest)?;
        let value = value.bytes(&self.scratch);
        match index.checked_sub(static_table::LENGTH + 1) {
            None => {
                let name = static_table::entry(index).ok_or(HpackError::Index)?.0;
                each(name, value, never);
                if indexed {
                    self.table.insert(name, value);
                }
            }
            Some(at) => {
                each(self.table.entry(at).ok_or(HpackError::Index)?.0, value, never);
                if indexed {
                    self.table.insert_with_name_of(at, value);
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn string<'a>(&mut self, rest: &mut &'a [u8]) -> Result<Text<'a>, HpackError> {
        let (first, behind) = rest.split_first().ok_or(HpackError::Truncated)?;
        *rest = behind;
        Ok(string::decode(*first, 7, rest, &mut self.scratch)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::hpack::tests::hex;

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.decode(block, &mut |name, value, _| fields.push((text(name), text(value))))?;
        Ok(fields)
    }

    #[track_caller]
    fn check(decoder: &mut Decoder, block: &str, fields: &[(&str, &str)], size: usize) {
        let got = decode(decoder, &hex(block)).unwrap();
        assert!(got.iter().map(|(n, v)| (&n[..], &v[..])).eq(fields.iter().copied()), "{got:?}");
        assert_eq!(decoder.table.size(), size);
    }

    #[test]
    fn single_fields_of_appendix_c_2() {
        let new = || Decoder::new(4096);
        let custom = "400a637573746f6d2d6b65790d637573746f6d2d686561646572";
        check(&mut new(), custom, &[("custom-key", "custom-header")], 55);
        check(&mut new(), "040c2f73616d706c652f70617468", &[(":path", "/sample/path")], 0);
        check(&mut new(), "100870617373776f726406736563726574", &[("password", "secret")], 0);
        check(&mut new(), "82", &[(":method", "GET")], 0);
    }

    #[test]
    fn requests_of_appendix_c_3_and_c_4() {
        let plain = [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ];
        let coded = [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ];
        for [first, second, third] in [plain, coded] {
            let mut decoder = Decoder::new(4096);
            let start =
                [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
            check(&mut decoder, first, &start, 57);
            check(&mut decoder, second, &[&start[..], &[("cache-control", "no-cache")]].concat(), 110);
            let last = [
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/index.html"),
                (":authority", "www.example.com"),
                ("custom-key", "custom-value"),
            ];
            check(&mut decoder, third, &last, 164);
        }
    }

    #[test]
    fn responses_of_appendix_c_5_and_c_6_with_evictions() {
        let plain = [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
        ];
        let coded = [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ];
        for [first, second, third] in [plain, coded] {
            let mut decoder = Decoder::new(256);
            let rest = [
                ("cache-control", "private"),
                ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
                ("location", "https://www.example.com"),
            ];
            check(&mut decoder, first, &[&[(":status", "302")], &rest[..]].concat(), 222);
            check(&mut decoder, second, &[&[(":status", "307")], &rest[..]].concat(), 222);
            let last = [
                (":status", "200"),
                ("cache-control", "private"),
                ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
                ("location", "https://www.example.com"),
                ("content-encoding", "gzip"),
                ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
            ];
            check(&mut decoder, third, &last, 215);
        }
    }

    #[test]
    fn broken_blocks_are_told_apart() {
        for (block, error) in [
            ("80", HpackError::Index),
            ("be", HpackError::Index),
            ("ff80808080808080", HpackError::Integer),
            ("7e0161", HpackError::Index),
            ("40", HpackError::Truncated),
            ("400161", HpackError::Truncated),
            ("40016105", HpackError::Truncated),
            ("407fffffff0f", HpackError::Truncated),
            ("ff", HpackError::Truncated),
            ("400161830fffff", HpackError::Huffman),
            // One beyond the setting, three of them, and one behind a field.
            ("3fe21f", HpackError::TableSize),
            ("20202082", HpackError::TableSize),
            ("8220", HpackError::TableSize),
        ] {
            assert_eq!(decode(&mut Decoder::new(4096), &hex(block)), Err(error), "{block}");
        }
        assert!(decode(&mut Decoder::new(4096), &hex("203fe11f82")).is_ok());
    }

    #[test]
    fn a_smaller_setting_has_to_be_confirmed_by_an_update() {
        let mut decoder = Decoder::new(4096);
        decode(&mut decoder, &hex("4001610162")).unwrap();
        decoder.set_max_table_size(0);
        assert_eq!(decode(&mut decoder, &hex("82")), Err(HpackError::TableSize));
        assert_eq!(decode(&mut decoder, &hex("2082")).unwrap().len(), 1);
        assert_eq!(decoder.table.len(), 0);
        assert_eq!(decode(&mut decoder, &hex("be")), Err(HpackError::Index));
    }

    #[test]
    fn h2_04_literals_of_any_length_are_decoded_and_not_kept() {
        let mut decoder = Decoder::new(4096);
        // 80000 times the letter `a`, in five bits each, behind a field that enters the table and before one that does.
        let code = [0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(10_000);
        let mut block = hex("4001610162");
        for kind in [0x00, 0x40] {
            block.extend_from_slice(&[kind, 1, b'l', 0xff]);
            // 50000 less the prefix of seven bits.
            block.extend_from_slice(&[0xd1, 0x85, 0x03]);
            block.extend_from_slice(&code);
        }
        block.extend_from_slice(&hex("4001630164"));
        let mut lengths = Vec::new();
        decoder.decode(&block, &mut |name, value, _| lengths.push((name.len(), value.len()))).unwrap();
        assert_eq!(lengths, [(1, 1), (1, 80_000), (1, 80_000), (1, 1)]);
        // What is larger than the table empties it (RFC 7541 section 4.4).
        assert_eq!((decoder.table.len(), decoder.table.entry(0)), (1, Some((&b"c"[..], &b"d"[..]))));
        assert_eq!(decoder.scratch.capacity(), 0);
    }

    #[test]
    fn h2_04_references_by_the_thousand_take_no_memory() {
        let mut decoder = Decoder::new(4096);
        let mut block = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &vec![b'x'; 4000]].concat();
        block.resize(block.len() + 16_000, 0xbe);
        let (mut fields, mut bytes) = (0usize, 0usize);
        decoder
            .decode(&block, &mut |name, value, _| {
                fields += 1;
                bytes += name.len() + value.len();
            })
            .unwrap();
        // The same bytes were seen again and again; none was copied.
        assert_eq!((fields, bytes), (16_001, 16_001 * 4001));
        assert_eq!(decoder.scratch.capacity(), 0);
    }
}

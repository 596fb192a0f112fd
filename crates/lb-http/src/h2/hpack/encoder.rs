//! Fields into blocks of fields (RFC 7541 §6), with a dynamic table that is searched by hash.

use super::table::{ENTRY_OVERHEAD, Table};
use super::{DEFAULT_TABLE_SIZE, Indexing, static_table};
use crate::section::encode::FieldEncoder;
use crate::section::{integer, string};

/// The sending half of a connection's compression.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Made with the first entry.
    index: Option<Box<Index>>,
    /// The smallest maximum since the last block, when it has to be announced.
    lowest: Option<usize>,
    /// Whether the maximum has to be announced.
    changed: bool,
}

impl Encoder {
    /// An encoder whose table has the default size and takes no memory yet.
    pub fn new() -> Self {
        Self { table: Table::new(DEFAULT_TABLE_SIZE as usize), index: None, lowest: None, changed: false }
    }

    /// Follows the peer's SETTINGS_HEADER_TABLE_SIZE, up to [`DEFAULT_TABLE_SIZE`]. The next block announces it.
    pub fn set_max_table_size(&mut self, peer: u32) {
        let size = peer.min(DEFAULT_TABLE_SIZE) as usize;
        if size == self.table.max_size() {
            return;
        }
        self.table.set_max_size(size);
        self.lowest = Some(self.lowest.map_or(size, |lowest| lowest.min(size)));
        self.changed = true;
    }

    /// Starts a block: writes the table size updates that are owed, the smallest size first (RFC 7541 §4.2).
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.changed {
            return;
        }
        let size = self.table.max_size();
        if let Some(lowest) = self.lowest.filter(|lowest| *lowest < size) {
            integer::encode(lowest, 5, 0x20, out);
        }
        integer::encode(size, 5, 0x20, out);
        self.lowest = None;
        self.changed = false;
    }

    /// Writes `:status`.
    #[inline]
    pub fn status(&mut self, code: u16, out: &mut Vec<u8>) {
        if let Some(index) = static_table::status(code) {
            out.push(0x80 | index as u8);
            return;
        }
        let digit = |value: u16| b'0' + (value % 10) as u8;
        self.field(b":status", &[digit(code / 100), digit(code / 10), digit(code)], Indexing::Yes, out);
    }

    /// Writes a field. The name is in lower case already.
    pub fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        let known = static_table::name(name);
        if let Some(index) =
            known.filter(|_| indexing != Indexing::Never).and_then(|first| static_table::value(first, value))
        {
            out.push(0x80 | index as u8);
            return;
        }
        // A name of the static table stands for itself.
        let name_hash = known.map_or_else(|| hash(0, name), |index| mix(index as u64));
        let field_hash = hash(name_hash, value);
        if indexing == Indexing::Yes
            && let Some(at) = self.find_field(field_hash, name, value)
        {
            integer::encode(static_table::LENGTH + 1 + at, 7, 0x80, out);
            return;
        }
        let named = known.or_else(|| Some(static_table::LENGTH + 1 + self.find_name(name_hash, name)?));
        // What would push out more than half of the table is not worth it.
        let size = name.len().saturating_add(value.len()).saturating_add(ENTRY_OVERHEAD);
        let insert = indexing == Indexing::Yes && size <= self.table.max_size() / 2;
        let (prefix, pattern) = match indexing {
            Indexing::Never => (4, 0x10),
            _ if insert => (6, 0x40),
            _ => (4, 0x00),
        };
        integer::encode(named.unwrap_or(0), prefix, pattern, out);
        if named.is_none() {
            string::encode(name, 7, 0x00, out);
        }
        string::encode(value, 7, 0x00, out);
        if insert {
            self.insert(name, value, known.is_none().then_some(name_hash), field_hash);
        }
    }

    #[inline]
    fn find_field(&self, hash: u64, name: &[u8], value: &[u8]) -> Option<usize> {
        let index = self.index.as_deref()?;
        index.fields.find(hash, &self.table, |entry| entry.1 == value && entry.0 == name)
    }

    #[inline]
    fn find_name(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let index = self.index.as_deref()?;
        index.names.find(hash, &self.table, |entry| entry.0 == name)
    }

    fn insert(&mut self, name: &[u8], value: &[u8], name_hash: Option<u64>, field_hash: u64) {
        let number = self.table.inserted();
        self.table.insert(name, value);
        let index = self.index.get_or_insert_with(Box::default);
        index.fields.insert(field_hash, number, &self.table);
        if let Some(hash) = name_hash {
            index.names.insert(hash, number, &self.table);
        }
    }
}

impl FieldEncoder for Encoder {
    #[inline]
    fn begin(&mut self, out: &mut Vec<u8>) {
        Self::begin(self, out);
    }

    #[inline]
    fn status(&mut self, code: u16, out: &mut Vec<u8>) {
        Self::status(self, code, out);
    }

    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        Self::field(self, name, value, indexing, out);
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Default)]
struct Index {
    /// By name and value.
    fields: Buckets,
    /// By name alone, for names that the static table has not.
    names: Buckets,
}

/// Where entries of the table may be found by hash.
///
/// A bucket has four slots, and a fifth entry takes the slot of the oldest: an entry that is lost is only not found, and written
/// once more. A slot that survives its entry does no harm either, because what it names is compared before it is used. So
/// eviction costs nothing here, and an attacker gains nothing by choosing fields that fall into one bucket.
#[derive(Debug)]
struct Buckets([[Slot; 4]; BUCKETS]);

const BUCKETS: usize = 64;

/// Bits of the hash, and the low bits of the entry's number.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u16,
    number: u16,
}

impl Default for Buckets {
    fn default() -> Self {
        Self([[Slot::default(); 4]; BUCKETS])
    }
}

impl Buckets {
    #[inline]
    fn find(&self, hash: u64, table: &Table, matches: impl Fn((&[u8], &[u8])) -> bool) -> Option<usize> {
        let tag = tag(hash);
        let bucket = self.0.get(bucket(hash))?;
        bucket.iter().filter(|slot| slot.tag == tag).find_map(|slot| {
            let at = age(slot.number, table);
            table.entry(at).is_some_and(&matches).then_some(at)
        })
    }

    fn insert(&mut self, hash: u64, number: u32, table: &Table) {
        let Some(bucket) = self.0.get_mut(bucket(hash)) else { return };
        // The oldest, or one whose entry is gone, which is older still.
        if let Some(slot) = bucket.iter_mut().max_by_key(|slot| age(slot.number, table)) {
            *slot = Slot { tag: tag(hash), number: number as u16 };
        }
    }
}

/// How many entries came after the one with that number.
#[inline]
fn age(number: u16, table: &Table) -> usize {
    usize::from((table.inserted() as u16).wrapping_sub(number).wrapping_sub(1))
}

#[inline]
fn tag(hash: u64) -> u16 {
    // Never what an empty slot has.
    (hash >> 48) as u16 | 1
}

#[inline]
fn bucket(hash: u64) -> usize {
    (hash >> 32) as usize % BUCKETS
}

/// Spreads well enough for a cache, and reads eight bytes at a time. It need not resist an adversary: see [`Buckets`].
#[inline]
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        if let Some(eight) = chunk.first_chunk::<8>() {
            hash = mix(hash ^ u64::from_le_bytes(*eight));
        }
    }
    // The last eight bytes, some of them for the second time; or a short text, whose bytes overlap in the middle.
    let tail = if let Some(eight) = bytes.last_chunk::<8>() {
        if chunks.remainder().is_empty() {
            return hash;
        }
        u64::from_le_bytes(*eight)
    } else if let (Some(head), Some(tail)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        u64::from(u32::from_le_bytes(*head)) << 32 | u64::from(u32::from_le_bytes(*tail))
    } else {
        bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
    };
    mix(hash ^ tail)
}

#[inline]
fn mix(value: u64) -> u64 {
    let wide = value.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd6e8_feb8_6659_fd93);
    wide ^ (wide >> 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::h2::hpack::tests::hex;
    use crate::h2::hpack::{Decoder, HpackError};

    fn encode(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            encoder.field(name.as_bytes(), value.as_bytes(), Indexing::Yes, &mut out);
        }
        out
    }

    #[test]
    fn requests_come_out_as_in_appendix_c_4() {
        let mut encoder = Encoder::new();
        let start =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(encode(&mut encoder, &start), hex("828684418cf1e3c2e5f23a6ba0ab90f4ff"));
        let second = [&start[..], &[("cache-control", "no-cache")]].concat();
        assert_eq!(encode(&mut encoder, &second), hex("828684be5886a8eb10649cbf"));
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(encode(&mut encoder, &third), hex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"));
    }

    #[test]
    fn responses_come_out_as_in_appendix_c_6_with_evictions() {
        let mut encoder = Encoder::new();
        encoder.set_max_table_size(256);
        let rest = [
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ];
        let first = encode(&mut encoder, &[&[(":status", "302")], &rest[..]].concat());
        // The RFC's peers agree on 256 by other means; ours says so.
        assert_eq!(first[..3], hex("3fe101"));
        assert_eq!(
            first[3..],
            hex(
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"
            )
        );
        let mut second = Vec::new();
        encoder.begin(&mut second);
        encoder.status(307, &mut second);
        second.extend(encode(&mut encoder, &rest));
        // A code as long as the text saves nothing, so "307" stays plain; the RFC's example takes the code.
        let printed = hex("4803333037c1c0bf");
        assert_eq!(second, printed);
        let third = encode(
            &mut encoder,
            &[
                (":status", "200"),
                ("cache-control", "private"),
                ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
                ("location", "https://www.example.com"),
                ("content-encoding", "gzip"),
                ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
            ],
        );
        assert_eq!(
            third,
            hex(
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
            )
        );
    }

    #[test]
    fn what_must_not_be_indexed_is_not() {
        let mut encoder = Encoder::new();
        let mut out = Vec::new();
        encoder.field(b"authorization", b"\0\x01", Indexing::Never, &mut out);
        assert_eq!(out, hex("1f0802 0001"));
        out.clear();
        encoder.field(b"password", b"secret", Indexing::Never, &mut out);
        assert_eq!(out[0], 0x10);
        out.clear();
        encoder.field(b"content-length", b"9", Indexing::No, &mut out);
        assert_eq!(out, hex("0f0d0139"));
        assert_eq!(encoder.table.inserted(), 0);
        assert!(encoder.index.is_none());
    }

    #[test]
    fn the_smallest_size_is_announced_before_the_last() {
        let mut encoder = Encoder::new();
        encode(&mut encoder, &[("a", "b")]);
        encoder.set_max_table_size(100);
        encoder.set_max_table_size(0);
        encoder.set_max_table_size(100_000);
        assert_eq!(encode(&mut encoder, &[("a", "b")])[..4], hex("203fe11f"));
        // It came back to where it was, and the entry is gone all the same; afterwards nothing is owed.
        assert_eq!(encode(&mut encoder, &[("a", "b")]), hex("be"));
        encoder.set_max_table_size(4096);
        assert_eq!(encode(&mut encoder, &[("a", "b")]), hex("be"));
    }

    #[test]
    fn a_large_field_does_not_push_out_the_others() {
        let mut encoder = Encoder::new();
        encode(&mut encoder, &[("a", "b")]);
        encode(&mut encoder, &[("large", &"x".repeat(3000))]);
        assert_eq!(encode(&mut encoder, &[("a", "b")]), hex("be"));
    }

    #[test]
    fn fields_that_come_again_are_found_however_many_there_are() {
        let mut encoder = Encoder::new();
        let names: Vec<String> = (0..40).map(|n| format!("x-field-{n}")).collect();
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (&name[..], "value")).collect();
        encode(&mut encoder, &fields);
        for _ in 0..3 {
            // All but those that a full bucket loses.
            assert!(encode(&mut encoder, &fields).len() < 60);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Block(Vec<(Vec<u8>, Vec<u8>, u8)>),
        Resize(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few different names and values, so that the tables are hit.
        let name =
            prop_oneof!["[a-c]{1,2}", "(:status|date|cookie|:path|accept-encoding|x-long-name-of-a-field)"];
        let value =
            prop_oneof!["[xy]{0,2}", "(200|/|gzip, deflate)", "[ -~]{0,120}"].prop_map(String::into_bytes);
        let value = prop_oneof![4 => value, 1 => prop::collection::vec(any::<u8>(), 0..400)];
        let field = (name.prop_map(String::into_bytes), value, 0u8..8);
        prop_oneof![
            5 => prop::collection::vec(field, 0..12).prop_map(Step::Block),
            1 => (0u32..5000).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #[test]
        fn the_decoder_reads_what_the_encoder_wrote(steps in prop::collection::vec(step(), 0..40)) {
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
            for step in steps {
                match step {
                    Step::Resize(size) => encoder.set_max_table_size(size),
                    Step::Block(fields) => {
                        let mut block = Vec::new();
                        encoder.begin(&mut block);
                        for (name, value, kind) in &fields {
                            let indexing = match kind { 0 => Indexing::Never, 1 => Indexing::No, _ => Indexing::Yes };
                            encoder.field(name, value, indexing, &mut block);
                        }
                        let mut got = Vec::new();
                        decoder.decode(&block, &mut |n, v, never| got.push((n.to_vec(), v.to_vec(), never))).unwrap();
                        let sent: Vec<_> = fields.into_iter().map(|(n, v, kind)| (n, v, kind == 0)).collect();
                        prop_assert_eq!(got, sent);
                    }
                }
            }
        }

        #[test]
        fn random_bytes_never_panic_and_never_unfold_without_bound(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
            let mut decoder = Decoder::new(4096);
            for block in blocks {
                let (mut fields, mut longest) = (0, 0);
                let result = decoder.decode(&block, &mut |name, value, _| {
                    fields += 1;
                    longest = longest.max(name.len()).max(value.len());
                });
                // A symbol of a literal has five bits at least, and an entry of the table 4096 bytes at most.
                prop_assert!(fields <= block.len() && longest <= (block.len() * 8 / 5).max(4096));
                if let Err(HpackError::Huffman | HpackError::Integer) = result {
                    break;
                }
            }
        }
    }
}

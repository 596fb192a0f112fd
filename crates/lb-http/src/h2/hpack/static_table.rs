//! The static table (RFC 7541 Appendix A), and how to find a name in it with one multiplication.

/// Entries of the table.
pub const LENGTH: usize = 61;

/// Slots of the index of names.
const SLOTS: usize = 256;

/// With it the names of the table fall into different slots; building the index proves that.
const MULTIPLIER: u32 = 0x1b65_3a25;

/// Name and value of each entry; index 1 comes first.
pub static ENTRIES: [(&[u8], &[u8]); LENGTH] = TABLE;

/// For each slot the first entry of the name that falls there, counted from 1.
static NAMES: [u8; SLOTS] = names();

#[rustfmt::skip]
const TABLE: [(&[u8], &[u8]); LENGTH] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// The entry at `index`, which counts from 1.
#[inline]
pub fn entry(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    ENTRIES.get(index.checked_sub(1)?).copied()
}

/// The first index whose name is `name`.
#[inline]
pub fn name(name: &[u8]) -> Option<usize> {
    let (first, last) = (name.first()?, name.last()?);
    let index = NAMES.get(slot(name.len(), *first, *last)).copied().map(usize::from)?;
    (entry(index)?.0 == name).then_some(index)
}

/// The index of the entry with this value among those of a name, of which `first` is the first.
#[inline]
pub fn value(first: usize, value: &[u8]) -> Option<usize> {
    let last = match first {
        2 | 4 | 6 => first + 1,
        8 => 14,
        16 => 16,
        // The others have no value, and an empty value is not worth a look.
        _ => return None,
    };
    (first..=last).find(|index| entry(*index).is_some_and(|entry| entry.1 == value))
}

/// The index of `:status` with this code.
#[inline]
pub fn status(code: u16) -> Option<usize> {
    Some(match code {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => return None,
    })
}

#[inline]
const fn slot(length: usize, first: u8, last: u8) -> usize {
    // A long name loses its high bits, which costs nothing: the name itself is compared in the end.
    let key = (length as u32 & 0xff) | ((first as u32) << 8) | ((last as u32) << 16);
    (key.wrapping_mul(MULTIPLIER) >> 24) as usize
}

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where it fails the build")]
const fn names() -> [u8; SLOTS] {
    let mut slots = [0u8; SLOTS];
    let mut at = LENGTH;
    // From the end, so that the first entry of a name stays.
    while at > 0 {
        let name = TABLE[at - 1].0;
        let slot = slot(name.len(), name[0], name[name.len() - 1]);
        let there = slots[slot] as usize;
        assert!(there == 0 || same(TABLE[there - 1].0, name), "two names fall into one slot");
        slots[slot] = at as u8;
        at -= 1;
    }
    slots
}

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where it fails the build")]
const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_name_and_value() {
        for (at, (name_of, value_of)) in ENTRIES.iter().enumerate() {
            let first = name(name_of).unwrap();
            assert!(first <= at + 1 && ENTRIES[first - 1].0 == *name_of);
            assert!(first == 1 || ENTRIES[first - 2].0 != *name_of);
            if !value_of.is_empty() {
                assert_eq!(value(first, value_of), Some(at + 1));
            }
        }
        for unknown in [&b""[..], b"x", b":statu", b":Status", b"x-backend", &[b'a'; 300]] {
            assert_eq!(name(unknown), None);
        }
        assert_eq!(value(8, b"201"), None);
        for code in 0..700 {
            assert_eq!(status(code), value(8, format!("{code}").as_bytes()));
        }
    }
}

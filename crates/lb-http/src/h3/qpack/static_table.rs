//! The static table (RFC 9204 Appendix A), and how to find a name in it with one multiplication.

/// Entries of the table.
pub(super) const LENGTH: usize = 99;

/// Slots of the index of names.
const SLOTS: usize = 256;

/// With it the names of the table fall into different slots; building the index proves that.
const MULTIPLIER: u32 = 0xb222_1a59;

/// Stands for no entry.
const NONE: u8 = u8::MAX;

/// The entry of `:status` with the lowest index.
pub(super) const STATUS: usize = 24;

/// Name and value of each entry; index 0 comes first.
static ENTRIES: [(&[u8], &[u8]); LENGTH] = TABLE;

/// For each slot the first entry of the name that falls there.
static NAMES: [u8; SLOTS] = names();

/// For each entry the next one of the same name.
static NEXT: [u8; LENGTH] = next();

#[rustfmt::skip]
const TABLE: [(&[u8], &[u8]); LENGTH] = [
    (b":authority", b""),
    (b":path", b"/"),
    (b"age", b"0"),
    (b"content-disposition", b""),
    (b"content-length", b"0"),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"referer", b""),
    (b"set-cookie", b""),
    (b":method", b"CONNECT"),
    (b":method", b"DELETE"),
    (b":method", b"GET"),
    (b":method", b"HEAD"),
    (b":method", b"OPTIONS"),
    (b":method", b"POST"),
    (b":method", b"PUT"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"103"),
    (b":status", b"200"),
    (b":status", b"304"),
    (b":status", b"404"),
    (b":status", b"503"),
    (b"accept", b"*/*"),
    (b"accept", b"application/dns-message"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-ranges", b"bytes"),
    (b"access-control-allow-headers", b"cache-control"),
    (b"access-control-allow-headers", b"content-type"),
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"max-age=0"),
    (b"cache-control", b"max-age=2592000"),
    (b"cache-control", b"max-age=604800"),
    (b"cache-control", b"no-cache"),
    (b"cache-control", b"no-store"),
    (b"cache-control", b"public, max-age=31536000"),
    (b"content-encoding", b"br"),
    (b"content-encoding", b"gzip"),
    (b"content-type", b"application/dns-message"),
    (b"content-type", b"application/javascript"),
    (b"content-type", b"application/json"),
    (b"content-type", b"application/x-www-form-urlencoded"),
    (b"content-type", b"image/gif"),
    (b"content-type", b"image/jpeg"),
    (b"content-type", b"image/png"),
    (b"content-type", b"text/css"),
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-type", b"text/plain"),
    (b"content-type", b"text/plain;charset=utf-8"),
    (b"range", b"bytes=0-"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains; preload"),
    (b"vary", b"accept-encoding"),
    (b"vary", b"origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-xss-protection", b"1; mode=block"),
    (b":status", b"100"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"302"),
    (b":status", b"400"),
    (b":status", b"403"),
    (b":status", b"421"),
    (b":status", b"425"),
    (b":status", b"500"),
    (b"accept-language", b""),
    (b"access-control-allow-credentials", b"FALSE"),
    (b"access-control-allow-credentials", b"TRUE"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-allow-methods", b"get"),
    (b"access-control-allow-methods", b"get, post, options"),
    (b"access-control-allow-methods", b"options"),
    (b"access-control-expose-headers", b"content-length"),
    (b"access-control-request-headers", b"content-type"),
    (b"access-control-request-method", b"get"),
    (b"access-control-request-method", b"post"),
    (b"alt-svc", b"clear"),
    (b"authorization", b""),
    (b"content-security-policy", b"script-src 'none'; object-src 'none'; base-uri 'none'"),
    (b"early-data", b"1"),
    (b"expect-ct", b""),
    (b"forwarded", b""),
    (b"if-range", b""),
    (b"origin", b""),
    (b"purpose", b"prefetch"),
    (b"server", b""),
    (b"timing-allow-origin", b"*"),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", b""),
    (b"x-forwarded-for", b""),
    (b"x-frame-options", b"deny"),
    (b"x-frame-options", b"sameorigin"),
];

/// The entry with this index.
#[inline]
pub(super) fn entry(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    ENTRIES.get(index).copied()
}

/// The first index whose name is `name`.
#[inline]
pub(super) fn name(name: &[u8]) -> Option<usize> {
    let index = NAMES.get(slot(key(name)?)).copied().map(usize::from)?;
    (entry(index)?.0 == name).then_some(index)
}

/// The index of the entry with this value among those of a name, of which `first` is the first.
#[inline]
pub(super) fn value(first: usize, value: &[u8]) -> Option<usize> {
    let mut index = first;
    loop {
        if entry(index)?.1 == value {
            return Some(index);
        }
        index = NEXT.get(index).copied().map(usize::from)?;
    }
}

/// The index of `:status` with this code.
#[inline]
pub(super) fn status(code: u16) -> Option<usize> {
    Some(match code {
        103 => 24,
        200 => 25,
        304 => 26,
        404 => 27,
        503 => 28,
        100 => 63,
        204 => 64,
        206 => 65,
        302 => 66,
        400 => 67,
        403 => 68,
        421 => 69,
        425 => 70,
        500 => 71,
        _ => return None,
    })
}

/// Length and three bytes of a name. Of a long name the length loses its high bits, which costs nothing: the name itself is compared in the
/// end.
#[inline]
fn key(name: &[u8]) -> Option<[u8; 4]> {
    Some([name.len() as u8, *name.first()?, *name.last()?, *name.get(name.len() * 3 / 4)?])
}

#[inline]
const fn slot(key: [u8; 4]) -> usize {
    (u32::from_le_bytes(key).wrapping_mul(MULTIPLIER) >> 24) as usize
}

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where it fails the build")]
const fn names() -> [u8; SLOTS] {
    let mut slots = [NONE; SLOTS];
    let mut at = LENGTH;
    // From the end, so that the first entry of a name stays.
    while at > 0 {
        at -= 1;
        let name = TABLE[at].0;
        let slot = slot([name.len() as u8, name[0], name[name.len() - 1], name[name.len() * 3 / 4]]);
        let there = slots[slot];
        assert!(there == NONE || same(TABLE[there as usize].0, name), "two names fall into one slot");
        slots[slot] = at as u8;
    }
    slots
}

#[expect(clippy::indexing_slicing, reason = "runs while compiling, where it fails the build")]
const fn next() -> [u8; LENGTH] {
    let mut next = [NONE; LENGTH];
    let mut at = 0;
    while at < LENGTH {
        let mut other = at + 1;
        while other < LENGTH && !same(TABLE[at].0, TABLE[other].0) {
            other += 1;
        }
        if other < LENGTH {
            next[at] = other as u8;
        }
        at += 1;
    }
    next
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
            assert!(first <= at && ENTRIES[..first].iter().all(|entry| entry.0 != *name_of));
            assert_eq!(value(first, value_of), Some(at));
        }
        for unknown in [&b""[..], b"x", b":statu", b":Status", b"x-backend", &[b'a'; 300]] {
            assert_eq!(name(unknown), None);
        }
        assert_eq!((name(b":status"), value(STATUS, b"201")), (Some(STATUS), None));
        for code in 0..700 {
            assert_eq!(status(code), value(STATUS, format!("{code}").as_bytes()));
        }
    }
}

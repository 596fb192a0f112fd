//! One canonical form of a path, made once, which is matched, logged and forwarded.
//!
//! Matching one form of a path and forwarding another lets people past guards (attacks ). Unreserved characters are decoded, hex
//! digits are upper case, dot segments are resolved (RFC 3986 §6.2.2), and leading slashes are one, since `//x` reads as an authority.

use super::readings::{MERGE, resolve_dots};

/// What is done about paths that are not plain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathPolicy {
    /// The canonical form is forwarded; without it the path goes on as it came, and the canonical form is a further reading of it.
    pub normalize: bool,
    /// Paths that could be read as another route's pass.
    pub allow_ambiguous: bool,
    /// Runs of slashes are one slash.
    pub merge_slashes: bool,
}

impl Default for PathPolicy {
    fn default() -> Self {
        Self { normalize: true, allow_ambiguous: false, merge_slashes: false }
    }
}

/// Why a path is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathFault {
    /// It breaks the grammar, or leads above the root.
    Syntax,
    /// It can be read as the path of another route, or of none.
    Ambiguous,
}

/// Whether a path is its own canonical form at first sight, and has no second reading. A path of which this is false may be as good.
#[inline]
pub fn is_plain(path: &[u8]) -> bool {
    // Without an early end, and with each byte by itself, the compiler looks at many bytes at a time.
    let odd = |byte: &u8| matches!(byte, b'%' | b'\\' | b';') | (*byte <= b' ') | (*byte >= 0x7f);
    let odd_pair = |one: &u8, next: &u8| (*one == b'/') & matches!(next, b'/' | b'.');
    let odd_bytes = path.iter().fold(false, |found, byte| found | odd(byte));
    let pairs = path.iter().zip(path.get(1..).unwrap_or_default());
    let odd_pairs = pairs.fold(false, |found, (one, next)| found | odd_pair(one, next));
    path.first() == Some(&b'/') && !odd_bytes && !odd_pairs
}

/// Whether a canonical path has another reading.
pub fn is_suspicious(path: &[u8]) -> bool {
    path.contains(&b';')
        || path.windows(2).any(|pair| pair == b"//")
        || path.windows(3).any(|three| match three {
            [b'%', code @ ..] => {
                matches!(code, b"2F" | b"5C" | b"25" | b"3B" | b"3F" | b"23" | b"C0" | b"C1" | b"E0" | b"F0")
            }
            _ => false,
        })
}

/// The canonical form of a path.
///
/// # Errors
/// When it has none.
pub fn canonical(path: &[u8], merge_slashes: bool) -> Result<Vec<u8>, PathFault> {
    if path.first() != Some(&b'/') {
        return Err(PathFault::Syntax);
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (value, after) = escape(rest).ok_or(PathFault::Syntax)?;
                rest = after;
                match value {
                    // A line or a text of C ends there (attack R-06).
                    0..=0x1f | 0x7f => return Err(PathFault::Syntax),
                    value if is_unreserved(value) => decoded.push(value),
                    value => push_escape(&mut decoded, value),
                }
            }
            // Some take it for a slash.
            b'\\' | 0..=b' ' | 0x7f.. => return Err(PathFault::Syntax),
            byte => decoded.push(*byte),
        }
    }
    let features = if merge_slashes { MERGE } else { 0 };
    resolve_dots(&decoded, features).ok_or(PathFault::Syntax)
}

/// The byte that two hex digits stand for, and what follows them.
pub(super) fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], rest) = text.split_first_chunk()?;
    let digit = |hex: u8| char::from(hex).to_digit(16);
    Some((u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?, rest))
}

fn push_escape(text: &mut Vec<u8>, value: u8) {
    let digit =
        |half: u8| if half < 10 { b'0'.wrapping_add(half) } else { b'A'.wrapping_add(half.wrapping_sub(10)) };
    text.extend_from_slice(&[b'%', digit(value >> 4), digit(value & 15)]);
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(path: &str) -> Result<String, PathFault> {
        canonical(path.as_bytes(), false).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn r_01_dot_segments_are_resolved_however_they_are_written() {
        for path in [
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/.%2E/admin",
            "/./admin",
            "//admin",
            "/%61dmin",
            "///./admin",
        ] {
            assert_eq!(form(path).as_deref(), Ok("/admin"), "{path}");
        }
        for (path, canonical) in [
            ("/", "/"),
            ("/a/", "/a/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a//b", "/a//b"),
            ("/a/..//b", "/b"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%3bb;c", "/a%3Bb;c"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a%7eb", "/a~b"),
            ("/%c3%a4", "/%C3%A4"),
        ] {
            assert_eq!(form(path).as_deref().ok(), Some(canonical), "{path}");
        }
    }

    #[test]
    fn r_06_what_no_two_read_alike_is_refused() {
        for path in [
            "/..",
            "/a/../..",
            "/%2e%2e/a",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%00",
            "/%0a",
            "/%1F",
            "/%7f",
            "/a\\b",
            "a",
            "",
            "*",
            "/a b",
            "/\u{7f}",
            "/\u{e4}",
        ] {
            assert_eq!(form(path), Err(PathFault::Syntax), "{path:?}");
        }
    }

    #[test]
    fn slashes_are_merged_where_that_is_asked_for() {
        let merged = |path: &str| String::from_utf8(canonical(path.as_bytes(), true).unwrap()).unwrap();
        assert_eq!(merged("//a///b/"), "/a/b/");
        assert_eq!(merged("/public//../admin"), "/admin");
        assert_eq!(form("/public//../admin").unwrap(), "/public/admin");
    }

    #[test]
    fn plain_paths_are_canonical() {
        for path in ["/", "/a/b.c", "/a.b/c-d_e~f", "/a:b@c!d$e&f'g(h)i*j+k,l=m"] {
            assert!(is_plain(path.as_bytes()) && form(path).as_deref() == Ok(path), "{path}");
        }
        for path in ["", "a", "//a", "/a//b", "/a/./b", "/.a", "/a%41", "/a;b", "/a\\b", "/\u{e4}", "*"] {
            assert!(!is_plain(path.as_bytes()), "{path}");
        }
    }
}

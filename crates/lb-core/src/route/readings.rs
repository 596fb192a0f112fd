//! What else a path could mean to a backend.
//!
//! Backends take encoded slashes for slashes, cut parameters from segments, merge slashes, cut a path at an encoded question mark, decode
//! twice. Each reading is the canonical path with some of these habits, before or after up to three rounds of decoding, dot segments resolved
//! again. A request passes only where its route is the same under all of them (attacks ).

use std::borrow::Cow;

use super::path::{PathFault, escape};

/// Encoded slashes and backslashes are slashes.
const SLASHES: u8 = 1;
/// Segments end at their first `;`.
const PARAMETERS: u8 = 2;
/// The path ends at an encoded `?` or `#`.
const CUT: u8 = 4;
/// The habits that have readings of their own in every text that they change.
const ALL: u8 = SLASHES | PARAMETERS | CUT;

/// Runs of slashes are one slash; looked at where there are any once the other habits have had their turn.
pub(super) const MERGE: u8 = 8;

/// Rounds of decoding that a backend is thought capable of.
const ROUNDS: usize = 3;

/// Calls `visit` with each way in which a lenient backend could read a canonical path, until it returns false. `None` is a path that leads
/// above the root. Some readings may come more than once.
///
/// # Errors
/// When a path is not worth a guess: decoding does not come to an end, or yields control characters or overlong UTF-8.
pub fn each(path: &[u8], mut visit: impl FnMut(Option<&[u8]>) -> bool) -> Result<(), PathFault> {
    let bare = without_parameters(path);
    let texts = std::iter::once(path.to_vec()).chain((bare != path).then_some(bare));
    for mut text in texts {
        for round in 0..=ROUNDS {
            refuse_overlong(&text)?;
            if !habits(&text, &mut visit) {
                return Ok(());
            }
            let Some(decoded) = decode(&text)? else { break };
            if round == ROUNDS {
                return Err(PathFault::Ambiguous);
            }
            text = decoded;
        }
    }
    Ok(())
}

/// Visits a text under every set of habits that change it.
fn habits(text: &[u8], visit: &mut impl FnMut(Option<&[u8]>) -> bool) -> bool {
    let has = |features: u8| {
        let mut features = features;
        if !text.contains(&b'\\') && !has_escape(text, &[b"2F", b"5C"]) {
            features &= !SLASHES;
        }
        if !text.contains(&b';') {
            features &= !PARAMETERS;
        }
        if !text.iter().any(|byte| matches!(byte, b'?' | b'#')) && !has_escape(text, &[b"3F", b"23"]) {
            features &= !CUT;
        }
        features
    };
    let useful = has(ALL);
    (0..=ALL).filter(|features| features & !useful == 0).all(|features| {
        let text = if features & CUT == 0 { text } else { text.get(..end_of_path(text)).unwrap_or(text) };
        let mut read = Cow::Borrowed(text);
        if features & SLASHES != 0 {
            read = Cow::Owned(with_slashes(&read));
        }
        if features & PARAMETERS != 0 {
            read = Cow::Owned(without_parameters(&read));
        }
        let merges = read.windows(2).any(|pair| pair == b"//");
        visit(resolve_dots(&read, 0).as_deref()) && (!merges || visit(resolve_dots(&read, MERGE).as_deref()))
    })
}

fn has_escape(text: &[u8], codes: &[&[u8; 2]]) -> bool {
    text.windows(3).any(|three| match three {
        [b'%', code @ ..] => codes.iter().any(|wanted| code.eq_ignore_ascii_case(*wanted)),
        _ => false,
    })
}

/// Where the path ends for those who cut it at an encoded `?` or `#`.
fn end_of_path(text: &[u8]) -> usize {
    let raw = text.iter().position(|byte| matches!(byte, b'?' | b'#'));
    let encoded = text.windows(3).position(|three| matches!(three, b"%3F" | b"%3f" | b"%23"));
    raw.unwrap_or(text.len()).min(encoded.unwrap_or(text.len()))
}

fn with_slashes(text: &[u8]) -> Vec<u8> {
    let mut read = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [b'%', b'2', b'F' | b'f', after @ ..]
            | [b'%', b'5', b'C' | b'c', after @ ..]
            | [b'\\', after @ ..] => {
                read.push(b'/');
                rest = after;
            }
            [byte, after @ ..] => {
                read.push(*byte);
                rest = after;
            }
            [] => return read,
        }
    }
}

fn without_parameters(text: &[u8]) -> Vec<u8> {
    let mut is_parameter = false;
    let kept = text.iter().filter(|byte| {
        is_parameter = **byte != b'/' && (is_parameter || **byte == b';');
        !is_parameter
    });
    kept.copied().collect()
}

/// The text with every escape decoded once; `None` when there is none.
fn decode(text: &[u8]) -> Result<Option<Vec<u8>>, PathFault> {
    let mut read = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, escape(after)) {
            (b'%', Some((0..=0x1f | 0x7f, _))) => return Err(PathFault::Ambiguous),
            (b'%', Some((value, after))) => {
                read.push(value);
                rest = after;
            }
            _ => read.push(*byte),
        }
    }
    Ok((read.len() != text.len()).then_some(read))
}

/// Refuses what is no UTF-8 but a second spelling of ASCII to those who do not look closely, encoded or not.
fn refuse_overlong(text: &[u8]) -> Result<(), PathFault> {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let (value, after) = match (byte, escape(after)) {
            (b'%', Some(found)) => found,
            _ => (*byte, after),
        };
        let next = match after {
            [b'%', code @ ..] => escape(code).map_or(b'%', |(value, _)| value),
            [byte, ..] => *byte,
            [] => 0,
        };
        match (value, next) {
            (0xc0 | 0xc1, _) | (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f) => return Err(PathFault::Ambiguous),
            _ => rest = after,
        }
    }
    Ok(())
}

/// The path without dot segments, with one slash at its begin (RFC 3986 §5.2.4); `None` when it leads above the root. Of `features` only
/// [`MERGE`] counts.
pub(super) fn resolve_dots(text: &[u8], features: u8) -> Option<Vec<u8>> {
    let merges = features & MERGE != 0;
    let inside = text.strip_prefix(b"/").unwrap_or(text);
    let mut path: Vec<u8> = Vec::with_capacity(text.len().saturating_add(1));
    let mut segments = inside.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = path.iter().rposition(|byte| *byte == b'/')?;
                path.truncate(parent);
            }
            b"" if !is_last && (merges || path.is_empty()) => continue,
            segment => {
                path.push(b'/');
                path.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            path.push(b'/');
        }
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &str) -> Result<Vec<String>, PathFault> {
        let mut found = Vec::new();
        each(path.as_bytes(), |path| {
            let text = path.map_or("above".to_owned(), |path| String::from_utf8_lossy(path).into_owned());
            if !found.contains(&text) {
                found.push(text);
            }
            true
        })?;
        Ok(found)
    }

    #[test]
    fn each_habit_has_its_reading() {
        let has = |path: &str, reading: &str| {
            assert!(
                all(path).unwrap().iter().any(|read| read == reading),
                "{path} as {reading}: {:?}",
                all(path)
            );
        };
        has("/public%2F..%2Fadmin", "/admin");
        has("/public%5C..%5Cadmin", "/admin");
        has("/public/..;/admin", "/admin");
        has("/admin;x/", "/admin/");
        has("/;/admin", "/admin");
        has("/public//../admin", "/admin");
        has("/admin%3Fx", "/admin");
        has("/admin%23x", "/admin");
        has("/public/%252e%252e/admin", "/admin");
        has("/public/%25252e%25252e/admin", "/admin");
        has("/public%252F..%252Fadmin", "/admin");
        has("/admin%3Bx", "/admin");
        has("/a;b%2F..%2Fc", "/c");
        has("/a;b%2Fc", "/a");
        has("/a;b%2Fc", "/a/c");
        has("/%2F..%2F..", "above");
        has("/api%2Fv1//x;y", "/api/v1/x");
    }

    #[test]
    fn plain_text_has_one_reading() {
        assert_eq!(all("/a/b").unwrap(), ["/a/b"]);
        assert_eq!(all("/a%20b").unwrap(), ["/a%20b", "/a b"]);
    }

    #[test]
    fn r_05_what_decodes_without_end_or_to_nonsense_is_refused() {
        for path in [
            "/%2525252e",
            "/%C0%AF",
            "/%C1%81",
            "/%25C0%25AF",
            "/%E0%80%AF",
            "/%F0%80%80%AF",
            "/a%2500",
            "/a%250A",
        ] {
            assert_eq!(all(path), Err(PathFault::Ambiguous), "{path}");
        }
        assert!(all("/%E0%A4%A4%F0%90%80%80%25").is_ok());
    }

    #[test]
    fn dots_are_resolved_as_the_rfc_has_it() {
        let of = |text: &str, features| {
            resolve_dots(text.as_bytes(), features).map(|path| String::from_utf8(path).unwrap())
        };
        for (text, path) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/..", "above"),
            ("", "/"),
            ("/a//", "/a//"),
            ("//", "/"),
            ("/a/./", "/a/"),
        ] {
            assert_eq!(of(text, 0).as_deref().unwrap_or("above"), path, "{text}");
        }
        assert_eq!(of("/a//", MERGE).as_deref(), Some("/a/"));
        assert_eq!(of("/a/..//", MERGE).as_deref(), Some("/"));
    }
}

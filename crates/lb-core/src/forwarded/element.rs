//! One element of `Forwarded` (RFC 7239 §4), and one of `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use crate::route::Scheme;

/// What one hop says of the one before it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Element {
    /// The address of the hop before; port 0 where it is not said.
    pub address: Option<SocketAddr>,
    /// How that hop came.
    pub scheme: Option<Scheme>,
    /// The host that it asked for.
    pub host: Option<Vec<u8>>,
}

impl Element {
    /// Reads `for=192.0.2.1;proto=https;host="example.org"`. `None` where it breaks the grammar, says one thing twice, or has a backslash, which
    /// no address, scheme or host needs.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut element = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        for pair in split(text, b';') {
            let pair = pair.trim_ascii();
            let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
            let value = unquoted(value.get(1..)?)?;
            let is_name = !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte));
            if !is_name || seen.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                return None;
            }
            seen.push(name);
            if name.eq_ignore_ascii_case(b"for") {
                // `unknown` and names that begin with `_` are no addresses.
                element.address = Some(node(value)?);
            } else if name.eq_ignore_ascii_case(b"proto") {
                element.scheme = scheme(value);
            } else if name.eq_ignore_ascii_case(b"host") {
                element.host = Some(value.to_vec());
            }
        }
        Some(element)
    }
}

/// The elements of a line, the last of which comes first.
///
/// A line is read from its end, since what stands at its beginning is a client's: a quote that is never closed there must not swallow the
/// element that a trusted proxy has added behind it (attack R-16).
pub(super) fn backwards(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut inside = false;
        let comma = text.iter().rposition(|byte| {
            inside ^= *byte == b'"';
            *byte == b',' && !inside
        });
        rest = comma.and_then(|at| text.get(..at));
        let element = comma.map_or(Some(text), |at| text.get(at.saturating_add(1)..));
        element.map(<[u8]>::trim_ascii)
    })
}

/// The parts between separators that stand in no quotes.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut inside = false;
    text.split(move |byte| {
        inside ^= *byte == b'"';
        *byte == separator && !inside
    })
}

/// A token, or what stands between quotes.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let (inner, is_quoted) = match value {
        [b'"', inner @ .., b'"'] => (inner, true),
        value => (value, false),
    };
    let fits = |byte: &u8| match byte {
        b'"' | b'\\' => false,
        byte if is_quoted => matches!(byte, b' '..=b'~'),
        // Addresses with a port stand unquoted where a proxy does not follow the grammar.
        byte => is_token_byte(*byte) || matches!(byte, b':' | b'[' | b']'),
    };
    (!inner.is_empty() && inner.iter().all(fits)).then_some(inner)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `http` or `https`, and of WebSockets `ws` and `wss`.
pub(super) fn scheme(text: &[u8]) -> Option<Scheme> {
    let is = |words: [&[u8]; 2]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is([b"https", b"wss"]) => Some(Scheme::Https),
        () if is([b"http", b"ws"]) => Some(Scheme::Http),
        () => None,
    }
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. The port is 0 where there
/// is none.
pub fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = match bare {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    match alone {
        Some(ip) => Some(SocketAddr::new(ip, 0)),
        // A zone is of the machine that wrote it.
        None => text.parse().ok().filter(|_| !text.contains('%')),
    }
}

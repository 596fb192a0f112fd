//! Host and port of a request (RFC 9112 §3.2, RFC 3986 §3.2).

/// Whether `text` is a host with an optional port: no user information, no list, no white space, brackets only around an IPv6 address
/// (attack H1-11).
pub fn is_valid(text: &[u8]) -> bool {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(close) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (inside, after) = rest.split_at(close);
            let literal = std::str::from_utf8(inside).is_ok_and(|s| s.parse::<std::net::Ipv6Addr>().is_ok());
            if !literal {
                return false;
            }
            match after.get(1..) {
                Some([]) => return true,
                Some([b':', port @ ..]) => return is_port(port),
                _ => return false,
            }
        }
        None => match text.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let (host, port) = text.split_at(colon);
                (host, port.get(1..))
            }
            None => (text, None),
        },
    };
    !host.is_empty() && host.iter().all(|byte| is_host_byte(*byte)) && port.is_none_or(is_port)
}

/// Whether two valid authorities are one: equal but for letter case and a port that the scheme, of which `default_port` is the port,
/// stands for itself (RFC 9110 §4.2.3).
pub fn is_same(one: &[u8], other: &[u8], default_port: u16) -> bool {
    if one == other {
        return true;
    }
    let ((host, port), (other_host, other_port)) = (split(one), split(other));
    let number = |port: &[u8]| match port {
        [] => u32::from(default_port),
        digits => port_number(digits),
    };
    host.eq_ignore_ascii_case(other_host) && number(port) == number(other_port)
}

/// Host and port of a valid authority; the port is empty where there is none.
fn split(authority: &[u8]) -> (&[u8], &[u8]) {
    match authority.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if authority.get(at) == Some(&b':') => {
            let (host, port) = authority.split_at(at);
            (host, port.get(1..).unwrap_or(&[]))
        }
        _ => (authority, &[]),
    }
}

/// The number that at most five digits stand for.
fn port_number(digits: &[u8]) -> u32 {
    let add =
        |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')));
    digits.iter().fold(0, add)
}

/// A port is empty or a number up to 65535 (RFC 3986 §3.2.3).
fn is_port(port: &[u8]) -> bool {
    port.len() <= 5 && port.iter().all(u8::is_ascii_digit) && port_number(port) <= 65_535
}

/// Bytes of a registered name, percent-encoding and sub-delimiters included, the comma excluded.
#[expect(clippy::indexing_slicing, reason = "runs while compiling, where it fails the build")]
static HOST: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut at = 0;
    while at < bytes.len() {
        let byte = at as u8;
        bytes[at] = byte.is_ascii_alphanumeric();
        at += 1;
    }
    let mut others: &[u8] = b".-_~%!$&'()*+;=";
    while let [byte, rest @ ..] = others {
        bytes[*byte as usize] = true;
        others = rest;
    }
    bytes
};

#[inline]
fn is_host_byte(byte: u8) -> bool {
    HOST.get(usize::from(byte)) == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::{is_same, is_valid};

    #[test]
    fn authorities_are_the_same_but_for_case_and_the_default_port() {
        let same = |one: &str, other: &str, port| is_same(one.as_bytes(), other.as_bytes(), port);
        for (one, other, port) in [
            ("a", "A", 80),
            ("a:80", "a", 80),
            ("a:", "A:80", 80),
            ("a:443", "a:", 443),
            ("a:0443", "a:443", 80),
            ("[::A]:80", "[::a]", 80),
            ("a:8080", "A:8080", 443),
        ] {
            assert!(same(one, other, port) && same(other, one, port), "{one} {other} {port}");
        }
        for (one, other, port) in [
            ("a", "b", 80),
            ("a:443", "a", 80),
            ("a:80", "a", 443),
            ("a:8", "a:80", 80),
            ("[::1]", "[::1]:443", 80),
            ("[::80]", "[:", 80),
            ("a", "a.", 80),
            ("a", "", 80),
        ] {
            assert!(!same(one, other, port) && !same(other, one, port), "{one} {other} {port}");
        }
    }

    #[test]
    fn h1_11_only_host_and_port_pass() {
        for good in ["a", "a.example:80", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "a:", "x_y", "a."] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a,b",
            "user@a",
            "a:65536",
            "a:8o",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[a]",
            "::1",
            "a/b",
            "a\0",
            "a\t",
            "[]",
            "a?b",
            "a#b",
            "a\\b",
            "[1.2.3.4]",
            "a:-1",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }
}

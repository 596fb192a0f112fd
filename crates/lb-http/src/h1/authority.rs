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

/// A port is empty or a number up to 65535 (RFC 3986 §3.2.3).
fn is_port(port: &[u8]) -> bool {
    port.len() <= 5
        && port.iter().all(u8::is_ascii_digit)
        && port.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(*digit - b'0')) <= 65_535
}

/// Bytes of a registered name, percent-encoding and sub-delimiters included, the comma excluded.
#[inline]
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'.' | b'-'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b';'
                | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::is_valid;

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

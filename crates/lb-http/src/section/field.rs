//! What HTTP/2 and HTTP/3 ask of every field line (RFC 9113 §8.2, RFC 9114 §4.2, attack H2-08).

use lb_core::head::FieldName;

use crate::h1::framing::parse_length;

/// Why a field section is malformed; for debugging only, peers are not told.
pub(crate) type Fault = &'static str;

/// Bytes that a field counts beyond its name and value (RFC 9113 §6.5.2, RFC 9114 §4.2.2).
pub(crate) const FIELD_OVERHEAD: usize = 32;

/// Checks a regular field line and says what its name means.
#[inline]
pub(crate) fn check(name: &[u8], value: &[u8]) -> Result<FieldName, Fault> {
    if name.is_empty() || !name.iter().all(|byte| NAME.get(usize::from(*byte)) == Some(&true)) {
        return Err("field name");
    }
    if !is_value(value) {
        return Err("field value");
    }
    let known = FieldName::of(name);
    match known {
        FieldName::Connection
        | FieldName::KeepAlive
        | FieldName::ProxyConnection
        | FieldName::TransferEncoding
        | FieldName::Upgrade => Err("connection-specific field"),
        FieldName::Te if value != b"trailers" => Err("te"),
        known => Ok(known),
    }
}

/// Whether a value has no byte that ends a line, and no white space around it (RFC 9113 §8.2.1). Other control characters are refused as
/// HTTP/1.1 refuses them.
#[inline]
pub(crate) fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first())
        && !blank(value.last())
        && value.iter().all(|byte| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t')
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
#[inline]
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// Bytes of a field name: those of a token but no upper case.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while let Some(place) = table.split_at_mut(byte as usize).1.first_mut() {
        *place = is_token_byte(byte) && !byte.is_ascii_uppercase();
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    table
};

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// A decimal length; nothing else may stand there.
pub(crate) fn content_length(value: &[u8]) -> Result<u64, Fault> {
    parse_length(value).ok_or("content-length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h2_08_what_http_1_would_read_otherwise_is_refused() {
        for (name, value) in [
            ("", "v"),
            ("Upper", "v"),
            ("with space", "v"),
            ("with:colon", "v"),
            ("nul\0", "v"),
            ("\u{e9}", "v"),
            ("a", "v\r\nx: y"),
            ("a", "v\ny"),
            ("a", "\0"),
            ("a", " v"),
            ("a", "v\t"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
        ] {
            assert!(check(name.as_bytes(), value.as_bytes()).is_err(), "{name:?}: {value:?}");
        }
        for (name, value) in [("te", "trailers"), ("a", ""), ("x_y", "a\tb"), ("host", "caf\u{e9}")] {
            assert!(check(name.as_bytes(), value.as_bytes()).is_ok(), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn lengths_are_decimal_digits() {
        assert_eq!(content_length(b"0"), Ok(0));
        assert_eq!(content_length(b"1234567890"), Ok(1_234_567_890));
        for bad in ["", "-1", "+1", "1 ", "0x1", "1,1", "99999999999999999999", "9223372036854775808"] {
            assert!(content_length(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}

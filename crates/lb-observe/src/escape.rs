//! Text that peers chose, made safe to show (attack row C-07).
//!
//! A control character can forge a line or steer the operator's terminal; a bidirectional control can make a
//! line read as something else than it is.

use std::fmt::{self, Display, Formatter, Write};

/// Whether this character must not reach a log as it is.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Bidirectional controls, then the line and paragraph separators.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{2028}' | '\u{2029}'
        )
}

/// Bytes shown with Rust's escapes: see [`crate::logs::escaped`].
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                // The backslash too, so that what is shown can be read back.
                if is_unsafe(character) || character == '\\' {
                    write!(formatter, "{}", character.escape_default())?;
                } else {
                    formatter.write_char(character)?;
                }
            }
            for byte in chunk.invalid() {
                write!(formatter, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays() {
        assert_eq!(Escaped("GET /ä?q='\"' 漢".as_bytes()).to_string(), "GET /ä?q='\"' 漢");
    }

    #[test]
    fn c_07_controls_are_escaped() {
        let shown = Escaped("a\r\nb\x1b[31m\u{7f}\u{9b}\u{202e}\u{2066}\u{2028}\\n".as_bytes()).to_string();
        assert_eq!(shown, r"a\r\nb\u{1b}[31m\u{7f}\u{9b}\u{202e}\u{2066}\u{2028}\\n");
    }

    #[test]
    fn bytes_outside_utf8_are_escaped() {
        assert_eq!(Escaped(b"a\xff\xc3(\xe2\x80").to_string(), r"a\xff\xc3(\xe2\x80");
    }
}

//! Text that peers chose, made safe to show (attack row C-07).
//!
//! A control character can forge a line or steer the operator's terminal; a bidirectional control can make a
//! line read as something else than it is.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_07_what_steers_a_terminal_or_forges_a_line_is_unsafe() {
        assert!("GET /ä?q='\"' 漢\\".chars().all(|character| !is_unsafe(character)));
        assert!("\r\n\x1b\u{7f}\u{9b}\u{202e}\u{2066}\u{2028}".chars().all(is_unsafe));
    }
}

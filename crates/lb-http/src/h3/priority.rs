//! Extensible priorities (RFC 9218): the value of a `priority` field and of a PRIORITY_UPDATE frame.

/// How urgent a response is, and whether its parts are of use by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensiblePriority {
    /// From 0, which comes first, to 7.
    pub urgency: u8,
    /// Whether responses of one urgency share the connection.
    pub incremental: bool,
}

impl Default for ExtensiblePriority {
    fn default() -> Self {
        Self { urgency: 3, incremental: false }
    }
}

impl ExtensiblePriority {
    /// Reads a dictionary of structured fields (RFC 8941 §3.2). A parameter that is unknown, of a wrong type or out of range is ignored
    /// (RFC 9218 §4); of a dictionary that is broken everything is, and the default is what remains.
    pub fn parse(value: &[u8]) -> Self {
        let mut priority = Self::default();
        match (Dictionary { rest: value }).read(&mut priority) {
            Some(()) => priority,
            None => Self::default(),
        }
    }
}

/// A bare item, as far as priorities are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Integer(i64),
    Boolean(bool),
    Other,
}

struct Dictionary<'a> {
    rest: &'a [u8],
}

impl Dictionary<'_> {
    fn read(&mut self, priority: &mut ExtensiblePriority) -> Option<()> {
        self.skip(|byte| byte == b' ');
        while !self.rest.is_empty() {
            let key = self.key()?;
            let item = if self.eat(b'=') {
                if self.eat(b'(') { self.inner_list()? } else { self.item()? }
            } else {
                Item::Boolean(true)
            };
            self.parameters()?;
            // The last of several members of one name counts (RFC 8941 §3.2).
            match (key, item) {
                (b"u", Item::Integer(urgency @ 0..=7)) => priority.urgency = urgency as u8,
                (b"u", _) => priority.urgency = 3,
                (b"i", Item::Boolean(incremental)) => priority.incremental = incremental,
                (b"i", _) => priority.incremental = false,
                _ => {}
            }
            self.skip(|byte| matches!(byte, b' ' | b'\t'));
            if self.rest.is_empty() {
                return Some(());
            }
            if !self.eat(b',') {
                return None;
            }
            self.skip(|byte| matches!(byte, b' ' | b'\t'));
            if self.rest.is_empty() {
                return None;
            }
        }
        Some(())
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn skip(&mut self, matches: impl Fn(u8) -> bool) -> usize {
        let end = self.rest.iter().position(|byte| !matches(*byte)).unwrap_or(self.rest.len());
        self.rest = self.rest.get(end..).unwrap_or_default();
        end
    }
}

impl<'a> Dictionary<'a> {
    fn key(&mut self) -> Option<&'a [u8]> {
        if !matches!(self.peek()?, b'a'..=b'z' | b'*') {
            return None;
        }
        let all = self.rest;
        let length = self.skip(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'));
        all.get(..length)
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(|byte| byte == b' ');
            self.key()?;
            if self.eat(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    /// The rest of an inner list behind its bracket.
    fn inner_list(&mut self) -> Option<Item> {
        loop {
            self.skip(|byte| byte == b' ');
            if self.eat(b')') {
                return Some(Item::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.peek()?, b' ' | b')') {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Item> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'?' => {
                self.next();
                match self.next()? {
                    b'0' => Some(Item::Boolean(false)),
                    b'1' => Some(Item::Boolean(true)),
                    _ => None,
                }
            }
            b'"' => {
                self.next();
                loop {
                    match self.next()? {
                        b'"' => return Some(Item::Other),
                        b'\\' if !matches!(self.next()?, b'"' | b'\\') => return None,
                        b'\\' | b' '..=b'~' => {}
                        _ => return None,
                    }
                }
            }
            b':' => {
                self.next();
                self.skip(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.eat(b':').then_some(Item::Other)
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'*' => {
                self.skip(|byte| crate::section::field::is_token(&[byte]) || matches!(byte, b':' | b'/'));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Item> {
        let negative = self.eat(b'-');
        let digits = self.rest;
        let length = self.skip(|byte| byte.is_ascii_digit());
        // RFC 8941 §3.3.1 and §3.3.2: up to 15 digits, or 12 before a point and 3 behind it.
        if length == 0 || length > 15 {
            return None;
        }
        if self.eat(b'.') {
            let fraction = self.skip(|byte| byte.is_ascii_digit());
            return (length <= 12 && (1..=3).contains(&fraction)).then_some(Item::Other);
        }
        let value = digits.iter().take(length).fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Some(Item::Integer(if negative { -value } else { value }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, urgency: u8, incremental: bool) {
        assert_eq!(
            ExtensiblePriority::parse(text.as_bytes()),
            ExtensiblePriority { urgency, incremental },
            "{text:?}"
        );
    }

    #[test]
    fn parameters_are_read() {
        check("", 3, false);
        check("u=5, i", 5, true);
        check("u=0", 0, false);
        check("i", 3, true);
        check("i=?0", 3, false);
        check(" u=1 ,\ti=?1 ", 1, true);
        check("u=1,u=6", 6, false);
        check("u=2;x=1;y, i;z=\"q\"", 2, true);
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_ignored() {
        check("u=8, i", 3, true);
        check("u=-1", 3, false);
        check("u=1.5, i", 3, true);
        check("u=\"3\", i=1", 3, false);
        check("a=(1 \"b\" c;d=1), u=4, e=:aGk=:, f=*tok/en:x", 4, false);
        check("uu=1, ii, u=7", 7, false);
    }

    #[test]
    fn a_broken_dictionary_counts_for_nothing() {
        for text in [
            "u=5,",
            "u=5 i",
            "u=",
            "U=5",
            "u=5, =",
            "u=1, a=\"",
            "u=1, i=?2",
            "u=1, a=(1",
            "u=1, a=(1\"x\")",
            "u=1,\u{e9}",
        ] {
            check(text, 3, false);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(prop::sample::select(&b"ui=?10, ;()\":\\ax.-9"[..]), 0..40)) {
            prop_assert!(ExtensiblePriority::parse(&bytes).urgency <= 7);
        }
    }
}

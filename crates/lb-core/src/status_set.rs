//! A set of status codes (RFC 9110 §15): what a health check expects, what is worth another try.

/// Codes from 100 to 599. Looking one up is a shift and a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusSet {
    bits: [u64; WORDS],
}

/// The least and the greatest code that a set can hold.
pub const STATUS_RANGE: std::ops::RangeInclusive<u16> = 100..=599;

const WORDS: usize = 10;

impl StatusSet {
    /// The set with nothing in it.
    pub const EMPTY: Self = Self { bits: [0; WORDS] };

    /// Adds a code; `false` when it lies outside [`STATUS_RANGE`], and nothing was added.
    pub fn insert(&mut self, code: u16) -> bool {
        if !STATUS_RANGE.contains(&code) {
            return false;
        }
        if let Some(word) = self.bits.get_mut(usize::from(code / 64)) {
            *word |= 1 << (code % 64);
        }
        true
    }

    /// Whether the code is in the set.
    #[inline]
    pub fn contains(&self, code: u16) -> bool {
        self.bits.get(usize::from(code / 64)).is_some_and(|word| word >> (code % 64) & 1 == 1)
    }

    /// Whether no code is in the set.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Adds what one word of the configuration names: `"503"` or `"200-399"`, both ends included. `None` when the word is neither, a
    /// code lies outside [`STATUS_RANGE`] or the range is empty.
    pub fn parse_into(&mut self, word: &str) -> Option<()> {
        let code = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|code| digits && STATUS_RANGE.contains(code))
        };
        let (first, last) = match word.split_once('-') {
            Some((first, last)) => (code(first)?, code(last)?),
            None => (code(word)?, code(word)?),
        };
        if first > last {
            return None;
        }
        for code in first..=last {
            self.insert(code);
        }
        Some(())
    }
}

impl FromIterator<u16> for StatusSet {
    /// Codes outside [`STATUS_RANGE`] are left out.
    fn from_iter<T: IntoIterator<Item = u16>>(codes: T) -> Self {
        let mut set = Self::EMPTY;
        for code in codes {
            set.insert(code);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_its_words_name_and_nothing_else() {
        let mut set = StatusSet::EMPTY;
        assert!(set.is_empty());
        for word in ["204", "300-399", "599"] {
            set.parse_into(word).unwrap();
        }
        for code in 0..=u16::MAX {
            assert_eq!(
                set.contains(code),
                code == 204 || code == 599 || (300..400).contains(&code),
                "{code}"
            );
        }
        let from_codes: StatusSet = (300..400).chain([204, 599, 99, 600, 9000]).collect();
        assert_eq!(from_codes, set);
    }

    #[test]
    fn words_that_name_no_codes_are_refused_and_add_nothing() {
        let mut set = StatusSet::EMPTY;
        for word in [
            "",
            "2xx",
            "99",
            "600",
            "0200",
            "+20",
            "200-",
            "-200",
            "399-200",
            "200-600",
            "200 - 300",
            "1-2-3",
        ] {
            assert_eq!(set.parse_into(word), None, "{word}");
        }
        assert!(set.is_empty());
    }
}

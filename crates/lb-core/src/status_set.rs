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
    #[inline]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
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
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        assert!(StatusSet::EMPTY.is_empty());
        let set: StatusSet = (300..400).chain([204, 599, 99, 600, 9000]).collect();
        for code in 0..=u16::MAX {
            assert_eq!(
                set.contains(code),
                code == 204 || code == 599 || (300..400).contains(&code),
                "{code}"
            );
        }
    }
}

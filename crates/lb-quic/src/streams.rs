//! Streams by identifier, and which of them were met.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Streams by identifier. A peer numbers them one after the other and has a few hundred at most, so that no choice of numbers makes many
/// of them meet.
pub(crate) type Streams<S> = HashMap<u64, S, BuildHasherDefault<ByNumber>>;

/// Spreads numbers.
#[derive(Default)]
pub(crate) struct ByNumber(u64);

impl Hasher for ByNumber {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// Which streams were met. Streams of a kind are opened in any order, and each that is open makes all before it open (RFC 9000 §3.2).
#[derive(Debug, Default)]
pub(crate) struct Met([OfKind; 4]);

#[derive(Debug, Default)]
struct OfKind {
    /// The least number that is larger than all that were met.
    next: u64,
    /// Those below that were not met. The limit of streams bounds them: each takes one of them up.
    missing: BTreeSet<u64>,
}

impl Met {
    /// Notes that a stream was met. Whether that is the first time.
    pub(crate) fn meet(&mut self, id: u64) -> bool {
        let number = id >> 2;
        let Some(kind) = usize::try_from(id & 3).ok().and_then(|kind| self.0.get_mut(kind)) else {
            return false;
        };
        if number < kind.next {
            return kind.missing.remove(&number);
        }
        kind.missing.extend(kind.next..number);
        kind.next = number.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_is_met_once_in_any_order() {
        let mut met = Met::default();
        assert!(met.meet(8) && met.meet(0) && met.meet(4));
        assert!(!met.meet(0) && !met.meet(4) && !met.meet(8));
        assert!(met.meet(3), "another kind");
        assert!(met.meet(12) && !met.meet(12));
        assert!(met.0.iter().all(|kind| kind.missing.is_empty()));
    }
}

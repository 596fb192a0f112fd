//! One in so many, where there are more than may be shown.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Takes so many a second at most, spread over the second by how many the second before had. Workers share one; a race between them takes or
/// leaves one more, never more than the bound.
#[derive(Debug)]
pub(super) struct Sampler {
    per_second: u64,
    second: AtomicU64,
    /// How many came in this second.
    came: AtomicU64,
    taken: AtomicU64,
    /// One of so many is taken.
    one_in: AtomicU64,
}

impl Sampler {
    pub(super) fn new(per_second: u64) -> Self {
        Self {
            per_second,
            second: AtomicU64::new(0),
            came: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            one_in: AtomicU64::new(1),
        }
    }

    /// Whether what comes in this second is taken.
    pub(super) fn takes(&self, second: u64) -> bool {
        let before = self.second.load(Relaxed);
        if before != second && self.second.compare_exchange(before, second, Relaxed, Relaxed).is_ok() {
            let came = self.came.swap(0, Relaxed);
            self.taken.store(0, Relaxed);
            // What came a while ago says nothing of now.
            let came = if second == before.wrapping_add(1) { came } else { 0 };
            self.one_in.store(came.div_ceil(self.per_second.max(1)).max(1), Relaxed);
        }
        let at = self.came.fetch_add(1, Relaxed);
        at.is_multiple_of(self.one_in.load(Relaxed).max(1))
            && self.taken.fetch_add(1, Relaxed) < self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_all_taken_and_many_are_spread_over_their_second() {
        let sampler = Sampler::new(10);
        let taken =
            |second, count: u64| -> Vec<u64> { (0..count).filter(|_| sampler.takes(second)).collect() };
        assert_eq!(taken(1, 10).len(), 10);
        assert_eq!(taken(2, 1000), (0..10).collect::<Vec<_>>(), "nobody knew that so many come");
        assert_eq!(taken(3, 1000), (0..10).map(|at| at * 100).collect::<Vec<_>>());
        assert_eq!(taken(4, 5000).len(), 10);
        assert_eq!(taken(60, 3), [0, 1, 2], "that was long ago");
        assert!(!Sampler::new(0).takes(1));
    }
}

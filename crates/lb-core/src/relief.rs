//! When memory that was freed is worth giving back to the system.
//!
//! An allocator keeps memory that is freed, since the next connection needs it again. After a crowd of requests has ended it does not, and
//! other programs could use the memory. Looking for whole free pages takes some milliseconds for each 10 MB, in which a worker serves no
//! request; so it is done once for each crowd, when nearly all of its requests have ended and no others have begun.

use std::time::{Duration, Instant};

/// A crowd: fewer requests at once leave little memory behind.
pub const CROWD: usize = 256;

/// Memory is given back once an eighth of a crowd or less is left.
const STAY: usize = 8;

/// How long that must last.
const AWAY: Duration = Duration::from_secs(2);

/// The largest number of requests since memory was given back last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relief {
    most: usize,
    few_since: Option<Instant>,
}

impl Relief {
    /// Whether memory is to be given back, with `held` requests in memory now, and at most `most` at once since the last call. To be called
    /// about once a second, from the beginning of a crowd for as long as [`Self::is_waiting`].
    pub fn look(&mut self, held: usize, most: usize, now: Instant) -> bool {
        self.most = self.most.max(most).max(held);
        let left = self.most.saturating_sub(held);
        if left < CROWD || held > self.most / STAY {
            self.few_since = None;
            return false;
        }
        if now.saturating_duration_since(*self.few_since.get_or_insert(now)) < AWAY {
            return false;
        }
        *self = Self { most: held, few_since: None };
        true
    }

    /// Whether there was a crowd whose memory has not been given back yet.
    pub fn is_waiting(&self) -> bool {
        self.most >= CROWD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds in which memory is given back, with so many requests held in each.
    fn given_back(held: &[usize]) -> Vec<usize> {
        let start = Instant::now();
        let mut relief = Relief::default();
        let at = |second: usize| start + Duration::from_secs(second as u64);
        (0..held.len()).filter(|second| relief.look(held[*second], 0, at(*second))).collect()
    }

    #[test]
    fn a_crowd_that_comes_and_goes_between_two_looks_counts() {
        let start = Instant::now();
        let mut relief = Relief::default();
        assert!(!relief.look(3, 1000, start) && !relief.look(2, 5, start + AWAY / 2));
        assert!(relief.is_waiting() && relief.look(2, 4, start + AWAY));
        assert!(!relief.is_waiting() && !relief.look(2, 4, start + 2 * AWAY) && !relief.is_waiting());
    }

    #[test]
    fn memory_is_given_back_once_after_most_of_a_crowd_has_left() {
        assert_eq!(given_back(&[0, 1000, 1000, 0, 0, 0, 0, 0, 0]), [5]);
        assert_eq!(given_back(&[4000, 900, 900, 900, 500, 500, 500, 500, 240, 0, 0, 0]), [6, 11]);
        // A small crowd is not worth it, a quarter is too many left, and a crowd that returns needs the memory.
        assert_eq!(given_back(&[255, 0, 0, 0, 0]), []);
        assert_eq!(given_back(&[1000, 250, 250, 250, 250]), []);
        assert_eq!(given_back(&[1000, 0, 0, 1000, 0, 0, 1000, 0, 0, 0, 0]), [9]);
    }
}

//! When memory that was freed is worth giving back to the system.
//!
//! An allocator keeps what is freed, and rightly so: it is wanted again by the next connection. After a crowd has left it is not, and
//! other programs could use it. To look for whole pages costs some milliseconds for each 10 MB, in which a worker serves nobody; so it is
//! done once for each crowd, when nearly all of it has left and does not come back.

use std::time::{Duration, Instant};

/// A crowd of fewer leaves little behind.
pub const CROWD: usize = 256;

/// Of a crowd so large a share may stay: an eighth.
const STAY: usize = 8;

/// For how long the others have stayed away.
const AWAY: Duration = Duration::from_secs(2);

/// How many there were since memory was given back last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relief {
    most: usize,
    few_since: Option<Instant>,
}

impl Relief {
    /// Whether memory is to be given back, with `held` requests in memory now, and `most` at once since the last look. To be asked about
    /// once a second, from a crowd on for as long as [`Self::is_waiting`].
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

    /// Whether there was a crowd whose memory was not given back yet.
    pub fn is_waiting(&self) -> bool {
        self.most >= CROWD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which of these seconds memory is given back, with so many things held in each.
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
        // A small one is not worth it, a quarter is too many to wait, and who comes back needs it.
        assert_eq!(given_back(&[255, 0, 0, 0, 0]), []);
        assert_eq!(given_back(&[1000, 250, 250, 250, 250]), []);
        assert_eq!(given_back(&[1000, 0, 0, 1000, 0, 0, 1000, 0, 0, 0, 0]), [9]);
    }
}

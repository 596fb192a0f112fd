//! When both directions of a tunnel have been silent for too long.

use std::time::{Duration, Instant};

/// A clock over both directions: bytes of either keep the tunnel alive.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    timeout: Duration,
    last: Instant,
}

impl Idle {
    /// Starts at `now`.
    pub fn new(timeout: Duration, now: Instant) -> Self {
        Self { timeout, last: now }
    }

    /// Bytes passed in some direction. Time never runs backwards here, whatever order the two directions report in.
    pub fn touch(&mut self, now: Instant) {
        self.last = self.last.max(now);
    }

    /// When it will have lasted too long if nothing passes; `None` when that lies beyond what a clock can say.
    pub fn deadline(&self) -> Option<Instant> {
        self.last.checked_add(self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_direction_keeps_it_alive() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut idle = Idle::new(Duration::from_secs(60), start);
        assert_eq!(idle.deadline(), Some(at(60)));
        idle.touch(at(50));
        idle.touch(at(40));
        assert_eq!(idle.deadline(), Some(at(110)));
        assert_eq!(Idle::new(Duration::MAX, start).deadline(), None);
    }
}

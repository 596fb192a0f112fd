//! How often a log line that peers can cause is written.
//!
//! A peer that breaks a rule a million times must not fill a disk, and the operator must still learn of the first time and of the
//! number. So a few lines pass at once, then one in each interval, and each line says how many were left out since the one before.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The limit of one kind of log line. It may be a `static`, be shared by threads, or belong to one of them.
#[derive(Debug)]
pub struct LogLimit {
    burst: u32,
    interval: Duration,
    /// The moment of the first line, from which `due_ns` counts.
    first: OnceLock<Instant>,
    /// When the lines written so far will have been paid for, each by one interval.
    due_ns: AtomicU64,
    left_out: AtomicU64,
}

impl LogLimit {
    /// Admits `burst` lines at once, at least one, and one more for each `interval` that passes.
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            first: OnceLock::new(),
            due_ns: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether a line is written now. If so, the number of lines that were left out since the last one that was.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let first = *self.first.get_or_init(|| now);
        let now = nanos(now.saturating_duration_since(first));
        let interval = nanos(self.interval);
        let ahead = interval.saturating_mul(u64::from(self.burst.saturating_sub(1)));
        let due = self.due_ns.load(Relaxed);
        let paid = due.max(now).saturating_add(interval);
        let is_admitted = due <= now.saturating_add(ahead)
            // Another thread was quicker, and has written the line of this moment.
            && self.due_ns.compare_exchange(due, paid, Relaxed, Relaxed).is_ok();
        if is_admitted {
            Some(self.left_out.swap(0, Relaxed))
        } else {
            self.left_out.fetch_add(1, Relaxed);
            None
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_then_one_line_each_interval_and_each_tells_what_was_left_out() {
        let limit = LogLimit::new(3, SECOND);
        let now = Instant::now();
        let burst: Vec<_> = (0..5).map(|_| limit.admit(now)).collect();
        assert_eq!(burst, [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(limit.admit(now + SECOND / 2), None);
        assert_eq!(limit.admit(now + SECOND), Some(3));
        assert_eq!(limit.admit(now + SECOND), None);
        assert_eq!(limit.admit(now + 100 * SECOND), Some(1));
        assert_eq!((0..5).filter_map(|_| limit.admit(now + 100 * SECOND)).count(), 2, "no more is saved up");
    }

    #[test]
    fn odd_settings_and_clocks_that_differ_between_threads_do_no_harm() {
        let now = Instant::now();
        let never_again = LogLimit::new(0, Duration::MAX);
        assert_eq!(never_again.admit(now), Some(0));
        assert_eq!(never_again.admit(now + 1_000_000 * SECOND), None);
        let limit = LogLimit::new(1, SECOND);
        assert_eq!(limit.admit(now + SECOND), Some(0));
        assert_eq!(limit.admit(now), None, "a moment before the first");
        let always = LogLimit::new(1, Duration::ZERO);
        assert!((0..100).all(|_| always.admit(now) == Some(0)));
    }

    #[test]
    fn threads_together_write_no_more_and_lose_no_count() {
        let limit = LogLimit::new(10, SECOND);
        let now = Instant::now();
        let run = || (0..1_000).filter_map(|_| limit.admit(now)).collect::<Vec<u64>>();
        let written: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(written.len(), 10);
        let told: u64 = written.iter().sum();
        assert_eq!(limit.admit(now + SECOND), Some(4_000 - 10 - told));
    }
}

//! Lines of the log that wait to be written.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines on their way from all threads to the one that writes. Whoever hands a line over never waits: when there is no room the line is
/// dropped and counted.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The writer has taken lines and has not finished writing them.
    is_writing: bool,
    dropped: u64,
    /// The part of `dropped` that no line of the log has reported yet.
    untold: u64,
}

impl Queue {
    /// Hands over a line, line feed included. Lines that are not `urgent` leave a part of the room to those that are.
    pub(super) fn push(&self, line: &[u8], urgent: bool) {
        let room = if urgent { CAPACITY } else { CAPACITY - RESERVE };
        let mut state = self.lock();
        if state.waiting.len().saturating_add(line.len()) > room {
            state.drop_lines(1);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits for lines and moves all of them into `batch`, which is empty. For the writer alone; [`Self::done`] is due.
    pub(super) fn take(&self, batch: &mut Vec<u8>) {
        let state = self.lock();
        let waited = self.filled.wait_while(state, |state| state.waiting.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.waiting, batch);
        state.is_writing = true;
    }

    /// The writer is done with what it took. `lost` lines of it could not be written.
    pub(super) fn done(&self, lost: u64) {
        let mut state = self.lock();
        state.drop_lines(lost);
        state.is_writing = false;
        if state.waiting.is_empty() {
            self.emptied.notify_all();
        }
    }

    /// The lines dropped since the last call.
    pub(super) fn take_untold(&self) -> u64 {
        std::mem::take(&mut self.lock().untold)
    }

    /// All lines dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Waits until all lines are written, for `patience` at most. Returns whether they are.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let state = self.lock();
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let waited = self.emptied.wait_timeout_while(state, patience, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Held for a copy in memory, never for a write, and whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_lines(&mut self, count: u64) {
        self.dropped = self.dropped.saturating_add(count);
        self.untold = self.untold.saturating_add(count);
    }
}

/// Bytes that may wait: some thousand lines. The writer holds as many again.
const CAPACITY: usize = 1 << 20;

/// What of that is for lines that an operator needs.
const RESERVE: usize = CAPACITY / 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_dropped_and_counted_and_urgent_lines_have_more() {
        let queue = Queue::default();
        let line = [b'x'; 1024];
        for _ in 0..1024 {
            queue.push(&line, false);
        }
        assert_eq!(queue.dropped(), 256);
        for _ in 0..257 {
            queue.push(&line, true);
        }
        assert_eq!((queue.dropped(), queue.take_untold(), queue.take_untold()), (257, 257, 0));
        let mut batch = Vec::new();
        queue.take(&mut batch);
        assert_eq!(batch.len(), CAPACITY);
        queue.push(&line, false);
        assert_eq!(queue.dropped(), 257, "there is room again");
    }

    #[test]
    fn a_flush_waits_for_what_is_being_written_and_no_longer_than_told() {
        let queue = Queue::default();
        assert!(queue.flush(Duration::ZERO), "nothing to wait for");
        queue.push(b"a line\n", true);
        assert!(!queue.flush(Duration::ZERO));
        let mut batch = Vec::new();
        queue.take(&mut batch);
        assert!(!queue.flush(Duration::from_millis(1)), "taken, not written");
        std::thread::scope(|scope| {
            scope.spawn(|| queue.done(1));
            assert!(queue.flush(Duration::from_secs(10)));
        });
        assert_eq!(queue.dropped(), 1);
    }
}

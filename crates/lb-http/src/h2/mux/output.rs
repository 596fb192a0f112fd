//! What is to be written: frames one after the other, until the socket takes them.
//!
//! Places are counted from the first byte of the connection, so that they stay right when what stands before them is dropped.

use super::Mux;

/// Output beyond which streams wait with theirs.
pub(super) const HIGH_WATER: usize = 256 * 1024;

/// Output beyond which nothing is read from the peer: what it sends may ask for answers (attack H2-06).
const FULL: usize = HIGH_WATER + 64 * 1024;

/// Frames to be written.
#[derive(Debug)]
pub(super) struct Output {
    /// They are added here. The first `sent` bytes were written.
    pub(super) frames: Vec<u8>,
    sent: usize,
    /// Bytes that were written and are not in `frames` any more.
    dropped: u64,
    /// Bytes that were written and did not reach the kernel.
    recalled: u64,
}

impl Output {
    /// Begins with `frames`.
    pub(super) fn new(frames: Vec<u8>) -> Self {
        Self { frames, sent: 0, dropped: 0, recalled: 0 }
    }

    /// What is still to be written.
    #[inline]
    pub(super) fn unsent(&self) -> &[u8] {
        self.frames.get(self.sent..).unwrap_or(&[])
    }

    /// The place of what is added next.
    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.dropped.saturating_add(length(self.frames.len()))
    }

    /// The frame at `place`, and all that follow it, if no byte of it was written.
    pub(super) fn frame_at(&mut self, place: u64) -> Option<&mut [u8]> {
        let at = usize::try_from(place.checked_sub(self.dropped)?).ok()?;
        if at < self.sent { None } else { self.frames.get_mut(at..) }
    }

    /// Whether the byte at `place` has reached the kernel.
    pub(super) fn has_left(&self, place: u64) -> bool {
        let written = self.dropped.saturating_add(length(self.sent));
        place < written.saturating_sub(self.recalled)
    }

    /// The next `n` bytes were written. Says whether nothing is left.
    fn wrote(&mut self, n: usize) -> bool {
        self.sent = self.sent.saturating_add(n).min(self.frames.len());
        let left = self.unsent().len();
        // A peer that reads more slowly than streams send leaves something each time. What was written is dropped all the same, when
        // there is so much of it that no byte is moved more than once for each that was written.
        if left == 0 || self.sent >= left.max(HIGH_WATER) {
            self.dropped = self.dropped.saturating_add(length(self.sent));
            self.frames.drain(..self.sent);
            self.sent = 0;
        }
        left == 0
    }
}

impl Mux {
    /// What is to be written.
    #[inline]
    pub(in crate::h2) fn output(&self) -> &[u8] {
        self.out.unsent()
    }

    /// So much of the output was written.
    pub(in crate::h2) fn wrote(&mut self, n: usize) {
        if self.out.wrote(n) {
            self.io.buffers.put(&mut self.out.frames);
            self.out.frames = self.io.buffers.take();
        }
        if !self.queue.is_empty() {
            self.send_queued();
        }
    }

    /// The last `n` bytes of what was written never reached the kernel.
    pub(in crate::h2) fn unwrote(&mut self, n: usize) {
        self.out.recalled = self.out.recalled.saturating_add(length(n));
    }

    /// Whether the peer has let so much output gather that nothing more is read from it.
    pub(in crate::h2) fn is_full(&self) -> bool {
        self.output().len() >= FULL
    }
}

/// `n` as a number of bytes of a connection.
#[inline]
pub(super) fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of which each tells its place.
    fn bytes(from: u64, count: usize) -> impl Iterator<Item = u8> {
        (from..).take(count).map(|place| (place % 251) as u8)
    }

    #[test]
    fn what_was_written_is_not_kept_however_slow_the_peer_is() {
        let mut output = Output::new(Vec::new());
        let mut written = 0;
        for round in 0..2000 {
            let room = HIGH_WATER - output.unsent().len();
            let end = output.end();
            output.frames.extend(bytes(end, room));
            let step = 1 + round * 7919 % 20_000;
            assert!(output.unsent().iter().copied().take(step).eq(bytes(written, step)));
            assert!(!output.wrote(step));
            written += step as u64;
            assert!(output.frames.len() <= 2 * HIGH_WATER, "{} bytes are kept", output.frames.len());
        }
        let (end, left) = (output.end(), output.unsent().len());
        assert!(output.wrote(left));
        assert_eq!((output.frames.len(), output.end(), end), (0, end, written + length(left)));
    }

    #[test]
    fn places_stay_right_when_what_stands_before_them_is_dropped() {
        let mut output = Output::new(b"first".to_vec());
        assert_eq!(output.end(), 5);
        output.frames.resize(3 * HIGH_WATER, 0);
        let place = output.end();
        output.frames.extend_from_slice(b"frame");
        // In the middle of what is there, at the place itself, and inside the frame.
        for (n, left) in [(2 * HIGH_WATER, false), (HIGH_WATER, false), (1, true)] {
            assert_eq!(output.frame_at(place).as_deref(), Some(&b"frame"[..]));
            assert!(!output.wrote(n));
            assert_eq!(output.has_left(place), left);
        }
        assert_eq!(output.frame_at(place), None);
        assert_eq!(output.unsent(), b"rame");
        output.recalled = 1;
        assert!(!output.has_left(place) && output.has_left(place - 1));
        assert!(output.wrote(4));
        assert_eq!((output.end(), output.frame_at(place)), (place + 5, None));
    }
}

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
        self.sent = self.sent.saturating_add(n);
        let all = self.sent >= self.frames.len();
        if all {
            self.dropped = self.end();
            self.sent = 0;
            self.frames.clear();
        }
        all
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

//! Received bytes of a stream that were not read yet.

use std::collections::VecDeque;

use super::buffers::Lease;
use crate::buffer::Scratch;

/// From so many further buffers on, their bytes are put together: to handle each alone costs more than to copy it.
const MANY: usize = 2;

/// Received bytes in order: first those copied out of the kernel's buffers, then those that still lie there.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    spilled: Vec<u8>,
    /// How much of `spilled` has been read.
    read: usize,
    first: Option<Lease>,
    rest: VecDeque<Lease>,
}

impl Inbox {
    /// Whether there is nothing to read.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.spilled.is_empty()
    }

    /// Whether any of the kernel's buffers is held.
    pub(crate) fn holds_buffers(&self) -> bool {
        self.first.is_some()
    }

    /// Bytes to read.
    pub(crate) fn len(&self) -> usize {
        let leased: usize = self.first.iter().chain(&self.rest).map(Lease::len).sum();
        leased.saturating_add(self.spilled.len().saturating_sub(self.read))
    }

    /// Adds what has arrived last.
    #[inline]
    pub(crate) fn push(&mut self, lease: Lease) {
        if self.first.is_none() { self.first = Some(lease) } else { self.rest.push_back(lease) }
    }

    /// Copies all of it to memory of its own, so that the kernel gets its buffers back.
    pub(crate) fn spill(&mut self) {
        self.spilled.drain(..self.read.min(self.spilled.len()));
        self.read = 0;
        for lease in self.first.take().into_iter().chain(self.rest.drain(..)) {
            self.spilled.extend_from_slice(lease.bytes());
        }
    }

    /// The next bytes, at most `most`, where they lie: in one of the kernel's buffers, which `scratch` then keeps until it is next
    /// used, or copied into `scratch`.
    #[inline]
    pub(crate) fn take<'s>(&mut self, scratch: &'s mut Scratch, most: usize) -> &'s [u8] {
        if self.spilled.is_empty()
            && self.rest.len() < MANY
            && let Some(lease) = self.first.take_if(|lease| lease.len() <= most)
        {
            self.first = self.rest.pop_front();
            return scratch.keep(lease);
        }
        let n = self.copy(scratch.room(most));
        scratch.room(n)
    }

    /// Copies the next bytes into `buffer` and returns how many.
    pub(crate) fn copy(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let Some(next) = self.peek() else { break };
            let n = next.len().min(rest.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..n), next.get(..n)) {
                to.copy_from_slice(from);
            }
            self.consume(n);
            filled = filled.saturating_add(n);
        }
        filled
    }

    /// The next bytes that lie in one place.
    pub(crate) fn peek(&self) -> Option<&[u8]> {
        if self.spilled.is_empty() {
            self.first.as_ref().map(Lease::bytes)
        } else {
            self.spilled.get(self.read..)
        }
    }

    /// Drops `n` of the bytes that [`Self::peek`] shows.
    pub(crate) fn consume(&mut self, n: usize) {
        if !self.spilled.is_empty() {
            self.read = self.read.saturating_add(n);
            if self.read >= self.spilled.len() {
                // Memory is not kept: this is the way of streams that are seldom read.
                self.spilled = Vec::new();
                self.read = 0;
            }
        } else if let Some(lease) = &mut self.first {
            lease.advance(n);
            if lease.len() == 0 {
                self.first = self.rest.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::buffers::Buffers;
    use super::*;

    proptest! {
        /// Whatever is spilled in between and however it is read, the bytes come in order, once, and all buffers go back.
        #[test]
        fn bytes_come_in_order(steps in prop::collection::vec((0u8..4, 1usize..200), 1..80)) {
            let buffers = std::rc::Rc::new(Buffers::new().unwrap());
            let mut inbox = Inbox::default();
            let mut scratch = Scratch::with_size(64);
            let mut pushed = 0usize;
            for (what, n) in steps {
                let before = inbox.len();
                let read = match what {
                    0 => {
                        inbox.push(buffers.lease(u16::try_from(pushed % 200).unwrap(), n));
                        pushed += 1;
                        prop_assert_eq!(inbox.len(), before + n);
                        0
                    }
                    1 => {
                        inbox.spill();
                        prop_assert_eq!(inbox.len(), before);
                        prop_assert!(!inbox.holds_buffers());
                        0
                    }
                    2 => inbox.take(&mut scratch, n).len(),
                    _ => inbox.copy(&mut vec![0; n]),
                };
                prop_assert_eq!(inbox.len() + read, if what == 0 { before + n } else { before });
                prop_assert_eq!(inbox.is_empty(), inbox.peek().is_none());
                prop_assert!(read <= n);
                prop_assert!(what < 2 || before == 0 || read > 0);
            }
            drop((inbox, scratch));
            prop_assert!(buffers.are_all_free());
        }
    }
}

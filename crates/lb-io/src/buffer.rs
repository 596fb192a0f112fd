//! Buffers that a worker owns and its connections borrow.

use std::cell::RefCell;

/// Bytes that one read can take in at most, and so the window of a stream in each direction.
pub const READ_SIZE: usize = 64 * 1024;

/// Buffers that grew beyond this are not kept.
const KEEP_CAPACITY: usize = 64 * 1024;

/// Buffers kept for reuse; more are freed.
const KEEP_BUFFERS: usize = 256;

/// The one buffer that every read of a worker goes through. A connection owns memory only for what is left over.
#[derive(Debug)]
pub struct Scratch {
    bytes: Box<[u8]>,
}

impl Scratch {
    /// A buffer of [`READ_SIZE`] bytes.
    pub fn new() -> Self {
        Self { bytes: vec![0; READ_SIZE].into_boxed_slice() }
    }

    /// The whole buffer.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Buffers for what a socket did not take or a parser could not use yet. An idle connection holds none.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: RefCell<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// An empty buffer, with whatever capacity it had before.
    #[inline]
    pub fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives `buffer` back, and leaves an empty one without memory in its place.
    #[inline]
    pub fn put(&self, buffer: &mut Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        let mut buffer = std::mem::take(buffer);
        let mut free = self.free.borrow_mut();
        if buffer.capacity() <= KEEP_CAPACITY && free.len() < KEEP_BUFFERS {
            buffer.clear();
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_large_ones_are_freed() {
        let pool = BufferPool::default();
        let mut small = vec![1; 100];
        pool.put(&mut small);
        assert_eq!(small.capacity(), 0);
        let again = pool.take();
        assert!(again.is_empty() && again.capacity() >= 100);
        pool.put(&mut vec![0; KEEP_CAPACITY + 1]);
        assert_eq!(pool.take().capacity(), 0);
    }
}

//! Buffers that a worker owns and its connections borrow.

use std::cell::{Cell, RefCell};

use crate::uring::Lease;

/// Bytes that one read can take in at most, and so the window of a stream in each direction.
pub const READ_SIZE: usize = 64 * 1024;

/// Bytes that one read of ciphertext can take in, besides what an incomplete handshake message holds already.
pub const SEALED_SIZE: usize = 128 * 1024;

/// Room for what one send seals: [`READ_SIZE`] bytes of data, what each record adds, one record that is put together, and what
/// was left to be sent before.
pub const OUTGOING_SIZE: usize = READ_SIZE + 28 * 1024;

/// Buffers that grew beyond this are not kept.
const KEEP_CAPACITY: usize = 64 * 1024;

/// Buffers kept for reuse; more are freed.
const KEEP_BUFFERS: usize = 256;

/// The one buffer that every read of a worker goes through. A connection owns memory only for what is left over.
#[derive(Debug)]
pub struct Scratch {
    bytes: Box<[u8]>,
    /// A buffer of the kernel's that is read in place of this one.
    lease: Option<Lease>,
}

impl Scratch {
    /// A buffer of [`READ_SIZE`] bytes.
    pub fn new() -> Self {
        Self::with_size(READ_SIZE)
    }

    /// A buffer of another size. The kernel gives memory only for what of it is used.
    pub fn with_size(size: usize) -> Self {
        Self { bytes: vec![0; size].into_boxed_slice(), lease: None }
    }

    /// The whole buffer.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The part of the buffer that takes in at most `most` bytes.
    #[inline]
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        let most = self.bytes.len().min(most);
        self.bytes.get_mut(..most).unwrap_or_default()
    }

    /// Gives the kernel back what is no longer looked at.
    pub(crate) fn rest(&mut self) {
        self.lease = None;
    }

    /// Keeps `lease` until the next one comes, and shows its bytes.
    #[inline]
    pub(crate) fn keep(&mut self, lease: Lease) -> &[u8] {
        self.lease.insert(lease).bytes()
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
    /// The fewest that were free since [`Self::rest`] was called.
    least: Cell<usize>,
}

impl BufferPool {
    /// An empty buffer, with whatever capacity it had before.
    #[inline]
    pub fn take(&self) -> Vec<u8> {
        let mut free = self.free.borrow_mut();
        let buffer = free.pop().unwrap_or_default();
        self.least.set(self.least.get().min(free.len()));
        buffer
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

    /// Frees the buffers that were not taken since the last call.
    pub fn rest(&self) {
        let mut free = self.free.borrow_mut();
        // The last in is the first out: the buffers at the bottom were not needed.
        let unused = self.least.get().min(free.len());
        free.drain(..unused);
        self.least.set(free.len());
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

    #[test]
    fn buffers_that_nobody_takes_are_freed() {
        let pool = BufferPool::default();
        let count = || pool.free.borrow().len();
        (0..10).for_each(|_| pool.put(&mut vec![0; 100]));
        pool.rest();
        assert_eq!(count(), 10, "they have come since");
        let mut taken: Vec<_> = (0..3).map(|_| pool.take()).collect();
        taken.iter_mut().for_each(|buffer| pool.put(buffer));
        pool.rest();
        assert_eq!(count(), 3);
        pool.rest();
        assert_eq!(count(), 0);
    }
}

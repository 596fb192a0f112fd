//! The buffers that the kernel receives into.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Bytes of one buffer. What is longer comes in several, or by a direct read once a flow is known to be bulk.
pub(crate) const BUFFER_SIZE: usize = 2048;

/// Buffers of a worker at most; a power of two.
pub(crate) const BUFFER_COUNT: u16 = 2048;

/// Buffers of a worker at first. There will be more when they were not enough for what one turn received; memory is used from then on.
const FIRST_COUNT: u16 = 256;

/// Buffers that are filled from one look to the next while hardly anything is received.
const QUIET: usize = 64;

/// The number of the group of these buffers in the kernel.
pub(crate) const GROUP: u16 = 0;

/// Memory of its own pages.
struct Region {
    start: NonNull<u8>,
    len: usize,
}

#[expect(unsafe_code, reason = "a pointer says nothing of threads")]
// SAFETY: the mapping belongs to the owner of this value, and to no thread.
// JUSTIFICATION: rings are made with their buffers, and go to their threads with them.
unsafe impl Send for Region {}

#[expect(unsafe_code, reason = "memory that the kernel writes into")]
impl Region {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping touches no memory that exists.
        // JUSTIFICATION: the ring of buffers must lie on pages of its own, and memory is only to be had where it is used.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Forgets what was written, and gives the memory back until it is used again.
    fn forget(&self) {
        // SAFETY: private anonymous memory of this region; the caller has nothing in it that is still to be read.
        // JUSTIFICATION: up to 4 MiB for each worker, which a crowd has made it use once.
        let _ = unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontNeed) };
    }
}

#[expect(unsafe_code, reason = "memory that the kernel writes into")]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nothing refers to it any more: leases keep the owner of the region alive.
        // JUSTIFICATION: gives back what `new` has taken.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Buffers lent to the kernel, and by it, full, to streams.
pub(crate) struct Buffers {
    ring: Region,
    bytes: Region,
    tail: Cell<u16>,
    /// Buffers in use, lent or not.
    count: Cell<u16>,
    /// Buffers that the kernel may fill.
    free: Cell<u16>,
    /// Buffers filled since [`Self::are_idle`] was called.
    filled: Cell<usize>,
    /// Buffers filled since memory was given back.
    touched: Cell<usize>,
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("free", &self.free).finish_non_exhaustive()
    }
}

impl Buffers {
    /// Fresh buffers, all of them free. They are to be registered with the kernel: see [`Self::address`].
    pub(crate) fn new() -> io::Result<Self> {
        let count = usize::from(BUFFER_COUNT);
        let ring = Region::new(count.saturating_mul(size_of::<BufRingEntry>()))?;
        let bytes = Region::new(count.saturating_mul(BUFFER_SIZE))?;
        let buffers = Self {
            ring,
            bytes,
            tail: Cell::new(0),
            count: Cell::new(0),
            free: Cell::new(0),
            filled: Cell::new(0),
            touched: Cell::new(0),
        };
        buffers.grow();
        Ok(buffers)
    }

    /// Twice as many buffers, up to [`BUFFER_COUNT`].
    pub(crate) fn grow(&self) {
        let count = self.count.get();
        let more = count.saturating_mul(2).clamp(FIRST_COUNT, BUFFER_COUNT);
        for id in count..more {
            self.put(id);
        }
        self.count.set(more);
    }

    /// Where the ring of buffers lies.
    pub(crate) fn address(&self) -> u64 {
        self.ring.start.as_ptr().addr() as u64
    }

    /// Whether so few are left that unread bytes must make room.
    pub(crate) fn are_few(&self) -> bool {
        self.free.get() < self.count.get() / 4
    }

    /// Buffers that hold received bytes.
    pub(crate) fn leased(&self) -> u16 {
        self.count.get().saturating_sub(self.free.get())
    }

    /// What the kernel has put into buffer `id`. Called once for each completion that names a buffer.
    pub(crate) fn lease(self: &Rc<Self>, id: u16, len: usize) -> Lease {
        self.free.set(self.free.get().saturating_sub(1));
        self.filled.set(self.filled.get().saturating_add(1));
        Lease { buffers: Rc::clone(self), id, start: 0, end: len.min(BUFFER_SIZE) }
    }

    /// Whether it is time to give memory back: hardly anything was received since the last call, and much since memory was given back last.
    pub(crate) fn are_idle(&self) -> bool {
        let filled = self.filled.take();
        let touched = self.touched.get().saturating_add(filled);
        self.touched.set(touched);
        filled <= QUIET && touched > usize::from(FIRST_COUNT)
    }

    /// Gives memory back, if no buffer holds received bytes. Only between turns of the ring, when the kernel fills no buffer and every one
    /// that it has filled is known.
    pub(crate) fn give_back(&self) {
        if self.leased() == 0 {
            self.bytes.forget();
            self.touched.set(0);
        }
    }

    /// Lends buffer `id` to the kernel.
    #[expect(unsafe_code, reason = "the ring of buffers is memory shared with the kernel")]
    fn put(&self, id: u16) {
        let tail = self.tail.get();
        let slot = usize::from(tail & (BUFFER_COUNT - 1));
        let offset = usize::from(id % BUFFER_COUNT).saturating_mul(BUFFER_SIZE);
        // SAFETY: `slot` is below the number of entries, and `offset` within the bytes, both mapped for as long as `self` lives. The
        // kernel reads entries below the tail only, and the tail is moved, with release, after the entry is whole.
        // JUSTIFICATION: a provided-buffer ring is the only way to receive without naming a buffer in advance.
        unsafe {
            let ring = self.ring.start.as_ptr().cast::<BufRingEntry>();
            let entry = ring.add(slot);
            (*entry).set_addr(self.bytes.start.as_ptr().add(offset).addr() as u64);
            (*entry).set_len(BUFFER_SIZE as u32);
            (*entry).set_bid(id);
            let shared = BufRingEntry::tail(ring).cast::<AtomicU16>();
            (*shared).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
        self.free.set(self.free.get().saturating_add(1));
    }
}

/// Received bytes in the kernel's buffer. The buffer goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    buffers: Rc<Buffers>,
    id: u16,
    start: usize,
    end: usize,
}

impl Lease {
    /// The bytes.
    #[inline]
    #[expect(unsafe_code, reason = "the bytes lie where the kernel has put them")]
    pub(crate) fn bytes(&self) -> &[u8] {
        let offset =
            usize::from(self.id % BUFFER_COUNT).saturating_mul(BUFFER_SIZE).saturating_add(self.start);
        // SAFETY: `start <= end <= BUFFER_SIZE`, so that this lies within the mapping, which `self.buffers` keeps. The pages were
        // zero before the kernel wrote them. The kernel writes to a buffer only while it is lent to it: a lease exists from the
        // completion that names the buffer until `drop` lends it again, and there is one for each completion.
        // JUSTIFICATION: reading in place saves a copy of every byte received.
        unsafe {
            std::slice::from_raw_parts(
                self.buffers.bytes.start.as_ptr().add(offset),
                self.end.saturating_sub(self.start),
            )
        }
    }

    /// Bytes left.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Drops the first `n` bytes.
    pub(crate) fn advance(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        self.buffers.put(self.id);
    }
}

#[cfg(test)]
impl Buffers {
    /// Whether every buffer is where the kernel can fill it.
    pub(crate) fn are_all_free(&self) -> bool {
        self.leased() == 0
    }

    /// Whether memory was given back, and none was used since.
    pub(super) fn are_given_back(&self) -> bool {
        self.touched.get() == 0 && self.filled.get() == 0
    }

    /// Buffers in use, lent or not.
    pub(super) fn count(&self) -> u16 {
        self.count.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_lent_again_when_its_bytes_are_done_with() {
        let buffers = Rc::new(Buffers::new().unwrap());
        let mut lease = buffers.lease(FIRST_COUNT - 1, 10);
        assert_eq!((buffers.free.get(), lease.bytes().len()), (FIRST_COUNT - 1, 10));
        lease.advance(4);
        assert_eq!(lease.len(), 6);
        lease.advance(100);
        assert!(lease.bytes().is_empty());
        drop(lease);
        assert_eq!(buffers.tail.get(), FIRST_COUNT + 1);
        assert!(buffers.are_all_free());
    }

    #[test]
    fn there_are_more_up_to_a_bound() {
        let buffers = Rc::new(Buffers::new().unwrap());
        let leases: Vec<_> = (0..FIRST_COUNT).map(|id| buffers.lease(id, 1)).collect();
        assert!(buffers.are_few());
        buffers.grow();
        assert!(!buffers.are_few());
        (0..10).for_each(|_| buffers.grow());
        assert_eq!(buffers.count.get(), BUFFER_COUNT);
        drop(leases);
        assert!(buffers.are_all_free());
    }

    #[test]
    #[expect(unsafe_code, reason = "writes in place of the kernel")]
    fn memory_goes_back_when_nothing_is_held_in_it() {
        let buffers = Rc::new(Buffers::new().unwrap());
        // As if the kernel had written: what is still there afterwards was not given back.
        let fill = |id| {
            let lease = buffers.lease(id, 1);
            let address = lease.bytes().as_ptr().cast_mut();
            // SAFETY: the address is within the mapping, and no ring knows of these buffers.
            unsafe { address.write(b'x') };
            lease
        };
        let is_there = || buffers.lease(0, 1).bytes() == b"x";
        for id in (0..FIRST_COUNT).chain([0]) {
            drop(fill(id));
        }
        assert!(!buffers.are_idle(), "much was received of late");
        let held = fill(1);
        assert!(buffers.are_idle());
        buffers.give_back();
        assert!(is_there() && held.bytes() == b"x", "one is held");
        drop(held);
        assert!(buffers.are_idle());
        buffers.give_back();
        assert!(!is_there());
        drop(fill(0));
        assert!(!buffers.are_idle(), "it is hardly used again");
    }

    #[test]
    fn no_length_reaches_beyond_a_buffer() {
        let buffers = Rc::new(Buffers::new().unwrap());
        assert_eq!(buffers.lease(3, usize::MAX).bytes().len(), BUFFER_SIZE);
    }
}

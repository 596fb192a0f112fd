//! Memory for bytes that quiche is lent, and gives back when they are acknowledged.
//!
//! The allocator is slow at pieces of this size, and a response of a few kilobytes needs one. So each thread keeps some for the next responses. It also
//! knows how much is lent.

use std::cell::{Cell, RefCell};

use bytes::Bytes;

/// Bytes of a piece that is kept.
const PIECE: usize = 16 * 1024;

/// Less is left to the allocator, so that little bytes do not hold much memory.
const LEAST: usize = 4 * 1024;

/// Pieces that a thread keeps: a mebibyte.
const KEPT: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LENT: Cell<usize> = const { Cell::new(0) };
}

/// Makes room for `more` bytes behind those of `bytes`.
#[inline]
pub(crate) fn make_room(bytes: &mut Vec<u8>, more: usize) {
    let wanted = bytes.len().saturating_add(more);
    if wanted <= bytes.capacity() || !(LEAST..=PIECE).contains(&wanted) {
        return;
    }
    let free = FREE.with_borrow_mut(Vec::pop);
    let mut piece = free.unwrap_or_else(|| Vec::with_capacity(PIECE));
    piece.extend_from_slice(bytes);
    *bytes = piece;
}

/// Lends bytes. Their memory goes to later ones when nobody has them any more.
pub(crate) fn lend(bytes: Vec<u8>) -> Bytes {
    let of_thread = OfThread::new(bytes.capacity());
    Bytes::from_owner(Piece { bytes, _of_thread: of_thread })
}

/// Bytes of memory that this thread has lent. Copies of a few bytes are not counted: how many there are is bounded by the windows of the path.
pub(crate) fn held() -> usize {
    LENT.get()
}

/// Memory that is counted as lent.
pub(crate) struct OfThread(usize);

impl OfThread {
    pub(crate) fn new(bytes: usize) -> Self {
        LENT.set(LENT.get().saturating_add(bytes));
        Self(bytes)
    }
}

impl Drop for OfThread {
    fn drop(&mut self) {
        // Not when the thread ends.
        let _ = LENT.try_with(|lent| lent.set(lent.get().saturating_sub(self.0)));
    }
}

/// A piece that is lent.
struct Piece {
    bytes: Vec<u8>,
    _of_thread: OfThread,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut piece = std::mem::take(&mut self.bytes);
        if piece.capacity() != PIECE {
            return;
        }
        // Not when the thread ends.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free.len() < KEPT
            {
                piece.clear();
                free.push(piece);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        FREE.with_borrow(Vec::len)
    }

    #[test]
    fn memory_is_used_again_and_does_not_grow() {
        let mut bytes = b"head".to_vec();
        make_room(&mut bytes, 10_000);
        bytes.extend_from_slice(&[7; 10_000]);
        let at = bytes.as_ptr();
        let lent = lend(bytes);
        let half = lent.slice(..100);
        drop(lent);
        assert_eq!(kept(), 0, "somebody has a part of it");
        drop(half);
        assert_eq!(kept(), 1);
        let mut next = Vec::new();
        make_room(&mut next, PIECE);
        assert!(next.is_empty() && next.as_ptr() == at && next.capacity() == PIECE);
        let all: Vec<Bytes> = (0..3 * KEPT)
            .map(|_| {
                let mut bytes = Vec::new();
                make_room(&mut bytes, LEAST);
                bytes.push(1);
                lend(bytes)
            })
            .collect();
        drop(all);
        assert_eq!(kept(), KEPT);
    }

    #[test]
    fn what_is_small_or_large_is_left_to_the_allocator() {
        for length in [1, LEAST - 1, PIECE + 1] {
            let mut bytes = Vec::new();
            make_room(&mut bytes, length);
            assert_eq!(bytes.capacity(), 0, "{length}");
            bytes.resize(length, 0);
            drop(lend(bytes));
        }
        assert_eq!(kept(), 0);
    }
}

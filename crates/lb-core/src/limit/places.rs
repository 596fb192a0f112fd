//! Requests at once, counted for all workers: all together, or by key in a table of fixed size without a lock.
//!
//! Eight bytes a key: 40 bits of a hash, and a count. Eight places make a bucket, which is one cache line. A place is free when its count is zero, so
//! there are as many keys as requests run, and none is forgotten. A key that finds its bucket full of others passes without being counted: it is new, and so below its
//! limit, and no flood of keys keeps it out.
//!
//! A key that is new to a bucket takes a place with a count of zero, looks whether another worker has taken one for it at the same time, and only then counts
//! itself; of two such places none stays. So a key never has two.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// Places in a bucket.
const WAYS: usize = 8;

/// Buckets of a table by key: half a mebibyte in all.
const BUCKETS: usize = 8192;

/// Bits of a place that count.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// How often a bucket is looked at again while a key is new to it in two workers at once.
const PATIENCE: u32 = 1000;

/// Requests that run, by key.
#[derive(Debug)]
pub struct PlaceTable {
    buckets: Box<[Bucket]>,
    secret: RandomState,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// What became of a request that has asked for a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaceTaken {
    /// It has one, and must give it back.
    Held,
    /// It has none, and passes: its bucket is full, or was in motion for too long.
    Uncounted,
    /// There is no room for it.
    Refused,
}

impl PlaceTable {
    /// A table in which nothing runs; with `by_key` for many keys, otherwise for one.
    pub fn new(by_key: bool) -> Self {
        let buckets = if by_key { BUCKETS } else { 1 };
        Self { buckets: (0..buckets).map(|_| Bucket::default()).collect(), secret: RandomState::new() }
    }

    /// What hashes keys.
    pub fn hasher(&self) -> impl Hasher + use<> {
        self.secret.build_hasher()
    }

    /// Takes a place for a request of this key, of which at most `max` may run at once.
    pub fn take(&self, hash: u64, max: u32) -> PlaceTaken {
        let (bucket, tag) = self.bucket(hash);
        for _ in 0..PATIENCE {
            let (mut free, mut is_unsettled) = (None, false);
            for place in bucket {
                let mut held = place.load(SeqCst);
                while held >> COUNT_BITS == tag {
                    let count = held & COUNT_MASK;
                    if count == 0 {
                        is_unsettled = true;
                        break;
                    }
                    if count >= u64::from(max) {
                        return PlaceTaken::Refused;
                    }
                    match place.compare_exchange_weak(held, held.saturating_add(1), SeqCst, SeqCst) {
                        Ok(_) => return PlaceTaken::Held,
                        Err(now) => held = now,
                    }
                }
                if held == 0 && free.is_none() {
                    free = Some(place);
                }
            }
            if is_unsettled {
                std::hint::spin_loop();
                continue;
            }
            let Some(place) = free else { return PlaceTaken::Uncounted };
            if place.compare_exchange(0, tag << COUNT_BITS, SeqCst, SeqCst).is_err() {
                continue;
            }
            // Nobody else changes a place with a count of zero.
            let is_other = |other: &&AtomicU64| !std::ptr::eq(*other, place);
            if bucket.iter().filter(is_other).any(|other| other.load(SeqCst) >> COUNT_BITS == tag) {
                place.store(0, SeqCst);
                std::hint::spin_loop();
                continue;
            }
            place.store(tag << COUNT_BITS | 1, SeqCst);
            return PlaceTaken::Held;
        }
        PlaceTaken::Uncounted
    }

    /// Gives a place back that was [`PlaceTaken::Held`].
    pub fn give_back(&self, hash: u64) {
        let (bucket, tag) = self.bucket(hash);
        let _ = bucket.iter().any(|place| give_back(place, tag));
    }

    /// Requests that hold a place.
    pub fn running(&self) -> u64 {
        let places = self.buckets.iter().flat_map(|bucket| &bucket.0);
        places.map(|place| place.load(SeqCst) & COUNT_MASK).sum()
    }

    fn bucket(&self, hash: u64) -> (&[AtomicU64], u64) {
        let count = u64::try_from(self.buckets.len()).unwrap_or(u64::MAX);
        let at = u128::from(hash).wrapping_mul(u128::from(count)) >> 64;
        let bucket = usize::try_from(at).ok().and_then(|at| self.buckets.get(at));
        // The low bits, which say little about the bucket. Zero is the tag of free places.
        let tag = (hash & (u64::MAX >> COUNT_BITS)).max(1);
        (bucket.map(|bucket| &bucket.0[..]).unwrap_or_default(), tag)
    }
}

/// Counts a key down at a place. False where the place is not its own.
fn give_back(place: &AtomicU64, tag: u64) -> bool {
    let mut held = place.load(SeqCst);
    while held >> COUNT_BITS == tag && held & COUNT_MASK > 0 {
        let left = if held & COUNT_MASK == 1 { 0 } else { held.saturating_sub(1) };
        match place.compare_exchange_weak(held, left, SeqCst, SeqCst) {
            Ok(_) => return true,
            Err(now) => held = now,
        }
    }
    false
}

//! A table of what keys owe: of fixed size, shared by all workers, without a lock.
//!
//! Sixteen bytes a key: a hash, and the moment until which the key owes. Four places make a bucket, which is one cache line, and the hash says which
//! bucket is a key's. All memory is taken when the table is made. The hash is keyed by a secret of the process, so that nobody can aim at a bucket.
//!
//! A key that is new to a full bucket takes the place of the one that owes least. What that one owes is forgotten: it may have up to its whole burst once
//! more. Whoever uses his limit up owes most and stays; a flood of keys, each with one request, pushes out keys of its own kind.
//!
//! The moment of a key changes by compare-and-swap. Where a place changes hands it is marked as `CHANGING` meanwhile, and whoever looks for a key in the
//! bucket waits for that, though never for long: a thread can be stopped in the middle. Where the wait is over, and where three workers change a bucket within
//! nanoseconds, a key can come to have two places; then one request more may pass, and the place that is not found first is given up in time.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::time::Instant;

use super::gcra::RequestRate;

/// Places in a bucket.
const WAYS: usize = 4;

/// The hash of a place that nobody has had.
const EMPTY: u64 = 0;

/// The hash of a place that changes hands.
const CHANGING: u64 = 1;

/// How often a bucket is looked at again while one of its places changes hands.
const PATIENCE: u32 = 128;

/// What the keys of a limit owe.
#[derive(Debug)]
pub struct RateTable {
    buckets: Box<[Bucket]>,
    secret: RandomState,
    /// Moments are counted from here.
    epoch: Instant,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([Place; WAYS]);

#[derive(Debug, Default)]
struct Place {
    hash: AtomicU64,
    until: AtomicU64,
}

/// What a bucket takes.
#[cfg(test)]
pub(super) const BUCKET_BYTES: usize = size_of::<Bucket>();

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The moment until which the key owes, or how long it is to wait, in nanoseconds.
    pub result: Result<u64, u64>,
    /// A key was forgotten that owed something.
    pub has_evicted: bool,
}

impl RateTable {
    /// A table with room for so many keys at least. `epoch` is no later than any moment at which it will be asked.
    pub fn new(keys: u32, epoch: Instant) -> Self {
        let ways = u32::try_from(WAYS).unwrap_or(1);
        let buckets = (0..keys.div_ceil(ways).max(1)).map(|_| Bucket::default()).collect();
        Self { buckets, secret: RandomState::new(), epoch }
    }

    /// Keys that it has room for.
    pub fn capacity(&self) -> usize {
        self.buckets.len().saturating_mul(WAYS)
    }

    /// What hashes keys.
    pub fn hasher(&self) -> impl Hasher + use<> {
        self.secret.build_hasher()
    }

    /// A moment on the clock of the table, nanoseconds.
    #[inline]
    pub fn moment(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Lets a request of a key pass, or not. A refused one costs the key nothing.
    pub fn take(&self, hash: u64, rate: &RequestRate, now: u64) -> Taken {
        let hash = real(hash);
        let mut patience = PATIENCE;
        loop {
            let (mut changes, mut least) = (false, None);
            for place in self.bucket(hash) {
                let held = place.hash.load(Acquire);
                if held == hash {
                    if let Some(result) = place.take(hash, rate, now) {
                        return Taken { result, has_evicted: false };
                    }
                    changes = true;
                } else if held == CHANGING {
                    changes = true;
                } else {
                    let until = place.until.load(Acquire);
                    if least.is_none_or(|(_, _, least)| until < least) {
                        least = Some((place, held, until));
                    }
                }
            }
            if patience == 0 {
                return Taken { result: rate.decide(0, now), has_evicted: false };
            }
            patience = patience.saturating_sub(1);
            match least {
                Some((place, held, until)) if !changes => {
                    let result = rate.decide(0, now);
                    let Ok(next) = result else { return Taken { result, has_evicted: false } };
                    if place.replace(held, hash, next) {
                        return Taken { result, has_evicted: held != EMPTY && until > now };
                    }
                }
                _ => std::hint::spin_loop(),
            }
        }
    }

    /// Takes back what a request has cost that passed just now, and was refused elsewhere.
    pub fn give_back(&self, hash: u64, rate: &RequestRate) {
        let hash = real(hash);
        let place = self.bucket(hash).iter().find(|place| place.hash.load(Acquire) == hash);
        if let Some(place) = place {
            place.change(hash, |until| Some(until.saturating_sub(rate.interval())));
        }
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &[Place] {
        let count = u64::try_from(self.buckets.len()).unwrap_or(u64::MAX);
        let at = u128::from(hash).wrapping_mul(u128::from(count)) >> 64;
        let bucket = usize::try_from(at).ok().and_then(|at| self.buckets.get(at));
        bucket.map(|bucket| &bucket.0[..]).unwrap_or_default()
    }
}

impl Place {
    /// A request of the key that is here. `None` where the place has got another key meanwhile.
    #[inline]
    fn take(&self, hash: u64, rate: &RequestRate, now: u64) -> Option<Result<u64, u64>> {
        let mut result = Err(0);
        self.change(hash, |until| {
            result = rate.decide(until, now);
            // A refused request changes nothing, unless the key owes more than this rate allows: it did so under another.
            result.ok().or(rate.less_than_owed(until, now))
        })?;
        Some(result)
    }

    /// Changes the moment of the key that is here, unless `change` leaves it. `None` where the place has got another key.
    #[inline]
    fn change(&self, hash: u64, mut change: impl FnMut(u64) -> Option<u64>) -> Option<()> {
        loop {
            let until = self.until.load(Acquire);
            // Looked at after the moment, so that this is the moment of the key, or fails to be exchanged.
            if self.hash.load(Acquire) != hash {
                return None;
            }
            let Some(next) = change(until) else { return Some(()) };
            if self.until.compare_exchange_weak(until, next, AcqRel, Acquire).is_ok() {
                return Some(());
            }
        }
    }

    /// Gives the place to another key. False where it has changed meanwhile.
    fn replace(&self, held: u64, hash: u64, until: u64) -> bool {
        if self.hash.compare_exchange(held, CHANGING, AcqRel, Acquire).is_err() {
            return false;
        }
        // Whoever has just put the moment of the old key off has let its request pass before the key was forgotten.
        self.until.store(until, Release);
        self.hash.store(hash, Release);
        true
    }
}

/// A hash that stands for a key.
fn real(hash: u64) -> u64 {
    hash.max(CHANGING.saturating_add(1))
}

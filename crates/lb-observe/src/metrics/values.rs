//! The values that the code bumps: counters, gauges and histograms.
//!
//! Two sorts exist because a read-modify-write that several cores share costs more than the work it counts.
//! The plain sort has one writer, and is a relaxed load and a relaxed store; each worker has its own copy and
//! a scrape adds them up. The `Shared` sort may be bumped from anywhere, and is for rare events only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A count that only grows, written by one thread.
///
/// Invariant: one thread calls [`add`](Self::add) and [`inc`](Self::inc). A second writer loses counts, nothing
/// worse. Any thread may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The count now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A count that only grows, written by any thread. For events that are rare next to requests.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The count now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A quantity that goes up and down, written by one thread (the invariant of [`Counter`]).
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `amount`.
    pub fn add(&self, amount: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Takes `amount` away.
    pub fn sub(&self, amount: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.sub(1);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// A quantity that any thread may set or change. For rare changes.
#[derive(Debug, Default)]
pub struct SharedGauge(AtomicI64);

impl SharedGauge {
    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Counts of one family by a label whose values are names in the program, such as configuration keys.
/// Takes a lock: for rare events.
#[derive(Debug, Default)]
pub struct SharedCounters(Mutex<BTreeMap<&'static str, u64>>);

impl SharedCounters {
    /// Makes the series of these names exist, at zero unless they already counted.
    pub fn declare(&self, names: &[&'static str]) {
        let mut counts = self.lock();
        for name in names {
            counts.entry(name).or_default();
        }
    }

    /// Adds one to the series of `name`.
    pub fn inc(&self, name: &'static str) {
        *self.lock().entry(name).or_default() += 1;
    }

    /// Every series and its count, in the order of the names.
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        self.lock().iter().map(|(name, count)| (*name, *count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters by a name of the configuration.
#[derive(Debug, Default)]
pub struct NamedCounters(Mutex<BTreeMap<String, u64>>);

impl NamedCounters {
    /// Makes the series of exactly these names exist, at zero unless they already counted.
    pub fn keep(&self, names: &[&str]) {
        let mut counts = self.lock();
        counts.retain(|name, _| names.contains(&name.as_str()));
        for name in names {
            counts.entry((*name).to_owned()).or_default();
        }
    }

    /// Adds one to the series of `name`.
    pub fn inc(&self, name: &str) {
        let mut counts = self.lock();
        let count = counts.entry(name.to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    /// Every series and its count, in the order of the names.
    pub fn values(&self) -> Vec<(String, u64)> {
        self.lock().iter().map(|(name, count)| (name.clone(), *count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Durations sorted into fixed buckets, written by one thread (the invariant of [`Counter`]).
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One count for each bound, not cumulative; the one at `bounds.len()` is what exceeds them all.
    counts: [Counter; MAX_BOUNDS + 1],
    nanoseconds: Counter,
}

impl Histogram {
    /// An empty histogram with inclusive upper `bounds` in nanoseconds, ascending, at most [`MAX_BOUNDS`].
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.len() <= MAX_BOUNDS && bounds.is_sorted());
        Self { bounds, counts: Default::default(), nanoseconds: Counter::default() }
    }

    /// Counts one `duration`.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = duration
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(duration.subsec_nanos()));
        let bucket = self.bounds.partition_point(|bound| *bound < nanoseconds);
        if let Some(count) = self.counts.get(bucket) {
            count.inc();
        }
        self.nanoseconds.add(nanoseconds);
    }

    /// Adds what was observed so far to `totals`.
    pub(crate) fn add_to(&self, totals: &mut HistogramTotals) {
        for (total, count) in totals.counts.iter_mut().zip(&self.counts) {
            *total += count.value();
        }
        totals.nanoseconds = totals.nanoseconds.wrapping_add(self.nanoseconds.value());
    }
}

/// The sum of histograms with equal bounds, as a scrape collects it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistogramTotals {
    counts: [u64; MAX_BOUNDS + 1],
    pub(crate) nanoseconds: u64,
}

impl HistogramTotals {
    /// Adds another sum.
    pub(crate) fn add(&mut self, other: &Self) {
        for (total, count) in self.counts.iter_mut().zip(other.counts) {
            *total = total.wrapping_add(count);
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(other.nanoseconds);
    }

    /// What was added after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        since.nanoseconds = since.nanoseconds.wrapping_sub(earlier.nanoseconds);
        since
    }

    /// How many durations were observed.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many durations were at most each bound, bound by bound; the last value is the whole count.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
    }
}

/// One `T` for each worker, each on cache lines of its own so that workers do not slow one another down.
#[derive(Debug)]
pub struct PerWorker<T> {
    // The first stands apart so that there is always one to answer with.
    first: Aligned<T>,
    rest: Box<[Aligned<T>]>,
}

impl<T: Default> PerWorker<T> {
    /// Shards for `workers` workers, and at least one.
    pub fn new(workers: usize) -> Self {
        Self {
            first: Aligned::default(),
            rest: std::iter::repeat_with(Aligned::default).take(workers.saturating_sub(1)).collect(),
        }
    }
}

impl<T> PerWorker<T> {
    /// The shard of the worker with this index. An index out of range gets the first shard.
    pub fn of(&self, worker: usize) -> &T {
        let shard = worker.checked_sub(1).and_then(|index| self.rest.get(index)).unwrap_or(&self.first);
        &shard.0
    }

    /// Every shard, in the order of the workers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest).map(|shard| &shard.0)
    }
}

// Two lines of 64 bytes: Intel's prefetcher fetches them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned<T>(T);

/// The most bounds that a [`Histogram`] can have.
pub const MAX_BOUNDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_add_up() {
        let counter = Counter::default();
        counter.inc();
        counter.add(41);
        assert_eq!(counter.value(), 42);

        let gauge = Gauge::default();
        gauge.inc();
        gauge.sub(3);
        gauge.dec();
        assert_eq!(gauge.value(), -3);
        gauge.set(7);
        assert_eq!(gauge.value(), 7);
    }

    #[test]
    fn shared_counter_loses_nothing() {
        let counter = SharedCounter::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counter.inc()));
            }
        });
        assert_eq!(counter.value(), 4000);
    }

    #[test]
    fn histogram_bounds_are_inclusive() {
        static BOUNDS: [u64; 3] = [100, 1_000, 10_000];
        let histogram = Histogram::new(&BOUNDS);
        for nanoseconds in [0, 100, 101, 1_000, 10_001] {
            histogram.observe(Duration::from_nanos(nanoseconds));
        }
        histogram.observe(Duration::MAX);
        let mut totals = HistogramTotals::default();
        histogram.add_to(&mut totals);
        assert_eq!(totals.cumulative().take(4).collect::<Vec<_>>(), [2, 4, 4, 6]);
        assert_eq!(totals.count(), 6);
    }

    #[test]
    fn per_worker_answers_any_index() {
        let shards = PerWorker::<Counter>::new(3);
        shards.of(2).inc();
        shards.of(99).inc();
        assert_eq!(shards.iter().map(Counter::value).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(PerWorker::<Counter>::new(0).iter().count(), 1);

        let address = |worker| std::ptr::from_ref(shards.of(worker)).addr();
        assert!((0..3).all(|worker| address(worker) % 128 == 0));
    }

    #[test]
    fn shared_counters_are_shown_by_name() {
        let counters = SharedCounters::default();
        ["b", "a", "b"].into_iter().for_each(|name| counters.inc(name));
        assert_eq!(counters.values(), [("a", 1), ("b", 2)]);
    }
}

//! What QUIC holds in memory for its peers, and the budget of it.
//!
//! Windows bound what one peer can make the gateway hold, and caps how many peers there are; the product of the two is more than a machine has.
//! So each worker keeps account of what is held at once: content that was received and not passed on, of each connection, and content that
//! quiche was lent and has not given back, of all of them. Where the budget is used up
//!
//! * no connection of a client begins,
//! * a connection of a client that holds [`FLOOR`] bytes or more receives nothing: its datagrams are dropped, as by a socket whose buffer is full, and
//!   sent again when there may be room,
//! * exchanges read little at a time from backends.
//!
//! So connections with little on their hands go on, and those with much end their part of the excess or wait. Connections to backends are
//! counted, and lose nothing: clients share them.
//!
//! What was received is known from above. quiche tells what can be read; what it keeps behind gaps it does not tell, so that datagrams count in full
//! when they come, and what cannot be accounted for counts less with each second: overhead, copies, and bytes behind gaps.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_config::Config;
use lb_observe::metrics::WorkerMetrics;

use crate::connection::Quic;
use crate::lent;

/// What each connection may hold whatever the others do, in bytes.
const FLOOR: usize = 32 * 1024;

/// Bytes of a datagram that are no content: headers, the tag of its encryption, an acknowledgement.
const OVERHEAD: usize = 48;

/// The gauge follows in steps of so many bytes, and each time that a connection compares.
const STEP: usize = 64 * 1024;

/// How often a connection compares what is counted with what can be read.
const PERIOD: Duration = Duration::from_secs(1);

/// The budget of a worker.
#[derive(Debug)]
pub struct QuicMemory {
    /// Bytes that may be held.
    most: Cell<usize>,
    /// Bytes that were received and not passed on.
    received: Cell<usize>,
    /// What the gauge says.
    told: Cell<usize>,
    workers: usize,
    metrics: Arc<WorkerMetrics>,
}

impl QuicMemory {
    /// The budget of one of so many workers, which have equal parts of what the configuration allows.
    pub fn new(config: &Config, workers: usize, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        let new = Self::of(0, workers, metrics);
        new.set_limit(config);
        new
    }

    /// A budget of `most` bytes.
    pub(crate) fn of(most: usize, workers: usize, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        let (most, received, told) = (Cell::new(most), Cell::new(0), Cell::new(0));
        Rc::new(Self { most, received, told, workers: workers.max(1), metrics })
    }

    /// Changes how much may be held from now on.
    pub fn set_limit(&self, config: &Config) {
        let most = usize::try_from(config.runtime.quic_buffer_bytes).unwrap_or(usize::MAX);
        self.most.set(most / self.workers);
    }

    /// Whether the budget is used up.
    pub(crate) fn is_used_up(&self) -> bool {
        self.held() >= self.most.get()
    }

    fn held(&self) -> usize {
        self.received.get().saturating_add(lent::held())
    }

    /// Brings the gauge up to date.
    fn tell(&self) {
        let held = self.held();
        let amount = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.quic.buffered.add(amount(held) - amount(self.told.replace(held)));
    }

    /// A connection of a client, or with `is_shared` one to a backend.
    pub(crate) fn connection(self: &Rc<Self>, is_shared: bool) -> Holding {
        Holding { of: Rc::clone(self), bytes: 0, looked: None, is_shared }
    }
}

/// What one connection holds of what it has received. Dropping it gives that back.
#[derive(Debug)]
pub(crate) struct Holding {
    of: Rc<QuicMemory>,
    bytes: usize,
    looked: Option<Instant>,
    is_shared: bool,
}

impl Holding {
    /// A datagram has come. False where there is no room for it.
    pub(crate) fn receives(&mut self, length: usize) -> bool {
        if !self.is_shared && self.bytes >= FLOOR && self.of.is_used_up() {
            self.of.metrics.quic.unbuffered.inc();
            return false;
        }
        self.set(self.bytes.saturating_add(length.saturating_sub(OVERHEAD)));
        true
    }

    /// Whether the budget is used up.
    pub(crate) fn is_scarce(&self) -> bool {
        self.of.is_used_up()
    }

    /// Content was taken, and passed on.
    pub(crate) fn passes(&mut self, length: usize) {
        self.set(self.bytes.saturating_sub(length));
    }

    /// Compares what is counted with what can be read.
    pub(crate) fn look(&mut self, quic: &Quic, now: Instant) {
        if self.bytes == 0 || self.looked.is_some_and(|looked| now < looked + PERIOD) {
            return;
        }
        self.looked = Some(now);
        let bytes = self.bytes;
        let readable = quic.readable().map(|id| quic.stream_readable_len(id, bytes));
        self.compare(readable.fold(0, usize::saturating_add));
        self.of.tell();
    }

    /// Of what is counted, so much is there.
    fn compare(&mut self, readable: usize) {
        let other = self.bytes.saturating_sub(readable);
        self.set(readable.saturating_add(other.saturating_sub(other.div_ceil(4))));
    }

    fn set(&mut self, bytes: usize) {
        let others = self.of.received.get().saturating_sub(self.bytes);
        self.of.received.set(others.saturating_add(bytes));
        self.bytes = bytes;
        if self.of.held().abs_diff(self.of.told.get()) >= STEP {
            self.of.tell();
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.set(0);
        self.of.tell();
    }
}

#[cfg(test)]
mod tests {
    use lb_observe::metrics::Metrics;

    use super::*;

    fn budget(bytes: usize) -> Rc<QuicMemory> {
        QuicMemory::of(bytes, 1, Metrics::new(1).worker(0))
    }

    #[test]
    fn what_holds_much_receives_nothing_when_the_budget_is_used_up() {
        let memory = budget(100_000);
        let (mut much, mut little, mut shared) =
            (memory.connection(false), memory.connection(false), memory.connection(true));
        while !memory.is_used_up() {
            assert!(much.receives(1200));
        }
        assert!(!much.receives(1200), "over the floor");
        for _ in 0..FLOOR / 1152 {
            assert!(little.receives(1200), "below it");
        }
        assert!((0..1000).all(|_| shared.receives(1200)), "clients share it");
        assert_eq!(memory.metrics.quic.unbuffered.value(), 1);
        drop((little, shared));
        much.passes(10_000);
        assert!(!memory.is_used_up() && much.receives(1200));
        drop(much);
        assert_eq!(memory.received.get(), 0);
    }

    #[test]
    fn what_cannot_be_accounted_for_counts_less_with_time() {
        let memory = budget(1_000_000);
        let mut holding = memory.connection(false);
        (0..100).for_each(|_| assert!(holding.receives(1048)));
        holding.compare(60_000);
        assert_eq!(holding.bytes, 90_000);
        (0..40).for_each(|_| holding.compare(60_000));
        assert_eq!(holding.bytes, 60_000);
        (0..60).for_each(|_| holding.compare(0));
        assert_eq!((holding.bytes, memory.received.get()), (0, 0));
    }

    #[test]
    fn what_quiche_was_lent_counts() {
        let memory = budget(50_000);
        assert!(!memory.is_used_up());
        let lent = lent::lend(vec![7; 50_000]);
        assert!(memory.is_used_up());
        let half = lent.slice(..10);
        drop(lent);
        assert!(memory.is_used_up(), "somebody has a part of it");
        drop(half);
        assert!(!memory.is_used_up());
    }
}

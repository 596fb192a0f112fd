//! What the workers of one listener share.
//!
//! The kernel gives the datagrams of one client address to one worker. When a client's address changes, another worker may get them, which
//! finds the backend of a connection ID here. It is written once for each ID that a backend issues, and read only for IDs that a worker does
//! not know by itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lb_core::quic::rates::SourceRates;
use lb_core::quic::{ConnectionId, MAX_CONNECTION_ID};

const SHARDS: usize = 16;

/// What the workers of one listener share.
#[derive(Debug)]
pub struct PassthroughShared {
    /// How fast sources begin connections.
    pub(crate) rates: SourceRates,
    /// What the log says of refusals.
    pub(crate) audit: Audit,
    shards: [Mutex<HashMap<ConnectionId, Issued>>; SHARDS],
    /// How many IDs have each length.
    lengths: [AtomicUsize; MAX_CONNECTION_ID + 1],
    /// Clients that were refused because other workers had all the flows.
    wanted: AtomicUsize,
}

/// Clients that room is made for at a time.
const MOST_WANTED: usize = 256;

/// An ID that a backend has issued.
#[derive(Clone, Copy, Debug)]
struct Issued {
    backend: SocketAddr,
    /// The worker that has seen it last, and forgets it.
    worker: usize,
}

impl Default for PassthroughShared {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl PassthroughShared {
    /// Nothing is known at first.
    pub fn new(now: Instant) -> Self {
        let rates = SourceRates::new(now);
        let (shards, lengths) = Default::default();
        Self { rates, audit: Audit::new(now), shards, lengths, wanted: AtomicUsize::new(0) }
    }

    /// A worker has refused a client because there are as many flows as there may be, of which it has none that could give way.
    pub(crate) fn want_room(&self) {
        let more = |wanted| (wanted < MOST_WANTED).then_some(wanted + 1);
        let _ = self.wanted.fetch_update(Relaxed, Relaxed, more);
    }

    /// Whether a worker wants room that another one may have.
    pub(crate) fn wants_room(&self) -> bool {
        self.wanted.load(Relaxed) > 0
    }

    /// A flow of another worker has given way.
    pub(crate) fn gave_room(&self) {
        let _ = self.wanted.fetch_update(Relaxed, Relaxed, |wanted| wanted.checked_sub(1));
    }

    /// A backend has issued an ID, or a worker has seen it. The first backend that has issued it counts.
    pub(crate) fn learn(&self, id: ConnectionId, backend: SocketAddr, worker: usize) {
        let mut shard = self.shard(&id);
        match shard.entry(id) {
            Entry::Occupied(mut known) => {
                if known.get().backend == backend {
                    known.get_mut().worker = worker;
                }
            }
            Entry::Vacant(place) => {
                place.insert(Issued { backend, worker });
                if let Some(count) = self.lengths.get(id.len()) {
                    count.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// A worker knows an ID no more. What another worker has seen since then stays.
    pub(crate) fn forget(&self, id: ConnectionId, worker: usize) {
        let mut shard = self.shard(&id);
        if shard.get(&id).is_some_and(|issued| issued.worker == worker) {
            shard.remove(&id);
            if let Some(count) = self.lengths.get(id.len()) {
                count.fetch_sub(1, Relaxed);
            }
        }
    }

    /// The backend of an ID.
    pub(crate) fn find(&self, id: &[u8]) -> Option<(ConnectionId, SocketAddr)> {
        let id = ConnectionId::new(id).filter(|id| !id.is_empty())?;
        let issued = *self.shard(&id).get(&id)?;
        Some((id, issued.backend))
    }

    /// The backend of the ID that `bytes` begin with.
    pub(crate) fn find_prefix(&self, bytes: &[u8]) -> Option<(ConnectionId, SocketAddr)> {
        let lengths = self.lengths.iter().enumerate().rev();
        let there = lengths.filter(|(length, count)| *length > 0 && count.load(Relaxed) > 0);
        there.filter_map(|(length, _)| bytes.get(..length)).find_map(|id| self.find(id))
    }

    fn shard(&self, id: &ConnectionId) -> MutexGuard<'_, HashMap<ConnectionId, Issued>> {
        let sum = id.as_bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let [first, ..] = &self.shards;
        // No update is ever half done, so that a thread that dies with the lock leaves nothing wrong.
        let shard = self.shards.get(usize::from(sum) % SHARDS).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kind of refusal that the log tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are as many flows as there may be.
    TableFull,
    /// A known ID came from another address.
    SourceBinding,
    /// A source begins too many connections.
    SourceRate,
    /// No backend can be picked.
    NoBackend,
    /// No socket towards a backend can be had.
    NoSocket,
}

/// When each kind of refusal was logged last, over all workers.
#[derive(Debug)]
pub(crate) struct Audit {
    start: Instant,
    /// In milliseconds from `start`, plus one.
    told: [AtomicU64; 5],
    unsaid: [AtomicU64; 5],
}

impl Audit {
    fn new(start: Instant) -> Self {
        Self { start, told: Default::default(), unsaid: Default::default() }
    }

    /// Whether a refusal is logged now, once in `window`; if so, how many were not since the last time.
    pub(crate) fn admit(&self, kind: Refusal, window: Duration, now: Instant) -> Option<u64> {
        let (told, unsaid) = (self.told.get(kind as usize)?, self.unsaid.get(kind as usize)?);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.start)).saturating_add(1);
        let last = told.load(Relaxed);
        let is_due = last == 0 || now >= last.saturating_add(millis(window));
        if is_due && told.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            return Some(unsaid.swap(0, Relaxed));
        }
        unsaid.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_to_all_workers_until_the_last_that_saw_it_forgets_it() {
        let shared = PassthroughShared::default();
        let id = ConnectionId::new(b"issued").unwrap();
        let backend = ([10, 0, 0, 1], 443).into();
        shared.learn(id, backend, 0);
        assert_eq!(shared.find_prefix(b"issued and more"), Some((id, backend)));
        assert_eq!(shared.find(b"issue"), None);
        shared.learn(id, backend, 1);
        shared.forget(id, 0);
        assert_eq!(shared.find(b"issued"), Some((id, backend)));
        shared.learn(id, ([10, 0, 0, 2], 443).into(), 2);
        assert_eq!(shared.find(b"issued"), Some((id, backend)), "no other backend takes it over");
        shared.forget(id, 1);
        assert_eq!((shared.find(b"issued"), shared.find_prefix(b"issued..")), (None, None));
        assert!(shared.lengths.iter().all(|count| count.load(Relaxed) == 0));
    }

    #[test]
    fn ten_thousand_refusals_of_a_kind_are_one_line_in_a_window() {
        let start = Instant::now();
        let audit = Audit::new(start);
        let window = Duration::from_secs(60);
        let at = |seconds| start + Duration::from_secs(seconds);
        let lines = (0..10_000).filter_map(|_| audit.admit(Refusal::TableFull, window, start)).count();
        assert_eq!(lines, 1);
        assert_eq!(audit.admit(Refusal::SourceBinding, window, start), Some(0), "each kind by itself");
        assert_eq!(audit.admit(Refusal::TableFull, window, at(59)), None);
        assert_eq!(audit.admit(Refusal::TableFull, window, at(60)), Some(10_000));
    }
}

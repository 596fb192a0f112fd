//! One address of a backend, for the whole process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lb_core::address::Address;
use lb_core::health;
use lb_core::outlier::{Counts, EjectionCause};

use crate::tally::Tally;

/// What distinguishes the members of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberKey {
    /// The backend as the configuration names it.
    pub backend: String,
    /// One of its addresses.
    pub address: Address,
}

/// One backend of a pool with the addresses that its name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedBackend {
    /// The backend as the configuration names it.
    pub name: String,
    /// All its addresses; each is a member.
    pub addresses: Vec<Address>,
}

impl ResolvedBackend {
    /// Goes through the members of a pool: for each its position and what belongs to its backend, of which `of_backends` has one for each
    /// of `backends`.
    pub fn for_members<B: Copy>(
        backends: &[Self],
        of_backends: impl IntoIterator<Item = B>,
    ) -> impl Iterator<Item = (usize, B)> {
        let pairs = backends.iter().zip(of_backends);
        pairs.flat_map(|(backend, of)| backend.addresses.iter().map(move |_| of)).enumerate()
    }
}

/// One address of a backend. Lives on while any configuration names it in the same pool.
#[derive(Debug)]
pub struct SharedMember {
    /// Its identity.
    pub key: MemberKey,
    /// What changes while it lives.
    live: Mutex<Live>,
    /// What each worker counts of it.
    tallies: Arc<[Tally]>,
    /// When it came to be.
    born: Instant,
}

/// What changes while a member lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// What its health checks have found, where there are any.
    pub(crate) health: Option<health::Target>,
    /// An operator wants it to finish what it has and to get nothing more.
    pub(crate) draining: bool,
    /// The weight that an operator has given it in place of the configured one.
    pub(crate) weight: Option<u32>,
    /// Why it was put aside last.
    pub(crate) ejection: Option<EjectionCause>,
}

impl SharedMember {
    pub(crate) fn new(key: MemberKey, workers: usize) -> Self {
        let tallies = (0..workers.max(1)).map(|_| Tally::default()).collect();
        Self { key, live: Mutex::default(), tallies, born: Instant::now() }
    }

    /// Counts a request that has ended, for the worker whose tally it is.
    #[inline]
    pub(crate) fn count(&self, worker: usize, failed: bool, latency: Option<Duration>, now: Instant) {
        if let Some(tally) = self.tally(worker) {
            tally.count(failed, latency, now.saturating_duration_since(self.born));
        }
    }

    /// Whether no request that got a response has ended since `then`.
    pub(crate) fn is_silent_since(&self, then: Instant) -> bool {
        let then = then.saturating_duration_since(self.born);
        self.tallies.iter().all(|tally| tally.heard().is_none_or(|heard| heard < then))
    }

    #[inline]
    pub(crate) fn tally(&self, worker: usize) -> Option<&Tally> {
        self.tallies.get(worker)
    }

    /// The counts of each worker, for what may outlive the member.
    pub(crate) fn tallies(&self) -> Arc<[Tally]> {
        Arc::clone(&self.tallies)
    }

    /// The counts of all workers together.
    pub(crate) fn counts(&self) -> Counts {
        self.tallies.iter().map(Tally::counts).fold(Counts::default(), Counts::plus)
    }

    /// Requests and connections of all workers that run now.
    pub(crate) fn running(&self) -> (u64, u64) {
        let running = self.tallies.iter().map(Tally::running);
        running.fold((0, 0), |sum, one| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1)))
    }

    /// A panic elsewhere leaves plain values behind, which are as good as before.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

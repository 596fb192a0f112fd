//! A pool as one worker sees it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::balance::{Balancer, MemberSpec, MemberState, Outcome, Policy, Standing};
use lb_core::outlier::{Ending, Streak};

use crate::lineage::Lineage;
use crate::shared::{Announcement, SharedPool};

/// A pool as one worker sees it. Members are known by position, as in the shared pool.
#[derive(Debug)]
pub struct WorkerPool {
    shared: Arc<SharedPool>,
    worker: usize,
    balancer: Rc<RefCell<Balancer>>,
    /// Those that came before under this name and may come after, and which of them this is.
    lineage: Rc<Lineage>,
    generation: u64,
    watched: RefCell<Vec<Watched>>,
    /// The epoch of the shared pool that the balancer knows.
    seen: Cell<u64>,
    /// Members that nothing is known against.
    fit: Cell<usize>,
}

/// What a worker remembers of how a member serves it.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    streak: Streak,
    ejections: u64,
    probation_until: Option<Instant>,
}

impl WorkerPool {
    /// The pool for a worker. Workers start at different members. It takes over from `earlier`, the same pool before a change: the load of
    /// members that stay is known, and what ends there is told here.
    pub fn new(shared: Arc<SharedPool>, worker: usize, now: Instant, earlier: Option<&Self>) -> Self {
        let specs: Vec<MemberSpec> = shared.members.iter().map(|(_, spec)| *spec).collect();
        let seed = u64::try_from(worker).unwrap_or_default();
        let mut balancer = Balancer::new(shared.settings.balance.clone(), &specs, seed, now);
        if let Some(earlier) = earlier {
            balancer.inherit(&earlier.balancer.borrow());
        }
        let balancer = Rc::new(RefCell::new(balancer));
        let (lineage, generation) = match earlier {
            Some(earlier) => (Rc::clone(&earlier.lineage), earlier.lineage.follow(&balancer, &shared)),
            None => (Lineage::new(&balancer, &shared), 0),
        };
        let pool = Self {
            balancer,
            lineage,
            generation,
            watched: RefCell::new(vec![Watched::default(); specs.len()]),
            seen: Cell::new(shared.epoch()),
            fit: Cell::new(0),
            shared,
            worker,
        };
        pool.update(now);
        pool
    }

    /// What all workers know of the pool.
    pub fn shared(&self) -> &Arc<SharedPool> {
        &self.shared
    }

    /// Whether picks follow a key.
    #[inline]
    pub fn follows_key(&self) -> bool {
        self.policy().follows_key()
    }

    fn policy(&self) -> Policy {
        self.shared.settings.balance.policy
    }

    /// The member for the next request, among those that `admits` lets through.
    #[inline]
    pub fn pick(&self, now: Instant, key: Option<u64>, admits: impl Fn(usize) -> bool) -> Option<usize> {
        if self.seen.get() != self.shared.epoch() {
            self.update(now);
        }
        self.balancer.borrow_mut().pick(now, key, admits)
    }

    /// The member at `at`, if it can be picked: for a client that is to come back to it.
    pub fn pick_again(&self, now: Instant, at: usize) -> Option<usize> {
        if self.seen.get() != self.shared.epoch() {
            self.update(now);
        }
        self.balancer.borrow().is_in_use(at).then_some(at)
    }

    /// A request goes to the member at `at`.
    #[inline]
    pub fn begin(&self, at: usize) {
        self.balance(at, |balancer, at| balancer.begin(at));
        if let Some(tally) = self.shared.tally(self.worker, at) {
            tally.begin();
        }
    }

    /// A connection to the member at `at` was opened that lives as long as what it carries.
    pub fn opened(&self, at: usize) {
        self.balance(at, |balancer, at| balancer.opened(at));
        if let Some(tally) = self.shared.tally(self.worker, at) {
            tally.open();
        }
    }

    /// It was closed.
    pub fn closed(&self, at: usize) {
        self.balance(at, |balancer, at| balancer.closed(at));
        if let Some(tally) = self.shared.tally(self.worker, at) {
            tally.close();
        }
    }

    /// What [`Self::begin`] counted has ended. `ending` says what it says of the member, if anything; `latency` is the time to the head of
    /// the response. Tells when the member was put aside for it.
    #[inline]
    pub fn end(
        &self,
        at: usize,
        now: Instant,
        ending: Option<Ending>,
        latency: Option<Duration>,
    ) -> Option<Announcement> {
        let failed = ending.is_some_and(Ending::is_failure);
        if let Some(tally) = self.shared.tally(self.worker, at) {
            tally.count(failed, latency);
        }
        self.balance(at, |balancer, at| balancer.end(at, now, Outcome { latency, failed }));
        self.judge(at, now, ending?)
    }

    /// Tells the balancer, and that of the pool which has taken this one's place.
    #[inline]
    fn balance(&self, at: usize, act: impl Fn(&mut Balancer, usize)) {
        act(&mut self.balancer.borrow_mut(), at);
        if self.lineage.has_moved_on(self.generation) {
            self.lineage.tell(&self.shared, at, act);
        }
    }

    #[inline]
    fn judge(&self, at: usize, now: Instant, ending: Ending) -> Option<Announcement> {
        let outlier = self.shared.settings.outlier.as_ref()?;
        let cause = {
            let mut watched = self.watched.borrow_mut();
            let watched = watched.get_mut(at)?;
            let limits = match watched.probation_until {
                Some(until) if now < until => outlier.streaks.halved(),
                _ => outlier.streaks,
            };
            watched.streak.record(ending, limits)?
        };
        self.shared.eject(at, cause, now)
    }

    /// Which part of the pool is in use.
    pub fn standing(&self, now: Instant) -> Standing {
        if self.seen.get() != self.shared.epoch() {
            self.update(now);
        }
        self.balancer.borrow().standing()
    }

    /// How many members there are that take work and that nothing is known against. Without any the pool may still be picked from, in
    /// panic.
    pub fn fit(&self, now: Instant) -> usize {
        if self.seen.get() != self.shared.epoch() {
            self.update(now);
        }
        self.fit.get()
    }

    fn update(&self, now: Instant) {
        self.seen.set(self.shared.epoch());
        let views = self.shared.views(now);
        self.fit.set(views.iter().filter(|view| is_fit(&view.state)).count());
        let mut watched = self.watched.borrow_mut();
        for (watched, view) in watched.iter_mut().zip(&views) {
            if watched.ejections != view.ejections {
                watched.streak = Streak::default();
            }
            watched.ejections = view.ejections;
            watched.probation_until = view.probation_until;
        }
        let state = |at: usize| views.get(at).map(|view| view.state);
        let mut balancer = self.balancer.borrow_mut();
        balancer.update(now, |at| state(at).unwrap_or(NOBODY));
    }
}

fn is_fit(state: &MemberState) -> bool {
    state.healthy && !state.ejected && !state.draining && state.weight > 0
}

/// What stands for a member that is not there.
const NOBODY: MemberState =
    MemberState { healthy: false, ejected: false, draining: true, weight: 0, healthy_since: None };

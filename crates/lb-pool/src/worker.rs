//! A pool as one worker sees it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::balance::{Balancer, MemberSpec, MemberState, Policy, RequestOutcome};
use lb_core::failure::Failure;
use lb_core::outlier::{EjectionCause, Ending, OutlierSettings, Streak};
use lb_core::rest::RestCause;
use lb_core::retry::{Attempt, Conditions, RetrySettings, RetryVerdict, Why};
use lb_observe::metrics::{BackendMetrics, PoolMetrics, PoolShard};

use crate::connection::Connection;
use crate::feed::Subscription;
use crate::gate::{Gate, Place};
use crate::lineage::Lineage;
use crate::member::SharedMember;
use crate::shared::SharedPool;
use crate::tries::Tries;
use crate::view::PoolView;
use crate::worker_member::WorkerMember;

/// A pool as one worker sees it. Members are known by position, as in the shared pool.
#[derive(Debug)]
pub struct WorkerPool {
    shared: Arc<SharedPool>,
    worker: usize,
    balancer: Rc<RefCell<Balancer>>,
    /// The pools that follow each other under this name in this worker, and the number of this pool among them.
    lineage: Rc<Lineage>,
    generation: u64,
    watched: RefCell<Vec<Watched>>,
    /// The state of the shared pool that the balancer was updated for.
    subscription: Subscription<PoolView>,
    /// How many members are fit: they take work, and neither checks nor failures speak against them.
    fit: Cell<usize>,
    /// Some member is left alone in that state.
    resting: Cell<bool>,
    /// Some of those may be given one request in that state.
    due: Cell<bool>,
    tries: Tries,
    /// The limits of each member; empty where there are none.
    gates: Vec<Rc<Gate>>,
    metrics: Arc<PoolMetrics>,
}

/// What a worker counts of how a member serves it.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    streak: Streak,
    ejections: u64,
    probation_until: Option<Instant>,
    /// It is left alone, but for one request.
    is_due: bool,
}

impl WorkerPool {
    /// The pool for a worker. Workers start at different members. It takes over from `earlier`, this pool before a change: the load of
    /// members that stay counts on, and requests that began with `earlier` end here.
    pub fn new(
        shared: Arc<SharedPool>,
        worker: usize,
        now: Instant,
        earlier: Option<&Self>,
        metrics: Arc<PoolMetrics>,
    ) -> Self {
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
        let tries = Tries::new(shared.settings.retry, earlier.map(|earlier| &earlier.tries), now);
        let gates = gates(&shared, worker, earlier, &metrics);
        metrics.set_kinds(!gates.is_empty());
        let pool = Self {
            balancer,
            lineage,
            generation,
            watched: RefCell::new(vec![Watched::default(); specs.len()]),
            subscription: shared.subscribe_to_version(),
            fit: Cell::new(0),
            resting: Cell::new(false),
            due: Cell::new(false),
            shared,
            worker,
            tries,
            gates,
            metrics,
        };
        pool.update(now, &[]);
        pool
    }

    /// The state of the pool that all workers share.
    pub fn shared(&self) -> &Arc<SharedPool> {
        &self.shared
    }

    /// The member at `at` as this worker reaches it: inside `tls` if that is given, and counted in `metrics`.
    pub fn member<T>(
        &self,
        at: usize,
        tls: Option<Arc<T>>,
        metrics: Arc<BackendMetrics>,
    ) -> Option<WorkerMember<T>> {
        let (member, _) = self.shared.members.get(at)?;
        Some(WorkerMember::new(member, tls, metrics))
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
        self.refresh(now);
        let picked = self.balancer.borrow_mut().pick(now, key, &admits);
        if self.due.get() { self.try_one(now, key, picked, &admits) } else { picked }
    }

    /// To each member that is left alone only one request of the whole process may go; for any other request another member is picked.
    #[cold]
    fn try_one(
        &self,
        now: Instant,
        key: Option<u64>,
        mut picked: Option<usize>,
        admits: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        // The state that follows from a request which another worker has let through may not be published yet.
        let mut taken = Vec::new();
        while let Some(at) = picked.filter(|at| self.is_due(*at))
            && !self.shared.try_one(at, now)
        {
            taken.push(at);
            self.update(now, &taken);
            picked = self.balancer.borrow_mut().pick(now, key, |other| other != at && admits(other));
        }
        picked
    }

    fn is_due(&self, at: usize) -> bool {
        self.watched.borrow().get(at).is_some_and(|watched| watched.is_due)
    }

    /// The member at `at`, if it can be picked: for a client that is bound to it.
    pub fn pick_again(&self, now: Instant, at: usize) -> Option<usize> {
        self.refresh(now);
        if !self.balancer.borrow().is_in_use(at) {
            return None;
        }
        (!self.due.get() || !self.is_due(at) || self.shared.try_one(at, now)).then_some(at)
    }

    /// Whether the member at `at` can be picked: for what is at it already.
    #[inline]
    pub fn is_in_use(&self, at: usize, now: Instant) -> bool {
        self.refresh(now);
        self.balancer.borrow().is_in_use(at)
    }

    /// A connect to the member at `at` failed, and the member is to blame for it.
    pub fn unreachable(&self, at: usize, cause: RestCause, now: Instant) {
        self.shared.failed(at, cause, now);
    }

    /// The member at `at` has not responded to a request that was sent to it at `asked`, for longer than is allowed.
    pub fn timed_out(&self, at: usize, asked: Instant, now: Instant) {
        self.shared.timed_out(at, asked, now);
    }

    /// The member at `at` has taken a connection or answered a request that was sent to it at `asked`.
    #[inline]
    pub fn answered(&self, at: usize, asked: Instant, now: Instant) {
        if self.resting.get() {
            self.shared.answered(at, asked, now);
        }
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

    /// Counts a connection to the member at `at` that requests share or follow each other on, for as long as it is open. It is no load:
    /// what it carries is. `place` is its room.
    pub fn connected(&self, at: usize, place: Option<Place>) -> Option<Connection> {
        let (member, _) = self.shared.members.get(at)?;
        Some(Connection::new(member.tallies(), self.worker, place))
    }

    /// A request that [`Self::begin`] counted has ended. `ending` is the evidence about the member, if there is any; `latency` is the time
    /// to the head of the response.
    #[inline]
    pub fn end(&self, at: usize, now: Instant, ending: Option<Ending>, latency: Option<Duration>) {
        let failed = ending.is_some_and(Ending::is_failure);
        if let Some((member, _)) = self.shared.members.get(at) {
            member.count(self.worker, failed, latency, now);
        }
        self.balance(at, |balancer, at| balancer.end(at, now, RequestOutcome { latency, failed }));
        if let Some(outlier) = &self.shared.settings.outlier
            && let Some(ending) = ending
            && let Some(cause) = self.judge(outlier, at, now, ending)
        {
            self.shared.eject(at, cause, now);
        }
    }

    /// What [`Self::begin`] counted is over and was no request: nothing could be sent, or it is a connection whose requests the gateway
    /// does not see.
    pub fn withdraw(&self, at: usize, now: Instant) {
        if let Some(tally) = self.shared.tally(self.worker, at) {
            tally.withdraw();
        }
        self.balance(at, |balancer, at| {
            balancer.end(at, now, RequestOutcome { latency: None, failed: false });
        });
    }

    /// Updates the balancer, and that of the pool which has taken this one's place.
    #[inline]
    fn balance(&self, at: usize, act: impl Fn(&mut Balancer, usize)) {
        act(&mut self.balancer.borrow_mut(), at);
        if self.lineage.has_moved_on(self.generation) {
            self.lineage.tell(&self.shared, at, act);
        }
    }

    /// Whether there were too many failures in a row.
    #[inline]
    fn judge(
        &self,
        outlier: &OutlierSettings,
        at: usize,
        now: Instant,
        ending: Ending,
    ) -> Option<EjectionCause> {
        let mut watched = self.watched.borrow_mut();
        let watched = watched.get_mut(at)?;
        let limits = match watched.probation_until {
            Some(until) if now < until => outlier.streaks.halved(),
            _ => outlier.streaks,
        };
        watched.streak.record(ending, limits)
    }

    /// The rules for further tries.
    #[inline]
    pub fn retry(&self) -> &RetrySettings {
        &self.tries.settings
    }

    /// Counts a request that may be tried again. [`Self::end_request`] is due when it has ended.
    #[inline]
    pub fn begin_request(&self) {
        self.tries.begin();
    }

    /// A request has ended.
    #[inline]
    pub fn end_request(&self) {
        self.tries.end();
    }

    /// Whether a request is tried again within the pool's budget, where these failures are worth it. [`Self::try_done`] is due for a charged
    /// try.
    pub fn decide(
        &self,
        conditions: &Conditions,
        failure: Failure,
        attempt: Attempt,
        now: Instant,
    ) -> RetryVerdict {
        let verdict = self.tries.decide(conditions, failure, attempt, now);
        if verdict == RetryVerdict::No(Why::Budget) {
            self.shard().budget_exhausted.inc();
        }
        verdict
    }

    /// A further try that was charged to the budget has ended.
    pub fn try_done(&self) {
        self.tries.done();
    }

    /// Whether a second try may ever run beside the first.
    #[inline]
    pub fn hedges(&self) -> bool {
        self.tries.settings.hedge.percentile > 0
    }

    /// How long a request waits before a second try runs beside the first; `None` when none does.
    #[inline]
    pub fn hedge_delay(&self) -> Option<Duration> {
        self.tries.hedge().borrow().delay()
    }

    /// Charges such a second try to the budget, if it has room. [`Self::try_done`] is due.
    #[must_use]
    pub fn take_hedge(&self, now: Instant) -> bool {
        let taken = self.tries.take(now);
        let counter = if taken { &self.shard().hedges } else { &self.shard().budget_exhausted };
        counter.inc();
        taken
    }

    /// Records how long a try took to its response head, or had waited for it when it was given up for another.
    #[inline]
    pub fn record_latency(&self, latency: Duration) {
        self.tries.hedge().borrow_mut().record(latency);
    }

    /// The limits of a member, where there are any.
    #[inline]
    pub fn gate(&self, at: usize) -> Option<&Rc<Gate>> {
        self.gates.get(at)
    }

    /// Whether members have limits.
    #[inline]
    pub fn is_limited(&self) -> bool {
        !self.gates.is_empty()
    }

    /// What this worker counts for the pool.
    pub fn shard(&self) -> &PoolShard {
        self.metrics.worker(self.worker)
    }

    /// How many members are fit: they take work, and neither checks nor failures speak against them. Without any the pool may still be
    /// picked from, in panic.
    pub fn fit(&self, now: Instant) -> usize {
        self.refresh(now);
        self.fit.get()
    }

    /// Updates the balancer when the shared pool has changed.
    #[inline]
    fn refresh(&self, now: Instant) {
        if self.subscription.is_behind() {
            self.update(now, &[]);
        }
    }

    /// Takes in the newest state. The members at the positions in `taken` have had their one request and count as left alone.
    #[cold]
    fn update(&self, now: Instant, taken: &[usize]) {
        let view = self.subscription.newest();
        self.fit.set(view.fit());
        self.resting.set(view.resting > 0);
        self.due.set(view.states.iter().any(|member| member.is_due));
        let mut watched = self.watched.borrow_mut();
        for (at, (watched, member)) in watched.iter_mut().zip(&view.states).enumerate() {
            if watched.ejections != member.ejections {
                watched.streak = Streak::default();
            }
            watched.ejections = member.ejections;
            watched.probation_until = member.probation_until;
            watched.is_due = member.is_due && !taken.contains(&at);
        }
        let mut balancer = self.balancer.borrow_mut();
        balancer.update(now, |at| match view.states.get(at) {
            Some(member) => {
                MemberState { ejected: member.state.ejected || taken.contains(&at), ..member.state }
            }
            None => NOBODY,
        });
    }
}

/// The default for a member that is not there.
const NOBODY: MemberState = MemberState {
    healthy: false,
    answers: false,
    ejected: false,
    draining: true,
    weight: 0,
    healthy_since: None,
};

/// The gate of each member, with this worker's part of the limits. A member that stays keeps its own.
fn gates(
    shared: &SharedPool,
    worker: usize,
    earlier: Option<&WorkerPool>,
    metrics: &Arc<PoolMetrics>,
) -> Vec<Rc<Gate>> {
    let whole = shared.settings.limits;
    if whole.is_off() {
        return Vec::new();
    }
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let limits = whole.share(number(worker), number(shared.workers));
    let mut known = HashMap::new();
    if let Some(earlier) = earlier {
        let members = earlier.shared.members.iter().map(|(member, _)| Arc::as_ptr(member));
        known.extend(members.zip(&earlier.gates));
    }
    let gate = |member: &Arc<SharedMember>| match known.get(&Arc::as_ptr(member)) {
        Some(gate) => {
            gate.reconfigure(limits);
            Rc::clone(gate)
        }
        None => Gate::new(limits, Arc::clone(metrics), worker),
    };
    shared.members.iter().map(|(member, _)| gate(member)).collect()
}

//! The gateway as far as it decides: what the process shares, and what each worker has of its own.

use std::time::{Duration, Instant};

use lb_core::balance::{Balancer, MemberSpec, MemberState, hash};
use lb_core::breaker::Breaker;
use lb_core::health::{HealthState, ProbeOutcome, Target};
use lb_core::hedge::Hedge;
use lb_core::outlier::{Counts, EjectionCause, EjectionStanding, Ejector, Ending, Streak};
use lb_core::retry::Budget;

use crate::world::World;

/// What all workers know in common.
pub(crate) struct Shared {
    pub(crate) targets: Vec<Target>,
    pub(crate) ejector: Ejector,
    /// Changes with everything that a worker has to take in.
    pub(crate) epoch: u64,
    draining: Vec<bool>,
    readings: Vec<Counts>,
    /// Whether the last probes of each member passed, and how many in a row did the same.
    rows: Vec<(bool, u32)>,
}

impl Shared {
    pub(crate) fn new(world: &World, now: Instant) -> Self {
        let target = |at| Target::new(world.health, now, world.seed.wrapping_mul(31).wrapping_add(at));
        let backends = world.backends.len();
        Self {
            targets: (0..backends as u64).map(target).collect(),
            ejector: Ejector::new(world.ejection, backends, world.seed),
            epoch: 0,
            draining: vec![false; backends],
            readings: vec![Counts::default(); backends],
            rows: vec![(false, 0); backends],
        }
    }

    /// A probe ended; says whether that changed anything, and checks that it had to and might.
    pub(crate) fn probed(&mut self, world: &World, at: usize, outcome: ProbeOutcome, now: Instant) -> bool {
        let before = self.targets[at].state();
        let change = self.targets[at].end(outcome, now);
        let (passed, row) = &mut self.rows[at];
        *row = if *passed == outcome.passed() { *row + 1 } else { 1 };
        *passed = outcome.passed();
        let needed = match before {
            HealthState::Unknown => 1,
            HealthState::Unhealthy if *passed => world.health.rise,
            HealthState::Healthy if !*passed => world.health.fall,
            _ => u32::MAX,
        };
        assert_eq!(change.is_some(), *row >= needed, "{row} probes in a row from {before:?}, {outcome:?}");
        self.epoch += u64::from(change.is_some());
        change.is_some()
    }

    /// Whether a member is in service.
    pub(crate) fn is_fit(&self, at: usize, now: Instant) -> bool {
        self.takes_load(at) && !matches!(self.ejector.standing(at, now), EjectionStanding::Out { .. })
    }

    pub(crate) fn is_draining(&self, at: usize) -> bool {
        self.draining[at]
    }

    fn takes_load(&self, at: usize) -> bool {
        !self.draining[at] && self.targets[at].state().is_usable()
    }

    /// Ejects a member if the ejector agrees, and checks that it keeps its promises.
    pub(crate) fn eject(&mut self, world: &World, at: usize, now: Instant) {
        let fit: Vec<bool> = (0..self.targets.len()).map(|at| self.takes_load(at)).collect();
        let Ok(until) = self.ejector.eject(at, now, |other| fit[other]) else { return };
        self.epoch += 1;
        assert!(until > now && until - now <= world.ejection.max, "ejected for {:?}", until - now);
        assert!(self.ejector.out() <= world.ejection.most_out(fit.len()));
        assert!((0..fit.len()).any(|other| self.is_fit(other, now)), "the last one was ejected");
    }

    /// What the control thread does from time to time.
    pub(crate) fn tick(&mut self, world: &World, since_start: Duration, now: Instant) {
        let mut changes = 0;
        let standings: Vec<_> = (0..self.targets.len()).map(|at| self.ejector.standing(at, now)).collect();
        self.ejector.expire(now, |at| {
            let is_over = matches!(standings[at], EjectionStanding::Out { until } if until <= now);
            assert!(is_over, "member {at} returned before its time");
            changes += 1;
        });
        for (at, draining) in self.draining.iter_mut().enumerate() {
            let drains = world.backends[at].is_draining(since_start);
            changes += u64::from(drains != *draining);
            *draining = drains;
        }
        self.epoch += changes;
    }

    /// Compares the members over the interval that ends.
    pub(crate) fn analyse(&mut self, world: &World, workers: &[Worker], now: Instant) {
        let mut windows = Vec::new();
        for (at, reading) in self.readings.iter_mut().enumerate() {
            let sum = workers.iter().fold(Counts::default(), |sum, worker| sum.plus(worker.counts[at]));
            windows
                .push((sum.since(*reading), self.ejector.standing(at, now) == EjectionStanding::Probation));
            *reading = sum;
        }
        for suspect in world.analysis.suspects(&windows) {
            self.eject(world, suspect.at, now);
        }
    }
}

/// What a worker has of its own.
pub(crate) struct Worker {
    pub(crate) balancer: Balancer,
    pub(crate) budget: Budget,
    pub(crate) hedge: Hedge,
    /// Each knows waiting requests by number.
    pub(crate) breakers: Vec<Breaker<usize>>,
    streaks: Vec<Streak>,
    counts: Vec<Counts>,
    out: Vec<bool>,
    epoch: u64,
    /// Requests, and tries taken from the budget.
    pub(crate) begun: u64,
    pub(crate) taken: u64,
}

impl Worker {
    pub(crate) fn new(world: &World, number: usize, now: Instant) -> Self {
        let spec = |(at, backend): (usize, &crate::world::Backend)| MemberSpec {
            identity: hash::bytes(format!("10.0.0.{at}:80").as_bytes()),
            weight: backend.weight,
            priority: backend.priority,
        };
        let specs: Vec<_> = world.backends.iter().enumerate().map(spec).collect();
        let seed = world.seed.wrapping_add(number as u64);
        let limits = world.limits.share(number as u32, world.workers as u32);
        Self {
            balancer: Balancer::new(world.balance.clone(), &specs, seed, now),
            budget: Budget::new(world.budget, now),
            hedge: Hedge::new(world.hedge),
            breakers: specs.iter().map(|_| Breaker::new(limits)).collect(),
            streaks: vec![Streak::default(); specs.len()],
            counts: vec![Counts::default(); specs.len()],
            out: vec![false; specs.len()],
            epoch: 0,
            begun: 0,
            taken: 0,
        }
    }

    /// Picks a member that was not tried before, one with room if there is any, and checks that it may be picked.
    pub(crate) fn pick(
        &mut self,
        world: &World,
        shared: &Shared,
        now: Instant,
        key: Option<u64>,
        tried: &[usize],
    ) -> Option<usize> {
        self.take_in(world, shared, now);
        let breakers = &self.breakers;
        let roomy = |at: usize| !tried.contains(&at) && breakers[at].has_room(lb_core::breaker::Need::Both);
        let picked = self.balancer.pick(now, key, roomy);
        let picked = picked.or_else(|| self.balancer.pick(now, key, |at| !tried.contains(&at)));
        if let Some(at) = picked {
            let panic = self.balancer.standing().panic;
            assert!(panic || shared.is_fit(at, now), "member {at} is not in service, and there is no panic");
            assert!(!panic || world.balance.panic_threshold_percent > 0);
            assert!(!shared.is_draining(at) && !tried.contains(&at));
        } else {
            let left = (0..self.breakers.len()).any(|at| {
                !tried.contains(&at)
                    && shared.is_fit(at, now)
                    && self.balancer.standing().priority == Some(world.backends[at].priority)
            });
            assert!(!left, "a member that could take the request was not found");
        }
        picked
    }

    fn take_in(&mut self, world: &World, shared: &Shared, now: Instant) {
        if self.epoch == shared.epoch {
            return;
        }
        self.epoch = shared.epoch;
        for (at, out) in self.out.iter_mut().enumerate() {
            let is_out = matches!(shared.ejector.standing(at, now), EjectionStanding::Out { .. });
            if *out && !is_out {
                self.streaks[at] = Streak::default();
            }
            *out = is_out;
        }
        let out = &self.out;
        self.balancer.update(now, |at| MemberState {
            healthy: shared.targets[at].state().is_usable(),
            answers: true,
            ejected: out[at],
            draining: shared.is_draining(at),
            weight: world.backends[at].weight,
            healthy_since: shared.targets[at].healthy_since().max(shared.ejector.returned(at)),
        });
    }

    /// Records how a try at a member ended; says so when it stands out.
    pub(crate) fn record(
        &mut self,
        world: &World,
        at: usize,
        ending: Ending,
        latency: Option<Duration>,
        probation: bool,
    ) -> Option<EjectionCause> {
        let one = Counts {
            requests: 1,
            failures: u64::from(ending.is_failure()),
            timed: u64::from(latency.is_some()),
            latency: latency.unwrap_or_default(),
        };
        self.counts[at] = self.counts[at].plus(one);
        let limits = if probation { world.streak.halved() } else { world.streak };
        self.streaks[at].record(ending, limits)
    }

    /// A request begins.
    pub(crate) fn begin(&mut self) {
        self.begun += 1;
        self.budget.begin();
    }

    /// A try was taken from the budget: both its bounds must hold.
    pub(crate) fn check_budget(&mut self, world: &World, since_start: Duration) {
        self.taken += 1;
        assert!(
            self.budget.extra() <= self.budget.at_once().max(self.budget.live()),
            "more than the budget allows"
        );
        let share = self.begun * u64::from(world.budget.percent) / 100;
        let floor = u64::from(world.budget.min) * (since_start.as_secs() + 2);
        assert!(self.taken <= share + floor, "{} tries of {} requests", self.taken, self.begun);
    }

    /// The bounds of the breaker must hold.
    pub(crate) fn check_breaker(&self, world: &World, number: usize, at: usize) {
        let limits = world.limits.share(number as u32, world.workers as u32);
        let within = |limit: u32, used: u32| limit == 0 || used <= limit;
        let breaker = &self.breakers[at];
        assert!(within(limits.max_requests, breaker.requests()));
        assert!(within(limits.max_connections, breaker.connections()));
        assert!(breaker.pending() <= limits.max_pending, "{} wait", breaker.pending());
        let full = |limit: u32, used: u32| limit != 0 && used >= limit;
        let full = full(limits.max_requests, breaker.requests())
            || full(limits.max_connections, breaker.connections());
        assert!(full || breaker.pending() == 0, "{} wait though there is room", breaker.pending());
    }

    /// When nothing is under way any more, nothing is counted as under way.
    pub(crate) fn check_idle(&self) {
        assert_eq!((self.budget.live(), self.budget.extra()), (0, 0));
        for (at, breaker) in self.breakers.iter().enumerate() {
            assert_eq!((breaker.requests(), breaker.connections(), breaker.pending()), (0, 0, 0));
            assert_eq!((self.balancer.requests(at), self.balancer.connections(at)), (0, 0));
        }
    }
}

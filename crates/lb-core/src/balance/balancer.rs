//! The state of one pool at one worker.

use std::time::Instant;

use super::ewma::Estimator;
use super::least::Least;
use super::load::Load;
use super::table::{self, Seat, Table};
use super::warmup::{self, FULL};
use super::{BalanceSettings, MemberSpec, MemberState, Policy, RequestOutcome, Standing};
use super::{hash, level, sequence};
use crate::rng::SplitMix64;

/// Picks members of a pool for one worker. Members are known by position.
#[derive(Clone, Debug)]
pub struct Balancer {
    pub(super) settings: BalanceSettings,
    members: Vec<MemberFacts>,
    /// By position, apart from [`MemberFacts`] so that a pick touches little memory.
    pub(super) loads: Vec<Load>,
    standing: Standing,
    /// The positions that can be picked.
    pub(super) in_use: Vec<u32>,
    /// Their weights together.
    pub(super) weight: u64,
    /// Their live requests together.
    pub(super) live: u64,
    /// A round of turns over those, for policies that follow no key and for requests without one.
    pub(super) round: Vec<u32>,
    /// The next turn of the round.
    pub(super) turn: usize,
    /// For policies that follow a key.
    pub(super) table: Table,
    /// For policies that want the least loaded.
    pub(super) least: Least,
    /// For [`Policy::P2cEwma`].
    pub(super) estimator: Estimator,
    /// When slow starts are due to be looked at; `None` when there are none.
    pub(super) warming: Option<Instant>,
    pub(super) random: SplitMix64,
    seed: u64,
}

/// The facts about a member that a pick does not need.
#[derive(Clone, Copy, Debug)]
struct MemberFacts {
    /// Distinct among the members.
    distinct: u64,
    priority: u32,
    healthy_since: Option<Instant>,
}

impl Balancer {
    /// A balancer over `members`, all healthy. Workers have different seeds, best those from 0 on: then their rounds begin at places
    /// far from each other.
    pub fn new(settings: BalanceSettings, members: &[MemberSpec], seed: u64, now: Instant) -> Self {
        let distinct = table::distinct(members.iter().map(|spec| spec.identity));
        let each = members.iter().zip(distinct).map(|(spec, distinct)| MemberFacts {
            distinct,
            priority: spec.priority,
            healthy_since: None,
        });
        let mut balancer = Self {
            members: each.collect(),
            loads: vec![Load::NONE; members.len()],
            standing: Standing { priority: None, panic: false, usable: 0 },
            in_use: Vec::new(),
            weight: 0,
            live: 0,
            round: Vec::new(),
            turn: 0,
            table: Table::NONE,
            least: Least::default(),
            estimator: Estimator::new(settings.ewma_decay, now),
            warming: None,
            random: SplitMix64::new(hash::mix(seed)),
            seed,
            settings,
        };
        balancer.update(now, |at| MemberState {
            healthy: true,
            answers: true,
            ejected: false,
            draining: false,
            weight: members.get(at).map_or(0, |spec| spec.weight),
            healthy_since: None,
        });
        balancer
    }

    /// Takes in the state of the members by position: which can be picked from now on, and in which proportion.
    pub fn update(&mut self, now: Instant, states: impl Fn(usize) -> MemberState) {
        let states: Vec<MemberState> = (0..self.members.len()).map(states).collect();
        let priorities = self.members.iter().map(|member| member.priority);
        let threshold = self.settings.panic_threshold_percent;
        self.standing = level::choose(priorities.zip(states.iter().copied()), threshold);
        let (mut used, mut others) = (Vec::with_capacity(self.standing.usable), Vec::new());
        (self.weight, self.live) = (0, 0);
        let each = self.members.iter_mut().zip(&mut self.loads).zip(&states);
        for (at, ((member, load), state)) in (0u32..).zip(each) {
            member.healthy_since = state.healthy_since;
            (load.weight, load.factor) = (0, FULL);
            let seat = Seat { identity: member.distinct, at, weight: state.weight };
            if level::in_use(&self.standing, member.priority, state) {
                load.weight = state.weight;
                self.weight += u64::from(state.weight);
                self.live += u64::from(load.requests);
                used.push(seat);
            } else if level::stands_by(&self.standing, member.priority, state) {
                others.push(seat);
            }
        }
        self.in_use = used.iter().map(|seat| seat.at).collect();
        self.arrange(sequence::round(&used));
        if self.settings.policy.follows_key() {
            self.table.update(&self.settings, &used, &others);
        }
        // In panic every member is needed whole.
        self.warming = (!self.settings.slow_start.is_zero() && !self.standing.panic).then_some(now);
        self.warm(now);
        self.least = Least::new(self.settings.policy, &self.loads);
    }

    /// Whether the member at `at` can be picked at all, for a client that is to come back to it.
    pub fn is_in_use(&self, at: usize) -> bool {
        self.loads.get(at).is_some_and(|load| load.weight > 0)
    }

    /// A request goes to the member at `at`.
    #[inline]
    pub fn begin(&mut self, at: usize) {
        if let Some(load) = self.loads.get_mut(at) {
            load.requests = load.requests.saturating_add(1);
            self.live += u64::from(load.weight > 0);
            self.least.changed(self.settings.policy, at, load);
        }
    }

    /// A request that [`Self::begin`] counted has ended.
    #[inline]
    pub fn end(&mut self, at: usize, now: Instant, outcome: RequestOutcome) {
        let Some(load) = self.loads.get_mut(at) else { return };
        load.requests = load.requests.saturating_sub(1);
        self.live = self.live.saturating_sub(u64::from(load.weight > 0));
        self.least.changed(self.settings.policy, at, load);
        if self.settings.policy == Policy::P2cEwma {
            let clock = self.estimator.clock(now);
            self.estimator.learn(&mut load.latency, outcome, clock);
        }
    }

    /// A connection to the member at `at` was opened.
    #[inline]
    pub fn opened(&mut self, at: usize) {
        if let Some(load) = self.loads.get_mut(at) {
            load.connections = load.connections.saturating_add(1);
            self.least.changed(self.settings.policy, at, load);
        }
    }

    /// A connection that [`Self::opened`] counted was closed.
    #[inline]
    pub fn closed(&mut self, at: usize) {
        if let Some(load) = self.loads.get_mut(at) {
            load.connections = load.connections.saturating_sub(1);
            self.least.changed(self.settings.policy, at, load);
        }
    }

    /// Takes over from `former`, for the members that both have: live requests, connections, latency, and the place in the round. For a
    /// pool whose members or settings change; [`Self::update`] is to follow.
    pub fn inherit(&mut self, former: &Self) {
        let mut known: Vec<(u64, Load)> =
            former.members.iter().zip(&former.loads).map(|(member, &load)| (member.distinct, load)).collect();
        known.sort_unstable_by_key(|(identity, _)| *identity);
        self.live = 0;
        for (member, load) in self.members.iter().zip(&mut self.loads) {
            if let Ok(found) = known.binary_search_by_key(&member.distinct, |(identity, _)| *identity)
                && let Some((_, former)) = known.get(found)
            {
                *load = Load { weight: load.weight, factor: load.factor, ..*former };
            }
            self.live += if load.weight > 0 { u64::from(load.requests) } else { 0 };
        }
        self.least = Least::new(self.settings.policy, &self.loads);
        self.estimator = former.estimator.clone().with_decay(self.settings.ewma_decay);
        self.turn = former.turn.checked_rem(self.round.len()).unwrap_or(0);
    }

    /// Which part of the pool is in use. For tests and the simulator, which check picks by it.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Live requests of the member at `at`. For tests and the simulator.
    pub fn requests(&self, at: usize) -> u32 {
        self.loads.get(at).map_or(0, |load| load.requests)
    }

    /// Open connections of the member at `at`. For tests and the simulator.
    pub fn connections(&self, at: usize) -> u32 {
        self.loads.get(at).map_or(0, |load| load.connections)
    }

    /// The latency that [`Policy::P2cEwma`] expects of the member at `at`.
    #[cfg(test)]
    pub(super) fn expected_latency(&self, at: usize, now: Instant) -> std::time::Duration {
        let latency = self.loads.get(at).map_or(super::ewma::Estimate::NONE, |load| load.latency);
        let nanoseconds = self.estimator.expected(latency, self.estimator.clock(now));
        std::time::Duration::from_nanos(nanoseconds as u64)
    }

    /// Continues with another round.
    fn arrange(&mut self, round: Vec<u32>) {
        if self.round == round {
            return;
        }
        self.turn = match self.turn.checked_rem(round.len()) {
            Some(turn) if !self.round.is_empty() => turn,
            // Fibonacci hashing puts seeds that follow each other far apart.
            _ => hash::part(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), round.len()),
        };
        self.round = round;
    }

    /// Looks at the slow starts: what each member in use has of its weight, compared with the one that has most.
    #[cold]
    pub(super) fn warm(&mut self, now: Instant) {
        if self.warming.take().is_none() {
            return;
        }
        let mut most = 1;
        for &at in &self.in_use {
            let at = at as usize;
            let (Some(member), Some(load)) = (self.members.get(at), self.loads.get_mut(at)) else { continue };
            let (factor, due) = warmup::factor(member.healthy_since, now, self.settings.slow_start);
            load.factor = factor;
            most = most.max(factor);
            self.warming = [self.warming, due].into_iter().flatten().min();
        }
        for &at in &self.in_use {
            if let Some(load) = self.loads.get_mut(at as usize) {
                let factor = u64::from(load.factor) * u64::from(FULL) / u64::from(most);
                load.factor = u32::try_from(factor).unwrap_or(FULL).clamp(1, FULL);
            }
        }
        self.least = Least::new(self.settings.policy, &self.loads);
    }

    /// The identity of the member at `at`, distinct in the pool.
    #[inline]
    pub(super) fn identity(&self, at: usize) -> u64 {
        self.members.get(at).map_or(0, |member| member.distinct)
    }
}

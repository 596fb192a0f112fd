//! The state of one pool at one worker.

use std::time::Instant;

use super::load::Load;
use super::warmup::{self, FULL};
use super::{MemberSpec, MemberState, Outcome, Policy, Settings, Standing};
use super::{hash, level, sequence};
use crate::rng::SplitMix64;

/// Picks members of a pool for one worker. Members are known by position.
#[derive(Clone, Debug)]
pub struct Balancer {
    settings: Settings,
    members: Vec<Member>,
    /// By position, apart from [`Member`] so that a pick touches little memory.
    loads: Vec<Load>,
    standing: Standing,
    /// The positions that can be picked.
    in_use: Vec<u32>,
    /// A round of turns over those.
    round: Vec<u32>,
    /// The next turn of the round.
    turn: usize,
    /// When slow starts are due to be looked at; `None` when there are none.
    warming: Option<Instant>,
    random: SplitMix64,
    seed: u64,
}

/// What a pick does not need to know of a member.
#[derive(Clone, Copy, Debug)]
struct Member {
    spec: MemberSpec,
    since: Option<Instant>,
}

impl Balancer {
    /// A balancer over `members`, all healthy. Workers have different seeds, best those from 0 on: then their rounds begin at places
    /// far from each other.
    pub fn new(settings: Settings, members: &[MemberSpec], seed: u64, now: Instant) -> Self {
        let mut balancer = Self {
            settings,
            members: members.iter().map(|&spec| Member { spec, since: None }).collect(),
            loads: vec![Load::new(); members.len()],
            standing: Standing { priority: None, panic: false, usable: 0 },
            in_use: Vec::new(),
            round: Vec::new(),
            turn: 0,
            warming: None,
            random: SplitMix64::new(hash::mix(seed)),
            seed,
        };
        balancer.update(now, |at| MemberState {
            healthy: true,
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
        let priorities = self.members.iter().map(|member| member.spec.priority);
        self.standing =
            level::choose(priorities.zip(states.iter().copied()), self.settings.panic_threshold_percent);
        let mut used: Vec<(u32, u32)> = Vec::with_capacity(self.standing.usable);
        let each = self.members.iter_mut().zip(&mut self.loads).zip(&states);
        for (at, ((member, load), state)) in (0u32..).zip(each) {
            member.since = state.healthy_since;
            load.factor = FULL;
            load.weight = 0;
            if level::in_use(&self.standing, member.spec.priority, state) {
                load.weight = state.weight;
                used.push((at, state.weight));
            }
        }
        let round = sequence::round(&used);
        if self.round != round {
            // A place by the seed keeps workers apart; Fibonacci hashing spreads seeds that follow each other.
            let place = hash::part(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), round.len());
            self.turn = if self.round.is_empty() { place } else { self.turn % round.len().max(1) };
            self.round = round;
        }
        self.in_use = used.into_iter().map(|(at, _)| at).collect();
        // In panic every member is needed whole.
        self.warming = (!self.settings.slow_start.is_zero() && !self.standing.panic).then_some(now);
        self.warm(now);
    }

    /// The member for the next request among those that `admits` lets through, such as those not tried before that have room. Finds
    /// one if there is any in the level in use. `key` is for the policies that follow one; without a key they pick by chance.
    #[inline]
    pub fn pick(&mut self, now: Instant, key: Option<u64>, admits: impl Fn(usize) -> bool) -> Option<usize> {
        if self.warming.is_some_and(|due| now >= due) {
            self.warm(now);
        }
        let _ = key;
        let picked = match self.settings.policy {
            Policy::RoundRobin => self.next(&admits),
            Policy::LeastRequest => self.least(|load| f64::from(load.requests), &admits),
            Policy::LeastConnections => {
                // Requests decide among equal connections.
                let load = |load: &Load| f64::from(load.connections) + f64::from(load.requests) / REQUESTS;
                self.least(load, &admits)
            }
            _ => self.draw(&admits).map(|(_, at)| at),
        };
        picked.or_else(|| self.any(&admits))
    }

    /// A request goes to the member at `at`.
    #[inline]
    pub fn begin(&mut self, at: usize) {
        if let Some(load) = self.loads.get_mut(at) {
            load.requests = load.requests.saturating_add(1);
        }
    }

    /// A request that [`Self::begin`] counted has ended.
    #[inline]
    pub fn end(&mut self, at: usize, now: Instant, outcome: Outcome) {
        let _ = (now, outcome);
        if let Some(load) = self.loads.get_mut(at) {
            load.requests = load.requests.saturating_sub(1);
        }
    }

    /// A connection to the member at `at` was opened.
    #[inline]
    pub fn opened(&mut self, at: usize) {
        if let Some(load) = self.loads.get_mut(at) {
            load.connections = load.connections.saturating_add(1);
        }
    }

    /// A connection that [`Self::opened`] counted was closed.
    #[inline]
    pub fn closed(&mut self, at: usize) {
        if let Some(load) = self.loads.get_mut(at) {
            load.connections = load.connections.saturating_sub(1);
        }
    }

    /// Which part of the pool is in use.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Live requests of the member at `at`.
    pub fn requests(&self, at: usize) -> u32 {
        self.loads.get(at).map_or(0, |load| load.requests)
    }

    /// Looks at the slow starts: what each member in use has of its weight, compared with the one that has most.
    #[cold]
    fn warm(&mut self, now: Instant) {
        if self.warming.take().is_none() {
            return;
        }
        let mut most = 0;
        for &at in &self.in_use {
            let (Some(member), Some(load)) = (self.members.get(at as usize), self.loads.get_mut(at as usize))
            else {
                continue;
            };
            let (factor, due) = warmup::factor(member.since, now, self.settings.slow_start);
            load.factor = factor;
            most = most.max(factor);
            self.warming = [self.warming, due].into_iter().flatten().min();
        }
        for &at in &self.in_use {
            if let Some(load) = self.loads.get_mut(at as usize) {
                let factor = u64::from(load.factor) * u64::from(FULL) / u64::from(most.max(1));
                load.factor = u32::try_from(factor).unwrap_or(FULL).clamp(1, FULL);
            }
        }
    }

    /// The next turn of the round whose member is admitted. Turns that are passed over are gone, so that the others keep their
    /// proportions.
    #[inline]
    fn next(&mut self, admits: &impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..TURNS {
            let at = *self.round.get(self.turn)? as usize;
            self.turn += 1;
            if self.turn >= self.round.len() {
                self.turn = 0;
            }
            if admits(at) && (self.warming.is_none() || self.loads.get_mut(at)?.takes_turn()) {
                return Some(at);
            }
        }
        None
    }

    /// A member by chance, and its turn in the round.
    #[inline]
    fn draw(&mut self, admits: &impl Fn(usize) -> bool) -> Option<(usize, usize)> {
        for _ in 0..DRAWS {
            let number = self.random.next_u64();
            let turn = hash::part(number, self.round.len());
            let at = *self.round.get(turn)? as usize;
            if admits(at) && (self.warming.is_none() || self.has_warmth(at, number)) {
                return Some((turn, at));
            }
        }
        None
    }

    /// Whether a member is taken that was drawn with `number`, by the chance of its slow start.
    #[inline]
    fn has_warmth(&self, at: usize, number: u64) -> bool {
        // The low bits of the number did not decide about the turn.
        self.loads.get(at).is_some_and(|load| (number & u64::from(FULL - 1)) < u64::from(load.factor))
    }

    /// The member with the lowest `load` for its share; among equals by chance and weight.
    fn least(&mut self, load: impl Fn(&Load) -> f64, admits: &impl Fn(usize) -> bool) -> Option<usize> {
        let loads = &self.loads;
        let in_use = || {
            let each = self.in_use.iter().map(|&at| at as usize);
            each.filter_map(|at| loads.get(at).map(|member| (at, member)))
        };
        // Divisions round equal ratios to the same number, so that equals are found to be equal.
        let score = |member: &Load| load(member) / member.share() as f64;
        let mut lowest = f64::INFINITY;
        let mut tied = 0u64;
        for (at, member) in in_use() {
            let score = score(member);
            if score < lowest && admits(at) {
                lowest = score;
                tied = member.share();
            } else if score == lowest && admits(at) {
                tied = tied.saturating_add(member.share());
            }
        }
        let mut left = self.random.below(tied);
        for (at, member) in in_use() {
            if score(member) == lowest && admits(at) {
                match left.checked_sub(member.share()) {
                    Some(rest) => left = rest,
                    None => return Some(at),
                }
            }
        }
        None
    }

    /// Any admitted member, from a random place on.
    #[cold]
    fn any(&mut self, admits: &impl Fn(usize) -> bool) -> Option<usize> {
        let place = hash::part(self.random.next_u64(), self.in_use.len());
        let (before, after) = self.in_use.split_at_checked(place)?;
        after.iter().chain(before).map(|&at| at as usize).find(|&at| admits(at))
    }
}

/// So many turns of the round are looked at before the members are asked one by one.
const TURNS: usize = 64;

/// So many draws are made before the members are asked one by one.
const DRAWS: usize = 16;

/// More than a count of requests can be.
const REQUESTS: f64 = (1u64 << 32) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(weights: &[u32]) -> Vec<MemberSpec> {
        let each = (0u64..).zip(weights);
        each.map(|(at, &weight)| MemberSpec { identity: hash::mix(at), weight, priority: 0 }).collect()
    }

    fn balancer(policy: Policy, weights: &[u32], seed: u64) -> Balancer {
        Balancer::new(Settings { policy, ..Settings::default() }, &specs(weights), seed, Instant::now())
    }

    #[test]
    fn round_robin_is_smooth_exact_and_skips_what_is_refused() {
        let now = Instant::now();
        let mut picker = balancer(Policy::RoundRobin, &[5, 1, 1], 0);
        let picks: Vec<_> = (0..7).map(|_| picker.pick(now, None, |_| true).unwrap()).collect();
        assert_eq!(picks, [0, 0, 1, 0, 0, 2, 0]);
        let mut seen = [0; 3];
        for _ in 0..40 {
            seen[picker.pick(now, None, |at| at != 0).unwrap()] += 1;
        }
        assert_eq!(seen, [0, 20, 20]);
    }

    #[test]
    fn workers_begin_their_rounds_at_different_places() {
        let now = Instant::now();
        let first = |seed| balancer(Policy::RoundRobin, &[1; 8], seed).pick(now, None, |_| true).unwrap();
        let mut firsts: Vec<_> = (0..8).map(first).collect();
        assert_eq!(firsts[0], 0);
        firsts.sort_unstable();
        firsts.dedup();
        assert!(firsts.len() >= 6, "{firsts:?}");
    }
}

//! How each policy picks.

use std::time::Instant;

use super::balancer::Balancer;
use super::load::Load;
use super::warmup::FULL;
use super::{Policy, hash};

impl Balancer {
    /// The member for the next request among those that `admits` lets through, such as those not tried before that have room. Finds
    /// one if there is any in the level in use. `key` is for the policies that follow one; without a key they pick by chance.
    #[inline]
    pub fn pick(&mut self, now: Instant, key: Option<u64>, admits: impl Fn(usize) -> bool) -> Option<usize> {
        if self.warming.is_some_and(|due| now >= due) {
            self.warm(now);
        }
        let picked = match (self.settings.policy, key) {
            (Policy::RoundRobin, _) => self.next(&admits),
            (Policy::Maglev | Policy::RingHash | Policy::Rendezvous, Some(key)) => {
                // A key that is a plain number becomes one that spreads.
                return self.follow(hash::mix(key), &admits);
            }
            (Policy::Random | Policy::Maglev | Policy::RingHash | Policy::Rendezvous, _) => {
                self.draw(&admits).map(|(_, at)| at)
            }
            (Policy::LeastConnections | Policy::LeastRequest, _) => {
                let number = self.random.next_u64();
                self.least.pick(number, &admits)
            }
            (Policy::P2c, _) => self.better_of_two(|load, _| load, &admits),
            (Policy::P2cEwma, _) => {
                let clock = self.estimator.clock(now);
                let estimator = self.estimator.clone();
                // By the square: a latency that was measured under load holds the wait for what stood before, so that live requests
                // only tell what has changed since. Otherwise a slow member would be filled until it has its share of those.
                let wait = |load: f32, member: &Load| {
                    let latency = estimator.expected(member.latency, clock);
                    latency * latency * (load + 1.0)
                };
                self.better_of_two(wait, &admits)
            }
        };
        picked.or_else(|| self.any(&admits))
    }

    /// The next turn of the round whose member is admitted. Turns that are passed over are spent, so that the other members keep their
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
            if admits(at) && self.chance(at, number) {
                return Some((turn, at));
            }
        }
        None
    }

    /// Of two drawn members the one with the lower cost, which is given the live requests for its share. Two turns are drawn, so
    /// that a heavy member may stand against itself: each unit of weight is like a member of its own, and members that are as good as
    /// each other get requests by weight.
    #[inline]
    fn better_of_two(
        &mut self,
        cost: impl Fn(f32, &Load) -> f32,
        admits: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (turn, first) = self.draw(admits)?;
        let turns = self.round.len();
        let mut second = first;
        for _ in 0..DRAWS {
            let number = self.random.next_u64();
            let mut other = turn + 1 + hash::part(number, turns.saturating_sub(1));
            if other >= turns {
                other -= turns;
            }
            let at = *self.round.get(other)? as usize;
            if admits(at) && self.chance(at, number) {
                second = at;
                break;
            }
        }
        // Requests for the share: as if all weights were the mean of them.
        let mean = self.weight as f32 / self.in_use.len() as f32;
        let cost = |load: &Load| cost(load.requests as f32 * mean / load.weight as f32, load);
        let better = cost(self.loads.get(second)?) < cost(self.loads.get(first)?);
        Some(if better { second } else { first })
    }

    /// Whether a member that was drawn with `number` is taken, by the chance of its slow start.
    #[inline]
    fn chance(&self, at: usize, number: u64) -> bool {
        // The low bits of the number did not decide about the turn.
        self.warming.is_none()
            || self.loads.get(at).is_some_and(|load| number & u64::from(FULL - 1) < u64::from(load.factor))
    }

    /// The first choice of `key` that is in use, admitted, within its bound and far enough in its slow start. If there is none, the
    /// slow start does not matter, then the bound.
    #[inline]
    fn follow(&self, key: u64, admits: &impl Fn(usize) -> bool) -> Option<usize> {
        let usable = |at: usize, load: &Load| load.weight > 0 && admits(at);
        let strict = |at: usize| {
            self.loads
                .get(at)
                .is_some_and(|load| usable(at, load) && self.has_room(load) && self.is_due(at, load, key))
        };
        if let Some(at) = self.table.find(key, strict) {
            return Some(at);
        }
        let roomy =
            |at: usize| self.loads.get(at).is_some_and(|load| usable(at, load) && self.has_room(load));
        let any = |at: usize| self.loads.get(at).is_some_and(|load| usable(at, load));
        let bounded = || self.table.scan(key, roomy).filter(|_| self.settings.balance_factor.is_some());
        bounded().or_else(|| self.table.find(key, any)).or_else(|| self.table.scan(key, any))
    }

    /// Whether one request more leaves a member within its bound: ceil(factor × live requests × weight / all weights), Mirrokni et
    /// al., "Consistent Hashing with Bounded Loads".
    #[inline]
    fn has_room(&self, load: &Load) -> bool {
        let Some(percent) = self.settings.balance_factor else { return true };
        let live = u128::from(self.live + 1) * u128::from(percent.max(100));
        u128::from(load.requests) * 100 * u128::from(self.weight) < live * u128::from(load.weight)
    }

    /// Whether a key goes to a member in its slow start: so many of its keys as the factor says, and always more of them.
    #[inline]
    fn is_due(&self, at: usize, load: &Load, key: u64) -> bool {
        load.factor >= FULL
            || (hash::mix(key.rotate_left(32) ^ self.identity(at)) & u64::from(FULL - 1))
                < u64::from(load.factor)
    }

    /// Any admitted member, from a random place on.
    #[cold]
    fn any(&mut self, admits: &impl Fn(usize) -> bool) -> Option<usize> {
        let place = hash::part(self.random.next_u64(), self.in_use.len());
        let (before, after) = self.in_use.split_at_checked(place)?;
        after.iter().chain(before).map(|&at| at as usize).find(|&at| admits(at))
    }
}

/// How many turns of the round are looked at before the members are tried one by one.
const TURNS: usize = 64;

/// How many draws are made before the members are tried one by one.
const DRAWS: usize = 16;

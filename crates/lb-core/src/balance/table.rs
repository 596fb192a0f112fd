//! What a policy that follows a key looks its members up in.
//!
//! A table depends on its members' identities and weights and on nothing else: not on the order of the configuration, not on what
//! happened before. It holds the members of a level that cannot be used as well, as long as at least half of the level's weight
//! can: a key of such a member goes to its next choice and comes back later, and no other key moves.

use super::hash::{mix, part};
use super::maglev::Maglev;
use super::rendezvous::Rendezvous;
use super::ring::Ring;
use super::{BalanceSettings, MemberSpec, MemberState, Policy, level};

/// A member as a table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// Distinct among the members of a pool. First, because seats are ordered by it.
    pub identity: u64,
    /// The position of the member in the pool.
    pub at: u32,
    /// The share of the member; above 0.
    pub weight: u32,
}

/// The seats of a pool's table, in order, for members in their order. They are those that a [`super::Balancer`] makes its table of: the
/// members of the level in use, with those of them that cannot be used now, unless these are more than half of its weight. A lookup skips
/// a member that cannot be used.
pub fn seats(members: &[(MemberSpec, MemberState)], panic_threshold_percent: u32) -> Vec<Seat> {
    let states = members.iter().map(|(spec, state)| (spec.priority, *state));
    let standing = level::choose(states, panic_threshold_percent);
    let (mut used, mut others) = (Vec::new(), Vec::new());
    let distinct = distinct(members.iter().map(|(spec, _)| spec.identity));
    for (at, ((spec, state), identity)) in (0u32..).zip(members.iter().zip(distinct)) {
        let seat = Seat { identity, at, weight: state.weight };
        if level::in_use(&standing, spec.priority, state) {
            used.push(seat);
        } else if level::stands_by(&standing, spec.priority, state) {
            others.push(seat);
        }
    }
    seated(&used, &others)
}

/// What a table is made of: `used` are in use, `others` are the rest of their level; neither has weights of 0.
fn seated(used: &[Seat], others: &[Seat]) -> Vec<Seat> {
    let weight = |seats: &[Seat]| seats.iter().map(|seat| u64::from(seat.weight)).sum::<u64>();
    let others = if weight(others) <= weight(used) { others } else { &[] };
    let mut seats: Vec<Seat> = used.iter().chain(others).copied().collect();
    seats.sort_unstable();
    seats
}

/// A table and what it was made of.
#[derive(Clone, Debug)]
pub(super) struct Table {
    seats: Vec<Seat>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    None,
    Maglev(Maglev),
    Ring(Ring),
    Rendezvous(Rendezvous),
}

impl Table {
    pub(super) const NONE: Self = Self { seats: Vec::new(), kind: Kind::None };

    /// Makes the table anew, if it was not made of the same seats. `used` are in use, `others` are the rest of their level; neither
    /// has weights of 0.
    pub(super) fn update(&mut self, settings: &BalanceSettings, used: &[Seat], others: &[Seat]) {
        let seats = seated(used, others);
        if seats == self.seats {
            return;
        }
        self.kind = match settings.policy {
            Policy::Maglev => Kind::Maglev(Maglev::new(&seats, settings.table_size)),
            Policy::RingHash => Kind::Ring(Ring::new(&seats, settings.ring_points)),
            Policy::Rendezvous => Kind::Rendezvous(Rendezvous::new(&seats)),
            _ => Kind::None,
        };
        self.seats = seats;
    }

    /// The first member that suits in the order of preference of `key`, as far as the table follows it.
    #[inline]
    pub(super) fn find(&self, key: u64, suits: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.kind {
            Kind::None => None,
            Kind::Maglev(maglev) => maglev.find(key, suits),
            Kind::Ring(ring) => ring.find(key, suits),
            Kind::Rendezvous(rendezvous) => rendezvous.find(key, suits),
        }
    }

    /// The first seat that suits from a place on that `key` chooses. Finds one if there is any; not by preference.
    #[cold]
    pub(super) fn scan(&self, key: u64, suits: impl Fn(usize) -> bool) -> Option<usize> {
        let (before, after) = self.seats.split_at_checked(part(mix(key), self.seats.len()))?;
        after.iter().chain(before).map(|seat| seat.at as usize).find(|&at| suits(at))
    }
}

/// Identities made distinct: repeated ones are replaced by others, the same on every machine.
pub(super) fn distinct(identities: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut distinct: Vec<u64> = identities.collect();
    let mut order: Vec<usize> = (0..distinct.len()).collect();
    loop {
        // Positions break ties: which of two equals is the first makes no difference to anybody.
        order.sort_unstable_by_key(|&at| (distinct.get(at).copied(), at));
        let mut again = false;
        let mut before: Option<u64> = None;
        let mut repeats = 0u64;
        for &at in &order {
            let Some(identity) = distinct.get_mut(at) else { continue };
            if before == Some(*identity) {
                repeats += 1;
                *identity = mix(identity.wrapping_add(repeats));
                again = true;
            } else {
                before = Some(*identity);
                repeats = 0;
            }
        }
        if !again {
            return distinct;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_identities_become_distinct_and_the_others_stay() {
        let made = distinct([7, 5, 7, 7, 9, 0, 0].into_iter());
        assert_eq!([made[0], made[1], made[4], made[5]], [7, 5, 9, 0]);
        let mut sorted = made.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), made.len());
    }
}

//! The lookup table of Maglev (Eisenbud et al., NSDI 2016, section 3.4), with weights.
//!
//! Every member has its own permutation of the slots. They take turns, as often as their weights say, and take the first slot of
//! their permutation that is free. Keys spread over slots evenly, slots over members within a turn of their weights, and a
//! member that comes or goes moves few slots of the others.
//!
//! A table is a pure function of its seats and its size, the same on every machine.

use super::hash::{mix, part};
use super::table::Seat;

/// The member of each slot.
///
/// ```
/// use lb_core::balance::{Maglev, Seat, hash};
///
/// let addresses = ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"];
/// let mut seats: Vec<Seat> = (0..).zip(addresses).map(|(at, address)| {
///     Seat { identity: hash::bytes(address.as_bytes()), at, weight: 1 }
/// }).collect();
/// seats.sort();
/// let table = Maglev::new(&seats, 65_537);
/// assert_eq!(table.slots().len(), 65_537);
/// let key = hash::mix(hash::bytes(b"a client"));
/// let member = table.find(key, |_| true).unwrap();
/// assert_eq!(table.slots()[table.slot(key)] as usize, member);
/// // The key's next choice, while that member cannot be used.
/// assert_ne!(table.find(key, |at| at != member), Some(member));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maglev {
    slots: Vec<u32>,
}

impl Maglev {
    /// A table over seats in ascending order. It has `size` slots, or as many as the next prime number that is above the number of seats;
    /// none without seats.
    pub fn new(seats: &[Seat], size: u32) -> Self {
        if seats.is_empty() {
            return Self { slots: Vec::new() };
        }
        let least = u64::from(size).max(seats.len() as u64 + 1);
        let size = prime_from(least.min(LARGEST));
        let mut candidates: Vec<Candidate> = seats.iter().map(|seat| Candidate::new(seat, size)).collect();
        let heaviest = seats.iter().map(|seat| u64::from(seat.weight)).max().unwrap_or(0);
        let mut slots = vec![FREE; usize::try_from(size).unwrap_or(0)];
        let mut free = slots.len();
        let mut due = 0u64;
        while free > 0 {
            // The heaviest take a slot in every pass, the others when their turns add up to one.
            due = due.saturating_add(heaviest);
            for candidate in &mut candidates {
                candidate.credit += candidate.weight;
                if candidate.credit < heaviest {
                    continue;
                }
                candidate.credit -= heaviest;
                while let Some(slot) = slots.get_mut(candidate.next) {
                    candidate.next = candidate.after(size);
                    if *slot == FREE {
                        *slot = candidate.at;
                        free -= 1;
                        break;
                    }
                }
                if free == 0 {
                    break;
                }
            }
        }
        Self { slots }
    }

    /// The position of the member that has each slot: all that a data path in the kernel has to be given.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The slot of a key that [`hash::mix`](super::hash::mix) has spread; 0 in a table without slots.
    #[inline]
    pub fn slot(&self, key: u64) -> usize {
        part(key, self.slots.len())
    }

    /// The member of [the key's slot](Self::slot), or if that member does not suit, of the slots that the key would have next. `None` when 32 slots in a
    /// row have no member that suits.
    #[inline]
    pub fn find(&self, key: u64, suits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut key = key;
        for _ in 0..PROBES {
            let at = *self.slots.get(self.slot(key))? as usize;
            if suits(at) {
                return Some(at);
            }
            key = mix(key.wrapping_add(NEXT));
        }
        None
    }
}

/// A member on its way through its permutation.
struct Candidate {
    at: u32,
    weight: u64,
    credit: u64,
    next: usize,
    skip: usize,
}

impl Candidate {
    fn new(seat: &Seat, size: u64) -> Self {
        // Any skip below a prime size leads through all slots.
        let size = usize::try_from(size).unwrap_or(0);
        Self {
            at: seat.at,
            weight: u64::from(seat.weight),
            credit: 0,
            next: part(mix(seat.identity ^ OFFSET), size),
            skip: 1 + part(mix(seat.identity ^ SKIP), size.saturating_sub(1)),
        }
    }

    fn after(&self, size: u64) -> usize {
        let size = usize::try_from(size).unwrap_or(0);
        let next = self.next + self.skip;
        if next >= size { next - size } else { next }
    }
}

/// The smallest prime that is not below `least`.
fn prime_from(least: u64) -> u64 {
    let is_prime = |number: u64| {
        number >= 2
            && (2..)
                .take_while(|divisor| divisor * divisor <= number)
                .all(|divisor| !number.is_multiple_of(divisor))
    };
    (least.max(2)..).find(|&number| is_prime(number)).unwrap_or(LARGEST)
}

/// The largest size, a prime.
const LARGEST: u64 = 5_000_011;

/// No member has this position.
const FREE: u32 = u32::MAX;

/// So many slots are looked at. With half of the slots in use, all but one key in four billion finds a member.
const PROBES: usize = 32;

const OFFSET: u64 = 0x6f66_6673_6574_6f66;
const SKIP: u64 = 0x736b_6970_736b_6970;
const NEXT: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(weights: &[u32], size: u32) -> Vec<usize> {
        let each = (0u32..).zip(weights);
        let seats: Vec<_> =
            each.map(|(at, &weight)| Seat { identity: mix(u64::from(at)), at, weight }).collect();
        let maglev = Maglev::new(&seats, size);
        let mut counts = vec![0; weights.len()];
        maglev.slots.iter().for_each(|&at| counts[at as usize] += 1);
        counts
    }

    #[test]
    fn slots_are_shared_by_weight_within_a_turn() {
        for counts in [table(&[1; 10], 251), table(&[7; 100], 65_537)] {
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{counts:?}");
        }
        for (weights, size) in
            [(&[1u32, 2, 3, 4][..], 1009u32), (&[1, 100], 65_537), (&[1000, 1, 999], 65_537)]
        {
            let sum: u32 = weights.iter().sum();
            for (count, &weight) in table(weights, size).into_iter().zip(weights) {
                let share = f64::from(weight) * f64::from(size) / f64::from(sum);
                assert!((count as f64 - share).abs() <= 2.0, "{count} for {share}");
            }
        }
    }

    #[test]
    fn sizes_are_primes_large_enough_for_all_members() {
        let size = |members: usize, size| table(&vec![1; members], size).iter().sum::<usize>();
        assert_eq!([size(3, 65_537), size(3, 65_536), size(3, 250), size(3, 0)], [65_537, 65_537, 251, 5]);
        assert_eq!(size(300, 251), 307);
        assert_eq!(prime_from(LARGEST), LARGEST);
        assert_eq!(Maglev::new(&[], 251).find(1, |_| true), None);
    }
}

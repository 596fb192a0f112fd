//! A round of turns in which every member has as many as its weight, evenly spread.
//!
//! Made once for a set of weights, then read: round-robin walks it, a random policy draws from it. Turn `k` of a member with weight
//! `w` stands at `(k + phase) / w` of the round, the phases of the members spread evenly: a member's turns are equally far apart, and
//! members of equal weight follow each other in order.

use super::table::Seat;

/// No round is longer than this, or than twice the number of members when that is more.
pub(super) const LONGEST: u64 = 16_384;

/// The round for `members`, with weights above 0. Weights with a sum too large for a round are scaled down, none to 0.
pub(super) fn round(members: &[Seat]) -> Vec<u32> {
    let Some(divisor) = members.iter().map(|seat| seat.weight).reduce(greatest_common_divisor) else {
        return Vec::new();
    };
    let divisor = divisor.max(1);
    let sum: u64 = members.iter().map(|seat| u64::from(seat.weight / divisor)).sum();
    let count = members.len() as u64;
    if sum == count {
        return members.iter().map(|seat| seat.at).collect();
    }
    let longest = LONGEST.max(count.saturating_mul(2));
    let turns = |weight: u32| {
        let weight = u64::from(weight / divisor);
        if sum <= longest {
            return weight;
        }
        // What the smallest weights get too much is what `longest - count` leaves them.
        let scaled = u128::from(weight) * u128::from(longest - count) / u128::from(sum);
        u64::try_from(scaled).unwrap_or(longest).max(1)
    };
    let mut round: Vec<(f64, u32)> = Vec::new();
    for (order, seat) in members.iter().enumerate() {
        let turns = turns(seat.weight);
        let phase = order as f64 / count as f64;
        round.extend((0..turns).map(|turn| ((turn as f64 + phase) / turns as f64, seat.at)));
    }
    round.sort_unstable_by(|(one, at), (other, by)| one.total_cmp(other).then(at.cmp(by)));
    round.into_iter().map(|(_, at)| at).collect()
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    let (mut one, mut other) = (one, other);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[u32]) -> Vec<u32> {
        let each = (0u32..).zip(weights.iter().copied());
        let members: Vec<_> = each.map(|(at, weight)| Seat { identity: 0, at, weight }).collect();
        round(&members)
    }

    fn counts(round: &[u32], members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        round.iter().for_each(|&at| counts[at as usize] += 1);
        counts
    }

    #[test]
    fn a_round_has_each_member_as_often_as_its_weight_says() {
        for weights in [&[5u32, 1, 1][..], &[3, 1], &[7, 2, 4], &[1, 100, 1000]] {
            let expected: Vec<_> = weights.iter().map(|&weight| weight as usize).collect();
            assert_eq!(counts(&of(weights), weights.len()), expected);
        }
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[9]), [0]);
    }

    #[test]
    fn equal_weights_take_turns_in_order_and_common_factors_do_not_lengthen_the_round() {
        assert_eq!(of(&[1, 1, 1, 1]), [0, 1, 2, 3]);
        assert_eq!(of(&[100, 100]), [0, 1]);
        assert_eq!(of(&[200, 100]), of(&[2, 1]));
    }

    #[test]
    fn the_turns_of_heavy_members_are_spread() {
        assert_eq!(of(&[5, 1, 1]), [0, 0, 1, 0, 0, 2, 0]);
        // In every stretch of a round a member has its share, give or take a turn and what the others' turns round to.
        let weights = [50u32, 30, 10, 5, 3, 2];
        let round = of(&weights);
        for window in [10usize, 20, 50] {
            let twice: Vec<_> = round.iter().chain(&round).copied().collect();
            for stretch in twice.windows(window) {
                for (seen, weight) in counts(stretch, weights.len()).into_iter().zip(weights) {
                    let share = weight as f64 * window as f64 / 100.0;
                    assert!((seen as f64 - share).abs() < 2.5, "{seen} of {window} for weight {weight}");
                }
            }
        }
    }

    #[test]
    fn large_weights_are_scaled_down_and_none_to_nothing() {
        let weights = [u32::MAX, u32::MAX - 1, 1, 1_000_000_007];
        let round = of(&weights);
        assert!(round.len() as u64 <= LONGEST, "{}", round.len());
        let counts = counts(&round, 4);
        assert_eq!(counts[2], 1);
        let share = |at: usize| counts[at] as f64 / round.len() as f64;
        let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        for (at, &weight) in weights.iter().enumerate() {
            assert!((share(at) - f64::from(weight) / sum).abs() < 0.001, "{counts:?}");
        }
        let many: Vec<u32> = (0..20_000).map(|at| 1 + at % 7_919).collect();
        let round = of(&many);
        assert!(round.len() <= 2 * many.len());
        let mut seen = round;
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), many.len());
    }
}

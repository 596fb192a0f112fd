//! Smooth weighted round-robin.
//!
//! Every pick adds each member's weight to its credit, takes the member with the most credit and charges it the sum of all weights.
//! A member of weight 3 beside one of weight 1 is picked `A A B A`, not `A A A B`: bursts to one member are as
//! short as the weights allow. State belongs to one worker; workers start at different places so that they do not
//! pick in step.

/// Picks by weight. Members are known by position.
#[derive(Clone, Debug)]
pub struct SmoothRoundRobin {
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    weight: i64,
    credit: i64,
}

impl SmoothRoundRobin {
    /// A picker over `weights`; weight 0 is never picked. `offset` picks are taken in advance (modulo one round of the members).
    pub fn new(weights: impl IntoIterator<Item = u32>, offset: usize) -> Self {
        let members: Vec<Member> =
            weights.into_iter().map(|weight| Member { weight: i64::from(weight), credit: 0 }).collect();
        let mut picker = Self { members };
        if let Some(skip) = offset.checked_rem(picker.members.len()) {
            for _ in 0..skip {
                picker.pick(|_| true);
            }
        }
        picker
    }

    /// The next member among those that `eligible` admits; `None` when there is none with weight.
    #[inline]
    pub fn pick(&mut self, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        if let [only] = self.members.as_slice() {
            return (only.weight > 0 && eligible(0)).then_some(0);
        }
        let mut best: Option<(usize, i64)> = None;
        let mut charged = 0i64;
        for (at, member) in self.members.iter_mut().enumerate() {
            if member.weight == 0 || !eligible(at) {
                continue;
            }
            // Credits stay within ± the sum of weights (at most 2^32 members' worth of u32), far from i64's ends.
            member.credit = member.credit.saturating_add(member.weight);
            charged = charged.saturating_add(member.weight);
            if best.is_none_or(|(_, credit)| member.credit > credit) {
                best = Some((at, member.credit));
            }
        }
        let (at, _) = best?;
        if let Some(member) = self.members.get_mut(at) {
            member.credit = member.credit.saturating_sub(charged);
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(weights: &[u32], n: usize) -> Vec<usize> {
        let mut picker = SmoothRoundRobin::new(weights.iter().copied(), 0);
        (0..n).map(|_| picker.pick(|_| true).unwrap()).collect()
    }

    #[test]
    fn one_round_gives_each_member_exactly_its_weight() {
        for weights in [&[5u32, 1, 1][..], &[3, 1], &[7, 0, 2, 4], &[1, 1, 1, 1]] {
            let total = weights.iter().sum::<u32>() as usize;
            let mut seen = vec![0u32; weights.len()];
            for at in picks(weights, total) {
                seen[at] += 1;
            }
            assert_eq!(seen, weights);
        }
    }

    #[test]
    fn heavy_members_are_interleaved() {
        assert_eq!(picks(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn weight_zero_and_ineligible_members_are_never_picked() {
        let mut picker = SmoothRoundRobin::new([0, 2, 1], 0);
        for _ in 0..30 {
            assert_ne!(picker.pick(|_| true), Some(0));
            assert_eq!(picker.pick(|at| at == 2), Some(2));
        }
        assert_eq!(picker.pick(|at| at == 0), None);
        assert_eq!(SmoothRoundRobin::new([], 3).pick(|_| true), None);
    }

    #[test]
    fn excluding_a_member_for_a_while_keeps_the_others_in_proportion() {
        let mut picker = SmoothRoundRobin::new([2, 1, 1], 1);
        let mut seen = [0; 3];
        for _ in 0..40 {
            seen[picker.pick(|at| at != 0).unwrap()] += 1;
        }
        assert_eq!(seen, [0, 20, 20]);
    }

    #[test]
    fn workers_start_at_different_members() {
        let first = |offset| SmoothRoundRobin::new([1, 1, 1], offset).pick(|_| true).unwrap();
        assert_eq!([first(0), first(1), first(2), first(3)], [0, 1, 2, 0]);
    }
}

//! Which priority level of a pool is in use, and whether in panic.

use std::collections::BTreeMap;

use super::{MemberState, Standing};

/// A level and the weights in it.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Of all that are neither draining nor of weight 0.
    whole: u64,
    /// Of those that are healthy and not ejected.
    healthy: u64,
}

/// The best level of which at least `threshold` percent by weight is healthy; with a threshold of 1, the best level with a healthy member.
/// Where no level is fit, the one with the largest healthy share in panic, unless `threshold` is 0; of equal shares the best level.
pub fn choose(members: impl Iterator<Item = (u32, MemberState)>, threshold_percent: u32) -> Standing {
    let mut levels: BTreeMap<u32, (Level, usize, usize)> = BTreeMap::new();
    for (priority, state) in members.filter(|(_, state)| takes_work(state)) {
        let (level, whole, healthy) = levels.entry(priority).or_default();
        level.whole = level.whole.saturating_add(u64::from(state.weight));
        *whole += 1;
        if is_fit(&state) {
            level.healthy = level.healthy.saturating_add(u64::from(state.weight));
            *healthy += 1;
        }
    }
    let fit = |level: &Level| {
        level.healthy > 0
            && (threshold_percent <= 1
                || u128::from(level.healthy) * 100 >= u128::from(level.whole) * u128::from(threshold_percent))
    };
    if let Some((&priority, &(_, _, usable))) = levels.iter().find(|(_, (level, ..))| fit(level)) {
        return Standing { priority: Some(priority), panic: false, usable };
    }
    let mut best: Option<(u32, Level, usize)> = None;
    if threshold_percent > 0 {
        for (&priority, &(level, whole, _)) in &levels {
            // Shares compared without dividing.
            let larger = best.is_none_or(|(_, best, _)| {
                u128::from(level.healthy) * u128::from(best.whole)
                    > u128::from(best.healthy) * u128::from(level.whole)
            });
            if larger {
                best = Some((priority, level, whole));
            }
        }
    }
    match best {
        Some((priority, _, usable)) => Standing { priority: Some(priority), panic: true, usable },
        None => Standing { priority: None, panic: false, usable: 0 },
    }
}

/// Whether a member of that level is in use.
pub(super) fn in_use(standing: &Standing, priority: u32, state: &MemberState) -> bool {
    standing.priority == Some(priority) && takes_work(state) && (standing.panic || is_fit(state))
}

/// Whether a member is of the level in use, without being used now.
pub(super) fn stands_by(standing: &Standing, priority: u32, state: &MemberState) -> bool {
    standing.priority == Some(priority) && state.weight > 0 && !in_use(standing, priority, state)
}

fn takes_work(state: &MemberState) -> bool {
    !state.draining && state.weight > 0
}

fn is_fit(state: &MemberState) -> bool {
    state.healthy && !state.ejected
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: MemberState = MemberState {
        healthy: true,
        answers: true,
        ejected: false,
        draining: false,
        weight: 1,
        healthy_since: None,
    };
    const DOWN: MemberState = MemberState { healthy: false, ..UP };
    const EJECTED: MemberState = MemberState { ejected: true, ..UP };
    const DRAINING: MemberState = MemberState { draining: true, ..UP };

    fn standing(members: &[(u32, MemberState)], threshold: u32) -> (Option<u32>, bool, usize) {
        let standing = choose(members.iter().copied(), threshold);
        let usable = members.iter().filter(|(priority, state)| in_use(&standing, *priority, state)).count();
        assert_eq!(standing.usable, usable);
        (standing.priority, standing.panic, usable)
    }

    #[test]
    fn the_best_fit_level_is_in_use_and_only_its_healthy_members() {
        assert_eq!(standing(&[(0, UP), (0, DOWN), (1, UP)], 50), (Some(0), false, 1));
        assert_eq!(standing(&[(0, EJECTED), (0, DOWN), (3, UP), (7, UP)], 50), (Some(3), false, 1));
        assert_eq!(standing(&[(7, UP), (3, UP), (3, UP)], 50), (Some(3), false, 2));
        // Just below the threshold: the next level takes over, and returns the traffic at the threshold.
        assert_eq!(standing(&[(0, UP), (0, DOWN), (0, DOWN), (1, UP)], 34), (Some(1), false, 1));
        assert_eq!(standing(&[(0, UP), (0, DOWN), (0, DOWN), (1, UP)], 33), (Some(0), false, 1));
    }

    #[test]
    fn weight_counts_and_not_heads() {
        let heavy = |state: MemberState| MemberState { weight: 98, ..state };
        assert_eq!(standing(&[(0, heavy(UP)), (0, DOWN), (0, DOWN), (1, UP)], 50), (Some(0), false, 1));
        assert_eq!(standing(&[(0, heavy(DOWN)), (0, UP), (0, UP), (1, UP)], 50), (Some(1), false, 1));
    }

    #[test]
    fn panic_uses_the_level_with_the_largest_share_whole() {
        assert_eq!(standing(&[(0, DOWN), (0, EJECTED), (0, UP)], 50), (Some(0), true, 3));
        assert_eq!(standing(&[(0, DOWN), (0, DOWN)], 50), (Some(0), true, 2));
        assert_eq!(standing(&[(0, DOWN), (1, UP), (1, DOWN), (1, DOWN)], 50), (Some(1), true, 3));
        assert_eq!(standing(&[(0, DOWN), (1, DOWN)], 50), (Some(0), true, 1));
    }

    #[test]
    fn draining_and_weightless_members_neither_count_nor_are_used() {
        let weightless = MemberState { weight: 0, ..UP };
        assert_eq!(standing(&[(0, DRAINING), (0, weightless), (0, UP)], 100), (Some(0), false, 1));
        assert_eq!(standing(&[(0, DRAINING), (0, weightless), (0, DOWN)], 50), (Some(0), true, 1));
        assert_eq!(standing(&[(0, DRAINING), (0, weightless)], 50), (None, false, 0));
        assert_eq!(standing(&[(0, DRAINING), (1, UP)], 50), (Some(1), false, 1));
    }

    #[test]
    fn the_least_threshold_is_met_by_anybody() {
        let light = MemberState { weight: 1, ..UP };
        let heavy = MemberState { weight: 1_000_000, ..DOWN };
        assert_eq!(standing(&[(0, light), (0, heavy), (1, UP)], 1), (Some(0), false, 1));
        assert_eq!(standing(&[(0, DOWN), (0, heavy), (1, UP)], 1), (Some(1), false, 1));
        assert_eq!(standing(&[(0, DOWN), (0, heavy)], 1), (Some(0), true, 2));
    }

    #[test]
    fn without_a_threshold_there_is_no_panic() {
        assert_eq!(standing(&[(0, DOWN), (0, DOWN), (0, UP), (1, UP)], 0), (Some(0), false, 1));
        assert_eq!(standing(&[(0, DOWN), (1, DOWN)], 0), (None, false, 0));
        assert_eq!(standing(&[], 50), (None, false, 0));
    }
}

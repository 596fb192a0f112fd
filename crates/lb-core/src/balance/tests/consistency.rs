use super::*;
use crate::rng::SplitMix64;

const KEYS: u64 = 20_000;

fn moved(before: &[u64], after: &[u64]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

/// The identity that each key goes to.
fn owners(settings: &BalanceSettings, specs: &[MemberSpec]) -> Vec<u64> {
    let mut balancer = Balancer::new(settings.clone(), specs, 0, Instant::now());
    placed(&mut balancer, KEYS).into_iter().map(|at| specs[at].identity).collect()
}

#[test]
fn a_table_without_a_balancer_picks_what_the_balancer_picks() {
    let now = Instant::now();
    let mut random = SplitMix64::new(5);
    for round in 0..40 {
        let mut specs = specs(&[1; 12]);
        specs.iter_mut().for_each(|spec| spec.priority = random.below(2) as u32);
        let states: Vec<_> = (0..specs.len())
            .map(|_| MemberState {
                healthy: random.below(4) > 0,
                answers: false,
                ejected: random.below(5) == 0,
                draining: random.below(6) == 0,
                weight: random.below(4) as u32,
                healthy_since: None,
            })
            .collect();
        let settings = BalanceSettings { table_size: 1009, ..settings(Policy::Maglev) };
        let mut balancer = Balancer::new(settings.clone(), &specs, round, now);
        balancer.update(now, |at| states[at]);
        let members: Vec<_> = specs.iter().copied().zip(states.iter().copied()).collect();
        let seats = seats(&members, settings.panic_threshold_percent);
        let table = Maglev::new(&seats, settings.table_size);
        for key in keys(500) {
            let found = table.find(hash::mix(key), |at| balancer.is_in_use(at));
            assert_eq!(found, balancer.pick(now, Some(key), |_| true), "{members:?}");
        }
    }
}

#[test]
fn all_instances_agree_whatever_their_seed_order_and_history() {
    let now = Instant::now();
    let mut random = SplitMix64::new(11);
    for policy in FOLLOWING {
        let weights: Vec<u32> = (0..40).map(|at| 1 + at % 4).collect();
        let specs = specs(&weights);
        let expected = owners(&settings(policy), &specs);
        let mut shuffled = specs.clone();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, random.below(at as u64 + 1) as usize);
        }
        let mut other = Balancer::new(settings(policy), &shuffled, 99, now);
        // A history: most members go down, weights change, all come back.
        let weight = |at: usize| shuffled[at].weight;
        other.update(now, |at| MemberState { healthy: at < 3, weight: 9, ..UP });
        placed(&mut other, 100);
        let states = |at: usize| MemberState { weight: weight(at), ..UP };
        other.update(now, states);
        let found: Vec<_> = placed(&mut other, KEYS).into_iter().map(|at| shuffled[at].identity).collect();
        assert_eq!(found, expected, "{policy:?}");

        // With a third down, an instance that has just started finds the same as one that saw them go.
        let down =
            |at: usize| MemberState { healthy: !shuffled[at].identity.is_multiple_of(3), ..states(at) };
        other.update(now, down);
        let mut fresh = Balancer::new(settings(policy), &shuffled, 5, now);
        fresh.update(now, down);
        assert_eq!(placed(&mut other, KEYS), placed(&mut fresh, KEYS), "{policy:?}");
    }
}

#[test]
fn removing_or_adding_members_moves_hardly_more_keys_than_it_must() {
    for policy in FOLLOWING {
        for (members, gone) in [(10usize, 1usize), (100, 1), (100, 5), (100, 20)] {
            let all = specs(&vec![1; members]);
            let (removed, rest) = all.split_at(gone);
            let before = owners(&settings(policy), &all);
            let after = owners(&settings(policy), rest);
            let must =
                before.iter().filter(|owner| removed.iter().any(|spec| spec.identity == **owner)).count();
            let moved = moved(&before, &after);
            // k of N hold about k/N of the keys; points on a ring are not that even.
            let share = gone as f64 / members as f64;
            let spread = if policy == Policy::RingHash { 0.35 } else { 0.15 };
            assert!(
                (must as f64 / KEYS as f64 - share).abs() < share * spread,
                "{policy:?}: {must} of {share}"
            );
            if policy == Policy::Maglev {
                let epsilon = 0.012;
                assert!((moved as f64) < (share + epsilon) * KEYS as f64, "{policy:?}: {moved}, {must}");
            } else {
                assert_eq!(moved, must, "{policy:?}");
            }
        }
    }
}

#[test]
fn members_that_cannot_be_used_move_their_keys_and_no_others_and_get_them_back() {
    let now = Instant::now();
    for policy in FOLLOWING {
        let weights: Vec<u32> = (0..50).map(|at| 1 + at % 3).collect();
        let mut balancer = balancer(policy, &weights);
        let before = placed(&mut balancer, KEYS);
        let weight = |at: usize| weights[at];
        for kind in 0..3 {
            let out = |at: usize| at % 4 == 1;
            balancer.update(now, |at| MemberState {
                healthy: !(out(at) && kind == 0),
                answers: true,
                ejected: out(at) && kind == 1,
                draining: out(at) && kind == 2,
                weight: weight(at),
                healthy_since: None,
            });
            let mut heirs = vec![0u32; weights.len()];
            for (&before, after) in before.iter().zip(placed(&mut balancer, KEYS)) {
                assert!(!out(after), "{policy:?}");
                if out(before) {
                    heirs[after] += 1;
                } else {
                    assert_eq!(before, after, "{policy:?}");
                }
            }
            // The others share what moved by weight.
            let total: u32 = heirs.iter().sum();
            let sum: u32 = (0..50).filter(|&at| !out(at)).map(weight).sum();
            for at in (0..50).filter(|&at| !out(at)) {
                let share = f64::from(heirs[at]) / f64::from(total) * f64::from(sum) / f64::from(weight(at));
                assert!((0.4..2.0).contains(&share), "{policy:?}: {share} at {at}");
            }
        }
        balancer.update(now, |at| MemberState { weight: weight(at), ..UP });
        assert_eq!(placed(&mut balancer, KEYS), before, "{policy:?}");
    }
}

#[test]
fn a_raised_weight_draws_keys_to_the_member_and_moves_hardly_any_between_others() {
    for policy in FOLLOWING {
        let mut weights = vec![2; 20];
        let before = owners(&settings(policy), &specs(&weights));
        weights[4] = 4;
        let after = owners(&settings(policy), &specs(&weights));
        let between = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after && **after != identity(4))
            .count();
        if policy == Policy::Maglev {
            assert!((between as u64) < KEYS * 2 / 100, "{between}");
        } else {
            assert_eq!(between, 0, "{policy:?}");
        }
        let share = |owners: &[u64]| owners.iter().filter(|owner| **owner == identity(4)).count();
        assert!(share(&after) * 10 > share(&before) * 15, "{policy:?}");
    }
}

#[test]
fn tried_members_are_passed_over_in_the_same_order_everywhere() {
    let now = Instant::now();
    for policy in FOLLOWING {
        let (mut one, mut other) = (balancer(policy, &[1; 30]), balancer(policy, &[1; 30]));
        for key in keys(200) {
            let mut tried = Vec::new();
            while let Some(at) = one.pick(now, Some(key), |at| !tried.contains(&at)) {
                assert_eq!(other.pick(now, Some(key), |at| !tried.contains(&at)), Some(at));
                tried.push(at);
            }
            tried.sort_unstable();
            assert_eq!(tried, (0..30).collect::<Vec<_>>(), "{policy:?}");
        }
    }
}

#[test]
fn members_with_the_same_identity_share() {
    for policy in FOLLOWING {
        let mut twins = specs(&[1, 1, 1]);
        twins[2].identity = twins[0].identity;
        let mut balancer = Balancer::new(settings(policy), &twins, 0, Instant::now());
        let placed = placed(&mut balancer, KEYS);
        for at in 0..3 {
            let count = placed.iter().filter(|&&found| found == at).count() as u64;
            assert!(count > KEYS / 5, "{policy:?}: {count} at {at}");
        }
    }
}

/// Instances of different versions serve one fleet during an upgrade. A failure here means that the upgrade moves all keys.
#[test]
fn placement_never_changes() {
    let weights: Vec<u32> = (0..25).map(|at| 1 + at % 5).collect();
    let fingerprint = |policy| {
        let placed = placed(&mut balancer(policy, &weights), 1000);
        hash::bytes(&placed.into_iter().map(|at| at as u8).collect::<Vec<_>>())
    };
    assert_eq!(
        FOLLOWING.map(fingerprint),
        [15_003_497_613_273_396_930, 5_984_602_921_897_349_772, 13_912_717_151_889_090_592]
    );
}

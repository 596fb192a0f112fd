use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn state() -> impl Strategy<Value = MemberState> {
    (any::<bool>(), 0u8..8, 0u8..8, 0u32..5, proptest::option::of(0u64..40)).prop_map(
        |(healthy, ejected, draining, weight, since)| MemberState {
            healthy,
            answers: healthy,
            ejected: ejected == 0,
            draining: draining == 0,
            weight,
            // Recent, within the slow start.
            healthy_since: since.and_then(|seconds| Instant::now().checked_sub(Duration::from_secs(seconds))),
        },
    )
}

proptest! {
    /// The promise of `pick`: somebody in use and admitted if there is anybody, else nobody.
    #[test]
    fn a_pick_finds_whoever_is_admitted_and_nobody_else(
        policy in proptest::sample::select(Policy::ALL),
        members in proptest::collection::vec((state(), 0u32..3, any::<bool>()), 0..60),
        threshold in 0u32..=100,
        factor in proptest::option::of(100u32..200),
        slow_start in 0u64..60,
        keys in proptest::collection::vec(any::<Option<u64>>(), 20),
    ) {
        let now = Instant::now();
        let settings = BalanceSettings {
            table_size: 251,
            panic_threshold_percent: threshold,
            balance_factor: factor,
            slow_start: Duration::from_secs(slow_start),
            ..settings(policy)
        };
        let each = members.iter().enumerate();
        let specs: Vec<_> = each
            .map(|(at, (_, priority, _))| MemberSpec { identity: identity(at), weight: 1, priority: *priority })
            .collect();
        let mut balancer = Balancer::new(settings, &specs, 3, now);
        balancer.update(now, |at| members[at].0);
        let standing = balancer.standing();
        let usable = |at: usize| level::in_use(&standing, members[at].1, &members[at].0);
        prop_assert_eq!(standing.usable, (0..members.len()).filter(|&at| usable(at)).count());
        for key in keys {
            for only_admitted in [false, true] {
                let admits = |at: usize| !only_admitted || members[at].2;
                let exists = (0..members.len()).any(|at| usable(at) && admits(at));
                let picked = balancer.pick(now, key, admits);
                prop_assert_eq!(picked.is_some(), exists);
                if let Some(at) = picked {
                    prop_assert!(usable(at) && admits(at));
                    balancer.begin(at);
                }
            }
        }
    }
}

#[test]
fn the_last_of_a_thousand_is_found_under_every_policy() {
    let now = Instant::now();
    for policy in all() {
        let mut balancer = balancer(policy, &[3; 1000]);
        assert_eq!(balancer.pick(now, Some(1), |at| at == 999), Some(999), "{policy:?}");
        balancer.update(now, |at| MemberState { healthy: at == 7, ..UP });
        // One of a thousand is healthy: panic, everybody.
        assert!(balancer.standing().panic);
        assert_eq!(balancer.pick(now, Some(1), |at| at == 999), Some(999), "{policy:?}");
    }
}

/// Whom picks reach, in order.
fn reached(balancer: &mut Balancer) -> Vec<usize> {
    let mut reached = placed(balancer, 2000);
    reached.sort_unstable();
    reached.dedup();
    reached
}

#[test]
fn levels_fail_over_and_back_and_panic_uses_all_under_every_policy() {
    let now = Instant::now();
    for policy in all() {
        let mut specs = specs(&[1; 6]);
        for (at, spec) in specs.iter_mut().enumerate() {
            spec.priority = at as u32 / 3;
        }
        let mut balancer = Balancer::new(settings(policy), &specs, 0, now);
        assert_eq!(reached(&mut balancer), [0, 1, 2], "{policy:?}");
        let mut down = |down: &[usize], expected: &[usize], panic: bool| {
            balancer.update(now, |at| MemberState { healthy: !down.contains(&at), ..UP });
            assert_eq!(reached(&mut balancer), expected, "{policy:?} with {down:?} down");
            assert_eq!(balancer.standing().panic, panic);
        };
        down(&[1], &[0, 2], false);
        down(&[1, 2], &[3, 4, 5], false);
        down(&[1, 2, 3], &[4, 5], false);
        down(&[0, 1, 3, 4, 5], &[0, 1, 2], true);
        down(&[0, 1, 2, 3, 4], &[3, 4, 5], true);
        down(&[0, 1, 2, 3, 4, 5], &[0, 1, 2], true);
        down(&[], &[0, 1, 2], false);
        // Draining and weightless members stay out of a panic.
        balancer.update(now, |at| MemberState { draining: at == 0, weight: u32::from(at != 1), ..DOWN });
        assert_eq!(reached(&mut balancer), [2], "{policy:?}");
        balancer.update(now, |_| MemberState { draining: true, ..UP });
        assert_eq!(balancer.pick(now, Some(1), |_| true), None);
    }
}

#[test]
fn a_member_that_became_healthy_gets_its_share_bit_by_bit_under_every_policy() {
    let start = Instant::now();
    let window = Duration::from_secs(30);
    for policy in all() {
        let settings = BalanceSettings { slow_start: window, ..settings(policy) };
        let mut balancer = Balancer::new(settings, &specs(&[1; 4]), 0, start);
        let full = share_of_first(&mut balancer, start);
        balancer.update(start, |at| MemberState { healthy_since: (at == 0).then_some(start), ..UP });
        let mut before = 0.0;
        for tenth in 0..=10u32 {
            let share = share_of_first(&mut balancer, start + window * tenth / 10) / full;
            let target = f64::from(tenth) / 10.0;
            // Others take what it does not: a tenth of a weight is somewhat more than a tenth of a share. With two choices the
            // chance to be drawn grows, and who is drawn is picked as ever.
            assert!(
                share < target * 1.35 + 0.1 && share > target * 0.75,
                "{policy:?}: {share} at {tenth}/10"
            );
            assert!(share >= before - 0.05, "{policy:?}: {share} after {before}");
            before = share;
        }
        // The end is exact: nothing is left of it.
        assert!(balancer.warming.is_none(), "{policy:?}");
        assert!(balancer.loads.iter().all(|load| load.factor == warmup::FULL));
    }
}

fn share_of_first(balancer: &mut Balancer, now: Instant) -> f64 {
    let picks = keys(20_000).map(|key| balancer.pick(now, Some(key), |_| true).unwrap());
    picks.filter(|&at| at == 0).count() as f64 / 20_000.0
}

#[test]
fn a_slow_start_moves_each_key_once() {
    let start = Instant::now();
    let window = Duration::from_secs(30);
    for policy in FOLLOWING {
        let settings = BalanceSettings { slow_start: window, ..settings(policy) };
        let mut balancer = Balancer::new(settings, &specs(&[1; 4]), 0, start);
        let whole = placed(&mut balancer, 2000);
        balancer.update(start, |at| MemberState { healthy_since: (at == 0).then_some(start), ..UP });
        let mut before = vec![false; 2000];
        for second in 0..=30 {
            let now = start + Duration::from_secs(second);
            for ((key, whole), before) in keys(2000).zip(&whole).zip(&mut before) {
                let at = balancer.pick(now, Some(key), |_| true).unwrap();
                // A key of another member never moves; one of this member comes home and stays.
                assert!(*whole == 0 || at == *whole, "{policy:?}");
                assert!(at == 0 || !*before, "{policy:?}");
                *before = at == 0;
            }
        }
    }
}

#[test]
fn when_all_became_healthy_together_nobody_has_to_wait() {
    let start = Instant::now();
    for policy in all() {
        let settings = BalanceSettings { slow_start: Duration::from_secs(30), ..settings(policy) };
        let mut balancer = Balancer::new(settings, &specs(&[1; 4]), 0, start);
        balancer.update(start, |_| MemberState { healthy_since: Some(start), ..UP });
        let share = share_of_first(&mut balancer, start + Duration::from_secs(1));
        assert!((0.15..0.35).contains(&share), "{policy:?}: {share}");
        assert!(balancer.loads.iter().all(|load| load.factor == warmup::FULL), "{policy:?}");
        // Shares are compared with the member that is furthest.
        let later = start + Duration::from_secs(5);
        balancer.update(later, |at| MemberState {
            healthy_since: Some(if at == 0 { later } else { start }),
            ..UP
        });
        balancer.warm(start + Duration::from_secs(10));
        // Half, but for the rounding of both factors.
        assert!((warmup::FULL / 2 - 4..=warmup::FULL / 2).contains(&balancer.loads[0].factor), "{policy:?}");
        assert_eq!(balancer.loads[1].factor, warmup::FULL, "{policy:?}");
    }
}

#[test]
fn what_is_known_of_members_survives_a_change_of_the_set() {
    let now = Instant::now();
    let specs = specs(&[1; 5]);
    let mut before = Balancer::new(settings(Policy::P2cEwma), &specs[..4], 0, now);
    for at in 0..4 {
        (0..=at).for_each(|_| before.begin(at));
        before.opened(at);
        before.end(at, now, RequestOutcome { latency: Some(Duration::from_millis(10 << at)), failed: false });
    }
    // The first goes, one comes, the order changes.
    let specs = [specs[3], specs[4], specs[1], specs[2]];
    let bounded = BalanceSettings { balance_factor: Some(120), ..settings(Policy::Maglev) };
    let mut after = Balancer::new(bounded, &specs, 0, now);
    after.inherit(&before);
    assert_eq!([0, 1, 2, 3].map(|at| after.requests(at)), [3, 0, 1, 2]);
    assert_eq!([0, 1, 2, 3].map(|at| after.connections(at)), [1, 0, 1, 1]);
    assert_eq!(after.live, 6);
    assert!((78..=82).contains(&after.expected_latency(0, now).as_millis()));
}

#[test]
fn ends_without_begins_and_positions_beyond_the_pool_do_nothing() {
    let now = Instant::now();
    let mut balancer = balancer(Policy::LeastRequest, &[1, 1]);
    balancer.end(0, now, FINE);
    balancer.closed(1);
    balancer.begin(9);
    balancer.end(9, now, FINE);
    assert_eq!((balancer.requests(0), balancer.live), (0, 0));
    assert_eq!(Balancer::new(settings(Policy::Maglev), &[], 0, now).pick(now, Some(1), |_| true), None);
}

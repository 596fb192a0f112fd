use super::*;

const WEIGHTS: [u32; 8] = [1, 1, 2, 3, 5, 8, 10, 20];

/// Whether counts are as likely as not to come from these weights: the chi-square statistic is below what one run in a thousand
/// exceeds (by Wilson and Hilferty).
fn assert_shares(counts: &[u64], weights: &[u32], what: &str) {
    let picks: u64 = counts.iter().sum();
    let sum: u32 = weights.iter().sum();
    let mut statistic = 0.0;
    for (&count, &weight) in counts.iter().zip(weights) {
        let expected = picks as f64 * f64::from(weight) / f64::from(sum);
        statistic += (count as f64 - expected).powi(2) / expected;
    }
    let freedom = (weights.len() - 1) as f64;
    let ninth = 2.0 / (9.0 * freedom);
    let critical = freedom * (1.0 - ninth + 3.09 * ninth.sqrt()).powi(3);
    assert!(statistic < critical, "{what}: {statistic:.1} of {critical:.1}, {counts:?}");
}

fn count(members: usize, picks: impl Iterator<Item = usize>) -> Vec<u64> {
    let mut counts = vec![0; members];
    picks.for_each(|at| counts[at] += 1);
    counts
}

#[test]
fn idle_members_get_requests_by_weight_under_every_policy() {
    let now = Instant::now();
    for policy in all() {
        for key in [false, true] {
            // A ring's shares are those of its points, which the next test looks at.
            if key && policy == Policy::RingHash {
                continue;
            }
            let mut balancer = balancer(policy, &WEIGHTS);
            let picks = keys(100_000).map(|hash| balancer.pick(now, key.then_some(hash), |_| true).unwrap());
            assert_shares(&count(WEIGHTS.len(), picks), &WEIGHTS, &format!("{policy:?}, key {key}"));
        }
    }
}

#[test]
fn the_shares_on_a_ring_approach_the_weights_with_more_points() {
    for (ring_points, tolerance) in [(40, 0.5), (160, 0.25), (1000, 0.1)] {
        let settings = BalanceSettings { ring_points, ..settings(Policy::RingHash) };
        let weights = [1, 1, 1, 1, 1, 1, 2, 4];
        let mut balancer = Balancer::new(settings, &specs(&weights), 0, Instant::now());
        let counts = count(8, placed(&mut balancer, 100_000).into_iter());
        for (&count, weight) in counts.iter().zip(weights) {
            let share = count as f64 / 100_000.0 * 12.0 / f64::from(weight);
            assert!((share - 1.0).abs() < tolerance, "{ring_points} points: {counts:?}");
        }
    }
}

#[test]
fn keys_that_are_small_numbers_spread_as_well() {
    let now = Instant::now();
    for policy in [Policy::Maglev, Policy::Rendezvous] {
        let mut balancer = balancer(policy, &[1; 16]);
        let picks = (0..50_000).map(|key| balancer.pick(now, Some(key), |_| true).unwrap());
        assert_shares(&count(16, picks), &[1; 16], &format!("{policy:?}"));
    }
}

#[test]
fn round_robin_is_exact_smooth_and_keeps_proportions_among_the_admitted() {
    let now = Instant::now();
    let round = WEIGHTS.iter().sum::<u32>() as usize;
    for seed in 0..20 {
        let mut balancer = Balancer::new(settings(Policy::RoundRobin), &specs(&WEIGHTS), seed, now);
        let picks = (0..round * 3).map(|_| balancer.pick(now, None, |_| true).unwrap());
        let expected: Vec<_> = WEIGHTS.iter().map(|&weight| u64::from(weight) * 3).collect();
        assert_eq!(count(8, picks), expected, "seed {seed}");
    }
    let mut balancer = balancer(Policy::RoundRobin, &[2, 1, 1]);
    let picks = (0..40).map(|_| balancer.pick(now, None, |at| at != 0).unwrap());
    assert_eq!(count(3, picks), [0, 20, 20]);
}

#[test]
fn workers_begin_their_rounds_at_different_places() {
    let now = Instant::now();
    let first = |seed| {
        let mut balancer = Balancer::new(settings(Policy::RoundRobin), &specs(&[1; 16]), seed, now);
        balancer.pick(now, None, |_| true).unwrap()
    };
    let mut firsts: Vec<_> = (0..16).map(first).collect();
    assert_eq!(firsts[0], 0);
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() >= 12, "{firsts:?}");
    // Two workers, two members: they must not go in step.
    let first = |seed| {
        Balancer::new(settings(Policy::RoundRobin), &specs(&[1, 1]), seed, now).pick(now, None, |_| true)
    };
    assert_ne!(first(0), first(1));
}

#[test]
fn draws_are_by_chance_and_do_not_follow_a_key() {
    let now = Instant::now();
    let mut balancer = balancer(Policy::Random, &[1; 4]);
    let picks: Vec<_> = (0..400).map(|_| balancer.pick(now, Some(3), |_| true).unwrap()).collect();
    // Of neighbours, a quarter are equal.
    let equal = picks.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((60..140).contains(&equal), "{equal}");
}

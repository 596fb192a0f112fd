use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::rng::SplitMix64;

fn begin(balancer: &mut Balancer, at: usize, times: usize) {
    (0..times).for_each(|_| balancer.begin(at));
}

#[test]
fn the_least_loaded_for_its_weight_is_picked_and_equals_by_chance() {
    let now = Instant::now();
    let mut balancer = balancer(Policy::LeastRequest, &[1, 2, 4, 1]);
    for (at, requests) in [(0, 3), (1, 4), (2, 7), (3, 2)] {
        begin(&mut balancer, at, requests);
    }
    // 3, 2, 1.75, 2 for a unit of weight.
    assert_eq!(balancer.pick(now, None, |_| true), Some(2));
    balancer.begin(2);
    let mut seen = [0; 4];
    (0..300).for_each(|_| seen[balancer.pick(now, None, |_| true).unwrap()] += 1);
    assert_eq!(seen[0], 0);
    assert!(seen[1] > 50 && seen[2] > 120 && seen[3] > 20, "{seen:?}");
    (0..2).for_each(|_| balancer.end(3, now, FINE));
    assert_eq!(balancer.pick(now, None, |_| true), Some(3));
    assert_eq!(balancer.pick(now, None, |at| at < 2), Some(1));
}

#[test]
fn connections_count_before_requests() {
    let now = Instant::now();
    let mut balancer = balancer(Policy::LeastConnections, &[1, 1, 1]);
    [0, 0, 1, 2].into_iter().for_each(|at| balancer.opened(at));
    begin(&mut balancer, 1, 100);
    assert_eq!(balancer.pick(now, None, |_| true), Some(2));
    assert_eq!(balancer.pick(now, None, |at| at != 2), Some(1));
    balancer.closed(0);
    assert_eq!(balancer.pick(now, None, |at| at != 2), Some(0));
    assert_eq!([balancer.connections(0), balancer.requests(1), balancer.requests(9)], [1, 100, 0]);
}

#[test]
fn two_choices_avoid_the_busy_and_level_the_load() {
    let now = Instant::now();
    let mut busy = balancer(Policy::P2c, &[1; 4]);
    begin(&mut busy, 1, 50);
    // The two drawn are different members: the busiest never wins.
    assert!((0..1000).all(|_| busy.pick(now, None, |_| true) != Some(1)));
    // Requests that do not end: by chance alone the largest load would be far above the mean.
    let weights: Vec<u32> = (0..100).map(|at| 1 + at % 2).collect();
    let most = |policy| {
        let mut balancer = balancer(policy, &weights);
        for _ in 0..15_000 {
            let at = balancer.pick(now, None, |_| true).unwrap();
            balancer.begin(at);
        }
        (0..100).map(|at| balancer.requests(at) / weights[at]).max().unwrap()
    };
    let (chosen, random) = (most(Policy::P2c), most(Policy::Random));
    assert!(chosen <= 106 && random > 115, "{chosen}, {random}");
}

/// Runs requests against members with these latencies in virtual time, one each `gap`. Returns how many each got.
fn serve(
    policy: Policy,
    latencies: impl Fn(usize, Duration) -> (Duration, bool),
    members: usize,
    gap: Duration,
    requests: u32,
) -> Vec<u32> {
    let start = Instant::now();
    let mut balancer = balancer(policy, &vec![1; members]);
    let mut counts = vec![0; members];
    // Ends, the earliest first.
    let mut ends: BinaryHeap<std::cmp::Reverse<(Duration, usize, Duration, bool)>> = BinaryHeap::new();
    for request in 0..requests {
        let now = gap * request;
        while let Some(std::cmp::Reverse((end, at, latency, failed))) = ends.peek().copied() {
            if end > now {
                break;
            }
            ends.pop();
            balancer.end(at, start + end, RequestOutcome { latency: Some(latency), failed });
        }
        let at = balancer.pick(start + now, None, |_| true).unwrap();
        counts[at] += 1;
        balancer.begin(at);
        let (latency, failed) = latencies(at, now);
        ends.push(std::cmp::Reverse((now + latency, at, latency, failed)));
    }
    counts
}

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn a_slow_member_gets_hardly_any_requests_until_it_is_fast_again() {
    let slow = |at: usize, _: Duration| (if at == 2 { 51 * MILLISECOND } else { MILLISECOND }, false);
    let counts = serve(Policy::P2cEwma, slow, 4, MILLISECOND, 100_000);
    // Less than one in a hundred of the requests, so that its latency is beyond the 99th percentile.
    assert!((1..100_000 / 200).contains(&counts[2]), "{counts:?}");
    assert!([0, 1, 3].iter().all(|&at| counts[at] > 25_000), "{counts:?}");
    // The same without looking at latency.
    assert!(serve(Policy::RoundRobin, slow, 4, MILLISECOND, 100_000)[2] == 25_000);

    // It recovers after a minute: in the four minutes after that it gets a good part of its share.
    let recovers = |at: usize, now: Duration| {
        (if at == 2 && now < Duration::from_secs(60) { 51 * MILLISECOND } else { MILLISECOND }, false)
    };
    let counts = serve(Policy::P2cEwma, recovers, 4, MILLISECOND, 300_000);
    assert!(counts[2] > 30_000, "{counts:?}");
}

#[test]
fn a_member_that_fails_quickly_is_no_bargain() {
    let failing = |at: usize, _: Duration| {
        if at == 1 { (MILLISECOND / 10, true) } else { (2 * MILLISECOND, false) }
    };
    let counts = serve(Policy::P2cEwma, failing, 4, MILLISECOND, 50_000);
    assert!((1..50_000 / 200).contains(&counts[1]), "{counts:?}");
    // Counting live requests only, it would get the most.
    assert!(serve(Policy::LeastRequest, failing, 4, MILLISECOND, 50_000)[1] > 50_000 / 4);
}

#[test]
fn an_unknown_member_is_not_flooded_before_its_first_answer() {
    let start = Instant::now();
    let mut balancer = balancer(Policy::P2cEwma, &[1; 4]);
    for at in 0..3 {
        balancer.begin(at);
        balancer.end(at, start, RequestOutcome { latency: Some(MILLISECOND), failed: false });
    }
    let mut counts = [0; 4];
    for _ in 0..400 {
        let at = balancer.pick(start, None, |_| true).unwrap();
        balancer.begin(at);
        counts[at] += 1;
    }
    assert!(counts.iter().all(|&count| (80..120).contains(&count)), "{counts:?}");
    assert_eq!(balancer.expected_latency(3, start).as_millis(), 1);
}

proptest! {
    #[test]
    fn bounded_load_is_never_above_its_factor(
        weights in proptest::collection::vec(1u32..6, 1..40),
        policy in proptest::sample::select(&FOLLOWING[..]),
        percent in 100u32..300,
        seed: u64,
    ) {
        let now = Instant::now();
        let settings = BalanceSettings { balance_factor: Some(percent), ..settings(policy) };
        let settings = BalanceSettings { table_size: 1009, ..settings };
        let mut balancer = Balancer::new(settings, &specs(&weights), 0, now);
        let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut random = SplitMix64::new(seed);
        let mut live: Vec<usize> = Vec::new();
        for _ in 0..400 {
            if random.below(3) == 0 && !live.is_empty() {
                let at = live.swap_remove(random.below(live.len() as u64) as usize);
                balancer.end(at, now, FINE);
                continue;
            }
            // Half of the requests have the same key.
            let key = random.next_u64() * random.below(2);
            let at = balancer.pick(now, Some(key), |_| true).unwrap();
            balancer.begin(at);
            live.push(at);
            let bound = u64::from(percent) * live.len() as u64 * u64::from(weights[at]);
            prop_assert!(u64::from(balancer.requests(at)) <= bound.div_ceil(100 * sum));
        }
    }
}

proptest! {
    /// Against the definition, through changes of load, weight and health.
    #[test]
    fn nobody_admitted_has_less_to_do_than_who_is_picked(
        weights in proptest::collection::vec(0u32..5, 1..70),
        connections: bool,
        seed: u64,
    ) {
        let now = Instant::now();
        let policy = if connections { Policy::LeastConnections } else { Policy::LeastRequest };
        let mut balancer = balancer(policy, &weights);
        let mut random = SplitMix64::new(seed);
        let mut states: Vec<_> = weights.iter().map(|&weight| MemberState { weight, ..UP }).collect();
        for _ in 0..200 {
            let other = random.below(weights.len() as u64) as usize;
            match random.below(8) {
                0 => balancer.end(other, now, FINE),
                1 => balancer.closed(other),
                2 => balancer.opened(other),
                3 => {
                    states[other].healthy = !states[other].healthy;
                    states[other].weight = random.below(4) as u32;
                    balancer.update(now, |at| states[at]);
                }
                _ => {}
            }
            let refused = random.below(40);
            let admits = |at: usize| hash::mix(seed ^ at as u64) % 40 >= refused;
            let asked = std::cell::Cell::new(0);
            let picked = balancer.pick(now, None, |at| {
                asked.set(asked.get() + 1);
                admits(at)
            });
            let standing = balancer.standing();
            let usable = |at: &usize| level::in_use(&standing, 0, &states[*at]) && admits(*at);
            // Connections, then requests, for the weight, compared without dividing.
            let work = |at: usize| {
                let first = if connections { u64::from(balancer.connections(at)) << 32 } else { 0 };
                first + u64::from(balancer.requests(at))
            };
            prop_assert_eq!(picked.is_some(), (0..weights.len()).any(|at| usable(&at)));
            let Some(picked) = picked else { continue };
            prop_assert!(usable(&picked));
            // After sixteen refusals anybody will do.
            for at in (0..weights.len()).filter(usable).filter(|_| asked.get() <= 16) {
                let (one, other) = (u64::from(states[at].weight), u64::from(states[picked].weight));
                prop_assert!(work(picked) * one <= work(at) * other, "{} before {}", picked, at);
            }
            balancer.begin(picked);
        }
    }
}

#[test]
fn below_the_bound_keys_stay_and_the_bound_gives_way_to_who_is_admitted() {
    let now = Instant::now();
    for policy in FOLLOWING {
        let free = placed(&mut balancer(policy, &[1; 10]), 1000);
        let bounded = BalanceSettings { balance_factor: Some(150), ..settings(policy) };
        let mut balancer = Balancer::new(bounded, &specs(&[1; 10]), 0, now);
        for at in 0..10 {
            begin(&mut balancer, at, 10);
        }
        assert_eq!(placed(&mut balancer, 1000), free, "{policy:?}");
        // A member far above its bound is used when nobody else is admitted.
        begin(&mut balancer, 3, 1000);
        assert!(placed(&mut balancer, 1000).iter().all(|&at| at != 3));
        assert_eq!(balancer.pick(now, Some(5), |at| at == 3), Some(3));
    }
}

//! The adaptive limit in front of backends that are overloaded, slow, flap and recover, over virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use lb_core::limit::{AdaptiveBounds, AdaptiveLimit};
use lb_core::rng::SplitMix64;

const SEEDS: u64 = 8;

/// Requests that the backends work on at once; more wait in line.
const SERVERS: usize = 20;

/// The mean time of a request while all is well, microseconds: two thousand requests a second can be served.
const SERVICE: u64 = 10_000;

const SECOND: u64 = 1_000_000;

/// What has happened within some time.
#[derive(Debug, Default)]
struct Seen {
    served: u64,
    refused: u64,
    latency: u64,
    least_limit: u32,
    most_limit: u32,
}

impl Seen {
    /// Microseconds.
    fn mean_latency(&self) -> u64 {
        self.latency / self.served.max(1)
    }
}

struct Run {
    start: Instant,
    rng: SplitMix64,
    now: u64,
    limit: AdaptiveLimit,
    /// When each server is free.
    servers: BinaryHeap<Reverse<u64>>,
    /// Requests that run: when they end, and since when they run.
    running: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Run {
    fn new(seed: u64, bounds: AdaptiveBounds) -> Self {
        let servers = (0..SERVERS).map(|_| Reverse(0)).collect();
        let (limit, rng) = (AdaptiveLimit::new(bounds), SplitMix64::new(seed));
        Self { start: Instant::now(), rng, now: 0, limit, servers, running: BinaryHeap::new() }
    }

    /// A number around `mean`: from half of it to half as much again.
    fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + self.rng.below(mean + 1)
    }

    /// So many requests come in a second, for so many seconds, each of which takes `slow` times as long as while all is well.
    fn go(&mut self, seconds: u64, rate: u64, slow: u64) -> Seen {
        let mut seen = Seen { least_limit: u32::MAX, ..Seen::default() };
        let end = self.now + seconds * SECOND;
        loop {
            let gap = self.around(SECOND / rate);
            let next = self.now + gap;
            self.end_until(next.min(end), &mut seen);
            if next >= end {
                self.now = end;
                return seen;
            }
            self.now = next;
            if !self.limit.begin() {
                seen.refused += 1;
                continue;
            }
            let Reverse(free) = self.servers.pop().unwrap();
            let done = free.max(self.now) + self.around(SERVICE * slow);
            self.servers.push(Reverse(done));
            self.running.push(Reverse((done, self.now)));
        }
    }

    fn end_until(&mut self, moment: u64, seen: &mut Seen) {
        while let Some(Reverse((done, began))) =
            self.running.peek().copied().filter(|next| next.0.0 <= moment)
        {
            self.running.pop();
            let latency = done - began;
            self.limit.end(Some(Duration::from_micros(latency)), self.start + Duration::from_micros(done));
            seen.served += 1;
            seen.latency += latency;
            seen.least_limit = seen.least_limit.min(self.limit.limit());
            seen.most_limit = seen.most_limit.max(self.limit.limit());
            assert_eq!(usize::try_from(self.limit.running()).unwrap(), self.running.len());
        }
    }
}

const BOUNDS: AdaptiveBounds = AdaptiveBounds { min: 3, max: 1000 };

fn each(scenario: impl Fn(&mut Run)) {
    for seed in 0..SEEDS {
        scenario(&mut Run::new(seed, BOUNDS));
    }
}

#[test]
fn load_that_backends_take_is_not_refused() {
    each(|run| {
        let seen = run.go(120, 1000, 1);
        assert_eq!(seen.refused, 0, "{seen:?}");
        // A peak that they take as well.
        let seen = run.go(60, 1900, 1);
        assert_eq!(seen.refused, 0, "{seen:?}");
    });
}

#[test]
fn under_more_load_than_they_take_backends_stay_fast_and_busy() {
    each(|run| {
        run.go(10, 1000, 1);
        run.go(10, 6000, 1);
        for _ in 0..6 {
            let seen = run.go(10, 6000, 1);
            // Without a limit but the most, a thousand requests would wait half a second each.
            assert!(seen.mean_latency() < 5 * SERVICE, "{seen:?}");
            assert!(seen.served > 10 * 1800, "{seen:?}");
            assert!(seen.most_limit < 150, "{seen:?}");
        }
        run.go(5, 1000, 1);
        assert_eq!(run.go(30, 1000, 1).refused, 0);
    });
}

#[test]
fn backends_that_are_slow_for_a_while_get_less_and_then_all_of_it() {
    each(|run| {
        run.go(10, 1000, 1);
        // They take a fifth of what comes.
        run.go(5, 1000, 10);
        let slow = run.go(15, 1000, 10);
        assert!(slow.most_limit < 100 && slow.least_limit >= BOUNDS.min, "{slow:?}");
        assert!(slow.served > 15 * 30, "{slow:?}");
        run.go(10, 1000, 1);
        let well = run.go(30, 1000, 1);
        assert_eq!(well.refused, 0, "{well:?}");
    });
}

#[test]
fn flapping_backends_do_not_drive_the_limit_out_of_its_bounds() {
    each(|run| {
        run.go(10, 1000, 1);
        for _ in 0..30 {
            for slow in [10, 1] {
                let seen = run.go(1, 1000, slow);
                assert!(seen.least_limit >= BOUNDS.min && seen.most_limit <= BOUNDS.max, "{seen:?}");
                assert!(seen.served > 50, "{seen:?}");
            }
        }
        run.go(15, 1000, 1);
        assert_eq!(run.go(30, 1000, 1).refused, 0);
    });
}

#[test]
fn backends_that_are_slower_for_good_get_their_requests_back() {
    for seed in 0..2 {
        let mut run = Run::new(seed, BOUNDS);
        run.go(10, 300, 1);
        run.go(15 * 60, 300, 3);
        let seen = run.go(60, 300, 3);
        assert_eq!(seen.refused, 0, "{seen:?}");
    }
}

#[test]
fn failures_at_once_are_no_reason_to_let_more_through() {
    let mut run = Run::new(1, BOUNDS);
    run.go(10, 6000, 1);
    let before = run.limit.limit();
    // Requests that got no answer have no latency.
    for at in 0..10_000 {
        if run.limit.begin() {
            run.limit.end(None, run.start + Duration::from_secs(20 + at / 1000));
        }
    }
    assert_eq!(run.limit.limit(), before);
}

#[test]
fn bounds_hold_whatever_they_are() {
    for (min, max, expected) in [(3, 1000, 100), (200, 1000, 200), (3, 20, 20), (0, 0, 1), (9, 5, 9)] {
        let mut limit = AdaptiveLimit::new(AdaptiveBounds { min, max });
        assert_eq!(limit.limit(), expected);
        limit.set_bounds(AdaptiveBounds { min: 7, max: 8 });
        assert!((7..=8).contains(&limit.limit()));
        let begun = (0..100).filter(|_| limit.begin()).count();
        assert_eq!(begun, usize::try_from(limit.limit()).unwrap());
    }
}

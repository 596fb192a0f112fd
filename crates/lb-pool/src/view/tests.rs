//! Whatever changes in a pool, by whichever thread, every subscriber ends with the state of the pool.

use std::time::Duration;

use lb_core::health::{ProbeOutcome, ProbeSettings};
use lb_core::outlier::{Analysis, EjectionCause, EjectionSettings, OutlierSettings, StreakLimits};
use lb_core::pool::PoolSettings;
use lb_core::rest::RestCause;
use lb_core::rng::SplitMix64;
use lb_observe::metrics::PoolMetrics;

use super::*;
use crate::{MemberKey, Registry, SharedPool, Subscription, WorkerPool};

fn settings() -> PoolSettings {
    let outlier = OutlierSettings {
        streaks: StreakLimits { server_errors: 4, gateway_failures: 4 },
        analysis: Analysis { error_rate_percent: 50, min_requests: 20, latency_factor_percent: 300 },
        interval: Duration::from_secs(10),
        ejection: EjectionSettings::default(),
    };
    PoolSettings {
        outlier: Some(outlier),
        health: Some(ProbeSettings::default()),
        rest: Some(Duration::from_secs(1)),
        ..PoolSettings::default()
    }
}

fn members(ports: &[u16]) -> Vec<(MemberKey, u32, u32)> {
    let key = |port: &u16| MemberKey {
        backend: format!("127.0.0.1:{port}"),
        address: ([127, 0, 0, 1], *port).into(),
    };
    ports.iter().map(|port| (key(port), 1, u32::from(*port % 2))).collect()
}

/// Does one of the things that change a pool, or try to.
fn change(pool: &SharedPool, random: &mut SplitMix64, now: Instant) {
    let at = random.below(pool.members.len() as u64) as usize;
    match random.below(8) {
        0 => {
            if pool.begin_probe(at, now) {
                let outcome = if random.below(2) == 0 { ProbeOutcome::Passed } else { ProbeOutcome::Timeout };
                pool.end_probe(at, outcome, now);
            }
        }
        1 => drop(pool.set_draining(at, random.below(3) == 0)),
        2 => drop(pool.set_weight(at, Some(random.below(3) as u32).filter(|weight| *weight > 0))),
        3 => drop(pool.eject(at, EjectionCause::ErrorRate, now)),
        4 => pool.failed(at, RestCause::Connect, now),
        5 => drop(pool.try_one(at, now)),
        6 => pool.answered(at, now, now),
        _ => pool.forget_weights(|backend| backend.ends_with(if at == 0 { '1' } else { '2' })),
    }
}

fn assert_same(seen: &PoolView, pool: &SharedPool, now: Instant) {
    let expected = pool.view(now);
    assert_eq!(seen.generation, expected.generation);
    assert!(Arc::ptr_eq(&seen.roster, &expected.roster));
    assert_eq!(seen.states, expected.states);
    assert_eq!((seen.resting, seen.panic), (expected.resting, expected.panic));
}

#[test]
fn any_sequence_of_changes_ends_with_equal_views() {
    for seed in 0..256 {
        let mut random = SplitMix64::new(seed);
        let mut now = Instant::now();
        let mut registry = Registry::new(1, seed);
        let mut pool = registry.pool(&"p".into(), &settings(), &members(&[1, 2, 3]), now);
        let [quick, slow, blind] = [(); 3].map(|()| pool.subscribe());
        let worker = |pool: &Arc<SharedPool>, now, earlier: Option<&WorkerPool>| {
            WorkerPool::new(Arc::clone(pool), 0, now, earlier, Arc::new(PoolMetrics::new(1)))
        };
        let mut picks = worker(&pool, now, None);
        for _ in 0..60 {
            now += Duration::from_millis(random.below(5000));
            if random.below(8) == 0 {
                let ports: Vec<u16> = (1..=6).filter(|_| random.below(2) == 0).chain([7]).collect();
                pool = registry.pool(&"p".into(), &settings(), &members(&ports), now);
                picks = worker(&pool, now, Some(&picks));
            } else {
                change(&pool, &mut random, now);
            }
            // What ends with time is published when it is due to be looked at.
            pool.tend(now);
            assert_same(&quick.newest(), &pool, now);
            assert_eq!(picks.fit(now), pool.view(now).fit());
            if random.below(4) == 0 {
                assert_same(&slow.newest(), &pool, now);
            }
            drop(pool.subscribe());
        }
        for subscription in [quick, slow, blind] {
            assert_same(&subscription.newest(), &pool, now);
            assert!(!subscription.is_behind());
        }
    }
}

/// Follows a pool to its end on a thread that is no worker's, and returns the last view.
fn follow(subscription: Subscription<PoolView>) -> std::thread::JoinHandle<Option<Arc<PoolView>>> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut last: Option<Arc<PoolView>> = None;
            while let Some(view) = subscription.changed().await {
                last = Some(view);
            }
            last
        })
    })
}

#[test]
fn changes_from_many_threads_are_published_in_an_order_that_loses_none() {
    for seed in 0..8 {
        let now = Instant::now();
        let mut registry = Registry::new(4, seed);
        let pool = registry.pool(&"p".into(), &settings(), &members(&[1, 2, 3, 4]), now);
        let news = registry.subscribe();
        let followers = [(); 2].map(|()| follow(pool.subscribe()));
        let _never_looks = pool.subscribe();
        let changers = (0..4).map(|number| {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || {
                let mut random = SplitMix64::new(seed * 4 + number);
                (0..500).for_each(|_| change(&pool, &mut random, now));
            })
        });
        changers.collect::<Vec<_>>().into_iter().for_each(|changer| changer.join().unwrap());
        assert!(news.is_behind(), "some pool has changed");
        registry.retain(|_| false);
        for follower in followers {
            // Weights and drains are published at the time of the clock, which has gone on; nothing ends in between.
            assert_same(&follower.join().unwrap().unwrap(), &pool, now);
        }
    }
}

#[test]
fn a_view_seats_the_members_that_workers_pick_from() {
    let now = Instant::now();
    let mut registry = Registry::new(1, 7);
    let pool = registry.pool(&"p".into(), &settings(), &members(&[2, 4, 6, 1]), now);
    let subscription = pool.subscribe();
    let seated = || {
        let mut at: Vec<u32> = subscription.newest().seats().iter().map(|seat| seat.at).collect();
        at.sort_unstable();
        at
    };
    assert_eq!(seated(), [0, 1, 2], "the best level");
    pool.set_weight(1, Some(0));
    assert_eq!(seated(), [0, 2]);
    for at in [0, 2] {
        assert!(pool.begin_probe(at, now + Duration::from_secs(60)));
        pool.end_probe(at, ProbeOutcome::Connect, now);
    }
    assert_eq!(seated(), [3], "the next level, as no member of the best can be used");
    let newest = subscription.newest();
    let healthy: Vec<bool> = newest.members().map(|(_, _, state)| state.healthy).collect();
    assert_eq!(healthy, [false, true, false, true]);
}

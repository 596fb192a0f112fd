//! A shared pool and the pools of two workers, in virtual time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::balance::hash;
use lb_core::health::{HealthState, ProbeOutcome, ProbeSettings};
use lb_core::outlier::{Analysis, EjectionCause, EjectionSettings, Ending, OutlierSettings, StreakLimits};
use lb_core::pool::PoolSettings;
use lb_core::rest::RestCause;
use lb_observe::metrics::{Metrics, PoolMetrics};
use lb_pool::{MemberKey, Registry, SharedPool, WorkerPool};

fn settings() -> PoolSettings {
    let outlier = OutlierSettings {
        streaks: StreakLimits { server_errors: 4, gateway_failures: 4 },
        analysis: Analysis { error_rate_percent: 50, min_requests: 20, latency_factor_percent: 300 },
        interval: Duration::from_secs(10),
        ejection: EjectionSettings::default(),
    };
    PoolSettings { outlier: Some(outlier), health: Some(ProbeSettings::default()), ..PoolSettings::default() }
}

fn members(ports: &[u16]) -> Vec<(MemberKey, u32, u32)> {
    let key = |port: &u16| MemberKey {
        backend: format!("127.0.0.1:{port}"),
        address: ([127, 0, 0, 1], *port).into(),
    };
    ports.iter().map(|port| (key(port), 1, 0)).collect()
}

/// Who gets the next twelve requests.
fn picks(pool: &WorkerPool, now: Instant) -> Vec<usize> {
    let mut seen: Vec<usize> = (0..12).filter_map(|_| pool.pick(now, None, |_| true)).collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

fn fail(pool: &WorkerPool, at: usize, times: usize, now: Instant) {
    for _ in 0..times {
        pool.begin(at);
        pool.end(at, now, Some(Ending::GatewayFailure), None);
    }
}

fn after(shared: &Arc<SharedPool>, index: usize, now: Instant, earlier: Option<&WorkerPool>) -> WorkerPool {
    WorkerPool::new(Arc::clone(shared), index, now, earlier, Arc::new(PoolMetrics::new(2)))
}

fn worker(shared: &Arc<SharedPool>, index: usize, now: Instant) -> WorkerPool {
    after(shared, index, now, None)
}

fn two_workers(shared: &Arc<SharedPool>, now: Instant) -> (WorkerPool, WorkerPool) {
    (worker(shared, 0, now), worker(shared, 1, now))
}

#[test]
fn what_one_worker_finds_out_all_workers_know() {
    let mut now = Instant::now();
    let mut registry = Registry::new(2, 7);
    let shared = registry.pool(&"p".into(), &settings(), &members(&[1, 2, 3, 4]), now);
    let (first, second) = two_workers(&shared, now);
    fail(&first, 2, 3, now);
    assert_eq!(picks(&second, now), [0, 1, 2, 3], "three failures are borne");
    fail(&first, 2, 1, now);
    assert_eq!(picks(&first, now), [0, 1, 3]);
    assert_eq!(picks(&second, now), [0, 1, 3]);
    // It comes back, and half as many failures are too many.
    let out_for = |now| shared.report(now)[2].ejected_for.unwrap();
    now += out_for(now);
    shared.tend(now);
    assert_eq!(picks(&second, now), [0, 1, 2, 3]);
    fail(&second, 2, 2, now);
    assert_eq!(picks(&first, now), [0, 1, 3]);
    assert!(out_for(now) > Duration::from_secs(50), "for longer than before");
}

#[test]
fn probes_decide_who_is_picked_and_half_of_a_pool_is_panic() {
    let mut now = Instant::now();
    let mut registry = Registry::new(2, 7);
    let mut settings = settings();
    settings.balance.panic_threshold_percent = 50;
    let shared = registry.pool(&"p".into(), &settings, &members(&[1, 2, 3, 4]), now);
    let (first, _) = two_workers(&shared, now);
    let mut probe = |at: usize, outcome| {
        now = now.max(shared.probe_due(at).unwrap());
        assert!(shared.begin_probe(at, now));
        shared.end_probe(at, outcome, now);
        now
    };
    let now = probe(3, ProbeOutcome::Timeout);
    assert_eq!(picks(&first, now), [0, 1, 2], "the first probe decides at once");
    probe(2, ProbeOutcome::Timeout);
    let now = probe(1, ProbeOutcome::Timeout);
    assert_eq!(picks(&first, now), [0, 1, 2, 3], "too few are left to carry the load");
}

#[test]
fn what_is_known_survives_a_change_of_the_set() {
    let now = Instant::now();
    let mut registry = Registry::new(2, 7);
    let shared = registry.pool(&"p".into(), &settings(), &members(&[1, 2, 3]), now);
    let same = registry.pool(&"p".into(), &settings(), &members(&[1, 2, 3]), now);
    assert!(Arc::ptr_eq(&shared, &same), "nothing has changed");
    let (worker, _) = two_workers(&shared, now);
    fail(&worker, 1, 4, now);
    shared.set_draining(0, true);
    // The first is gone from the list, and two are new.
    let shared = registry.pool(&"p".into(), &settings(), &members(&[4, 2, 1, 5]), now);
    let (worker, _) = two_workers(&shared, now);
    assert_eq!(picks(&worker, now), [0, 3], "the second is ejected and the first is draining");
    shared.set_draining(2, false);
    assert_eq!(picks(&worker, now), [0, 2, 3]);
    shared.set_weight(0, Some(0));
    assert_eq!(picks(&worker, now), [2, 3]);
}

#[test]
fn who_stands_out_over_an_interval_is_put_aside() {
    let now = Instant::now();
    let mut registry = Registry::new(2, 7);
    let mut settings = settings();
    settings.balance.panic_threshold_percent = 0;
    let shared = registry.pool(&"p".into(), &settings, &members(&[1, 2, 3, 4]), now);
    let (first, second) = two_workers(&shared, now);
    let serve = |pool: &WorkerPool, at: usize, millis: u64, times: usize| {
        for _ in 0..times {
            pool.begin(at);
            pool.end(at, now, Some(Ending::Fine), Some(Duration::from_millis(millis)));
        }
    };
    for pool in [&first, &second] {
        for at in 0..3 {
            serve(pool, at, 2, 10);
        }
        serve(pool, 3, 50, 10);
        // Never four in a row, but three of four fail.
        for _ in 0..5 {
            fail(pool, 1, 3, now);
            serve(pool, 1, 2, 1);
        }
    }
    let due = shared.due().unwrap();
    assert_eq!(due - now, Duration::from_secs(10));
    shared.tend(due - Duration::from_millis(1));
    assert_eq!(picks(&first, now), [0, 1, 2, 3], "the interval is not over");
    shared.tend(due);
    assert_eq!(
        picks(&first, due),
        [0, 2],
        "the slow one of both workers' measurements and the one that fails"
    );
    shared.tend(shared.due().unwrap());
    assert_eq!(picks(&second, due), [0, 2], "nothing new is held against anybody");
}

#[test]
fn metrics_and_workers_see_the_same() {
    let now = Instant::now();
    let metrics = Metrics::new(1);
    let mut registry = Registry::new(1, 7).shown_in(Arc::clone(&metrics));
    let settings = settings();
    let shown = |text: &str| metrics.encode().lines().any(|line| line == text);
    // Two addresses of one backend, and another.
    let mut list = members(&[1, 2, 3]);
    list[1].0.backend = list[0].0.backend.clone();
    let old = registry.pool(&"p".into(), &settings, &list, now);
    let worker = worker(&old, 0, now);
    let probe = |pool: &SharedPool, at: usize, outcome| {
        let due = pool.probe_due(at).unwrap();
        assert!(pool.begin_probe(at, due));
        pool.end_probe(at, outcome, due);
    };
    assert_eq!(worker.fit(now), 3);
    probe(&old, 0, ProbeOutcome::Timeout);
    assert_eq!(worker.fit(now), 2);
    assert!(shown("backend_healthy{pool=\"p\",backend=\"127.0.0.1:1\"} 1"), "{}", metrics.encode());
    probe(&old, 1, ProbeOutcome::Body);
    probe(&old, 2, ProbeOutcome::Connect);
    assert_eq!(worker.fit(now), 0);
    assert_eq!(picks(&worker, now), [0, 1, 2], "in panic");
    for text in [
        "backend_healthy{pool=\"p\",backend=\"127.0.0.1:1\"} 0",
        "backend_health_probes_total{pool=\"p\",backend=\"127.0.0.1:1\",result=\"timeout\"} 1",
        "backend_health_probes_total{pool=\"p\",backend=\"127.0.0.1:1\",result=\"body\"} 1",
        "backend_health_probes_total{pool=\"p\",backend=\"127.0.0.1:3\",result=\"connect\"} 1",
    ] {
        assert!(shown(text), "{text} is not in {}", metrics.encode());
    }

    // A reload keeps what is known; what the old pool still learns is not shown as if it were new.
    let new = registry.pool(&"p".into(), &settings, &members(&[1, 3]), now);
    registry.retain(|_| true);
    assert!(shown("backend_healthy{pool=\"p\",backend=\"127.0.0.1:3\"} 0"));
    for _ in 0..2 {
        probe(&new, 1, ProbeOutcome::Passed);
    }
    assert!(shown("backend_healthy{pool=\"p\",backend=\"127.0.0.1:3\"} 1"));
    assert!(old.eject(0, EjectionCause::Latency, now));
    assert!(shown("backend_ejected{pool=\"p\",backend=\"127.0.0.1:1\"} 0"));
    assert!(new.eject(0, EjectionCause::Latency, now));
    assert!(shown("backend_ejected{pool=\"p\",backend=\"127.0.0.1:1\"} 1"));
    registry.retain(|_| false);
    drop((old, new, worker));
    assert!(!metrics.encode().contains("pool=\"p\""));
}

#[test]
fn a_probe_that_is_given_up_leaves_nothing_behind() {
    let now = Instant::now();
    let mut registry = Registry::new(1, 7);
    let pool = registry.pool(&"p".into(), &settings(), &members(&[1]), now);
    let due = pool.probe_due(0).unwrap();
    assert!(pool.begin_probe(0, due));
    assert_eq!(pool.probe_due(0), None);
    pool.abandon_probe(0);
    pool.end_probe(0, ProbeOutcome::Timeout, due);
    assert_eq!(pool.report(due)[0].health, Some(HealthState::Unknown), "its outcome does not count");
    let next = pool.probe_due(0).unwrap();
    assert!(next > due, "and the next comes at its time");
    assert!(pool.begin_probe(0, next));
}

#[test]
fn load_survives_a_change_of_the_set() {
    let now = Instant::now();
    let mut registry = Registry::new(1, 7);
    let mut settings = settings();
    settings.balance.policy = lb_core::balance::Policy::LeastRequest;
    let shared = registry.pool(&"p".into(), &settings, &members(&[1, 2]), now);
    let old = after(&shared, 0, now, None);
    (0..3).for_each(|_| old.begin(0));
    let shared = registry.pool(&"p".into(), &settings, &members(&[3, 1, 2]), now);
    let middle = after(&shared, 0, now, Some(&old));
    let shared = registry.pool(&"p".into(), &settings, &members(&[1, 2]), now);
    let new = after(&shared, 0, now, Some(&middle));
    drop(middle);
    (0..2).for_each(|_| new.begin(1));
    assert_eq!(new.pick(now, None, |_| true), Some(1), "three against two");
    assert_eq!(shared.report(now)[0].requests_running, 3);
    for _ in 0..2 {
        old.end(0, now, Some(Ending::Fine), Some(Duration::from_millis(2)));
    }
    assert_eq!(new.pick(now, None, |_| true), Some(0), "one against two");
    old.begin(0);
    old.begin(0);
    assert_eq!(new.pick(now, None, |_| true), Some(1), "who began with the old one may try again there");
    let report = &shared.report(now)[0];
    assert_eq!((report.requests_running, report.requests), (3, 2));
    assert_eq!(report.mean_latency, Some(Duration::from_millis(2)));
}

#[test]
fn a_connection_without_a_protocol_is_one_request() {
    let now = Instant::now();
    let mut registry = Registry::new(1, 7);
    let mut settings = settings();
    settings.balance.policy = lb_core::balance::Policy::LeastRequest;
    let shared = registry.pool(&"p".into(), &settings, &members(&[1, 2]), now);
    let pool = worker(&shared, 0, now);
    let counts = || {
        let report = &shared.report(now)[0];
        (report.requests_running, report.requests, report.failures)
    };
    pool.begin(0);
    assert_eq!(counts(), (1, 0, 0), "its connect");
    pool.end(0, now, Some(Ending::Fine), Some(Duration::from_millis(2)));
    pool.begin(0);
    assert_eq!(counts(), (1, 1, 0), "its life");
    assert_eq!(pool.pick(now, None, |_| true), Some(1), "which is load");
    pool.withdraw(0, now);
    assert_eq!(counts(), (0, 1, 0), "it has ended");
    fail(&pool, 0, 1, now);
    assert_eq!(counts(), (0, 2, 1), "half of two connects have failed");
}

#[test]
fn new_addresses_of_a_backend_are_treated_like_its_others() {
    let now = Instant::now();
    let mut registry = Registry::new(1, 7);
    let named = |last: &[u16]| -> Vec<(MemberKey, u32, u32)> {
        let members = members(last).into_iter();
        members
            .map(|(key, weight, priority)| {
                (MemberKey { backend: "app:80".to_owned(), ..key }, weight, priority)
            })
            .collect()
    };
    let shared = registry.pool(&"p".into(), &settings(), &named(&[1, 2]), now);
    shared.set_draining(0, true);
    let shared = registry.pool(&"p".into(), &settings(), &named(&[1, 2, 3]), now);
    let draining = |shared: &lb_pool::SharedPool| -> Vec<bool> {
        shared.report(now).iter().map(|report| report.draining).collect()
    };
    assert_eq!(draining(&shared), [true, false, false], "one address was meant");
    shared.set_draining(1, true);
    shared.set_draining(2, true);
    let shared = registry.pool(&"p".into(), &settings(), &named(&[4]), now);
    assert_eq!(draining(&shared), [true], "the backend was meant");
}

#[test]
fn connections_go_by_their_id_or_else_by_their_address() {
    let now = Instant::now();
    let mut registry = Registry::new(1, 7);
    let mut settings = settings();
    settings.balance.policy = lb_core::balance::Policy::Maglev;
    let shared = registry.pool(&"p".into(), &settings, &members(&[1, 2, 3, 4]), now);
    let pool = worker(&shared, 0, now);
    let member = |id: Option<&[u8]>, client: [u8; 4]| {
        pool.pick(now, Some(hash::connection(id, (client, 80).into())), |_| true).unwrap()
    };
    let mut by_id = BTreeSet::new();
    for id in 0..32u8 {
        let first = member(Some(&[id; 8]), [192, 0, 2, 1]);
        assert!((2..32).all(|last| member(Some(&[id; 8]), [192, 0, 2, last]) == first), "ID {id}");
        by_id.insert(first);
    }
    let by_address: BTreeSet<usize> = (1..32).map(|last| member(None, [192, 0, 2, last])).collect();
    assert_eq!((by_id.len(), by_address.len()), (4, 4));
    assert!((0..9).all(|_| member(None, [192, 0, 2, 1]) == member(None, [192, 0, 2, 1])));
}

#[test]
fn who_cannot_be_reached_is_left_alone_by_all_workers_at_once() {
    let mut now = Instant::now();
    let mut registry = Registry::new(2, 7);
    let resting = PoolSettings { rest: Some(Duration::from_secs(10)), ..PoolSettings::default() };
    let shared = registry.pool(&"p".into(), &resting, &members(&[1, 2, 3]), now);
    let (first, second) = two_workers(&shared, now);
    let epoch = now;
    first.unreachable(1, RestCause::Connect, now);
    assert_eq!((picks(&first, now), picks(&second, now)), (vec![0, 2], vec![0, 2]));
    // Then one request of one worker finds out, and the others go elsewhere meanwhile.
    now = shared.due().unwrap();
    assert!(now > epoch + Duration::from_secs(8));
    shared.tend(now);
    let mut tries = 0;
    for _ in 0..10 {
        tries += usize::from(first.pick(now, None, |_| true) == Some(1));
        tries += usize::from(second.pick(now, None, |_| true) == Some(1));
    }
    assert_eq!(tries, 1);
    second.answered(1, now, now);
    assert_eq!((picks(&first, now), picks(&second, now)), (vec![0, 1, 2], vec![0, 1, 2]));
    assert!(shared.due().is_none());
}

#[test]
fn where_nobody_else_is_left_those_who_cannot_be_reached_are_asked() {
    let now = Instant::now();
    for threshold in [0, 1, 50] {
        let mut registry = Registry::new(2, 7);
        let mut resting = PoolSettings { rest: Some(Duration::from_secs(10)), ..PoolSettings::default() };
        resting.balance.panic_threshold_percent = threshold;
        let shared = registry.pool(&"p".into(), &resting, &members(&[1, 2]), now);
        let (first, second) = two_workers(&shared, now);
        first.unreachable(0, RestCause::ConnectTimeout, now);
        assert_eq!(picks(&second, now), [1]);
        second.unreachable(1, RestCause::ConnectTimeout, now);
        assert_eq!(picks(&first, now), [0, 1], "{threshold}");
        assert_eq!(shared.is_in_panic(), threshold > 0);
        // Whoever answers is well at once, and alone.
        second.answered(1, now, now);
        assert_eq!((picks(&first, now), picks(&second, now)), (vec![1], vec![1]), "{threshold}");
        assert!(!shared.is_in_panic());
    }
}

#[test]
fn who_is_slow_with_one_request_and_answers_others_is_not_left_alone() {
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    let mut registry = Registry::new(2, 7);
    let resting = PoolSettings { rest: Some(Duration::from_secs(10)), ..PoolSettings::default() };
    let shared = registry.pool(&"p".into(), &resting, &members(&[1, 2]), now);
    let (first, second) = two_workers(&shared, now);
    second.begin(0);
    second.end(0, later - Duration::from_secs(1), Some(Ending::Fine), Some(Duration::from_millis(1)));
    first.timed_out(0, now, later);
    assert_eq!(picks(&first, later), [0, 1], "another worker has heard of it");
    first.timed_out(1, later - Duration::from_millis(999), later);
    assert_eq!(picks(&first, later), [0, 1], "that is too short to tell");
    first.timed_out(1, now, later);
    assert_eq!(picks(&second, later), [0]);
}

#[test]
fn a_rest_outlives_a_change_of_the_pool_and_ends_with_a_passed_check() {
    let mut now = Instant::now();
    let mut registry = Registry::new(2, 7);
    let mut with_health = settings();
    with_health.rest = Some(Duration::from_secs(10));
    let shared = registry.pool(&"p".into(), &with_health, &members(&[1, 2, 3]), now);
    worker(&shared, 0, now).unreachable(2, RestCause::Connect, now);
    let shared = registry.pool(&"p".into(), &with_health, &members(&[3, 2]), now);
    let first = worker(&shared, 0, now);
    assert_eq!(picks(&first, now), [1], "the one at the third place is at the first now");
    for outcome in [ProbeOutcome::Connect, ProbeOutcome::Passed, ProbeOutcome::Passed] {
        now = now.max(shared.probe_due(0).unwrap());
        assert!(shared.begin_probe(0, now));
        shared.end_probe(0, outcome, now);
    }
    assert_eq!(picks(&first, now), [0, 1]);
}

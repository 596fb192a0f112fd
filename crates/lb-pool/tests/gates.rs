//! Limits of members and budgets of tries, over workers and reloads.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use lb_core::breaker::{Full, MemberLimits};
use lb_core::failure::{Kind, Reach};
use lb_core::hedge::HedgeSettings;
use lb_core::pool::PoolSettings;
use lb_core::retry::{Attempt, BudgetSettings, Conditions, RetrySettings, RetryVerdict};
use lb_observe::metrics::PoolMetrics;
use lb_pool::{Entry, Gate, MemberKey, Need, Pass, Registry, SharedPool, WorkerPool};

/// How often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn limited(max_requests: u32, max_pending: u32) -> PoolSettings {
    PoolSettings {
        limits: MemberLimits { max_requests, max_pending, ..MemberLimits::default() },
        ..PoolSettings::default()
    }
}

fn members(ports: &[u16]) -> Vec<(MemberKey, u32, u32)> {
    let key = |port: &u16| MemberKey {
        backend: format!("127.0.0.1:{port}"),
        address: ([127, 0, 0, 1], *port).into(),
    };
    ports.iter().map(|port| (key(port), 1, 0)).collect()
}

fn worker(shared: &Arc<SharedPool>, index: usize, earlier: Option<&WorkerPool>) -> WorkerPool {
    let metrics = Arc::new(PoolMetrics::new(2));
    WorkerPool::new(Arc::clone(shared), index, Instant::now(), earlier, metrics)
}

fn go(gate: &std::rc::Rc<Gate>) -> Option<Pass> {
    match gate.enter(Need::Request, Instant::now(), &Context::from_waker(Waker::noop())) {
        Entry::Go(pass) => Some(pass),
        Entry::Wait(_) | Entry::Full(_) => None,
    }
}

fn all_that_go(pool: &WorkerPool, at: usize) -> Vec<Pass> {
    std::iter::from_fn(|| go(pool.gate(at).unwrap())).collect()
}

#[test]
fn workers_have_their_parts_of_a_limit() {
    let now = Instant::now();
    let mut registry = Registry::new(2, 7);
    for (whole, parts) in [(1, [1, 1]), (2, [1, 1]), (5, [3, 2]), (100, [50, 50])] {
        let shared = registry.pool(&"p".into(), &limited(whole, 0), &members(&[1, 2]), now);
        for (index, part) in parts.into_iter().enumerate() {
            let pool = worker(&shared, index, None);
            let held = all_that_go(&pool, 0);
            assert_eq!(held.len(), part, "of {whole}");
            assert_eq!(all_that_go(&pool, 1).len(), part, "each member has its own");
            drop(held);
            assert_eq!(all_that_go(&pool, 0).len(), part, "all of it is given back");
        }
    }
    let shared = registry.pool(&"p".into(), &PoolSettings::default(), &members(&[1]), now);
    assert!(worker(&shared, 0, None).gate(0).is_none());
}

#[test]
fn who_waits_is_woken_in_its_turn_and_may_leave() {
    let now = Instant::now();
    let shared = Registry::new(1, 7).pool(&"p".into(), &limited(1, 2), &members(&[1]), now);
    let pool = worker(&shared, 0, None);
    let gate = pool.gate(0).unwrap();
    let held = go(gate).unwrap();
    let woken: Vec<Arc<Woken>> = (0..2).map(|_| Arc::default()).collect();
    let wakers: Vec<Waker> = woken.iter().map(|woken| Waker::from(Arc::clone(woken))).collect();
    let enter = |waker: &Waker| gate.enter(Need::Request, now, &Context::from_waker(waker));
    let (Entry::Wait(mut first), Entry::Wait(mut second)) = (enter(&wakers[0]), enter(&wakers[1])) else {
        panic!("both wait")
    };
    assert!(matches!(enter(Waker::noop()), Entry::Full(Full::Pending)));
    let counts = || [0, 1].map(|at: usize| woken[at].0.load(Ordering::SeqCst));
    let cx = &Context::from_waker(&wakers[1]);
    assert!(second.poll(Need::Request, now, cx).is_pending());
    drop(held);
    assert_eq!(counts(), [1, 0]);
    assert!(second.poll(Need::Request, now, cx).is_pending(), "nobody is overtaken");
    drop(first);
    assert_eq!(counts(), [1, 1], "the next in the queue takes the place of who left");
    let Poll::Ready(Ok(pass)) = second.poll(Need::Request, now, cx) else { panic!("there is room") };
    assert!(go(gate).is_none());
    drop(pass);
    drop(second);
    // Time runs out, room or not.
    let held = go(gate).unwrap();
    let Entry::Wait(waiting) = enter(&wakers[0]) else { panic!("it waits") };
    first = waiting;
    let late = now + Duration::from_secs(2);
    drop(held);
    let cx = &Context::from_waker(&wakers[0]);
    assert!(matches!(first.poll(Need::Request, late, cx), Poll::Ready(Err(Full::PendingTimeout))));
    assert_eq!(pool.shard().pending.value(), 0);
    assert!(go(gate).is_some());
    assert_eq!(pool.shard().circuit_open.value(), 0);
}

#[test]
fn a_reload_keeps_what_members_that_stay_hold() {
    let now = Instant::now();
    let mut registry = Registry::new(1, 7);
    let old = worker(&registry.pool(&"p".into(), &limited(2, 0), &members(&[1, 2]), now), 0, None);
    let held = all_that_go(&old, 1);
    assert_eq!(held.len(), 2);
    let shared = registry.pool(&"p".into(), &limited(3, 0), &members(&[2, 3]), now);
    let new = worker(&shared, 0, Some(&old));
    let one = all_that_go(&new, 0);
    assert_eq!(one.len(), 1, "two of three are held since before");
    assert_eq!(all_that_go(&new, 1).len(), 3, "a new member");
    drop((held, one));
    assert_eq!(all_that_go(&new, 0).len(), 3);
}

#[test]
fn a_reload_keeps_the_budget() {
    let now = Instant::now();
    let retry = |min| RetrySettings {
        attempts: Some(3),
        conditions: Conditions { reset: true, ..Conditions::NONE },
        per_try_timeout: None,
        backoff: Duration::ZERO,
        budget: BudgetSettings { percent: 0, min },
        hedge: HedgeSettings::default(),
    };
    let settings = |min| PoolSettings { retry: retry(min), ..PoolSettings::default() };
    let mut registry = Registry::new(1, 7);
    let old = worker(&registry.pool(&"p".into(), &settings(2), &members(&[1]), now), 0, None);
    let attempt = Attempt { tries_left: 1, idempotent: true, body_consumed: false, gone_away: 0 };
    let decide =
        |pool: &WorkerPool| pool.decide(&pool.retry().conditions, Kind::Closed.at(Reach::Sent), attempt, now);
    old.begin_request();
    assert_eq!(decide(&old), RetryVerdict::Again { charged: true });
    let shared = registry.pool(&"p".into(), &settings(1), &members(&[1]), now);
    let new = worker(&shared, 0, Some(&old));
    assert!(matches!(decide(&new), RetryVerdict::No(_)), "the one that is allowed runs since before");
    assert_eq!(new.shard().budget_exhausted.value(), 1);
    old.try_done();
    old.end_request();
}

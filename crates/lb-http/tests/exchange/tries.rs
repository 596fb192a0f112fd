//! Which requests are tried again, and which run at two members at once, to the millisecond.

use std::time::Duration;

use lb_core::failure::Kind;
use lb_core::head::BodyLength;
use lb_core::hedge::HedgeSettings;
use lb_core::pool::PoolSettings;
use lb_core::retry::{BudgetSettings, Conditions, RetrySettings};
use lb_core::status_set::StatusSet;
use lb_http::message::Gone;
use lb_http::proxy::End;
use tokio::time::Instant;

use crate::back::{Connect, Seen, Step, World};
use crate::front::{Habits, Send, TestFront, Told};
use crate::rig::{Rig, Setup};
use crate::within;

const MS: Duration = Duration::from_millis(1);

/// Nothing but what has never reached a backend, with so many further tries and a budget that does not matter.
fn rules(attempts: u32) -> RetrySettings {
    RetrySettings {
        attempts: Some(attempts),
        conditions: Conditions { connect: true, ..Conditions::NONE },
        budget: BudgetSettings { percent: 100, min: 100 },
        ..RetrySettings::default()
    }
}

fn resets(retry: RetrySettings) -> RetrySettings {
    RetrySettings { conditions: Conditions { reset: true, ..retry.conditions }, ..retry }
}

fn timeouts(per_try: Duration, retry: RetrySettings) -> RetrySettings {
    let conditions = Conditions { timeout: true, ..retry.conditions };
    RetrySettings { conditions, per_try_timeout: Some(per_try), ..retry }
}

fn statuses(all: &[u16], retry: RetrySettings) -> RetrySettings {
    let statuses: StatusSet = all.iter().copied().collect();
    RetrySettings { conditions: Conditions { statuses, ..retry.conditions }, ..retry }
}

/// A second try after `min_delay`.
fn hedged(min_delay: Duration, retry: RetrySettings) -> RetrySettings {
    RetrySettings { hedge: HedgeSettings { percentile: 99, min_delay }, ..retry }
}

fn rig(retry: RetrySettings, http: &str, world: World) -> Rig {
    let listener = format!("[listeners.http]\n{http}");
    let pool = PoolSettings { retry, ..PoolSettings::default() };
    let rig = Rig::new(Setup { listener: &listener, pool, ..Setup::default() }, &world.into());
    for _ in 0..200 {
        // What is slow is known from earlier responses.
        rig.pool.record_latency(MS);
    }
    rig
}

/// What became of a request, what the backends saw of it, and how long it took.
struct Outcome {
    end: End,
    told: Told,
    seen: Vec<Seen>,
    took: Duration,
}

impl Outcome {
    fn status(&self) -> u16 {
        self.told.heads[0]
    }
}

async fn send(rig: &Rig, method: &str, sends: Vec<Send>, habits: Habits) -> Outcome {
    let (before, start) = (rig.world.seen().len(), Instant::now());
    let body = if sends.is_empty() { BodyLength::None } else { BodyLength::Unknown };
    let mut front = TestFront::new(sends, habits);
    let end = rig.run(rig.head(method, body, &[]), &mut front).await;
    let took = start.elapsed();
    rig.assert_at_rest();
    let told = front.told.borrow().clone();
    let seen: Vec<Seen> = rig.world.seen().split_off(before);
    assert!(seen.iter().all(|one| one.over), "a backend is left with a request");
    Outcome { end, told, seen, took }
}

async fn get(rig: &Rig) -> Outcome {
    send(rig, "GET", Vec::new(), Habits::default()).await
}

fn body(length: usize) -> Vec<Send> {
    vec![Send::Data(vec![7; length]), Send::End]
}

fn status(status: u16) -> Vec<Step> {
    vec![Step::Request, Step::Head(status, BodyLength::Known(2)), Step::Data(b"no".to_vec()), Step::End]
}

/// An answer after so many milliseconds.
fn after(ms: u32, then: Vec<Step>) -> Vec<Step> {
    [vec![Step::After(MS * ms)], then].concat()
}

fn fails(ms: u32, kind: Kind) -> Vec<Step> {
    after(ms, vec![Step::Fail(kind)])
}

/// By the number of a request among all that the backends have seen.
fn each(first: Vec<Step>, second: Vec<Step>) -> World {
    World::new(move |_, number| if number == 1 { first.clone() } else { second.clone() })
}

/// The same steps for each request.
fn always(steps: Vec<Step>) -> World {
    World::new(move |_, _| steps.clone())
}

#[test]
fn the_last_response_is_the_client_s() {
    within(|| async {
        let world = World::new(|seen, _| status(if seen.port == 1 { 502 } else { 503 }));
        let rig = rig(statuses(&[502, 503], rules(3)), "", world);
        let outcome = get(&rig).await;
        assert!([502, 503].contains(&outcome.status()) && outcome.told.body == b"no", "{:?}", outcome.told);
        let at = |port| outcome.seen.iter().filter(|seen| seen.port == port).count();
        assert_eq!((at(1), at(2)), (2, 2), "members take turns");
    });
}

#[test]
fn statuses_that_no_rule_names_pass() {
    within(|| async {
        for retry in [statuses(&[502, 504], rules(3)), RetrySettings::default()] {
            let outcome = get(&rig(retry, "", always(status(503)))).await;
            assert_eq!((outcome.status(), outcome.seen.len()), (503, 1));
        }
    });
}

#[test]
fn what_may_not_be_repeated_is_sent_once() {
    within(|| async {
        let retry = timeouts(MS * 500, resets(statuses(&[503], rules(3))));
        let ends = [status(503), fails(1, Kind::ConnectionReset), fails(1, Kind::Closed), vec![Step::Never]];
        for steps in ends {
            for method in ["POST", "PATCH", "get"] {
                let rig = rig(retry, "", always(steps.clone()));
                let outcome = send(&rig, method, body(4), Habits::default()).await;
                assert!(outcome.status() >= 502 && outcome.seen.len() == 1, "{method}: {:?}", outcome.told);
            }
        }
        // What no backend has seen may go elsewhere.
        let mut world = always(status(200));
        world.connects = Box::new(|port| if port == 1 { Connect::Refused(MS) } else { Connect::Done(MS) });
        let rig = rig(rules(1), "", world);
        for _ in 0..4 {
            let outcome = send(&rig, "POST", body(4), Habits::default()).await;
            assert_eq!((outcome.status(), outcome.seen.len(), outcome.seen[0].port), (200, 1, 2));
        }
    });
}

#[test]
fn a_small_body_is_sent_again_and_a_large_one_is_not() {
    within(|| async {
        for (length, told, tries) in [(16 * 1024, 200, 2), (16 * 1024 + 1, 503, 1)] {
            let rig = rig(statuses(&[503], rules(1)), "", each(status(503), status(200)));
            let outcome = send(&rig, "PUT", body(length), Habits::default()).await;
            assert_eq!((outcome.status(), outcome.seen.len()), (told, tries), "{length} bytes");
            assert!(outcome.seen.iter().all(|seen| seen.body.len() == length && seen.ended));
        }
    });
}

#[test]
fn a_response_that_has_begun_is_never_replaced() {
    within(|| async {
        let half = vec![
            Step::Head(200, BodyLength::Known(100)),
            Step::Data(b"half".to_vec()),
            Step::After(MS),
            Step::Fail(Kind::ConnectionReset),
        ];
        let retry = statuses(&[502, 503], resets(rules(3)));
        let outcome = get(&rig(retry, "", always(half))).await;
        assert_eq!((outcome.end, outcome.seen.len(), outcome.told.ends), (End::Broken, 1, 0));
        // An interim response is a byte at the client as well.
        for then in [status(503), fails(5, Kind::ConnectionReset)] {
            let outcome = get(&rig(retry, "", always([vec![Step::Interim(103)], then].concat()))).await;
            assert_eq!((outcome.seen.len(), outcome.told.interims.len()), (1, 1));
            assert!([502, 503].contains(&outcome.status()));
        }
    });
}

#[test]
fn a_reset_is_tried_again_where_the_rules_say_so() {
    within(|| async {
        for kind in [Kind::ConnectionReset, Kind::Closed] {
            for (retry, told, tries) in [(resets(rules(1)), 200, 2), (rules(1), 502, 1)] {
                let outcome = get(&rig(retry, "", each(fails(1, kind), status(200)))).await;
                assert_eq!((outcome.status(), outcome.seen.len()), (told, tries), "{kind:?}");
            }
        }
    });
}

#[test]
fn a_try_has_its_time_and_the_client_s_is_not_counted() {
    within(|| async {
        let retry = timeouts(MS * 150, rules(1));
        // Each of two tries has its 150 ms.
        let outcome = get(&rig(retry, "", always(vec![Step::Never]))).await;
        assert_eq!((outcome.status(), outcome.seen.len(), outcome.took), (504, 2, MS * 300));
        let stuck = rig(retry, "", always(vec![Step::Never]));
        let outcome = send(&stuck, "POST", body(4), Habits::default()).await;
        assert_eq!((outcome.status(), outcome.seen.len()), (504, 1));
        assert!(outcome.took < MS * 200, "{:?}", outcome.took);
        // A client that takes longer for its body than a try may take is not the backend's fault.
        let drips = (0..5).flat_map(|_| [Send::Data(vec![1; 20]), Send::After(MS * 150)]);
        let sends: Vec<Send> = drips.chain([Send::End]).collect();
        let fine = rig(timeouts(MS * 300, rules(1)), "", always(status(200)));
        let outcome = send(&fine, "PUT", sends, Habits::default()).await;
        assert_eq!((outcome.status(), outcome.seen.len()), (200, 1));
        // A connect that hangs is given up like a response that does not come, and nothing was sent yet.
        let mut world = always(status(200));
        world.connects = Box::new(|port| if port == 1 { Connect::Hangs } else { Connect::Done(MS) });
        let half = rig(retry, "", world);
        for _ in 0..2 {
            let outcome = send(&half, "POST", body(4), Habits::default()).await;
            assert_eq!((outcome.status(), outcome.seen.len()), (200, 1));
            assert!(outcome.took < MS * 160, "{:?}", outcome.took);
        }
    });
}

/// A pause before each further try, of up to this at first.
fn pauses(first: Duration, retry: RetrySettings) -> RetrySettings {
    RetrySettings { backoff: first, ..retry }
}

#[test]
fn x_14_pauses_grow_and_are_drawn_from_their_whole_range() {
    within(|| async {
        let retry = statuses(&[500], resets(rules(2)));
        let at_once = get(&rig(retry, "", always(status(500)))).await;
        assert_eq!((at_once.status(), at_once.seen.len()), (500, 3));
        let rig = rig(pauses(MS * 1000, retry), "", always(status(500)));
        let mut took = Vec::new();
        for _ in 0..200 {
            let outcome = get(&rig).await;
            assert_eq!((outcome.status(), outcome.seen.len()), (500, 3));
            took.push(outcome.took);
        }
        // Up to one second and then up to two, of which the mean is half.
        assert!(took.iter().all(|took| *took <= MS * 3010), "{:?}", took.iter().max());
        let mean = took.iter().sum::<Duration>() / 200;
        // A standard deviation of 645 ms, of 200 draws.
        assert!((MS * 1310..MS * 1700).contains(&mean), "{mean:?}");
        assert!(took.iter().any(|took| *took > MS * 2200) && took.iter().any(|took| *took < MS * 800));
    });
}

#[test]
fn x_14_what_has_cost_nothing_is_tried_again_at_once() {
    within(|| async {
        let retry = pauses(MS * 60_000, RetrySettings { conditions: Conditions::default(), ..rules(3) });
        let mut world = each(fails(1, Kind::GoneAway), status(200));
        world.connects = Box::new(|port| if port == 1 { Connect::Refused(MS) } else { Connect::Done(MS) });
        let rig = rig(retry, "", world);
        for _ in 0..4 {
            let outcome = get(&rig).await;
            assert!(outcome.status() == 200 && outcome.took < MS * 10, "{:?}", outcome.took);
        }
    });
}

#[test]
fn a_pause_ends_with_the_request() {
    within(|| async {
        let retry = pauses(MS * 60_000, statuses(&[503], rules(3)));
        // The time of the request as a whole comes first.
        let rig = rig(retry, "total_timeout_ms = 50\n", always(status(503)));
        let outcome = get(&rig).await;
        assert_eq!((outcome.status(), outcome.seen.len(), outcome.took), (504, 1, MS * 50));
        // And so does a client that leaves.
        let habits = Habits { leaves: Some((MS * 20, Gone::Closed)), ..Habits::default() };
        let outcome = send(&rig, "PUT", body(4), habits).await;
        assert_eq!((outcome.end, outcome.seen.len(), outcome.took), (End::Broken, 1, MS * 20));
        // A request that waits is at no backend.
        let mut front = TestFront::new(Vec::new(), Habits::default());
        let waits = async {
            tokio::time::sleep(MS * 10).await;
            assert_eq!((rig.service.worker.running(), rig.inflight()), (1, 0));
        };
        tokio::join!(rig.run(rig.head("GET", BodyLength::None, &[]), &mut front), waits);
        rig.assert_at_rest();
    });
}

/// Hedges that were made, and those that answered first.
fn hedges(rig: &Rig) -> (u64, u64) {
    let shard = rig.pool.shard();
    (shard.hedges.value(), shard.hedges_won.value())
}

#[test]
fn of_two_tries_the_first_that_answers_is_taken() {
    within(|| async {
        let rig_of = |first, second| rig(hedged(MS * 100, rules(1)), "", each(first, second));
        let one = rig_of(after(500, status(200)), vec![Step::Never]);
        let outcome = get(&one).await;
        assert_eq!((outcome.told.number, outcome.seen.len(), hedges(&one)), (Some(1), 2, (1, 0)));
        assert_ne!(outcome.seen[0].port, outcome.seen[1].port);
        let two = rig_of(vec![Step::Never], after(30, status(200)));
        let outcome = send(&two, "PUT", body(12), Habits::default()).await;
        assert_eq!((outcome.told.number, outcome.seen.len(), hedges(&two)), (Some(2), 2, (1, 1)));
        assert!(outcome.seen.iter().all(|seen| seen.body == [7; 12] && seen.ended));
        assert!((MS * 130..MS * 140).contains(&outcome.took), "{:?}", outcome.took);
    });
}

#[test]
fn a_try_that_fails_leaves_the_other_to_go_on() {
    within(|| async {
        let reset = |ms| fails(ms, Kind::ConnectionReset);
        let retry = hedged(MS * 100, statuses(&[503], resets(rules(1))));
        let cases = [
            (reset(300), after(900, status(200)), 200, Some(2)),
            (after(500, status(200)), status(503), 200, Some(1)),
            (reset(300), reset(300), 502, None),
        ];
        for (first, second, told, number) in cases {
            let outcome = get(&rig(retry, "", each(first, second))).await;
            assert_eq!((outcome.status(), outcome.told.number, outcome.seen.len()), (told, number, 2));
        }
    });
}

#[test]
fn an_interim_response_decides_between_two_tries() {
    within(|| async {
        let hint = |then: Vec<Step>| after(400, [vec![Step::Interim(103)], then].concat());
        let retry = hedged(MS * 100, resets(rules(1)));
        let one = rig(retry, "", each(hint(after(1600, status(200))), after(900, status(200))));
        let outcome = get(&one).await;
        assert_eq!((outcome.told.number, outcome.told.interims.len(), hedges(&one)), (Some(1), 1, (1, 0)));
        // When that one fails, the request has.
        let failing = hint(fails(300, Kind::ConnectionReset));
        let outcome = get(&rig(retry, "", each(failing, after(900, status(200))))).await;
        assert_eq!((outcome.status(), outcome.told.interims.len(), outcome.seen.len()), (502, 1, 2));
    });
}

#[test]
fn a_second_try_takes_no_time_from_the_first_s_clock() {
    within(|| async {
        // The first is given up after 1.6 seconds, which the second has only from its own start on.
        let retry = hedged(MS * 1000, timeouts(MS * 1600, rules(1)));
        let two = rig(retry, "", each(after(1900, status(200)), after(1100, status(200))));
        let outcome = send(&two, "PUT", body(12), Habits::default()).await;
        assert_eq!((outcome.status(), outcome.told.number), (200, Some(2)));
        let world = each(vec![Step::Never], after(1100, status(200)));
        let outcome = get(&rig(hedged(MS * 1000, rules(1)), "head_timeout_ms = 1600\n", world)).await;
        assert_eq!((outcome.status(), outcome.told.number), (200, Some(2)));
        // Where the time is over for both, the request has failed.
        let world = always(vec![Step::Never]);
        let outcome = get(&rig(hedged(MS * 100, rules(1)), "head_timeout_ms = 800\n", world)).await;
        assert_eq!((outcome.status(), outcome.seen.len()), (504, 2));
    });
}

#[test]
fn what_may_not_be_repeated_is_not_hedged() {
    within(|| async {
        for (method, length) in [("POST", 4), ("PUT", 64 * 1024)] {
            let first = [vec![Step::Request], after(500, status(200))].concat();
            let one = rig(hedged(MS * 100, rules(1)), "", each(first, status(200)));
            let outcome = send(&one, method, body(length), Habits::default()).await;
            assert_eq!((outcome.told.number, outcome.seen.len()), (Some(1), 1), "{method}");
            assert_eq!(hedges(&one), (0, 0), "{method}");
        }
    });
}

#[test]
fn a_client_that_leaves_ends_both_tries() {
    within(|| async {
        let one = rig(hedged(MS * 100, rules(1)), "", always(vec![Step::Never]));
        let habits = Habits { leaves: Some((MS * 300, Gone::Closed)), ..Habits::default() };
        let outcome = send(&one, "GET", Vec::new(), habits).await;
        assert_eq!((outcome.end, outcome.seen.len(), outcome.took), (End::Broken, 2, MS * 300));
    });
}

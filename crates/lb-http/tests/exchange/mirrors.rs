//! Copies of requests, whose answers nobody hears.

use std::time::Duration;

use lb_core::head::BodyLength;
use lb_core::pool::PoolSettings;
use lb_core::retry::{BudgetSettings, Conditions, RetrySettings};
use lb_http::message::Gone;
use lb_http::proxy::End;
use lb_observe::metrics::{Label, MirrorResult};
use tokio::time::{Instant, sleep};

use crate::back::{Seen, Step, World};
use crate::front::{Habits, Send, TestFront, Told};
use crate::rig::{Rig, Setup};
use crate::within;

const MS: Duration = Duration::from_millis(1);

/// A listener whose one route has these lines, with mirrors to the same pool, which tries 503 again. The first request that backends see is the client's.
fn rig(lines: &str, world: World) -> Rig {
    let listener = format!("[[listeners.routes]]\npool = \"back\"\n{lines}\n");
    let retry = RetrySettings {
        attempts: Some(2),
        conditions: Conditions { statuses: [503].into_iter().collect(), ..Conditions::default() },
        budget: BudgetSettings { percent: 100, min: 100 },
        ..RetrySettings::default()
    };
    let pool = PoolSettings { retry, ..PoolSettings::default() };
    Rig::new(Setup { listener: &listener, pool, ..Setup::default() }, &world.into())
}

fn answer(status: u16) -> Vec<Step> {
    vec![Step::Request, Step::Head(status, BodyLength::Known(2)), Step::Data(b"ok".to_vec()), Step::End]
}

/// The client's request is answered, and its copies as `then` says.
fn copies(then: Vec<Step>) -> World {
    World::new(move |_, number| if number == 1 { answer(200) } else { then.clone() })
}

async fn send(rig: &Rig, method: &str, sends: Vec<Send>) -> (End, Told) {
    let body = if sends.is_empty() { BodyLength::None } else { BodyLength::Unknown };
    let mut front = TestFront::new(sends, Habits::default());
    let end = rig.run(rig.head(method, body, &[("x-a", "b"), ("expect", "100-continue")]), &mut front).await;
    (end, front.told.borrow().clone())
}

/// What has become of mirrors, of each kind that there were any of.
fn results(rig: &Rig) -> Vec<(&'static str, u64)> {
    let shard = rig.metrics.worker(0);
    let all = MirrorResult::ALL.iter().map(|result| (result.name(), shard.mirrors.of(*result).value()));
    all.filter(|(_, count)| *count > 0).collect()
}

async fn at_rest(rig: &Rig, within: Duration) -> Vec<Seen> {
    let start = Instant::now();
    while rig.service.worker.running() > 0 {
        assert!(start.elapsed() <= within, "a mirror goes on");
        sleep(MS).await;
    }
    rig.assert_at_rest();
    let seen = rig.world.seen();
    assert!(seen.iter().all(|one| one.over), "a backend is left with a request");
    seen
}

#[test]
fn x_10_a_mirror_gets_what_the_backend_gets() {
    within(|| async {
        let pieces = || {
            let pieces = (0..4).flat_map(|_| [Send::Data(vec![7; 10_000]), Send::After(MS * 20)]);
            pieces.chain([Send::Trailer("x-sum", "1"), Send::End]).collect::<Vec<_>>()
        };
        for (method, sends) in [("GET", Vec::new()), ("POST", pieces())] {
            let rig = rig("mirror = [{ pool = \"back\" }, { pool = \"back\" }]", copies(answer(500)));
            let (end, told) = send(&rig, method, sends.clone()).await;
            assert_eq!((end, told.heads, told.body), (End::Complete, vec![200], b"ok".to_vec()));
            let seen = at_rest(&rig, MS * 100).await;
            assert_eq!((seen.len(), results(&rig)), (3, vec![("answered", 2)]));
            for copy in &seen {
                assert_eq!((copy.method.as_str(), copy.ended, copy.field("x-a")), (method, true, Some("b")));
                assert_eq!(copy.body, seen[0].body);
                assert_eq!(copy.trailers, seen[0].trailers);
                assert_eq!(copy.field("via"), seen[0].field("via"));
            }
            assert_eq!(
                seen[0].body.len(),
                sends.iter().filter(|send| matches!(send, Send::Data(_))).count() * 10_000
            );
            // The client's own 100 (Continue) is a matter between it and its backend.
            assert_eq!(seen[1].field("expect"), None);
        }
    });
}

#[test]
fn a_mirror_is_sent_once_and_never_fails_the_request() {
    within(|| async {
        for (then, result) in [
            (answer(503), "answered"),
            (vec![Step::Fail(lb_core::failure::Kind::ConnectionReset)], "failed"),
            (vec![Step::Never], "timeout"),
        ] {
            let rig = rig("mirror = [{ pool = \"back\", timeout_ms = 3000 }]", copies(then));
            let start = Instant::now();
            let (end, told) = send(&rig, "GET", Vec::new()).await;
            assert_eq!((end, told.heads), (End::Complete, vec![200]), "{result}");
            assert!(start.elapsed() < MS * 10, "{result}: {:?}", start.elapsed());
            let seen = at_rest(&rig, MS * 3010).await;
            assert_eq!((seen.len(), results(&rig)), (2, vec![(result, 1)]));
        }
    });
}

#[test]
fn r_23_a_mirror_that_does_not_read_is_dropped() {
    within(|| async {
        let mut world = copies(vec![Step::Never]);
        world.full = Box::new(|seen| seen.number > 1);
        let rig = rig("mirror = [{ pool = \"back\", max_body_bytes = 100000 }]", world);
        let pieces = (0..50).flat_map(|_| [Send::Data(vec![7; 20_000]), Send::After(MS)]);
        let start = Instant::now();
        let (end, told) = send(&rig, "POST", pieces.chain([Send::End]).collect()).await;
        assert_eq!((end, told.heads), (End::Complete, vec![200]));
        assert!(start.elapsed() < MS * 80, "{:?}", start.elapsed());
        let seen = at_rest(&rig, MS).await;
        assert_eq!((seen[0].body.len(), results(&rig)), (1_000_000, vec![("behind", 1)]));
        assert!(seen[1].body.len() <= 40_000 && !seen[1].ended, "{}", seen[1].body.len());
    });
}

#[test]
fn a_mirror_ends_with_a_request_that_does_not_come_to_its_end() {
    within(|| async {
        let rig = rig("mirror = [{ pool = \"back\" }]", copies(answer(200)));
        let habits = Habits { leaves: Some((MS * 50, Gone::Closed)), ..Habits::default() };
        let mut front = TestFront::new(vec![Send::Data(vec![7; 1000])], habits);
        let end = rig.run(rig.head("POST", BodyLength::Unknown, &[]), &mut front).await;
        assert_eq!(end, End::Broken);
        let seen = at_rest(&rig, MS).await;
        assert_eq!((seen.len(), results(&rig)), (2, vec![("abandoned", 1)]));
        assert!(seen[1].body.len() == 1000 && !seen[1].ended);
    });
}

#[test]
fn a_share_is_drawn_and_no_more_run_than_may() {
    within(|| async {
        let shared =
            rig("mirror = [{ pool = \"back\", fraction = \"20%\" }]", World::new(|_, _| answer(200)));
        for _ in 0..1000 {
            send(&shared, "GET", Vec::new()).await;
        }
        let seen = at_rest(&shared, MS * 100).await;
        // 200 of 1000, within 4 sigma.
        assert!((1150..=1250).contains(&seen.len()), "{}", seen.len());

        // What clients send has this field, and their copies have not.
        let stuck = World::new(
            |seen, _| {
                if seen.field("expect").is_some() { answer(200) } else { vec![Step::Never] }
            },
        );
        let crowded = rig("mirror = [{ pool = \"back\", timeout_ms = 60000 }]", stuck);
        for _ in 0..1500 {
            assert_eq!(send(&crowded, "GET", Vec::new()).await.1.heads, [200]);
        }
        assert_eq!(crowded.service.worker.running(), 1024);
        assert!(results(&crowded).iter().any(|(result, count)| *result == "full" && *count > 100));
    });
}

#[test]
fn a_body_that_is_buffered_is_mirrored_as_it_comes() {
    within(|| async {
        let lines = "mirror = [{ pool = \"back\", max_body_bytes = 40000 }]\nhttp = { buffer_request_bytes = 1000000 }";
        let rig = rig(lines, World::new(|_, _| answer(200)));
        let pieces = (0..10).flat_map(|_| [Send::Data(vec![7; 30_000]), Send::After(MS * 5)]);
        let (_, told) = send(&rig, "POST", pieces.chain([Send::End]).collect()).await;
        assert_eq!(told.heads, [200]);
        let seen = at_rest(&rig, MS * 100).await;
        assert_eq!((seen.len(), results(&rig)), (2, vec![("answered", 1)]));
        assert!(seen.iter().all(|seen| seen.body.len() == 300_000 && seen.ended));
    });
}

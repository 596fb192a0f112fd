//! What a front and a back from another crate can do.

use std::time::Duration;

use lb_core::failure::{Kind, Reject, Reset, ResetReason};
use lb_core::head::{BodyLength, TunnelBy};
use lb_core::reason::Reason;
use lb_http::message::{FrontCapabilities, Gone};
use lb_http::proxy::End;
use lb_observe::access_log::{AccessLog, LogTarget};

use crate::back::{Connect, Step, World};
use crate::front::{Habits, Send, TestFront};
use crate::rig::{Rig, Setup};
use crate::within;

const MS: Duration = Duration::from_millis(1);

fn ok() -> Vec<Step> {
    vec![Step::Request, Step::Head(200, BodyLength::Unknown), Step::Data(b"fine".to_vec()), Step::End]
}

#[test]
fn bodies_trailers_and_interim_responses_pass_both_ways() {
    within(|| async {
        let world = World::new(|_, _| {
            vec![
                Step::Interim(103),
                Step::Request,
                Step::After(MS * 20),
                Step::Head(201, BodyLength::Unknown),
                Step::Data(b"one, ".to_vec()),
                Step::After(MS),
                Step::Data(b"two".to_vec()),
                Step::Trailer("x-sum", "2"),
                Step::End,
            ]
        });
        let rig = Rig::new(Setup::default(), &world.into());
        let sends = vec![
            Send::Data(b"some".to_vec()),
            Send::After(MS * 50),
            Send::Data(b"thing".to_vec()),
            Send::Trailer("x-parts", "2"),
            Send::End,
        ];
        let mut front = TestFront::new(sends, Habits::default());
        let head =
            rig.head("POST", BodyLength::Unknown, &[("x-one", "1"), ("connection", "x-two"), ("x-two", "2")]);
        assert_eq!(rig.run(head, &mut front).await, End::Complete);
        let told = front.told.borrow().clone();
        assert_eq!((told.interims, told.heads, told.ends, told.aborted), (vec![103], vec![201], 1, None));
        assert_eq!(told.body, b"one, two");
        assert_eq!(told.trailers, [("x-sum".to_owned(), "2".to_owned())]);
        let [seen] = &rig.world.seen()[..] else { panic!("{:?}", rig.world.seen()) };
        assert_eq!((&seen.body[..], seen.ended, &*seen.method), (&b"something"[..], true, "POST"));
        assert_eq!(seen.trailers, [("x-parts".to_owned(), "2".to_owned())]);
        assert_eq!((seen.field("x-one"), seen.field("x-two")), (Some("1"), None));
        assert_eq!(seen.field("x-forwarded-for"), Some("198.51.100.7"));
        assert_eq!(seen.field("via"), Some("HTTP/3 expressgateway"));
        rig.assert_at_rest();
    });
}

#[test]
fn what_a_client_cannot_be_told_it_is_not_told() {
    within(|| async {
        let steps = || vec![Step::Interim(103), Step::Fail(Kind::Refused)];
        let world = World::new(move |_, number| if number == 1 { steps() } else { ok() });
        let rig = Rig::new(Setup::default(), &world.into());
        // Of a client that was told nothing yet, the request can still go elsewhere.
        for (interim, status, ends, seen) in [(false, 200, 1, 2), (true, 200, 1, 3)] {
            let can =
                FrontCapabilities { interim, trailers: false, tunnel: TunnelBy::Upgrade, streams: false };
            let mut front = TestFront::new(vec![], Habits { can, ..Habits::default() });
            rig.run(rig.head("GET", BodyLength::None, &[]), &mut front).await;
            let told = front.told.borrow().clone();
            assert_eq!((told.interims.len(), told.ends), (0, ends), "{interim}: {told:?}");
            assert_eq!((told.heads, rig.world.seen().len()), (vec![status], seen));
        }
    });
}

#[test]
fn a_request_that_a_member_refuses_goes_to_the_next_with_its_body() {
    within(|| async {
        for kind in [Kind::Refused, Kind::GoneAway] {
            let world = World::new(move |_, number| match number {
                1 => vec![Step::Request, Step::After(MS * 5), Step::Fail(kind)],
                _ => ok(),
            });
            let rig = Rig::new(Setup::default(), &world.into());
            let mut front = TestFront::new(vec![Send::Data(b"small".to_vec()), Send::End], Habits::default());
            let end = rig.run(rig.head("POST", BodyLength::Known(5), &[]), &mut front).await;
            assert_eq!((end, &front.told.borrow().heads[..]), (End::Complete, &[200][..]), "{kind:?}");
            let seen = rig.world.seen();
            assert_eq!(seen.iter().map(|one| &one.body[..]).collect::<Vec<_>>(), [b"small", b"small"]);
            assert_ne!(seen[0].port, seen[1].port, "{kind:?}");
            assert!(seen[0].over && seen[0].refused);
        }
    });
}

#[test]
fn a_member_that_cannot_be_reached_is_passed_over() {
    within(|| async {
        let mut world = World::new(|_, _| ok());
        world.connects = Box::new(|port| match port {
            1 => Connect::Refused(MS),
            2 => Connect::Hangs,
            _ => Connect::Done(MS),
        });
        let rig = Rig::new(Setup { backends: 3, ..Setup::default() }, &world.into());
        for _ in 0..6 {
            let mut front = TestFront::new(vec![], Habits::default());
            let end = rig.run(rig.head("GET", BodyLength::None, &[]), &mut front).await;
            assert_eq!((end, &front.told.borrow().heads[..]), (End::Complete, &[200][..]));
        }
        assert!(rig.world.seen().iter().all(|seen| seen.port == 3));
    });
}

#[test]
fn requests_share_connections_and_wait_for_one_that_is_being_made() {
    within(|| async {
        let world =
            World::new(|_, _| vec![Step::After(MS * 100), Step::Head(204, BodyLength::None), Step::End]);
        let rig = std::rc::Rc::new(Rig::new(Setup { backends: 1, ..Setup::default() }, &world.into()));
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let rig = std::rc::Rc::clone(&rig);
                tokio::task::spawn_local(async move {
                    let mut front = TestFront::new(vec![], Habits::default());
                    let end = rig.run(rig.head("GET", BodyLength::None, &[]), &mut front).await;
                    assert_eq!((end, &front.told.borrow().heads[..]), (End::Complete, &[204][..]));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        // Two streams each: four requests at once need two connections, not four.
        assert_eq!((rig.world.seen().len(), rig.world.open.get()), (4, 2));
        let worker = rig.metrics.worker(0);
        assert_eq!((worker.pool_acquires.value(), worker.pool_reuses.value()), (4, 2));
    });
}

#[test]
fn resets_keep_their_meaning_on_their_way_to_the_client() {
    within(|| async {
        let cases = [
            (
                Kind::StreamReset(Reset { reason: ResetReason::Cancelled, code: 0x10c }),
                ResetReason::Cancelled,
            ),
            (
                Kind::StreamReset(Reset { reason: ResetReason::ExcessiveLoad, code: 0x107 }),
                ResetReason::ExcessiveLoad,
            ),
            // A response has begun: the request was processed, whatever the backend says.
            (Kind::StreamReset(Reset { reason: ResetReason::Refused, code: 0x10b }), ResetReason::Fault),
            (Kind::Refused, ResetReason::Fault),
            (Kind::Truncated, ResetReason::Fault),
        ];
        for (kind, told) in cases {
            let world = World::new(move |_, _| {
                vec![
                    Step::Head(200, BodyLength::Unknown),
                    Step::Data(b"half".to_vec()),
                    Step::After(MS),
                    Step::Fail(kind),
                ]
            });
            let rig = Rig::new(Setup::default(), &world.into());
            let mut front = TestFront::new(vec![], Habits::default());
            let end = rig.run(rig.head("GET", BodyLength::None, &[]), &mut front).await;
            let seen = front.told.borrow().clone();
            assert_eq!((end, seen.aborted, seen.ends), (End::Broken, Some(told), 0), "{kind:?}");
            assert_eq!((seen.body, rig.world.seen().len()), (b"half".to_vec(), 1));
        }
    });
}

#[test]
fn the_access_log_says_why_a_client_is_gone() {
    let file = std::env::temp_dir().join(format!("exchange-gone-{}.log", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let log = AccessLog::open(
        LogTarget::File(file.clone()),
        Default::default(),
        lb_observe::metrics::Metrics::new(1),
    )
    .unwrap();
    let cancelled = Gone::Reset(Reset { reason: ResetReason::Cancelled, code: 0x10c });
    let cases = [
        (Gone::Closed, "client_gone"),
        (cancelled, "client_reset"),
        (Gone::GivenUp(Reason::Ping), "ping"),
        (Gone::GivenUp(Reason::ProtocolError), "protocol_error"),
    ];
    within(|| async {
        for (gone, _) in cases {
            // While the backend is waited for, in the body of the request, and in the response.
            for place in 0..3 {
                let world = World::new(move |_, _| match place {
                    2 => vec![Step::Head(200, BodyLength::Unknown), Step::Data(vec![7; 100]), Step::Never],
                    _ => vec![Step::Never],
                });
                let setup = Setup { access_log: Some(log.handle()), ..Setup::default() };
                let rig = Rig::new(setup, &world.into());
                let habits = Habits { leaves: Some((MS * 50, gone)), ..Habits::default() };
                let (method, body) =
                    if place == 1 { ("PUT", BodyLength::Unknown) } else { ("GET", BodyLength::None) };
                let mut front = TestFront::new(vec![], habits);
                assert_eq!(rig.run(rig.head(method, body, &[]), &mut front).await, End::Broken);
                assert!(rig.world.seen()[0].over, "the backend is not told");
                rig.assert_at_rest();
            }
        }
    });
    assert!(log.flush_and_close(Duration::from_secs(20)));
    let text = std::fs::read_to_string(&file).unwrap();
    let _ = std::fs::remove_file(&file);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), cases.len() * 3, "{text}");
    for (line, (gone, reason)) in lines.chunks(3).flatten().zip(cases.iter().flat_map(|case| [case; 3])) {
        assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{gone:?}: {line}");
    }
}

#[test]
fn a_front_refuses_what_it_cannot_read_and_what_breaks_a_limit() {
    within(|| async {
        let rig = Rig::new(Setup::default(), &World::new(|_, _| vec![Step::Never]).into());
        let reject = Reject::new(413, Reason::BodyTooLarge);
        let mut front =
            TestFront::new(vec![Send::Data(vec![1; 10]), Send::Refuse(reject)], Habits::default());
        assert_eq!(rig.run(rig.head("POST", BodyLength::Unknown, &[]), &mut front).await, End::Complete);
        let told = front.told.borrow().clone();
        assert_eq!((told.heads, told.ends, told.last_request), (vec![413], 1, true));

        let mut front = TestFront::new(vec![], Habits::default());
        let head = rig.head("GET", BodyLength::None, &[]);
        let settings = rig.service.settings();
        let reject = Reject::new(431, Reason::HeaderTooLarge);
        let refused =
            std::future::poll_fn(|cx| rig.arrival(&settings).refuse(cx, &head, &mut front, reject)).await;
        assert_eq!((refused, &front.told.borrow().heads[..]), (Ok(()), &[431][..]));
        let rejected = &rig.metrics.worker(0).request_rejected;
        assert_eq!(
            (rejected.of(Reason::BodyTooLarge).value(), rejected.of(Reason::HeaderTooLarge).value()),
            (1, 1)
        );
    });
}

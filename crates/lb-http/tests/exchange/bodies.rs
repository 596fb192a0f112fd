//! Request bodies that are read before a backend is chosen, and those that are sent again.

use std::time::Duration;

use lb_core::failure::ResetReason;
use lb_core::head::BodyLength;
use lb_core::pool::PoolSettings;
use lb_core::retry::{BudgetSettings, Conditions, RetrySettings};
use lb_http::message::Gone;
use lb_http::proxy::End;
use tokio::time::{Instant, sleep};

use crate::back::{Seen, Step, World};
use crate::front::{Habits, Send, TestFront, Told};
use crate::rig::{Rig, Setup};
use crate::within;

const MS: Duration = Duration::from_millis(1);

/// A listener with one route, whose `http` has these keys, and a pool that tries 503 again once.
fn rig(http: &str, world: World) -> Rig {
    let listener = format!("[[listeners.routes]]\npool = \"back\"\nhttp = {{ {http} }}\n");
    let retry = RetrySettings {
        attempts: Some(1),
        conditions: Conditions { statuses: [503].into_iter().collect(), ..Conditions::default() },
        budget: BudgetSettings { percent: 100, min: 100 },
        ..RetrySettings::default()
    };
    let pool = PoolSettings { retry, ..PoolSettings::default() };
    Rig::new(Setup { listener: &listener, pool, ..Setup::default() }, &world.into())
}

fn answer(status: u16) -> Vec<Step> {
    vec![Step::Request, Step::Head(status, BodyLength::Known(0)), Step::End]
}

fn first_and_then(first: u16, then: u16) -> World {
    World::new(move |_, number| answer(if number == 1 { first } else { then }))
}

/// `count` pieces of so many bytes, with a pause of 100 ms before each.
fn slowly(count: usize, bytes: usize) -> Vec<Send> {
    let pieces = (0..count).flat_map(|_| [Send::After(MS * 100), Send::Data(vec![7; bytes])]);
    pieces.chain([Send::End]).collect()
}

async fn send(
    rig: &Rig,
    method: &str,
    length: BodyLength,
    fields: &[(&str, &str)],
    sends: Vec<Send>,
) -> (End, Told, Vec<Seen>) {
    let mut front = TestFront::new(sends, Habits::default());
    let end = rig.run(rig.head(method, length, fields), &mut front).await;
    rig.assert_at_rest();
    let told = front.told.borrow().clone();
    (end, told, rig.world.seen())
}

#[test]
fn a_backend_is_asked_when_the_body_is_here() {
    within(|| async {
        for (length, buffers) in
            [(BodyLength::Unknown, true), (BodyLength::Known(5000), true), (BodyLength::Known(5001), false)]
        {
            let rig = rig("buffer_request_bytes = 5000", first_and_then(200, 200));
            let total = if length == BodyLength::Known(5001) { 5001 } else { 5000 };
            let mut sends = slowly(4, 1000);
            sends.pop();
            sends.extend([Send::After(MS * 100), Send::Data(vec![7; total - 4000]), Send::End]);
            let look = async {
                sleep(MS * 450).await;
                rig.world.seen().len()
            };
            let (early, (end, told, seen)) = tokio::join!(look, send(&rig, "POST", length, &[], sends));
            assert_eq!(
                (early, end, told.heads, seen.len()),
                (usize::from(!buffers), End::Complete, vec![200], 1)
            );
            assert!(seen[0].ended && seen[0].body.len() == total);
            let told = seen[0].field("content-length").map(str::to_owned);
            assert_eq!(told, Some(total.to_string()), "{length:?}");
        }
    });
}

#[test]
fn a_body_that_is_larger_than_what_is_buffered_goes_on_as_it_comes() {
    within(|| async {
        let rig = rig("buffer_request_bytes = 2999", first_and_then(200, 200));
        let look = async {
            sleep(MS * 250).await;
            let before = rig.world.seen().len();
            sleep(MS * 100).await;
            (before, rig.world.seen())
        };
        let ((before, then), (_, told, seen)) =
            tokio::join!(look, send(&rig, "POST", BodyLength::Unknown, &[], slowly(10, 1000)));
        assert_eq!((before, then.len(), then[0].body.len()), (0, 1, 3000));
        assert_eq!((told.heads, seen[0].body.len(), seen[0].ended), (vec![200], 10_000, true));
        assert_eq!(seen[0].field("content-length"), None);
    });
}

#[test]
fn what_was_buffered_is_sent_again_whole() {
    within(|| async {
        // Nothing is kept but what was buffered.
        let http = "buffer_request_bytes = 1000000, replay_bytes = 0";
        for (method, statuses, tries) in [("PUT", vec![200], 2), ("POST", vec![503], 1)] {
            let rig = rig(http, first_and_then(503, 200));
            let mut sends = slowly(3, 300_000);
            sends.insert(6, Send::Trailer("x-sum", "1"));
            let (_, told, seen) = send(&rig, method, BodyLength::Unknown, &[], sends).await;
            assert_eq!((told.heads, seen.len()), (statuses, tries), "{method}");
            assert!(seen.iter().all(|seen| seen.body == vec![7; 900_000] && seen.ended));
            assert!(seen.iter().all(|seen| seen.trailers == [("x-sum".to_owned(), "1".to_owned())]));
        }
        // What was not buffered whole is gone with the first try.
        let rig = rig("buffer_request_bytes = 50000, replay_bytes = 0", first_and_then(503, 200));
        let (_, told, seen) = send(&rig, "PUT", BodyLength::Unknown, &[], slowly(3, 30_000)).await;
        assert_eq!((told.heads, seen.len(), seen[0].body.len()), (vec![503], 1, 90_000));
    });
}

#[test]
fn a_route_says_how_much_can_be_sent_again() {
    within(|| async {
        for (http, length, statuses, tries) in [
            ("replay_bytes = 100000", 100_000, vec![200], 2),
            ("replay_bytes = 100000", 100_001, vec![503], 1),
            ("replay_bytes = 10", 10, vec![200], 2),
            ("replay_bytes = 10", 11, vec![503], 1),
            ("total_timeout_ms = 1000", 16_384, vec![200], 2),
            ("total_timeout_ms = 1000", 16_385, vec![503], 1),
        ] {
            let rig = rig(http, first_and_then(503, 200));
            let pieces = vec![7; length];
            let sends = pieces.chunks(16_000).map(|piece| Send::Data(piece.to_vec())).chain([Send::End]);
            let (_, told, seen) = send(&rig, "PUT", BodyLength::Unknown, &[], sends.collect()).await;
            assert_eq!((told.heads, seen.len()), (statuses, tries), "{http}, {length}");
            assert!(seen.iter().all(|seen| seen.body.len() == length && seen.ended));
        }
    });
}

#[test]
fn a_backend_that_takes_nothing_is_given_one_piece() {
    within(|| async {
        let mut world = World::new(|_, _| vec![Step::Never]);
        world.full = Box::new(|_| true);
        let rig = rig("buffer_request_bytes = 1000000, write_timeout_ms = 500", world);
        let sends = vec![Send::Data(vec![7; 900_000]), Send::End];
        let (_, told, seen) = send(&rig, "POST", BodyLength::Known(900_000), &[], sends).await;
        assert_eq!((told.heads, seen[0].body.len(), seen[0].ended), (vec![504], 65_536, false));
    });
}

#[test]
fn an_answer_that_comes_early_leaves_the_rest_unsent() {
    within(|| async {
        let mut world = World::new(|_, _| vec![Step::Head(200, BodyLength::Known(0)), Step::End]);
        world.full = Box::new(|seen| !seen.body.is_empty());
        let rig = rig("buffer_request_bytes = 1000000", world);
        let sends = vec![Send::Data(vec![7; 900_000]), Send::End];
        let (end, told, seen) = send(&rig, "POST", BodyLength::Known(900_000), &[], sends).await;
        assert_eq!((end, told.heads, seen[0].body.len()), (End::Complete, vec![200], 65_536));
    });
}

#[test]
fn a_client_that_waits_to_be_asked_is_asked_by_the_gateway() {
    within(|| async {
        let rig = rig("buffer_request_bytes = 5000", first_and_then(200, 200));
        let fields = [("expect", "100-continue")];
        let (_, told, seen) = send(&rig, "POST", BodyLength::Known(1000), &fields, slowly(1, 1000)).await;
        assert_eq!((told.interims, told.heads, seen.len()), (vec![100], vec![200], 1));
        assert_eq!(seen[0].field("expect"), None);
        // One whose body is streamed is asked by the backend.
        let (_, told, seen) = send(&rig, "POST", BodyLength::Known(6000), &fields, slowly(1, 6000)).await;
        assert_eq!((told.interims, seen[1].field("expect")), (vec![], Some("100-continue")));
    });
}

#[test]
fn limits_hold_while_a_body_is_buffered() {
    within(|| async {
        let http = "buffer_request_bytes = 5000, max_request_body_bytes = 1500, body_timeout_ms = 150";
        let limited = rig(http, first_and_then(200, 200));
        let (_, told, seen) = send(&limited, "POST", BodyLength::Unknown, &[], slowly(2, 1000)).await;
        assert_eq!((told.heads, told.last_request, seen.len()), (vec![413], true, 0));
        // A client that sends nothing more.
        let start = Instant::now();
        let stuck = vec![Send::Data(vec![7; 10]), Send::After(MS * 1000), Send::End];
        let (_, told, seen) = send(&limited, "POST", BodyLength::Unknown, &[], stuck).await;
        assert_eq!((told.heads, seen.len(), start.elapsed()), (vec![408], 0, MS * 150));
        // And one that leaves.
        let habits = Habits {
            leaves: Some((
                MS * 50,
                Gone::Reset(lb_core::failure::Reset { reason: ResetReason::Cancelled, code: 8 }),
            )),
            ..Habits::default()
        };
        let mut front = TestFront::new(vec![Send::Data(vec![7; 10])], habits);
        let end = limited.run(limited.head("POST", BodyLength::Unknown, &[]), &mut front).await;
        assert_eq!((end, limited.world.seen().len()), (End::Broken, 0));
        limited.assert_at_rest();
    });
}

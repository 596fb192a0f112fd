//! Requests that gateways in a row are sent, and what must hold of each of them whatever happens to it.

use std::rc::Rc;
use std::time::Duration;

use lb_core::failure::ResetReason;
use lb_core::head::BodyLength;
use lb_http::proxy::End;
use tokio::time::{sleep, timeout};

use crate::back::{Seen, World};
use crate::front::{Habits, Send, TestFront, Told};
use crate::rig::Rig;

/// No request of a test may take longer: something would hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request, and what became of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: usize,
    pub(crate) method: &'static str,
    pub(crate) sent: Vec<u8>,
    pub(crate) end: End,
    pub(crate) told: Told,
    /// The most that waited in the front at once.
    pub(crate) most_unread: usize,
    pub(crate) left: bool,
}

/// What a client sends.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: usize,
    pub(crate) method: &'static str,
    pub(crate) body: BodyLength,
    pub(crate) sends: Vec<Send>,
    pub(crate) habits: Habits,
}

impl Call {
    /// A request without a body.
    pub(crate) fn get(id: usize) -> Self {
        Self { id, method: "GET", body: BodyLength::None, sends: Vec::new(), habits: Habits::default() }
    }

    /// A request with a body in one piece.
    pub(crate) fn post(id: usize, length: usize) -> Self {
        let sends = vec![Send::Data(pattern(id, length)), Send::End];
        let body = BodyLength::Known(length as u64);
        Self { id, method: "POST", body, sends, habits: Habits::default() }
    }

    fn bytes(&self) -> Vec<u8> {
        let of = |send: &Send| if let Send::Data(bytes) = send { bytes.clone() } else { Vec::new() };
        self.sends.iter().flat_map(of).collect()
    }
}

/// Bytes that tell to which message they belong, and where in it.
pub(crate) fn pattern(of: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (of.wrapping_mul(89).wrapping_add(at.wrapping_mul(31)).wrapping_add(at >> 8) % 251) as u8)
        .collect()
}

/// The request that an origin sees.
pub(crate) fn id_of(seen: &Seen) -> usize {
    seen.field("x-id").unwrap().parse().unwrap()
}

/// Runs a request through a gateway to its end.
pub(crate) async fn run(near: &Rig, call: Call) -> Done {
    let sent = call.bytes();
    let head = near.head(call.method, call.body, &[("x-id", &call.id.to_string())]);
    let left = call.habits.leaves.is_some();
    let mut front = TestFront::new(call.sends, call.habits);
    let running = near.run(head, &mut front);
    let Ok(end) = timeout(PATIENCE, running).await else { panic!("request {} hangs", call.id) };
    let told = front.told.borrow().clone();
    let most_unread = front.unread.borrow().most;
    Done { id: call.id, method: call.method, sent, end, told, most_unread, left }
}

/// Runs requests, each of which begins after a time, at once; `run` runs one.
pub(crate) async fn run_all<F: Future<Output = Done> + 'static>(
    calls: Vec<(Duration, Call)>,
    run: impl Fn(Call) -> F + 'static,
) -> Vec<Done> {
    let run = Rc::new(run);
    let start = |(after, call)| {
        let run = Rc::clone(&run);
        tokio::task::spawn_local(async move {
            sleep(after).await;
            run(call).await
        })
    };
    let tasks: Vec<_> = calls.into_iter().map(start).collect();
    let mut done = Vec::new();
    for task in tasks {
        match task.await {
            Ok(one) => done.push(one),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    done
}

/// Checks what must hold of every request whatever happens to it.
pub(crate) fn check_all(done: &[Done], world: &World) {
    let seen = world.seen();
    for one in done {
        check_answer(one, &seen);
        check_origins(one, &seen);
    }
}

/// A request was answered at most once, and what the client takes for whole is whole.
fn check_answer(one: &Done, seen: &[Seen]) {
    let told = &one.told;
    assert!(told.heads.len() <= 1 && told.ends <= 1, "answered twice: {one:?}");
    match one.end {
        End::Complete => {
            assert!(
                told.heads.len() == 1 && told.ends == 1 && told.aborted.is_none(),
                "half an answer: {one:?}"
            );
        }
        End::Broken => {
            let cut = told.aborted.is_some();
            assert!(one.left || cut, "nobody has ended it: {one:?}");
            assert!(told.ends == 0 || !cut, "taken for whole: {one:?}");
        }
    }
    assert_ne!(told.aborted, Some(ResetReason::Refused), "the client may not take it for unprocessed");
    let Some(number) = told.number else { return };
    let origin = &seen[number - 1];
    assert_eq!(id_of(origin), one.id, "the answer of another request");
    let expected = pattern(number, told.body.len());
    assert!(told.body == expected, "other bytes than the origin's, of {}: {:?}", told.body.len(), one.end);
    if told.ends == 1 {
        let ended = origin.answered || origin.announced == Some(origin.given);
        assert!(ended, "an answer is taken for whole that the origin has not ended: {one:?}");
        assert_eq!(told.body.len(), origin.given, "a part is missing");
    }
}

/// The request reached origins as often as it may, as it was.
fn check_origins(one: &Done, seen: &[Seen]) {
    let mine: Vec<&Seen> = seen.iter().filter(|seen| id_of(seen) == one.id).collect();
    let processed = mine.iter().filter(|seen| !seen.refused).count();
    if one.method == "POST" {
        assert!(processed <= 1, "sent {processed} times: {one:?} {mine:?}");
    }
    assert!(mine.len() <= 24, "sent {} times", mine.len());
    for seen in mine {
        assert_eq!(seen.method, one.method);
        assert!(one.sent.starts_with(&seen.body), "another body than the client's");
        assert!(!seen.ended || seen.body == one.sent, "a part of the body is taken for the whole");
    }
}

/// Runs a test for each of these seeds, or for the one that the environment names; the first that fails is named.
pub(crate) fn each_seed<F: Future<Output = ()>>(name: &str, count: u64, test: impl Fn(u64) -> F) {
    let one = std::env::var("EG_PAIR_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let count = std::env::var("EG_PAIR_SEEDS").map_or(count, |count| count.parse().unwrap());
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| crate::within(|| test(seed))));
        if let Err(panic) = result {
            println!("{name}: seed {seed} fails; EG_PAIR_SEED={seed} with this test's name runs it alone");
            std::panic::resume_unwind(panic);
        }
    }
}

//! Connections between the gateways that break at each byte of each direction.

use std::rc::Rc;
use std::time::Duration;

use lb_core::head::BodyLength;
use lb_core::pool::PoolSettings;
use lb_http::proxy::End;

use super::Pair;
use crate::back::{Connect, Step, World};
use crate::call::{Call, Done, pattern};
use crate::wire::{Cut, Shape};
use crate::within;

const MS: Duration = Duration::from_millis(1);

/// An answer with everything that an answer can have.
fn answer(number: usize) -> Vec<Step> {
    let length = if number.is_multiple_of(2) { BodyLength::Known(90) } else { BodyLength::Unknown };
    let body = pattern(number, 90);
    let mut steps = vec![Step::Request, Step::Head(200, length), Step::Data(body[..50].to_vec())];
    steps.extend([Step::After(MS * 3), Step::Data(body[50..].to_vec())]);
    if length == BodyLength::Unknown {
        steps.push(Step::Trailer("x-sum", "90"));
    }
    steps.push(Step::End);
    steps
}

/// Runs requests at once and one after the other, over connections of which the first breaks. Returns how they ended, or nothing when the
/// first connection has not carried as many bytes.
async fn run(protocol: &'static str, cut: Cut) -> (Vec<Done>, bool) {
    let broke = Rc::new(std::cell::Cell::new(false));
    let world = World::new(|_, number| answer(number));
    let seen = Rc::clone(&broke);
    let net = move |_, number| {
        seen.set(number > 0);
        let cut = (number == 0).then_some(cut);
        (Connect::Done(MS), Shape { cut, seed: cut.map_or(0, |cut| cut.after), ..Shape::default() })
    };
    let pair = Pair::new(protocol, 1, PoolSettings::default(), world, Box::new(net));
    let calls = [
        (0, Call::get(0)),
        (30, Call::post(1, 120)),
        (60, Call::get(2)),
        (90, Call::post(3, 40)),
        (120, Call::get(4)),
    ];
    let done = pair.run_all(calls.map(|(at, call)| (MS * at, call)).into()).await;
    pair.check(&done).await;
    (done, broke.get())
}

fn each_byte(protocol: &'static str, of_client: bool) {
    for by_reset in [true, false] {
        let mut runs = 0;
        for after in 0.. {
            let cut = Cut { of_client, after, by_reset };
            let (done, broke) = within(|| run(protocol, cut));
            if !broke {
                break;
            }
            runs += 1;
            for one in &done {
                let (told, status) = (&one.told, one.told.heads.first());
                let whole = one.end == End::Complete && status == Some(&200);
                // What was lost before its answer began is sent again where it may be.
                let cut = one.end == End::Broken && told.aborted.is_some() && status == Some(&200);
                let may_fail = one.method == "POST" && status == Some(&502);
                assert!(whole || cut || may_fail, "{protocol}, {cut:?}: {one:?}");
            }
            let failed = done.iter().filter(|one| one.told.ends == 0 || one.told.heads != [200]).count();
            assert!(failed <= 1, "{protocol}, {cut:?}: one connection has cost {failed} requests: {done:?}");
        }
        assert!(runs > 500, "{protocol}, client {of_client}: {runs} bytes have passed");
    }
}

#[test]
fn h1_breaks_at_each_byte_of_its_requests() {
    each_byte("h1", true);
}

#[test]
fn h1_breaks_at_each_byte_of_its_responses() {
    each_byte("h1", false);
}

#[test]
fn h2_breaks_at_each_byte_of_its_requests() {
    each_byte("h2", true);
}

#[test]
fn h2_breaks_at_each_byte_of_its_responses() {
    each_byte("h2", false);
}

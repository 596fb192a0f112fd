//! What the gateways hold of a body whose reader does not read, over a network that loses.

use std::time::Duration;

use lb_core::failure::{Reset, ResetReason};
use lb_core::head::BodyLength;
use lb_core::pool::PoolSettings;
use lb_http::message::Gone;
use lb_http::proxy::End;

use crate::back::{Step, World};
use crate::call::{Call, id_of, pattern};
use crate::chance::Dice;
use crate::front::{Habits, Send};
use crate::gateways::{Gateways, Manners};
use crate::network::{Network, Weather};
use crate::within;

const MS: Duration = Duration::from_millis(1);

/// The most of one message that both gateways and the network between them hold: the window of its stream, and one read in each direction of
/// each gateway.
const MOST: usize = 1024 * 1024;

const BODY: usize = 8 * 1024 * 1024;

fn network() -> std::rc::Rc<Network> {
    let weather = Weather { lost: 2, repeated: 2, late: 10, late_by: MS * 5, ..Weather::default() };
    Network::new(weather, &Dice::new(7))
}

#[test]
fn a_response_that_is_not_read_is_not_gathered() {
    within(|| async {
        let world = World::new(|_, number| {
            let body = pattern(number, BODY);
            let mut steps = vec![Step::Head(200, BodyLength::Known(BODY as u64))];
            steps.extend(body.chunks(50_000).map(|piece| Step::Data(piece.to_vec())));
            steps.push(Step::End);
            steps
        });
        let gateways = Gateways::new(1, PoolSettings::default(), world, network(), Manners::default());
        let cancelled = Gone::Reset(Reset { reason: ResetReason::Cancelled, code: 0 });
        // One takes nothing, until it leaves; one takes a little at a time.
        let stuck = Habits {
            gulp: 1,
            pause: MS * 100_000,
            leaves: Some((MS * 2000, cancelled)),
            ..Habits::default()
        };
        let slow = Habits { gulp: 100_000, pause: MS * 50, ..Habits::default() };
        let calls = vec![
            (MS, Call { habits: stuck, ..Call::get(0) }),
            (MS, Call { habits: slow, ..Call::get(1) }),
            (MS * 20, Call::get(2)),
        ];
        let done = gateways.run_all(calls).await;
        assert_eq!((done[0].end, done[1].end, done[2].end), (End::Broken, End::Complete, End::Complete));
        assert_eq!((done[1].told.body.len(), done[2].told.body.len()), (BODY, BODY));
        let taken = done[0].told.body.len();
        let seen = gateways.world.seen();
        let given = seen.iter().find(|seen| id_of(seen) == 0).unwrap().given;
        assert!(given - taken <= MOST, "{given} bytes were taken of the origin, and {taken} given on");
        assert!(done.iter().all(|one| one.most_unread <= 256 * 1024), "a front was given too much at once");
        gateways.check(&done).await;
    });
}

#[test]
fn an_upload_that_is_not_read_is_not_gathered() {
    within(|| async {
        let mut world = World::new(|_, number| {
            vec![
                Step::Request,
                Step::Head(200, BodyLength::Known(3)),
                Step::Data(pattern(number, 3)),
                Step::End,
            ]
        });
        world.full = Box::new(|seen| id_of(seen) == 0 && !seen.body.is_empty());
        let gateways = Gateways::new(1, PoolSettings::default(), world, network(), Manners::default());
        let upload = |id| {
            let body = pattern(id, BODY);
            let mut sends: Vec<Send> = body.chunks(50_000).map(|piece| Send::Data(piece.to_vec())).collect();
            sends.push(Send::End);
            Call { sends, body: BodyLength::Known(BODY as u64), ..Call::post(id, 0) }
        };
        let done = gateways.run_all(vec![(MS, upload(0)), (MS, upload(1))]).await;
        assert_eq!(done[1].told.heads, [200], "{:?}", done[1].told);
        let seen = gateways.world.seen();
        let of = |id| seen.iter().find(|seen| id_of(seen) == id).unwrap();
        assert_eq!((of(1).body.len(), of(1).ended, of(0).ended), (BODY, true, false));
        let (given, taken) = (done[0].told.uploaded, of(0).body.len());
        assert!(given - taken <= MOST, "{given} bytes were taken of the client, and {taken} given on");
        // The far gateway gives up first, as it stands next to the origin.
        assert_eq!(done[0].told.heads, [504]);
        gateways.check(&done).await;
    });
}

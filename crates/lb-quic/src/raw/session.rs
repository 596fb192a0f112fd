//! A turn of the two connections of a client, whichever of them has it.

use std::time::Instant;

use lb_io::{Phase, WorkerIo};
use lb_observe::metrics::RelayEnd;

use super::back::Back;
use super::datagrams;
use super::end::{Close, Ending, NO_ERROR, STREAM_LIMIT};
use super::front::{Front, State};
use super::half::Way;
use super::relay::Pair;
use crate::connection::Connection;

/// Lets both connections make progress. `own` is that which has the turn: the one of the client for [`Way::Up`].
pub(super) fn turn(
    front: &mut Connection<Front>,
    back: &mut Connection<Back>,
    own: Way,
    io: &WorkerIo,
    now: Instant,
) {
    let (mut says_front, mut says_back) = (false, false);
    {
        let app = &mut front.app;
        let pair = &mut Pair {
            front: &mut front.quic,
            back: &mut back.quic,
            holds: [&mut front.holding, &mut back.holding],
        };
        if let State::Open | State::Ending(_) = app.state {
            let moved = app.relay.turn(pair, io, now);
            let counters = app.relay.counters();
            let up = datagrams::pass(pair, Way::Up, counters);
            let down = datagrams::pass(pair, Way::Down, counters);
            (says_front, says_back) = (moved.front | down, moved.back | up);
        }
        if let State::Open = app.state {
            if let Some(pulse) = &mut app.pulse
                && pulse.look(pair, now)
            {
                (says_front, says_back) = (true, true);
            }
            look_for_end(app, pair, now);
        }
        if let State::Ending(ending) = &mut app.state {
            ending.look_again(now);
            let ending = ending.clone();
            let other = ending.way.other();
            let is_gone = Ending::of(pair.to(ending.way), other, now).is_some();
            if is_gone || ending.is_late(now) || app.relay.is_delivered(pair, ending.way, now) {
                ending.close.tell(pair.to(ending.way));
                finish(app, ending.why, &ending.close);
                (says_front, says_back) = (true, true);
            }
        }
        back.app.look = match &app.state {
            State::Ending(ending) => Some(ending.look),
            _ => None,
        };
    }
    match own {
        Way::Up => {
            front.speaks();
            if says_back {
                back.said();
            }
        }
        Way::Down => {
            back.speaks();
            if says_front {
                front.said();
            }
        }
    }
}

/// Whether either connection has ended, or both are to.
fn look_for_end(app: &mut Front, pair: &mut Pair<'_>, now: Instant) {
    let ended = Way::BOTH.into_iter().find_map(|way| Ending::of(pair.from(way), way, now));
    if let Some(ending) = ended {
        let round_trip =
            pair.to(ending.way).path_stats().next().map_or_else(Default::default, |path| path.rtt);
        app.state = State::Ending(ending.begin(round_trip, now));
        return;
    }
    // A protocol that is not known has no word for a farewell: a connection that has no stream is left, and others are given their time.
    let is_over = match app.phase() {
        Phase::Serving => false,
        Phase::Draining => app.is_asked() && app.relay.open() == 0 && app.relay.is_all_delivered(pair, now),
        Phase::Farewell | Phase::Abort => true,
    };
    let (why, close) = if is_over {
        (RelayEnd::Drained, Close::of_transport(NO_ERROR, "the gateway drains"))
    } else if app.relay.is_exhausted(app.most_streams) {
        (RelayEnd::Streams, Close::of_transport(STREAM_LIMIT, "too many streams were given up"))
    } else {
        return;
    };
    close.tell(pair.front);
    close.tell(pair.back);
    finish(app, why, &close);
}

/// The relay is over.
pub(super) fn finish(app: &mut Front, why: RelayEnd, close: &Close) {
    app.state = State::Closed;
    app.relay.counters().relay().ended.of(why).inc();
    tracing::debug!(
        client = %app.address,
        why = lb_observe::metrics::Label::name(why),
        of_application = close.is_app,
        code = close.code,
        reason = %String::from_utf8_lossy(&close.reason),
        "a relay of QUIC has ended"
    );
}

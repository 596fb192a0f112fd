//! Everything at once, by chance: requests of all kinds, backends that fail in all ways, slow peers, limits, hedges, broken connections, and
//! pieces of any size.

use std::rc::Rc;
use std::time::Duration;

use lb_core::pool::PoolSettings;
use lb_http::proxy::End;
use lb_io::Phase;
use tokio::time::sleep;

use super::{Net, Pair};
use crate::back::{Connect, World};
use crate::call::each_seed;
use crate::chance::{Dice, Malice, answer, call, pool};
use crate::wire::{Cut, Shape};

const MS: Duration = Duration::from_millis(1);

/// Connections of the world, slow ones where messages are `short`.
fn net(dice: &Dice, malice: Malice, short: bool) -> Box<Net> {
    let dice = dice.clone();
    let piece = dice.of(&[5, 100, 1460, usize::MAX]);
    let (latency, capacity) = match short {
        true => (dice.ms(1), 64),
        false => (dice.ms(25), dice.of(&[16_384, 65_536])),
    };
    Box::new(move |_, number| {
        let connect = match dice.percent(malice.connects) {
            true => dice.of(&[Connect::Refused(dice.ms(20)), Connect::Hangs]),
            false => Connect::Done(dice.ms(20)),
        };
        let cut = dice.percent(malice.cuts).then(|| Cut {
            of_client: dice.percent(50),
            after: dice.below(3000) as u64,
            by_reset: dice.percent(50),
        });
        (connect, Shape { latency, piece, capacity, cut, seed: number })
    })
}

async fn run(protocol: &'static str, seed: u64) {
    let dice = Dice::new(seed);
    let malice = Malice::of(&dice);
    let (fars, short) = (1 + dice.below(3), dice.percent(30));
    let (of_answers, at_origins) = (dice.clone(), malice);
    let mut world = World::new(move |_, number| answer(&of_answers, at_origins, short, number));
    let of_connects = dice.clone();
    world.connects = Box::new(move |_| match of_connects.percent(at_origins.connects / 2) {
        true => Connect::Refused(MS),
        false => Connect::Done(of_connects.ms(10)),
    });
    world.streams = 2 + dice.below(4);
    let pair = Pair::new(protocol, fars as u16, pool(&dice), world, net(&dice, malice, short));
    for _ in 0..128 {
        // Without enough responses to go by nothing is hedged.
        pair.near.pool.record_latency(dice.ms(60));
    }
    let calls: Vec<_> =
        (0..1 + dice.below(16)).map(|id| (dice.ms(400), call(&dice, malice, short, id))).collect();
    let drains = dice.percent(malice.drains);
    if drains {
        let (far, at, abort) = (Rc::clone(&pair.fars[0]), dice.ms(400), dice.percent(50));
        tokio::task::spawn_local(async move {
            sleep(at).await;
            far.closed.set(true);
            let connections = &far.rig.service.connections;
            connections.advance(Phase::Draining);
            connections.keys().into_iter().for_each(|key| connections.ask(key));
            sleep(MS * 300).await;
            connections.advance(if abort { Phase::Abort } else { Phase::Farewell });
            connections.wake_all();
        });
    }
    let done = pair.run_all(calls).await;
    pair.check(&done).await;
}

/// Nothing is wrong, however the bytes are cut up: every request is answered as if there were no gateways.
async fn run_calm(protocol: &'static str, seed: u64) {
    let dice = Dice::new(seed);
    let (of_answers, short) = (dice.clone(), dice.percent(30));
    let world = World::new(move |_, number| answer(&of_answers, Malice::default(), short, number));
    let fars = 1 + dice.below(3) as u16;
    let pair =
        Pair::new(protocol, fars, PoolSettings::default(), world, net(&dice, Malice::default(), short));
    let calls: Vec<_> =
        (0..1 + dice.below(12)).map(|id| (dice.ms(200), call(&dice, Malice::default(), short, id))).collect();
    let done = pair.run_all(calls).await;
    for one in &done {
        assert_eq!((one.end, &one.told.heads[..]), (End::Complete, &[200][..]), "{one:?}");
    }
    assert_eq!(pair.world.seen().len(), done.len(), "a request was sent twice");
    pair.check(&done).await;
}

#[test]
fn h1_chaos() {
    each_seed("h1_chaos", 400, |seed| run("h1", seed));
}

#[test]
fn h2_chaos() {
    each_seed("h2_chaos", 400, |seed| run("h2", seed));
}

#[test]
fn h1_calm() {
    each_seed("h1_calm", 150, |seed| run_calm("h1", seed));
}

#[test]
fn h2_calm() {
    each_seed("h2_calm", 150, |seed| run_calm("h2", seed));
}

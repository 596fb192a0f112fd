//! Requests of all kinds by chance, over networks that lose, repeat and delay.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use lb_core::pool::PoolSettings;
use lb_http::proxy::End;
use lb_io::Phase;
use tokio::time::sleep;

use crate::back::{Connect, World};
use crate::call::each_seed;
use crate::chance::{Dice, Malice, answer, call, pool};
use crate::gateways::{Gateways, Manners};
use crate::network::{Fates, Network, Weather};

const MS: Duration = Duration::from_millis(1);

/// A network through which everything comes in the end, if it is sent again often enough.
fn weather(dice: &Dice, worst: usize) -> Weather {
    let some = |most: usize| if dice.percent(60) { dice.below(most + 1) } else { 0 };
    Weather {
        lost: some(worst),
        repeated: some(20),
        late: some(40),
        late_by: dice.ms(60),
        latency: dice.ms(25),
        largest: dice.of(&[1200, 1252, 1350, 1472, 9000]),
        outage: None,
        moves: Vec::new(),
    }
}

fn manners(dice: &Dice) -> Manners {
    let max_requests = if dice.percent(40) { 1 + dice.below(6) as u32 } else { 0 };
    Manners { max_requests, retry: dice.percent(20) }
}

/// Origins, clients and the network are out to get the gateways.
async fn run(seed: u64) -> Fates {
    let dice = Dice::new(seed);
    let malice = Malice::of(&dice);
    let fars = 1 + dice.below(3) as u16;
    let (of_answers, at_origins) = (dice.clone(), malice);
    let mut world = World::new(move |_, number| answer(&of_answers, at_origins, false, number));
    let of_connects = dice.clone();
    world.connects = Box::new(move |_| match of_connects.percent(at_origins.connects / 2) {
        true => Connect::Refused(MS),
        false => Connect::Done(of_connects.ms(10)),
    });
    world.streams = 2 + dice.below(4);
    let mut weather = weather(&dice, 40);
    if dice.percent(malice.connects) {
        weather.outage = Some((dice.ms(500), dice.ms(8000)));
    }
    weather.moves = (0..if dice.percent(40) { dice.below(4) } else { 0 }).map(|_| dice.ms(1500)).collect();
    let network = Network::new(weather, &dice);
    let gateways = Gateways::new(fars, pool(&dice), world, network, manners(&dice));
    for _ in 0..128 {
        // Without enough responses to go by nothing is hedged.
        gateways.near.pool.record_latency(dice.ms(60));
    }
    let calls: Vec<_> =
        (0..1 + dice.below(16)).map(|id| (dice.ms(400), call(&dice, malice, false, id))).collect();
    if dice.percent(malice.drains) {
        let (own, at, abort) = (Rc::clone(&gateways), dice.ms(400), dice.percent(50));
        tokio::task::spawn_local(async move {
            sleep(at).await;
            let connections = Rc::clone(&own.fars[0].rig.service.connections);
            connections.advance(Phase::Draining);
            connections.keys().into_iter().for_each(|key| connections.ask(key));
            sleep(MS * 300).await;
            own.fars[0].advance(if abort { Phase::Abort } else { Phase::Farewell });
        });
    }
    let done = gateways.run_all(calls).await;
    let fates = gateways.network.fates.get();
    gateways.check(&done).await;
    fates
}

/// Only the network is bad: every request is answered as if there were neither gateways nor network.
async fn run_calm(seed: u64) -> Fates {
    let dice = Dice::new(seed);
    let of_answers = dice.clone();
    let world = World::new(move |_, number| answer(&of_answers, Malice::default(), false, number));
    let mut weather = weather(&dice, 5);
    let manners = manners(&dice);
    // Clients that move during a handshake lose it (RFC 9000 §9), and connections that are replaced have some at any time.
    let moves = if manners.max_requests == 0 && dice.percent(40) { dice.below(3) } else { 0 };
    weather.moves = (0..moves).map(|_| MS * 1500 + dice.ms(1500)).collect();
    let network = Network::new(weather, &dice);
    let gateways = Gateways::new(1 + dice.below(3) as u16, PoolSettings::default(), world, network, manners);
    let calls: Vec<_> =
        (0..1 + dice.below(12)).map(|id| (dice.ms(200), call(&dice, Malice::default(), false, id))).collect();
    let done = gateways.run_all(calls).await;
    for one in &done {
        let is_whole = one.end == End::Complete && one.told.heads == [200];
        assert!(is_whole, "{:?} {manners:?} {:?} {one:?}", gateways.network.weather, gateways.reasons());
    }
    assert_eq!(gateways.world.seen().len(), done.len(), "a request was sent twice");
    let fates = gateways.network.fates.get();
    gateways.check(&done).await;
    fates
}

/// Runs a test for seeds, and checks that their networks were as bad as they were to be.
fn each<F: Future<Output = Fates>>(name: &str, count: u64, test: impl Fn(u64) -> F) {
    let sum = Cell::new(Fates::default());
    each_seed(name, count, |seed| {
        let (test, sum) = (test(seed), &sum);
        async move {
            let (Fates { sent, lost, repeated, overtaken, moved }, so_far) = (test.await, sum.get());
            sum.set(Fates {
                sent: so_far.sent + sent,
                lost: so_far.lost + lost,
                repeated: so_far.repeated + repeated,
                overtaken: so_far.overtaken + overtaken,
                moved: so_far.moved + moved,
            });
        }
    });
    let sum = sum.get();
    println!("{name}: {sum:?}");
    let is_bad = sum.lost * 100 > sum.sent && sum.repeated * 100 > sum.sent && sum.overtaken * 100 > sum.sent;
    assert!(is_bad || count < 100 || std::env::var("EG_PAIR_SEED").is_ok(), "a good network: {sum:?}");
}

#[test]
fn h3_chaos() {
    each("h3_chaos", 300, run);
}

#[test]
fn h3_calm() {
    each("h3_calm", 150, run_calm);
}

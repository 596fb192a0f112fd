//! The decisions together, over virtual time: balancing, health checks, ejection, limits, retries and hedges in front of backends that
//! fail, slow down, flap, and do so together.
//!
//! Everything follows from a seed. A seed that fails is printed, and `EG_SIM_SEED=n` runs it alone. The promises are checked as the
//! events happen: nobody is picked who is ejected, unhealthy or draining outside panic; whoever can take a request is found; ejections leave enough
//! in service; tries on top stay within the budget, at once and in all; nothing is repeated that must not be; queues are
//! bounded; every request ends once, and then nothing is counted as under way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print what a run came to"
)]

mod adaptive;
mod gateway;
mod simulation;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use lb_core::balance::Policy;

use simulation::{Report, Simulation};
use world::{Fault, Mode, WELL_FROM, World};

const SEEDS: u64 = 256;

#[test]
fn promises_hold_whatever_happens() {
    let only =
        std::env::var("EG_SIM_SEED").ok().map(|seed| seed.parse::<u64>().expect("EG_SIM_SEED: a number"));
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut sum = Report::default();
    for seed in seeds {
        let run = || {
            let report = Simulation::run(World::drawn(seed));
            let late = report.failed.iter().filter(|began| **began >= WELL_FROM).count();
            assert_eq!(late, 0, "requests failed long after the last fault");
            report
        };
        let Ok(report) = catch_unwind(AssertUnwindSafe(run)) else {
            panic!("seed {seed} breaks a promise; EG_SIM_SEED={seed} runs it alone");
        };
        sum.requests += report.requests;
        sum.failed.extend(report.failed);
        sum.waited += report.waited;
        sum.refused_for_room += report.refused_for_room;
        sum.taken += report.taken;
        sum.hedges += report.hedges;
        sum.ejections += report.ejections;
        sum.health_changes += report.health_changes;
        sum.panic_picks += report.panic_picks;
    }
    println!(
        "{} requests, {} failed, {} waited, {} found no room, {} tries and hedges from the budget ({} hedges), {} ejections, \
         {} changes of health, {} picks in panic",
        sum.requests,
        sum.failed.len(),
        sum.waited,
        sum.refused_for_room,
        sum.taken,
        sum.hedges,
        sum.ejections,
        sum.health_changes,
        sum.panic_picks
    );
    if only.is_none() {
        // All that is promised about was there to be tested.
        let seen = [sum.waited, sum.refused_for_room, sum.taken - sum.hedges, sum.hedges, sum.ejections];
        assert!(seen.iter().chain([&sum.health_changes, &sum.panic_picks]).all(|count| *count > 1000));
        assert!(sum.failed.len() > 1000);
    }
}

#[test]
fn a_seed_replays() {
    for seed in 0..4 {
        assert_eq!(Simulation::run(World::drawn(seed)), Simulation::run(World::drawn(seed)));
    }
    assert_ne!(Simulation::run(World::drawn(1)).digest, Simulation::run(World::drawn(2)).digest);
}

fn from_to(mode: Mode, from: u64, until: u64) -> Fault {
    let seconds = Duration::from_secs;
    Fault { from: seconds(from), until: seconds(until), mode, flaps_each: None }
}

#[test]
fn a_backend_that_dies_costs_nothing_and_is_soon_left_alone() {
    for policy in [Policy::RoundRobin, Policy::P2cEwma, Policy::Maglev] {
        let mut world = World::calm(1, policy, 4);
        world.backends[0].faults.push(from_to(Mode::Down, 100, 1100));
        let report = Simulation::run(world);
        assert_eq!(report.failed, [], "{policy:?}");
        // In 1000 seconds it would have had 5000 of 20,000 requests.
        let others = report.tries_at[1..].iter().sum::<u64>() / 3;
        assert!(report.tries_at[0] < others * 3 / 4, "{policy:?}: {:?}", report.tries_at);
        assert!(report.tries < report.requests + 50, "{policy:?}: {} more", report.tries - report.requests);
    }
}

#[test]
fn c_05_a_storm_of_503_adds_no_more_than_the_budget() {
    let mut world = World::calm(2, Policy::RoundRobin, 4);
    world.tries = 10;
    world.budget.min = 0;
    for backend in &mut world.backends {
        backend.faults.push(from_to(Mode::Errors(100), 100, 1500));
    }
    let report = Simulation::run(world);
    assert!(report.failed.len() as u64 > report.requests / 2);
    assert!(report.tries <= report.requests * 120 / 100, "{} for {}", report.tries, report.requests);
}

#[test]
fn a_slow_backend_is_ejected_and_hedges_hide_it_until_then() {
    let slowest = |percentile: u32, factor: u32| {
        let mut world = World::calm(3, Policy::RoundRobin, 4);
        world.backends[2].faults.push(from_to(Mode::Slow(30), 100, 1500));
        world.hedge.percentile = percentile;
        world.analysis.latency_factor_percent = factor;
        world.tries = 1;
        let mut report = Simulation::run(world);
        report.times.sort();
        (report.times[report.times.len() * 85 / 100], report)
    };
    let (bare, report) = slowest(0, 0);
    assert_eq!(report.ejections, 0);
    assert!(bare >= Duration::from_millis(150), "{bare:?}: a quarter is slow for most of the time");
    let (ejected, report) = slowest(0, 500);
    assert!(report.ejections > 5 && ejected < Duration::from_millis(20), "{ejected:?}, {}", report.ejections);
    let (hedged, report) = slowest(50, 0);
    assert!(report.hedges > 100 && hedged < bare, "{hedged:?}, {}", report.hedges);
    assert!(report.taken <= report.requests * 20 / 100 + 2 * 3 * 2002);
}

#[test]
fn a_fault_that_all_share_ejects_no_more_than_may_be_out_and_passes() {
    let mut world = World::calm(4, Policy::LeastRequest, 6);
    for backend in &mut world.backends {
        backend.faults.push(from_to(Mode::Errors(70), 200, 400));
    }
    let report = Simulation::run(world);
    assert!(report.panic_picks > 0 && report.ejections > 0);
    let last = report.failed.iter().max().unwrap();
    assert!(*last < Duration::from_secs(401), "{last:?}: well as soon as the backends are");
}

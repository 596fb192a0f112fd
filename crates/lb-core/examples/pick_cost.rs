//! What a pick costs under each policy, and what an update costs, with a thousand members (or as many as the first argument says).
//!
//! `cargo run --release -p lb-core --example pick_cost`
//!
//! The numbers are medians of rounds. "pick" is the pick alone, with a new key each time; "request" is a pick, a begin and the end of
//! the request 64 picks before, as a worker with 64 live requests has it. "refused" is a pick where every fourth member is refused.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use lb_core::balance::{BalanceSettings, Balancer, MemberSpec, MemberState, Policy, RequestOutcome, hash};

const POLICIES: [(Policy, &str, Option<f64>); 9] = [
    (Policy::RoundRobin, "round_robin", Some(15.0)),
    (Policy::Random, "random", None),
    (Policy::LeastConnections, "least_connections", None),
    (Policy::LeastRequest, "least_request", None),
    (Policy::P2c, "p2c", None),
    (Policy::P2cEwma, "p2c_ewma", Some(60.0)),
    (Policy::Maglev, "maglev", Some(25.0)),
    (Policy::RingHash, "ring_hash", Some(80.0)),
    (Policy::Rendezvous, "rendezvous", None),
];

const ROUNDS: usize = 25;
const LIVE: usize = 64;

fn main() -> std::io::Result<()> {
    let members = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1000);
    let mut out = std::io::stdout().lock();
    for mixed in [false, true] {
        let weights = if mixed { "weights 1 to 5" } else { "equal weights" };
        writeln!(out, "{members} members, {weights}; nanoseconds, updates in microseconds")?;
        writeln!(
            out,
            "{:<18} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9}",
            "policy", "pick", "target", "request", "refused", "new", "health", "weight"
        )?;
        for (policy, name, target) in POLICIES {
            let costs = measure(policy, members, mixed);
            let target = target.map_or_else(String::new, |target| format!("{target:.0}"));
            writeln!(
                out,
                "{name:<18} {:>8.1} {target:>8} {:>8.1} {:>8.1} {:>9.0} {:>9.0} {:>9.0}",
                costs.pick, costs.request, costs.refused, costs.new, costs.health, costs.weight
            )?;
        }
    }
    Ok(())
}

struct Costs {
    pick: f64,
    request: f64,
    refused: f64,
    new: f64,
    health: f64,
    weight: f64,
}

fn measure(policy: Policy, members: usize, mixed: bool) -> Costs {
    let now = Instant::now();
    let weight = |at: usize| if mixed { 1 + at as u32 % 5 } else { 1 };
    let specs: Vec<MemberSpec> = (0..members)
        .map(|at| MemberSpec {
            identity: hash::bytes(format!("10.0.{}.{}:80", at / 256, at % 256).as_bytes()),
            weight: weight(at),
            priority: 0,
        })
        .collect();
    let settings = BalanceSettings { policy, ..BalanceSettings::default() };
    let mut balancer = Balancer::new(settings.clone(), &specs, 1, now);
    let picks: usize = match policy {
        Policy::Rendezvous => 2_000,
        _ => 200_000,
    };
    let keys: Vec<u64> = (0..picks as u64).map(|number| hash::bytes(&number.to_le_bytes())).collect();

    let pick = median(picks, || {
        for &key in &keys {
            black_box(balancer.pick(now, Some(key), |_| true));
        }
    });
    let refused = median(picks, || {
        for &key in &keys {
            black_box(balancer.pick(now, Some(key), |at| at % 4 != 0));
        }
    });
    let mut live = [None; LIVE];
    let mut clock = now;
    let request = median(picks, || {
        for (number, &key) in keys.iter().enumerate() {
            clock += Duration::from_micros(5);
            let Some(ended) = live.get_mut(number % LIVE) else { continue };
            if let Some(at) = ended.take() {
                let latency = Some(Duration::from_nanos(1_000_000 + (key & 0xf_ffff)));
                balancer.end(at, clock, RequestOutcome { latency, failed: false });
            }
            *ended = balancer.pick(clock, Some(key), |_| true);
            if let Some(at) = *ended {
                balancer.begin(at);
            }
        }
    });

    let state = |at: usize| MemberState {
        healthy: true,
        answers: true,
        ejected: false,
        draining: false,
        weight: weight(at),
        healthy_since: None,
    };
    let mut turn = 0;
    let health = median(1, || {
        turn += 1;
        balancer.update(now, |at| MemberState { healthy: at != turn, ..state(at) });
    });
    let reweighted = median(1, || {
        turn += 1;
        balancer.update(now, |at| MemberState { weight: weight(at) + u32::from(at == turn), ..state(at) });
    });
    let new = median(1, || {
        black_box(Balancer::new(settings.clone(), &specs, 1, now));
    });
    Costs { pick, request, refused, new: new / 1e3, health: health / 1e3, weight: reweighted / 1e3 }
}

/// Nanoseconds for one of the `picks` that `round` makes: the median of the rounds.
fn median(picks: usize, mut round: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed().as_nanos() as f64 / picks as f64
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times.get(ROUNDS / 2).copied().unwrap_or(f64::NAN)
}

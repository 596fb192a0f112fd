//! The promises of the balancer, all policies together: shares, agreement and disruption, load and time.

mod consistency;
mod distribution;
mod load;
mod membership;

use std::time::Instant;

use super::*;

fn all() -> impl Iterator<Item = Policy> {
    Policy::ALL.iter().copied()
}

const FOLLOWING: [Policy; 3] = [Policy::Maglev, Policy::RingHash, Policy::Rendezvous];

const UP: MemberState = MemberState {
    healthy: true,
    answers: true,
    ejected: false,
    draining: false,
    weight: 1,
    healthy_since: None,
};
const DOWN: MemberState = MemberState { healthy: false, ..UP };

const FINE: RequestOutcome = RequestOutcome { latency: None, failed: false };

fn identity(number: usize) -> u64 {
    hash::bytes(format!("192.0.2.{number}:8080").as_bytes())
}

fn specs(weights: &[u32]) -> Vec<MemberSpec> {
    let each = weights.iter().enumerate();
    each.map(|(at, &weight)| MemberSpec { identity: identity(at), weight, priority: 0 }).collect()
}

fn settings(policy: Policy) -> BalanceSettings {
    BalanceSettings { policy, panic_threshold_percent: 50, ..BalanceSettings::default() }
}

fn balancer(policy: Policy, weights: &[u32]) -> Balancer {
    Balancer::new(settings(policy), &specs(weights), 7, Instant::now())
}

fn keys(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|number| hash::bytes(&number.to_be_bytes()))
}

/// Where each key goes.
fn placed(balancer: &mut Balancer, count: u64) -> Vec<usize> {
    let now = Instant::now();
    keys(count).map(|key| balancer.pick(now, Some(key), |_| true).unwrap()).collect()
}

//! The least loaded of many, kept up to date with each change instead of looked for with each pick.
//!
//! A tournament over the members: each inner node knows the lowest score below it and how much share has it. A changed score is
//! carried up, a pick goes down, both in as many steps as the logarithm of the number of members.

use super::load::Load;
use super::{Policy, hash};

/// The tournament. Empty under policies that do not need it.
#[derive(Clone, Debug, Default)]
pub(super) struct Least {
    /// The root is at 1, the children of `n` are at `2n` and `2n + 1`, and the second half are the members.
    nodes: Vec<Node>,
}

/// The lowest score among some members, and the shares of those that have it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    score: f64,
    share: u64,
}

const NOBODY: Node = Node { score: f64::INFINITY, share: 0 };

impl Least {
    /// Over these members, if the policy is one that wants the least loaded.
    pub(super) fn new(policy: Policy, loads: &[Load]) -> Self {
        if !matches!(policy, Policy::LeastConnections | Policy::LeastRequest) {
            return Self::default();
        }
        let leaves = loads.len().next_power_of_two();
        let mut nodes = vec![NOBODY; leaves];
        nodes.extend(loads.iter().map(|load| Node::of(policy, load)));
        nodes.resize(leaves * 2, NOBODY);
        let mut least = Self { nodes };
        (1..leaves).rev().for_each(|at| least.refresh(at));
        least
    }

    /// The load of the member at `at` has changed.
    #[inline]
    pub(super) fn changed(&mut self, policy: Policy, at: usize, load: &Load) {
        if !self.nodes.is_empty() {
            self.set(at, Node::of(policy, load));
        }
    }

    /// The admitted member with the lowest score, among equals the one that `random` draws by their shares. `None` when no member is
    /// admitted, or when too many were refused on the way.
    pub(super) fn pick(&mut self, random: u64, admits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut refused = [None; REFUSALS];
        let mut found = None;
        for slot in &mut refused {
            let Some(at) = self.lowest(random) else { break };
            if admits(at) {
                found = Some(at);
                break;
            }
            // Out of the tournament until somebody is found.
            let leaf = self.nodes.get(self.nodes.len() / 2 + at).copied();
            *slot = leaf.map(|node| (at, node));
            self.set(at, NOBODY);
        }
        for (at, node) in refused.into_iter().flatten() {
            self.set(at, node);
        }
        found
    }

    fn lowest(&self, random: u64) -> Option<usize> {
        let root = self.nodes.get(1).filter(|root| root.share > 0)?;
        let mut left = hash::scale(random, root.share);
        let leaves = self.nodes.len() / 2;
        let mut at = 1;
        while at < leaves {
            at *= 2;
            let (one, other) = (self.nodes.get(at)?, self.nodes.get(at + 1)?);
            if one.score > other.score {
                at += 1;
            } else if one.score == other.score
                && let Some(rest) = left.checked_sub(one.share)
            {
                left = rest;
                at += 1;
            }
        }
        Some(at - leaves)
    }

    fn set(&mut self, member: usize, node: Node) {
        let mut at = self.nodes.len() / 2 + member;
        if let Some(leaf) = self.nodes.get_mut(at) {
            *leaf = node;
        }
        while at > 1 {
            at /= 2;
            self.refresh(at);
        }
    }

    #[inline]
    fn refresh(&mut self, at: usize) {
        let (Some(one), Some(other)) = (self.nodes.get(at * 2), self.nodes.get(at * 2 + 1)) else { return };
        let node = if one.score < other.score {
            *one
        } else if one.score > other.score {
            *other
        } else {
            Node { score: one.score, share: one.share.saturating_add(other.share) }
        };
        if let Some(place) = self.nodes.get_mut(at) {
            *place = node;
        }
    }
}

impl Node {
    fn of(policy: Policy, load: &Load) -> Self {
        if load.weight == 0 {
            return NOBODY;
        }
        let work = match policy {
            // Requests decide among equal connections.
            Policy::LeastConnections => f64::from(load.connections) + f64::from(load.requests) / REQUESTS,
            _ => f64::from(load.requests),
        };
        // A division rounds equal ratios to the same number, so that equals are found to be equal.
        Self { score: work / load.share() as f64, share: load.share() }
    }
}

/// How many refused members are set aside before the remaining ones are tried in any order.
const REFUSALS: usize = 16;

/// More than a count of requests can be.
const REQUESTS: f64 = (1u64 << 32) as f64;

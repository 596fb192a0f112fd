//! Which member of a pool takes the next request or connection.
//!
//! A [`Balancer`] belongs to one worker and one pool, so that picking takes no lock and shares no memory. The state that all workers share
//! (health, ejection, draining, weights) enters by [`Balancer::update`] when it has changed; picks do not pay for an update. Policies that
//! follow a key ([`Policy::follows_key`]) depend on nothing but settings, members and key: all workers and all instances of a fleet send a
//! key to the same member. See [`hash`] for keys and identities.
//!
//! The table of Maglev is public by itself ([`Maglev`], made of [`seats`]), for a data path that has no balancer: what it picks is what
//! every worker picks.

mod balancer;
mod ewma;
pub mod hash;
mod least;
mod level;
mod load;
mod maglev;
mod pick;
mod rendezvous;
mod ring;
mod sequence;
mod table;
mod warmup;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::words;

pub use balancer::Balancer;
pub use level::choose as standing;
pub use maglev::Maglev;
pub use table::{Seat, seats};

words! {
    /// How a member is chosen. All policies respect weights.
    #[derive(Default)]
    Policy {
        /// One after the other, a heavy member's turns spread evenly over the round.
        #[default]
        RoundRobin = "round_robin",
        /// By chance.
        Random = "random",
        /// The one with the fewest open connections for its weight ([`Balancer::opened`]), then the fewest live requests.
        LeastConnections = "least_connections",
        /// The one with the fewest live requests for its weight ([`Balancer::begin`]).
        LeastRequest = "least_request",
        /// Of two drawn by chance, the one with fewer live requests for its weight.
        P2c = "p2c",
        /// Of two drawn by chance, the one with the lower product of the square of its latency (peak EWMA) and its live requests.
        P2cEwma = "p2c_ewma",
        /// By key: a Maglev table, the cheapest.
        Maglev = "maglev",
        /// By key: a ring of points, known as ketama.
        RingHash = "ring_hash",
        /// By key: the highest random weight. Nothing to build, looks at all members.
        Rendezvous = "rendezvous",
    }
}

impl Policy {
    /// Whether the policy sends equal keys to the same member.
    pub fn follows_key(self) -> bool {
        matches!(self, Self::Maglev | Self::RingHash | Self::Rendezvous)
    }
}

/// The settings of the whole pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceSettings {
    /// How a member is chosen.
    pub policy: Policy,
    /// Slots of the Maglev table; the next prime is taken, at most 5,000,011, but more than there are members. A hundred slots for
    /// each member and more keep their shares within 1 %.
    pub table_size: u32,
    /// Points on the ring for each unit of weight; fewer when the ring would have more than 262,144 in all.
    pub ring_points: u32,
    /// Bounded load for policies that follow a key: no member takes more than this percentage of its fair share of live requests,
    /// rounded up; what is above goes to the key's next choice. At least 100; `None` for no bound.
    pub balance_factor: Option<u32>,
    /// A priority level of which a smaller percentage (by weight) is healthy gives way to the next; when no level is fit, one is used
    /// whole, the unhealthy with the healthy. 1: one healthy member makes a level fit, whatever its weight. 0: one healthy member makes a
    /// level fit, and without any healthy member no member is picked.
    pub panic_threshold_percent: u32,
    /// How long the share of a member that became healthy grows to its weight; zero for at once.
    pub slow_start: Duration,
    /// How fast [`Policy::P2cEwma`] forgets: a measurement so old counts 1/e.
    pub ewma_decay: Duration,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            table_size: 65_537,
            ring_points: 160,
            balance_factor: None,
            panic_threshold_percent: 1,
            slow_start: Duration::ZERO,
            ewma_decay: Duration::from_secs(10),
        }
    }
}

/// A member of a pool: one address of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// What identifies the member on all instances and for ever: [`hash::bytes`] of its configured address.
    pub identity: u64,
    /// Its weight until the first [`Balancer::update`]; 0 is never picked.
    pub weight: u32,
    /// Its level; 0 is the best, and the others wait until it fails.
    pub priority: u32,
}

/// The state of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Whether its health checks let it be used.
    pub healthy: bool,
    /// Whether it answers the checks that do not let it be used: it is there, and may finish what it has.
    pub answers: bool,
    /// Whether it is ejected because of how it treated requests.
    pub ejected: bool,
    /// Whether it only finishes what it has. Never picked, not even in panic.
    pub draining: bool,
    /// Its weight; 0 is never picked, not even in panic.
    pub weight: u32,
    /// Since when it is healthy, if it has not been from the start: its slow start counts from there.
    pub healthy_since: Option<Instant>,
}

/// How a request ended, for [`Balancer::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestOutcome {
    /// The time to the head of the response, when there was one.
    pub latency: Option<Duration>,
    /// Whether the member failed the request: no connection, a reset, a timeout, a 5xx.
    pub failed: bool,
}

/// Which part of a pool is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The priority level in use; `None` when no member can be picked.
    pub priority: Option<u32>,
    /// Whether the level is used whole because too little of every level is healthy.
    pub panic: bool,
    /// How many members can be picked.
    pub usable: usize,
}

//! The state of a pool at one moment, as subscribers get it.

use std::sync::Arc;
use std::time::Instant;

use lb_core::address::Address;
use lb_core::balance::{self, BalanceSettings, MemberSpec, MemberState, Seat};
use lb_core::identity::PoolId;

use crate::member::SharedMember;

/// The members of a pool with their settings, in order.
pub(crate) type Roster = Arc<[(Arc<SharedMember>, MemberSpec)]>;

/// The state of a pool at one moment.
#[derive(Clone, Debug)]
pub struct PoolView {
    pub(crate) pool: PoolId,
    pub(crate) generation: u64,
    pub(crate) balance: BalanceSettings,
    pub(crate) roster: Roster,
    /// The state of each, in the same order.
    pub(crate) states: Vec<MemberView>,
    /// How many are left alone.
    pub(crate) resting: usize,
    pub(crate) panic: bool,
}

/// The state of a member at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberView {
    pub(crate) state: MemberState,
    /// How often it was put aside: when the number changes, failures are counted anew.
    pub(crate) ejections: u64,
    /// Until when it is on probation.
    pub(crate) probation_until: Option<Instant>,
    /// It is left alone, but for one request that may be let through now.
    pub(crate) is_due: bool,
}

impl MemberView {
    /// Whether the member takes work, and neither checks nor failures speak against it.
    pub(crate) fn is_fit(&self) -> bool {
        let state = &self.state;
        state.healthy && !state.ejected && !state.draining && state.weight > 0
    }
}

impl PoolView {
    /// The identity of the pool.
    pub fn pool(&self) -> &PoolId {
        &self.pool
    }

    /// The number of this version of the pool: members stand at the positions that they have in it as long as this is the same.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How members are picked.
    pub fn balance(&self) -> &BalanceSettings {
        &self.balance
    }

    /// Whether too few members are fit, so that all are used.
    pub fn is_in_panic(&self) -> bool {
        self.panic
    }

    /// The members: the address of each, its settings and its state. One that may be given a single request, to see whether it is back,
    /// counts as ejected.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (Address, MemberSpec, MemberState)> + '_ {
        self.roster.iter().zip(&self.states).map(|((member, spec), view)| {
            (
                member.key.address,
                *spec,
                MemberState { ejected: view.state.ejected || view.is_due, ..view.state },
            )
        })
    }

    /// The members that a table by key is made of, such as [`balance::Maglev`]: those among which every worker picks.
    pub fn seats(&self) -> Vec<Seat> {
        let members: Vec<_> = self.members().map(|(_, spec, state)| (spec, state)).collect();
        balance::seats(&members, self.balance.panic_threshold_percent)
    }

    /// How many members are fit, and not left alone.
    pub(crate) fn fit(&self) -> usize {
        self.states.iter().filter(|view| view.is_fit() && !view.is_due).count()
    }
}

#[cfg(test)]
mod tests;

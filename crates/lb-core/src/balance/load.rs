//! The load of a member as one worker counts it: its share, its running requests, its latency.

use super::ewma::Estimate;
use super::warmup::FULL;

/// One member. Half a cache line, so that comparing two touches at most two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Live requests.
    pub(super) requests: u32,
    /// Open connections.
    pub(super) connections: u32,
    /// Its weight; 0 while it is not in use.
    pub(super) weight: u32,
    /// How much of its weight counts during its slow start, of [`FULL`].
    pub(super) factor: u32,
    /// How fast it answers.
    pub(super) latency: Estimate,
    /// What it has saved up of turns during its slow start, of [`FULL`].
    pub(super) credit: u32,
}

impl Load {
    pub(super) const NONE: Self =
        Self { requests: 0, connections: 0, weight: 0, factor: FULL, latency: Estimate::NONE, credit: 0 };

    /// The weight that counts, in units of 1/[`FULL`].
    #[inline]
    pub(super) fn share(&self) -> u64 {
        u64::from(self.weight) * u64::from(self.factor)
    }

    /// Whether a turn in the round is taken, during a slow start: so many of the turns as the factor says, evenly.
    #[inline]
    pub(super) fn takes_turn(&mut self) -> bool {
        self.credit = self.credit.saturating_add(self.factor);
        let takes = self.credit >= FULL;
        if takes {
            self.credit -= FULL;
        }
        takes
    }
}

//! What a pool is told of its members: results of probes, and orders of the operator.

use std::time::Instant;

use lb_core::health::{HealthState, ProbeOutcome};

use super::SharedPool;

impl SharedPool {
    /// Lets a probe of a member begin, if one is due.
    #[must_use]
    pub fn begin_probe(&self, at: usize, now: Instant) -> bool {
        self.members
            .get(at)
            .and_then(|(member, _)| Some(member.live().health.as_mut()?.begin(now)))
            .unwrap_or(false)
    }

    /// When the next probe of a member is due.
    pub fn probe_due(&self, at: usize) -> Option<Instant> {
        self.members.get(at)?.0.live().health.as_ref()?.due()
    }

    /// Forgets the probe of a member that is under way, if one is: its settings have changed.
    pub fn abandon_probe(&self, at: usize) {
        if let Some((member, _)) = self.members.get(at)
            && let Some(target) = member.live().health.as_mut()
        {
            target.abandon();
        }
    }

    /// Takes in how a probe ended.
    pub fn end_probe(&self, at: usize, outcome: ProbeOutcome, now: Instant) {
        let Some((member, _)) = self.members.get(at) else { return };
        self.meters.probed(at, outcome);
        let (change, has_turned) = {
            let mut live = member.live();
            let Some(target) = live.health.as_mut() else { return };
            let before = target.refuses();
            let change = target.end(outcome, now);
            (change, target.refuses() != before)
        };
        let Some(change) = change else {
            // It is as unhealthy as before, and whoever keeps its flows has to know that it is gone, or there again.
            if has_turned {
                self.changed(now);
            }
            return;
        };
        if change.from == HealthState::Unhealthy && change.to.is_usable() {
            // A passed check shows that the member is well: no request has to find out.
            let back = self.rests().well(at, now);
            self.came_back(at, back, now);
        }
        self.changed(now);
        let (backend, address) = (&member.key.backend, member.key.address);
        let (from, to) = (change.from.as_str(), change.to.as_str());
        if change.to.is_usable() {
            tracing::info!(pool = self.id.name(), backend, %address, from, to, "backend health changed");
        } else {
            tracing::warn!(pool = self.id.name(), backend, %address, from, to, why = change.why.as_str(), "backend health changed");
        }
    }

    /// Lets a member finish what it has and gives it nothing more, or takes that back.
    pub fn set_draining(&self, at: usize, draining: bool) -> bool {
        let Some((member, _)) = self.members.get(at) else { return false };
        let before = std::mem::replace(&mut member.live().draining, draining);
        if before != draining {
            self.changed(Instant::now());
        }
        true
    }

    /// Gives the configured weight back to the members of the backends that `whose` names.
    pub fn forget_weights(&self, whose: impl Fn(&str) -> bool) {
        let members = self.members.iter().map(|(member, _)| member);
        let forgotten = members.filter(|member| member.live().weight.is_some() && whose(&member.key.backend));
        if forgotten.map(|member| member.live().weight = None).count() > 0 {
            self.changed(Instant::now());
        }
    }

    /// Gives a member another weight than the configured one, or the configured one again.
    pub fn set_weight(&self, at: usize, weight: Option<u32>) -> bool {
        let Some((member, _)) = self.members.get(at) else { return false };
        let before = std::mem::replace(&mut member.live().weight, weight);
        if before != weight {
            self.changed(Instant::now());
        }
        true
    }
}

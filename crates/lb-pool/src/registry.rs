//! The pools of a process, over all its configurations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use lb_core::balance::MemberSpec;
use lb_core::health;
use lb_core::outlier::Ejector;

use crate::member::{Member, MemberKey};
use crate::shared::{PoolSettings, SharedPool, identity};

/// The pools of the configuration that runs, with what is known of their members. Owned by the control thread.
#[derive(Debug, Default)]
pub struct Registry {
    pools: HashMap<String, Arc<SharedPool>>,
    workers: usize,
    /// Differs from pool to pool and from process to process.
    seed: u64,
}

impl Registry {
    /// An empty registry for a process of so many workers.
    pub fn new(workers: usize, seed: u64) -> Self {
        Self { pools: HashMap::new(), workers, seed }
    }

    /// The pool of this name with these settings and members: weight and priority of each. One that has not changed is the same as
    /// before; in one that has, members that stay keep what is known of them.
    pub fn pool(
        &mut self,
        name: &str,
        settings: &PoolSettings,
        members: &[(MemberKey, u32, u32)],
        now: Instant,
    ) -> Arc<SharedPool> {
        let old = self.pools.get(name);
        if let Some(old) = old.filter(|old| is_same(old, settings, members)) {
            return Arc::clone(old);
        }
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let seed = self.seed;
        let position = |key: &MemberKey| old?.members.iter().position(|(member, _)| member.key == *key);
        let from: Vec<Option<usize>> = members.iter().map(|(key, ..)| position(key)).collect();
        let taken =
            |at: &usize| old.and_then(|old| old.members.get(*at)).map(|(member, _)| Arc::clone(member));
        let list = members.iter().zip(&from).zip(seed..).map(|(((key, weight, priority), from), seed)| {
            let member = from.as_ref().and_then(taken).unwrap_or_else(|| Arc::new(Member::new(key.clone())));
            let mut live = member.live();
            match (&mut live.health, settings.health) {
                (Some(target), Some(settings)) => target.reconfigure(settings, now),
                (health, settings) => {
                    *health = settings.map(|settings| health::Target::new(settings, now, seed));
                }
            }
            drop(live);
            let spec = MemberSpec { identity: identity(key.address), weight: *weight, priority: *priority };
            (member, spec)
        });
        let list = list.collect::<Vec<_>>();
        let ejection = settings.outlier.as_ref().map(|outlier| outlier.ejection);
        let ejector = match (old, ejection) {
            (Some(old), Some(ejection)) => {
                let mut ejector = old.ejector().clone();
                ejector.rebuild(ejection, &from, now, |_| {});
                ejector
            }
            (_, ejection) => Ejector::new(ejection.unwrap_or_default(), list.len(), seed),
        };
        let pool =
            Arc::new(SharedPool::new(name.to_owned(), settings.clone(), list, ejector, self.workers, now));
        self.pools.insert(name.to_owned(), Arc::clone(&pool));
        pool
    }

    /// Forgets pools that no configuration names any more.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.pools.retain(|name, _| keep(name));
    }

    /// All pools, by name.
    pub fn pools(&self) -> Vec<Arc<SharedPool>> {
        let mut pools: Vec<_> = self.pools.values().map(Arc::clone).collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        pools
    }
}

fn is_same(old: &SharedPool, settings: &PoolSettings, members: &[(MemberKey, u32, u32)]) -> bool {
    let old_members = old.members.iter().map(|(member, spec)| (&member.key, spec.weight, spec.priority));
    old.settings == *settings
        && old_members.eq(members.iter().map(|(key, weight, priority)| (key, *weight, *priority)))
}

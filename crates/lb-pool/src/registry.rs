//! The pools of a process, over all its configurations.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use lb_core::balance::MemberSpec;
use lb_core::health;
use lb_core::identity::PoolId;
use lb_core::outlier::Ejector;
use lb_core::pool::PoolSettings;
use lb_core::rest::Rests;
use lb_observe::metrics::{Metrics, PoolMetrics};

use crate::feed::{Feed, Subscription};
use crate::member::{MemberKey, SharedMember};
use crate::meters::Meters;
use crate::shared::{Beginning, SharedPool, identity};
use crate::view::Roster;

/// The pools of the configuration that runs, with what is known of their members. Owned by the control thread.
#[derive(Debug)]
pub struct Registry {
    pools: HashMap<PoolId, Arc<SharedPool>>,
    /// Changes with each of them.
    news: Arc<Feed<()>>,
    workers: usize,
    /// Differs from pool to pool and from process to process.
    seed: u64,
    metrics: Option<Arc<Metrics>>,
}

impl Registry {
    /// An empty registry for a process of so many workers.
    pub fn new(workers: usize, seed: u64) -> Self {
        Self { pools: HashMap::new(), news: Feed::new(Arc::default()), workers, seed, metrics: None }
    }

    /// The same, with metrics that show what is known of the members.
    pub fn shown_in(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Tells of every change of every pool: [`SharedPool::due`] of some pool may be earlier than before. What has changed is read from the
    /// pools.
    pub fn subscribe(&self) -> Subscription<()> {
        self.news.subscribe()
    }

    /// The pool of this identity with these settings and members: weight and priority of each. One that has not changed is the same as
    /// before; in one that has, members that stay keep what is known of them.
    pub fn pool(
        &mut self,
        id: &PoolId,
        settings: &PoolSettings,
        members: &[(MemberKey, u32, u32)],
        now: Instant,
    ) -> Arc<SharedPool> {
        let old = self.pools.get(id);
        if let Some(old) = old.filter(|old| is_same(old, settings, members)) {
            return Arc::clone(old);
        }
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let seed = self.seed;
        let known = old.map(|old| Known::of(old)).unwrap_or_default();
        let from: Vec<Option<usize>> = members.iter().map(|(key, ..)| known.position(key)).collect();
        let taken =
            |at: &usize| old.and_then(|old| old.members.get(*at)).map(|(member, _)| Arc::clone(member));
        let workers = self.workers;
        let list = members.iter().zip(&from).zip(seed..).map(|(((key, weight, priority), from), seed)| {
            let member =
                from.as_ref().and_then(taken).unwrap_or_else(|| Arc::new(known.joining(key, workers)));
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
        let list: Roster = list.collect();
        let ejection = settings.outlier.as_ref().map(|outlier| outlier.ejection);
        let ejector = match (old, ejection) {
            (Some(old), Some(ejection)) => {
                let mut ejector = old.ejector().clone();
                ejector.rebuild(ejection, &from, now, |_| {});
                ejector
            }
            (_, ejection) => Ejector::new(ejection.unwrap_or_default(), list.len(), seed),
        };
        let rests = match old {
            Some(old) => {
                let mut rests = old.rests().clone();
                rests.rebuild(settings.rest, &from);
                rests
            }
            None => Rests::new(settings.rest, list.len(), seed),
        };
        let meters = match &self.metrics {
            Some(metrics) if settings.health.is_some() || settings.outlier.is_some() => {
                Meters::new(metrics, id, members.iter().map(|(key, ..)| key.backend.as_str()))
            }
            _ => Meters::default(),
        };
        let metrics = match &self.metrics {
            Some(metrics) => metrics.pool(id),
            None => Arc::new(PoolMetrics::new(self.workers)),
        };
        let beginning = Beginning {
            id: id.clone(),
            settings: settings.clone(),
            members: list,
            ejector,
            rests,
            workers: self.workers,
            meters,
            metrics,
            news: Arc::clone(&self.news),
        };
        let pool = Arc::new(SharedPool::new(beginning, old.map(Arc::as_ref), now));
        self.pools.insert(id.clone(), Arc::clone(&pool));
        pool
    }

    /// Forgets pools that no configuration names any more, and what metrics show of backends that are gone.
    pub fn retain(&mut self, keep: impl Fn(&PoolId) -> bool) {
        self.pools.retain(|id, pool| {
            let stays = keep(id);
            if !stays {
                pool.end();
            }
            stays
        });
        if let Some(metrics) = &self.metrics {
            let backends: HashSet<(&str, &str)> = self
                .pools
                .values()
                .filter(|pool| pool.is_shown())
                .flat_map(|pool| {
                    let members = pool.members.iter();
                    members.map(|(member, _)| (pool.id.name(), member.key.backend.as_str()))
                })
                .collect();
            metrics.retain_pool_backends(|pool, backend| backends.contains(&(pool, backend)));
        }
    }
}

/// The members of a pool, to be found by their keys and by their backends: a pool may have tens of thousands.
#[derive(Default)]
struct Known<'a> {
    positions: HashMap<&'a MemberKey, usize>,
    of_backend: HashMap<&'a str, Vec<&'a SharedMember>>,
}

impl<'a> Known<'a> {
    fn of(pool: &'a SharedPool) -> Self {
        let mut known = Self::default();
        for (at, (member, _)) in pool.members.iter().enumerate() {
            // The first of several with one key.
            known.positions.entry(&member.key).or_insert(at);
            known.of_backend.entry(&member.key.backend).or_default().push(member);
        }
        known
    }

    fn position(&self, key: &MemberKey) -> Option<usize> {
        self.positions.get(key).copied()
    }

    /// A member that is new. What an operator has set for all other addresses of its backend holds for it too.
    fn joining(&self, key: &MemberKey, workers: usize) -> SharedMember {
        let member = SharedMember::new(key.clone(), workers);
        let mut kin = self.of_backend.get(key.backend.as_str()).into_iter().flatten();
        if let Some(first) = kin.next() {
            let told = |member: &SharedMember| {
                let live = member.live();
                (live.draining, live.weight)
            };
            let first = told(first);
            if kin.all(|other| told(other) == first) {
                let mut live = member.live();
                (live.draining, live.weight) = first;
            }
        }
        member
    }
}

fn is_same(old: &SharedPool, settings: &PoolSettings, members: &[(MemberKey, u32, u32)]) -> bool {
    let old_members = old.members.iter().map(|(member, spec)| (&member.key, spec.weight, spec.priority));
    old.settings == *settings
        && old_members.eq(members.iter().map(|(key, weight, priority)| (key, *weight, *priority)))
}

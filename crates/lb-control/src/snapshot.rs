//! What workers serve by.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use lb_config::{BackendPool, Config, Listener, ListenerId, PoolId, Routing};
use lb_core::limit::{LimitRegistry, LimitTables};
use lb_pool::{Registry, ResolvedBackend, SharedPool};

use crate::file_keys::FileKeys;
use crate::pools;
use crate::tls::BackendsTls;

/// The backends of each pool that is in use, with the addresses that their names stand for.
pub type PoolBackends = BTreeMap<PoolId, Vec<ResolvedBackend>>;

/// One immutable configuration with the addresses of its backends.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration, with all backends that are to be used.
    pub config: Config,
    /// The backends of each pool.
    pub(crate) backends: PoolBackends,
    /// Each pool that a listener uses.
    pools: BTreeMap<PoolId, Arc<SharedPool>>,
    /// TLS towards backends.
    pub backends_tls: BackendsTls,
    /// Keys that are read from files.
    pub keys: FileKeys,
    /// What the keys of limits owe, and how many of their requests run.
    pub limits: LimitTables,
    /// Where each listener stands in the configuration.
    positions: HashMap<ListenerId, usize>,
}

/// A pool that is in force.
#[derive(Clone, Copy, Debug)]
pub struct PoolInForce<'a> {
    /// The configuration of the pool.
    pub config: &'a Arc<BackendPool>,
    /// Its backends with their addresses, in the order of the configuration.
    pub backends: &'a [ResolvedBackend],
    /// What is known of its members: those addresses, in their order.
    pub shared: &'a Arc<SharedPool>,
}

impl Snapshot {
    /// A snapshot whose pools keep what `registry` knows of members that stay, and whose limits keep what `limits` knows of keys.
    pub fn new(
        registry: &mut Registry,
        limits: &mut LimitRegistry,
        config: Config,
        backends: PoolBackends,
        backends_tls: BackendsTls,
        keys: FileKeys,
    ) -> Arc<Self> {
        let pools = pools::of(registry, &config, &backends);
        let routings = config.listeners.iter().filter_map(|listener| listener.routing.as_deref());
        let limits = limits.tables(routings.flat_map(Routing::all_chains), Instant::now());
        let listeners = config.listeners.iter().enumerate();
        let positions = listeners.map(|(position, listener)| (listener.id(), position)).collect();
        Arc::new(Self { config, backends, pools, backends_tls, keys, limits, positions })
    }

    /// A listener and its pool.
    pub fn listener(&self, id: &ListenerId) -> Option<(&Listener, PoolInForce<'_>)> {
        let listener = self.config.listeners.get(*self.positions.get(id)?)?;
        Some((listener, self.in_force(&listener.pool)?))
    }

    /// The pool of this identity, if a listener uses it.
    pub fn pool(&self, id: &PoolId) -> Option<PoolInForce<'_>> {
        self.in_force(self.config.pool(id)?)
    }

    /// Every pool that a listener uses.
    pub fn pools(&self) -> impl Iterator<Item = PoolInForce<'_>> {
        self.config.pools_in_use().into_iter().filter_map(|pool| self.in_force(pool))
    }

    /// How many members all pools have.
    pub(crate) fn members(&self) -> usize {
        let backends = self.backends.values().flatten();
        backends.map(|backend| backend.addresses.len()).sum()
    }

    /// What is known of the members of every pool.
    pub(crate) fn shared_pools(&self) -> impl Iterator<Item = &Arc<SharedPool>> {
        self.pools.values()
    }

    fn in_force<'a>(&'a self, config: &'a Arc<BackendPool>) -> Option<PoolInForce<'a>> {
        let (backends, shared) = (self.backends.get(&config.id)?, self.pools.get(&config.id)?);
        Some(PoolInForce { config, backends, shared })
    }
}

#[cfg(test)]
mod tests {
    use lb_observe::metrics::Metrics;

    use super::*;

    /// A listener at `port` in front of the pool `web`.
    fn listener(port: u16) -> String {
        format!("[[listeners]]\naddress = \"127.0.0.1:{port}\"\nprotocol = \"h1\"\npool = \"web\"\n")
    }

    fn snapshot(registry: &mut Registry, listeners: &[u16], weight: u32) -> Arc<Snapshot> {
        let listeners: String = listeners.iter().map(|port| listener(*port)).collect();
        let own = "[[listeners]]\naddress = \"127.0.0.1:90\"\nprotocol = \"tcp\"\n[[listeners.backends]]\naddress = \"10.0.0.2:80\"\n";
        let web = format!("[[pools.web.backends]]\naddress = \"10.0.0.1:80\"\nweight = {weight}\n");
        let config = Config::parse(&format!("{listeners}{own}{web}"), "lb.toml").unwrap();
        let pools = config.pools_in_use().into_iter().map(|pool| {
            let resolved = pool.backends.iter().map(|backend| ResolvedBackend {
                name: backend.name.clone(),
                addresses: backend.address.literal().into_iter().collect(),
            });
            (pool.id.clone(), resolved.collect())
        });
        let backends = pools.collect();
        let limits = &mut LimitRegistry::default();
        Snapshot::new(registry, limits, config, backends, BackendsTls::default(), FileKeys::default())
    }

    #[test]
    fn a_pool_is_one_however_many_listeners_use_it_and_wherever_they_stand() {
        let metrics = Metrics::new(1);
        let mut registry = Registry::new(1, 1).shown_in(Arc::clone(&metrics));
        let first = snapshot(&mut registry, &[80, 81], 1);
        let shared = |snapshot: &Snapshot, at: usize| {
            let id = snapshot.config.listeners[at].id();
            Arc::clone(snapshot.listener(&id).unwrap().1.shared)
        };
        assert_eq!(first.pools().count(), 2, "one with a name, one of a listener alone");
        assert!(Arc::ptr_eq(&shared(&first, 0), &shared(&first, 1)));
        assert!(!Arc::ptr_eq(&shared(&first, 0), &shared(&first, 2)));
        let series = metrics.encode().matches("pool_panic{pool=\"web\"}").count();
        assert_eq!(series, 1);

        let subscription = shared(&first, 0).subscribe();
        subscription.newest();
        let moved = snapshot(&mut registry, &[82, 81, 80], 1);
        assert!(Arc::ptr_eq(&shared(&first, 0), &shared(&moved, 2)), "nothing about the pool has changed");
        assert!(!subscription.is_behind());
        let changed = snapshot(&mut registry, &[82], 5);
        assert!(!Arc::ptr_eq(&shared(&first, 0), &shared(&changed, 0)));
        assert!(subscription.is_behind(), "a subscription follows the pool through a reload");
        let weights: Vec<u32> = subscription.newest().members().map(|(_, spec, _)| spec.weight).collect();
        assert_eq!(weights, [5]);
    }
}

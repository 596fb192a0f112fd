//! What workers serve by.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lb_config::{BackendPool, Config, Listener, ListenerId, PoolId};
use lb_pool::{Registry, ResolvedBackend, SharedPool};

use crate::pools;
use crate::sticky::StickyKeys;
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
    /// Keys of sticky cookies.
    pub sticky: StickyKeys,
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
    /// A snapshot whose pools keep what `registry` knows of members that stay.
    pub fn new(
        registry: &mut Registry,
        config: Config,
        backends: PoolBackends,
        backends_tls: BackendsTls,
        sticky: StickyKeys,
    ) -> Arc<Self> {
        let pools = pools::of(registry, &config, &backends);
        let listeners = config.listeners.iter().enumerate();
        let positions = listeners.map(|(position, listener)| (listener.id(), position)).collect();
        Arc::new(Self { config, backends, pools, backends_tls, sticky, positions })
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

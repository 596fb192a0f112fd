//! What workers serve by.

use std::collections::HashMap;
use std::sync::Arc;

use lb_config::{Config, Listener, ListenerId, PoolId};
use lb_http::service::ResolvedBackend;
use lb_pool::{Registry, SharedPool};

use crate::pools;
use crate::sticky::StickyKeys;
use crate::tls::BackendsTls;

/// One immutable configuration with the addresses of its backends.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration, with all backends that are to be used.
    pub config: Config,
    /// For each listener of the configuration, its backends.
    pub backends: Vec<Vec<ResolvedBackend>>,
    /// For each listener, what is known of the members of its pool: the addresses of its backends, in their order.
    pub pools: Vec<Arc<SharedPool>>,
    /// TLS towards backends.
    pub backends_tls: BackendsTls,
    /// Keys of sticky cookies.
    pub sticky: StickyKeys,
    /// Where each listener stands in the configuration.
    positions: HashMap<ListenerId, usize>,
}

impl Snapshot {
    /// A snapshot whose pools keep what `registry` knows of members that stay.
    pub fn new(
        registry: &mut Registry,
        config: Config,
        backends: Vec<Vec<ResolvedBackend>>,
        backends_tls: BackendsTls,
        sticky: StickyKeys,
    ) -> Arc<Self> {
        let pools = pools::of(registry, &config, &backends);
        let listeners = config.listeners.iter().enumerate();
        let positions = listeners.map(|(position, listener)| (listener.id(), position)).collect();
        Arc::new(Self { config, backends, pools, backends_tls, sticky, positions })
    }

    /// A listener, its backends and its pool.
    pub fn listener(&self, id: &ListenerId) -> Option<(&Listener, &[ResolvedBackend], &Arc<SharedPool>)> {
        self.at(*self.positions.get(id)?)
    }

    fn at(&self, position: usize) -> Option<(&Listener, &[ResolvedBackend], &Arc<SharedPool>)> {
        Some((self.config.listeners.get(position)?, self.backends.get(position)?, self.pools.get(position)?))
    }

    /// The first listener that a pool stands behind, with its backends and the pool: all such listeners have the pool in common.
    pub(crate) fn of_pool(&self, pool: &PoolId) -> Option<(&Listener, &[ResolvedBackend], &Arc<SharedPool>)> {
        self.at(self.config.listeners.iter().position(|listener| listener.pool.id == *pool)?)
    }
}

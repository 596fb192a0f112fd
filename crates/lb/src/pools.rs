//! Pools from a configuration with resolved names.

use std::sync::Arc;
use std::time::Instant;

use lb_config::{Config, Listener};
use lb_http::service::ResolvedBackend;
use lb_pool::{MemberKey, PoolSettings, Registry, SharedPool};

/// For each listener of the configuration, its pool. What was known of members that stay is kept.
pub(crate) fn of(
    registry: &mut Registry,
    config: &Config,
    backends: &[Vec<ResolvedBackend>],
) -> Vec<Arc<SharedPool>> {
    let now = Instant::now();
    let pools: Vec<Arc<SharedPool>> = config
        .listeners
        .iter()
        .zip(backends)
        .map(|(listener, backends)| {
            registry.pool(&listener.name, &PoolSettings::default(), &members(listener, backends), now)
        })
        .collect();
    registry.retain(|name| pools.iter().any(|pool| pool.name == name));
    pools
}

/// Each address of each backend, with weight and priority.
fn members(listener: &Listener, backends: &[ResolvedBackend]) -> Vec<(MemberKey, u32, u32)> {
    let pairs = listener.backends.iter().zip(backends);
    pairs
        .flat_map(|(backend, resolved)| {
            resolved.addresses.iter().map(|address| {
                let key = MemberKey { backend: backend.name.clone(), address: *address };
                (key, backend.weight, 0)
            })
        })
        .collect()
}

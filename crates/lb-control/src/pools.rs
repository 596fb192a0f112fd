//! Pools from a configuration with resolved names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use lb_config::{BackendPool, Config, PoolId};
use lb_pool::{MemberKey, Registry, ResolvedBackend, SharedPool};

use crate::snapshot::PoolBackends;

/// Each pool that a listener of the configuration uses. What was known of members that stay is kept.
pub(crate) fn of(
    registry: &mut Registry,
    config: &Config,
    backends: &PoolBackends,
) -> BTreeMap<PoolId, Arc<SharedPool>> {
    let now = Instant::now();
    let in_use = config.pools_in_use().into_iter();
    let pools = in_use.filter_map(|pool| {
        let members = members(pool, backends.get(&pool.id)?);
        Some((pool.id.clone(), registry.pool(&pool.id, &pool.settings, &members, now)))
    });
    let pools: BTreeMap<_, _> = pools.collect();
    registry.retain(|id| pools.contains_key(id));
    pools
}

/// Each address of each backend, with weight and priority.
fn members(pool: &BackendPool, backends: &[ResolvedBackend]) -> Vec<(MemberKey, u32, u32)> {
    let pairs = pool.backends.iter().zip(backends);
    pairs
        .flat_map(|(backend, resolved)| {
            resolved.addresses.iter().map(|address| {
                let key = MemberKey { backend: backend.name.clone(), address: *address };
                (key, backend.weight, backend.priority)
            })
        })
        .collect()
}

//! Pools from a configuration with resolved names.

use std::sync::Arc;
use std::time::Instant;

use lb_config::{BackendPool, Config};
use lb_core::outlier::{Analysis, EjectionSettings, StreakLimits};
use lb_core::{balance, health};
use lb_http::service::ResolvedBackend;
use lb_pool::{MemberKey, Outlier, PoolSettings, Registry, SharedPool};

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
            let pool = &listener.pool;
            registry.pool(pool.id.name(), &settings(pool), &members(pool, backends), now)
        })
        .collect();
    registry.retain(|name| pools.iter().any(|pool| pool.name == name));
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

fn settings(pool: &BackendPool) -> PoolSettings {
    let balance = &pool.balance;
    PoolSettings {
        balance: balance::Settings {
            policy: policy(balance.policy),
            table_size: balance.maglev_table_size,
            ring_points: balance.ring_points_per_weight,
            balance_factor: balance.hash_balance_factor_percent,
            panic_threshold_percent: balance.panic_threshold_percent,
            slow_start: balance.slow_start,
            ewma_decay: balance.ewma_decay,
        },
        outlier: pool.outlier.as_ref().map(outlier),
        health: pool.health.as_ref().map(|health| health::Settings {
            interval: health.interval,
            timeout: health.timeout,
            rise: health.rise,
            fall: health.fall,
            jitter_percent: health.jitter_percent,
        }),
    }
}

fn policy(policy: lb_config::Policy) -> balance::Policy {
    use lb_config::Policy as Written;
    match policy {
        Written::RoundRobin => balance::Policy::RoundRobin,
        Written::Random => balance::Policy::Random,
        Written::LeastConnections => balance::Policy::LeastConnections,
        Written::LeastRequest => balance::Policy::LeastRequest,
        Written::P2c => balance::Policy::P2c,
        Written::P2cEwma => balance::Policy::P2cEwma,
        Written::Maglev => balance::Policy::Maglev,
        Written::RingHash => balance::Policy::RingHash,
        Written::Rendezvous => balance::Policy::Rendezvous,
    }
}

fn outlier(outlier: &lb_config::Outlier) -> Outlier {
    // Where a detector is off, its limit is 0.
    let limit = |limit: Option<u32>| limit.unwrap_or(0);
    Outlier {
        streaks: StreakLimits {
            server_errors: limit(outlier.consecutive_5xx),
            gateway_failures: limit(outlier.consecutive_gateway_failures),
        },
        analysis: Analysis {
            error_rate_percent: limit(outlier.error_rate_percent),
            min_requests: u64::from(outlier.min_requests),
            latency_factor_percent: limit(outlier.latency_factor_percent),
        },
        interval: outlier.interval,
        ejection: EjectionSettings {
            base: outlier.base_ejection,
            max: outlier.max_ejection,
            max_percent: outlier.max_ejection_percent,
            probation: outlier.probation,
        },
    }
}

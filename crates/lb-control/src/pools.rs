//! Pools from a configuration with resolved names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use lb_config::{BackendPool, Config, PoolId, RetryOn};
use lb_core::breaker::Limits;
use lb_core::outlier::{Analysis, EjectionSettings, StreakLimits};
use lb_core::retry::{BudgetSettings, Conditions};
use lb_core::{balance, health, hedge};
use lb_pool::{MemberKey, Outlier, PoolSettings, Registry, ResolvedBackend, Retry, SharedPool};

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
        Some((pool.id.clone(), registry.pool(&pool.id, &settings(pool), &members, now)))
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
        limits: limits(&pool.limits),
        retry: pool.retry.as_ref().map(retry).unwrap_or_default(),
        rest: pool.rest,
    }
}

fn limits(limits: &lb_config::Limits) -> Limits {
    // Where there is no limit, it is 0.
    Limits {
        max_connections: limits.max_connections.unwrap_or(0),
        max_requests: limits.max_requests.unwrap_or(0),
        max_pending: limits.max_pending,
        pending_timeout: limits.pending_timeout,
    }
}

fn retry(retry: &lb_config::Retry) -> Retry {
    let has = |condition| retry.on.contains(&condition);
    Retry {
        attempts: Some(retry.attempts),
        conditions: Conditions {
            connect: has(RetryOn::Connect),
            refused: has(RetryOn::Refused),
            reset: has(RetryOn::Reset),
            timeout: has(RetryOn::Timeout),
            statuses: retry.on.iter().filter_map(|condition| condition.status()).collect(),
        },
        per_try_timeout: retry.per_try_timeout,
        budget: BudgetSettings { percent: retry.budget_percent, min: retry.budget_min },
        hedge: hedge::Settings {
            percentile: retry.hedge_percentile.unwrap_or(0),
            min_delay: retry.hedge_min_delay,
        },
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

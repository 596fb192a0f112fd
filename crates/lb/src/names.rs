//! Backends with the addresses that their names stand for, asked anew while the gateway runs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use lb_config::{Config, Dns, HostPort, Listener};
use lb_http::service::ResolvedBackend;
use lb_io::resolver::{Resolver, ResolverOptions};
use lb_observe::metrics::Metrics;
use tokio::time::Instant;

/// What all names of a configuration resolved to.
#[derive(Debug)]
pub(crate) struct Resolution {
    /// For each listener of the configuration, its backends.
    pub(crate) listeners: Vec<Vec<ResolvedBackend>>,
    /// When the first answer runs out; `None` when there are only address literals.
    pub(crate) valid_until: Option<Instant>,
}

/// The resolver as the configuration asks for it.
pub(crate) fn resolver(dns: &Dns) -> anyhow::Result<Resolver> {
    let options = ResolverOptions {
        servers: dns.servers.clone(),
        min_ttl: dns.min_ttl,
        max_ttl: dns.max_ttl,
        negative_ttl: dns.negative_ttl,
        timeout: dns.timeout,
    };
    Ok(Resolver::new(options)?)
}

/// Resolves every backend.
///
/// `known` is what runs now: a name that does not resolve keeps the addresses it has there, and is asked again soon (attack C-03).
/// Without it, a name that does not resolve is an error.
pub(crate) async fn resolve(
    config: &Config,
    resolver: &Resolver,
    metrics: &Metrics,
    known: Option<&[Vec<ResolvedBackend>]>,
) -> anyhow::Result<Resolution> {
    let mut resolution = Resolution { listeners: Vec::new(), valid_until: None };
    for listener in &config.listeners {
        let mut backends = Vec::new();
        for backend in &listener.pool.backends {
            let (addresses, until) = match lookup(&backend.address, resolver, metrics).await {
                Ok(found) => found,
                Err(error) => {
                    metrics.dns_failures.inc();
                    let old = known.and_then(|known| find(known, &backend.name));
                    let Some(old) = old else {
                        return Err(error).with_context(|| context(listener, &backend.name));
                    };
                    tracing::warn!(
                        backend = backend.name,
                        error = format!("{error:#}"),
                        "name does not resolve — keeping its last addresses"
                    );
                    (old.addresses.clone(), Some(Instant::now() + retry_after(resolver)))
                }
            };
            // Never ask in a tight loop, whatever the answer says.
            let until = until.map(|until| until.max(Instant::now() + LEAST_WAIT));
            resolution.valid_until = [resolution.valid_until, until].into_iter().flatten().min();
            backends.push(ResolvedBackend { name: backend.name.clone(), weight: backend.weight, addresses });
        }
        resolution.listeners.push(backends);
    }
    resolver.retain(|name| {
        config
            .listeners
            .iter()
            .flat_map(|listener| &listener.pool.backends)
            .any(|backend| backend.address.host == name)
    });
    metrics.dns_cache_entries.set(i64::try_from(resolver.cached_names()).unwrap_or(i64::MAX));
    Ok(resolution)
}

/// Least time between two questions for a name.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// When to ask again after a failure.
pub(crate) fn retry_after(resolver: &Resolver) -> Duration {
    resolver.negative_ttl().max(LEAST_WAIT)
}

fn context(listener: &Listener, backend: &str) -> String {
    format!("listener {}: backend {backend}", listener.name)
}

fn find<'a>(known: &'a [Vec<ResolvedBackend>], name: &str) -> Option<&'a ResolvedBackend> {
    known.iter().flatten().find(|backend| backend.name == name && !backend.addresses.is_empty())
}

async fn lookup(
    address: &HostPort,
    resolver: &Resolver,
    metrics: &Metrics,
) -> anyhow::Result<(Vec<SocketAddr>, Option<Instant>)> {
    if let Some(literal) = address.socket_addr() {
        return Ok((vec![literal], None));
    }
    let resolved = resolver.resolve(&address.host).await?;
    if resolved.cached {
        metrics.dns_cache_hits.inc();
    } else {
        metrics.dns_cache_misses.inc();
    }
    let addresses = resolved.addresses.iter().map(|ip| SocketAddr::new(*ip, address.port)).collect();
    Ok((addresses, resolved.valid_until))
}

/// The addresses that a listener binds.
pub(crate) async fn listen_addresses(
    address: &HostPort,
    resolver: &Resolver,
    metrics: &Metrics,
) -> anyhow::Result<Vec<SocketAddr>> {
    Ok(lookup(address, resolver, metrics).await?.0)
}

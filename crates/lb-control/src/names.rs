//! Backends with the addresses that their names stand for, asked anew while the gateway runs.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use lb_config::{BackendPool, Config, ConfigError, Dns, Listener, PoolId, SocketName};
use lb_core::address::Address;
use lb_io::resolver::{ResolveError, Resolved, Resolver, ResolverOptions, refusal};
use lb_observe::metrics::Metrics;
use lb_pool::ResolvedBackend;
use tokio::time::Instant;

use crate::faults::{self, Collected};
use crate::overlay::Origin;
use crate::snapshot::PoolBackends;
use crate::together::together;

/// How long a start and a reload wait for names that can wait.
const HASTE: Duration = Duration::from_secs(1);

/// What all names of a configuration resolved to.
#[derive(Debug)]
pub(crate) struct Resolution {
    /// The backends of each pool that is in use.
    pub(crate) pools: PoolBackends,
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
/// A new one waits for an address while its pool has others. It is an error where the pool would have nobody, or where it was added at
/// the admin port.
pub(crate) async fn resolve(
    config: &Config,
    origin: impl Fn(&PoolId, &SocketName) -> Origin,
    resolver: &Resolver,
    metrics: &Metrics,
    (known, patience): (Option<&PoolBackends>, Patience),
) -> anyhow::Result<Resolution> {
    let answers = ask(config, resolver, metrics, patience).await;
    let mut resolution = Resolution { pools: PoolBackends::new(), valid_until: None };
    let (mut unusable, mut told) = (HashSet::new(), HashSet::new());
    let mut faults = Vec::new();
    for pool in config.pools_in_use() {
        let mut backends: Vec<ResolvedBackend> = Vec::new();
        let mut failures = Vec::new();
        for backend in &pool.backends {
            let origin = origin(&pool.id, &backend.address);
            let (addresses, until) = match addresses(&backend.address, &answers, origin) {
                Ok(found) => found,
                Err(reason) => {
                    let host = backend.address.host().unwrap_or_default();
                    let is_asked = matches!(answers.get(host), Some(Ok(answer)) if !answer.cached);
                    if is_asked && unusable.insert(host) {
                        metrics.dns_failures.inc();
                    }
                    let old = known.and_then(|known| find(known, &pool.id, &backend.name));
                    let addresses = old.map(|old| kept(&old.addresses, origin)).unwrap_or_default();
                    let is_new = known.is_none_or(|known| !knows(known, &backend.name));
                    if is_new && origin == Origin::Api {
                        return Err(anyhow::anyhow!(reason)).with_context(|| context(pool, &backend.name));
                    }
                    if !addresses.is_empty() {
                        tracing::warn!(
                            backend = backend.name,
                            error = reason,
                            "name does not resolve — keeping its last addresses"
                        );
                    } else if is_new && told.insert(backend.name.as_str()) {
                        tracing::warn!(
                            backend = backend.name,
                            error = reason,
                            "name does not resolve — the backend gets no traffic until it does"
                        );
                    }
                    if is_new && origin == Origin::File {
                        failures.push((backend, reason));
                    }
                    (addresses, Some(Instant::now() + retry_after(resolver)))
                }
            };
            // Never ask in a tight loop, whatever the answer says.
            let until = until.map(|until| until.max(Instant::now() + LEAST_WAIT));
            resolution.valid_until = [resolution.valid_until, until].into_iter().flatten().min();
            backends.push(ResolvedBackend { name: backend.name.clone(), addresses });
        }
        // With others there it can wait; alone it is more likely a mistake than an outage.
        if backends.iter().all(|backend| backend.addresses.is_empty()) {
            for (backend, reason) in failures {
                faults.extend(faults::of_backend(config, &pool.id, &backend.name, &reason));
            }
        }
        resolution.pools.insert(pool.id.clone(), backends);
    }
    if !faults.is_empty() {
        // A pool may name a backend several times.
        faults.sort_by_key(ConfigError::line);
        faults.dedup();
        return Err(faults::lines(&faults));
    }
    resolver.retain(|name| {
        config
            .listeners
            .iter()
            .flat_map(Listener::pools)
            .flat_map(|pool| &pool.backends)
            .any(|backend| backend.address.host() == Some(name))
    });
    metrics.dns_cache_entries.set(i64::try_from(resolver.cached_names()).unwrap_or(i64::MAX));
    Ok(resolution)
}

/// What each name of the configuration stands for.
type Answers<'a> = HashMap<&'a str, Result<Resolved, ResolveError>>;

/// Asks for all names at once, so that those that nobody answers for cost the time of one.
async fn ask<'a>(
    config: &'a Config,
    resolver: &Resolver,
    metrics: &Metrics,
    patience: Patience,
) -> Answers<'a> {
    let names = |pool: &'a BackendPool| {
        let named = pool.backends.iter().filter(|backend| backend.address.literal().is_none());
        named.filter_map(|backend| backend.address.host())
    };
    let pools = config.pools_in_use();
    let hosts: HashSet<&str> = pools.iter().flat_map(|pool| names(pool)).collect();
    let first = match patience {
        Patience::Whole => Duration::MAX,
        Patience::Short => HASTE,
    };
    let asked = hosts.into_iter().map(async |host| (host, resolver.resolve_within(host, first).await));
    let mut answers: Answers<'_> = together(asked).await.into_iter().collect();
    if patience == Patience::Short {
        // A pool without any address is worth the whole time.
        let is_found = |host: &str| answers.get(host).is_some_and(Result::is_ok);
        let lonely = pools
            .iter()
            .filter(|pool| names(pool).count() == pool.backends.len() && !names(pool).any(is_found));
        let hosts: HashSet<&str> = lonely.flat_map(|pool| names(pool)).collect();
        let again = hosts.into_iter().map(async |host| (host, resolver.resolve(host).await));
        answers.extend(together(again).await);
    }
    for answer in answers.values() {
        count(answer.as_ref().ok(), metrics);
    }
    answers
}

/// How long names are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as one look-up may take.
    Whole,
    /// At a start and in a reload: little, where a pool has other addresses. What comes later is asked for again.
    Short,
}

fn count(answer: Option<&Resolved>, metrics: &Metrics) {
    match answer {
        Some(answer) if answer.cached => metrics.dns_cache_hits.inc(),
        Some(_) => metrics.dns_cache_misses.inc(),
        None => metrics.dns_failures.inc(),
    }
}

/// The addresses of a backend, without those that a name must not lead to (attack C-03).
fn addresses(
    address: &SocketName,
    answers: &Answers<'_>,
    origin: Origin,
) -> Result<(Vec<Address>, Option<Instant>), String> {
    let address = match (address.literal(), address) {
        (None, SocketName::Host(address)) => address,
        (literal, _) => return Ok((literal.into_iter().collect(), None)),
    };
    let answer = match answers.get(address.host.as_str()) {
        Some(Ok(answer)) => answer,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err(format!("name `{}` was not asked for", address.host)),
    };
    let allow_loopback = allows_loopback(origin);
    let mut refused = None;
    let usable: Vec<Address> = answer
        .addresses
        .iter()
        .filter(|ip| match refusal(**ip, allow_loopback) {
            Some(why) => {
                refused = Some(format!("name `{}` leads to {ip}, a {why}", address.host));
                false
            }
            None => true,
        })
        .map(|ip| SocketAddr::new(*ip, address.port).into())
        .collect();
    match refused {
        Some(reason) if usable.is_empty() => Err(reason),
        Some(reason) if !answer.cached => {
            tracing::warn!(reason, "address of a name is not used");
            Ok((usable, answer.valid_until))
        }
        _ => Ok((usable, answer.valid_until)),
    }
}

fn allows_loopback(origin: Origin) -> bool {
    !matches!(origin, Origin::Discovery { allow_loopback: false })
}

/// What a name that leads nowhere keeps of its last addresses: those of the same name elsewhere may have been allowed there alone, and the
/// rules may have changed (attack C-03).
fn kept(addresses: &[Address], origin: Origin) -> Vec<Address> {
    let allow_loopback = allows_loopback(origin);
    let may_be_used = |address: &Address| {
        address.socket_addr().is_some_and(|address| refusal(address.ip(), allow_loopback).is_none())
    };
    addresses.iter().copied().filter(may_be_used).collect()
}

/// Least time between two questions for a name.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// When to ask again after a failure.
pub(crate) fn retry_after(resolver: &Resolver) -> Duration {
    resolver.negative_ttl().max(LEAST_WAIT)
}

fn context(pool: &BackendPool, backend: &str) -> String {
    format!("{}: backend {backend}", pool.id.owner())
}

/// A backend of this name that has addresses: one of the pool, or else one of another pool.
fn find<'a>(known: &'a PoolBackends, pool: &PoolId, name: &str) -> Option<&'a ResolvedBackend> {
    let own = known.get(pool).into_iter();
    let mut all = own.chain(known.values()).flatten();
    all.find(|backend| backend.name == name && !backend.addresses.is_empty())
}

fn knows(known: &PoolBackends, name: &str) -> bool {
    known.values().flatten().any(|backend| backend.name == name)
}

/// Asks for every name of the configuration, and says of each that leads nowhere why. Nothing is put in force.
///
/// # Errors
/// When a start would fail for the names; tells of all of them.
pub(crate) async fn trial(config: &Config) -> anyhow::Result<Vec<String>> {
    let (resolver, metrics) = (resolver(&config.dns)?, Metrics::new(1));
    let answers = ask(config, &resolver, &metrics, Patience::Whole).await;
    let mut problems = Vec::new();
    for pool in config.pools_in_use() {
        for backend in &pool.backends {
            if let Err(reason) = addresses(&backend.address, &answers, Origin::File) {
                let places = faults::of_backend(config, &pool.id, &backend.name, &reason);
                problems.extend(places.iter().map(ToString::to_string));
            }
        }
    }
    let mut faults = Collected::default();
    for listener in config.listeners.iter().filter(|listener| listener.starts()) {
        if let Err(error) = listen_addresses(&listener.address, &resolver, &metrics).await {
            faults.extend(faults::of_listener(config, listener, &format!("{error:#}")));
        }
    }
    faults.keep(resolve(config, |_, _| Origin::File, &resolver, &metrics, (None, Patience::Whole)).await);
    if faults.is_empty() { Ok(problems) } else { Err(faults.into_error()) }
}

/// The addresses that a listener binds.
pub(crate) async fn listen_addresses(
    address: &SocketName,
    resolver: &Resolver,
    metrics: &Metrics,
) -> anyhow::Result<Vec<Address>> {
    let address = match (address.literal(), address) {
        (None, SocketName::Host(address)) => address,
        (literal, _) => return Ok(literal.into_iter().collect()),
    };
    let resolved = resolver.resolve(&address.host).await;
    count(resolved.as_ref().ok(), metrics);
    Ok(resolved?.addresses.iter().map(|ip| SocketAddr::new(*ip, address.port).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_is_one_of_a_look_up_however_many_backends_bear_the_name() {
        let dns = testkit::dns::Dns::start();
        dns.set("here.test", &["127.0.0.1"], 60);
        let text = format!(
            "[dns]\nservers = [\"{}\"]\n\
             [[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"tcp\"\npool = \"p\"\n\
             [[listeners]]\naddress = \"127.0.0.1:81\"\nprotocol = \"tcp\"\npool = \"p\"\n\
             [[pools.p.backends]]\naddress = \"gone.test:80\"\n\
             [[pools.p.backends]]\naddress = \"gone.test:81\"\n\
             [[pools.p.backends]]\naddress = \"here.test:80\"\n\
             [[pools.p.backends]]\naddress = \"here.test:81\"\n",
            dns.address
        );
        let config = Config::parse(&text, "lb.toml").unwrap();
        let resolver = resolver(&config.dns).unwrap();
        let metrics = Metrics::new(1);
        let origin = |_: &PoolId, _: &SocketName| Origin::Discovery { allow_loopback: false };
        let told = resolver.resolve("nobody.test").await.unwrap_err().to_string();
        assert!(told.starts_with("name `nobody.test` does not resolve: the"), "{told}");
        // The second name has an answer that is not used, and is still at hand in the second pass.
        for (failures, misses, hits) in [(2, 1, 0), (3, 1, 1)] {
            let resolution =
                resolve(&config, origin, &resolver, &metrics, (None, Patience::Whole)).await.unwrap();
            assert!(resolution.pools.values().flatten().all(|backend| backend.addresses.is_empty()));
            let counters = [&metrics.dns_failures, &metrics.dns_cache_misses, &metrics.dns_cache_hits];
            assert_eq!(counters.map(|counter| counter.value()), [failures, misses, hits]);
        }
    }

    #[test]
    fn c_03_what_is_kept_is_what_may_be_used() {
        let all: Vec<Address> = ["10.0.0.1:80", "127.0.0.1:80", "[::1]:80"]
            .iter()
            .map(|text| text.parse::<SocketAddr>().unwrap().into())
            .collect();
        assert_eq!(kept(&all, Origin::Discovery { allow_loopback: false }), all[..1]);
        assert_eq!(kept(&all, Origin::Discovery { allow_loopback: true }), all);
        assert_eq!(kept(&all, Origin::File), all);
    }
}

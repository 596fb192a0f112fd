//! Names to addresses, with the time that an answer stays good.

mod policy;
mod services;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use tokio::time::Instant;

pub use policy::refusal;
pub use services::{MAX_SERVICES, ServiceRecord, Services};

/// Addresses kept of one answer; a hostile answer cannot make a pool grow without bound (attack C-03).
pub const MAX_ADDRESSES: usize = 64;

/// How names are looked up.
#[derive(Clone, Debug)]
pub struct ResolverOptions {
    /// Name servers; empty means those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// An answer is good for at least this long, whatever its TTL.
    pub min_ttl: Duration,
    /// An answer is good for at most this long.
    pub max_ttl: Duration,
    /// A failed look-up is repeated after this long.
    pub negative_ttl: Duration,
    /// Time for one query.
    pub timeout: Duration,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// All addresses, sorted, so that two answers with the same addresses are equal.
    pub addresses: Vec<IpAddr>,
    /// When to ask again; `None` for an address literal.
    pub valid_until: Option<Instant>,
    /// Whether the answer was at hand.
    pub cached: bool,
}

/// Why a name has no address.
#[derive(Debug)]
pub struct ResolveError {
    name: String,
    reason: String,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name `{}` does not resolve: {}", self.name, self.reason)
    }
}

impl std::error::Error for ResolveError {}

/// What went wrong, for people: the resolver's own words show a query as a structure of Rust.
fn words(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            "there is no such name".to_owned()
        }
        NetError::Dns(DnsError::NoRecordsFound(_)) => "the name has no such records".to_owned(),
        other => other.to_string(),
    }
}

/// Resolves names by `/etc/hosts` and DNS, and remembers answers for their time to live.
pub struct Resolver {
    inner: TokioResolver,
    options: ResolverOptions,
    cache: RefCell<HashMap<String, (Vec<IpAddr>, Instant)>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver that lives on the event loop of this thread.
    ///
    /// # Errors
    /// When the system's resolver configuration cannot be read.
    pub fn new(options: ResolverOptions) -> Result<Self, ResolveError> {
        let failed = |error: &dyn fmt::Display| ResolveError {
            name: "/etc/resolv.conf".to_owned(),
            reason: error.to_string(),
        };
        let mut builder = if options.servers.is_empty() {
            match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                // A machine without name servers can still use address literals and /etc/hosts.
                Err(_) => TokioResolver::builder_with_config(
                    ResolverConfig::default(),
                    TokioRuntimeProvider::default(),
                ),
            }
        } else {
            let servers = options.servers.iter().map(|server| name_server(*server)).collect();
            TokioResolver::builder_with_config(
                ResolverConfig::from_parts(None, Vec::new(), servers),
                TokioRuntimeProvider::default(),
            )
        };
        apply(builder.options_mut(), &options);
        let inner = builder.build().map_err(|error| failed(&error))?;
        Ok(Self { inner, options, cache: RefCell::default() })
    }

    /// All addresses of `host`, which is a name or an address literal without brackets.
    ///
    /// # Errors
    /// When the name has no address, or no server answers within the time of the options.
    pub async fn resolve(&self, host: &str) -> Result<Resolved, ResolveError> {
        self.resolve_within(host, self.options.timeout).await
    }

    /// Does what [`Self::resolve`] does, in less time: what has not come by then is an error.
    ///
    /// # Errors
    /// As those of [`Self::resolve`].
    pub async fn resolve_within(&self, host: &str, time: Duration) -> Result<Resolved, ResolveError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return Ok(Resolved { addresses: vec![literal], valid_until: None, cached: true });
        }
        let now = Instant::now();
        let known = self.cache.borrow().get(host).filter(|(_, until)| *until > now).cloned();
        if let Some((addresses, until)) = known {
            return Ok(Resolved { addresses, valid_until: Some(until), cached: true });
        }
        let failed = |reason: String| ResolveError { name: host.to_owned(), reason };
        let time = time.min(self.options.timeout);
        let answer = tokio::time::timeout(time, self.inner.lookup_ip(host));
        let answer = match answer.await {
            Ok(answer) => answer.map_err(|error| failed(words(&error)))?,
            Err(_) => return Err(failed(format!("no answer within {} ms", time.as_millis()))),
        };
        let mut addresses: Vec<IpAddr> = answer.iter().take(MAX_ADDRESSES).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(failed("the answer holds no address".to_owned()));
        }
        let ttl = answer.valid_until().saturating_duration_since(std::time::Instant::now());
        let until = now + ttl.clamp(self.options.min_ttl, self.options.max_ttl.max(self.options.min_ttl));
        self.cache.borrow_mut().insert(host.to_owned(), (addresses.clone(), until));
        Ok(Resolved { addresses, valid_until: Some(until), cached: false })
    }

    /// Forgets every name that `keep` does not hold, so that the cache is as large as the configuration.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.cache.borrow_mut().retain(|name, _| keep(name));
    }

    /// Names remembered.
    pub fn cached_names(&self) -> usize {
        self.cache.borrow().len()
    }

    /// How long to wait after a failed look-up.
    pub fn negative_ttl(&self) -> Duration {
        self.options.negative_ttl
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut udp = ConnectionConfig::udp();
    let mut tcp = ConnectionConfig::tcp();
    udp.port = address.port();
    tcp.port = address.port();
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

fn apply(inner: &mut ResolverOpts, options: &ResolverOptions) {
    // A datagram may be lost, so that each of two has half of the time.
    inner.timeout = options.timeout / 2;
    inner.attempts = 2;
    inner.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Answers are remembered here, where hits can be counted and old answers kept while servers fail.
    inner.cache_size = 0;
}

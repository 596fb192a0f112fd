//! What a listener does with connections, as one worker sees it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lb_config::{HashKey, MintRetry, Passthrough, PoolId, QuicLb};
use lb_core::balance::hash;
use lb_core::quic::paths::ClientKey;
use lb_core::quic::routable::{Format, ServerId};
use lb_observe::metrics::BackendMetrics;
use lb_pool::{WorkerMember, WorkerPool};
use lb_security::RetrySecret;

use super::cipher::Aes128;
use super::names::NameTable;

/// A pool as this worker sees it.
#[derive(Debug)]
pub struct PassthroughPool {
    /// Whose state all workers share.
    pub(crate) balance: Rc<WorkerPool>,
    members: Vec<WorkerMember<()>>,
    hash_key: HashKey,
}

impl PassthroughPool {
    /// A pool whose members are those of `balance`, in its order, each counted in the metrics of its backend.
    pub fn new(
        balance: Rc<WorkerPool>,
        metrics: impl IntoIterator<Item = Arc<BackendMetrics>>,
        hash_key: HashKey,
    ) -> Rc<Self> {
        let members = metrics.into_iter().enumerate();
        let members = members.map_while(|(at, metrics)| balance.member(at, None, metrics)).collect();
        Rc::new(Self { balance, members, hash_key })
    }

    /// The member for a connection of this client, other than those at `tried`.
    pub(crate) fn pick(&self, client: &ClientKey, tried: Option<usize>, now: Instant) -> Option<usize> {
        let key = self.balance.follows_key().then(|| key(&self.hash_key, client));
        self.balance.pick(now, key, |at| Some(at) != tried && self.address(at).is_some())
    }

    /// Where the member at `at` listens.
    pub(crate) fn address(&self, at: usize) -> Option<SocketAddr> {
        self.members.get(at)?.address().socket_addr()
    }

    pub(crate) fn metrics(&self, at: usize) -> Option<&Arc<BackendMetrics>> {
        self.members.get(at).map(|member| &member.metrics)
    }

    /// The member that listens at this address.
    fn position(&self, backend: SocketAddr) -> Option<usize> {
        (0..self.members.len()).find(|at| self.address(*at) == Some(backend))
    }
}

/// The key of a client: its IP address, or what identifies its connection as seen from outside, which is the same for every packet, after a
/// restart as before it.
fn key(by: &HashKey, client: &ClientKey) -> u64 {
    match by {
        HashKey::ConnectionId => hash::mix(hash::ip(client.from.ip()) ^ u64::from(client.from.port()) << 17),
        _ => hash::ip(client.from.ip()),
    }
}

/// A format of connection IDs, with its servers.
#[derive(Debug)]
struct Servers {
    format: Format,
    cipher: Option<Aes128>,
    backends: HashMap<ServerId, SocketAddr>,
}

/// What was read of the files that the block names.
#[derive(Debug)]
pub struct PassthroughSecrets {
    /// Signs Retry tokens.
    pub retry: RetrySecret,
    /// The key of each entry of `quic_lb`, where it has one.
    pub quic_lb: Vec<Option<[u8; 16]>>,
}

/// Everything about a listener that a reload can change.
#[derive(Debug)]
pub struct PassthroughSettings {
    pub(crate) config: Passthrough,
    pub(crate) secrets: Arc<PassthroughSecrets>,
    /// The first is that of names without a route.
    pools: Vec<Rc<PassthroughPool>>,
    names: NameTable<usize>,
    servers: Vec<Servers>,
}

impl PassthroughSettings {
    /// PassthroughSettings for one worker. `pool` gives the pool of an identity, the first of which is `default`.
    pub fn new(
        config: Passthrough,
        secrets: Arc<PassthroughSecrets>,
        default: Rc<PassthroughPool>,
        mut pool: impl FnMut(&PoolId) -> Option<Rc<PassthroughPool>>,
    ) -> Rc<Self> {
        let mut pools = vec![default];
        let mut names = Vec::new();
        for route in &config.routes {
            let Some(pool) = pool(&route.pool.id) else { continue };
            names.extend(route.sni.iter().map(|name| (name.as_str(), pools.len())));
            pools.push(pool);
        }
        let names = NameTable::new(names);
        let keys = secrets.quic_lb.iter().chain(std::iter::repeat(&None));
        let servers =
            config.quic_lb.iter().zip(keys).filter_map(|(lb, key)| servers(lb, key.as_ref())).collect();
        Rc::new(Self { config, secrets, pools, names, servers })
    }

    /// Whether connections wait for their server names.
    pub(crate) fn routes_by_name(&self) -> bool {
        !self.names.is_empty()
    }

    /// The pool of a server name, or of none.
    pub(crate) fn pool(&self, name: Option<&str>) -> Option<&Rc<PassthroughPool>> {
        let at = name.and_then(|name| self.names.find(name)).unwrap_or(0);
        self.pools.get(at)
    }

    /// The member of any pool that listens at this address.
    pub(crate) fn member(&self, backend: SocketAddr) -> Option<(&Rc<PassthroughPool>, usize)> {
        self.pools.iter().find_map(|pool| Some((pool, pool.position(backend)?)))
    }

    /// The backend that has made the connection ID which `bytes` begin with, and the length of that ID.
    pub(crate) fn server(&self, bytes: &[u8]) -> Option<(usize, SocketAddr)> {
        self.servers.iter().find_map(|servers| {
            let server = servers.format.server(bytes, servers.cipher.as_ref())?;
            Some((servers.format.id_length(), *servers.backends.get(&server)?))
        })
    }

    /// Whether clients of this backend are answered with Retry.
    pub(crate) fn mints_for(&self, backend: SocketAddr) -> bool {
        match self.config.mint_retry {
            MintRetry::Always => true,
            MintRetry::Never => false,
            MintRetry::Auto => self.config.retry_secret_shared_with.contains(&backend),
        }
    }
}

fn servers(lb: &QuicLb, key: Option<&[u8; 16]>) -> Option<Servers> {
    let length = lb.servers.first()?.0.len();
    let format = Format::new(lb.config_id, length, lb.nonce_length).ok()?;
    let cipher = match key {
        Some(key) => Some(Aes128::new(key)?),
        None => None,
    };
    let backends = lb.servers.iter().filter_map(|(id, to)| Some((ServerId::new(id)?, *to))).collect();
    Some(Servers { format, cipher, backends })
}

//! What a prober asks of one address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::uri::Authority;
use lb_config::{BackendPool, BackendProtocol, Probe};
use lb_core::address::Address;
use lb_pool::MemberKey;
use lb_security::ClientTls;

use crate::tls::BackendsTls;

/// The authority of a backend at a Unix socket, whose address can be none.
const AT_UNIX_SOCKET: &str = "localhost";

/// What is asked of one address, and how it is reached.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What is asked.
    pub(super) probe: Probe,
    /// Where.
    pub(super) address: Address,
    /// `Host`, or `:authority`.
    pub(super) authority: Authority,
    /// Whether the question goes over HTTP/2.
    pub(super) http2: bool,
    /// How it is reached inside TLS, if it is.
    pub(super) tls: Option<Arc<ClientTls>>,
    /// What is said before all other bytes.
    pub(super) preface: Vec<u8>,
    /// How long all of it may take.
    pub(super) timeout: Duration,
}

impl Plan {
    /// For a member of a pool whose traffic is HTTP or not, if the pool is probed.
    pub(super) fn of(
        pool: &BackendPool,
        is_http: bool,
        tls: &BackendsTls,
        member: &MemberKey,
    ) -> Option<Self> {
        let (health, timeout) = (pool.health.as_ref()?, pool.settings.health?.timeout);
        let backend = pool.backends.iter().find(|backend| backend.name == member.backend)?;
        let host = match &health.probe {
            Probe::Tcp | Probe::Quic | Probe::Udp(_) => &None,
            Probe::Http(request) => &request.host,
            Probe::Grpc { host, .. } => host,
        };
        let address = match member.address {
            Address::Ip(own) => SocketAddr::new(own.ip(), health.port.unwrap_or(own.port())).into(),
            Address::Unix(path) => path.into(),
        };
        let own_authority =
            || backend.address.host_port().map_or(AT_UNIX_SOCKET.to_owned(), ToString::to_string);
        let authority = host.clone().unwrap_or_else(own_authority);
        Some(Self {
            probe: health.probe.clone(),
            address,
            // An IPv6 address with a scope is no authority.
            authority: authority.parse().or_else(|_| address.to_string().parse()).ok()?,
            http2: match &health.probe {
                Probe::Grpc { .. } => true,
                _ => backend.protocol == BackendProtocol::H2,
            },
            tls: tls.of_probe(pool, is_http, backend),
            // A probe is of no client.
            preface: backend.proxy_protocol.map(|sends| sends.local()).unwrap_or_default(),
            timeout,
        })
    }
}

/// Renewed certificates make another plan.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_tls
            && self.probe == other.probe
            && self.address == other.address
            && self.authority == other.authority
            && self.http2 == other.http2
            && self.preface == other.preface
            && self.timeout == other.timeout
    }
}

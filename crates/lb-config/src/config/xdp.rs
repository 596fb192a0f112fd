//! Services that are balanced in the kernel, before it has made a packet of what arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lb_core::identity::{PoolId, Transport};
use lb_core::route::IpNetwork;
use lb_core::words;

use super::{BackendPool, HashKey, Listener, Protocol};

/// `[xdp]`, beside the `xdp_*` keys of `[runtime]`.
#[derive(Clone, PartialEq, Debug)]
pub struct XdpPlane {
    /// What is fixed when the programs are loaded.
    pub place: XdpPlace,
    /// What holds for all services.
    pub rules: XdpRules,
    /// The services, in the order of the file. [`super::Config::xdp_services`] are those that are served.
    pub services: Vec<XdpService>,
}

/// What is fixed when the programs are loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpPlace {
    /// Where tables and attachments are pinned.
    pub pin_dir: PathBuf,
    /// Interfaces besides `runtime.xdp_interface`.
    pub interfaces: Vec<String>,
    /// Entries of the table of flows over IPv4.
    pub max_flows_v4: u32,
    /// Entries of the table of flows over IPv6.
    pub max_flows_v6: u32,
}

/// What holds for all services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpRules {
    /// What becomes of programs and flows when the process ends.
    pub at_shutdown: XdpAtShutdown,
    /// The gateway's own address towards backends over IPv4.
    pub source_v4: Option<Ipv4Addr>,
    /// The gateway's own address towards backends over IPv6.
    pub source_v6: Option<Ipv6Addr>,
    /// Source ports of translated flows.
    pub nat_ports: RangeInclusive<u16>,
    /// How many of the last bits of a tunnel's source address differ from flow to flow.
    pub tunnel_spread_bits: u32,
    /// New flows of one source in a second. 0 = no cap.
    pub new_flow_cap_per_sec_per_source: u32,
    /// SYNs of a second that one core lets through to each TCP listener, before it answers them with cookies. 0 = it never does.
    pub syn_cookies_above: u32,
    /// ICMP errors that one core forwards in a second, and as many answers of its own.
    pub icmp_cap_per_sec_per_cpu: u32,
    /// A TCP flow without packets is forgotten after it.
    pub tcp_idle_timeout: Duration,
    /// A TCP flow that has been finished is forgotten after it.
    pub tcp_closing_timeout: Duration,
    /// A UDP flow without packets is forgotten after it.
    pub udp_idle_timeout: Duration,
    /// Sources whose packets to services are dropped.
    pub deny: Vec<IpNetwork>,
    /// Sources that are let in where `deny` has a larger network, and that have no cap.
    pub allow: Vec<IpNetwork>,
}

/// `[[xdp.services]]`, or a listener with `xdp = true`.
#[derive(Clone, Debug)]
pub struct XdpService {
    /// What it is called in logs, metrics and commands.
    pub name: String,
    /// The virtual address.
    pub address: IpAddr,
    /// The port; 0 = all that have no service of their own.
    pub port: u16,
    /// What is balanced.
    pub protocol: XdpProtocol,
    /// How packets get to a backend.
    pub mode: XdpForward,
    /// Whether all flows of one client address have one backend.
    pub by_source: bool,
    /// Whether a listener serves the same address, and gets what leads to no backend in the kernel.
    pub has_listener: bool,
    /// How connection IDs of QUIC lead to backends, if they do.
    pub ids: Option<XdpIds>,
    /// Where packets go.
    pub pool: Arc<BackendPool>,
}

/// Connection IDs of QUIC that name their server in the clear (draft-ietf-quic-load-balancers).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpIds {
    /// The config rotation bits.
    pub config_id: u8,
    /// The bytes of a nonce.
    pub nonce_length: u8,
    /// The server IDs, all of one length, each with its backend.
    pub servers: Vec<(Vec<u8>, SocketAddr)>,
}

impl XdpIds {
    /// The bytes of a server ID.
    pub fn server_length(&self) -> u8 {
        self.servers.first().map_or(0, |(id, _)| u8::try_from(id.len()).unwrap_or(u8::MAX))
    }
}

/// A TCP listener whose SYNs are counted in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpListener {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl XdpListener {
    /// None for one that is not started, is taken over by the kernel, or has no address that packets could be known by.
    pub(crate) fn of(listener: &Listener) -> Option<Self> {
        if listener.xdp
            || !listener.starts()
            || listener.protocol.transport(&listener.address) != Transport::Tcp
        {
            return None;
        }
        let address = listener.address.host_port()?.socket_addr()?;
        let is_known = is_host(address.ip()) && address.port() != 0;
        is_known.then_some(Self { address: address.ip(), port: address.port() })
    }
}

/// Whether packets can come from there and go there over a wire.
pub(crate) fn is_host(address: IpAddr) -> bool {
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || is_broadcast
        || is_mapped)
}

/// Changes of a pool with a name are told under that pool.
impl PartialEq for XdpService {
    fn eq(&self, other: &Self) -> bool {
        let of = |service: &Self| {
            (service.address, service.port, service.protocol, service.mode, service.by_source)
        };
        self.name == other.name
            && of(self) == of(other)
            && self.ids == other.ids
            && self.pool.id == other.pool.id
            && (self.pool.id.listener().is_none() || self.pool == other.pool)
    }
}

impl XdpService {
    /// What the kernel does in the place of a listener with `xdp = true`: as the listener does, both addresses are translated. None for one that is not
    /// started, or that cannot be taken over.
    pub(crate) fn of_listener(listener: &Listener) -> Option<Self> {
        if !listener.xdp || !listener.starts() {
            return None;
        }
        let protocol = match listener.protocol {
            Protocol::Tcp => XdpProtocol::Tcp,
            Protocol::Udp => XdpProtocol::Udp,
            _ => return None,
        };
        let address = listener.address.host_port()?.socket_addr()?;
        let pool = Arc::clone(&listener.pool);
        Some(Self {
            name: listener.name.clone(),
            address: address.ip(),
            port: address.port(),
            protocol,
            mode: XdpForward::Nat,
            by_source: pool.settings.balance.policy.follows_key() && pool.hash_key == HashKey::SourceAddress,
            has_listener: true,
            ids: None,
            pool,
        })
    }

    /// The pool of the backends that stand in the service of this name.
    pub(crate) fn own_pool(name: &str, protocol: XdpProtocol) -> PoolId {
        let transport = match protocol {
            XdpProtocol::Tcp => Transport::Tcp,
            XdpProtocol::Udp => Transport::Udp,
        };
        PoolId::Listener(format!("xdp/{name}").into(), transport)
    }
}

words! {
    /// What becomes of programs and flows when the process ends.
    XdpAtShutdown {
        /// They stay, and packets are forwarded meanwhile.
        Keep = "keep",
        /// They are taken away.
        Detach = "detach",
    }
}

words! {
    /// What a service balances.
    XdpProtocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

words! {
    /// How packets get to a backend.
    XdpForward {
        /// In another IP packet.
        Ipip = "dsr-ipip",
        /// In a UDP packet.
        Gue = "dsr-gue",
        /// By the MAC address of the backend.
        Link = "dsr-l2",
        /// With addresses and ports of gateway and backend.
        Nat = "nat",
    }
}

impl XdpForward {
    /// Whether a backend is reached over the family of the service's address alone.
    pub fn keeps_family(self) -> bool {
        matches!(self, Self::Link | Self::Nat)
    }

    /// Whether packets carry an address of the gateway.
    pub fn has_source(self) -> bool {
        self != Self::Link
    }
}

//! From a configuration and the state of its pools to what the tables are to say.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_config::{XdpForward, XdpListener, XdpProtocol, XdpRules, XdpService};
use lb_core::address::Address;
use lb_core::route::IpNetwork;
use lb_l4_xdp::layout::{AclRule, LAYOUT_VERSION, Mode, Settings, Standing, TICK_SHIFT};
use lb_l4_xdp::{IdFormat, Vip, Wanted, WantedMember, WantedService, server_id_words};
use lb_pool::{PoolView, Subscription};

use crate::snapshot::Snapshot;

/// The same on all gateways, so that they choose alike.
const HASH_SEED: u32 = 0x6c62_7864;

/// An entry whose connection was reset is believed to be over after it, unless another packet comes.
const RESET_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a next hop is believed.
const HOP_LIFE: Duration = Duration::from_secs(1);

/// The services of a configuration, each with its pool.
pub(super) struct Followed {
    rules: XdpRules,
    new_flows_per_core: u32,
    services: Vec<(XdpService, Subscription<PoolView>)>,
    /// Those whose SYNs are counted.
    listeners: Vec<XdpListener>,
}

impl Followed {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let services = snapshot.config.xdp_services().into_iter();
        Self {
            rules: snapshot.config.xdp.rules.clone(),
            new_flows_per_core: snapshot.config.runtime.xdp.new_flow_cap_per_sec_per_cpu,
            services: services
                .filter_map(|service| {
                    let pool = snapshot.pool(&service.pool.id)?.shared.subscribe();
                    Some((service, pool))
                })
                .collect(),
            listeners: snapshot.config.syn_cookie_listeners(),
        }
    }

    /// Whether a pool has changed since the tables were made.
    pub(super) fn is_behind(&self) -> bool {
        self.services.iter().any(|(_, pool)| pool.is_behind())
    }

    /// The name of each service by what it is found by.
    pub(super) fn names(&self) -> impl Iterator<Item = (Vip, &str)> {
        self.services.iter().map(|(service, _)| (vip(service), service.name.as_str()))
    }

    /// How many octets a tunnel adds to a packet at most; 0 without tunnels.
    pub(super) fn overhead(&self) -> u32 {
        let outer: u32 = if self.rules.source_v6.is_some() { 40 } else { 20 };
        let of = |service: &XdpService| match service.mode {
            XdpForward::Ipip => outer,
            XdpForward::Gue => outer.saturating_add(8),
            XdpForward::Link | XdpForward::Nat => 0,
        };
        self.services.iter().map(|(service, _)| of(service)).max().unwrap_or(0)
    }

    /// What the tables are to say now. `secret` is the seed of the counters by source.
    pub(super) fn wanted(&self, secret: u32) -> Wanted {
        let rules = self.acl();
        let has = |is_ipv4: bool| u8::from(rules.keys().any(|(address, _)| address.is_ipv4() == is_ipv4));
        let times = [
            self.rules.udp_idle_timeout,
            self.rules.tcp_idle_timeout,
            self.rules.tcp_closing_timeout,
            RESET_TIMEOUT,
        ];
        let settings = Settings {
            layout_version: LAYOUT_VERSION,
            hash_seed: HASH_SEED,
            source_seed: secret,
            new_flows_per_core: self.new_flows_per_core,
            new_flows_per_source: self.rules.new_flow_cap_per_sec_per_source,
            icmp_per_core: self.rules.icmp_cap_per_sec_per_cpu,
            idle: times.map(ticks),
            hop_life: ticks(HOP_LIFE),
            has_acl4: has(true),
            has_acl6: has(false),
            zero: [0; 2],
        };
        let services = self.services.iter().map(|(service, pool)| self.service(service, &pool.newest()));
        let listeners = self.listeners.iter().map(|listener| self.listener(listener));
        Wanted { settings, services: services.chain(listeners).collect(), rules }
    }

    fn acl(&self) -> BTreeMap<(IpAddr, u8), AclRule> {
        let of = |one: &IpNetwork, rule| ((one.address(), one.length()), rule);
        let deny = self.rules.deny.iter().map(|one| of(one, AclRule::Deny));
        deny.chain(self.rules.allow.iter().map(|one| of(one, AclRule::Allow))).collect()
    }

    fn service(&self, service: &XdpService, pool: &PoolView) -> WantedService {
        let mode = match service.mode {
            XdpForward::Ipip => Mode::Ipip,
            XdpForward::Gue => Mode::Gue,
            XdpForward::Link => Mode::Link,
            XdpForward::Nat => Mode::Nat,
        };
        let (first, last) = (*self.rules.nat_ports.start(), *self.rules.nat_ports.end());
        WantedService {
            vip: vip(service),
            mode,
            by_source: service.by_source,
            has_listener: service.has_listener,
            nat_source: self.source(service.address.is_ipv4()).filter(|_| mode == Mode::Nat),
            nat_ports: (first, last.saturating_sub(first).saturating_add(1)),
            ids: service.ids.as_ref().map(|ids| IdFormat {
                rotation: ids.config_id,
                server_id: ids.server_length(),
                length: ids.nonce_length.saturating_add(ids.server_length()).saturating_add(1),
            }),
            syns_per_core: 0,
            members: self.members(service, pool),
        }
    }

    /// A listener of this machine, which has no backends in the kernel.
    fn listener(&self, listener: &XdpListener) -> WantedService {
        WantedService {
            vip: Vip { address: listener.address, protocol: TCP, port: listener.port },
            mode: Mode::Local,
            by_source: false,
            has_listener: true,
            nat_source: None,
            nat_ports: (0, 0),
            ids: None,
            syns_per_core: self.rules.syn_cookies_above,
            members: Vec::new(),
        }
    }

    fn members(&self, service: &XdpService, pool: &PoolView) -> Vec<WantedMember> {
        let seats = pool.seats();
        let is_tunnel = service.mode.has_source() && !service.mode.keeps_family();
        let mut members = Vec::new();
        for (at, (address, spec, state)) in (0u32..).zip(pool.members()) {
            let Address::Ip(address) = address else { continue };
            // What names and sources lead to is not known when the configuration is read.
            let fits = !service.mode.keeps_family() || address.is_ipv4() == service.address.is_ipv4();
            let tunnel_source = self.source(address.is_ipv4()).filter(|_| is_tunnel);
            if !fits || is_tunnel && tunnel_source.is_none() {
                tracing::warn!(
                    service = service.name,
                    backend = %address,
                    "a backend in the kernel has an address of a family that cannot be reached — it gets nothing"
                );
                continue;
            }
            let is_well = state.healthy && !state.ejected && !state.draining;
            let seat = seats.iter().find(|seat| seat.at == at).filter(|_| is_well || pool.is_in_panic());
            let standing = match seat {
                Some(_) => Standing::Live,
                // It finishes what it has, whether an operator has said so or its own answers do.
                None if state.answers => Standing::Draining,
                None => Standing::Absent,
            };
            members.push(WantedMember {
                address,
                identity: spec.identity,
                standing,
                weight: seat.map_or(0, |seat| seat.weight),
                tunnel_source,
                spread_bits: self.rules.tunnel_spread_bits,
                server_ids: server_ids(service, address),
            });
        }
        members
    }

    /// The gateway's address towards backends.
    fn source(&self, is_ipv4: bool) -> Option<IpAddr> {
        if is_ipv4 { self.rules.source_v4.map(IpAddr::V4) } else { self.rules.source_v6.map(IpAddr::V6) }
    }
}

/// The server IDs of the backend at an address.
fn server_ids(service: &XdpService, address: SocketAddr) -> Vec<[u32; 4]> {
    let servers = service.ids.iter().flat_map(|ids| &ids.servers);
    servers.filter(|(_, own)| *own == address).map(|(id, _)| server_id_words(id)).collect()
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn vip(service: &XdpService) -> Vip {
    let protocol = match service.protocol {
        XdpProtocol::Tcp => TCP,
        XdpProtocol::Udp => UDP,
    };
    Vip { address: service.address, protocol, port: service.port }
}

/// A time in ticks of the programs' clock.
fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() >> TICK_SHIFT).unwrap_or(u32::MAX >> 1)
}

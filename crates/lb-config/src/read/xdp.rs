//! `[xdp]`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use lb_core::identity::Transport;
use lb_core::route::IpNetwork;

use super::listener::find_pool;
use super::pool::{self, Pools};
use super::{Report, passthrough};
use crate::config::{
    Backend, BackendPool, BackendProtocol, Listener, Protocol, SocketName, Xdp, XdpAtShutdown, XdpForward,
    XdpIds, XdpListener, XdpPlace, XdpPlane, XdpProtocol, XdpRules, XdpService, is_host,
};
use crate::document::View;

/// Where tables are pinned unless the file says otherwise.
const PIN_DIR: &str = "/sys/fs/bpf/expressgateway";

/// Half of what the table in the kernel has room for, so that a reload may replace all of them.
const MOST_SERVICES: usize = 256;

/// The block, present or not. `runtime` is what `[runtime]` says of XDP.
pub(super) fn plane(
    view: View<'_>,
    runtime: &Xdp,
    pools: &Pools,
    listeners: &[(View<'_>, &Listener)],
    report: &mut Report<'_>,
) -> Option<XdpPlane> {
    if view.blocks("services").len() > MOST_SERVICES {
        report.error(view, "services", format!("must be at most {MOST_SERVICES}"));
    }
    if !runtime.enabled && view.node.is_some() {
        report.warn_about(view, "does nothing while runtime.xdp_enabled is false");
    }
    let place = XdpPlace {
        pin_dir: view.path("pin_dir").unwrap_or_else(|| PathBuf::from(PIN_DIR)),
        interfaces: interfaces(view, runtime, report),
        max_flows_v4: view.int32("max_flows_v4"),
        max_flows_v6: view.int32("max_flows_v6"),
    };
    let rules = rules(view, report)?;
    let mut services: Vec<XdpService> = Vec::new();
    let (mut names, mut vips) = (HashSet::new(), HashMap::new());
    for view in view.blocks("services") {
        let service = service(view, &rules, pools, report)?;
        if !names.insert(service.name.clone()) {
            report.error(view, "name", "another service has this name");
        }
        let vip = (service.address, service.port, service.protocol);
        if let Some(other) = vips.insert(vip, service.name.clone()) {
            let problem =
                format!("service {other} has this address, port and protocol, and a packet has one service");
            report.error(view, "address", problem);
        }
        services.push(service);
    }
    let in_front = listeners.iter().filter(|(view, _)| view.flag("xdp"));
    let counted = check_syn_cookies(view, &rules, listeners, report);
    if services.len().saturating_add(in_front.clone().count()).saturating_add(counted) > MOST_SERVICES {
        let problem = format!(
            "and listeners with xdp = true or with SYN cookies must be at most {MOST_SERVICES} together"
        );
        report.error(view, "services", problem);
    }
    for &(view, listener) in in_front {
        let Some(vip) = in_front_of(view, listener, runtime, &rules, report) else { continue };
        if let Some(other) = vips.insert(vip, listener.name.clone()) {
            let problem =
                format!("service {other} has this address, port and protocol, and a packet has one service");
            report.error(view, "xdp", problem);
        }
    }
    Some(XdpPlane { place, rules, services })
}

fn interfaces(view: View<'_>, runtime: &Xdp, report: &mut Report<'_>) -> Vec<String> {
    let interfaces = view.texts("interfaces");
    let mut seen: HashSet<&str> = runtime.interface.as_deref().into_iter().collect();
    let twice = interfaces.iter().find(|name| !seen.insert(name));
    if let Some(name) = twice {
        report.error(view, "interfaces", format!("{name} is there already: each interface stands once"));
    }
    interfaces
}

fn rules(view: View<'_>, report: &mut Report<'_>) -> Option<XdpRules> {
    let ports = ["nat_port_first", "nat_port_last"].map(|name| u16::try_from(view.integer(name)));
    let [first, last] = ports.map(Result::unwrap_or_default);
    if last < first {
        report.error(view, "nat_port_last", format!("must be at least xdp.nat_port_first ({first})"));
    }
    let (deny, allow) = (networks(view, "deny"), networks(view, "allow"));
    if allow.iter().any(|network| deny.contains(network)) {
        report.error(view, "allow", "one of these networks stands in xdp.deny too");
    }
    Some(XdpRules {
        at_shutdown: XdpAtShutdown::from_word(view.word("at_shutdown")?)?,
        source_v4: source(view, "source_v4", report),
        source_v6: source(view, "source_v6", report),
        nat_ports: first..=last,
        tunnel_spread_bits: view.int32("tunnel_spread_bits"),
        new_flow_cap_per_sec_per_source: view.int32("new_flow_cap_per_sec_per_source"),
        syn_cookies_above: view.int32("syn_cookies_above_per_sec_per_cpu"),
        icmp_cap_per_sec_per_cpu: view.int32("icmp_cap_per_sec_per_cpu"),
        tcp_idle_timeout: view.millis("tcp_idle_timeout_ms"),
        tcp_closing_timeout: view.millis("tcp_closing_timeout_ms"),
        udp_idle_timeout: view.millis("udp_idle_timeout_ms"),
        deny,
        allow,
    })
}

fn networks(view: View<'_>, name: &str) -> Vec<IpNetwork> {
    view.texts(name).iter().filter_map(|text| IpNetwork::parse(text)).collect()
}

/// An address of one family.
trait Family: Sized {
    const NAME: &'static str;
    fn of(address: IpAddr) -> Option<Self>;
}

impl Family for Ipv4Addr {
    const NAME: &'static str = "an IPv4 address";
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl Family for Ipv6Addr {
    const NAME: &'static str = "an IPv6 address";
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        }
    }
}

fn source<F: Family>(view: View<'_>, name: &str, report: &mut Report<'_>) -> Option<F> {
    let address: IpAddr = view.text(name)?.parse().ok()?;
    let own = F::of(address).filter(|_| is_host(address));
    if own.is_none() {
        report.error(view, name, format!("must be {} of one host", F::NAME));
    }
    own
}

fn service(view: View<'_>, rules: &XdpRules, pools: &Pools, report: &mut Report<'_>) -> Option<XdpService> {
    let address: IpAddr = view.text("address")?.parse().ok()?;
    if !is_host(address) {
        report.error(view, "address", "must be an address of one host, and no loopback address");
    }
    let mode = XdpForward::from_word(view.word("mode")?)?;
    check_source(view, "mode", (address, mode), rules, report);
    let (name, protocol) = (view.text("name")?, XdpProtocol::from_word(view.word("protocol")?)?);
    let pool = pool(view, name, protocol, pools, report)?;
    check_backends(view, (address, mode), &pool, rules, report);
    let port = u16::try_from(view.integer("port")).unwrap_or_default();
    Some(XdpService {
        name: name.to_owned(),
        address,
        port,
        protocol,
        mode,
        by_source: view.flag("by_source"),
        has_listener: false,
        ids: ids(view, protocol, report),
        pool,
    })
}

/// How connection IDs lead to backends.
fn ids(view: View<'_>, protocol: XdpProtocol, report: &mut Report<'_>) -> Option<XdpIds> {
    let block = view.present("quic_lb")?;
    if protocol != XdpProtocol::Udp {
        report.error(view, "quic_lb", "not allowed with protocol = \"tcp\": QUIC runs over UDP");
    }
    let (config_id, nonce_length, servers) = passthrough::server_ids(block, report)?;
    Some(XdpIds { config_id, nonce_length: u8::try_from(nonce_length).unwrap_or(u8::MAX), servers })
}

/// The listeners whose SYNs are counted. Whoever asks for it is told of those that cannot be, and that there are none.
fn check_syn_cookies(
    view: View<'_>,
    rules: &XdpRules,
    listeners: &[(View<'_>, &Listener)],
    report: &mut Report<'_>,
) -> usize {
    const KEY: &str = "syn_cookies_above_per_sec_per_cpu";
    if rules.syn_cookies_above == 0 {
        return 0;
    }
    let over_tcp = listeners.iter().filter(|(_, listener)| {
        !listener.xdp && listener.starts() && listener.protocol.transport(&listener.address) == Transport::Tcp
    });
    let (known, unknown): (Vec<_>, Vec<_>) =
        over_tcp.partition(|(_, listener)| XdpListener::of(listener).is_some());
    if known.is_empty() {
        report.error(view, KEY, "needs a TCP listener with the IP address of one host, no loopback address, and a port: packets are known by both");
    } else {
        for (view, _) in unknown {
            report.warn(view, "address", "gets no SYN cookies of the kernel's programs: they know a listener by the IP address of one host");
        }
    }
    known.len()
}

/// What a listener with `xdp = true` is found by in the kernel; none where it cannot be taken over.
fn in_front_of(
    view: View<'_>,
    listener: &Listener,
    runtime: &Xdp,
    rules: &XdpRules,
    report: &mut Report<'_>,
) -> Option<(IpAddr, u16, XdpProtocol)> {
    let protocol = match listener.protocol {
        Protocol::Tcp => XdpProtocol::Tcp,
        Protocol::Udp => XdpProtocol::Udp,
        other => {
            let problem = format!(
                "not allowed on \"{other}\" listeners, only on \"tcp\", \"udp\": the kernel carries bytes and reads none"
            );
            report.error(view, "xdp", problem);
            return None;
        }
    };
    if !runtime.enabled {
        report.warn(view, "xdp", "does nothing while runtime.xdp_enabled is false");
    }
    let address = listener.address.host_port().and_then(|address| address.socket_addr());
    let Some(address) = address.filter(|address| is_host(address.ip()) && address.port() != 0) else {
        let problem = "needs an address that is the IP address of one host, no loopback address, and a port: packets are known by both";
        report.error(view, "xdp", problem);
        return None;
    };
    if listener.udp.proxy_protocol && protocol == XdpProtocol::Udp {
        report.error(view, "xdp", "not allowed together with udp.proxy_protocol: the kernel adds no header");
    }
    let looks_at_clients = [
        (listener.proxy_protocol.is_some(), "proxy_protocol: the kernel looks into no bytes"),
        (!listener.access.is_empty(), "an access list: the kernel would let in whom that keeps out"),
        (listener.routing.is_some(), "routes: the kernel looks into no bytes"),
        (
            listener.pool.backends.iter().any(|backend| backend.proxy_protocol.is_some()),
            "proxy_protocol of a backend: the kernel adds no header",
        ),
    ];
    for (_, what) in looks_at_clients.into_iter().filter(|(has, _)| *has) {
        report.error(view, "xdp", format!("not allowed together with {what}"));
    }
    if listener.pool.backends.iter().any(|backend| backend.tls.is_some()) {
        report.error(
            view,
            "xdp",
            "not allowed where a backend has tls: the kernel carries bytes as they are",
        );
    }
    let what = (address.ip(), XdpForward::Nat);
    check_source(view, "xdp", what, rules, report);
    check_backends(view, what, &listener.pool, rules, report);
    Some((address.ip(), address.port(), protocol))
}

/// Whether there is an address that packets to backends come from.
fn check_source(
    view: View<'_>,
    key: &'static str,
    (address, mode): (IpAddr, XdpForward),
    rules: &XdpRules,
    report: &mut Report<'_>,
) {
    if mode == XdpForward::Nat && !has_source(rules, address.is_ipv4()) {
        let source = if address.is_ipv4() { "xdp.source_v4" } else { "xdp.source_v6" };
        report.error(view, key, format!("needs {source}: packets to backends come from there"));
    }
    if is_tunnel(mode) && !has_source(rules, true) && !has_source(rules, false) {
        report.error(view, key, "needs xdp.source_v4 or xdp.source_v6: tunnels begin there");
    }
}

fn has_source(rules: &XdpRules, is_ipv4: bool) -> bool {
    if is_ipv4 { rules.source_v4.is_some() } else { rules.source_v6.is_some() }
}

fn is_tunnel(mode: XdpForward) -> bool {
    mode.has_source() && !mode.keeps_family()
}

/// Whether packets for the address get to each backend in this mode.
fn check_backends(
    view: View<'_>,
    (address, mode): (IpAddr, XdpForward),
    pool: &BackendPool,
    rules: &XdpRules,
    report: &mut Report<'_>,
) {
    let has = |is_ipv4| has_source(rules, is_ipv4);
    let is_tunnel = is_tunnel(mode);
    for backend in &pool.backends {
        let key = if view.entry("pool").is_some() { "pool" } else { "backends" };
        let Some(found) = backend.address.host_port() else {
            let problem = format!("backend {} is a Unix socket, which no packet reaches", backend.name);
            report.error(view, key, problem);
            continue;
        };
        let Some(found) = found.ip() else { continue };
        if mode.keeps_family() && found.is_ipv4() != address.is_ipv4() {
            let problem = format!(
                "backend {} is of another family than the address, which mode = \"{mode}\" cannot bridge",
                backend.name
            );
            report.error(view, key, problem);
        } else if is_tunnel && (has(true) || has(false)) && !has(found.is_ipv4()) {
            let source = if found.is_ipv4() { "xdp.source_v4" } else { "xdp.source_v6" };
            report.error(
                view,
                key,
                format!("backend {} needs {source}: its tunnel begins there", backend.name),
            );
        }
    }
}

/// The pool that the service names, or its own.
fn pool(
    view: View<'_>,
    name: &str,
    protocol: XdpProtocol,
    pools: &Pools,
    report: &mut Report<'_>,
) -> Option<Arc<BackendPool>> {
    let backends = backends(view);
    let found = view.text("pool").map(|wanted| find_pool(view, wanted, pools, report));
    if found.is_some() && view.entry("backends").is_some() {
        report.error(view, "pool", "not allowed together with [[xdp.services.backends]]");
    }
    if found.is_none() && backends.is_empty() {
        report.error(view, "backends", "missing: a service has at least one backend, or pool names a pool");
    }
    match found.flatten() {
        Some(pool) => Some(Arc::clone(pool)),
        None => pool::default(XdpService::own_pool(name, protocol), backends, report).map(Arc::new),
    }
}

fn backends(view: View<'_>) -> Vec<Backend> {
    let one = |view: View<'_>| {
        let address = view.host_port("address")?;
        Some(Backend {
            address: SocketName::Host(address.clone()),
            name: address.to_string(),
            protocol: BackendProtocol::Tcp,
            weight: view.int32("weight"),
            priority: 0,
            tls: None,
            proxy_protocol: None,
        })
    };
    view.blocks("backends").into_iter().filter_map(one).collect()
}

//! The settings that a plan compares, each with what a reload does with it.

use super::describe::{
    Difference, backends, block, difference, millis, number, own_backends, own_pools, pool_name,
};
use crate::config::{BackendPool, Config, Listener, Quic};

/// One setting of a `T`.
pub(super) struct Field<T> {
    /// The metric label.
    pub(super) label: &'static str,
    /// The keys or the block, as the file spells them; several with commas between.
    pub(super) what: &'static str,
    /// What differs, if anything does.
    pub(super) difference: fn(&T, &T) -> Option<Difference>,
    /// How to carry the running value over into the new one. Present on settings that need a restart.
    pub(super) keep: Option<fn(&mut T, &T)>,
}

impl<T> Field<T> {
    /// The keys and blocks that it stands for.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.what.split(", ")
    }
}

macro_rules! live {
    ($label:literal, $what:expr, $($place:ident).+) => { live!($label, $what, $($place).+, difference) };
    ($label:literal, $what:expr, $($place:ident).+, $describe:ident) => {
        Field { label: $label, what: $what, difference: |a, b| $describe(&a.$($place).+, &b.$($place).+), keep: None }
    };
}

macro_rules! restart {
    ($label:literal, $what:expr, $($place:ident).+) => { restart!($label, $what, $($place).+, difference) };
    ($label:literal, $what:expr, $($place:ident).+, $describe:ident) => {
        Field {
            label: $label,
            what: $what,
            difference: |a, b| $describe(&a.$($place).+, &b.$($place).+),
            keep: Some(|next, running| next.$($place).+.clone_from(&running.$($place).+)),
        }
    };
}

/// A block of the pool that a listener has for itself; changes of a pool with a name are reported under that pool.
macro_rules! own {
    ($label:literal, $what:literal, $describe:expr) => {
        Field {
            label: $label,
            what: $what,
            difference: |a, b| own_pools(a, b).and_then(|(a, b)| $describe(a, b)),
            keep: None,
        }
    };
}

/// Keys or a block of a pool with a name.
macro_rules! of_pool {
    ($label:literal, $what:expr, $describe:expr) => {
        Field { label: $label, what: $what, difference: $describe, keep: None }
    };
}

/// The certificates of a QUIC listener stand in its block `quic`.
fn tls(a: &Listener, b: &Listener) -> Option<Difference> {
    if a.quic.is_some() && b.quic.is_some() { None } else { block(&a.tls, &b.tls) }
}

/// All but the server ID, which needs a restart.
fn quic(a: &Listener, b: &Listener) -> Option<Difference> {
    let of = |listener: &Listener| {
        let quic = listener.quic.clone().map(|quic| Quic { server_id: Vec::new(), ..quic });
        quic.zip(listener.tls.clone())
    };
    block(&of(a), &of(b))
}

/// A listener that has just come to speak QUIC begins with what it is told.
fn server_id(a: &Listener, b: &Listener) -> Option<Difference> {
    let (a, b) = a.quic.as_ref().zip(b.quic.as_ref())?;
    difference(&a.server_id, &b.server_id)
}

fn keep_server_id(next: &mut Listener, running: &Listener) {
    if let (Some(next), Some(running)) = (&mut next.quic, &running.quic) {
        next.server_id.clone_from(&running.server_id);
    }
}

fn sticky(a: &BackendPool, b: &BackendPool) -> Option<Difference> {
    block(&a.sticky, &b.sticky)
}

fn health(a: &BackendPool, b: &BackendPool) -> Option<Difference> {
    let of = |pool: &BackendPool| pool.settings.health.zip(pool.health.clone());
    block(&of(a), &of(b))
}

fn outlier(a: &BackendPool, b: &BackendPool) -> Option<Difference> {
    block(&a.settings.outlier, &b.settings.outlier)
}

fn limits(a: &BackendPool, b: &BackendPool) -> Option<Difference> {
    difference(&a.settings.limits, &b.settings.limits)
}

/// Without its block a pool has no number of tries of its own.
fn retry(a: &BackendPool, b: &BackendPool) -> Option<Difference> {
    let of = |pool: &BackendPool| pool.settings.retry.attempts.map(|_| pool.settings.retry);
    block(&of(a), &of(b))
}

fn discovery(a: &BackendPool, b: &BackendPool) -> Option<Difference> {
    block(&a.discovery, &b.discovery)
}

/// What stands in the listener: changes of tables that it shares are reported once, under these.
fn routes(a: &Listener, b: &Listener) -> Option<Difference> {
    let of = |listener: &Listener| {
        let routing = listener.routing.clone();
        routing.map(|routing| (routing.own.clone(), routing.table.policy(), routing.keeps_override_fields))
    };
    block(&of(a), &of(b))
}

fn balance(a: &BackendPool, b: &BackendPool) -> Option<Difference> {
    difference(&(&a.settings.balance, &a.hash_key), &(&b.settings.balance, &b.hash_key))
}

pub(super) const LISTENER_FIELDS: &[Field<Listener>] = &[
    Field { label: "listener.backends", what: "backends", difference: own_backends, keep: None },
    Field { label: "listener.pool", what: "pool", difference: pool_name, keep: None },
    Field {
        label: "listener.routes",
        what: "routes, route_tables, virtual_hosts, policies, paths",
        difference: routes,
        keep: None,
    },
    own!("listener.sticky", "sticky", sticky),
    own!("listener.health", "health", health),
    own!("listener.outlier", "outlier", outlier),
    own!("listener.limits", "limits", limits),
    own!("listener.retry", "retry", retry),
    own!("listener.discovery", "discovery", discovery),
    live!("listener.client_address", "client_address", client_address, block),
    live!("listener.access", "policies", access),
    live!("listener.proxy_protocol", "proxy_protocol", proxy_protocol, block),
    live!("listener.l7", "http", http),
    live!("listener.l7", "request_id", request_id, block),
    live!("listener.l7", "h2c", h2c),
    live!("listener.xdp", "xdp", xdp),
    live!("listener.l7", "h2_security", h2_security),
    live!("listener.l7", "websocket", websocket, block),
    live!("listener.l7", "alt_svc", alt_svc, block),
    live!("listener.l7", "grpc", grpc, block),
    live!("listener.tcp", "tcp", tcp),
    live!("listener.udp", "udp", udp),
    live!("socket_mode", "socket_mode", socket_mode),
    live!("drain_timeout_ms", "drain_timeout_ms", drain_timeout, millis),
    live!("drain_jitter_ms", "drain_jitter_ms", drain_jitter, millis),
    Field { label: "tls", what: "tls", difference: tls, keep: None },
    Field { label: "quic", what: "quic", difference: quic, keep: None },
    Field {
        label: "quic.server_id",
        what: "quic.server_id",
        difference: server_id,
        keep: Some(keep_server_id),
    },
    live!("passthrough", "passthrough", passthrough),
];

/// The keys of a pool that are one value here.
const BALANCE: &str = "policy, hash_key, hash_balance_factor, maglev_table_size, ring_points_per_weight, \
                       panic_threshold_percent, slow_start_ms, ewma_decay_ms";

/// The blocks of a pool with a name. They are not reported again for the listeners that use it.
pub(super) const POOL_FIELDS: &[Field<BackendPool>] = &[
    live!("pool.backends", "backends", backends, backends),
    of_pool!("pool.balance", BALANCE, balance),
    of_pool!("pool.sticky", "sticky", sticky),
    of_pool!("pool.health", "health", health),
    of_pool!("pool.outlier", "outlier", outlier),
    of_pool!("pool.limits", "limits", limits),
    of_pool!("pool.retry", "retry", retry),
    live!("pool.rest", "rest_ms", settings.rest),
    of_pool!("pool.discovery", "discovery", discovery),
];

/// The keys of `[xdp]` that are one value here.
const XDP_RULES: &str = "xdp.at_shutdown, xdp.source_v4, xdp.source_v6, xdp.nat_port_first, xdp.nat_port_last, xdp.tunnel_spread_bits, \
                         xdp.new_flow_cap_per_sec_per_source, xdp.syn_cookies_above_per_sec_per_cpu, xdp.icmp_cap_per_sec_per_cpu, xdp.tcp_idle_timeout_ms, \
                         xdp.tcp_closing_timeout_ms, xdp.udp_idle_timeout_ms, xdp.deny, xdp.allow";

pub(super) const CONFIG_FIELDS: &[Field<Config>] = &[
    live!("routes", "routes", route_tables),
    restart!("workers", "runtime.workers", runtime.workers),
    restart!("io_backend", "runtime.io_backend", runtime.io_backend),
    live!("drain_timeout_ms", "runtime.drain_timeout_ms", runtime.drain_timeout, millis),
    live!("readiness_settle_ms", "runtime.readiness_settle_ms", runtime.readiness_settle),
    live!("drain_jitter_ms", "runtime.drain_jitter_ms", runtime.drain_jitter, millis),
    live!("handshake_timeout_ms", "runtime.handshake_timeout_ms", runtime.handshake_timeout),
    live!("max_handshakes_in_flight", "runtime.max_handshakes_in_flight", runtime.max_handshakes_in_flight),
    live!(
        "max_handshakes_per_network",
        "runtime.max_handshakes_per_network",
        runtime.max_handshakes_per_network,
        number
    ),
    live!("connect_timeout_ms", "runtime.connect_timeout_ms", runtime.connect_timeout),
    live!("max_inflight_connections", "runtime.max_inflight_connections", runtime.max_inflight_connections),
    live!("per_ip_connection_cap", "runtime.per_ip_connection_cap", runtime.per_ip_connection_cap),
    live!("quic_buffer_bytes", "runtime.quic_buffer_bytes", runtime.quic_buffer_bytes),
    live!("header_underscore_policy", "runtime.header_underscore_policy", runtime.header_underscore_policy),
    live!("max_keepalive_requests", "runtime.max_keepalive_requests", runtime.max_keepalive_requests),
    live!(
        "max_requests_per_h2_connection",
        "runtime.max_requests_per_h2_connection",
        runtime.max_requests_per_h2_connection,
        number
    ),
    live!(
        "max_requests_per_h3_connection",
        "runtime.max_requests_per_h3_connection",
        runtime.max_requests_per_h3_connection,
        number
    ),
    live!("watchdog", "runtime.watchdog", runtime.watchdog),
    live!("runtime.tls", "runtime.tls.tls13_only", runtime.tls13_only),
    restart!("socket_buffers", "runtime.receive_buffer_bytes", runtime.receive_buffer),
    restart!("socket_buffers", "runtime.send_buffer_bytes", runtime.send_buffer),
    restart!("xdp_enabled", "runtime.xdp_enabled", runtime.xdp.enabled),
    restart!("xdp_interface", "runtime.xdp_interface", runtime.xdp.interface),
    restart!("xdp_mode", "runtime.xdp_mode", runtime.xdp.mode),
    restart!(
        "xdp_new_flow_cap_per_sec_per_cpu",
        "runtime.xdp_new_flow_cap_per_sec_per_cpu",
        runtime.xdp.new_flow_cap_per_sec_per_cpu
    ),
    restart!("xdp.pin_dir", "xdp.pin_dir", xdp.place.pin_dir),
    restart!("xdp.interfaces", "xdp.interfaces", xdp.place.interfaces),
    restart!("xdp.max_flows", "xdp.max_flows_v4", xdp.place.max_flows_v4),
    restart!("xdp.max_flows", "xdp.max_flows_v6", xdp.place.max_flows_v6),
    live!("xdp.rules", XDP_RULES, xdp.rules),
    live!("xdp.services", "xdp.services", xdp.services),
    live!("pool", "pool", pool),
    restart!("dns", "dns", dns),
    restart!("observability.bind", "observability.metrics_bind", observability.metrics_bind),
    restart!("observability.access_log", "observability.access_log", observability.access_log),
    restart!(
        "observability.access_log_format",
        "observability.access_log_format",
        observability.access_log_format
    ),
    restart!("observability.qlog_dir", "observability.qlog_dir", observability.qlog_dir),
    restart!("observability.qlog_one_in", "observability.qlog_one_in", observability.qlog_one_in),
    live!(
        "observability.max_exported_backends",
        "observability.max_exported_backends",
        observability.max_exported_backends
    ),
    restart!(
        "tracing.collector",
        "tracing.endpoint, tracing.protocol, tracing.headers, tracing.service_name, tracing.queue, tracing.timeout_ms",
        tracing.collector,
        block
    ),
    live!("tracing.sample", "tracing.sample, tracing.parent_based", tracing.sampler),
    restart!("admin", "admin", admin),
    live!("security.strict_te", "security.strict_te", security.strict_te),
    live!("security.group_readable_keys", "security.group_readable_keys", security.group_readable_keys),
];

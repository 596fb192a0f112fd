//! `[passthrough]`, which becomes one more listener.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use lb_core::balance::BalanceSettings;
use lb_core::quic::routable::Format;

use super::Report;
use super::listener::{self, named_pool};
use super::pool::{self, Pools};
use crate::config::{
    Backend, BackendPool, BackendProtocol, HashKey, Listener, MintRetry, Passthrough, Policy, PoolId,
    Protocol, QuicLb, RuntimeSettings, SniRoute, Transport,
};
use crate::document::View;

/// The listener of the block; the name of its pool is that of its address.
pub(super) fn listener(
    view: View<'_>,
    runtime: &RuntimeSettings,
    pools: &Pools,
    report: &mut Report<'_>,
) -> Option<Listener> {
    let address = view.socket_addr("bind_addr")?;
    let written = address.to_string();
    let name = format!("{written}/udp");
    let pool = pool(view, &name, pools, report)?;
    let routes = routes(view, pools, report);
    let shared = view.socket_addrs("retry_secret_shared_with");
    let mint_retry = MintRetry::from_word(view.word("mint_retry")?)?;
    if mint_retry == MintRetry::Always && shared.is_empty() {
        let problem = "no backend is said to have the secret (retry_secret_shared_with): a handshake that begins with a Retry of the gateway \
                       cannot be completed by any other, so that every client fails";
        report.warn(view, "mint_retry", problem);
    }
    if !shared.is_empty() && mint_retry == MintRetry::Never {
        report.warn(view, "retry_secret_shared_with", "does nothing with mint_retry = false");
    }
    let passthrough = Passthrough {
        retry_secret_path: view.path("retry_secret_path")?,
        mint_retry,
        retry_secret_shared_with: shared,
        max_quic_connections: view.size("max_quic_connections"),
        min_client_dcid_len: view.size("min_client_dcid_len"),
        new_connections_per_source: view.int32("new_connections_per_source"),
        per_flow_backlog: view.size("per_flow_backlog"),
        strict_source_binding: view.flag("strict_source_binding"),
        audit_throttle_window: view.seconds("audit_throttle_window_secs"),
        max_dcid_len_routed: view.size("max_dcid_len_routed"),
        flow_idle_timeout: view.nonzero_millis("flow_idle_timeout_ms"),
        proxy_protocol: view.flag("proxy_protocol"),
        routes,
        quic_lb: view.blocks("quic_lb").into_iter().filter_map(|view| quic_lb(view, report)).collect(),
    };
    Some(Listener {
        passthrough: Some(passthrough),
        ..listener::of_no_block(name, address, pool, runtime, report)
    })
}

/// The pool that is named, or one of the addresses.
fn pool(view: View<'_>, name: &str, pools: &Pools, report: &mut Report<'_>) -> Option<Arc<BackendPool>> {
    let addresses = view.socket_addrs("backends");
    if let Some(wanted) = view.text("pool") {
        if view.entry("backends").is_some() {
            report.error(view, "pool", "not allowed together with backends");
        }
        return named_pool(view, wanted, Protocol::Passthrough, name, pools, report)
            .or_else(|| own_pool(name, &addresses, report).map(Arc::new));
    }
    if addresses.is_empty() {
        report.error(view, "backends", "must have at least one element, unless pool names a pool");
    }
    own_pool(name, &addresses, report).map(Arc::new)
}

/// A pool of the addresses that stand in the block: all but its policy is at its default.
fn own_pool(name: &str, addresses: &[SocketAddr], report: &mut Report<'_>) -> Option<BackendPool> {
    let mut seen = HashSet::new();
    let addresses = addresses.iter().filter(|address| seen.insert(**address));
    let backends = addresses.map(|address| Backend {
        address: (*address).into(),
        name: address.to_string(),
        protocol: BackendProtocol::Tcp,
        weight: 1,
        priority: 0,
        tls: None,
        proxy_protocol: None,
    });
    let mut pool = pool::default(PoolId::Listener(name.into(), Transport::Udp), backends.collect(), report)?;
    pool.settings.balance = BalanceSettings { policy: Policy::Maglev, ..pool.settings.balance };
    pool.hash_key = HashKey::ConnectionId;
    Some(pool)
}

fn routes(view: View<'_>, pools: &Pools, report: &mut Report<'_>) -> Vec<SniRoute> {
    let mut routes = Vec::new();
    for view in view.blocks("routes") {
        let sni = view.texts("sni");
        if sni.is_empty() {
            report.error(view, "sni", "must have at least one element");
        }
        let Some(wanted) = view.text("pool") else { continue };
        let pool = named_pool(view, wanted, Protocol::Passthrough, "[passthrough]", pools, report);
        routes.extend(pool.map(|pool| SniRoute { sni, pool }));
    }
    routes
}

fn quic_lb(view: View<'_>, report: &mut Report<'_>) -> Option<QuicLb> {
    let (config_id, nonce_length, servers) = server_ids(view, report)?;
    Some(QuicLb { config_id, nonce_length, key_path: view.path("key_path"), servers })
}

/// Server IDs, each with the address of its backend.
type ServerIds = Vec<(Vec<u8>, SocketAddr)>;

/// A format of connection IDs and the servers that they name: its number, the bytes of a nonce, and each server ID with its backend.
pub(super) fn server_ids(view: View<'_>, report: &mut Report<'_>) -> Option<(u8, usize, ServerIds)> {
    let servers: Vec<_> =
        view.texts("servers").iter().filter_map(|text| QuicLb::parse_server(text)).collect();
    let Some((first, _)) = servers.first() else {
        report.error(view, "servers", "must have at least one element");
        return None;
    };
    let length = first.len();
    let mut seen = HashSet::new();
    if servers.iter().any(|(id, _)| id.len() != length) {
        report.error(view, "servers", "all server IDs must have the same length");
    } else if servers.iter().any(|(id, _)| !seen.insert(id)) {
        report.error(view, "servers", "a server ID stands for one backend");
    }
    let config_id = u8::try_from(view.integer("config_id")).unwrap_or(u8::MAX);
    let nonce_length = view.size("nonce_length");
    if Format::new(config_id, length, nonce_length).is_err() {
        let problem =
            format!("must be at most {}: server ID and nonce have at most 19 bytes together", 19 - length);
        report.error(view, "nonce_length", problem);
    }
    Some((config_id, nonce_length, servers))
}

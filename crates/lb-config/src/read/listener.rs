//! `[[listeners]]` and the blocks inside it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::pool::{self, Pools};
use super::route::{ListenerRoutes, Tables};
use super::{Report, client, filter, loops, passthrough, raw_proxy, tls};
use crate::config::{
    AltSvc, BackendPool, Grpc, H2Security, HashKey, Http, Listener, Protocol, Quic, QuicRetry,
    RuntimeSettings, SocketName, Tcp, Transport, Udp, WebSocket, hex_octets,
};
use crate::document::{View, near};
use crate::schema::{DEFAULT_REPLAY_BYTES, Kind, LISTENERS, read_mode};

/// Every listener. `runtime` is what they inherit from.
pub(super) fn all<'a>(
    root: View<'a>,
    runtime: &RuntimeSettings,
    pools: &Pools,
    tables: &mut Tables<'a>,
    report: &mut Report<'_>,
) -> Option<Vec<Listener>> {
    let mut bound: HashMap<(SocketName, Transport), String> = HashMap::new();
    if let Some(address) = root.block("passthrough").socket_addr("bind_addr") {
        bound.insert((address.into(), Transport::Udp), "passthrough.bind_addr".to_owned());
    }
    let mut listeners = Vec::new();
    for (index, view) in root.blocks("listeners").into_iter().enumerate() {
        let listener = one(view, runtime, pools, tables, report)?;
        let transport = listener.transport();
        let place = format!("listeners[{index}].address");
        if let Some(other) = bound.insert((listener.address.clone(), transport), place) {
            let over = match transport {
                Transport::Unix => String::new(),
                transport => format!(" over {}", transport.as_str().to_uppercase()),
            };
            report.error(view, "address", format!("already bound{over} by {other}"));
        }
        listeners.push(listener);
    }
    if let Some(view) = root.present("passthrough") {
        listeners.push(passthrough::listener(view, runtime, pools, report)?);
    }
    let views = root.blocks("listeners");
    let speaks_h3 = |listener: &Listener| match (listener.protocol, listener.raw_proxy()) {
        (Protocol::Quic, None) => true,
        (Protocol::Quic, Some(raw)) => raw.alpn.is_empty() || raw.alpn.iter().any(|name| name == "h3"),
        _ => false,
    };
    let serves_h3 = root.present("passthrough").is_some() || listeners.iter().any(speaks_h3);
    for (listener, view) in listeners.iter_mut().zip(&views) {
        if !serves_h3 && listener.alt_svc.take().is_some() {
            let problem = "no listener serves HTTP/3, so nothing is announced";
            report.warn(*view, "alt_svc", problem);
        }
    }
    for (at, backend) in loops::find(&listeners) {
        let Some(view) = views.get(at) else { continue };
        let name = if view.entry("pool").is_some() { "pool" } else { "backends" };
        let problem =
            format!("backend {backend} leads back to this listener: every connection to it makes another");
        report.warn(*view, name, problem);
    }
    Some(listeners)
}

fn one<'a>(
    view: View<'a>,
    runtime: &RuntimeSettings,
    pools: &Pools,
    tables: &mut Tables<'a>,
    report: &mut Report<'_>,
) -> Option<Listener> {
    let (address, written) = view.socket_name("address")?;
    let protocol = Protocol::from_word(view.word("protocol")?)?;
    check_blocks(view, protocol, report);
    let name = match protocol.transport(address) {
        Transport::Udp => format!("{written}/udp"),
        Transport::Tcp | Transport::Unix => written.to_owned(),
    };
    let (drain_timeout, drain_jitter) = drain(view, runtime, report);
    let pool = pool(view, &name, (protocol, protocol.transport(address)), pools, report)?;
    let request_id = view.present("request_id").map(|view| filter::request_id(view, report));
    let ListenerRoutes { routing, passing, pools: route_pools } =
        tables.of_listener(view, protocol, (&pool, request_id.as_ref()), pools, report);
    let listener = Listener {
        address: address.clone(),
        socket_mode: socket_mode(view, address, report),
        written: written.to_owned(),
        protocol,
        tls: match protocol {
            Protocol::Quic => view.optional("quic", |view| tls::read(view, protocol, report))?,
            _ => view.optional("tls", |view| tls::read(view, protocol, report))?,
        },
        quic: view.optional("quic", |view| quic(view, report))?,
        passthrough: None,
        alt_svc: view.present("alt_svc").map(alt_svc),
        h2c: view.flag("h2c"),
        xdp: view.flag("xdp"),
        http: http(view.block("http")),
        h2_security: h2_security(view.block("h2_security"), report),
        websocket: view.present("websocket").map(websocket),
        grpc: view.present("grpc").map(grpc),
        tcp: tcp(view.block("tcp")),
        udp: udp(view.block("udp")),
        drain_timeout,
        drain_jitter,
        pool,
        routing,
        request_id,
        client_address: view.present("client_address").map(|view| client::address(view, report)),
        access: tables.access_of_raw(view, protocol, report),
        passing,
        proxy_protocol: view.present("proxy_protocol").map(|view| client::proxy_protocol(view, report)),
        route_pools,
        name,
    };
    if matches!(protocol, Protocol::Quic | Protocol::Udp) && address.unix().is_some() {
        let problem = format!("a \"{protocol}\" listener is reached over UDP, and has no Unix socket");
        report.error(view, "address", problem);
    }
    if listener.proxy_protocol.is_some() && address.unix().is_some() {
        let problem = "a peer at a Unix socket has no address, and is in no network that could be trusted";
        report.error(view, "proxy_protocol", problem);
    }
    if listener.h2c && protocol != Protocol::H1 {
        report.error(view, "h2c", format!("not allowed on \"{protocol}\" listeners, only on h1"));
    }
    if listener.routing.is_none() && view.present("paths").is_some() {
        report.warn(view, "paths", "does nothing without routes");
    }
    if listener.raw_proxy().is_some() {
        raw_proxy::check(view, &listener, report);
    }
    if !listener.starts() {
        report.warn(view, "backends", "the listener has no backends, so it is not started");
    }
    Some(listener)
}

/// A listener over UDP with no block of its own in `[[listeners]]`: everything that could stand there is at its default.
pub(super) fn of_no_block(
    name: String,
    address: SocketAddr,
    pool: Arc<BackendPool>,
    runtime: &RuntimeSettings,
    report: &mut Report<'_>,
) -> Listener {
    let view = View { block: &LISTENERS, node: None };
    Listener {
        address: address.into(),
        socket_mode: SOCKET_MODE,
        written: address.to_string(),
        name,
        protocol: Protocol::Passthrough,
        tls: None,
        quic: None,
        passthrough: None,
        alt_svc: None,
        h2c: false,
        xdp: false,
        http: http(view.block("http")),
        h2_security: h2_security(view.block("h2_security"), report),
        websocket: None,
        grpc: None,
        tcp: tcp(view.block("tcp")),
        udp: udp(view.block("udp")),
        drain_timeout: runtime.drain_timeout,
        drain_jitter: runtime.drain_jitter,
        pool,
        routing: None,
        passing: None,
        request_id: None,
        client_address: None,
        access: Vec::new(),
        proxy_protocol: None,
        route_pools: Vec::new(),
    }
}

/// The owner and its group may connect.
const SOCKET_MODE: u32 = 0o660;

/// The permissions of the listener's file, where it has one.
fn socket_mode(view: View<'_>, address: &SocketName, report: &mut Report<'_>) -> u32 {
    if view.entry("socket_mode").is_some() && address.unix().is_none_or(|path| path.abstract_name().is_some())
    {
        let problem = "only allowed where address is a Unix socket with a path: nothing else has a file";
        report.error(view, "socket_mode", problem);
    }
    view.text("socket_mode").and_then(read_mode).unwrap_or(SOCKET_MODE)
}

/// With how many names a mistyped one is compared.
const MOST_COMPARED: usize = 100;

/// The pool that the listener names, or its own.
fn pool(
    view: View<'_>,
    name: &str,
    (protocol, transport): (Protocol, Transport),
    pools: &Pools,
    report: &mut Report<'_>,
) -> Option<Arc<BackendPool>> {
    let of_block = view.block("quic").present("raw_proxy").and_then(|view| raw_proxy::backend(view, report));
    let Some(wanted) = view.text("pool").filter(|_| of_block.is_none()) else {
        return match of_block {
            Some(backend) => pool::of_one(view, name, transport, backend, report).map(Arc::new),
            None => pool::of_listener(view, name, (protocol, transport), report).map(Arc::new),
        };
    };
    if view.entry("backends").is_some() {
        report.error(view, "pool", "not allowed together with [[listeners.backends]]");
    }
    for name in pool::BLOCKS.iter().filter(|name| view.present(name).is_some()) {
        let problem = format!("not allowed together with pool: it belongs into [pools.{wanted}.{name}]");
        report.error(view, name, problem);
    }
    named_pool(view, wanted, protocol, &format!("listener {name}"), pools, report)
        .or_else(|| pool::of_listener(view, name, (protocol, transport), report).map(Arc::new))
}

/// The pool of this name, for connections of `whose`.
pub(super) fn named_pool(
    view: View<'_>,
    wanted: &str,
    protocol: Protocol,
    whose: &str,
    pools: &Pools,
    report: &mut Report<'_>,
) -> Option<Arc<BackendPool>> {
    let pool = find_pool(view, wanted, pools, report)?;
    if let Some(key) = pool.misfit(protocol) {
        let problem =
            format!("not allowed on \"{protocol}\" listeners, because pools.{wanted}.{key} needs HTTP");
        report.error(view, "pool", problem);
    }
    let follows_key = pool.settings.balance.policy.follows_key();
    let goes_by_id = follows_key && pool.hash_key == HashKey::ConnectionId;
    if goes_by_id && !protocol.has_connection_ids() {
        let problem = format!(
            "its hash_key is \"connection_id\", which connections of \"{protocol}\" listeners do not have: those of {whose} go by \
             the client's IP address, as with \"source_address\""
        );
        report.warn(view, "pool", problem);
    }
    Some(Arc::clone(pool))
}

/// The pool of a name.
pub(super) fn find_pool<'a>(
    view: View<'_>,
    wanted: &str,
    pools: &'a Pools,
    report: &mut Report<'_>,
) -> Option<&'a Arc<BackendPool>> {
    let found = pools.get(wanted);
    if found.is_none() {
        let problem = match near(wanted, pools.keys().map(String::as_str).take(MOST_COMPARED)) {
            Some(near) => format!("there is no pool of that name; did you mean \"{near}\"?"),
            None => "there is no pool of that name".to_owned(),
        };
        report.error(view, "pool", problem);
    }
    found
}

/// Which blocks a protocol may have, needs, or does nothing with.
fn check_blocks(view: View<'_>, protocol: Protocol, report: &mut Report<'_>) {
    for key in view.block.keys {
        let Kind::Block(block) = key.kind else { continue };
        let is_present = view.present(key.name).is_some();
        if is_present && !block.on.allowed.is_empty() && !block.on.allowed.contains(&protocol) {
            let problem =
                format!("not allowed on \"{protocol}\" listeners, only on {}", list(block.on.allowed));
            report.error(view, key.name, problem);
        }
        if !is_present && block.on.required.contains(&protocol) {
            report.error(
                view,
                key.name,
                format!("missing: \"{protocol}\" listeners must have {}", block.header()),
            );
        }
        if is_present && !block.on.used.is_empty() && !block.on.used.contains(&protocol) {
            let problem =
                format!("does nothing on \"{protocol}\" listeners, only on {}", list(block.on.used));
            report.warn(view, key.name, problem);
        }
    }
}

fn list(protocols: &[Protocol]) -> String {
    protocols.iter().map(|protocol| format!("\"{protocol}\"")).collect::<Vec<_>>().join(", ")
}

fn drain(view: View<'_>, runtime: &RuntimeSettings, report: &mut Report<'_>) -> (Duration, Duration) {
    let timeout = view.optional_millis("drain_timeout_ms").unwrap_or(runtime.drain_timeout);
    let jitter = view.optional_millis("drain_jitter_ms").unwrap_or(runtime.drain_jitter.min(timeout));
    if jitter > timeout {
        let problem = format!("must be at most the listener's drain timeout ({} ms)", timeout.as_millis());
        report.error(view, "drain_jitter_ms", problem);
    }
    (timeout, jitter)
}

fn quic(view: View<'_>, report: &mut Report<'_>) -> Option<Quic> {
    Some(Quic {
        retry_secret_path: view.path("retry_secret_path")?,
        retry: QuicRetry::from_word(view.word("retry")?)?,
        retry_tokens_from: view.texts("retry_tokens_from").iter().filter_map(|ip| ip.parse().ok()).collect(),
        server_id: view.text("server_id").and_then(hex_octets).unwrap_or_default(),
        early_data: view.flag("early_data"),
        max_idle_timeout: view.millis("max_idle_timeout_ms"),
        max_recv_udp_payload_size: view.integer("max_recv_udp_payload_size"),
        raw_proxy: view.present("raw_proxy").map(|view| raw_proxy::read(view, report)),
    })
}

fn alt_svc(view: View<'_>) -> AltSvc {
    AltSvc {
        h3_port: view.integer("h3_port").try_into().unwrap_or(u16::MAX),
        max_age: view.seconds("max_age"),
    }
}

fn http(view: View<'_>) -> Http {
    Http {
        header_timeout: view.millis("header_timeout_ms"),
        body_timeout: view.millis("body_timeout_ms"),
        total_timeout: view.nonzero_millis("total_timeout_ms"),
        response_idle_timeout: view.nonzero_millis("response_idle_timeout_ms"),
        head_timeout: view.millis("head_timeout_ms"),
        keepalive_timeout: view.millis("keepalive_timeout_ms"),
        write_timeout: view.millis("write_timeout_ms"),
        max_request_body_bytes: view.optional_integer("max_request_body_bytes"),
        max_response_body_bytes: None,
        buffer_request_bytes: 0,
        replay_bytes: DEFAULT_REPLAY_BYTES,
        max_header_bytes: view.size("max_header_bytes"),
        max_header_count: view.size("max_header_count"),
        max_uri_bytes: view.size("max_uri_bytes"),
        retries: view.int32("retries"),
    }
}

fn tcp(view: View<'_>) -> Tcp {
    Tcp {
        idle_timeout: view.optional_millis("idle_timeout_ms"),
        splice: view.flag("splice"),
        connect_tries: view.int32("connect_tries"),
    }
}

fn udp(view: View<'_>) -> Udp {
    Udp {
        idle_timeout: view.millis("idle_timeout_ms"),
        max_flows: view.size("max_flows"),
        max_flows_per_source: view.nonzero32("max_flows_per_source"),
        replies: view.optional_integer("replies").map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        move_flows: view.flag("move_flows"),
        proxy_protocol: view.flag("proxy_protocol"),
        max_amplification: view.nonzero32("max_amplification"),
    }
}

/// The least frame of DATA that does not count as a sliver needs a window several times as large.
const LEAST_STREAM_WINDOW: u32 = 1024;

/// Room for the few fields that every message has.
const LEAST_HEADER_LIST: u32 = 1024;

fn h2_security(view: View<'_>, report: &mut Report<'_>) -> H2Security {
    let mut at_least = |name: &'static str, least: u32| {
        let value = view.int32(name);
        if value < least {
            report.warn(view, name, format!("counts as {least}: no request could be served with less"));
        }
        value.max(least)
    };
    let max_concurrent_streams = at_least("max_concurrent_streams", 1);
    let max_header_list_size = at_least("max_header_list_size", LEAST_HEADER_LIST);
    at_least("initial_stream_window_size", LEAST_STREAM_WINDOW);
    let initial_stream_window_size =
        window(view, "initial_stream_window_size", report).max(LEAST_STREAM_WINDOW);
    H2Security {
        max_concurrent_streams,
        max_header_list_size,
        initial_stream_window_size,
        max_pending_accept_reset_streams: view.size("max_pending_accept_reset_streams"),
        max_local_error_reset_streams: view.size("max_local_error_reset_streams"),
        flood_budget_percent: view.int32("flood_budget_percent"),
        max_send_buf_size: view.size("max_send_buf_size"),
        keep_alive_interval: view.nonzero_millis("keep_alive_interval_ms"),
        keep_alive_timeout: view.millis("keep_alive_timeout_ms"),
        initial_connection_window_size: window(view, "initial_connection_window_size", report),
    }
}

/// The largest window that the protocol allows (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = 0x7fff_ffff;

fn window(view: View<'_>, name: &str, report: &mut Report<'_>) -> u32 {
    match u32::try_from(view.integer(name)) {
        Ok(bytes) if bytes <= MAX_WINDOW => bytes,
        _ => {
            report.warn(view, name, format!("counts as {MAX_WINDOW}: HTTP/2 knows no larger window"));
            MAX_WINDOW
        }
    }
}

fn websocket(view: View<'_>) -> WebSocket {
    WebSocket {
        enabled: view.flag("enabled"),
        idle_timeout: view.seconds("idle_timeout_seconds"),
        max_message_size_bytes: view.size("max_message_size_bytes"),
        ping_rate_limit_per_window: view.int32("ping_rate_limit_per_window"),
        ping_rate_limit_window: view.seconds("ping_rate_limit_window_seconds"),
        read_frame_timeout: view.seconds("read_frame_timeout_seconds"),
        h2_extended_connect: view.flag("h2_extended_connect"),
        h3_extended_connect: view.flag("h3_extended_connect"),
    }
}

fn grpc(view: View<'_>) -> Grpc {
    Grpc {
        enabled: view.flag("enabled"),
        max_deadline: view.seconds("max_deadline_seconds"),
        health_synthesized: view.flag("health_synthesized"),
    }
}

//! `[listeners.quic.raw_proxy]`, and what a listener that has it needs of its backends.

use super::Report;
use crate::config::{Backend, BackendProtocol, BackendTls, Listener, RawProxy, SocketName};
use crate::document::View;

/// The most streams of a kind: what stands in two bytes.
const MOST_STREAMS: u64 = 16_383;

/// The most datagrams.
const MOST_DATAGRAMS: u64 = 65_536;

pub(super) fn read(view: View<'_>, report: &mut Report<'_>) -> RawProxy {
    let mut at_most = |name: &'static str, most: u64| {
        let value = view.integer(name);
        if value > most {
            report.warn(view, name, format!("counts as {most}"));
        }
        value.min(most)
    };
    RawProxy {
        alpn: view.texts("alpn").iter().map(|name| (*name).to_owned()).collect(),
        dgram_queue_cap: usize::try_from(at_most("dgram_queue_cap", MOST_DATAGRAMS)).unwrap_or(usize::MAX),
        max_relay_streams: at_most("max_relay_streams", MOST_STREAMS),
    }
}

/// The backend that the block names, if it names one.
pub(super) fn backend(view: View<'_>, report: &mut Report<'_>) -> Option<Backend> {
    let Some(address) = view.host_port("backend_addr") else {
        for name in ["sni", "backend_ca_path"].into_iter().filter(|name| view.entry(name).is_some()) {
            report.error(view, name, "only allowed with backend_addr: other backends have keys of their own");
        }
        return None;
    };
    let Some(sni) = view.text("sni") else {
        report.error(
            view,
            "sni",
            "missing: backend_addr needs the name that the backend's certificate carries",
        );
        return None;
    };
    Some(Backend {
        address: SocketName::Host(address.clone()),
        name: address.to_string(),
        protocol: BackendProtocol::H3,
        weight: 1,
        priority: 0,
        tls: Some(BackendTls {
            ca_path: view.path("backend_ca_path"),
            verify_hostname: sni.to_owned(),
            verify_peer: true,
            client_certificate: None,
        }),
        proxy_protocol: None,
    })
}

/// The rules between the block, the backends and the pool.
pub(super) fn check(view: View<'_>, listener: &Listener, report: &mut Report<'_>) {
    if listener.quic.as_ref().is_some_and(|quic| quic.early_data) {
        let problem = "not allowed together with raw_proxy: what is safe to be repeated is not known there";
        report.error(view.block("quic"), "early_data", problem);
    }
    let block = view.block("quic").block("raw_proxy");
    let name = if view.entry("pool").is_some() { "pool" } else { "backends" };
    if block.entry("backend_addr").is_some() {
        if view.entry(name).is_some() {
            report.error(
                view,
                name,
                "not allowed together with quic.raw_proxy.backend_addr, which names the backend",
            );
        }
        return;
    }
    let pool = &listener.pool;
    if let Some(backend) = pool.backends.iter().find(|backend| backend.protocol != BackendProtocol::H3) {
        let problem = format!(
            "backend {} is reached over TCP: those of quic.raw_proxy have protocol = \"h3\", which stands for QUIC",
            backend.name
        );
        report.error(view, name, problem);
    }
    if pool.sticky.is_some() || pool.hash_key.needs_http() {
        let key = if pool.sticky.is_some() { "sticky" } else { "hash_key" };
        report.error(view, name, format!("{key} needs HTTP, which quic.raw_proxy does not read"));
    }
}

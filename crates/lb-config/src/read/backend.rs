//! The backends of a pool, wherever they stand.

use lb_core::proxy_protocol::{HeaderVersion, ProxySends};

use super::Report;
use crate::config::{
    Backend, BackendPool, BackendProtocol, BackendTls, ClientCertificate, HostPort, Probe, Protocol,
    SocketName,
};
use crate::document::View;

/// Every backend of a block, and the rules between them.
pub(super) fn all(owner: View<'_>, report: &mut Report<'_>) -> Option<Vec<Backend>> {
    let views = owner.blocks("backends");
    let backends = views.into_iter().map(|view| one(view, report)).collect::<Option<Vec<_>>>()?;
    if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
        let problem = "the weight of every backend is 0: requests are answered 503 until one rises";
        report.warn(owner, "backends", problem);
    }
    Some(backends)
}

/// The rules that follow from what clients speak on the listeners in front of them.
pub(super) fn check(owner: View<'_>, backends: &[Backend], protocols: &[Protocol], report: &mut Report<'_>) {
    let views = owner.blocks("backends");
    if protocols.contains(&Protocol::Passthrough) {
        for (view, _) in views.iter().zip(backends).filter(|(_, backend)| backend.address.unix().is_some()) {
            report.error(*view, "address", "QUIC is forwarded over UDP, and reaches no Unix socket");
        }
    }
    if let Some(protocol) =
        protocols.iter().find(|protocol| protocol.has_connection_ids() || **protocol == Protocol::Udp)
    {
        for (view, _) in views.iter().zip(backends).filter(|(_, backend)| backend.proxy_protocol.is_some()) {
            let problem = match protocol {
                Protocol::Udp => {
                    "not allowed behind a \"udp\" listener, which has [listeners.udp] proxy_protocol for it"
                }
                Protocol::Passthrough => {
                    "not allowed behind [passthrough], which has a key of that name itself"
                }
                _ => continue,
            };
            report.error(*view, "proxy_protocol", problem);
        }
    }
    if protocols.contains(&Protocol::Udp) {
        check_datagrams(&views, backends, report);
    }
    if let Some(protocol) = protocols.first()
        && !protocols.iter().any(|protocol| protocol.is_http())
    {
        warn_raw(&views, backends, *protocol, report);
    }
}

fn one(view: View<'_>, report: &mut Report<'_>) -> Option<Backend> {
    let (address, name) = view.socket_name("address")?;
    let protocol = BackendProtocol::from_word(view.word("protocol")?)?;
    let tls = tls(view, protocol, address.host(), report);
    match address {
        SocketName::Host(HostPort { port: 0, .. }) => {
            report.warn(view, "address", "nothing can be reached at port 0");
        }
        SocketName::Unix(_) if protocol == BackendProtocol::H3 => {
            report.error(view, "address", "an h3 backend is reached over UDP, and has no Unix socket");
        }
        _ => {}
    }
    Some(Backend {
        address: address.clone(),
        name: name.to_owned(),
        protocol,
        weight: view.int32("weight"),
        priority: view.int32("priority"),
        tls,
        proxy_protocol: proxy_protocol(view, protocol, report),
    })
}

/// What the backend is told of clients before all other bytes.
fn proxy_protocol(view: View<'_>, protocol: BackendProtocol, report: &mut Report<'_>) -> Option<ProxySends> {
    let tlvs = view.texts("proxy_tlvs");
    let version = match view.word("proxy_protocol") {
        Some("v1") => Some(HeaderVersion::V1),
        Some("v2") => Some(HeaderVersion::V2),
        _ => None,
    };
    if version != Some(HeaderVersion::V2) && view.entry("proxy_tlvs").is_some() {
        report.error(view, "proxy_tlvs", "needs proxy_protocol = \"v2\"");
    }
    if version.is_some() && matches!(protocol, BackendProtocol::H2 | BackendProtocol::H3) {
        let problem = format!(
            "not allowed on an \"{protocol}\" backend: a header tells one client, and connections that speak it are shared"
        );
        report.error(view, "proxy_protocol", problem);
    }
    let has = |name: &str| tlvs.iter().any(|tlv| tlv == name);
    Some(ProxySends {
        version: version?,
        authority: has("authority"),
        alpn: has("alpn"),
        ssl: has("ssl"),
        unique_id: has("unique_id"),
    })
}

/// Refuses what only a backend at an IP address may have, or only what the configuration itself names.
pub(super) fn refuse_unix(owner: View<'_>, backends: &[Backend], report: &mut Report<'_>) {
    let views = owner.blocks("backends");
    for (view, _) in views.iter().zip(backends).filter(|(_, backend)| backend.address.unix().is_some()) {
        report.error(*view, "address", "a Unix socket may stand in the configuration alone");
    }
}

/// The rules for health checks of backends at Unix sockets.
pub(super) fn check_health(owner: View<'_>, pool: &BackendPool, report: &mut Report<'_>) {
    let Some(health) = &pool.health else { return };
    let h3 = pool.backends.iter().find(|backend| backend.protocol == BackendProtocol::H3);
    if let Some(backend) = h3.filter(|_| health.probe != Probe::Quic && health.port.is_none()) {
        let problem = format!(
            "backend {} is reached over UDP: \"quic\" asks it there, or port names one of TCP",
            backend.name
        );
        report.error(owner.block("health"), "type", problem);
    }
    let Some(backend) = pool.backends.iter().find(|backend| backend.address.unix().is_some()) else { return };
    let view = owner.block("health");
    if health.port.is_some() {
        report.error(
            view,
            "port",
            format!("backend {} is at a Unix socket, which has no ports", backend.name),
        );
    }
    let over_udp = match health.probe {
        Probe::Quic => "QUIC is not spoken",
        Probe::Udp(_) => "UDP is not spoken",
        _ => return,
    };
    let problem = format!("backend {} is at a Unix socket, where {over_udp}", backend.name);
    report.error(view, "type", problem);
}

/// Keys that mean nothing without TLS.
const TLS_KEYS: &[&str] =
    &["tls_ca_path", "tls_verify_hostname", "tls_verify_peer", "tls_client_cert_path", "tls_client_key_path"];

fn tls(
    view: View<'_>,
    protocol: BackendProtocol,
    host: Option<&str>,
    report: &mut Report<'_>,
) -> Option<BackendTls> {
    let is_h3 = protocol == BackendProtocol::H3;
    if !is_h3 && !view.flag("tls") {
        for name in TLS_KEYS.iter().filter(|name| view.entry(name).is_some()) {
            report.error(
                view,
                name,
                format!("only allowed with tls = true or on an \"h3\" backend; this one is \"{protocol}\" without tls"),
            );
        }
        return None;
    }
    let Some(verify_hostname) = view.text("tls_verify_hostname").or(host) else {
        let problem = "missing: a backend at a Unix socket has no host that could stand in its certificate";
        report.error(view, "tls_verify_hostname", problem);
        return None;
    };
    let tls = BackendTls {
        ca_path: view.path("tls_ca_path"),
        verify_hostname: verify_hostname.to_owned(),
        verify_peer: view.flag("tls_verify_peer"),
        client_certificate: client_certificate(view, report),
    };
    if is_h3 {
        for name in ["tls", "tls_client_cert_path", "tls_client_key_path"] {
            if view.entry(name).is_some() {
                report.error(view, name, "not allowed on an \"h3\" backend");
            }
        }
        if tls.verify_peer && tls.ca_path.is_none() {
            let problem = "missing: an h3 backend needs it unless tls_verify_peer = false";
            report.error(view, "tls_ca_path", problem);
        }
    } else if !tls.verify_peer {
        let problem = "the backend's certificate is not checked: anyone on the way can be the backend";
        report.warn(view, "tls_verify_peer", problem);
    }
    Some(tls)
}

fn client_certificate(view: View<'_>, report: &mut Report<'_>) -> Option<ClientCertificate> {
    match (view.path("tls_client_cert_path"), view.path("tls_client_key_path")) {
        (Some(cert_path), Some(key_path)) => Some(ClientCertificate { cert_path, key_path }),
        (None, None) => None,
        (cert, _) => {
            let name = if cert.is_some() { "tls_client_key_path" } else { "tls_client_cert_path" };
            report.error(view, name, "missing: certificate and key go together");
            None
        }
    }
}

fn warn_raw(views: &[View<'_>], backends: &[Backend], protocol: Protocol, report: &mut Report<'_>) {
    for (view, backend) in views.iter().zip(backends) {
        if backend.protocol != BackendProtocol::Tcp {
            let problem = format!("does nothing on \"{protocol}\" listeners, which carry raw bytes");
            report.warn(*view, "protocol", problem);
        }
    }
}

/// What datagrams cannot be sent to, or not in that way.
fn check_datagrams(views: &[View<'_>], backends: &[Backend], report: &mut Report<'_>) {
    for (view, backend) in views.iter().zip(backends) {
        if backend.address.unix().is_some() {
            report.error(*view, "address", "not allowed behind a \"udp\" listener: a backend is reached over UDP, and has no Unix socket");
        }
        if backend.tls.is_some() {
            let name = if view.entry("tls").is_some() { "tls" } else { "protocol" };
            report.error(
                *view,
                name,
                "not allowed behind a \"udp\" listener: datagrams are carried as they are",
            );
        }
    }
}

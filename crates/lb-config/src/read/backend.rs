//! `[[listeners.backends]]`.

use super::Report;
use crate::config::{Backend, BackendProtocol, BackendTls, Protocol};
use crate::document::View;

/// Every backend of a listener, and the rules between them.
pub(super) fn all(listener: View<'_>, protocol: Protocol, report: &mut Report<'_>) -> Option<Vec<Backend>> {
    let views = listener.blocks("backends");
    let backends = views.iter().map(|view| one(*view, report)).collect::<Option<Vec<_>>>()?;
    if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
        report.error(listener, "backends", "the weight of every backend is 0, so none can be picked");
    }
    match protocol {
        Protocol::Tcp | Protocol::Tls => warn_raw(&views, &backends, protocol, report),
        Protocol::H1 | Protocol::H1s => check_shared_tls(&views, &backends, report),
        Protocol::Quic => {
            check_one_family(&views, &backends, report);
            check_shared_tls(&views, &backends, report);
        }
    }
    Some(backends)
}

fn one(view: View<'_>, report: &mut Report<'_>) -> Option<Backend> {
    let (address, name) = view.host_port("address")?;
    let protocol = BackendProtocol::from_word(view.word("protocol")?)?;
    let tls = BackendTls {
        ca_path: view.path("tls_ca_path"),
        verify_hostname: view.text("tls_verify_hostname").unwrap_or(&address.host).to_owned(),
        verify_peer: view.flag("tls_verify_peer"),
    };
    if protocol == BackendProtocol::H3 {
        if tls.verify_peer && tls.ca_path.is_none() {
            report.error(
                view,
                "tls_ca_path",
                "missing: an h3 backend needs it unless tls_verify_peer = false",
            );
        }
    } else {
        for name in ["tls_ca_path", "tls_verify_hostname", "tls_verify_peer"] {
            if view.entry(name).is_some() {
                report.error(
                    view,
                    name,
                    format!("only allowed on an \"h3\" backend; this one is \"{protocol}\""),
                );
            }
        }
    }
    if address.port == 0 {
        report.warn(view, "address", "nothing can be reached at port 0");
    }
    Some(Backend {
        address: address.clone(),
        name: name.to_owned(),
        protocol,
        weight: view.int32("weight"),
        tls: (protocol == BackendProtocol::H3).then_some(tls),
    })
}

fn warn_raw(views: &[View<'_>], backends: &[Backend], protocol: Protocol, report: &mut Report<'_>) {
    for (view, backend) in views.iter().zip(backends) {
        if backend.protocol != BackendProtocol::Tcp {
            let problem = format!("does nothing on \"{protocol}\" listeners, which carry raw bytes");
            report.warn(*view, "protocol", problem);
        }
    }
}

/// All h3 backends of a listener are reached from one QUIC endpoint, which has one set of trust anchors.
fn check_shared_tls(views: &[View<'_>], backends: &[Backend], report: &mut Report<'_>) {
    let mut first: Option<&BackendTls> = None;
    for (view, tls) in views.iter().zip(backends).filter_map(|(view, b)| Some((view, b.tls.as_ref()?))) {
        let first = *first.get_or_insert(tls);
        let rest = "must be the same on all h3 backends of a listener";
        if tls.verify_peer != first.verify_peer {
            report.error(*view, "tls_verify_peer", rest);
        } else if tls.ca_path != first.ca_path {
            report.error(*view, "tls_ca_path", rest);
        }
    }
}

fn check_one_family(views: &[View<'_>], backends: &[Backend], report: &mut Report<'_>) {
    let family = |protocol| match protocol {
        BackendProtocol::Tcp | BackendProtocol::H1 => BackendProtocol::H1,
        other => other,
    };
    let Some(first) = backends.first() else { return };
    for (view, backend) in views.iter().zip(backends) {
        if family(backend.protocol) != family(first.protocol) {
            let problem = format!(
                "must be of one family on a quic listener; the first backend is \"{}\"",
                first.protocol
            );
            report.error(*view, "protocol", problem);
        }
    }
}

//! `[listeners.tls]` and the certificates in it.

use super::Report;
use crate::config::{ClientAuth, ClientAuthMode, Protocol, TlsCertificate, TlsFiles};
use crate::document::View;

/// The TLS settings of a listener.
pub(super) fn read(view: View<'_>, protocol: Protocol, report: &mut Report<'_>) -> Option<TlsFiles> {
    let client_auth = client_auth(view, None, report)?;
    let certificates = view
        .blocks("certificates")
        .into_iter()
        .map(|view| certificate(view, &client_auth, report))
        .collect::<Option<Vec<_>>>()?;
    let asked = client_auth.mode != ClientAuthMode::Off
        || certificates.iter().any(|certificate| certificate.client_auth.mode != ClientAuthMode::Off);
    let client_cert_headers = view.flag("client_cert_headers");
    if client_cert_headers && protocol == Protocol::Tls {
        report.warn(view, "client_cert_headers", "does nothing on \"tls\" listeners, which carry raw bytes");
    } else if client_cert_headers && !asked {
        report.error(view, "client_cert_headers", "needs client_auth, or there is no certificate to tell of");
    }
    Some(TlsFiles {
        cert_path: view.path("cert_path")?,
        key_path: view.path("key_path")?,
        ticket_rotation_interval: view.seconds("ticket_rotation_interval_seconds"),
        ticket_rotation_overlap: view.seconds("ticket_rotation_overlap_seconds"),
        ticket_key_path: view.path("ticket_key_path"),
        client_auth,
        client_cert_headers,
        certificates,
    })
}

fn certificate(view: View<'_>, listener: &ClientAuth, report: &mut Report<'_>) -> Option<TlsCertificate> {
    Some(TlsCertificate {
        cert_path: view.path("cert_path")?,
        key_path: view.path("key_path")?,
        server_names: view.texts("server_names"),
        client_auth: client_auth(view, Some(listener), report)?,
    })
}

/// The settings of the block, and those of `inherited` for the keys that it lacks.
fn client_auth(
    view: View<'_>,
    inherited: Option<&ClientAuth>,
    report: &mut Report<'_>,
) -> Option<ClientAuth> {
    let mode = match view.word("client_auth") {
        Some(word) => ClientAuthMode::from_word(word)?,
        None => inherited?.mode,
    };
    let ca_path = view.path("client_ca_path").or_else(|| inherited?.ca_path.clone());
    let crl_path = view.path("client_crl_path").or_else(|| inherited?.crl_path.clone());
    if mode != ClientAuthMode::Off && ca_path.is_none() {
        report.error(view, "client_ca_path", format!("missing: client_auth = \"{mode}\" needs it"));
    }
    Some(ClientAuth { mode, ca_path, crl_path })
}

//! `[listeners.client_address]` and `[listeners.proxy_protocol]`: who the client is.

use std::sync::Arc;

use lb_core::forwarded::{AddressSource, TrustPolicy};
use lb_core::network::NetworkMap;
use lb_core::proxy_protocol::ProxyTrust;
use lb_core::route::IpNetwork;

use super::Report;
use crate::document::View;

/// How a listener finds the client of a request.
pub(super) fn address(view: View<'_>, report: &mut Report<'_>) -> Arc<TrustPolicy> {
    Arc::new(TrustPolicy {
        trusted: trusted(view, "trusted_proxies", report),
        source: view.text("from").and_then(AddressSource::parse).unwrap_or(AddressSource::XForwardedFor),
        appends: view.word("untrusted") == Some("append"),
        max_hops: view.size("max_hops"),
        sends_forwarded: view.flag("send_forwarded"),
    })
}

/// Which peers tell their clients at the beginning of a connection.
pub(super) fn proxy_protocol(view: View<'_>, report: &mut Report<'_>) -> Arc<ProxyTrust> {
    let trusted = trusted(view, "trusted", report);
    if trusted.is_empty() {
        report.error(
            view,
            "trusted",
            "must name at least one network: whoever is believed can take the place of any client".to_owned(),
        );
    }
    Arc::new(ProxyTrust { trusted, is_required: view.word("mode") == Some("require") })
}

/// The peers that are believed. A range of all addresses believes everybody, which is worth a warning.
fn trusted(view: View<'_>, key: &'static str, report: &mut Report<'_>) -> NetworkMap<()> {
    let texts = view.texts(key);
    let networks: Vec<_> = texts.iter().filter_map(|text| IpNetwork::parse(text)).collect();
    if networks.iter().any(|network| network.length() == 0) {
        report.warn(view, key, "a range of /0: anybody who can connect can take the place of any client");
    }
    NetworkMap::new(networks.into_iter().map(|network| (network, ())))
}

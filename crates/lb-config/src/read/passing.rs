//! Routes whose connections pass inside TLS, on listeners that end TLS for all others.

use std::sync::Arc;

use lb_core::route::{PathPolicy, RouteConditions};

use super::pool::Pools;
use super::route::{Placed, PlacedScope, assemble};
use super::{Report, raw_route};
use crate::config::{BackendPool, PoolId, Protocol, Routing};
use crate::document::View;

/// The routes of a listener that were taken out.
#[derive(Default)]
pub(super) struct Passing {
    /// Which connections pass; None = none.
    pub(super) routing: Option<Arc<Routing>>,
    /// The pools that they go to.
    pub(super) pools: Vec<(PoolId, Arc<BackendPool>)>,
}

/// Parts the routes whose connections pass from those that are looked at behind TLS.
pub(super) fn take_out<'a>(
    all: Placed<'a>,
    (listener, protocol): (View<'a>, Protocol),
    pools: &Pools,
    report: &mut Report<'_>,
) -> (Placed<'a>, Passing) {
    let (passing, here): (Placed<'a>, Placed<'a>) =
        all.into_iter().partition(|(_, route)| route.tls_passthrough);
    if passing.is_empty() {
        return (here, Passing::default());
    }
    let (mut routes, mut used) = (Vec::new(), Vec::new());
    for (place, route) in passing {
        if !matches!(protocol, Protocol::H1s | Protocol::Tls) {
            let problem = match protocol {
                Protocol::Tcp => "not needed on \"tcp\" listeners, which end no TLS".to_owned(),
                _ => format!("not allowed on \"{protocol}\" listeners: only h1s and tls end TLS over TCP"),
            };
            report.error(place, "tls_passthrough", problem);
            continue;
        }
        if !raw_route::is_raw(&route) {
            let problem = "such a route has a pool, and conditions on the connection alone: server_names, alpn, sources";
            report.error(place, "tls_passthrough", problem);
        }
        let asks_for_certificate = |found: &RouteConditions| {
            found.connection.as_ref().is_some_and(|connection| connection.asks_for_certificate())
        };
        if route.spec.matches.iter().any(asks_for_certificate) {
            report.error(place, "tls_passthrough", "whoever shows a certificate shows it to the backend");
        }
        if route.spec.matches.iter().any(|found| found.connection.is_none() && found.sources.is_empty()) {
            let problem = "would take every connection: server_names, alpn or sources must be there";
            report.error(place, "tls_passthrough", problem);
        }
        for pool in route.target.pools().filter_map(|id| pools.get(id.name())) {
            if let Some(key) = pool.misfit(Protocol::Tcp) {
                let problem = format!("not allowed with tls_passthrough, because its {key} needs HTTP");
                report.error(place, "pool", problem);
            }
            used.push((pool.id.clone(), Arc::clone(pool)));
        }
        routes.extend(raw_route::by_name(&route).map(|route| (place, Arc::new(route))));
    }
    let scope = PlacedScope { hosts: Vec::new(), routes, fallback: None, outer: None };
    let routing = assemble(vec![scope], PathPolicy::default(), listener, report);
    (here, Passing { routing: Some(Arc::new(routing)), pools: used })
}

/// Refuses routes of a virtual host whose connections would pass: which host is asked for is not known before TLS.
pub(super) fn refuse(routes: &Placed<'_>, report: &mut Report<'_>) {
    for (place, _) in routes.iter().filter(|(_, route)| route.tls_passthrough) {
        report.error(
            *place,
            "tls_passthrough",
            "not allowed in a virtual host, which is known by what stands inside TLS",
        );
    }
}

//! Routes of listeners that forward raw bytes: by what clients ask for in TLS, and where they are.

use lb_core::route::{PathCondition, RouteConditions, RouteSpec};

use super::{Report, condition};
use crate::config::{Protocol, Route, RouteTarget};
use crate::document::View;

/// Refuses what looks at requests, or changes them. `listener` is the one that uses the route, with its protocol.
pub(super) fn check(
    view: View<'_>,
    route: &Route,
    (listener, protocol): (View<'_>, Protocol),
    report: &mut Report<'_>,
) {
    if !is_raw(route) {
        let problem = format!(
            "on \"{protocol}\" listeners a route has a pool, and conditions on the connection alone: server_names, alpn, sources, \
             client_cert, client_certs"
        );
        report.errors.push(report.source.error_about_block(view, problem));
    }
    if protocol == Protocol::Tcp || condition::tells_no_certificates(listener) {
        condition::check_certificates(view, route, report);
    }
}

/// Whether a route leads to a pool by nothing but the connection, and changes nothing.
pub(super) fn is_raw(route: &Route) -> bool {
    let looks_at_requests = |found: &RouteConditions| {
        found.path != PathCondition::Any
            || found.scheme.is_some()
            || !(found.methods.is_empty() && found.headers.is_empty())
            || !(found.query.is_empty() && found.cookies.is_empty())
    };
    matches!(route.target, RouteTarget::Pool(_))
        && route.spec.hosts.is_empty()
        && route.chain.is_none()
        && route.limits.is_none()
        && route.mirrors.is_empty()
        && route.websocket
        && route.without.is_empty()
        && !route.spec.matches.iter().any(looks_at_requests)
}

/// The same with the server names in the place of hosts, whose precedence they have: one route for each of its sets of conditions.
pub(super) fn by_name(route: &Route) -> impl Iterator<Item = Route> {
    route.spec.matches.iter().map(|found| {
        let mut found = found.clone();
        let names = found.connection.as_mut().map(|connection| std::mem::take(&mut connection.server_names));
        found.connection.take_if(|connection| connection.is_empty());
        let spec = RouteSpec { hosts: names.unwrap_or_default(), matches: vec![found], ..route.spec.clone() };
        Route { spec, ..route.clone() }
    })
}

//! The same table, one route after the other in precedence: slower, and simple enough to be right at sight. It tells why each route did or
//! did not take a request.

use std::collections::BTreeMap;

use super::condition::{PathCondition, RouteConditions, RouteRequest};
use super::host::HostPattern;
use super::order::Rank;
use super::pattern::PatternCaches;
use super::table::{RouteDestination, RouteTable};

/// What became of a route, for one of its hosts and one of its sets of conditions.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteVerdict<'a> {
    /// The position of the route.
    pub route: u32,
    /// The host that it was tried for; `None` where it is for any.
    pub host: Option<&'a HostPattern>,
    /// The set of conditions, by its position in the route.
    pub alternative: usize,
    /// What kept it from taking the request, as the file calls it; `None` where nothing did.
    pub unmet: Option<&'static str>,
}

/// Every route that could take a request, in precedence, as far as the first that does.
pub fn explain<'a>(
    table: &'a RouteTable,
    request: &RouteRequest<'_>,
    caches: &mut PatternCaches,
) -> (RouteDestination, Vec<RouteVerdict<'a>>) {
    let number = table.scope_of(request.host);
    let Some(scope) = table.scopes().get(number as usize) else {
        return (RouteDestination::Nowhere(number), Vec::new());
    };
    let mut ways = Vec::new();
    for (place, position) in scope.routes.iter().enumerate() {
        let Some(route) = table.specs().get(*position as usize) else { continue };
        for host in route.hosts.iter().map(Some).chain(route.hosts.is_empty().then_some(None)) {
            for (alternative, conditions) in route.matches.iter().enumerate() {
                let rank = Rank::of(host, route.priority, conditions);
                ways.push((rank, place, alternative, *position, host, conditions));
            }
        }
    }
    ways.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut verdicts = Vec::new();
    for (_, _, alternative, route, host, conditions) in ways {
        let unmet = match host {
            Some(host) if !host.fits(request.host) => Some("hosts"),
            _ => conditions.unmet(request, caches),
        };
        verdicts.push(RouteVerdict { route, host, alternative, unmet });
        if unmet.is_none() {
            return (RouteDestination::Route(route), verdicts);
        }
    }
    let end = if scope.has_fallback {
        RouteDestination::Fallback(number)
    } else {
        RouteDestination::Nowhere(number)
    };
    (end, verdicts)
}

/// Where a request goes.
pub fn find(table: &RouteTable, request: &RouteRequest<'_>, caches: &mut PatternCaches) -> RouteDestination {
    explain(table, request, caches).0
}

/// What ways have in common that may have equal conditions.
type Kind<'a> = (Rank, Option<&'a HostPattern>, &'a [u8]);

/// Pairs of ways of which the second can never be taken: equal in precedence but for their places, with equal conditions.
pub fn shadowed(table: &RouteTable, scope: usize) -> Vec<(u32, u32)> {
    let mut seen: BTreeMap<Kind<'_>, Vec<(u32, &RouteConditions)>> = BTreeMap::new();
    let mut found = Vec::new();
    let routes = table.scopes().get(scope).map(|scope| scope.routes.as_slice()).unwrap_or_default();
    for position in routes {
        let Some(route) = table.specs().get(*position as usize) else { continue };
        let mut first = None;
        let hosts: Vec<_> =
            route.hosts.iter().map(Some).chain(route.hosts.is_empty().then_some(None)).collect();
        let ways =
            hosts.into_iter().flat_map(|host| route.matches.iter().map(move |conditions| (host, conditions)));
        let mut is_lost = true;
        for (host, conditions) in ways {
            let path = match &conditions.path {
                PathCondition::Exact(path) | PathCondition::Prefix(path) => path,
                PathCondition::Any | PathCondition::Regex(_) => &[][..],
            };
            let same = seen.entry((Rank::of(host, route.priority, conditions), host, path)).or_default();
            match same.iter().find(|(_, other)| *other == conditions) {
                Some((earlier, _)) => {
                    first.get_or_insert(*earlier);
                }
                None => {
                    is_lost = false;
                    same.push((*position, conditions));
                }
            }
        }
        if let (true, Some(first)) = (is_lost, first) {
            found.push((first, *position));
        }
    }
    found
}

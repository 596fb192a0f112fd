//! Routes: tables by name, and what stands in a listener.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lb_core::filter::{AccessList, Chain, FilterKind, RequestIdPolicy};
use lb_core::route::location::Redirect;
use lb_core::route::{HostPattern, PathPolicy, RouteSpec, RouteTable, Scheme, ScopeSpec, naive};

use super::listener::named_pool;
use super::policy::{self, Policies};
use super::pool::Pools;
use super::{Report, condition, filter, limits, mirror, passing, raw_route, split};
use crate::config::{
    BackendPool, FixedAnswer, OwnRoutes, PoolId, Protocol, Route, RouteTarget, Routing, VirtualHost,
};
use crate::document::{View, near};

/// The routes of a table with the places where they stand.
pub(super) type Placed<'a> = Vec<(View<'a>, Arc<Route>)>;

/// Every table by its name.
pub(super) struct Tables<'a> {
    tables: BTreeMap<&'a str, Placed<'a>>,
    /// Names of routes, and where each stands.
    names: HashMap<String, String>,
    used: BTreeSet<&'a str>,
    policies: Policies<'a>,
}

/// Sets of conditions that a route may have.
const MOST_MATCHES: usize = 64;

/// Routes of a listener.
const MOST_ROUTES: usize = 100_000;

impl<'a> Tables<'a> {
    /// Reads every `[[routes.NAME]]`.
    pub(super) fn read(root: View<'a>, pools: &Pools, report: &mut Report<'_>) -> Self {
        let policies = Policies::read(root, report);
        let mut all =
            Self { tables: BTreeMap::new(), names: HashMap::new(), used: BTreeSet::new(), policies };
        for (name, views) in root.named_arrays("routes") {
            let routes = all.routes(views, pools, report);
            all.tables.insert(name, routes);
        }
        all
    }

    fn routes(&mut self, views: Vec<View<'a>>, pools: &Pools, report: &mut Report<'_>) -> Placed<'a> {
        let mut routes = Vec::new();
        for view in views {
            let Some(route) = route(view, pools, &self.policies, report) else { continue };
            if !route.spec.name.is_empty() {
                let place = view.node.map_or_else(String::new, |node| node.path.clone());
                if let Some(other) = self.names.insert(route.spec.name.clone(), place) {
                    report.error(view, "name", format!("{other} has this name already"));
                }
            }
            routes.push((view, Arc::new(route)));
        }
        routes
    }

    /// The tables that a block names.
    fn named(&mut self, view: View<'_>, report: &mut Report<'_>) -> (Vec<String>, Placed<'a>) {
        let (names, mut routes) = (view.texts("route_tables"), Vec::new());
        for name in &names {
            match self.tables.get_key_value(name.as_str()) {
                Some((known, table)) => {
                    self.used.insert(known);
                    routes.extend(table.iter().cloned());
                }
                None => {
                    let mut problem = format!("there is no table of routes \"{name}\"");
                    if let Some(near) = near(name, self.tables.keys().copied().take(100)) {
                        problem += &format!("; did you mean \"{near}\"?");
                    }
                    report.error(view, "route_tables", problem);
                }
            }
        }
        (names, routes)
    }

    /// Warns of tables that no listener names, and of policies that nothing names.
    pub(super) fn warn_unused(&self, report: &mut Report<'_>) {
        self.policies.warn_unused(report);
        for (name, routes) in &self.tables {
            if let (false, Some((view, _))) = (self.used.contains(name), routes.first()) {
                report.warn_about(*view, format!("no listener has the table \"{name}\""));
            }
        }
    }

    /// The tables without their places.
    pub(super) fn into_routes(self) -> BTreeMap<String, Vec<Arc<Route>>> {
        let routes = |placed: Placed<'_>| placed.into_iter().map(|(_, route)| route).collect();
        self.tables.into_iter().map(|(name, placed)| (name.to_owned(), routes(placed))).collect()
    }

    /// Refuses policies that edit the field of request IDs.
    fn check_level(
        &self,
        view: View<'_>,
        level: Option<&Chain>,
        request_id: Option<&RequestIdPolicy>,
        report: &mut Report<'_>,
    ) {
        let kinds = level.zip(request_id).and_then(|(chain, id)| filter::edits_of_id(chain, id).next());
        if let Some(kind) = kinds {
            report.error(
                view,
                "policies",
                format!("{kind} of one of them edits the field of [listeners.request_id]"),
            );
        }
    }

    /// Which clients may connect to a listener that forwards raw bytes.
    pub(super) fn access_of_raw(
        &self,
        view: View<'_>,
        protocol: Protocol,
        report: &mut Report<'_>,
    ) -> Vec<Arc<AccessList>> {
        if !matches!(protocol, Protocol::Tcp | Protocol::Tls) {
            return Vec::new();
        }
        let Some(chain) = self.policies.level(view, Chain::default(), report) else { return Vec::new() };
        if let Some(kind) = chain.kinds().find(|kind| *kind != FilterKind::Access) {
            let problem =
                format!("{kind} of one of them is not allowed on \"{protocol}\" listeners: it needs HTTP");
            report.error(view, "policies", problem);
        }
        if chain.access.iter().any(|list| list.client_certificate.is_some()) {
            let problem = format!(
                "client_cert of access in one of them is not allowed on \"{protocol}\" listeners, whose clients are let in before TLS"
            );
            report.error(view, "policies", problem);
        }
        chain.access.clone()
    }

    /// Where the connections of a listener that forwards raw bytes go by what their clients ask for in TLS, if they do.
    fn of_raw(
        &mut self,
        view: View<'a>,
        protocol: Protocol,
        fallback: &BackendPool,
        pools: &Pools,
        report: &mut Report<'_>,
    ) -> ListenerRoutes {
        if view.entry("virtual_hosts").is_some() {
            let problem = format!("not allowed on \"{protocol}\" listeners: it needs HTTP");
            report.error(view, "virtual_hosts", problem);
        }
        if view.entry("routes").is_none() && view.entry("route_tables").is_none() {
            return ListenerRoutes::default();
        }
        let own = self.routes(view.blocks("routes"), pools, report);
        let own_routes = own.iter().map(|(_, route)| Arc::clone(route)).collect();
        let (tables, shared) = self.named(view, report);
        let (mut routes, mut used) = (Vec::new(), BTreeMap::new());
        let all = own.into_iter().chain(shared).collect();
        let (here, passing) = passing::take_out(all, (view, protocol), pools, report);
        for (place, route) in here {
            raw_route::check(place, &route, (view, protocol), report);
            for pool in route.pools().filter_map(|id| pools.get(id.name())) {
                if let Some(key) = pool.misfit(protocol) {
                    let problem =
                        format!("not allowed on \"{protocol}\" listeners, because its {key} needs HTTP");
                    report.error(place, "pool", problem);
                }
                used.insert(pool.id.clone(), Arc::clone(pool));
            }
            routes.extend(raw_route::by_name(&route).map(|route| (place, Arc::new(route))));
        }
        used.extend(passing.pools);
        used.remove(&fallback.id);
        let fallback = Some(fallback).filter(|pool| pool.has_backends()).map(|pool| pool.id.clone());
        let scopes = vec![PlacedScope { hosts: Vec::new(), routes, fallback, outer: None }];
        let routing = assemble(scopes, PathPolicy::default(), view, report);
        let own = OwnRoutes { routes: own_routes, tables, chain: None, virtual_hosts: Vec::new() };
        let routing = Some(Arc::new(Routing { own, ..routing }));
        ListenerRoutes { routing, passing: passing.routing, pools: used.into_values().collect() }
    }

    /// What a listener does with requests that are not all alike. `fallback` is for what no route takes.
    pub(super) fn of_listener(
        &mut self,
        view: View<'a>,
        protocol: Protocol,
        (fallback, request_id): (&BackendPool, Option<&RequestIdPolicy>),
        pools: &Pools,
        report: &mut Report<'_>,
    ) -> ListenerRoutes {
        let keys = ["routes", "route_tables", "virtual_hosts", "policies"];
        let present: Vec<_> = keys.into_iter().filter(|key| view.entry(key).is_some()).collect();
        if matches!(protocol, Protocol::Tcp | Protocol::Tls) {
            return self.of_raw(view, protocol, fallback, pools, report);
        }
        let (Some(first), true) = (present.first(), protocol.is_http()) else {
            for key in present {
                report.error(view, key, format!("not allowed on \"{protocol}\" listeners: it needs HTTP"));
            }
            return ListenerRoutes::default();
        };
        let own = self.routes(view.blocks("routes"), pools, report);
        let own_routes: Vec<_> = own.iter().map(|(_, route)| Arc::clone(route)).collect();
        let (tables, shared) = self.named(view, report);
        let fallback_id = Some(fallback).filter(|pool| pool.has_backends()).map(|pool| pool.id.clone());
        let outer = self.policies.level(view, Chain::default(), report);
        self.check_level(view, outer.as_deref(), request_id, report);
        let shows_none = condition::tells_no_certificates(view);
        if shows_none {
            condition::check_access(view, outer.as_ref(), report);
        }
        let all = own.into_iter().chain(shared).collect();
        let (routes, passing) = passing::take_out(all, (view, protocol), pools, report);
        let mut scopes =
            vec![PlacedScope { hosts: Vec::new(), routes, fallback: fallback_id, outer: outer.clone() }];
        let mut virtual_hosts: Vec<VirtualHost> = Vec::new();
        for view in view.blocks("virtual_hosts") {
            let hosts = hosts(view);
            if hosts.is_empty() {
                report.error(view, "hosts", "must have at least one element");
            }
            if let Some(host) =
                hosts.iter().find(|host| virtual_hosts.iter().any(|other| other.hosts.contains(host)))
            {
                report.error(view, "hosts", format!("another virtual host is for {host} already"));
            }
            let (tables, routes) = self.named(view, report);
            passing::refuse(&routes, report);
            let pool = view.text("pool").and_then(|name| pool_of(view, name, pools, report));
            let own = self.policies.level(view, Chain::default(), report);
            self.check_level(view, own.as_deref(), request_id, report);
            if shows_none {
                condition::check_access(view, own.as_ref(), report);
            }
            let both = policy::levels([outer.as_ref(), own.as_ref()]);
            let (hosts_here, fallback) = (hosts.clone(), pool.clone());
            scopes.push(PlacedScope { hosts: hosts_here, routes, fallback, outer: both });
            virtual_hosts.push(VirtualHost { hosts, tables, chain: own, pool });
        }
        if let Some(id) = request_id {
            for (view, route) in scopes.iter().flat_map(|scope| &scope.routes) {
                filter::check_request_id(*view, route, id, report);
            }
        }
        if shows_none {
            for (view, route) in scopes.iter().flat_map(|scope| &scope.routes) {
                condition::check_certificates(*view, route, report);
                condition::check_access(*view, route.chain.as_ref(), report);
            }
        }
        let policy = path_policy(view.block("paths"), report);
        let routing = assemble(scopes, policy, view, report);
        if routing.routes.len() > MOST_ROUTES {
            report.error(view, first, format!("a listener has at most {MOST_ROUTES} routes"));
        }
        let routing = Routing {
            own: OwnRoutes { routes: own_routes, tables, chain: outer, virtual_hosts },
            keeps_override_fields: view.block("paths").word("override_fields") == Some("keep"),
            ..routing
        };
        let targets = routing.routes.iter().flat_map(|route| route.pools());
        let ids: BTreeSet<&PoolId> = targets.chain(routing.fallbacks.iter().flatten()).collect();
        let mut used: BTreeMap<_, _> =
            ids.into_iter().filter_map(|id| Some((id.clone(), Arc::clone(pools.get(id.name())?)))).collect();
        used.extend(passing.pools);
        used.remove(&fallback.id);
        let (routing, pools) = (Some(Arc::new(routing)), used.into_values().collect());
        ListenerRoutes { routing, passing: passing.routing, pools }
    }
}

/// Where a listener's traffic goes that its own pool does not get.
#[derive(Default)]
pub(super) struct ListenerRoutes {
    /// What it does with requests, or with raw connections, that are not all alike.
    pub(super) routing: Option<Arc<Routing>>,
    /// The connections that pass inside TLS, on a listener that ends TLS.
    pub(super) passing: Option<Arc<Routing>>,
    /// Every pool that the two lead to but the listener's own.
    pub(super) pools: Vec<Arc<BackendPool>>,
}

/// A listener's own routes, or those of a virtual host.
pub(super) struct PlacedScope<'a> {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) routes: Placed<'a>,
    pub(super) fallback: Option<PoolId>,
    /// The filters that hold for all requests of the scope.
    pub(super) outer: Option<Arc<Chain>>,
}

/// Compiles the scopes, and looks for routes that no request reaches.
pub(super) fn assemble(
    scopes: Vec<PlacedScope<'_>>,
    policy: PathPolicy,
    listener: View<'_>,
    report: &mut Report<'_>,
) -> Routing {
    let (mut routes, mut specs, mut compiled, mut fallbacks, mut places) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut chains, mut scope_chains) = (Vec::new(), Vec::new());
    for PlacedScope { hosts, routes: placed, fallback, outer } in scopes {
        let first = routes.len();
        for (view, route) in placed {
            let kept = match (&outer, route.without.as_slice()) {
                (Some(outer), [_, ..]) => Some(Arc::new(outer.without(&route.without))),
                (outer, _) => outer.clone(),
            };
            chains.push(policy::levels([kept.as_ref(), route.chain.as_ref()]));
            specs.push(route.spec.clone());
            routes.push(route);
            places.push(view);
        }
        let positions = (first..routes.len()).filter_map(|at| u32::try_from(at).ok()).collect();
        compiled.push(ScopeSpec { hosts, routes: positions, has_fallback: fallback.is_some() });
        fallbacks.push(fallback);
        scope_chains.push(outer);
    }
    let count = compiled.len();
    let table = RouteTable::new(specs, compiled, policy);
    for (first, second) in (0..count).flat_map(|scope| naive::shadowed(&table, scope)) {
        let place = |at: u32| places.get(at as usize).copied().unwrap_or(listener);
        let earlier = place(first).node.map_or("", |node| &node.path);
        let problem =
            format!("can never match: {earlier} has the same hosts and conditions, and stands first");
        report.errors.push(report.source.error_about_block(place(second), problem));
    }
    report.errors.dedup();
    let own = OwnRoutes { routes: Vec::new(), tables: Vec::new(), chain: None, virtual_hosts: Vec::new() };
    let table = Arc::new(table);
    Routing { own, routes, table, fallbacks, chains, scope_chains, keeps_override_fields: false }
}

fn path_policy(view: View<'_>, report: &mut Report<'_>) -> PathPolicy {
    let policy = PathPolicy {
        normalize: view.flag("normalize"),
        allow_ambiguous: view.word("ambiguous") == Some("allow"),
        merge_slashes: view.flag("merge_slashes"),
    };
    if policy.allow_ambiguous {
        let problem = "clients reach backends past routes that guard something, by paths that the gateway and a backend read differently";
        report.warn(view, "ambiguous", problem);
    }
    policy
}

fn hosts(view: View<'_>) -> Vec<HostPattern> {
    view.texts("hosts").iter().filter_map(|host| HostPattern::parse(host)).collect()
}

pub(super) fn pool_of(view: View<'_>, name: &str, pools: &Pools, report: &mut Report<'_>) -> Option<PoolId> {
    let whose = view.node.map_or("", |node| &node.path);
    // Routes stand on listeners that speak HTTP alone.
    named_pool(view, name, Protocol::H1, whose, pools, report).map(|pool| pool.id.clone())
}

/// The keys of conditions.
const CONDITIONS: &[&str] = &[
    "path",
    "path_prefix",
    "path_regex",
    "methods",
    "headers",
    "query",
    "cookies",
    "sources",
    "scheme",
    "ignore_case",
    "server_names",
    "alpn",
    "client_cert",
    "client_certs",
];

fn route(view: View<'_>, pools: &Pools, policies: &Policies<'_>, report: &mut Report<'_>) -> Option<Route> {
    let matches = match view.blocks("matches") {
        sets if sets.is_empty() => vec![condition::read(view, report)],
        sets => {
            for key in CONDITIONS.iter().filter(|key| view.entry(key).is_some()) {
                report.error(view, key, "not allowed together with matches: it belongs into each of them");
            }
            if sets.len() > MOST_MATCHES {
                report.error(view, "matches", format!("has at most {MOST_MATCHES} elements"));
            }
            sets.into_iter().map(|set| condition::read(set, report)).collect()
        }
    };
    let spec = RouteSpec {
        name: view.text("name").unwrap_or_default().to_owned(),
        hosts: hosts(view),
        priority: view.int32("priority"),
        matches,
    };
    let targets: Vec<_> = ["pool", "split", "redirect", "respond"]
        .into_iter()
        .filter(|key| view.entry(key).is_some())
        .collect();
    let target = match targets.as_slice() {
        ["pool"] => RouteTarget::Pool(pool_of(view, view.text("pool")?, pools, report)?),
        ["split"] => RouteTarget::Split(split::read(view, &spec, pools, report)?),
        ["redirect"] => RouteTarget::Redirect(redirect(view.block("redirect"), &spec, report)),
        [_respond] => RouteTarget::Respond(respond(view.block("respond"), report)),
        [] => {
            report.errors.push(
                report
                    .source
                    .error_about_block(view, "a route has a target: pool, split, redirect or respond"),
            );
            return None;
        }
        [first, second, ..] => {
            report.error(view, second, format!("not allowed together with {first}: a route has one target"));
            return None;
        }
    };
    if !matches!(target, RouteTarget::Split(_)) && view.entry("sticky").is_some() {
        report.error(view, "sticky", "needs split");
    }
    let forwards = matches!(target, RouteTarget::Pool(_) | RouteTarget::Split(_));
    if !forwards && view.entry("websocket").is_some() {
        report.error(view, "websocket", "needs pool or split: no backend gets the request");
    }
    let chain = filter::chain(view, &spec, forwards, policies, report);
    let limits = limits::read(view, forwards, report);
    let mirrors = mirror::read(view, forwards, pools, report);
    let without = view.texts("without");
    let without = without.iter().filter_map(|word| FilterKind::from_word(word)).collect();
    Some(Route {
        spec,
        target,
        chain,
        without,
        mirrors,
        limits,
        websocket: view.flag("websocket"),
        tls_passthrough: view.flag("tls_passthrough"),
    })
}

fn redirect(view: View<'_>, spec: &RouteSpec, report: &mut Report<'_>) -> Redirect {
    let status = u16::try_from(view.integer("status")).unwrap_or(302);
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        report.error(view, "status", "must be 301, 302, 303, 307 or 308");
    }
    let changes = ["scheme", "host", "port", "path", "prefix"];
    if changes.iter().all(|key| view.entry(key).is_none()) && view.flag("keep_query") {
        let problem = "leads where the request came from: scheme, host, port, path or prefix must be there";
        report.errors.push(report.source.error_about_block(view, problem));
    }
    Redirect {
        scheme: view.word("scheme").and_then(Scheme::from_word),
        host: view.text("host").map(|host| {
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
                .into()
        }),
        port: view.optional_integer("port").and_then(|port| u16::try_from(port).ok()),
        path: filter::new_path(view, spec, report),
        status,
        keep_query: view.flag("keep_query"),
    }
}

fn respond(view: View<'_>, report: &mut Report<'_>) -> FixedAnswer {
    let answer = FixedAnswer {
        status: u16::try_from(view.integer("status")).unwrap_or(599),
        body: view.text("body").unwrap_or_default().to_owned(),
        body_file: view.path("body_file"),
        content_type: view.text("content_type").unwrap_or("text/plain; charset=utf-8").to_owned(),
    };
    // RFC 9110 §15.3.5, §15.3.6, §15.4.5.
    if view.entry("body").is_some() && view.entry("body_file").is_some() {
        report.error(view, "body_file", "not allowed together with body");
    }
    let key = if answer.body_file.is_some() { "body_file" } else { "body" };
    if matches!(answer.status, 204 | 205 | 304) && (!answer.body.is_empty() || answer.body_file.is_some()) {
        report.error(view, key, format!("a response with status {} has no body", answer.status));
    }
    answer
}

//! Routes: tables by name, and what stands in a listener.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lb_core::filter::{Chain, FilterKind, RequestIdPolicy};
use lb_core::head::FieldName;
use lb_core::route::location::Redirect;
use lb_core::route::{
    HostPattern, IpNetwork, PathCondition, PathPolicy, Pattern, RouteConditions, RouteSpec, RouteTable,
    Scheme, ScopeSpec, ValueCondition, naive, path,
};

use super::listener::named_pool;
use super::policy::{self, Policies};
use super::pool::Pools;
use super::{Report, filter, limits, split};
use crate::config::{
    BackendPool, FixedAnswer, OwnRoutes, PoolId, Protocol, Route, RouteTarget, Routing, VirtualHost,
};
use crate::document::{View, near};
use crate::schema::read_value_condition;

/// The routes of a table with the places where they stand.
type Placed<'a> = Vec<(View<'a>, Arc<Route>)>;

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

/// RouteConditions in a set.
const MOST_CONDITIONS: usize = 32;

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

    /// What a listener does with requests that are not all alike; `None` where they are. `fallback` is for what no route takes. Besides,
    /// every pool that routes lead to.
    pub(super) fn of_listener(
        &mut self,
        view: View<'a>,
        protocol: Protocol,
        (fallback, request_id): (&BackendPool, Option<&RequestIdPolicy>),
        pools: &Pools,
        report: &mut Report<'_>,
    ) -> (Option<Arc<Routing>>, Vec<Arc<BackendPool>>) {
        let keys = ["routes", "route_tables", "virtual_hosts", "policies"];
        let present: Vec<_> = keys.into_iter().filter(|key| view.entry(key).is_some()).collect();
        let (Some(first), true) = (present.first(), protocol.is_http()) else {
            for key in present {
                report.error(view, key, format!("not allowed on \"{protocol}\" listeners: it needs HTTP"));
            }
            return (None, Vec::new());
        };
        let own = self.routes(view.blocks("routes"), pools, report);
        let own_routes: Vec<_> = own.iter().map(|(_, route)| Arc::clone(route)).collect();
        let (tables, shared) = self.named(view, report);
        let fallback_id = Some(fallback).filter(|pool| pool.has_backends()).map(|pool| pool.id.clone());
        let outer = self.policies.level(view, Chain::default(), report);
        self.check_level(view, outer.as_deref(), request_id, report);
        let routes = own.into_iter().chain(shared).collect();
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
            let pool = view.text("pool").and_then(|name| pool_of(view, name, pools, report));
            let own = self.policies.level(view, Chain::default(), report);
            self.check_level(view, own.as_deref(), request_id, report);
            let both = policy::levels([outer.as_ref(), own.as_ref()]);
            scopes.push(PlacedScope { hosts: hosts.clone(), routes, fallback: pool.clone(), outer: both });
            virtual_hosts.push(VirtualHost { hosts, tables, chain: own, pool });
        }
        if let Some(id) = request_id {
            for (view, route) in scopes.iter().flat_map(|scope| &scope.routes) {
                filter::check_request_id(*view, route, id, report);
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
        let targets = routing.routes.iter().flat_map(|route| route.target.pools());
        let ids: BTreeSet<&PoolId> = targets.chain(routing.fallbacks.iter().flatten()).collect();
        let others = ids.into_iter().filter(|id| **id != fallback.id);
        let used = others.filter_map(|id| pools.get(id.name()).map(Arc::clone)).collect();
        (Some(Arc::new(routing)), used)
    }
}

/// A listener's own routes, or those of a virtual host.
struct PlacedScope<'a> {
    hosts: Vec<HostPattern>,
    routes: Placed<'a>,
    fallback: Option<PoolId>,
    /// The filters that hold for all requests of the scope.
    outer: Option<Arc<Chain>>,
}

/// Compiles the scopes, and looks for routes that no request reaches.
fn assemble(
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
];

fn route(view: View<'_>, pools: &Pools, policies: &Policies<'_>, report: &mut Report<'_>) -> Option<Route> {
    let matches = match view.blocks("matches") {
        sets if sets.is_empty() => vec![conditions(view, report)],
        sets => {
            for key in CONDITIONS.iter().filter(|key| view.entry(key).is_some()) {
                report.error(view, key, "not allowed together with matches: it belongs into each of them");
            }
            if sets.len() > MOST_MATCHES {
                report.error(view, "matches", format!("has at most {MOST_MATCHES} elements"));
            }
            sets.into_iter().map(|set| conditions(set, report)).collect()
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
    let chain = filter::chain(view, &spec, forwards, policies, report);
    let limits = limits::read(view, forwards, report);
    let without = view.texts("without");
    let without = without.iter().filter_map(|word| FilterKind::from_word(word)).collect();
    Some(Route { spec, target, chain, without, limits })
}

fn conditions(view: View<'_>, report: &mut Report<'_>) -> RouteConditions {
    let ignore_case = view.flag("ignore_case");
    let paths: Vec<_> =
        ["path", "path_prefix", "path_regex"].into_iter().filter(|key| view.entry(key).is_some()).collect();
    if let [first, second, ..] = paths.as_slice() {
        report.error(view, second, format!("not allowed together with {first}"));
    }
    if ignore_case && paths.is_empty() {
        report.error(view, "ignore_case", "needs path, path_prefix or path_regex");
    }
    for key in ["path", "path_prefix"] {
        if view.text(key).is_some_and(|text| path::is_suspicious(text.as_bytes())) {
            let problem = "some backends read this path as another: requests for it are answered 400 unless all readings have the same route";
            report.warn(view, key, problem);
        }
    }
    let path = if let Some(text) = view.text("path") {
        PathCondition::Exact(text.as_bytes().into())
    } else if let Some(text) = view.text("path_prefix") {
        PathCondition::Prefix(text.strip_suffix('/').unwrap_or(text).as_bytes().into())
    } else if let Some(text) = view.text("path_regex") {
        // With letter case ignored it may be too large where it was not before.
        match Pattern::new(text, ignore_case) {
            Ok(pattern) => PathCondition::Regex(pattern),
            Err(problem) => {
                report.error(view, "path_regex", problem);
                PathCondition::Any
            }
        }
    } else {
        PathCondition::Any
    };
    let found = RouteConditions {
        path,
        ignore_case,
        methods: view.texts("methods").into_iter().map(|method| method.into_bytes().into()).collect(),
        headers: headers(view, report),
        query: values(view, "query"),
        cookies: values(view, "cookies"),
        sources: view.texts("sources").iter().filter_map(|text| IpNetwork::parse(text)).collect(),
        scheme: view.word("scheme").and_then(Scheme::from_word),
    };
    let count = found.headers.len() + found.query.len() + found.cookies.len();
    if count > MOST_CONDITIONS {
        let problem =
            format!("at most {MOST_CONDITIONS} conditions on fields, query and cookies stand together");
        report.errors.push(report.source.error_about_block(view, problem));
    }
    found
}

fn values(view: View<'_>, key: &str) -> Vec<ValueCondition> {
    let read = |text: &String| read_value_condition(text).ok();
    let found = view.texts(key);
    found
        .iter()
        .filter_map(read)
        .map(|(name, want)| ValueCondition { name: name.into_bytes().into(), want })
        .collect()
}

/// RouteConditions on fields; such as say nothing about a request as backends see it are errors.
fn headers(view: View<'_>, report: &mut Report<'_>) -> Vec<ValueCondition> {
    let mut conditions = values(view, "headers");
    for condition in &mut conditions {
        condition.name.make_ascii_lowercase();
        let name = String::from_utf8_lossy(&condition.name).into_owned();
        let meant = match name.as_str() {
            "host" => "hosts",
            "cookie" => "cookies",
            "x-forwarded-for" | "forwarded" | "x-real-ip" => "sources",
            "x-forwarded-proto" => "scheme",
            "x-forwarded-host" => "hosts",
            "x-client-cert-subject" | "x-client-cert-sha256" => "client_certs",
            name => {
                let known = FieldName::of(name.as_bytes());
                if known.is_hop_by_hop() || known.is_protected() {
                    let problem = format!(
                        "`{name}` is about one hop or the framing of a message, and nothing that backends see"
                    );
                    report.error(view, "headers", problem);
                }
                continue;
            }
        };
        report.error(view, "headers", format!("a condition on `{name}` is written under {meant}"));
    }
    conditions
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

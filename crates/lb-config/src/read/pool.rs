//! `[pools.NAME]`: what is chosen, and by which rule.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lb_core::balance::BalanceSettings;
use lb_core::pool::PoolSettings;

use super::{Report, backend, resilience};
use crate::config::{Backend, BackendPool, HashKey, Policy, PoolId, Protocol, SameSite, Sticky, Transport};
use crate::document::View;
use crate::schema::POOLS;

/// Every named pool by its name.
pub(super) type Pools = BTreeMap<String, Arc<BackendPool>>;

/// What clients speak on the listeners that refer to each pool, by its name.
pub(super) fn users(root: View<'_>) -> HashMap<&str, Vec<Protocol>> {
    let mut users: HashMap<_, Vec<_>> = HashMap::new();
    let mut tables: HashMap<_, Vec<_>> = HashMap::new();
    for listener in root.blocks("listeners") {
        let Some(protocol) = listener.word("protocol").and_then(Protocol::from_word) else { continue };
        let hosts = listener.blocks("virtual_hosts");
        let routes = listener.blocks("routes");
        let branches = branches(&routes);
        for view in std::iter::once(listener).chain(routes).chain(branches).chain(hosts.iter().copied()) {
            users.entry(view.text("pool").unwrap_or_default()).or_default().push(protocol);
        }
        for table in std::iter::once(listener).chain(hosts).flat_map(|view| view.texts("route_tables")) {
            tables.entry(table).or_default().push(protocol);
        }
    }
    for (table, routes) in root.named_arrays("routes") {
        let Some(protocols) = tables.get(table) else { continue };
        let branches = branches(&routes);
        for name in routes.iter().chain(&branches).filter_map(|view| view.text("pool")) {
            users.entry(name).or_default().extend(protocols);
        }
    }
    if let Some(passthrough) = root.present("passthrough") {
        let routes = passthrough.blocks("routes");
        for name in std::iter::once(passthrough).chain(routes).filter_map(|view| view.text("pool")) {
            users.entry(name).or_default().push(Protocol::Passthrough);
        }
    }
    for name in root.block("xdp").blocks("services").iter().filter_map(|view| view.text("pool")) {
        // Packets are carried as they are.
        users.entry(name).or_default();
    }
    users
}

/// The branches of all routes.
fn branches<'a>(routes: &[View<'a>]) -> Vec<View<'a>> {
    routes.iter().flat_map(|route| route.blocks("split")).collect()
}

/// Reads every `[pools.NAME]`.
pub(super) fn all(root: View<'_>, report: &mut Report<'_>) -> Option<Pools> {
    let users = users(root);
    let mut pools = Pools::new();
    for (name, view) in root.named("pools") {
        let pool = one(PoolId::from(name), view, report)?;
        match users.get(name) {
            Some(protocols) => backend::check(view, &pool.backends, protocols, report),
            None => report.warn_about(view, "no listener uses it"),
        }
        if !pool.has_backends() {
            let problem = "missing: a pool has at least one backend, or [pools.NAME.discovery]";
            report.error(view, "backends", problem);
        }
        pools.insert(name.to_owned(), Arc::new(pool));
    }
    Some(pools)
}

/// The pool of the backends that stand inside a listener: all but these is at its default.
pub(super) fn of_listener(
    view: View<'_>,
    name: &str,
    (protocol, transport): (Protocol, Transport),
    report: &mut Report<'_>,
) -> Option<BackendPool> {
    let defaults = View { block: &POOLS, node: None };
    let id = PoolId::Listener(name.into(), transport);
    let backends = backend::all(view, report)?;
    backend::check(view, &backends, &[protocol], report);
    if !protocol.is_http() && view.present("sticky").is_some() {
        report.error(view, "sticky", format!("not allowed on \"{protocol}\" listeners: it needs HTTP"));
    }
    let pool = pool(id, backends, defaults, view, report)?;
    backend::check_health(view, &pool, report);
    for name in BLOCKS.iter().filter(|name| !pool.has_backends() && view.present(name).is_some()) {
        report.warn(view, name, "does nothing, because the listener has no backends of its own");
    }
    Some(pool)
}

/// The pool of a listener that names one backend elsewhere than in `[[listeners.backends]]`.
pub(super) fn of_one(
    view: View<'_>,
    name: &str,
    transport: Transport,
    backend: Backend,
    report: &mut Report<'_>,
) -> Option<BackendPool> {
    let defaults = View { block: &POOLS, node: None };
    let pool = pool(PoolId::Listener(name.into(), transport), vec![backend], defaults, view, report)?;
    backend::check_health(view, &pool, report);
    Some(pool)
}

/// A pool of these backends with everything else at its default.
pub(super) fn default(id: PoolId, backends: Vec<Backend>, report: &mut Report<'_>) -> Option<BackendPool> {
    let view = View { block: &POOLS, node: None };
    pool(id, backends, view, view, report)
}

/// The blocks of a pool, which may stand beside the backends of a listener too.
pub(super) const BLOCKS: &[&str] = &["sticky", "health", "outlier", "limits", "retry", "discovery"];

fn one(id: PoolId, view: View<'_>, report: &mut Report<'_>) -> Option<BackendPool> {
    let backends = backend::all(view, report)?;
    let pool = pool(id, backends, view, view, report)?;
    backend::check_health(view, &pool, report);
    Some(pool)
}

/// A pool of these backends whose keys stand in one place, and whose blocks stand in another.
fn pool(
    id: PoolId,
    backends: Vec<Backend>,
    keys: View<'_>,
    blocks: View<'_>,
    report: &mut Report<'_>,
) -> Option<BackendPool> {
    let balance = balance(keys, report)?;
    let (health, check) = blocks.optional("health", |view| resilience::health(view, report))?.unzip();
    let settings = PoolSettings {
        balance,
        rest: keys.nonzero_millis("rest_ms"),
        outlier: blocks.present("outlier").map(|view| resilience::outlier(view, report)),
        health,
        limits: resilience::limits(blocks.block("limits"), report),
        retry: blocks.present("retry").map(|view| resilience::retry(view, report)).unwrap_or_default(),
    };
    Some(BackendPool {
        id,
        backends,
        settings,
        hash_key: keys.text("hash_key").map_or(Some(HashKey::SourceAddress), HashKey::parse)?,
        sticky: blocks.optional("sticky", |view| sticky(view, report))?,
        health: check,
        discovery: blocks.optional("discovery", |view| resilience::discovery(view, report))?,
    })
}

/// Keys that only some policies look at.
const POLICY_KEYS: &[(&str, &[Policy])] = &[
    ("hash_key", HASHING),
    ("hash_balance_factor", HASHING),
    ("maglev_table_size", &[Policy::Maglev]),
    ("ring_points_per_weight", &[Policy::RingHash]),
    ("ewma_decay_ms", &[Policy::P2cEwma]),
];

const HASHING: &[Policy] = &[Policy::Maglev, Policy::RingHash, Policy::Rendezvous];

fn balance(view: View<'_>, report: &mut Report<'_>) -> Option<BalanceSettings> {
    let policy = Policy::from_word(view.word("policy")?)?;
    for (name, policies) in POLICY_KEYS {
        if view.entry(name).is_some() && !policies.contains(&policy) {
            let list: Vec<_> = policies.iter().map(|policy| format!("\"{policy}\"")).collect();
            let problem = format!("does nothing with policy = \"{policy}\", only with {}", list.join(", "));
            report.warn(view, name, problem);
        }
    }
    let maglev_table_size = view.int32("maglev_table_size");
    if !is_prime(maglev_table_size) {
        let next = (maglev_table_size..).find(|number| is_prime(*number)).unwrap_or(maglev_table_size);
        report.error(view, "maglev_table_size", format!("must be a prime number; the next is {next}"));
    }
    Some(BalanceSettings {
        policy,
        balance_factor: view.nonzero32("hash_balance_factor"),
        table_size: maglev_table_size,
        ring_points: view.int32("ring_points_per_weight"),
        panic_threshold_percent: view.int32("panic_threshold_percent"),
        slow_start: view.millis("slow_start_ms"),
        ewma_decay: view.millis("ewma_decay_ms"),
    })
}

fn is_prime(number: u32) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number >= 2 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

fn sticky(view: View<'_>, report: &mut Report<'_>) -> Option<Sticky> {
    let sticky = Sticky {
        cookie: view.text("cookie").unwrap_or("eg_sticky").to_owned(),
        ttl: Some(view.seconds("ttl_seconds")).filter(|ttl| !ttl.is_zero()),
        path: view.text("path").unwrap_or("/").to_owned(),
        secure: view.flag("secure"),
        http_only: view.flag("http_only"),
        same_site: SameSite::from_word(view.word("same_site")?)?,
        key_path: view.path("key_path"),
    };
    // Browsers drop a cookie that breaks these rules without a word, and the client is never kept anywhere
    // (draft-ietf-httpbis-rfc6265bis §4.1.2.7, §4.1.3).
    let name = sticky.cookie.to_ascii_lowercase();
    let is_host = name.starts_with("__host-");
    if !sticky.secure && (is_host || name.starts_with("__secure-")) {
        report.error(view, "secure", "must be true: the name of the cookie asks for it");
    }
    if is_host && sticky.path != "/" {
        report.error(view, "path", "must be \"/\": the name of the cookie asks for it");
    }
    if !sticky.secure && sticky.same_site == SameSite::None {
        report.error(view, "same_site", "needs secure = true");
    }
    Some(sticky)
}

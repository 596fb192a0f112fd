//! What a configuration in force says of listeners, routes, pools and backends: the part of the status that stays until the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lb_config::{Config, Listener, Route, RouteTarget};
use lb_core::route::{PathCondition, RouteConditions};
use lb_io::gate::CountGate;
use lb_pool::SharedPool;
use tokio::time::Instant;

use super::json::Object;
use crate::overlay::Overlay;
use crate::snapshot::{PoolInForce, Snapshot};

/// Routes that are shown. A table that many listeners share stands there once for each.
const MOST_ROUTES: usize = 5_000;

/// Members that are shown, of all pools together.
const MOST_MEMBERS: usize = 20_000;

/// Alternatives of a route that are shown.
const MOST_ALTERNATIVES: usize = 4;

/// What is in force, as the control thread tells it.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The configuration without what lies over it.
    pub(crate) config: Config,
    pub(crate) overlay: Overlay,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) version: u64,
    /// Listeners that a reload took away, whose connections finish.
    pub(crate) endings: Vec<EndingShown>,
}

/// A listener that accepts no more.
#[derive(Debug)]
pub(crate) struct EndingShown {
    pub(crate) name: String,
    pub(crate) gate: Arc<CountGate>,
    pub(crate) deadline: Instant,
}

/// A row without what changes.
#[derive(Debug)]
pub(super) struct Row {
    /// What tells it from all other rows.
    pub(super) id: String,
    /// The object, which is not ended.
    pub(super) begun: Object,
}

/// All rows.
#[derive(Debug)]
pub(super) struct Board {
    /// With the listener's name.
    pub(super) listeners: Vec<(String, Row)>,
    /// With the names of listener and route.
    pub(super) routes: Vec<(String, String, Row)>,
    pub(super) pools: Vec<PoolRows>,
    /// Routes and members that are not shown.
    pub(super) left_off: (usize, usize),
}

/// A pool and its members.
#[derive(Debug)]
pub(super) struct PoolRows {
    pub(super) name: String,
    pub(super) shared: Arc<SharedPool>,
    pub(super) row: Row,
    /// In the order of the members.
    pub(super) members: Vec<Row>,
}

impl Board {
    pub(super) fn of(standing: &Standing) -> Self {
        let config = &standing.snapshot.config;
        let listeners = config.listeners.iter().filter(|listener| listener.starts());
        let mut left_off = (0, 0);
        let mut routes = Vec::new();
        for listener in listeners.clone() {
            let Some(routing) = &listener.routing else { continue };
            for (at, route) in routing.routes.iter().enumerate() {
                if routes.len() >= MOST_ROUTES {
                    left_off.0 = usize::saturating_add(left_off.0, 1);
                    continue;
                }
                routes.push((listener.name.clone(), route.spec.name.clone(), route_row(listener, at, route)));
            }
        }
        let mut room = MOST_MEMBERS;
        let pools = standing.snapshot.pools().map(|pool| {
            let rows = pool_rows(standing, pool, room);
            room = room.saturating_sub(rows.members.len());
            left_off.1 = usize::saturating_add(
                left_off.1,
                pool.shared.members.len().saturating_sub(rows.members.len()),
            );
            rows
        });
        let pools = pools.collect();
        let listeners = listeners.map(|listener| (listener.name.clone(), listener_row(listener)));
        Self { listeners: listeners.collect(), routes, pools, left_off }
    }
}

fn begin(id: String) -> Row {
    let begun = Object::new().text("id", &id);
    Row { id, begun }
}

impl Row {
    fn with(self, add: impl FnOnce(Object) -> Object) -> Self {
        Self { id: self.id, begun: add(self.begun) }
    }
}

fn listener_row(listener: &Listener) -> Row {
    let routes = listener.routing.as_ref().map_or(0, |routing| routing.routes.len());
    begin(format!("listener {}", listener.name)).with(|row| {
        row.text("name", &listener.name)
            .text("protocol", &listener.protocol.to_string())
            .text("pool", listener.pool.id.name())
            .number("routes", i128::try_from(routes).unwrap_or_default())
            .number("drain_timeout_ms", millis(listener.drain_timeout))
    })
}

fn route_row(listener: &Listener, at: usize, route: &Route) -> Row {
    let hosts: Vec<String> = route.spec.hosts.iter().map(ToString::to_string).collect();
    let mut when: Vec<String> = route.spec.matches.iter().take(MOST_ALTERNATIVES).map(condition).collect();
    let more = route.spec.matches.len().saturating_sub(MOST_ALTERNATIVES);
    if more > 0 {
        when.push(format!("… {more} more"));
    }
    begin(format!("route {} {at}", listener.name)).with(|row| {
        row.text("name", &route.spec.name)
            .text("listener", &listener.name)
            .texts("hosts", hosts.iter().map(String::as_str))
            .texts("when", when.iter().map(String::as_str))
            .text("target", &target(&route.target))
    })
}

fn target(target: &RouteTarget) -> String {
    match target {
        RouteTarget::Pool(pool) => format!("pool {}", pool.name()),
        RouteTarget::Redirect(redirect) => format!("redirect {}", redirect.status),
        RouteTarget::Respond(fixed) => format!("answer {}", fixed.status),
        RouteTarget::Split(split) => {
            let branches = split.branches.iter();
            let branches = branches.map(|branch| format!("{} {}", branch.pool.name(), branch.weight));
            format!("split {}", branches.collect::<Vec<_>>().join(" : "))
        }
    }
}

/// A set of conditions in a few words.
fn condition(conditions: &RouteConditions) -> String {
    let mut words: Vec<String> = Vec::new();
    let methods = conditions.methods.iter().map(|method| String::from_utf8_lossy(method));
    let methods = methods.collect::<Vec<_>>().join("|");
    if !methods.is_empty() {
        words.push(methods);
    }
    match &conditions.path {
        PathCondition::Any => {}
        PathCondition::Exact(path) => words.push(format!("= {}", String::from_utf8_lossy(path))),
        PathCondition::Prefix(path) => words.push(format!("{}/*", String::from_utf8_lossy(path))),
        PathCondition::Regex(pattern) => words.push(format!("~ {pattern}")),
    }
    for (count, what) in [
        (conditions.headers.len(), "header"),
        (conditions.query.len(), "query"),
        (conditions.cookies.len(), "cookie"),
        (usize::from(!conditions.sources.is_empty()), "client"),
        (usize::from(conditions.scheme.is_some()), "scheme"),
        (usize::from(conditions.connection.is_some()), "TLS"),
    ] {
        if count > 0 {
            words.push(format!("+{what}"));
        }
    }
    if words.is_empty() { "any".to_owned() } else { words.join(" ") }
}

fn pool_rows(standing: &Standing, pool: PoolInForce<'_>, room: usize) -> PoolRows {
    let PoolInForce { config: merged, backends: resolved, shared } = pool;
    let name = merged.id.name();
    let users = standing.config.listeners_of(&merged.id).map(|listener| listener.name.as_str());
    let unresolved = resolved.iter().filter(|backend| backend.addresses.is_empty());
    let row = begin(format!("pool {name}")).with(|row| {
        row.text("name", name)
            .texts("listeners", users)
            .text("policy", &merged.settings.balance.policy.to_string())
            .texts("without_address", unresolved.map(|backend| backend.name.as_str()))
    });
    let origins = standing.overlay.origins(&standing.config);
    let addresses: HashMap<_, _> =
        merged.backends.iter().map(|backend| (backend.name.as_str(), &backend.address)).collect();
    let members = shared.members.iter().take(room).map(|(member, spec)| {
        let backend = &member.key.backend;
        let origin = addresses.get(backend.as_str()).map(|address| origins.of(&merged.id, address).name());
        begin(format!("backend {name} {backend} {}", member.key.address)).with(|row| {
            row.text("pool", name)
                .text("backend", backend)
                .text("address", &member.key.address.to_string())
                .text("origin", origin.unwrap_or("file"))
                .number("priority", spec.priority)
        })
    });
    PoolRows { name: name.to_owned(), shared: Arc::clone(shared), row, members: members.collect() }
}

pub(super) fn millis(time: Duration) -> i128 {
    i128::try_from(time.as_millis()).unwrap_or(i128::MAX)
}

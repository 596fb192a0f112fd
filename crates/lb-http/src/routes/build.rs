//! Routes as a worker has them, made of those of the configuration.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::{Listener, PoolId, Route, RouteTarget};
use lb_observe::metrics::Metrics;

use super::{Goes, RouteSide, Routes, SharedParts, TableRoutes};
use crate::limits::Limiters;
use crate::service::Pool;

impl Routes {
    /// The routes of a listener, whose own pool is `pool`; `others` gives the pools that they lead to besides.
    pub(crate) fn new(
        listener: &Listener,
        pool: Rc<Pool>,
        mut others: impl FnMut(&PoolId) -> Option<Rc<Pool>>,
        shared: SharedParts<'_>,
        metrics: &Metrics,
    ) -> Self {
        let Some(routing) = &listener.routing else { return Self::One(pool) };
        // Of thousands of routes in a row many lead to one pool.
        let mut last: Option<(PoolId, Option<Rc<Pool>>)> = None;
        let mut find = |id: &PoolId| match &last {
            Some((known, found)) if known == id => found.clone(),
            _ => {
                let found = if *id == listener.pool.id { Some(Rc::clone(&pool)) } else { others(id) };
                last = Some((id.clone(), found.clone()));
                found
            }
        };
        let counted = metrics.listener(&listener.name);
        let named = |name: &str| if name.is_empty() { None } else { counted.routes.named(name) };
        let side = |(position, route): (usize, &Arc<Route>)| RouteSide {
            goes: match &route.target {
                RouteTarget::Pool(id) => Goes::Pool(find(id)),
                RouteTarget::Split(split) => {
                    Goes::Split(split.branches.iter().map(|branch| find(&branch.pool)).collect())
                }
                RouteTarget::Respond(fixed) => {
                    Goes::Respond(fixed.body_file.as_ref().and_then(|path| shared.bodies.get(path)).cloned())
                }
                RouteTarget::Redirect(_) => Goes::Redirect,
            },
            chain: routing.chains.get(position).cloned().flatten(),
            http: route.limits.as_ref().map(|limits| Box::new(limits.http(&listener.http))),
            metrics: named(&route.spec.name),
            has_rules: route.limits.as_ref().is_some_and(|limits| limits.retry.is_some()),
        };
        let sides = routing.routes.iter().enumerate().map(side).collect();
        let fallbacks = routing.fallbacks.iter().map(|id| id.as_ref().and_then(&mut find)).collect();
        let (routing, caches) = (Arc::clone(routing), RefCell::default());
        let mut mirrors = HashMap::new();
        for (position, route) in (0..).zip(&routing.routes).filter(|(_, route)| !route.mirrors.is_empty()) {
            let found = route.mirrors.iter().filter_map(|mirror| Some((mirror.clone(), find(&mirror.pool)?)));
            mirrors.insert(position, found.collect());
        }
        let has_cors =
            routing.chains.iter().chain(&routing.scope_chains).flatten().any(|chain| chain.cors.is_some());
        let pages = routing.error_pages().filter_map(|page| shared.bodies.get_key_value(&page.file));
        let pages = pages.map(|(file, page)| (file.clone(), Arc::clone(page))).collect();
        let limits = Limiters::new(&routing, shared.limits, shared.adaptive, metrics);
        Self::Table(Box::new(TableRoutes {
            routing,
            sides,
            fallbacks,
            mirrors,
            own: pool,
            pages,
            has_cors,
            caches,
            limits,
        }))
    }
}

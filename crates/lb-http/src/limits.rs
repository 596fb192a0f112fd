//! The limits of a listener's routes, with the tables of the process.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::Routing;
use lb_core::filter::{Chain, RateLimit, RateNotice, RateVerdict, check_rates};
use lb_core::head::ResponseHead;
use lb_core::limit::{LimitRequest, RateTable, RateTables};
use lb_core::route::RouteDestination;
use lb_observe::metrics::{Metrics, PolicyMetrics};
use tokio::time::Instant;

/// A limit in force.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: Arc<RateLimit>,
    table: Arc<RateTable>,
    metrics: Arc<PolicyMetrics>,
}

/// The limits of a table of routes. Those that share a chain of filters share these as well.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    /// By the position of the route; empty where no route has any.
    routes: Vec<Option<Rc<[Limiter]>>>,
    /// Of what no route takes, by scope; empty where no scope has any.
    scopes: Vec<Option<Rc<[Limiter]>>>,
}

impl Limiters {
    /// The limits of these routes. A limit without a table does not hold: the tables are made from the configuration that has the limit.
    pub(crate) fn new(routing: &Routing, tables: &RateTables, metrics: &Metrics) -> Self {
        let mut made: HashMap<*const Chain, Option<Rc<[Limiter]>>> = HashMap::new();
        let mut of = |chains: &[Option<Arc<Chain>>]| {
            let mut limits = |chain: &Arc<Chain>| {
                let make = || {
                    let of_limit = |limit: &Arc<RateLimit>| {
                        let (limit, table) = (Arc::clone(limit), Arc::clone(tables.get(&limit.policy)?));
                        let metrics = metrics.policy(&limit.policy);
                        Some(Limiter { limit, table, metrics })
                    };
                    let found: Vec<_> = chain.rate_limits.iter().filter_map(of_limit).collect();
                    (!found.is_empty()).then(|| found.into())
                };
                made.entry(Arc::as_ptr(chain)).or_insert_with(make).clone()
            };
            let found: Vec<_> = chains.iter().map(|chain| chain.as_ref().and_then(&mut limits)).collect();
            if found.iter().any(Option::is_some) { found } else { Vec::new() }
        };
        Self { routes: of(&routing.chains), scopes: of(&routing.scope_chains) }
    }

    /// The limits of requests that go there, if there are any.
    #[inline]
    pub(crate) fn at(&self, destination: RouteDestination) -> Option<&[Limiter]> {
        let (limits, at) = match destination {
            RouteDestination::Route(position) => (&self.routes, position),
            RouteDestination::Fallback(scope) | RouteDestination::Nowhere(scope) => (&self.scopes, scope),
        };
        limits.get(at as usize)?.as_deref()
    }
}

/// What limits say of a request.
pub(crate) fn check(limiters: &[Limiter], request: &LimitRequest<'_>) -> RateVerdict {
    let limits = limiters.iter().map(|limiter| (&*limiter.limit, &*limiter.table));
    // The moment of the decision: that of the first byte is one that a client can hold back.
    let now = Instant::now().into_std();
    check_rates(limits, request, now, |place| {
        if let Some(limiter) = limiters.get(usize::from(place)) {
            limiter.metrics.rate_limit_evictions.inc();
        }
    })
}

/// Has a response tell what is left.
pub(crate) fn tell(limiters: &[Limiter], notice: &RateNotice, head: &mut ResponseHead) {
    if let Some(seconds) = notice.retry_after {
        head.fields.remove_named(b"retry-after");
        head.fields.push(b"Retry-After", seconds.to_string().as_bytes());
    }
    let limiter = limiters.get(usize::from(notice.limit));
    if let (Some(standing), Some(Limiter { limit, .. })) = (notice.standing, limiter) {
        head.fields.push(b"RateLimit-Policy", limit.policy_field().as_bytes());
        head.fields.push(b"RateLimit", limit.standing_field(standing).as_bytes());
    }
}

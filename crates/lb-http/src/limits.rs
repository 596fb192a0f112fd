//! The limits of a listener's routes, with the tables of the process.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::Routing;
use lb_core::filter::{AccessVerdict, Chain, RateLimit, RateNotice, RateVerdict, check_rates};
use lb_core::head::ResponseHead;
use lb_core::limit::{LimitRequest, LimitTables, RateTable};
use lb_core::route::RouteDestination;
use lb_observe::metrics::{Metrics, PolicyMetrics};
use tokio::time::Instant;

use crate::concurrency::{AdaptiveLimits, ConcurrencyLimiter, Held};

/// A rate limit in force.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limit: Arc<RateLimit>,
    table: Arc<RateTable>,
    metrics: Arc<PolicyMetrics>,
}

/// The limits of a route.
#[derive(Debug)]
pub(crate) struct RouteLimiters {
    rates: Box<[RateLimiter]>,
    concurrency: Box<[Rc<ConcurrencyLimiter>]>,
}

/// The limits of a table of routes. Those that share a chain of filters share these as well.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    /// By the position of the route; empty where no route has any.
    routes: Vec<Option<Rc<RouteLimiters>>>,
    /// Of what no route takes, by scope; empty where no scope has any.
    scopes: Vec<Option<Rc<RouteLimiters>>>,
}

/// What access lists and limits say of a request.
#[derive(Debug, Default)]
pub(crate) struct Limited {
    /// What access lists say.
    pub(crate) access: AccessVerdict,
    /// What rate limits say.
    pub(crate) rates: RateVerdict,
    /// It finds no place among the requests that run.
    pub(crate) is_crowded: bool,
    /// How many limits on requests at once would have refused it that only count.
    pub(crate) dry_crowds: u8,
    /// Its places among the requests that run.
    pub(crate) held: Option<Box<Held>>,
}

impl Limited {
    /// Whether anything would have refused the request that only counts.
    #[inline]
    pub(crate) fn is_dry(&self) -> bool {
        let AccessVerdict { dry_addresses, dry_certificates, .. } = self.access;
        dry_addresses | dry_certificates | self.rates.dry_refusals | self.dry_crowds != 0
    }
}

impl Limiters {
    /// The limits of these routes. A limit without a table does not hold: the tables are made from the configuration that has the limit.
    pub(crate) fn new(
        routing: &Routing,
        tables: &LimitTables,
        adaptive: &AdaptiveLimits,
        metrics: &Metrics,
    ) -> Self {
        let mut made: HashMap<*const Chain, Option<Rc<RouteLimiters>>> = HashMap::new();
        let mut concurrency = HashMap::new();
        let mut of = |chains: &[Option<Arc<Chain>>]| {
            let mut limits = |chain: &Arc<Chain>| {
                let make = || {
                    let rate = |limit: &Arc<RateLimit>| {
                        let table = Arc::clone(tables.rates.get(&limit.policy)?);
                        let metrics = metrics.policy(&limit.policy);
                        Some(RateLimiter { limit: Arc::clone(limit), table, metrics })
                    };
                    let rates: Box<[_]> = chain.rate_limits.iter().filter_map(rate).collect();
                    let at_once = chain.concurrency.iter().map(|limit| {
                        let make = || Rc::new(ConcurrencyLimiter::new(limit, tables, adaptive, metrics));
                        Rc::clone(concurrency.entry(limit.policy.clone()).or_insert_with(make))
                    });
                    let concurrency: Box<[_]> = at_once.collect();
                    let has_any = !(rates.is_empty() && concurrency.is_empty());
                    has_any.then(|| Rc::new(RouteLimiters { rates, concurrency }))
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
    pub(crate) fn at(&self, destination: RouteDestination) -> Option<&RouteLimiters> {
        let (limits, at) = match destination {
            RouteDestination::Route(position) => (&self.routes, position),
            RouteDestination::Fallback(scope) | RouteDestination::Nowhere(scope) => (&self.scopes, scope),
        };
        limits.get(at as usize)?.as_deref()
    }
}

impl RouteLimiters {
    /// Asks all limits: those of phase 5, and those of phase 8 unless the request ends before, as a preflight does. Whoever finds no place has spent nothing of
    /// what rate limits let pass.
    pub(crate) fn check(&self, request: &LimitRequest<'_>, takes_place: bool) -> Limited {
        // The moment of the decision: that of the first byte is one that a client can hold back.
        let now = Instant::now();
        let limits = || self.rates.iter().map(|limiter| (&*limiter.limit, &*limiter.table));
        let rates = check_rates(limits(), request, now.into_std(), |place| {
            if let Some(limiter) = self.rates.get(usize::from(place)) {
                limiter.metrics.rate_limit_evictions.inc();
            }
        });
        let mut limited = Limited { rates, ..Limited::default() };
        if takes_place && rates.refused.is_none() && !self.concurrency.is_empty() {
            self.take_places(request, now, &mut limited);
            if limited.is_crowded {
                limited.rates.give_back(limits(), request);
            }
        }
        limited
    }

    fn take_places(&self, request: &LimitRequest<'_>, now: Instant, limited: &mut Limited) {
        let mut held = Held::since(now);
        for limiter in &self.concurrency {
            if held.take(limiter, request) {
                continue;
            }
            if limiter.is_dry() {
                limited.dry_crowds = limited.dry_crowds.saturating_add(1);
                continue;
            }
            // What it holds of other limits goes back.
            limited.is_crowded = true;
            let notice = limited.rates.notice.get_or_insert(RateNotice {
                limit: 0,
                standing: None,
                retry_after: None,
            });
            notice.retry_after = Some(RETRY_AFTER);
            return;
        }
        limited.held = Some(Box::new(held));
    }

    /// Has a response tell what is left.
    pub(crate) fn tell(&self, notice: &RateNotice, head: &mut ResponseHead) {
        if let Some(seconds) = notice.retry_after {
            head.fields.remove_named(b"retry-after");
            head.fields.push(b"Retry-After", seconds.to_string().as_bytes());
        }
        let limiter = self.rates.get(usize::from(notice.limit));
        if let (Some(standing), Some(RateLimiter { limit, .. })) = (notice.standing, limiter) {
            head.fields.push(b"RateLimit-Policy", limit.policy_field().as_bytes());
            head.fields.push(b"RateLimit", limit.standing_field(standing).as_bytes());
        }
    }
}

/// The seconds after which a request may come again that found no place among those that run.
const RETRY_AFTER: u64 = 1;

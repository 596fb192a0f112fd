//! Where the requests of a listener go: to its one pool, or by a table of routes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::{Http, Listener, Mirror, PoolId, Route, RouteTarget, Routing, Split};
use lb_core::failure::Reject;
use lb_core::filter::{Chain, DrawnFault, ErrorPage, RateNotice, cors};
use lb_core::forwarded::RequestOrigin;
use lb_core::head::{FieldName, RequestHead, ResponseHead, Span, reads_as};
use lb_core::limit::{LimitRequest, LimitTables};
use lb_core::reason::Reason;
use lb_core::retry::RetrySettings;
use lb_core::rng::SplitMix64;
use lb_core::route::location::Asked;
use lb_core::route::{Host, PathFault, PatternCaches, RouteCaptures, RouteDestination, RouteRequest, path};
use lb_observe::metrics::{Metrics, RouteMetrics};

use crate::answer::{self, Fixed};
use crate::concurrency::AdaptiveLimits;
use crate::limits::{Limited, Limiters, RouteLimiters};
use crate::service::Pool;
use crate::session::Session;
use crate::split::{self, Drawn};

/// Where the requests of a listener go.
#[derive(Debug)]
pub enum Routes {
    /// All to one pool.
    One(Rc<Pool>),
    /// By a table.
    Table(Box<TableRoutes>),
}

/// A table of routes as one worker sees it.
#[derive(Debug)]
pub struct TableRoutes {
    routing: Arc<Routing>,
    /// What a request needs of its route, by the route's position.
    sides: Vec<RouteSide>,
    /// Where requests go that no route takes, by scope.
    fallbacks: Vec<Option<Rc<Pool>>>,
    /// The mirrors of each route that has some, with their pools, by the position of the route.
    mirrors: HashMap<u32, Vec<(Mirror, Rc<Pool>)>>,
    /// The pool of exchanges that ask no backend.
    own: Rc<Pool>,
    /// Error pages, by their files.
    pages: AnswerBodies,
    /// Some filters have CORS.
    has_cors: bool,
    caches: RefCell<PatternCaches>,
    limits: Limiters,
}

/// What a request needs of its route, in one line of the cache: a large table does not stay there.
#[derive(Debug)]
struct RouteSide {
    goes: Goes,
    /// The filters of all levels.
    chain: Option<Arc<Chain>>,
    /// The times, where the route has some of its own.
    http: Option<Box<Http>>,
    /// The counters, where it has a name.
    metrics: Option<Arc<RouteMetrics>>,
    /// It has rules for further tries of its own.
    has_rules: bool,
}

/// Where a route leads.
#[derive(Debug)]
enum Goes {
    /// To the backends of a pool.
    Pool(Option<Rc<Pool>>),
    /// To one of these pools, by the position of the branch.
    Split(Box<[Option<Rc<Pool>>]>),
    /// To the answer of the file, whose body may stand in a file of its own.
    Respond(Option<Arc<[u8]>>),
    /// Elsewhere.
    Redirect,
}

/// The bodies of answers and the error pages that stand in files, by the paths of these.
pub type AnswerBodies = HashMap<PathBuf, Arc<[u8]>>;

/// What all workers share of what routes need.
#[derive(Clone, Copy, Debug)]
pub struct SharedParts<'a> {
    /// The bodies of answers that stand in files.
    pub bodies: &'a AnswerBodies,
    /// What the keys of limits owe, and how many of their requests run.
    pub limits: &'a LimitTables,
    /// The adaptive limits of the worker.
    pub adaptive: &'a AdaptiveLimits,
}

/// The route that took a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matched {
    /// Its position.
    pub(crate) route: u32,
    /// How much of the canonical path is its prefix.
    pub(crate) prefix: u32,
    /// The branch of its split, by position.
    pub(crate) branch: Option<u32>,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Found {
    /// The pool that answers, if any does.
    pub(crate) pool: Rc<Pool>,
    /// Where the table leads it; None without a table, and where the request is refused before.
    pub(crate) at: Option<RouteDestination>,
    /// The route that took it.
    pub(crate) matched: Option<Matched>,
    /// What becomes of the request.
    pub(crate) action: Action,
    /// It is a CORS preflight, which no backend gets.
    pub(crate) is_preflight: bool,
    /// The value of a `Set-Cookie` that keeps the client on its branch.
    pub(crate) cookie: Option<Box<[u8]>>,
    /// What limits say of it.
    pub(crate) limited: Limited,
}

impl Found {
    /// A backend of the pool answers.
    fn forward(pool: &Rc<Pool>, matched: Option<Matched>, cookie: Option<Box<[u8]>>) -> Self {
        let (pool, action, limited) = (Rc::clone(pool), Action::Forward, Limited::default());
        Self { pool, at: None, matched, action, is_preflight: false, cookie, limited }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Action {
    /// A backend of the pool answers.
    Forward,
    /// The gateway refuses it.
    Refuse(Reject),
    /// The gateway answers as the route says.
    Answer(Box<OwnAnswer>),
}

/// The answer of a route.
#[derive(Debug)]
pub(crate) enum OwnAnswer {
    /// The client is to go there.
    Elsewhere {
        /// The status.
        status: u16,
        /// The URL.
        location: Vec<u8>,
        /// Status and its phrase, for people.
        body: String,
    },
    /// What the file says of the route at this position.
    Fixed(u32),
    /// Fields for a browser that asks whether a script may send a request.
    Preflight,
}

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

    /// Where a request goes. By a table its path becomes what is forwarded, and the fields go that are not for backends.
    #[inline]
    pub(crate) fn find(
        &self,
        head: &mut RequestHead,
        origin: &RequestOrigin,
        session: Option<&Session>,
        rng: &mut SplitMix64,
    ) -> Found {
        match self {
            Self::One(pool) => Found::forward(pool, None, None),
            Self::Table(table) => table.find(head, origin, session, rng),
        }
    }

    /// The name of the route at a position.
    pub(crate) fn name(&self, route: u32) -> &str {
        let Self::Table(table) = self else { return "" };
        table.routing.routes.get(route as usize).map_or("", |route| &route.spec.name)
    }

    /// The counters of the route at a position, if it has some.
    pub(crate) fn metrics(&self, route: u32) -> Option<&RouteMetrics> {
        let Self::Table(table) = self else { return None };
        table.sides.get(route as usize)?.metrics.as_deref()
    }

    /// The filters of a request that goes there: those of all levels down to its route, and those of its branch.
    #[inline]
    pub(crate) fn chains(&self, at: Option<RouteDestination>, branch: Option<u32>) -> [Option<&Chain>; 2] {
        let (Self::Table(table), Some(at)) = (self, at) else { return [None, None] };
        [table.chain(at), self.branch_chain(at, branch)]
    }

    /// Has a response tell what the limits of its route have left.
    pub(crate) fn tell_limit(
        &self,
        at: Option<RouteDestination>,
        notice: &RateNotice,
        head: &mut ResponseHead,
    ) {
        let (Self::Table(table), Some(at)) = (self, at) else { return };
        if let Some(limits) = table.limits.at(at) {
            limits.tell(notice, head);
        }
    }

    /// What is done to a request that goes there, where some are made to fail on purpose.
    #[inline]
    pub(crate) fn fault(&self, at: Option<RouteDestination>, rng: &mut SplitMix64) -> DrawnFault {
        let (Self::Table(table), Some(at)) = (self, at) else { return DrawnFault::default() };
        let policy = table.chain(at).and_then(|chain| chain.fault.as_ref());
        policy.map(|policy| policy.draw(rng)).unwrap_or_default()
    }

    /// The times of a route that has some of its own.
    #[inline]
    pub(crate) fn http(&self, route: u32) -> Option<&Http> {
        let Self::Table(table) = self else { return None };
        table.sides.get(route as usize)?.http.as_deref()
    }

    /// The rules for further tries of a route that has some of its own, at this pool.
    #[inline]
    pub(crate) fn rules(&self, route: u32, pool: &Pool) -> Option<Box<RetrySettings>> {
        let Self::Table(table) = self else { return None };
        table.sides.get(route as usize).filter(|side| side.has_rules)?;
        let limits = table.routing.routes.get(route as usize)?.limits.as_ref()?;
        Some(Box::new(limits.retry.as_ref()?.rules(pool.balance.retry())))
    }

    /// The mirrors of a route, with their pools.
    #[inline]
    pub(crate) fn mirrors(&self, route: u32) -> &[(Mirror, Rc<Pool>)] {
        match self {
            Self::Table(table) if !table.mirrors.is_empty() => {
                table.mirrors.get(&route).map_or(&[], Vec::as_slice)
            }
            _ => &[],
        }
    }

    /// The filters of the branch of a route.
    #[inline]
    fn branch_chain(&self, destination: RouteDestination, branch: Option<u32>) -> Option<&Chain> {
        let (Self::Table(table), Some(branch)) = (self, branch) else { return None };
        let RouteDestination::Route(route) = destination else { return None };
        match &table.routing.routes.get(route as usize)?.target {
            RouteTarget::Split(split) => split.branches.get(branch as usize)?.chain.as_deref(),
            _ => None,
        }
    }

    /// What the pattern of a route finds in a canonical path.
    pub(crate) fn captures<'a>(&self, route: u32, path: &'a [u8]) -> RouteCaptures<'a> {
        match self {
            Self::Table(table) => table.captures(route, path),
            Self::One(_) => RouteCaptures::default(),
        }
    }

    /// The canonical form of a path that was matched, where that is another.
    pub(crate) fn canonical(&self, path: &[u8]) -> Option<Vec<u8>> {
        let Self::Table(table) = self else { return None };
        table.canonical(path)
    }

    /// Whether paths pass that a backend could read in two ways.
    pub(crate) fn allows_ambiguous(&self) -> bool {
        matches!(self, Self::Table(table) if table.routing.table.policy().allow_ambiguous)
    }

    /// What stands in the file of an error page.
    pub(crate) fn page(&self, page: &ErrorPage) -> Option<&[u8]> {
        let Self::Table(table) = self else { return None };
        table.pages.get(&page.file).map(AsRef::as_ref)
    }

    /// What the client is told.
    pub(crate) fn answer<'a>(&'a self, answer: &'a OwnAnswer) -> Fixed<'a> {
        match answer {
            OwnAnswer::Elsewhere { status, location, body } => Fixed {
                status: *status,
                location: Some(location),
                body: body.as_bytes(),
                content_type: "text/plain; charset=utf-8",
            },
            OwnAnswer::Preflight => Fixed { status: 204, location: None, body: &[], content_type: "" },
            OwnAnswer::Fixed(route) => {
                let (target, file) = match self {
                    Self::Table(table) => (
                        table.routing.routes.get(*route as usize).map(|route| &route.target),
                        match table.sides.get(*route as usize).map(|side| &side.goes) {
                            Some(Goes::Respond(body)) => body.as_deref(),
                            _ => None,
                        },
                    ),
                    Self::One(_) => (None, None),
                };
                match target {
                    Some(RouteTarget::Respond(fixed)) => Fixed {
                        status: fixed.status,
                        location: None,
                        body: file.unwrap_or(fixed.body.as_bytes()),
                        content_type: &fixed.content_type,
                    },
                    _ => Fixed { status: 500, location: None, body: &[], content_type: "" },
                }
            }
        }
    }
}

impl TableRoutes {
    fn find(
        &self,
        head: &mut RequestHead,
        origin: &RequestOrigin,
        session: Option<&Session>,
        rng: &mut SplitMix64,
    ) -> Found {
        // What a client may take away by `Connection` is matched by nothing (attack R-11).
        head.fields.drop_hop_by_hop();
        if !self.routing.keeps_override_fields && !origin.is_trusted() {
            drop_override_fields(head);
        }
        let announced = if self.has_cors { cors::announced_method(head).map(<[u8]>::to_vec) } else { None };
        let (destination, prefix, is_preflight) =
            match self.route_announced(head, origin, session, announced.as_deref()) {
                Ok(found) => found,
                Err(reject) => return self.none(None, Action::Refuse(reject)),
            };
        let prefix = u32::try_from(prefix).unwrap_or_default();
        // Phase 4: before a redirect or the answer that there is nothing, too.
        if self.chain(destination).is_some_and(|chain| !chain.lets_in(origin.client)) {
            let matched = match destination {
                RouteDestination::Route(route) => Some(Matched { route, prefix, branch: None }),
                _ => None,
            };
            let refused = self.none(matched, Action::Refuse(Reject::new(403, Reason::Access)));
            return Found { at: Some(destination), is_preflight, ..refused };
        }
        // Phases 5 and 8, between which nothing stands yet: whoever finds no place has not been asked who it is.
        let limited = match self.limits.at(destination) {
            Some(limits) => self.limited(limits, destination, head, origin),
            None => Limited::default(),
        };
        let refused = limited.rates.refused.map(|status| Reject::new(status, Reason::RateLimit));
        if let Some(reject) = refused.or(limited.is_crowded.then_some(CROWDED)) {
            let matched = match destination {
                RouteDestination::Route(route) => Some(Matched { route, prefix, branch: None }),
                _ => None,
            };
            let refused = self.none(matched, Action::Refuse(reject));
            return Found { at: Some(destination), is_preflight, limited, ..refused };
        }
        // Phase 6: such a request is for the gateway, and nothing else is done with it.
        if is_preflight {
            return Found {
                at: Some(destination),
                is_preflight,
                limited,
                ..self.preflight(destination, prefix, head)
            };
        }
        let found = match destination {
            RouteDestination::Route(route) => {
                self.target(Matched { route, prefix, branch: None }, head, origin, rng)
            }
            RouteDestination::Fallback(scope) => match self.fallbacks.get(scope as usize) {
                Some(Some(pool)) => Found::forward(pool, None, None),
                _ => self.no_route(),
            },
            RouteDestination::Nowhere(_) => self.no_route(),
        };
        Found { at: Some(destination), limited, ..found }
    }

    /// What the limits of a request say, by everything that is known of it before authentication.
    fn limited(
        &self,
        limits: &RouteLimiters,
        destination: RouteDestination,
        head: &RequestHead,
        origin: &RequestOrigin,
    ) -> Limited {
        let (path, query) = split_target(head.target());
        let canonical = self.canonical(path);
        let route = match destination {
            RouteDestination::Route(route) => self.routing.routes.get(route as usize),
            _ => None,
        };
        let request = LimitRequest {
            client: origin.client,
            head,
            path: canonical.as_deref().unwrap_or(path),
            query: query.and_then(|query| query.get(1..)).unwrap_or_default(),
            route: route.map_or("", |route| &route.spec.name),
        };
        limits.check(&request)
    }

    /// The canonical form of a path that was matched, where that is another.
    fn canonical(&self, path: &[u8]) -> Option<Vec<u8>> {
        let policy = self.routing.table.policy();
        if policy.normalize || path::is_plain(path) {
            return None;
        }
        path::canonical(path, policy.merge_slashes).ok()
    }

    /// The filters of a request that goes there.
    #[inline]
    fn chain(&self, destination: RouteDestination) -> Option<&Chain> {
        match destination {
            RouteDestination::Route(route) => self.sides.get(route as usize)?.chain.as_deref(),
            _ => self.routing.chain(destination),
        }
    }

    /// The answer to a preflight.
    fn preflight(&self, destination: RouteDestination, prefix: u32, head: &RequestHead) -> Found {
        let matched = match destination {
            RouteDestination::Route(route) => Some(Matched { route, prefix, branch: None }),
            _ => None,
        };
        let policy = self.chain(destination).and_then(|chain| chain.cors.as_deref());
        let origin = head.fields.value_of(b"origin").unwrap_or_default();
        let action = match policy {
            Some(policy) if policy.lets_in(origin) => Action::Answer(Box::new(OwnAnswer::Preflight)),
            _ => Action::Refuse(Reject::new(403, Reason::CorsOrigin)),
        };
        self.none(matched, action)
    }

    fn no_route(&self) -> Found {
        self.none(None, Action::Refuse(Reject::new(404, Reason::NoRoute)))
    }

    /// What asks no backend.
    fn none(&self, matched: Option<Matched>, action: Action) -> Found {
        Found { action, ..Found::forward(&self.own, matched, None) }
    }

    fn captures<'a>(&self, route: u32, path: &'a [u8]) -> RouteCaptures<'a> {
        // The table has the patterns by which it matches, and their places in the caches.
        let spec = self.routing.table.specs().get(route as usize);
        spec.map(|spec| spec.captures(path, &mut self.caches.borrow_mut())).unwrap_or_default()
    }

    /// As [`Self::route`]. A preflight goes where the method that it announces leads, if there is CORS, and is told to be one; without it
    /// the request is OPTIONS like any other.
    fn route_announced(
        &self,
        head: &mut RequestHead,
        origin: &RequestOrigin,
        session: Option<&Session>,
        announced: Option<&[u8]>,
    ) -> Result<(RouteDestination, usize, bool), Reject> {
        if announced.is_some() {
            let (destination, prefix) = self.route(head, origin, session, announced)?;
            if self.chain(destination).is_some_and(|chain| chain.cors.is_some()) {
                return Ok((destination, prefix, true));
            }
        }
        let (destination, prefix) = self.route(head, origin, session, None)?;
        Ok((destination, prefix, false))
    }

    /// The destination of a request, whose path becomes the one that was matched; and how much of that is the prefix of the route.
    fn route(
        &self,
        head: &mut RequestHead,
        origin: &RequestOrigin,
        session: Option<&Session>,
        method: Option<&[u8]>,
    ) -> Result<(RouteDestination, usize), Reject> {
        let host = Host::of(head.authority()).ok_or(Reject::new(400, Reason::Host))?;
        let (path, query) = split_target(head.target());
        let facts = session.map(Session::facts);
        let request = RouteRequest {
            host: &host,
            method: method.unwrap_or(head.method()),
            path,
            query: query.and_then(|query| query.get(1..)).unwrap_or_default(),
            head,
            client: origin.client.ip(),
            scheme: origin.scheme,
            connection: facts.as_ref(),
        };
        let resolution = self.routing.table.resolve(&request, &mut self.caches.borrow_mut());
        let resolution = resolution.map_err(|fault| match fault {
            PathFault::Syntax => Reject::new(400, Reason::PathSyntax),
            PathFault::Ambiguous => Reject::new(400, Reason::PathAmbiguous),
        })?;
        let (destination, prefix) = (resolution.destination, resolution.prefix);
        if let Cow::Owned(path) = resolution.path {
            let target = [&path, query.unwrap_or_default()].concat();
            set_target(head, &target);
        }
        Ok((destination, prefix))
    }

    /// The pool of the branch that a request takes.
    fn branch(
        &self,
        (split, pools): (&Split, &[Option<Rc<Pool>>]),
        matched: Matched,
        head: &RequestHead,
        origin: &RequestOrigin,
        rng: &mut SplitMix64,
    ) -> Found {
        let Some(Drawn { branch, cookie }) = split::draw(split, head, origin, rng) else {
            return self.none(Some(matched), no_target());
        };
        match pools.get(branch as usize) {
            Some(Some(pool)) => {
                let matched = Some(Matched { branch: Some(branch), ..matched });
                Found::forward(pool, matched, cookie)
            }
            _ => self.none(Some(matched), no_target()),
        }
    }

    fn target(
        &self,
        matched: Matched,
        head: &RequestHead,
        origin: &RequestOrigin,
        rng: &mut SplitMix64,
    ) -> Found {
        let (position, found) = (matched.route, Some(matched));
        let side = self.sides.get(position as usize).map(|side| &side.goes);
        // What most requests need is in the side alone.
        let target = match side {
            Some(Goes::Pool(Some(pool))) => return Found::forward(pool, found, None),
            Some(Goes::Pool(None)) | None => return self.no_route(),
            Some(_) => self.routing.routes.get(position as usize).map(|route| &route.target),
        };
        match target {
            Some(RouteTarget::Split(split)) => match side {
                Some(Goes::Split(pools)) => self.branch((split, pools), matched, head, origin, rng),
                _ => self.none(found, no_target()),
            },
            Some(RouteTarget::Respond(_)) => {
                self.none(found, Action::Answer(Box::new(OwnAnswer::Fixed(position))))
            }
            Some(RouteTarget::Redirect(redirect)) => {
                let (path, query) = split_target(head.target());
                let query = query.and_then(|query| query.get(1..)).unwrap_or_default();
                let captures = match redirect.path.has_captures() {
                    true => self.captures(position, path),
                    false => RouteCaptures::default(),
                };
                let told = origin.authority();
                let authority = told.as_deref().unwrap_or(head.authority());
                let asked = Asked { scheme: origin.scheme, authority, path, query };
                let action = match redirect.location(
                    &asked,
                    usize::try_from(matched.prefix).unwrap_or_default(),
                    &captures,
                ) {
                    Some(location) => {
                        let body =
                            format!("{} {}\n", redirect.status, answer::reason_phrase(redirect.status));
                        Action::Answer(Box::new(OwnAnswer::Elsewhere {
                            status: redirect.status,
                            location,
                            body,
                        }))
                    }
                    None => Action::Refuse(Reject::new(500, Reason::RedirectLoop)),
                };
                self.none(found, action)
            }
            Some(RouteTarget::Pool(_)) | None => self.no_route(),
        }
    }
}

/// A request that finds no place among those that run.
const CROWDED: Reject = Reject::new(503, Reason::Concurrency);

fn no_target() -> Action {
    Action::Refuse(Reject::new(500, Reason::NoTarget))
}

/// The path, and the query with its `?`.
pub(crate) fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (target.get(..at).unwrap_or(target), target.get(at..)),
        None => (target, None),
    }
}

pub(crate) fn set_target(head: &mut RequestHead, target: &[u8]) {
    let start = head.fields.append_text(target);
    head.target = Span::new(start, start.saturating_add(target.len()));
}

/// Fields by which some backends read another path, method or host than those that were matched (attack R-10). `_` is read as `-`.
const OVERRIDE_FIELDS: &[&[u8]] = &[
    b"x-host",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-host",
    b"x-original-url",
    b"x-rewrite-url",
    b"x-forwarded-prefix",
];

fn drop_override_fields(head: &mut RequestHead) {
    let is_override = |name: &[u8]| {
        let named = |field: &&[u8]| reads_as(name, field);
        matches!(name, [b'x' | b'X', b'-' | b'_', ..]) && OVERRIDE_FIELDS.iter().any(named)
    };
    let found: Vec<usize> = {
        let lines = head.fields.lines().iter().enumerate();
        let others = lines.filter(|(_, line)| line.known == FieldName::Other);
        others.filter(|(_, line)| is_override(head.fields.slice(line.name))).map(|(at, _)| at).collect()
    };
    for at in found {
        if let Some(line) = head.fields.lines_mut().get_mut(at) {
            line.dropped = true;
        }
    }
}

//! Where the requests of a listener go: to its one pool, or by a table of routes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::{Http, Mirror, RouteTarget, Routing};
use lb_core::failure::Reject;
use lb_core::filter::{Chain, DrawnFault, ErrorPage, RateNotice};
use lb_core::forwarded::RequestOrigin;
use lb_core::head::{RequestHead, ResponseHead};
use lb_core::limit::LimitTables;
use lb_core::retry::RetrySettings;
use lb_core::rng::SplitMix64;
use lb_core::route::{PatternCaches, RouteCaptures, RouteDestination};
use lb_observe::metrics::RouteMetrics;

use crate::answer::Fixed;
use crate::concurrency::AdaptiveLimits;
use crate::limits::{Limited, Limiters};
use crate::service::Pool;
use crate::session::Session;

mod build;
mod find;

pub(crate) use find::{set_target, split_target};

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

    /// Whether requests of the route at a position may become tunnels.
    pub(crate) fn has_tunnels(&self, route: u32) -> bool {
        let Self::Table(table) = self else { return true };
        table.routing.routes.get(route as usize).is_none_or(|route| route.websocket)
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
    pub(crate) fn rules(&self, route: u32, pool: &Pool) -> Option<RetrySettings> {
        let Self::Table(table) = self else { return None };
        table.sides.get(route as usize).filter(|side| side.has_rules)?;
        let limits = table.routing.routes.get(route as usize)?.limits.as_ref()?;
        Some(limits.retry.as_ref()?.rules(pool.balance.retry()))
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

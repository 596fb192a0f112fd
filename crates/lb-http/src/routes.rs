//! Where the requests of a listener go: to its one pool, or by a table of routes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::{Listener, PoolId, RouteTarget, Routing};
use lb_core::failure::Reject;
use lb_core::head::{FieldName, RequestHead, Span};
use lb_core::reason::Reason;
use lb_core::route::location::Asked;
use lb_core::route::{Host, PathCondition, PathFault, PatternCaches, RouteDestination, RouteRequest, Scheme};
use lb_observe::metrics::{Metrics, RouteMetrics};

use crate::answer::{self, Fixed};
use crate::proxy::Client;
use crate::service::Pool;

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
    /// The pool of each route that has one, by its position.
    pools: Vec<Option<Rc<Pool>>>,
    /// Where requests go that no route takes, by scope.
    fallbacks: Vec<Option<Rc<Pool>>>,
    /// The pool of exchanges that ask no backend.
    own: Rc<Pool>,
    /// The counters of each route that has a name, by its position.
    metrics: Vec<Option<Arc<RouteMetrics>>>,
    caches: RefCell<PatternCaches>,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Found {
    /// The pool that answers, if any does.
    pub(crate) pool: Rc<Pool>,
    /// The position of the route.
    pub(crate) route: Option<u32>,
    /// What becomes of the request.
    pub(crate) action: Action,
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
}

impl Routes {
    /// The routes of a listener, whose own pool is `pool`; `others` gives the pools that they lead to besides.
    pub(crate) fn new(
        listener: &Listener,
        pool: Rc<Pool>,
        mut others: impl FnMut(&PoolId) -> Option<Rc<Pool>>,
        metrics: &Metrics,
    ) -> Self {
        let Some(routing) = &listener.routing else { return Self::One(pool) };
        let mut find =
            |id: &PoolId| if *id == listener.pool.id { Some(Rc::clone(&pool)) } else { others(id) };
        let pools = routing.routes.iter().map(|route| match &route.target {
            RouteTarget::Pool(id) => find(id),
            RouteTarget::Redirect(_) | RouteTarget::Respond(_) => None,
        });
        let pools = pools.collect();
        let fallbacks = routing.fallbacks.iter().map(|id| id.as_ref().and_then(&mut find)).collect();
        let counted = metrics.listener(&listener.name);
        let named = |name: &str| if name.is_empty() { None } else { counted.routes.named(name) };
        let metrics = routing.routes.iter().map(|route| named(&route.spec.name)).collect();
        let (routing, caches) = (Arc::clone(routing), RefCell::default());
        Self::Table(Box::new(TableRoutes { routing, pools, fallbacks, own: pool, metrics, caches }))
    }

    /// Where a request goes. By a table its path becomes what is forwarded, and the fields go that are not for backends.
    #[inline]
    pub(crate) fn find(&self, head: &mut RequestHead, client: &Client) -> Found {
        match self {
            Self::One(pool) => Found { pool: Rc::clone(pool), route: None, action: Action::Forward },
            Self::Table(table) => table.find(head, client),
        }
    }

    /// The name of the route at a position, and its counters if it has some.
    pub(crate) fn label(&self, route: u32) -> Option<(&str, Option<&RouteMetrics>)> {
        let Self::Table(table) = self else { return None };
        let name = &table.routing.routes.get(route as usize)?.spec.name;
        Some((name, table.metrics.get(route as usize)?.as_deref()))
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
            OwnAnswer::Fixed(route) => {
                let target = match self {
                    Self::Table(table) => {
                        table.routing.routes.get(*route as usize).map(|route| &route.target)
                    }
                    Self::One(_) => None,
                };
                match target {
                    Some(RouteTarget::Respond(fixed)) => Fixed {
                        status: fixed.status,
                        location: None,
                        body: fixed.body.as_bytes(),
                        content_type: &fixed.content_type,
                    },
                    _ => Fixed { status: 500, location: None, body: &[], content_type: "" },
                }
            }
        }
    }
}

impl TableRoutes {
    fn find(&self, head: &mut RequestHead, client: &Client) -> Found {
        // What a client may take away by `Connection` is matched by nothing (attack R-11).
        head.fields.drop_hop_by_hop();
        if !self.routing.keeps_override_fields {
            drop_override_fields(head);
        }
        let (destination, matched) = match self.route(head, client) {
            Ok(found) => found,
            Err(reject) => return self.none(None, Action::Refuse(reject)),
        };
        match destination {
            RouteDestination::Route(route) => self.target(route, head, client, matched),
            RouteDestination::Fallback(scope) => match self.fallbacks.get(scope as usize) {
                Some(Some(pool)) => Found { pool: Rc::clone(pool), route: None, action: Action::Forward },
                _ => self.no_route(),
            },
            RouteDestination::Nowhere(_) => self.no_route(),
        }
    }

    fn no_route(&self) -> Found {
        self.none(None, Action::Refuse(Reject::new(404, Reason::NoRoute)))
    }

    /// What asks no backend.
    fn none(&self, route: Option<u32>, action: Action) -> Found {
        Found { pool: Rc::clone(&self.own), route, action }
    }

    /// The destination of a request, whose path becomes the one that was matched; and how much of that is the prefix of the route.
    fn route(&self, head: &mut RequestHead, client: &Client) -> Result<(RouteDestination, usize), Reject> {
        let host = Host::of(head.authority()).ok_or(Reject::new(400, Reason::Host))?;
        let (path, query) = split_target(head.target());
        let request = RouteRequest {
            host: &host,
            path,
            query: query.and_then(|query| query.get(1..)).unwrap_or_default(),
            head,
            client: client.address.ip(),
            scheme: scheme(client),
        };
        let resolution = self.routing.table.resolve(&request, &mut self.caches.borrow_mut());
        let resolution = resolution.map_err(|fault| match fault {
            PathFault::Syntax => Reject::new(400, Reason::PathSyntax),
            PathFault::Ambiguous => Reject::new(400, Reason::PathAmbiguous),
        })?;
        let matched = match resolution.destination {
            RouteDestination::Route(route) => self.matched_prefix(route, &resolution.path),
            _ => 0,
        };
        let destination = resolution.destination;
        if let Cow::Owned(path) = resolution.path {
            let target = [&path, query.unwrap_or_default()].concat();
            set_target(head, &target);
        }
        Ok((destination, matched))
    }

    /// How much of a path is the longest of the route's prefixes that it begins with.
    fn matched_prefix(&self, route: u32, path: &[u8]) -> usize {
        let Some(route) = self.routing.routes.get(route as usize) else { return 0 };
        let prefixes = route.spec.matches.iter().filter_map(|conditions| match &conditions.path {
            PathCondition::Prefix(prefix) => {
                let start = path.get(..prefix.len())?;
                let is_it =
                    start == &**prefix || conditions.ignore_case && start.eq_ignore_ascii_case(prefix);
                is_it.then_some(prefix.len())
            }
            _ => None,
        });
        prefixes.max().unwrap_or_default()
    }

    fn target(&self, position: u32, head: &RequestHead, client: &Client, matched: usize) -> Found {
        let route = Some(position);
        let target = self.routing.routes.get(position as usize).map(|route| &route.target);
        match target {
            Some(RouteTarget::Pool(_)) => match self.pools.get(position as usize) {
                Some(Some(pool)) => Found { pool: Rc::clone(pool), route, action: Action::Forward },
                _ => self.no_route(),
            },
            Some(RouteTarget::Respond(_)) => {
                self.none(route, Action::Answer(Box::new(OwnAnswer::Fixed(position))))
            }
            Some(RouteTarget::Redirect(redirect)) => {
                let (path, query) = split_target(head.target());
                let query = query.and_then(|query| query.get(1..)).unwrap_or_default();
                let asked = Asked { scheme: scheme(client), authority: head.authority(), path, query };
                let action = match redirect.location(&asked, matched) {
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
                self.none(route, action)
            }
            None => self.no_route(),
        }
    }
}

fn scheme(client: &Client) -> Scheme {
    if client.session.is_some() { Scheme::Https } else { Scheme::Http }
}

/// The path, and the query with its `?`.
fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (target.get(..at).unwrap_or(target), target.get(at..)),
        None => (target, None),
    }
}

fn set_target(head: &mut RequestHead, target: &[u8]) {
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
        let same = |(byte, wanted): (&u8, &u8)| {
            byte.eq_ignore_ascii_case(wanted) || (*byte == b'_' && *wanted == b'-')
        };
        let named = |field: &&[u8]| field.len() == name.len() && name.iter().zip(field.iter()).all(same);
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

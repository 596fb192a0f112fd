//! Which route takes a request, and what becomes of it.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::{RouteTarget, Split};
use lb_core::failure::Reject;
use lb_core::filter::{AccessList, AccessVerdict, Chain, cors};
use lb_core::forwarded::RequestOrigin;
use lb_core::head::{FieldName, RequestHead, Span, reads_as};
use lb_core::limit::LimitRequest;
use lb_core::reason::Reason;
use lb_core::rng::SplitMix64;
use lb_core::route::location::Asked;
use lb_core::route::{Host, PathFault, RouteCaptures, RouteDestination, RouteRequest, path};

use super::{Action, Found, Goes, Matched, OwnAnswer, TableRoutes};
use crate::answer;
use crate::limits::{Limited, RouteLimiters};
use crate::service::Pool;
use crate::session::Session;
use crate::split::{self, Drawn};

impl TableRoutes {
    pub(super) fn find(
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
        let lists = self.chain(destination).map_or(&[][..], |chain| &chain.access);
        let access = if lists.is_empty() { AccessVerdict::default() } else { access(lists, origin, session) };
        if let Some(reason) = access.refused {
            let matched = match destination {
                RouteDestination::Route(route) => Some(Matched { route, prefix, branch: None }),
                _ => None,
            };
            let refused = self.none(matched, Action::Refuse(Reject::new(403, reason)));
            let limited = Limited { access, ..Limited::default() };
            return Found { at: Some(destination), is_preflight, limited, ..refused };
        }
        // Phases 5 and 8: whoever finds no place has not been asked who it is, for there is no phase 7 yet.
        let limited = match self.limits.at(destination) {
            Some(limits) => {
                Limited { access, ..self.limited(limits, destination, (head, origin), !is_preflight) }
            }
            None => Limited { access, ..Limited::default() },
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
        (head, origin): (&RequestHead, &RequestOrigin),
        takes_place: bool,
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
        limits.check(&request, takes_place)
    }

    /// The canonical form of a path that was matched, where that is another.
    pub(super) fn canonical(&self, path: &[u8]) -> Option<Vec<u8>> {
        let policy = self.routing.table.policy();
        if policy.normalize || path::is_plain(path) {
            return None;
        }
        path::canonical(path, policy.merge_slashes).ok()
    }

    /// The filters of a request that goes there.
    #[inline]
    pub(super) fn chain(&self, destination: RouteDestination) -> Option<&Chain> {
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

    pub(super) fn captures<'a>(&self, route: u32, path: &'a [u8]) -> RouteCaptures<'a> {
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

/// What access lists say of a request.
fn access(lists: &[Arc<AccessList>], origin: &RequestOrigin, session: Option<&Session>) -> AccessVerdict {
    let has_certificate = session.is_some_and(|session| session.certificate().is_some());
    AccessVerdict::of(lists, origin.client, has_certificate)
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

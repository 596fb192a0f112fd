//! What becomes of a recorded request by a configuration.

use std::fmt;

use lb_config::{Config, Listener, RouteTarget, Routing};
use lb_core::filter::AccessVerdict;
use lb_core::head::{RequestHead, Span};
use lb_core::identity::PoolId;
use lb_core::reason::Reason;
use lb_core::route::condition::{RouteConditions, ValueCondition};
use lb_core::route::order::Rank;
use lb_core::route::{
    ConnectionFacts, Host, HostPattern, PathFault, PatternCaches, RouteDestination, RouteRequest, Scheme,
    path,
};

use super::record::LoggedRequest;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    /// To one of these pools; a split has several.
    Pools(Vec<PoolId>),
    /// The gateway answers with this status.
    Answer(u16),
    /// The gateway refuses it.
    Refused(u16, Reason),
    /// No listener takes the connection.
    NoListener,
}

/// One thing that may become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The name of the route; empty where none takes it or it has no name.
    pub(super) route: String,
    pub(super) goes: Goes,
}

impl fmt::Display for Goes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pools(pools) => {
                let names: Vec<_> = pools.iter().map(|pool| pool.owner().to_string()).collect();
                f.write_str(&names.join(" or "))
            }
            Self::Answer(status) => write!(f, "an answer {status}"),
            Self::Refused(status, reason) => write!(f, "an answer {status} ({})", reason.name()),
            Self::NoListener => f.write_str("no listener"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.route.as_str() {
            "" => write!(f, "(no name) to {}", self.goes),
            name => write!(f, "route {name} to {}", self.goes),
        }
    }
}

/// Judges requests by one configuration.
pub(super) struct Judge {
    caches: PatternCaches,
    needs_hosts: bool,
}

impl Judge {
    pub(super) fn new(config: &Config) -> Self {
        let routings = config.listeners.iter().filter_map(|listener| listener.routing.as_ref());
        let needs_hosts = routings.into_iter().any(|routing| {
            let specs = routing.table.specs().iter().any(|spec| !spec.hosts.is_empty());
            specs || routing.table.scopes().iter().any(|scope| !scope.hosts.is_empty())
        });
        Self { caches: PatternCaches::default(), needs_hosts }
    }

    /// Whether it depends on hosts where requests go.
    pub(super) fn needs_hosts(&self) -> bool {
        self.needs_hosts
    }

    /// Everything that may become of the request: a single thing where the log has all that decides. What comes last becomes of it unless fields do that
    /// the log does not have. Empty where the log cannot tell.
    pub(super) fn judge(
        &mut self,
        logged: &LoggedRequest,
        host: &str,
        listener: Option<&Listener>,
    ) -> Vec<Outcome> {
        let refused =
            |status, reason| vec![Outcome { route: String::new(), goes: Goes::Refused(status, reason) }];
        let Some(listener) = listener else {
            return vec![Outcome { route: String::new(), goes: Goes::NoListener }];
        };
        let Some(routing) = &listener.routing else {
            return vec![Outcome { route: String::new(), goes: Goes::Pools(vec![listener.pool.id.clone()]) }];
        };
        // A preflight goes where the method that it announces leads, which no log has.
        let has_cors = routing.all_chains().any(|chain| chain.cors.is_some());
        if logged.is_partial || logged.method == "OPTIONS" && has_cors {
            return Vec::new();
        }
        let Some(host) = Host::of(host.as_bytes()) else { return refused(400, Reason::Host) };
        let head = head_of(logged);
        let (target, query) = logged.target.split_once('?').unwrap_or((&logged.target, ""));
        let known = Known::of(logged, listener);
        let name = logged.server_name.clone().flatten();
        let alpn = logged.alpn.clone().flatten();
        let facts = ConnectionFacts {
            server_name: name.as_deref(),
            alpn: alpn.as_deref().map(str::as_bytes),
            ..ConnectionFacts::default()
        };
        let request = RouteRequest {
            host: &host,
            method: logged.method.as_bytes(),
            path: target.as_bytes(),
            query: query.as_bytes(),
            head: &head,
            client: logged.client,
            scheme: logged.scheme.unwrap_or(Scheme::Http),
            connection: (logged.scheme == Some(Scheme::Https)).then_some(&facts),
        };
        let matched = match routing.table.resolve(&request, &mut self.caches) {
            Ok(found) => found.path.into_owned(),
            Err(PathFault::Syntax) => return refused(400, Reason::PathSyntax),
            Err(PathFault::Ambiguous) => return refused(400, Reason::PathAmbiguous),
        };
        let is_plain = path::is_plain(request.path);
        let request = RouteRequest { path: &matched, ..request };
        let mut outcomes = Vec::new();
        for destination in self.possible(routing, &request, &known) {
            let outcome = outcome(routing, destination, logged);
            if !outcomes.contains(&outcome) {
                outcomes.push(outcome);
            }
        }
        // With fields that the log does not have, its readings may lead to different routes.
        let mut conditions = routing.table.specs().iter().flat_map(|spec| &spec.matches);
        if !is_plain && conditions.any(|conditions| known.part_of(conditions).is_some()) {
            outcomes
                .insert(0, Outcome { route: String::new(), goes: Goes::Refused(400, Reason::PathAmbiguous) });
        }
        outcomes
    }

    /// The destinations that the request may have, in precedence.
    fn possible(
        &mut self,
        routing: &Routing,
        request: &RouteRequest<'_>,
        known: &Known,
    ) -> Vec<RouteDestination> {
        let table = &routing.table;
        let number = table.scope_of(request.host);
        let Some(scope) = table.scopes().get(number as usize) else {
            return vec![RouteDestination::Nowhere(number)];
        };
        let mut ways: Vec<(Rank, usize, u32, &RouteConditions)> = Vec::new();
        for (place, position) in scope.routes.iter().enumerate() {
            let Some(route) = table.specs().get(*position as usize) else { continue };
            let fits = |host: &&HostPattern| host.fits(request.host);
            let hosts = route.hosts.iter().filter(fits).map(Some);
            for host in hosts.chain(route.hosts.is_empty().then_some(None)) {
                for conditions in &route.matches {
                    ways.push((Rank::of(host, route.priority, conditions), place, *position, conditions));
                }
            }
        }
        ways.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut possible = Vec::new();
        for (_, _, position, conditions) in ways {
            let unmet = match known.part_of(conditions) {
                Some(part) => part.unmet(request, &mut self.caches),
                None => conditions.unmet(request, &mut self.caches),
            };
            if unmet.is_some() {
                continue;
            }
            let destination = RouteDestination::Route(position);
            if !possible.contains(&destination) {
                possible.push(destination);
            }
            if known.part_of(conditions).is_none() {
                return possible;
            }
        }
        possible.push(match scope.has_fallback {
            true => RouteDestination::Fallback(number),
            false => RouteDestination::Nowhere(number),
        });
        possible
    }
}

/// What a log has of a request, as far as conditions ask for it.
struct Known {
    client: bool,
    scheme: bool,
    server_name: bool,
    alpn: bool,
    user_agent: bool,
    referer: bool,
}

impl Known {
    fn of(logged: &LoggedRequest, listener: &Listener) -> Self {
        Self {
            client: logged.client.is_some(),
            // Proxies in front may have told another scheme than that of the connection.
            scheme: logged.scheme.is_some() && listener.client_address.is_none(),
            server_name: logged.server_name.is_some(),
            alpn: logged.alpn.is_some(),
            user_agent: logged.user_agent.is_some(),
            referer: logged.referer.is_some(),
        }
    }

    /// The conditions of which the log tells whether they hold, where those are not all.
    fn part_of(&self, conditions: &RouteConditions) -> Option<RouteConditions> {
        let is_known = |condition: &&ValueCondition| match &*condition.name {
            b"host" => true,
            b"user-agent" => self.user_agent,
            b"referer" => self.referer,
            _ => false,
        };
        let mut part = conditions.clone();
        part.headers = conditions.headers.iter().filter(is_known).cloned().collect();
        part.cookies = Vec::new();
        if !self.client {
            part.sources = Vec::new();
        }
        if !self.scheme {
            part.scheme = None;
        }
        if let Some(connection) = &mut part.connection {
            connection.has_certificate = None;
            connection.certificates = Vec::new();
            if !self.server_name {
                connection.server_names = Vec::new();
            }
            if !self.alpn {
                connection.alpn = Vec::new();
            }
        }
        (part != *conditions).then_some(part)
    }
}

fn outcome(routing: &Routing, destination: RouteDestination, logged: &LoggedRequest) -> Outcome {
    let nowhere = || Goes::Refused(404, Reason::NoRoute);
    let route = match destination {
        RouteDestination::Route(position) => routing.routes.get(position as usize),
        RouteDestination::Fallback(_) | RouteDestination::Nowhere(_) => None,
    };
    let name = route.map_or(String::new(), |route| route.spec.name.clone());
    // Whether the client has shown a certificate is in no log: it counts as shown.
    let is_refused = routing
        .chain(destination)
        .zip(logged.client)
        .is_some_and(|(chain, client)| !AccessVerdict::of(&chain.access, (client, 0).into(), true).lets_in());
    let goes = match (destination, route.map(|route| &route.target)) {
        _ if is_refused => Goes::Refused(403, Reason::Access),
        (_, Some(RouteTarget::Pool(id))) => Goes::Pools(vec![id.clone()]),
        (_, Some(RouteTarget::Split(split))) => {
            let taken = split.branches.iter().filter(|branch| branch.weight > 0);
            let pools: Vec<_> = taken.map(|branch| branch.pool.clone()).collect();
            if pools.is_empty() { Goes::Refused(500, Reason::NoTarget) } else { Goes::Pools(pools) }
        }
        (_, Some(RouteTarget::Redirect(redirect))) => Goes::Answer(redirect.status),
        (_, Some(RouteTarget::Respond(fixed))) => Goes::Answer(fixed.status),
        (RouteDestination::Fallback(scope), None) => match routing.fallbacks.get(scope as usize) {
            Some(Some(id)) => Goes::Pools(vec![id.clone()]),
            _ => nowhere(),
        },
        (_, None) => nowhere(),
    };
    Outcome { route: name, goes }
}

/// The head, as far as the log has it.
fn head_of(logged: &LoggedRequest) -> RequestHead {
    let mut head = RequestHead::default();
    let start = head.fields.append_text(logged.method.as_bytes());
    head.method = Span::new(start, start.saturating_add(logged.method.len()));
    let fields = [("host", logged.host.clone()), ("user-agent", logged.user_agent.clone().flatten())];
    let fields = fields.into_iter().chain([("referer", logged.referer.clone().flatten())]);
    for (name, value) in fields {
        if let Some(value) = value {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
    }
    head
}

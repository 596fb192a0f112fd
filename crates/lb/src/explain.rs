//! `expressgateway explain`: says of a request which route takes it, and why the others do not.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use lb_config::{Listener, RouteTarget, Routing};
use lb_control::{ProcessOutcome, Source};
use lb_core::filter::{AccessList, AccessVerdict, ConcurrencyLimit, CorsPolicy, ErrorPage, RateLimit, cors};
use lb_core::head::{RequestHead, Span};
use lb_core::reason::Reason;
use lb_core::route::{
    ConnectionFacts, Host, PathFault, PatternCaches, Resolution, RouteDestination, RouteRequest, Scheme,
    naive,
};

use crate::cli::ExplainArgs;

/// Explains the request that the arguments describe, for each listener that has routes.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<ProcessOutcome> {
    let config = lb_control::load(&Source::File(args.config.clone()).read()?)?;
    lb_control::read_access_files(&config)?;
    let asked = Asked::of(args)?;
    let mut out = std::io::stdout().lock();
    let is_meant = |listener: &&Listener| args.listener.as_ref().is_none_or(|name| listener.name == *name);
    let mut any = false;
    for listener in config.listeners.iter().filter(is_meant) {
        // Connections that pass inside TLS are taken out before a request is read.
        let passing = listener.passing.as_ref().filter(|_| asked.server_name.is_some());
        let raw = listener.routing.as_ref().filter(|_| !listener.is_http());
        let routing = listener.routing.as_ref().filter(|_| listener.is_http());
        if passing.is_none() && raw.is_none() && routing.is_none() {
            continue;
        }
        any = true;
        writeln!(out, "listener {}", listener.name)?;
        if let Some((taken, told)) = passing.map(|routing| asked.explain_connection(routing)) {
            write!(out, "{told}")?;
            if taken {
                continue;
            }
        }
        if let Some(routing) = raw {
            write!(out, "{}", asked.explain_connection(routing).1)?;
        }
        if let Some(routing) = routing {
            write!(out, "{}", asked.explain(routing))?;
        }
    }
    if !any {
        bail!("no listener that is meant has routes");
    }
    Ok(ProcessOutcome::Clean)
}

/// The request.
struct Asked {
    head: RequestHead,
    scheme: Scheme,
    authority: String,
    path: String,
    query: String,
    client: IpAddr,
    /// What it asks for in TLS.
    server_name: Option<String>,
}

impl Asked {
    fn of(args: &ExplainArgs) -> anyhow::Result<Self> {
        let (scheme, rest) = args.url.split_once("://").context("the URL begins with http:// or https://")?;
        let scheme = Scheme::from_word(scheme).context("the URL begins with http:// or https://")?;
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = RequestHead::default();
        let start = head.fields.append_text(args.method.as_bytes());
        head.method = Span::new(start, start.saturating_add(args.method.len()));
        for field in &args.fields {
            let (name, value) = field.split_once(':').context("a field is written \"name: value\"")?;
            head.fields.push(name.trim().as_bytes(), value.trim().as_bytes());
        }
        head.fields.drop_hop_by_hop();
        Ok(Self {
            head,
            scheme,
            authority: authority.to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            query: query.to_owned(),
            client: args.from,
            server_name: args.sni.clone().or_else(|| (scheme == Scheme::Https).then(|| host_of(authority))),
        })
    }

    /// What TLS has settled, as far as the command says.
    fn facts(&self) -> Option<ConnectionFacts<'_>> {
        let server_name = self.server_name.as_deref()?;
        Some(ConnectionFacts { server_name: Some(server_name), ..ConnectionFacts::default() })
    }

    /// Which route of raw connections takes the client's, if any does.
    fn explain_connection(&self, routing: &Routing) -> (bool, String) {
        // The server that is asked for stands in the place of the host.
        let name = self.server_name.as_deref().unwrap_or_default();
        let Some(host) = Host::of(name.as_bytes()).or_else(|| Host::of(b"")) else {
            return (false, String::new());
        };
        let (head, facts) = (RequestHead::default(), self.facts());
        let request = RouteRequest {
            host: &host,
            method: b"",
            path: b"*",
            query: b"",
            head: &head,
            client: Some(self.client),
            scheme: Scheme::Https,
            connection: facts.as_ref(),
        };
        let mut caches = PatternCaches::default();
        let destination = routing.table.find(&request, &mut caches);
        let (_, verdicts) = naive::explain(&routing.table, &request, &mut caches);
        let is_taken = matches!(destination, RouteDestination::Route(_));
        let goal = match destination {
            RouteDestination::Nowhere(_) => "  passes to no backend inside TLS\n".to_owned(),
            destination => format!("  connection goes to {}\n", goal(routing, destination)),
        };
        (is_taken, told(routing, verdicts) + &goal)
    }

    fn explain(&self, routing: &Routing) -> String {
        let Some(host) = Host::of(self.authority.as_bytes()) else {
            return "  answered 400 (host): neither a DNS name nor an IP address\n".to_owned();
        };
        let facts = self.facts();
        let request = RouteRequest {
            host: &host,
            method: self.head.method(),
            path: self.path.as_bytes(),
            query: self.query.as_bytes(),
            head: &self.head,
            client: Some(self.client),
            scheme: self.scheme,
            connection: facts.as_ref(),
        };
        let mut caches = PatternCaches::default();
        // A preflight goes where the method that it announces leads, if there is CORS.
        let announced = cors::announced_method(&self.head).map(|method| RouteRequest { method, ..request });
        let preflight = announced.filter(|announced| {
            let found = routing.table.resolve(announced, &mut caches);
            found.is_ok_and(|found| cors_of(routing, found.destination).is_some())
        });
        let request = preflight.unwrap_or(request);
        let Resolution { destination, path, .. } = match routing.table.resolve(&request, &mut caches) {
            Ok(resolution) => resolution,
            Err(PathFault::Syntax) => return "  answered 400 (path_syntax)\n".to_owned(),
            Err(PathFault::Ambiguous) => {
                return "  answered 400 (path_ambiguous): a backend could read the path as that of another route, or of none\n".to_owned();
            }
        };
        let mut text = format!("  path {}\n", String::from_utf8_lossy(&path));
        let (_, verdicts) =
            naive::explain(&routing.table, &RouteRequest { path: &path, ..request }, &mut caches);
        text += &told(routing, verdicts);
        if let Some(chain) = routing.chain(destination) {
            let (told, is_refused) = access(&chain.access, self.client);
            text += &told;
            if is_refused {
                return text;
            }
        }
        for limit in routing.chain(destination).into_iter().flat_map(|chain| &chain.rate_limits) {
            text += &rate_limit(limit);
        }
        for limit in routing.chain(destination).into_iter().flat_map(|chain| &chain.concurrency) {
            text += &concurrency(limit);
        }
        if let (true, Some(policy)) = (preflight.is_some(), cors_of(routing, destination)) {
            let origin = self.head.fields.value_of(b"origin").unwrap_or_default();
            text += match policy.lets_in(origin) {
                true => "  cors: answered 204: a preflight of an origin that is listed\n",
                false => "  cors: answered 403 (cors_origin): a preflight of an origin that is not listed\n",
            };
            return text;
        }
        text += &format!("  goes to {}\n", goal(routing, destination));
        if let RouteDestination::Route(position) = destination
            && let Some(route) = routing.routes.get(position as usize)
        {
            for mirror in &route.mirrors {
                text += &format!("  mirror: {} to {}\n", mirror.fraction, mirror.pool.owner());
            }
        }
        text += &on_the_way(routing, destination, &path, &mut caches);
        text
    }
}

/// The host of an authority, without its port.
fn host_of(authority: &str) -> String {
    let host = Host::of(authority.as_bytes());
    host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()).unwrap_or_default()
}

/// What became of each route that was looked at.
fn told<'a>(routing: &Routing, verdicts: impl IntoIterator<Item = naive::RouteVerdict<'a>>) -> String {
    let mut text = String::new();
    for verdict in verdicts {
        let host = verdict.host.map_or(String::new(), |host| format!(" for {host}"));
        let what = match verdict.unmet {
            Some(unmet) => format!("no: {unmet}"),
            None => "takes it".to_owned(),
        };
        let (name, alternative) = (route_name(routing, verdict.route), verdict.alternative);
        text += &format!("  {name}{host}, match {alternative}: {what}\n");
    }
    text
}

fn cors_of(routing: &Routing, destination: RouteDestination) -> Option<&CorsPolicy> {
    routing.chain(destination)?.cors.as_deref()
}

/// What access lists say of a client without a certificate, and whether it is refused.
fn access(lists: &[Arc<AccessList>], client: IpAddr) -> (String, bool) {
    let mut text = String::new();
    for list in lists {
        let list = std::slice::from_ref(list);
        let verdict = AccessVerdict::of(list, (client, 0).into(), false);
        let policy = list.first().map_or("", |list| &list.policy);
        match verdict {
            AccessVerdict { refused: Some(Reason::ClientCertificate), .. } => {
                text += &format!(
                    "  access {policy}: answered 403 (client_certificate): the client shows no certificate\n"
                );
                return (text, true);
            }
            AccessVerdict { refused: Some(_), .. } => {
                text += &format!("  access {policy}: answered 403 (access): its address is not let in\n");
                return (text, true);
            }
            AccessVerdict { dry_addresses: 0, dry_certificates: 0, .. } => {}
            _ => text += &format!("  access {policy}: would be answered 403; only counted\n"),
        }
    }
    (text, false)
}

/// A rate limit that the request meets.
fn rate_limit(limit: &RateLimit) -> String {
    let RateLimit { policy, key, rate, status, dry_run, .. } = limit;
    let (requests, seconds, burst) = (rate.requests(), rate.window_seconds(), rate.burst());
    let beyond = if *dry_run { "only counted".to_owned() } else { format!("answered {status} (rate_limit)") };
    format!("  rate limit {policy}: {requests} in {seconds} s by {key}, {burst} at once; more are {beyond}\n")
}

/// A limit on requests at once that the request meets.
fn concurrency(limit: &ConcurrencyLimit) -> String {
    let ConcurrencyLimit { policy, max, key, adaptive, dry_run } = limit;
    let max = max.map(|max| match key {
        Some(key) => format!("{max} at once by {key}"),
        None => format!("{max} at once"),
    });
    let adaptive = adaptive.map(|bounds| format!("{} to {} at once in each worker", bounds.min, bounds.max));
    let limits: Vec<_> = max.into_iter().chain(adaptive).collect();
    let beyond = if *dry_run { "only counted" } else { "answered 503 (concurrency)" };
    format!("  concurrency {policy}: {}; more are {beyond}\n", limits.join(", "))
}

/// What filters do on the way.
fn on_the_way(
    routing: &Routing,
    destination: RouteDestination,
    path: &[u8],
    caches: &mut PatternCaches,
) -> String {
    let Some(chain) = routing.chain(destination) else { return String::new() };
    let spec = match destination {
        RouteDestination::Route(position) => routing.table.specs().get(position as usize),
        RouteDestination::Fallback(_) | RouteDestination::Nowhere(_) => None,
    };
    let mut text = String::new();
    if let Some((rewrite, spec)) = chain.rewrite.as_ref().zip(spec) {
        let captures = spec.captures(path, caches);
        let allow = routing.table.policy().allow_ambiguous;
        text += &match rewrite.path(path, spec.matched_prefix(path), &captures, allow) {
            Ok(Some(made)) => format!("  rewrite: path {}\n", String::from_utf8_lossy(&made)),
            Ok(None) => String::new(),
            Err(_) => "  rewrite: answered 400 (rewrite): a backend could read the path as one outside of what the route leads to\n".to_owned(),
        };
        if let Some(host) = &rewrite.host {
            text += &format!("  rewrite: host {}\n", String::from_utf8_lossy(host));
        }
    }
    if let Some(errors) = &chain.errors {
        let pages = errors.pages.iter();
        let of = |page: &ErrorPage| match (page.statuses.start(), page.statuses.end()) {
            (first, last) if first == last => format!("{first} {}", page.file.display()),
            (first, last) => format!("{first}-{last} {}", page.file.display()),
        };
        let mut told: Vec<String> = pages.map(|page| format!("page {}", of(page))).collect();
        told.extend(errors.problem_json.then(|| "problems in JSON for who prefers it".to_owned()));
        told.extend(errors.intercept.then(|| "backends' responses as well".to_owned()));
        text += &format!("  errors: {}\n", told.join("; "));
    }
    for (what, edits) in [("request", &chain.request_headers), ("response", &chain.response_headers)] {
        for name in edits.iter().flat_map(|edits| edits.names()) {
            text += &format!("  {what} field {}\n", String::from_utf8_lossy(name));
        }
    }
    text
}

/// What a route is called here: by its name, or its position.
fn route_name(routing: &Routing, position: u32) -> String {
    match routing.routes.get(position as usize).map(|route| route.spec.name.as_str()) {
        Some("") | None => format!("route {position}"),
        Some(name) => format!("route {name}"),
    }
}

fn goal(routing: &Routing, destination: RouteDestination) -> String {
    let nowhere = || "an answer 404 (no_route)".to_owned();
    match destination {
        RouteDestination::Route(position) => {
            match routing.routes.get(position as usize).map(|route| &route.target) {
                Some(RouteTarget::Pool(id)) => id.owner().to_string(),
                Some(RouteTarget::Split(split)) => {
                    let shares = split.branches.iter();
                    let shares = shares.map(|branch| format!("{} ({})", branch.pool.owner(), branch.weight));
                    format!("one of {} by weight", shares.collect::<Vec<_>>().join(", "))
                }
                Some(RouteTarget::Redirect(redirect)) => {
                    format!("a redirect with status {}", redirect.status)
                }
                Some(RouteTarget::Respond(fixed)) => format!("an answer with status {}", fixed.status),
                None => nowhere(),
            }
        }
        RouteDestination::Fallback(scope) => match routing.fallbacks.get(scope as usize) {
            Some(Some(id)) => format!("{}, because no route takes it", id.owner()),
            _ => nowhere(),
        },
        RouteDestination::Nowhere(_) => nowhere(),
    }
}

//! Locations, and the routes that they become.

use super::super::ledger::{DirectiveId, Ledger};
use super::super::names::{Names, whole_path};
use super::super::output::{Block, text, texts};
use super::advice;
use super::scope::Scope;
use super::syntax::Directive;
use super::upstream::Pools;
use super::values::redirect;

/// How locations of one server are told apart.
const PREFERRED: u32 = 1;

/// What routes are made with.
pub(super) struct Making<'a, 'b> {
    pub(super) pools: &'b mut Pools<'a>,
    pub(super) policies: &'b mut Vec<Block>,
    pub(super) names: &'b mut Names,
    pub(super) ledger: &'b mut Ledger,
    /// The table that routes stand in.
    pub(super) table: String,
    pub(super) routes: Vec<Block>,
    /// A WebSocket may pass, by this directive.
    pub(super) websocket: Option<DirectiveId>,
    /// A location of the server is preferred to regular expressions.
    pub(super) has_preferred: bool,
}

/// Which paths a location is for.
#[derive(Clone, Debug)]
pub(super) enum Paths {
    Prefix(String),
    Exact(String),
    Regex(String),
}

impl<'a> Making<'a, '_> {
    /// Makes routes of a block: of its locations, and of what it does itself with requests for `paths`. Whether it does anything.
    pub(super) fn block(
        &mut self,
        directives: &'a [Directive],
        outside: &Scope,
        paths: &Paths,
        (id, preferred, ignore_case): (DirectiveId, bool, bool),
    ) -> bool {
        let mut scope = outside.clone();
        scope.take(directives, self.ledger);
        let mut does = false;
        for directive in directives {
            let mut route = self.route(paths, id, preferred, ignore_case);
            does |= match directive.name.as_str() {
                "proxy_pass" => self.forward(directive, &scope, paths, &mut route),
                "return" => self.answer(directive, &mut route),
                "rewrite" => self.moved(directive, &mut route),
                _ => continue,
            };
            if does {
                self.finish(route, &scope, directive.name == "proxy_pass");
                break;
            }
        }
        for directive in directives {
            match directive.name.as_str() {
                "location" => self.location(directive, &scope),
                name => {
                    if let Some(instead) = advice::instead(name) {
                        self.ledger.lost(directive.id, instead);
                    } else if let Some(why) = advice::needless(name) {
                        self.ledger.needless(directive.id, why);
                    }
                }
            }
        }
        does
    }

    fn location(&mut self, directive: &'a Directive, scope: &Scope) {
        let id = directive.id;
        let args: Vec<&str> = directive.args.iter().map(String::as_str).collect();
        let (kind, pattern) = match args.as_slice() {
            [kind @ ("=" | "~" | "~*" | "^~"), pattern] => (*kind, *pattern),
            [one] => match (
                one.strip_prefix("~*"),
                one.strip_prefix('~'),
                one.strip_prefix("^~"),
                one.strip_prefix('='),
            ) {
                (Some(pattern), ..) => ("~*", pattern),
                (_, Some(pattern), ..) => ("~", pattern),
                (_, _, Some(pattern), _) => ("^~", pattern),
                (.., Some(pattern)) => ("=", pattern),
                _ => ("", *one),
            },
            _ => return self.ledger.lost(id, "the import does not understand this location"),
        };
        if pattern.starts_with('@') {
            return self.ledger.lost(id, "a location that is only gone to from elsewhere has no counterpart");
        }
        let paths = match kind {
            "=" => Paths::Exact(pattern.to_owned()),
            "~" | "~*" => match whole_path(pattern) {
                Some(pattern) => Paths::Regex(pattern),
                None => {
                    return self.ledger.lost(
                        id,
                        "write a `path_regex` that the whole path matches; this one has anchors inside",
                    );
                }
            },
            _ => Paths::Prefix(pattern.to_owned()),
        };
        self.ledger.carried(id);
        if let Paths::Prefix(prefix) = &paths
            && prefix != "/"
        {
            self.ledger.adapted(
                id,
                format!(
                    "a prefix is of whole segments: {0} and {0}/x, not {0}x",
                    prefix.trim_end_matches('/')
                ),
            );
        }
        let directives = directive.block.as_deref().unwrap_or_default();
        let what = (id, kind == "^~" || kind == "=", kind == "~*");
        let routes = self.routes.len();
        if !self.block(directives, scope, &paths, what) && self.routes.len() == routes {
            // Its requests must not become those of another location.
            let mut route = self.route(&paths, id, what.1, what.2);
            route.vital("respond.status", "501", &[id]);
            self.ledger.adapted(id, "nothing in it is carried: its requests are answered 501");
            self.routes.push(route);
        }
    }

    fn route(&mut self, paths: &Paths, id: DirectiveId, preferred: bool, ignore_case: bool) -> Block {
        let mut route = Block::new(format!("[[routes.{}]]", self.table), &[id]);
        match paths {
            Paths::Prefix(prefix) => route.vital("path_prefix", text(prefix), &[id]),
            Paths::Exact(path) => route.vital("path", text(path), &[id]),
            Paths::Regex(pattern) => route.vital("path_regex", text(pattern), &[id]),
        }
        if ignore_case {
            route.vital("ignore_case", "true", &[id]);
        }
        // An exact path goes before everything, a preferred prefix before expressions.
        if preferred && self.has_preferred {
            let priority = if matches!(paths, Paths::Exact(_)) { PREFERRED + 1 } else { PREFERRED };
            route.vital("priority", priority, &[id]);
        }
        route
    }

    fn finish(&mut self, mut route: Block, scope: &Scope, is_forwarded: bool) {
        scope.dress(&mut route, is_forwarded);
        if is_forwarded {
            self.websocket = self.websocket.or(scope.websocket);
        }
        let name = self.names.give(&format!("access-{}", self.table));
        if let Some(policy) = scope.access(&name) {
            self.policies.push(policy);
            route.vital("policies", texts(&[name]), &[]);
        }
        self.routes.push(route);
    }

    fn forward(&mut self, directive: &Directive, scope: &Scope, paths: &Paths, route: &mut Block) -> bool {
        let id = directive.id;
        let target = directive.args.first().map(String::as_str).unwrap_or_default();
        let Some((scheme @ ("http" | "https"), rest)) = target.split_once("://") else {
            self.ledger.lost(id, "only http:// and https:// are spoken to backends");
            return false;
        };
        if target.contains('$') {
            self.ledger.lost(
                id,
                "a backend cannot be chosen by a variable; write routes with conditions, or a `split`",
            );
            return false;
        }
        let (host, path) = match rest.strip_prefix("unix:") {
            Some(socket) => match socket.split_once(':') {
                Some((socket, path)) => (format!("unix:{socket}"), path),
                None => (format!("unix:{socket}"), ""),
            },
            None => {
                let (host, path) =
                    rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
                (host.to_owned(), path)
            }
        };
        let pool = self.pools.of(&host, scheme == "https", true, id, self.ledger);
        route.vital("pool", text(&pool), &[id]);
        self.ledger.carried(id);
        if scheme == "https" {
            self.ledger.adapted(id, "certificates of backends are verified here; tls_verify_peer = false at the backends does without");
        }
        match paths {
            _ if path.is_empty() => {}
            Paths::Prefix(prefix) if prefix.trim_end_matches('/') == path.trim_end_matches('/') => {}
            Paths::Prefix(_) => route.vital("rewrite.prefix", text(path), &[id]),
            Paths::Exact(exact) if exact == path => {}
            Paths::Exact(_) => route.vital("rewrite.path", text(path), &[id]),
            Paths::Regex(_) => self.ledger.adapted(id, "the path that it names is left out"),
        }
        if !scope.keeps_host {
            self.ledger.adapted(id, "backends are asked for the client's host; nginx asks for the name in proxy_pass (`rewrite.host`)");
        }
        true
    }

    fn answer(&mut self, directive: &Directive, route: &mut Block) -> bool {
        let id = directive.id;
        let arg = |at: usize| directive.args.get(at).map(String::as_str);
        let (status, rest) = match (arg(0).unwrap_or_default().parse::<u16>(), arg(0)) {
            (Ok(status), _) => (status, arg(1)),
            (Err(_), target) => (302, target),
        };
        match (status, rest) {
            (301 | 302 | 303 | 307 | 308, Some(target)) => match redirect(target) {
                Some(keys) => {
                    redirect_keys(route, &keys, status, id);
                    self.ledger.carried(id);
                    true
                }
                None => {
                    self.ledger.lost(id, "write `redirect` with scheme, host, port and path");
                    false
                }
            },
            (444, _) => {
                route.vital("respond.status", "400", &[id]);
                self.ledger.adapted(id, "a connection is not closed without an answer: it is 400");
                true
            }
            (200..=599, body) => {
                route.vital("respond.status", status, &[id]);
                if let Some(body) = body {
                    route.key("respond.body", text(body), &[id]);
                    if body.contains('$') {
                        self.ledger.adapted(id, "variables in the body stand as they are");
                    }
                }
                self.ledger.carried(id);
                true
            }
            _ => {
                self.ledger.lost(id, "there is no such status");
                false
            }
        }
    }

    /// The rewrites by which everything is sent elsewhere; others have no counterpart.
    fn moved(&mut self, directive: &Directive, route: &mut Block) -> bool {
        let (id, args) = (directive.id, directive.args.as_slice());
        let [pattern, target, rest @ ..] = args else { return false };
        let status = match rest.first().map(String::as_str) {
            Some("permanent") => 301,
            Some("redirect") => 302,
            _ if target.contains("://") => 302,
            _ => return false,
        };
        let keys = redirect(target).filter(|_| {
            matches!(pattern.as_str(), "^" | "^(.*)" | "^(.*)$" | "^/(.*)" | "^/(.*)$" | ".*" | "^.*$")
        });
        // What is put behind the path of another pattern is not the path.
        let keys = keys.filter(|_| !target.ends_with("/$1") || pattern.starts_with("^/("));
        let Some(keys) = keys else { return false };
        redirect_keys(route, &keys, status, id);
        self.ledger.carried(id);
        true
    }
}

fn redirect_keys(route: &mut Block, keys: &[(&'static str, String)], status: u16, id: DirectiveId) {
    for (key, value) in keys {
        let value = if matches!(*key, "port" | "keep_query") { value.clone() } else { text(value) };
        route.vital(&format!("redirect.{key}"), value, &[id]);
    }
    route.vital("redirect.status", status, &[id]);
}

//! The compiled table of a listener's routes.
//!
//! A look-up goes from the most specific host to none, and for each host through its priorities: the exact path by one look-up, regular
//! expressions, prefixes from the deepest. Each of these is a short list in precedence, of which the first whose conditions hold is taken.
//! Exact paths and prefixes of all hosts are in one map, under the hash of their level and their segments.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::condition::RouteRequest;
use super::host::{Host, HostPattern};
use super::host_map::HostMap;
use super::levels::{Levels, Way};
use super::order::Rank;
use super::path::{self, PathFault, PathPolicy};
use super::pattern::PatternCaches;
use super::{RouteSpec, ScopeSpec, readings};

/// Segments that a prefix or an exact path may have.
pub const MOST_SEGMENTS: usize = 63;

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteDestination {
    /// To the target of the route at this position.
    Route(u32),
    /// To what is there for requests that no route takes, of the scope at this position.
    Fallback(u32),
    /// To nowhere, in the scope at this position.
    Nowhere(u32),
}

/// Where a request goes, and by which path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolution<'a> {
    /// Where it goes.
    pub destination: RouteDestination,
    /// The path that was matched, and is forwarded.
    pub path: RoutedPath<'a>,
    /// How much of that path is the prefix of the route.
    pub prefix: usize,
}

/// The path of a request that has a route.
pub type RoutedPath<'a> = Cow<'a, [u8]>;

/// The routes of one scope.
#[derive(Debug)]
struct Scope {
    /// The numbers of its hosts among [`Levels`].
    hosts: HostMap,
    /// The number of its routes for any host.
    any: u32,
    has_fallback: bool,
}

/// The routes of a listener, compiled.
#[derive(Debug)]
pub struct RouteTable {
    specs: Vec<RouteSpec>,
    scope_specs: Vec<ScopeSpec>,
    policy: PathPolicy,
    /// Scopes by the hosts of virtual hosts. The first scope is the listener's own.
    virtual_hosts: HostMap,
    scopes: Vec<Scope>,
    levels: Levels,
}

/// What a table is made of tells tables apart.
impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.specs == other.specs && self.scope_specs == other.scope_specs && self.policy == other.policy
    }
}

impl RouteTable {
    /// Compiles routes. `scopes` refer to `specs` by position; the first is the listener's own.
    pub fn new(mut specs: Vec<RouteSpec>, scopes: Vec<ScopeSpec>, policy: PathPolicy) -> Self {
        let patterns =
            specs.iter_mut().flat_map(|spec| &mut spec.matches).flat_map(|found| found.patterns_mut());
        patterns.enumerate().for_each(|(slot, pattern)| pattern.set_slot(slot));
        let hosts: Vec<_> = (0..)
            .zip(&scopes)
            .flat_map(|(number, scope)| scope.hosts.iter().map(move |host| (host, number)))
            .collect();
        let virtual_hosts = HostMap::new(&hosts);
        let mut levels = Levels::default();
        let compiled = scopes.iter().map(|scope| compile(&specs, scope, &mut levels)).collect();
        Self { specs, scope_specs: scopes, policy, virtual_hosts, scopes: compiled, levels }
    }

    /// All routes, by position.
    pub fn specs(&self) -> &[RouteSpec] {
        &self.specs
    }

    /// The scopes, the first that of the listener itself.
    pub fn scopes(&self) -> &[ScopeSpec] {
        &self.scope_specs
    }

    /// What is done about paths.
    pub fn policy(&self) -> PathPolicy {
        self.policy
    }

    /// The scope in which a request for this host is looked up: that of its virtual host, or the first.
    pub fn scope_of(&self, host: &Host) -> u32 {
        self.virtual_hosts.find(host).next().unwrap_or_default()
    }

    /// Where a request goes whose path stands for itself.
    pub fn find(&self, request: &RouteRequest<'_>, caches: &mut PatternCaches) -> RouteDestination {
        self.way(request, caches).0
    }

    /// Where a request goes, and the way there.
    #[inline]
    fn way(&self, request: &RouteRequest<'_>, caches: &mut PatternCaches) -> (RouteDestination, Option<Way>) {
        let number = self.scope_of(request.host);
        let Some(scope) = self.scopes.get(number as usize) else {
            return (RouteDestination::Nowhere(number), None);
        };
        for host in scope.hosts.find(request.host).chain([scope.any]) {
            if let Some(way) = self.levels.find(host, &self.specs, request, caches) {
                return (RouteDestination::Route(way.route), Some(way));
            }
        }
        match scope.has_fallback {
            true => (RouteDestination::Fallback(number), None),
            false => (RouteDestination::Nowhere(number), None),
        }
    }

    fn prefix(&self, way: Option<Way>, path: &[u8]) -> usize {
        way.map(|way| self.levels.matched_prefix(way, &self.specs, path)).unwrap_or_default()
    }

    /// Where a request goes, and by which path; `request.path` is as it came. A path of which a lenient backend could make another route's
    /// is refused.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub fn resolve<'a>(
        &self,
        request: &RouteRequest<'a>,
        caches: &mut PatternCaches,
    ) -> Result<Resolution<'a>, PathFault> {
        if request.path == b"*" || path::is_plain(request.path) {
            let (destination, way) = self.way(request, caches);
            let prefix = self.prefix(way, request.path);
            return Ok(Resolution { destination, path: Cow::Borrowed(request.path), prefix });
        }
        let canonical = path::canonical(request.path, self.policy.merge_slashes)?;
        let (matched, is_changed) = match self.policy.normalize {
            true => (canonical.as_slice(), canonical != request.path),
            false => (request.path, false),
        };
        let (destination, way) = self.way(&RouteRequest { path: matched, ..*request }, caches);
        let prefix = self.prefix(way, matched);
        let mut at = |path: &[u8]| self.find(&RouteRequest { path, ..*request }, caches);
        let leads_somewhere = !matches!(destination, RouteDestination::Nowhere(_));
        if !self.policy.allow_ambiguous && leads_somewhere {
            if !self.policy.normalize && at(&canonical) != destination {
                return Err(PathFault::Ambiguous);
            }
            let mut agree = true;
            let mut is_same = |path: Option<&[u8]>| {
                agree &= path.is_some_and(|path| path == canonical || at(path) == destination);
                agree
            };
            if path::is_suspicious(&canonical) {
                readings::each(&canonical, &mut is_same)?;
            }
            if !self.policy.normalize {
                // What came has readings that its canonical form has lost, such as dot segments after empty ones.
                readings::each(request.path, &mut is_same)?;
            }
            if !agree {
                return Err(PathFault::Ambiguous);
            }
        }
        let path = if is_changed { Cow::Owned(canonical) } else { Cow::Borrowed(request.path) };
        Ok(Resolution { destination, path, prefix })
    }
}

fn compile(specs: &[RouteSpec], scope: &ScopeSpec, levels: &mut Levels) -> Scope {
    let mut by_host: BTreeMap<Option<&HostPattern>, Vec<(Rank, u32, u32)>> = BTreeMap::new();
    for position in &scope.routes {
        let Some(route) = specs.get(*position as usize) else { continue };
        let hosts = route.hosts.iter().map(Some).chain(route.hosts.is_empty().then_some(None));
        for host in hosts {
            let ways = by_host.entry(host).or_default();
            for (alternative, conditions) in (0..).zip(&route.matches) {
                ways.push((Rank::of(host, route.priority, conditions), *position, alternative));
            }
        }
    }
    // Which of two routes stands first.
    let places: HashMap<u32, usize> =
        scope.routes.iter().enumerate().rev().map(|(place, route)| (*route, place)).collect();
    let mut add = |mut ways: Vec<(Rank, u32, u32)>| {
        ways.sort_by_key(|(rank, route, alternative)| {
            (std::cmp::Reverse(*rank), places.get(route).copied(), *alternative)
        });
        let ways: Vec<(u32, u32)> =
            ways.into_iter().map(|(_, route, alternative)| (route, alternative)).collect();
        let priority = |way: &(u32, u32)| specs.get(way.0 as usize).map(|spec| spec.priority);
        let runs: Vec<_> = ways.chunk_by(|a, b| priority(a) == priority(b)).collect();
        levels.add(specs, &runs)
    };
    let any = add(by_host.remove(&None).unwrap_or_default());
    let hosts: Vec<_> = by_host.into_iter().filter_map(|(host, ways)| Some((host?, add(ways)))).collect();
    Scope { hosts: HostMap::new(&hosts), any, has_fallback: scope.has_fallback }
}

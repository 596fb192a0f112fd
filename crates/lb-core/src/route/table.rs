//! The compiled table of a listener's routes.
//!
//! A look-up goes from the most specific host to none, and for each host through its priorities: the exact path by one look-up, regular
//! expressions, prefixes from the deepest. Each of these is a short list in precedence, of which the first whose conditions hold is taken.
//! Exact paths and prefixes of all hosts are in one map, under the hash of their level and their segments.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::condition::{PathCondition, RouteRequest};
use super::hash::{ReadyMap, SEED, extend};
use super::host::{Host, HostPattern};
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
}

/// The path of a request that has a route.
pub type RoutedPath<'a> = Cow<'a, [u8]>;

/// One of the ways to a route: one of its sets of conditions.
#[derive(Clone, Copy, Debug)]
struct Way {
    route: u32,
    alternative: u32,
}

/// A run of [`Way`]s.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    start: u32,
    end: u32,
}

/// The routes of one host that have one priority.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// What the hashes of its paths begin with.
    seed: u64,
    /// Depths, in segments, at which a prefix ends; the empty one is among `any`.
    prefix_depths: u64,
    /// Depths of exact paths.
    exact_depths: u64,
    /// Those with a regular expression.
    regexes: Run,
    /// Those whose path is anything.
    any: Run,
}

/// Hosts, each with a number.
#[derive(Clone, Debug, Default)]
struct HostMap {
    exact: ReadyMap<Box<[u8]>, u32>,
    under: ReadyMap<Box<[u8]>, u32>,
    /// How many labels the domains of `under` have.
    under_labels: u128,
}

impl HostMap {
    fn insert(&mut self, host: &HostPattern, number: u32) {
        match host {
            HostPattern::Exact(name) => {
                self.exact.entry(name.clone()).or_insert(number);
            }
            HostPattern::Under(suffix) => {
                self.under_labels |= label_bit(dots(suffix));
                self.under.entry(suffix.clone()).or_insert(number);
            }
        }
    }

    /// The numbers of what is for this host, the most specific first.
    fn find(&self, host: &Host) -> impl Iterator<Item = u32> {
        let name = host.as_bytes();
        let exact = if self.exact.is_empty() { None } else { self.exact.get(name).copied() };
        let mut left = if self.under_labels == 0 { 0 } else { dots(name) };
        let mut rest = name;
        let under = std::iter::from_fn(move || {
            while left > 0 {
                let dot = rest.iter().skip(1).position(|byte| *byte == b'.')?.saturating_add(1);
                rest = rest.get(dot..)?;
                let labels = left;
                left = left.saturating_sub(1);
                if self.under_labels & label_bit(labels) != 0
                    && let Some(number) = self.under.get(rest)
                {
                    return Some(*number);
                }
            }
            None
        });
        exact.into_iter().chain(under)
    }
}

fn dots(name: &[u8]) -> usize {
    name.iter().filter(|byte| **byte == b'.').count()
}

/// A name has at most 127 labels.
fn label_bit(labels: usize) -> u128 {
    u32::try_from(labels).ok().and_then(|labels| 1_u128.checked_shl(labels)).unwrap_or_default()
}

/// The routes of one scope.
#[derive(Clone, Debug, Default)]
struct Scope {
    hosts: HostMap,
    /// The levels of each host; the last are those of routes for any host.
    groups: Vec<Vec<Level>>,
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
    ways: Vec<Way>,
    paths: ReadyMap<u64, Run>,
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
        let mut table = Self {
            specs,
            scope_specs: scopes,
            policy,
            virtual_hosts: HostMap::default(),
            scopes: Vec::new(),
            ways: Vec::new(),
            paths: ReadyMap::default(),
        };
        for (number, scope) in table.scope_specs.clone().iter().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            scope.hosts.iter().for_each(|host| table.virtual_hosts.insert(host, number));
            let scope = table.compile(scope);
            table.scopes.push(scope);
        }
        table
    }

    fn compile(&mut self, spec: &ScopeSpec) -> Scope {
        let mut by_host: BTreeMap<Option<HostPattern>, Vec<(Rank, u32, u32)>> = BTreeMap::new();
        for position in &spec.routes {
            let Some(route) = self.specs.get(*position as usize) else { continue };
            let hosts = route.hosts.iter().map(Some).chain(route.hosts.is_empty().then_some(None));
            for host in hosts {
                let ways = by_host.entry(host.cloned()).or_default();
                for (alternative, conditions) in (0..).zip(&route.matches) {
                    ways.push((Rank::of(host, route.priority, conditions), *position, alternative));
                }
            }
        }
        let any = by_host.remove(&None).unwrap_or_default();
        let places = spec.routes.iter().enumerate().rev().map(|(place, route)| (*route, place)).collect();
        let mut scope = Scope { has_fallback: spec.has_fallback, ..Scope::default() };
        for (host, ways) in by_host {
            let number = u32::try_from(scope.groups.len()).unwrap_or(u32::MAX);
            host.iter().for_each(|host| scope.hosts.insert(host, number));
            let levels = self.levels(ways, &places);
            scope.groups.push(levels);
        }
        let levels = self.levels(any, &places);
        scope.groups.push(levels);
        scope
    }

    /// The levels of one host, the first first. `places` says which of two routes stands first.
    fn levels(&mut self, mut ways: Vec<(Rank, u32, u32)>, places: &HashMap<u32, usize>) -> Vec<Level> {
        ways.sort_by_key(|(rank, route, alternative)| {
            (std::cmp::Reverse(*rank), places.get(route).copied(), *alternative)
        });
        let mut levels = Vec::new();
        let priority = |way: &(Rank, u32, u32)| self.specs.get(way.1 as usize).map(|spec| spec.priority);
        let runs: Vec<Vec<_>> = ways.chunk_by(|a, b| priority(a) == priority(b)).map(<[_]>::to_vec).collect();
        for ways in runs {
            let number = u64::try_from(self.ways.len()).unwrap_or_default();
            let mut level = Level { seed: extend(SEED, &number.to_le_bytes()), ..Level::default() };
            let (mut regexes, mut any) = (Vec::new(), Vec::new());
            let mut paths: BTreeMap<u64, Vec<Way>> = BTreeMap::new();
            for (_, route, alternative) in ways {
                let way = Way { route, alternative };
                match self.path_of(way) {
                    PathCondition::Any => any.push(way),
                    PathCondition::Prefix(prefix) if prefix.is_empty() => any.push(way),
                    PathCondition::Regex(_) => regexes.push(way),
                    PathCondition::Prefix(prefix) => {
                        let (depth, hash) = whole(level.seed, prefix);
                        level.prefix_depths |= depth_bit(depth);
                        paths.entry(prefix_key(hash)).or_default().push(way);
                    }
                    PathCondition::Exact(path) => {
                        let (depth, hash) = whole(level.seed, path);
                        level.exact_depths |= depth_bit(depth);
                        paths.entry(exact_key(hash)).or_default().push(way);
                    }
                }
            }
            level.regexes = self.push(regexes);
            level.any = self.push(any);
            for (key, ways) in paths {
                let run = self.push(ways);
                self.paths.insert(key, run);
            }
            levels.push(level);
        }
        levels
    }

    fn push(&mut self, ways: Vec<Way>) -> Run {
        let at = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let start = at(self.ways.len());
        self.ways.extend(ways);
        Run { start, end: at(self.ways.len()) }
    }

    fn path_of(&self, way: Way) -> &PathCondition {
        let spec = self.specs.get(way.route as usize);
        spec.and_then(|spec| spec.matches.get(way.alternative as usize))
            .map_or(&PathCondition::Any, |found| &found.path)
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
        let number = self.scope_of(request.host);
        let Some(scope) = self.scopes.get(number as usize) else { return RouteDestination::Nowhere(number) };
        let any = scope.groups.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        for group in scope.hosts.find(request.host).chain(any) {
            for level in scope.groups.get(group as usize).map(Vec::as_slice).unwrap_or_default() {
                if let Some(way) = self.in_level(level, request, caches) {
                    return RouteDestination::Route(way.route);
                }
            }
        }
        if scope.has_fallback {
            RouteDestination::Fallback(number)
        } else {
            RouteDestination::Nowhere(number)
        }
    }

    fn in_level(&self, level: &Level, request: &RouteRequest<'_>, caches: &mut PatternCaches) -> Option<Way> {
        let mut prefixes = [0; MOST_SEGMENTS + 1];
        let (mut found, mut exact) = (0, None);
        let depths = level.prefix_depths | level.exact_depths;
        if depths != 0
            && let Some(inside) = request.path.strip_prefix(b"/")
        {
            let (mut hash, mut depth, mut rest) = (level.seed, 0, inside);
            loop {
                let end = memchr::memchr(b'/', rest);
                let (segment, after) = match end {
                    Some(end) => (rest.get(..end).unwrap_or(rest), rest.get(end.saturating_add(1)..)),
                    None => (rest, None),
                };
                hash = extend(hash, segment);
                depth += 1;
                let bit = depth_bit(depth);
                if level.prefix_depths & bit != 0
                    && let Some(slot) = prefixes.get_mut(found)
                {
                    *slot = hash;
                    found += 1;
                }
                match after {
                    Some(after) if depths & !(bit | bit.wrapping_sub(1)) != 0 => rest = after,
                    Some(_) => break,
                    None => {
                        exact = (level.exact_depths & bit != 0).then_some(hash);
                        break;
                    }
                }
            }
        }
        let mut first = |run: Run, path_holds: bool| {
            let ways = self.ways.get(run.start as usize..run.end as usize).unwrap_or_default();
            ways.iter().copied().find(|way| {
                let spec = self.specs.get(way.route as usize);
                spec.and_then(|spec| spec.matches.get(way.alternative as usize)).is_some_and(|conditions| {
                    (path_holds || conditions.path_holds(request.path, caches))
                        && conditions.unmet_beside_path(request, caches).is_none()
                })
            })
        };
        if let Some(run) = exact.and_then(|hash| self.paths.get(&exact_key(hash)))
            && let Some(way) = first(*run, false)
        {
            return Some(way);
        }
        if let Some(way) = first(level.regexes, false) {
            return Some(way);
        }
        for hash in prefixes.get(..found).unwrap_or_default().iter().rev() {
            if let Some(run) = self.paths.get(&prefix_key(*hash))
                && let Some(way) = first(*run, false)
            {
                return Some(way);
            }
        }
        first(level.any, false)
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
            return Ok(Resolution {
                destination: self.find(request, caches),
                path: Cow::Borrowed(request.path),
            });
        }
        let canonical = path::canonical(request.path, self.policy.merge_slashes)?;
        let mut at = |path: &[u8]| self.find(&RouteRequest { path, ..*request }, caches);
        let (destination, is_changed) = match self.policy.normalize {
            true => (at(&canonical), canonical != request.path),
            false => (at(request.path), false),
        };
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
        Ok(Resolution { destination, path })
    }
}

/// Depth and hash of a path of the table.
fn whole(seed: u64, path: &[u8]) -> (usize, u64) {
    let inside = path.strip_prefix(b"/").unwrap_or(path);
    inside
        .split(|byte| *byte == b'/')
        .fold((0, seed), |(depth, hash), segment| (depth.saturating_add(1), extend(hash, segment)))
}

fn depth_bit(depth: usize) -> u64 {
    u32::try_from(depth).ok().and_then(|depth| 1_u64.checked_shl(depth)).unwrap_or_default()
}

fn exact_key(hash: u64) -> u64 {
    hash
}

/// A prefix and an exact path of the same text are two keys.
fn prefix_key(hash: u64) -> u64 {
    hash.rotate_left(32) ^ SEED
}

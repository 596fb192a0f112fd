//! The routes of each host, by priority and path.
//!
//! What a look-up touches lies close together: a way has what is compared most often, its path, beside it, and the specification of a route
//! is looked at only where it has conditions besides.

use std::collections::BTreeMap;

use super::condition::{PathCondition, RouteConditions, RouteRequest};
use super::hash::{ReadyMap, SEED, extend};
use super::pattern::PatternCaches;
use super::pattern_set::PatternSet;
use super::texts::{Text, Texts};
use super::{RouteSpec, table::MOST_SEGMENTS};

/// One of the ways to a route: one of its sets of conditions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// The position of the route.
    pub(super) route: u32,
    alternative: u32,
    path: Text,
    kind: PathKind,
    ignores_case: bool,
    /// There is no condition beside that on the path.
    is_path_alone: bool,
    /// The route has no other way.
    is_only_way: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PathKind {
    Any,
    Exact,
    Prefix,
    Regex,
}

/// A run of [`Way`]s, in precedence.
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
    /// All of `regexes` as one.
    set: Option<u32>,
    /// Those whose path is anything.
    any: Run,
    /// No lower priority has routes of this host.
    is_last: bool,
}

/// The levels of all hosts.
#[derive(Debug, Default)]
pub(super) struct Levels {
    levels: Vec<Level>,
    ways: Vec<Way>,
    paths: ReadyMap<u64, Run>,
    texts: Texts,
    sets: Vec<PatternSet>,
}

impl Levels {
    /// Adds the routes of a host: ways as route and set of conditions, in precedence, each priority by itself. Gives the host's number.
    pub(super) fn add(&mut self, specs: &[RouteSpec], priorities: &[&[(u32, u32)]]) -> u32 {
        let host = number(self.levels.len());
        if priorities.is_empty() {
            self.levels.push(Level { is_last: true, ..Level::default() });
        }
        for (at, ways) in priorities.iter().enumerate() {
            let level = self.level(specs, ways);
            self.levels.push(Level { is_last: at.saturating_add(1) == priorities.len(), ..level });
        }
        host
    }

    fn level(&mut self, specs: &[RouteSpec], ways: &[(u32, u32)]) -> Level {
        let seed = extend(SEED, &number(self.levels.len()).to_le_bytes());
        let mut level = Level { seed, ..Level::default() };
        let (mut regexes, mut any, mut patterns) = (Vec::new(), Vec::new(), Vec::new());
        let mut paths: BTreeMap<u64, Vec<Way>> = BTreeMap::new();
        for (route, alternative) in ways {
            let Some(spec) = specs.get(*route as usize) else { continue };
            let Some(conditions) = spec.matches.get(*alternative as usize) else { continue };
            let mut way = Way {
                route: *route,
                alternative: *alternative,
                path: Text::default(),
                kind: PathKind::Any,
                ignores_case: conditions.ignore_case,
                is_path_alone: conditions.is_path_alone(),
                is_only_way: spec.matches.len() == 1,
            };
            match &conditions.path {
                PathCondition::Prefix(prefix) if !prefix.is_empty() => {
                    let (depth, hash) = whole(seed, prefix);
                    level.prefix_depths |= depth_bit(depth);
                    way = Way { path: self.texts.push(prefix), kind: PathKind::Prefix, ..way };
                    paths.entry(prefix_key(hash)).or_default().push(way);
                }
                PathCondition::Exact(path) => {
                    let (depth, hash) = whole(seed, path);
                    level.exact_depths |= depth_bit(depth);
                    way = Way { path: self.texts.push(path), kind: PathKind::Exact, ..way };
                    paths.entry(exact_key(hash)).or_default().push(way);
                }
                PathCondition::Regex(pattern) => {
                    patterns.push(pattern);
                    regexes.push(Way { kind: PathKind::Regex, ..way });
                }
                // The empty prefix has every path but `*`.
                PathCondition::Prefix(_) => any.push(Way { kind: PathKind::Prefix, ..way }),
                PathCondition::Any => any.push(way),
            }
        }
        if let Some(set) = PatternSet::new(patterns.into_iter(), self.sets.len()) {
            level.set = Some(number(self.sets.len()));
            self.sets.push(set);
        }
        level.regexes = self.push(regexes);
        level.any = self.push(any);
        for (key, ways) in paths {
            let run = self.push(ways);
            self.paths.insert(key, run);
        }
        level
    }

    fn push(&mut self, ways: Vec<Way>) -> Run {
        let start = number(self.ways.len());
        self.ways.extend(ways);
        Run { start, end: number(self.ways.len()) }
    }

    /// The first way of a host that takes a request.
    #[inline]
    pub(super) fn find(
        &self,
        host: u32,
        specs: &[RouteSpec],
        request: &RouteRequest<'_>,
        caches: &mut PatternCaches,
    ) -> Option<Way> {
        for level in self.levels.get(host as usize..)? {
            let found = self.in_level(level, specs, request, caches);
            if found.is_some() || level.is_last {
                return found;
            }
        }
        None
    }

    fn in_level(
        &self,
        level: &Level,
        specs: &[RouteSpec],
        request: &RouteRequest<'_>,
        caches: &mut PatternCaches,
    ) -> Option<Way> {
        if level.prefix_depths | level.exact_depths == 0 {
            return self
                .regex(level, specs, request, caches)
                .or_else(|| self.first(level.any, specs, request, caches));
        }
        let mut prefixes = [0; MOST_SEGMENTS + 1];
        let (found, exact) = hashes(level, request.path, &mut prefixes);
        if let Some(run) = exact.and_then(|hash| self.paths.get(&exact_key(hash)))
            && let Some(way) = self.first(*run, specs, request, caches)
        {
            return Some(way);
        }
        if let Some(way) = self.regex(level, specs, request, caches) {
            return Some(way);
        }
        for hash in prefixes.get(..found).unwrap_or_default().iter().rev() {
            if let Some(run) = self.paths.get(&prefix_key(*hash))
                && let Some(way) = self.first(*run, specs, request, caches)
            {
                return Some(way);
            }
        }
        self.first(level.any, specs, request, caches)
    }

    /// The first of the ways with a regular expression.
    #[inline]
    fn regex(
        &self,
        level: &Level,
        specs: &[RouteSpec],
        request: &RouteRequest<'_>,
        caches: &mut PatternCaches,
    ) -> Option<Way> {
        let Some(set) = level.set.and_then(|set| self.sets.get(set as usize)) else {
            return self.first(level.regexes, specs, request, caches);
        };
        if request.path.first() != Some(&b'/') {
            return None;
        }
        let ways = self.ways(level.regexes);
        let beside = |way: &Way, caches: &mut PatternCaches| {
            way.is_path_alone || way.beside_path_holds(specs, request, caches)
        };
        let first =
            set.find(request.path, caches, |at, caches| ways.get(at).is_some_and(|way| beside(way, caches)));
        ways.get(first?).copied()
    }

    #[inline]
    fn first(
        &self,
        run: Run,
        specs: &[RouteSpec],
        request: &RouteRequest<'_>,
        caches: &mut PatternCaches,
    ) -> Option<Way> {
        let holds = |way: &Way, caches: &mut PatternCaches| {
            let path_holds = match way.kind {
                PathKind::Any => true,
                PathKind::Regex => {
                    way.conditions(specs).is_some_and(|found| found.path_holds(request.path, caches))
                }
                PathKind::Exact => way.is(request.path, self.texts.get(way.path)),
                PathKind::Prefix => self.has_prefix(way, request.path),
            };
            path_holds && (way.is_path_alone || way.beside_path_holds(specs, request, caches))
        };
        self.ways(run).iter().copied().find(|way| holds(way, caches))
    }

    #[inline]
    fn ways(&self, run: Run) -> &[Way] {
        self.ways.get(run.start as usize..run.end as usize).unwrap_or_default()
    }

    #[inline]
    fn has_prefix(&self, way: &Way, path: &[u8]) -> bool {
        let prefix = self.texts.get(way.path);
        match path.split_at_checked(prefix.len()) {
            Some((start, [] | [b'/', ..])) => way.is(start, prefix) && path.first() == Some(&b'/'),
            _ => false,
        }
    }

    /// How much of a path that a way has taken is the route's prefix.
    #[inline]
    pub(super) fn matched_prefix(&self, way: Way, specs: &[RouteSpec], path: &[u8]) -> usize {
        match way.kind {
            PathKind::Prefix if way.is_only_way => self.texts.get(way.path).len(),
            _ if way.is_only_way => 0,
            _ => specs.get(way.route as usize).map(|spec| spec.matched_prefix(path)).unwrap_or_default(),
        }
    }
}

impl Way {
    fn conditions<'a>(&self, specs: &'a [RouteSpec]) -> Option<&'a RouteConditions> {
        specs.get(self.route as usize)?.matches.get(self.alternative as usize)
    }

    fn beside_path_holds(
        &self,
        specs: &[RouteSpec],
        request: &RouteRequest<'_>,
        caches: &mut PatternCaches,
    ) -> bool {
        self.conditions(specs).is_some_and(|found| found.unmet_beside_path(request, caches).is_none())
    }

    #[inline]
    fn is(&self, path: &[u8], wanted: &[u8]) -> bool {
        if self.ignores_case { path.eq_ignore_ascii_case(wanted) } else { path == wanted }
    }
}

/// Fills in the hashes of the prefixes of a path that may be those of a level, the shallowest first. Gives how many there are, and the hash of the
/// whole path where the level has exact paths of its depth.
#[inline]
fn hashes(level: &Level, path: &[u8], prefixes: &mut [u64; MOST_SEGMENTS + 1]) -> (usize, Option<u64>) {
    let Some(mut rest) = path.strip_prefix(b"/") else { return (0, None) };
    let depths = level.prefix_depths | level.exact_depths;
    let (mut found, mut hash, mut depth) = (0_usize, level.seed, 0_usize);
    loop {
        let (segment, after) = match rest.iter().position(|byte| *byte == b'/') {
            Some(end) => (rest.get(..end).unwrap_or(rest), rest.get(end.saturating_add(1)..)),
            None => (rest, None),
        };
        hash = extend(hash, segment);
        depth = depth.saturating_add(1);
        let bit = depth_bit(depth);
        if level.prefix_depths & bit != 0
            && let Some(slot) = prefixes.get_mut(found)
        {
            *slot = hash;
            found = found.saturating_add(1);
        }
        match after {
            Some(after) if depths & !(bit | bit.wrapping_sub(1)) != 0 => rest = after,
            Some(_) => return (found, None),
            None => return (found, (level.exact_depths & bit != 0).then_some(hash)),
        }
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

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

//! Patterns that are looked for in one scan of a value.

use regex_automata::meta::{Cache, Regex};
use regex_automata::{Anchored, Input, MatchKind};

use super::pattern::{self, Pattern, PatternCaches};

/// Fewer patterns are tried one after the other, which costs less.
const FEWEST: usize = 3;

/// The most that the patterns of one set may take compiled. Those of a larger one are tried one after the other.
const MOST_COMPILED: usize = 4 * 1024 * 1024;

/// What each worker keeps for one set at most.
const MOST_CACHE: usize = 1024 * 1024;

/// Patterns of which one scan tells all that match.
#[derive(Debug)]
pub(super) struct PatternSet {
    regex: Regex,
    /// Its place in [`PatternCaches`].
    slot: usize,
}

/// What a worker needs to scan for one set.
#[derive(Debug)]
pub(super) struct SetCache {
    cache: Cache,
    found: regex_automata::PatternSet,
}

impl PatternSet {
    /// These patterns as a set; `None` where there are too few of them, or where they would take too much together.
    pub(super) fn new<'a>(patterns: impl Iterator<Item = &'a Pattern>, slot: usize) -> Option<Self> {
        let texts: Vec<_> = patterns.map(Pattern::anchored_text).collect();
        if texts.len() < FEWEST {
            return None;
        }
        // All that match are wanted, not the first alone.
        let config = pattern::config(MOST_COMPILED, MOST_CACHE).match_kind(MatchKind::All);
        let regex =
            Regex::builder().syntax(pattern::syntax(false)).configure(config).build_many(&texts).ok()?;
        Some(Self { regex, slot })
    }

    /// The first of the patterns that match the whole value, by position, of which `is_it` is true.
    pub(super) fn find(
        &self,
        value: &[u8],
        caches: &mut PatternCaches,
        mut is_it: impl FnMut(usize, &mut PatternCaches) -> bool,
    ) -> Option<usize> {
        let mut own = caches.take_set(self.slot).unwrap_or_else(|| {
            let found = regex_automata::PatternSet::new(self.regex.pattern_len());
            Box::new(SetCache { cache: self.regex.create_cache(), found })
        });
        own.found.clear();
        let input = Input::new(value).anchored(Anchored::Yes);
        self.regex.which_overlapping_matches_with(&mut own.cache, &input, &mut own.found);
        let first = own.found.iter().map(|id| id.as_usize()).find(|at| is_it(*at, caches));
        caches.put_set(self.slot, own);
        first
    }
}

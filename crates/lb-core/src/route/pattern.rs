//! Regular expressions of routes: they match whole values, in time linear in the length of the value, and have no look-around.

use std::fmt;
use std::sync::Arc;

use regex_automata::meta::{Cache, Config, Regex};
use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, PatternID};

use super::pattern_set::SetCache;

/// The longest text of a pattern.
pub const MOST_TEXT: usize = 1024;

/// The most that one pattern may take compiled: bombs such as `(a{1000}){1000}` are refused while the file is read (attack R-19).
const MOST_COMPILED: usize = 256 * 1024;

/// What each worker keeps for one pattern at most.
const MOST_CACHE: usize = 256 * 1024;

/// A regular expression.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    ignores_case: bool,
    regex: Regex,
    /// Its place in [`PatternCaches`].
    slot: usize,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(text: &str, ignores_case: bool) -> Result<Self, String> {
        if text.len() > MOST_TEXT {
            return Err(format!("a pattern has at most {MOST_TEXT} bytes, this one has {}", text.len()));
        }
        // By itself first: what would close the group below is no expression.
        build(text, ignores_case)?;
        let regex = build(&anchored(text, false), ignores_case)?;
        Ok(Self { text: text.into(), ignores_case, regex, slot: 0 })
    }

    /// The text of an expression that matches whole values, with its own rule for letter case.
    pub(super) fn anchored_text(&self) -> String {
        anchored(&self.text, self.ignores_case)
    }

    /// Gives it its place.
    pub(super) fn set_slot(&mut self, slot: usize) {
        self.slot = slot;
    }

    /// Whether it has a group of this number or name.
    pub fn has_group(&self, group: &str) -> bool {
        match group.parse::<usize>() {
            Ok(number) => number < self.regex.captures_len(),
            Err(_) => self.regex.group_info().to_index(PatternID::ZERO, group).is_some(),
        }
    }

    /// Whether the whole value matches.
    pub(super) fn fits(&self, value: &[u8], caches: &mut PatternCaches) -> bool {
        let input = Input::new(value).anchored(Anchored::Yes).earliest(true);
        let Some(slot) = place(&mut caches.each, self.slot) else { return false };
        let cache = slot.get_or_insert_with(|| self.regex.create_cache());
        self.regex.search_half_with(cache, &input).is_some()
    }
}

/// What the groups of a route's pattern have found in a path.
#[derive(Debug, Default)]
pub struct RouteCaptures<'a> {
    path: &'a [u8],
    found: Option<Captures>,
}

impl<'a> RouteCaptures<'a> {
    /// What the groups find in this path; nothing where it does not match.
    pub fn of(pattern: &Pattern, path: &'a [u8], caches: &mut PatternCaches) -> Self {
        if !pattern.fits(path, caches) {
            return Self::default();
        }
        let mut found = pattern.regex.create_captures();
        if let Some(Some(cache)) = caches.each.get_mut(pattern.slot) {
            let input = Input::new(path).anchored(Anchored::Yes);
            pattern.regex.search_captures_with(cache, &input, &mut found);
        }
        Self { path, found: Some(found).filter(Captures::is_match) }
    }

    /// Whether the path has matched.
    pub fn is_match(&self) -> bool {
        self.found.is_some()
    }

    /// What the group of this number or name has found.
    pub fn group(&self, group: &str) -> &'a [u8] {
        let found = self.found.as_ref().and_then(|found| match group.parse::<usize>() {
            Ok(number) => found.get_group(number),
            Err(_) => found.get_group_by_name(group),
        });
        found.and_then(|span| self.path.get(span.range())).unwrap_or_default()
    }
}

fn anchored(text: &str, ignores_case: bool) -> String {
    let flag = if ignores_case { "i" } else { "" };
    format!(r"\A(?{flag}:{text})\z")
}

pub(super) fn syntax(ignores_case: bool) -> syntax::Config {
    syntax::Config::new().utf8(false).case_insensitive(ignores_case).nest_limit(64)
}

/// How expressions are compiled that may take so many bytes, with so many for what a worker keeps.
pub(super) fn config(most_compiled: usize, most_cache: usize) -> Config {
    Config::new()
        .match_kind(MatchKind::LeftmostFirst)
        .utf8_empty(false)
        .nfa_size_limit(Some(most_compiled))
        .hybrid_cache_capacity(most_cache)
}

fn build(text: &str, ignores_case: bool) -> Result<Regex, String> {
    let config = config(MOST_COMPILED, MOST_CACHE);
    let built = Regex::builder().syntax(syntax(ignores_case)).configure(config).build(text);
    built.map_err(|error| match error.syntax_error() {
        Some(error) => error
            .to_string()
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .trim_start_matches("error: ")
            .to_owned(),
        None if error.size_limit().is_some() => {
            format!("compiled it would take more than {MOST_COMPILED} bytes")
        }
        None => error.to_string(),
    })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.ignores_case == other.ignores_case
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// What a worker needs to match the patterns of one table; made as they are used.
#[derive(Debug, Default)]
pub struct PatternCaches {
    each: Vec<Option<Cache>>,
    sets: Vec<Option<Box<SetCache>>>,
}

impl PatternCaches {
    /// Takes out what is there for a set.
    pub(super) fn take_set(&mut self, slot: usize) -> Option<Box<SetCache>> {
        self.sets.get_mut(slot)?.take()
    }

    pub(super) fn put_set(&mut self, slot: usize, cache: Box<SetCache>) {
        if let Some(place) = place(&mut self.sets, slot) {
            *place = Some(cache);
        }
    }
}

/// The place of a number, which grows for it.
fn place<T>(all: &mut Vec<Option<T>>, slot: usize) -> Option<&mut Option<T>> {
    if all.len() <= slot {
        all.resize_with(slot.saturating_add(1), || None);
    }
    all.get_mut(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, value: &[u8]) -> bool {
        Pattern::new(pattern, false).unwrap().fits(value, &mut PatternCaches::default())
    }

    #[test]
    fn whole_values_match() {
        assert!(fits("/r[0-9]+", b"/r7") && !fits("/r[0-9]+", b"/r7/x") && !fits("/r[0-9]+", b"x/r7"));
        assert!(fits("a|bc", b"bc") && !fits("a|bc", b"abc") && !fits("a|ab", b"abc") && fits("a|ab", b"ab"));
        assert!(fits("", b"") && !fits("", b"a"));
        assert!(fits("a.*", b"a\xff\xfe") || !fits("a.*", b"a\xff\xfe"), "bytes that are no text do no harm");
        assert!(Pattern::new("AbC", true).unwrap().fits(b"aBc", &mut PatternCaches::default()));
    }

    #[test]
    fn r_19_bombs_and_what_cannot_be_matched_in_linear_time_do_not_compile() {
        for pattern in ["(a", "a)|(b", "(?=a)", r"(a)\1", "(a{1000}){1000}", "[z-a]", &"a".repeat(1025)] {
            assert!(Pattern::new(pattern, false).is_err_and(|error| !error.is_empty()), "{pattern}");
        }
        assert!(!fits("(a+)+", format!("{}!", "a".repeat(8192)).as_bytes()), "linear, or this never ends");
    }
}

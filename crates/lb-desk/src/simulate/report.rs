//! What a replay has found.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// Examples that are kept of each kind.
const EXAMPLES: usize = 10;

/// Different changes that are counted by themselves. What a log holds is not to make a report grow without bound.
const MOST_KINDS: usize = 1000;

/// Bytes of a request that an example shows.
const SHOWN: usize = 200;

/// What changes of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Axis {
    /// The route that takes it.
    Route,
    /// Who answers.
    Pool,
    /// The status.
    Status,
}

impl Axis {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Pool => "pool",
            Self::Status => "status",
        }
    }
}

/// A request that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The line of the log, from 1.
    pub line: u64,
    /// Method, host and target.
    pub request: String,
    /// What it was.
    pub was: String,
    /// What it would be.
    pub now: String,
}

/// The counts of a replay, with examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimulationReport {
    lines: u64,
    /// Requests that fare as they did.
    pub unchanged: u64,
    /// Requests that fare otherwise.
    pub changed: u64,
    /// Requests of which the log does not tell, by why.
    pub undecided: BTreeMap<&'static str, u64>,
    /// Lines that could not be read.
    pub unreadable: u64,
    first_unreadable: Option<(u64, String)>,
    kinds: BTreeMap<(Axis, String, String), u64>,
    examples: BTreeMap<Axis, Vec<Example>>,
    goes: BTreeMap<String, u64>,
}

impl SimulationReport {
    pub(super) fn next_line(&mut self) -> u64 {
        self.lines = self.lines.saturating_add(1);
        self.lines
    }

    pub(super) fn unchanged(&mut self) {
        self.unchanged = self.unchanged.saturating_add(1);
    }

    pub(super) fn undecided(&mut self, why: &'static str) {
        bump(&mut self.undecided, why);
    }

    pub(super) fn unreadable(&mut self, line: u64, reason: &str) {
        self.unreadable = self.unreadable.saturating_add(1);
        self.first_unreadable.get_or_insert_with(|| (line, reason.to_owned()));
    }

    pub(super) fn went(&mut self, whither: &str) {
        bump_bounded(&mut self.goes, whither.to_owned(), "others".to_owned());
    }

    pub(super) fn changed(&mut self, line: u64, request: &str, changes: Vec<(Axis, String, String)>) {
        self.changed = self.changed.saturating_add(1);
        for (axis, was, now) in changes {
            let examples = self.examples.entry(axis).or_default();
            if examples.len() < EXAMPLES {
                let request = request.chars().filter(|char| !char.is_control()).take(SHOWN).collect();
                examples.push(Example { line, request, was: was.clone(), now: now.clone() });
            }
            let others = (axis, "others".to_owned(), "others".to_owned());
            bump_bounded(&mut self.kinds, (axis, was, now), others);
        }
    }

    /// Whether any request would fare otherwise.
    pub fn has_changes(&self) -> bool {
        self.changed > 0
    }

    /// Requests that were read.
    pub fn requests(&self) -> u64 {
        self.undecided
            .values()
            .fold(self.unchanged.saturating_add(self.changed), |sum, count| sum.saturating_add(*count))
    }

    /// The examples of one kind, ten at most.
    pub fn examples(&self, axis: Axis) -> &[Example] {
        self.examples.get(&axis).map_or(&[], Vec::as_slice)
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let changes = self.by_count().map(|((axis, was, now), count)| {
            json!({ "what": axis.as_str(), "was": was, "now": now, "requests": count })
        });
        let examples = self.examples.iter().flat_map(|(axis, examples)| {
            examples.iter().map(|one| {
                json!({ "what": axis.as_str(), "line": one.line, "request": one.request, "was": one.was, "now": one.now })
            })
        });
        json!({
            "requests": self.requests(),
            "unchanged": self.unchanged,
            "changed": self.changed,
            "undecided": self.undecided,
            "unreadable": self.unreadable,
            "goes": self.goes,
            "changes": changes.collect::<Vec<_>>(),
            "examples": examples.collect::<Vec<_>>(),
        })
    }

    fn by_count(&self) -> impl Iterator<Item = (&(Axis, String, String), u64)> {
        let mut kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| (kind, *count)).collect();
        kinds.sort_by_key(|((axis, ..), count)| (*axis, std::cmp::Reverse(*count)));
        kinds.into_iter()
    }
}

impl fmt::Display for SimulationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} requests", self.requests())?;
        writeln!(f, "{:>10} as before", self.unchanged)?;
        writeln!(f, "{:>10} otherwise", self.changed)?;
        for (why, count) in &self.undecided {
            writeln!(f, "{count:>10} not decided: {why}")?;
        }
        if let Some((line, reason)) = &self.first_unreadable {
            writeln!(
                f,
                "{:>10} lines could not be read, the first is line {line}: {reason}",
                self.unreadable
            )?;
        }
        writeln!(f, "\nwhere they go")?;
        let mut goes: Vec<_> = self.goes.iter().collect();
        goes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (whither, count) in goes.iter().take(20) {
            writeln!(f, "{count:>10} {whither}")?;
        }
        if goes.len() > 20 {
            writeln!(f, "{:>10} more places", goes.len().saturating_sub(20))?;
        }
        let mut shown = None;
        for ((axis, was, now), count) in self.by_count() {
            if shown != Some(*axis) {
                shown = Some(*axis);
                writeln!(f, "\n{}", axis.as_str())?;
            }
            writeln!(f, "{count:>10} {was} -> {now}")?;
        }
        for (axis, examples) in &self.examples {
            writeln!(f, "\nexamples: {}", axis.as_str())?;
            for Example { line, request, was, now } in examples {
                writeln!(f, "  line {line}: {request}: {was} -> {now}")?;
            }
        }
        Ok(())
    }
}

fn bump<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

fn bump_bounded<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, others: K) {
    let is_full = counts.len() >= MOST_KINDS && !counts.contains_key(&key);
    bump(counts, if is_full { others } else { key });
}

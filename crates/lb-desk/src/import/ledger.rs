//! What has become of each directive of a file that is imported: nothing is lost without a word.

use std::fmt;
use std::sync::Arc;

/// A directive, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DirectiveId(usize);

/// What has become of a directive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It stands in the output.
    Carried,
    /// It stands in the output, with this difference.
    Adapted(String),
    /// Nothing has to be done, for this reason.
    Needless(&'static str),
    /// It is not in the output; this is what to do instead.
    Lost(String),
}

/// A directive with its place and its fate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportNote {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The directive, cut where it is long.
    pub directive: String,
    /// What has become of it.
    pub fate: Fate,
}

impl fmt::Display for ImportNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, directive, fate } = self;
        match fate {
            Fate::Carried => write!(f, "{file}:{line}: {directive}: carried"),
            Fate::Adapted(how) => write!(f, "{file}:{line}: {directive}: carried with a difference: {how}"),
            Fate::Needless(why) => write!(f, "{file}:{line}: {directive}: not needed: {why}"),
            Fate::Lost(instead) => write!(f, "{file}:{line}: {directive}: not carried: {instead}"),
        }
    }
}

/// What a directive is told whose fate nobody has settled.
const UNKNOWN: &str = "the import does not know it; CONFIG.md says what there is";

/// Bytes of a directive that a note shows.
const SHOWN: usize = 120;

/// All directives.
#[derive(Debug, Default)]
pub(super) struct Ledger(Vec<(Arc<str>, usize, String, Option<Fate>)>);

impl Ledger {
    /// Takes a directive in.
    pub(super) fn add(&mut self, file: &Arc<str>, line: usize, text: &str) -> DirectiveId {
        let text: String = text.chars().filter(|char| !char.is_control()).take(SHOWN).collect();
        self.0.push((Arc::clone(file), line, text, None));
        DirectiveId(self.0.len().saturating_sub(1))
    }

    /// Settles the fate of a directive. What was said of a difference or a loss before stays.
    pub(super) fn settle(&mut self, id: DirectiveId, fate: Fate) {
        let Some((.., place)) = self.0.get_mut(id.0) else { return };
        match (&place, &fate) {
            (Some(Fate::Lost(_)), _) => {}
            (Some(Fate::Adapted(before)), Fate::Adapted(more)) if before != more => {
                *place = Some(Fate::Adapted(format!("{before}; {more}")));
            }
            (Some(Fate::Adapted(_)), Fate::Carried | Fate::Needless(_)) => {}
            _ => *place = Some(fate),
        }
    }

    pub(super) fn carried(&mut self, id: DirectiveId) {
        self.settle(id, Fate::Carried);
    }

    pub(super) fn adapted(&mut self, id: DirectiveId, how: impl Into<String>) {
        self.settle(id, Fate::Adapted(how.into()));
    }

    pub(super) fn needless(&mut self, id: DirectiveId, why: &'static str) {
        self.settle(id, Fate::Needless(why));
    }

    pub(super) fn lost(&mut self, id: DirectiveId, instead: impl Into<String>) {
        self.settle(id, Fate::Lost(instead.into()));
    }

    /// Takes back what was said of a directive: it did not get into the output.
    pub(super) fn taken_out(&mut self, id: DirectiveId, problem: &str) {
        if let Some((.., place)) = self.0.get_mut(id.0) {
            *place = Some(Fate::Lost(format!("what it would be here is not allowed: {problem}")));
        }
    }

    /// The fates of all directives, in their order.
    pub(super) fn notes(self) -> Vec<ImportNote> {
        let fate = |fate: Option<Fate>| fate.unwrap_or_else(|| Fate::Lost(UNKNOWN.to_owned()));
        let notes = self.0.into_iter().map(|(file, line, directive, settled)| ImportNote {
            file,
            line,
            directive,
            fate: fate(settled),
        });
        notes.collect()
    }

    /// Whether something has been said of a directive.
    pub(super) fn is_settled(&self, id: DirectiveId) -> bool {
        self.0.get(id.0).is_some_and(|(.., fate)| fate.is_some())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

//! One key of the table: its name, what it may hold, and what happens when it changes.

use super::{Block, Text};

/// A key of a block.
pub(crate) struct Key {
    /// The name in the file.
    pub(crate) name: &'static str,
    /// What it may hold.
    pub(crate) kind: Kind,
    /// What holds when it is absent.
    pub(crate) default: Default,
    /// What a reload does with a change.
    pub(crate) reload: Reload,
    /// What it means, as a sentence of CONFIG.md.
    pub(crate) doc: &'static str,
}

/// What a key may hold.
pub(crate) enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// Whether 0 is allowed below the least.
        zero: bool,
        /// The unit; empty when the name makes it clear.
        unit: &'static str,
    },
    /// One of a few words.
    Word {
        /// The words.
        words: &'static [&'static str],
        /// What to say about a word that is not one of them but that people try.
        hints: &'static [(&'static str, &'static str)],
    },
    /// A string.
    Text(Text),
    /// An array of strings.
    Texts(Text),
    /// A block inside this one.
    Block(&'static Block),
    /// An array of blocks inside this one.
    Blocks(&'static Block),
    /// Blocks inside this one under names that the file chooses.
    Named(&'static Block),
    /// Arrays of blocks inside this one, under names that the file chooses.
    NamedArrays(&'static Block),
    /// Anything: this is what it is for, and it is not built yet.
    Later(&'static str),
}

/// What holds when a key is absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Default {
    /// Its absence is an error.
    Required,
    /// Nothing.
    Absent,
    /// There is no default value; the text describes what holds instead.
    Described(&'static str),
    /// This.
    Flag(bool),
    /// This.
    Integer(u64),
    /// This.
    Word(&'static str),
}

/// What a reload does with a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reload {
    /// Applies it.
    Live,
    /// Reports it.
    Restart,
    /// Its contents say.
    Contents,
}

/// No upper bound but that of the type.
pub(crate) const U64: u64 = u64::MAX;
/// No upper bound but that of the type.
pub(crate) const U32: u64 = u32::MAX as u64;
/// A unit.
pub(crate) const MS: &str = "milliseconds";
/// A unit.
pub(crate) const S: &str = "seconds";
/// A unit.
pub(crate) const BYTES: &str = "bytes";

impl Key {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, default: Default::Absent, reload: Reload::Contents, doc: "" }
    }

    /// A key that holds a flag.
    pub(crate) const fn flag(name: &'static str, default: bool) -> Self {
        let mut key = Self::new(name, Kind::Flag);
        key.default = Default::Flag(default);
        key
    }

    /// A key that holds a number of something, absent unless a default follows.
    pub(crate) const fn integer(name: &'static str, min: u64, max: u64, unit: &'static str) -> Self {
        Self::new(name, Kind::Integer { min, max, zero: false, unit })
    }

    /// An integer in a range, or 0.
    pub(crate) const fn zero_or(name: &'static str, min: u64, max: u64, unit: &'static str) -> Self {
        Self::new(name, Kind::Integer { min, max, zero: true, unit })
    }

    /// A key that holds one of a few words.
    pub(crate) const fn word(name: &'static str, words: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Word { words, hints: &[] })
    }

    /// A word of a list, with hints about words that are no longer, or not yet, in it.
    pub(crate) const fn hinted(
        name: &'static str,
        words: &'static [&'static str],
        hints: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self::new(name, Kind::Word { words, hints })
    }

    /// A key that holds a string.
    pub(crate) const fn text(name: &'static str, text: Text) -> Self {
        Self::new(name, Kind::Text(text))
    }

    /// A key that holds an array of strings.
    pub(crate) const fn texts(name: &'static str, text: Text) -> Self {
        Self::new(name, Kind::Texts(text))
    }

    /// A key that opens a block.
    pub(crate) const fn block(name: &'static str, block: &'static Block) -> Self {
        Self::new(name, Kind::Block(block))
    }

    /// A key that opens an array of blocks.
    pub(crate) const fn blocks(name: &'static str, block: &'static Block) -> Self {
        Self::new(name, Kind::Blocks(block))
    }

    /// A key that opens blocks under names that the file chooses.
    pub(crate) const fn named(name: &'static str, block: &'static Block) -> Self {
        Self::new(name, Kind::Named(block))
    }

    /// A key that opens arrays of blocks under names that the file chooses.
    pub(crate) const fn named_arrays(name: &'static str, block: &'static Block) -> Self {
        Self::new(name, Kind::NamedArrays(block))
    }

    /// A key of what is not built yet.
    pub(crate) const fn later(name: &'static str, what: &'static str) -> Self {
        Self::new(name, Kind::Later(what)).live(what)
    }

    /// With a default.
    pub(crate) const fn or(mut self, default: u64) -> Self {
        self.default = Default::Integer(default);
        self
    }

    /// With a default word.
    pub(crate) const fn or_word(mut self, default: &'static str) -> Self {
        self.default = Default::Word(default);
        self
    }

    /// Without a default value: the text describes what holds instead.
    pub(crate) const fn or_else(mut self, described: &'static str) -> Self {
        self.default = Default::Described(described);
        self
    }

    /// Must be there.
    pub(crate) const fn required(mut self) -> Self {
        self.default = Default::Required;
        self
    }

    /// A reload applies it.
    pub(crate) const fn live(mut self, doc: &'static str) -> Self {
        self.reload = Reload::Live;
        self.doc = doc;
        self
    }

    /// A reload only reports it.
    pub(crate) const fn restart(mut self, doc: &'static str) -> Self {
        self.reload = Reload::Restart;
        self.doc = doc;
        self
    }
}

impl Kind {
    /// The end of the sentence `must be …`.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Later(_) => "anything".to_owned(),
            Self::Integer { max: U64, .. } => format!("an integer, {}", self.allowed()),
            Self::Integer { .. } => format!("an integer {}", self.allowed()),
            Self::Word { .. } => format!("one of {}", self.allowed()),
            Self::Text(text) => text.expected().to_owned(),
            Self::Texts(text) => format!("an array, each element {}", text.expected()),
            Self::Block(block) => format!("a table, opened by {}", block.header()),
            Self::Named(block) => format!("a table of tables, each opened by {}", block.header()),
            Self::Blocks(block) => format!("an array of tables, each opened by {}", block.header()),
            Self::NamedArrays(block) => {
                format!("a table of arrays of tables, each of these opened by {}", block.header())
            }
        }
    }

    /// The values that are allowed, without their type.
    pub(crate) fn allowed(&self) -> String {
        match self {
            Self::Integer { min, max, zero, unit } => {
                let range = match (*max, zero) {
                    (U64, _) => format!("at least {min}"),
                    (max, true) => format!("0 or {min}..={max}"),
                    (max, false) => format!("{min}..={max}"),
                };
                if unit.is_empty() { range } else { format!("{range} ({unit})") }
            }
            Self::Word { words, .. } => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
            }
            _ => self.expected(),
        }
    }
}

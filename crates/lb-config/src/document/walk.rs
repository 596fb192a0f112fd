//! TOML text against the schema, collecting everything that is wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::environment::expand;
use super::outline;
use super::source::{join, shorten};
use super::typo::unknown_key;
use super::{Entry, Node, Source, Value, Written};
use crate::error::{ConfigError, Errors};
use crate::schema::{Block, Default, Key, Kind, ROOT, Text};

/// Reads a configuration, and checks every key and value by itself.
pub(crate) fn parse(source: &Source<'_>) -> Result<Node, Errors> {
    parse_as(&ROOT, source)
}

/// Reads a text in which the keys of `block` may stand.
pub(crate) fn parse_as(block: &'static Block, source: &Source<'_>) -> Result<Node, Errors> {
    check_size(source.text).map_err(|problem| Errors::new(vec![source.file_error(None, problem)]))?;
    let mut walk = Walk { source, base: 0, listed: BTreeMap::new(), errors: Vec::new() };
    let mut whole: Option<Node> = None;
    for (base, text) in source.parts() {
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map(|span| span.start);
            let problem = format!("not TOML: {}", shorten(error.message()));
            Errors::new(vec![match at.map(|at| (base + at, outline::path_at(text, at))) {
                Some((at, path)) if !path.is_empty() => source.error(at, path, None, problem),
                at => source.file_error(Some(at.map_or(base, |(at, _)| at)), problem),
            }])
        })?;
        walk.base = base;
        let node = walk.block(block, table.get_ref(), String::new(), base);
        walk.count(&node);
        match &mut whole {
            Some(whole) => walk.merge(whole, node),
            None => whole = Some(node),
        }
    }
    match whole {
        Some(node) if walk.errors.is_empty() => Ok(node),
        _ => Err(Errors::new(walk.errors)),
    }
}

/// Refuses a text that is too long to be looked at.
pub(crate) fn check_size(text: &str) -> Result<(), String> {
    match text.len() {
        ..=LARGEST => Ok(()),
        bytes => Err(format!("{bytes} bytes long: must be at most {LARGEST} bytes")),
    }
}

/// Far above any file that people or their tools write, far below what could hurt.
const LARGEST: usize = 4 << 20;

/// How many errors are kept, of which the first by line are shown: every few bytes of a file can be wrong.
const MOST_ERRORS: usize = 1000;

/// The key of the file that names further ones.
const INCLUDE: &str = "include";

struct Walk<'a> {
    source: &'a Source<'a>,
    /// Where the file that is walked begins in the text.
    base: usize,
    /// How many elements the arrays of tables at the top level have in earlier files.
    listed: BTreeMap<&'static str, usize>,
    errors: Vec<ConfigError>,
}

impl Walk<'_> {
    /// Where something of the file that is walked begins.
    fn begins<T>(&self, what: &Spanned<T>) -> usize {
        self.base + what.span().start
    }

    /// Notes how many elements arrays of tables have, so that those of the next file are counted on.
    fn count(&mut self, node: &Node) {
        for (name, entry) in &node.entries {
            if let Value::Blocks(nodes) = &entry.value {
                *self.listed.entry(name).or_default() += nodes.len();
            }
        }
    }

    /// Adds what stands in a further file. Arrays of tables are joined, and so are tables under names of the file's choice, of which each
    /// name is taken once; all else stands in one file.
    fn merge(&mut self, whole: &mut Node, part: Node) {
        for (name, entry) in part.entries {
            if name == INCLUDE {
                self.note(
                    entry.at,
                    name.to_owned(),
                    None,
                    "only the file of the command line includes others".to_owned(),
                );
                continue;
            }
            let Some(known) = whole.entries.get_mut(name) else {
                whole.entries.insert(name, entry);
                continue;
            };
            match (&mut known.value, entry.value) {
                (Value::Blocks(all), Value::Blocks(more)) => all.extend(more),
                (Value::Named(all), Value::Named(more)) => {
                    for (chosen, node) in more {
                        if let Some(known) = all.get(&chosen) {
                            self.note_twice(known.at, node.at, node.path);
                        } else {
                            all.insert(chosen, node);
                        }
                    }
                }
                (Value::NamedArrays(all), Value::NamedArrays(more)) => {
                    for (chosen, nodes) in more {
                        match all.get(&chosen).and_then(|known| known.first()).zip(nodes.first()) {
                            Some((known, node)) => {
                                self.note_twice(known.at, node.at, format!("{name}.{chosen}"));
                            }
                            None => drop(all.insert(chosen, nodes)),
                        }
                    }
                }
                _ => self.note_twice(known.at, entry.at, name.to_owned()),
            }
        }
    }

    fn note_twice(&mut self, known: usize, at: usize, path: String) {
        let (file, line) = self.source.place(known);
        self.note(at, path, None, format!("it stands at {file}:{line} already"));
    }

    fn note(&mut self, at: usize, path: String, value: Option<&Written>, problem: String) {
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(self.source.error(at, path, value, problem));
        }
    }

    fn block(&mut self, block: &'static Block, table: &DeTable<'_>, path: String, at: usize) -> Node {
        let mut entries = BTreeMap::new();
        for (name, value) in table {
            let at = self.begins(name);
            let name = name.get_ref().as_ref();
            match block.key(name) {
                Some(key) => {
                    if let Some(value_checked) = self.value(key, value, &join(&path, key.name), at) {
                        entries.insert(
                            key.name,
                            Entry { at, written: self.written(key, value), value: value_checked },
                        );
                    }
                }
                None => {
                    let path = join(&path, &spell(name));
                    let is_table = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
                    let problem = unknown_key(block, name, is_table);
                    self.note(at, path, Some(&self.any_written(value)), problem);
                }
            }
        }
        for key in block.keys.iter().filter(|key| key.default == Default::Required) {
            if !table.contains_key(key.name) {
                let problem = format!("missing: must be {}", key.kind.expected());
                self.note(at, join(&path, key.name), None, problem);
            }
        }
        Node { block, path, at, entries }
    }

    /// The value if it is right; what is wrong with it is noted otherwise.
    fn value(
        &mut self,
        key: &'static Key,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        at: usize,
    ) -> Option<Value> {
        let checked = match (&key.kind, value.get_ref()) {
            (Kind::Block(block), DeValue::Table(table)) => {
                return Some(Value::Block(self.block(block, table, path.to_owned(), self.begins(value))));
            }
            (Kind::Blocks(block), DeValue::Array(array)) => return self.blocks(block, array, path),
            (Kind::Named(block), DeValue::Table(table)) => return self.named(block, table, path),
            (Kind::NamedArrays(block), DeValue::Table(table)) => {
                return self.named_arrays(block, table, path);
            }
            (Kind::Texts(text), DeValue::Array(array)) => return self.texts(key, *text, array, path),
            // Its being there is all that counts.
            (Kind::Later(_), _) => Ok(Value::Flag(true)),
            (Kind::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
            (kind, DeValue::String(string)) => self.string(kind, string),
            (kind @ Kind::Integer { .. }, DeValue::Integer(integer)) => {
                read_integer(integer).and_then(|number| in_range(kind, number)).ok_or_else(String::new)
            }
            (Kind::Word { words, .. }, DeValue::Boolean(flag)) => {
                let word = if *flag { "true" } else { "false" };
                words
                    .iter()
                    .find(|known| **known == word)
                    .map(|known| Value::Word(known))
                    .ok_or_else(String::new)
            }
            _ => Err(String::new()),
        };
        match checked {
            Ok(value) => Some(value),
            Err(detail) => {
                let problem = must_be(&key.kind.expected(), &detail);
                self.note(at, path.to_owned(), Some(&self.written(key, value)), problem);
                None
            }
        }
    }

    /// What a string with its variables replaced means for a key of `kind`. Numbers and flags may come from variables alone: written as they
    /// are they need no quotes.
    fn string(&self, kind: &Kind, written: &str) -> Result<Value, String> {
        let text = self.expanded(written)?;
        let is_expanded = matches!(text, Cow::Owned(_));
        let text = text.trim();
        let read = match kind {
            Kind::Word { words, hints } => {
                let known = words.iter().find(|known| **known == text);
                known.map(|known| Value::Word(known)).ok_or_else(|| hint(words, hints, text))
            }
            Kind::Text(kind) => kind.read(text),
            Kind::Flag if is_expanded => text.parse().map(Value::Flag).map_err(|_| String::new()),
            Kind::Integer { .. } if is_expanded => {
                text.parse().ok().and_then(|number| in_range(kind, number)).ok_or_else(String::new)
            }
            _ => Err(String::new()),
        };
        let is_secret = matches!(kind, Kind::Text(text) if text.is_secret());
        read.map_err(|detail| match is_expanded && !is_secret {
            true if detail.is_empty() => format!("it comes to `{}`", shorten(text)),
            true => format!("it comes to `{}`; {detail}", shorten(text)),
            false => detail,
        })
    }

    fn expanded<'t>(&self, written: &'t str) -> Result<Cow<'t, str>, String> {
        self.source.environment.map_or(Ok(Cow::Borrowed(written)), |environment| expand(written, environment))
    }

    fn blocks(&mut self, block: &'static Block, array: &[Spanned<DeValue<'_>>], path: &str) -> Option<Value> {
        let mut nodes = Vec::with_capacity(array.len());
        let before = self.listed.get(path).copied().unwrap_or_default();
        for (index, element) in array.iter().enumerate() {
            let path = format!("{path}[{}]", before + index);
            let at = self.begins(element);
            match element.get_ref() {
                DeValue::Table(table) => nodes.push(self.block(block, table, path, at)),
                _ => {
                    let problem = must_be(&format!("a table, opened by {}", block.header()), "");
                    self.note(at, path, Some(&self.any_written(element)), problem);
                }
            }
        }
        (nodes.len() == array.len()).then_some(Value::Blocks(nodes))
    }

    fn named(&mut self, block: &'static Block, table: &DeTable<'_>, path: &str) -> Option<Value> {
        let mut nodes = BTreeMap::new();
        for (name, value) in table {
            let at = self.begins(name);
            let name = name.get_ref().as_ref();
            let path = join(path, &spell(name));
            match value.get_ref() {
                DeValue::Table(_) if !is_block_name(name) => {
                    let problem = "a name is 1 to 64 letters, digits, `-` and `_`".to_owned();
                    self.note(at, path, None, problem);
                }
                DeValue::Table(table) => {
                    nodes.insert(name.to_owned(), self.block(block, table, path, at));
                }
                _ => {
                    let problem = must_be(&format!("a table, opened by {}", block.header()), "");
                    self.note(at, path, Some(&self.any_written(value)), problem);
                }
            }
        }
        (nodes.len() == table.len()).then_some(Value::Named(nodes))
    }

    fn named_arrays(&mut self, block: &'static Block, table: &DeTable<'_>, path: &str) -> Option<Value> {
        let mut arrays = BTreeMap::new();
        for (name, value) in table {
            let at = self.begins(name);
            let name = name.get_ref().as_ref();
            let path = join(path, &spell(name));
            match value.get_ref() {
                DeValue::Array(_) if !is_block_name(name) => {
                    self.note(at, path, None, "a name is 1 to 64 letters, digits, `-` and `_`".to_owned());
                }
                DeValue::Array(array) => {
                    if let Some(Value::Blocks(nodes)) = self.blocks(block, array, &path) {
                        arrays.insert(name.to_owned(), nodes);
                    }
                }
                _ => {
                    let problem =
                        must_be(&format!("an array of tables, each opened by {}", block.header()), "");
                    self.note(at, path, Some(&self.any_written(value)), problem);
                }
            }
        }
        (arrays.len() == table.len()).then_some(Value::NamedArrays(arrays))
    }

    fn texts(&mut self, key: &Key, text: Text, array: &[Spanned<DeValue<'_>>], path: &str) -> Option<Value> {
        let mut values = Vec::with_capacity(array.len());
        for (index, element) in array.iter().enumerate() {
            let read = match element.get_ref() {
                DeValue::String(string) => self.string(&Kind::Text(text), string),
                _ => Err(String::new()),
            };
            match read {
                Ok(value) => values.push(value),
                Err(detail) => self.note(
                    self.begins(element),
                    format!("{path}[{index}]"),
                    Some(&self.written(key, element)),
                    must_be(text.expected(), &detail),
                ),
            }
        }
        (values.len() == array.len()).then_some(Value::List(values))
    }

    fn written(&self, key: &Key, value: &Spanned<DeValue<'_>>) -> Written {
        match (&key.kind, value.get_ref()) {
            (Kind::Text(text) | Kind::Texts(text), _) if text.is_secret() => Written::As("(not shown)"),
            _ => self.any_written(value),
        }
    }

    fn any_written(&self, value: &Spanned<DeValue<'_>>) -> Written {
        match value.get_ref() {
            DeValue::Table(_) => Written::As("{…}"),
            DeValue::Array(_) => Written::As("[…]"),
            _ => Written::Span(self.begins(value)..self.base + value.span().end),
        }
    }
}

/// The error for a word that is not in the list.
fn hint(words: &[&str], hints: &[(&str, &str)], word: &str) -> String {
    if let Some(known) = words.iter().find(|known| known.eq_ignore_ascii_case(word)) {
        return format!("it is written \"{known}\"");
    }
    let hint = hints.iter().find(|(tried, _)| tried.eq_ignore_ascii_case(word));
    hint.map(|(_, hint)| (*hint).to_owned()).unwrap_or_default()
}

/// What a file may call a block: it stands in paths, messages and metrics.
fn is_block_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// The number, if a key of `kind` may hold it.
fn in_range(kind: &Kind, number: u64) -> Option<Value> {
    match kind {
        Kind::Integer { min, max, zero, .. } => {
            let fits = (*min..=*max).contains(&number) || *zero && number == 0;
            fits.then_some(Value::Integer(number))
        }
        _ => None,
    }
}

fn read_integer(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn must_be(expected: &str, detail: &str) -> String {
    if detail.is_empty() { format!("must be {expected}") } else { format!("must be {expected}; {detail}") }
}

/// A key as TOML would have it written, so that an odd one cannot pass for a path or break the line.
fn spell(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(bare) { shorten(name) } else { format!("\"{}\"", shorten(name)) }
}

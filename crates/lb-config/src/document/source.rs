//! The text of the file: where a byte stands, and how a value is quoted.

use super::{Lookup, Value, View, Written};
use crate::error::ConfigError;
use crate::schema::Default;

/// The text with its names and its lines.
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    /// The files of the text: the name of each, and where it begins. Never empty; the first begins at 0.
    pub(crate) files: Vec<(&'a str, usize)>,
    line_starts: Vec<usize>,
    /// Where strings find the values of `${NAME}`; without it they are as they are written.
    pub(crate) environment: Option<Lookup<'a>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str, file: &'a str) -> Self {
        Self::of_files(text, vec![(file, 0)])
    }

    /// Several files in one text, each from the place on that stands with its name.
    pub(crate) fn of_files(text: &'a str, files: Vec<(&'a str, usize)>) -> Self {
        let line_starts =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect();
        Self { text, files, line_starts, environment: None }
    }

    /// The files with where they begin and their texts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, &'a str)> {
        let ends = self.files.iter().skip(1).map(|(_, start)| *start).chain([self.text.len()]);
        let parts = self.files.iter().zip(ends);
        parts.map(|((_, start), end)| (*start, self.text.get(*start..end).unwrap_or_default()))
    }

    /// The file and the line of a place.
    pub(crate) fn place(&self, at: usize) -> (&'a str, usize) {
        let is_before = |(_, start): &&(&str, usize)| *start <= at;
        let (file, start) = self.files.iter().rev().find(is_before).copied().unwrap_or(("", 0));
        (file, self.line(at) - self.line(start) + 1)
    }

    /// With variables for its strings.
    pub(crate) fn with_environment(mut self, environment: Lookup<'a>) -> Self {
        self.environment = Some(environment);
        self
    }

    /// An error about a place in the file.
    pub(crate) fn error(
        &self,
        at: usize,
        path: String,
        value: Option<&Written>,
        problem: impl Into<String>,
    ) -> ConfigError {
        let (file, line) = self.place(at);
        ConfigError {
            file: file.to_owned(),
            line: Some(line),
            path: Some(path),
            value: value.map(|value| self.quote(value)),
            problem: problem.into(),
        }
    }

    /// An error about the key `name` of a block that passed the walk: at the key, or at the block when it is absent.
    pub(crate) fn error_about(&self, view: View<'_>, name: &str, problem: impl Into<String>) -> ConfigError {
        let path = join(view.node.map_or("", |node| &node.path), name);
        match view.entry(name) {
            Some(entry) => {
                let is_scalar = !matches!(
                    entry.value,
                    Value::Block(_)
                        | Value::Blocks(_)
                        | Value::Named(_)
                        | Value::NamedArrays(_)
                        | Value::List(_)
                );
                self.error(entry.at, path, is_scalar.then_some(&entry.written), problem)
            }
            None => {
                let default = match view.block.key(name).map(|key| key.default) {
                    Some(Default::Integer(number)) => Some(Written::Default(number)),
                    _ => None,
                };
                self.error(view.node.map_or(0, |node| node.at), path, default.as_ref(), problem)
            }
        }
    }

    /// An error about a block that passed the walk.
    pub(crate) fn error_about_block(&self, view: View<'_>, problem: impl Into<String>) -> ConfigError {
        let (at, path) = view.node.map_or((0, ""), |node| (node.at, &node.path));
        self.error(at, path.to_owned(), None, problem)
    }

    /// An error about the file as a whole, or about a place that is no key.
    pub(crate) fn file_error(&self, at: Option<usize>, problem: impl Into<String>) -> ConfigError {
        let (file, line) = self.place(at.unwrap_or_default());
        let line = at.map(|_| line);
        ConfigError { file: file.to_owned(), line, path: None, value: None, problem: problem.into() }
    }

    /// The line in the whole text.
    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at) + 1
    }

    fn quote(&self, value: &Written) -> String {
        match value {
            Written::As(text) => (*text).to_owned(),
            Written::Default(number) => format!("{number} (the default)"),
            Written::Span(span) => shorten(self.text.get(span.clone()).unwrap_or_default()),
        }
    }
}

/// The path of a key inside the block at `path`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// At most [`LONGEST`] characters of one line, without control characters: messages go to terminals and logs.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

const LONGEST: usize = 80;

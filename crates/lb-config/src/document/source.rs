//! The text of the file: where a byte stands, and how a value is quoted.

use super::{Lookup, Value, View, Written};
use crate::error::ConfigError;
use crate::schema::Default;

/// The text with its name and its lines.
pub(crate) struct Source<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
    line_starts: Vec<usize>,
    /// Where strings find the values of `${NAME}`; without it they are as they are written.
    pub(crate) environment: Option<Lookup<'a>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str, file: &'a str) -> Self {
        let line_starts =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect();
        Self { file, text, line_starts, environment: None }
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
        ConfigError {
            file: self.file.to_owned(),
            line: Some(self.line(at)),
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
        let line = at.map(|at| self.line(at));
        ConfigError { file: self.file.to_owned(), line, path: None, value: None, problem: problem.into() }
    }

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

//! What is wrong with a configuration: every message names file, line, key, value and what is allowed.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    pub(crate) file: String,
    pub(crate) line: Option<usize>,
    pub(crate) path: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) problem: String,
}

impl ConfigError {
    /// An error about no place in particular.
    pub(crate) fn of_file(file: &str, problem: String) -> Self {
        Self { file: file.to_owned(), line: None, path: None, value: None, problem }
    }

    /// The line in the file, counted from 1; none when the file as a whole is meant.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// What is wrong, without the place.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The key or block, such as `listeners[0].http.body_timeout_ms`.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(path) = &self.path {
            f.write_str(path)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// All that is wrong, in the order of the file. Never empty; displays as one line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errors {
    shown: Vec<ConfigError>,
    omitted: usize,
}

impl Errors {
    /// How many are shown at most: a wrong file can be wrong in every line.
    pub const MOST: usize = 20;

    pub(crate) fn new(mut all: Vec<ConfigError>) -> Self {
        // Files in the order in which they were first in the wrong, which is that of the configuration as far as the walk goes.
        let mut files: Vec<String> = Vec::new();
        for error in &all {
            if !files.contains(&error.file) {
                files.push(error.file.clone());
            }
        }
        all.sort_by_key(|error| (files.iter().position(|file| *file == error.file), error.line));
        let omitted = all.len().saturating_sub(Self::MOST);
        all.truncate(Self::MOST);
        Self { shown: all, omitted }
    }

    /// The error for a text that was generated rather than written by people.
    pub(crate) fn without_lines(mut self) -> Self {
        self.shown.iter_mut().for_each(|error| error.line = None);
        self
    }

    /// The errors one by one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.shown.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        match self.omitted {
            0 => Ok(()),
            omitted => write!(f, "\n(and {omitted} more)"),
        }
    }
}

impl std::error::Error for Errors {}

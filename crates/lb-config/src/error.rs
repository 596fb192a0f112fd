//! What is wrong with a configuration: every message names file, line, key, value and what is allowed.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    file: String,
    line: Option<usize>,
    path: Option<String>,
    value: Option<String>,
    problem: String,
}

impl ConfigError {
    pub(crate) fn whole_file(file: &str, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, path: None, value: None, problem: problem.into() }
    }

    /// The line in the file, counted from 1; none when the file as a whole is meant.
    pub fn line(&self) -> Option<usize> {
        self.line
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
    first: ConfigError,
    others: Vec<ConfigError>,
}

impl Errors {
    /// The errors one by one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl From<ConfigError> for Errors {
    fn from(first: ConfigError) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.others.iter().try_for_each(|error| write!(f, "\n{error}"))
    }
}

impl std::error::Error for Errors {}

//! Where a configuration comes from, and how it is read: by a start, by a reload and by `check` alike.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use glob::MatchOptions;
use lb_config::{Config, ConfigText};

/// A larger file is not a configuration (attack C-01).
pub(crate) const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What a configuration is told under which nothing would be served.
pub(crate) const NO_LISTENERS: &str = "no listeners started — check your configuration";

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read again on SIGHUP together with those that it includes.
    File(PathBuf),
    /// A text that the process made itself.
    Text(String),
}

impl Source {
    /// What messages call it.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Text(_) => PathBuf::from("(built in)"),
        }
    }

    /// The text with that of all included files, as it is now.
    ///
    /// # Errors
    /// When a file cannot be read, or is no configuration for its size.
    pub fn read(&self) -> anyhow::Result<ConfigText> {
        match self {
            Self::File(path) => read(path),
            Self::Text(text) => Ok(ConfigText::new(text.clone(), self.path().display().to_string())),
        }
    }
}

/// The text of a configuration file and of those that it includes.
pub(crate) fn read(path: &Path) -> anyhow::Result<ConfigText> {
    let mut text = ConfigText::new(read_file(path)?, path.display().to_string());
    for file in included(path, &text.includes())? {
        text.push(&read_file(&file)?, file.display().to_string());
        if text.len() as u64 > MAX_CONFIG_BYTES {
            bail!(
                "{}: has more than {MAX_CONFIG_BYTES} bytes with the files up to {}",
                path.display(),
                file.display()
            );
        }
    }
    Ok(text)
}

/// The files that the patterns of the file at `main` lead to, each once: in the order of the patterns, those of one pattern by their names. A
/// pattern may lead to none, a path without wildcards leads to its file whether that is there or not.
fn included(main: &Path, patterns: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    // As in a shell, a file whose name begins with a dot is meant only where the dot is written: editors make such files.
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let directory = main.parent().unwrap_or(Path::new(""));
    for pattern in patterns {
        let name = main.display();
        if !pattern.contains(['*', '?', '[']) {
            files.push(directory.join(pattern));
            continue;
        }
        // What stands for itself in the directory must not pass for a wildcard.
        let pattern = match Path::new(pattern).is_absolute() || directory.as_os_str().is_empty() {
            true => pattern.clone(),
            false => format!("{}/{pattern}", glob::Pattern::escape(&directory.to_string_lossy())),
        };
        let found = glob::glob_with(&pattern, options)
            .with_context(|| format!("{name}: include: {pattern:?} is no pattern of paths"))?;
        for file in found {
            let file = file.with_context(|| format!("{name}: include: a directory cannot be read"))?;
            if file.is_file() && file != main {
                files.push(file);
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let context = || format!("{name}: cannot be read");
    let size = std::fs::metadata(path).with_context(context)?.len();
    if size > MAX_CONFIG_BYTES {
        bail!("{name}: has {size} bytes; a configuration has at most {MAX_CONFIG_BYTES}");
    }
    // A pipe or a device has any number of bytes.
    let file = std::fs::File::open(path).with_context(context)?;
    lb_io::read_text(file, MAX_CONFIG_BYTES).with_context(context)
}

/// A configuration that this build can run.
///
/// # Errors
/// Names every mistake, one line each.
pub fn load(text: &ConfigText) -> anyhow::Result<Config> {
    load_in(text, &environment)
}

/// As [`load`], with values of variables by `environment`.
pub(crate) fn load_in(
    text: &ConfigText,
    environment: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Config> {
    let config = Config::parse_files(text, environment).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let missing = config.not_built_yet();
    if !missing.is_empty() {
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    Ok(config)
}

/// The environment of the process. What is not UTF-8 counts as absent.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

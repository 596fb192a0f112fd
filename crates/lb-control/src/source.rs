//! Where a configuration comes from, and how it is read: by a start, by a reload and by `check` alike.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use lb_config::Config;

/// A larger file is not a configuration (attack C-01).
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What a configuration is told under which nothing would be served.
pub(crate) const NO_LISTENERS: &str = "no listeners started — check your configuration";

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read again on SIGHUP.
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

    /// The text, as it is now.
    ///
    /// # Errors
    /// When the file cannot be read, or is no configuration for its size.
    pub fn read(&self) -> anyhow::Result<String> {
        match self {
            Self::File(path) => read(path),
            Self::Text(text) => Ok(text.clone()),
        }
    }
}

/// The text of a configuration file.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
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

/// A configuration that this build can run. `path` is what messages call it.
///
/// # Errors
/// Names every mistake, one line each.
pub fn load(text: &str, path: &Path) -> anyhow::Result<Config> {
    let config = Config::parse_in(text, &path.display().to_string(), &environment)
        .map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let missing = config.not_built_yet();
    if !missing.is_empty() {
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    Ok(config)
}

/// The environment of the process. What is not UTF-8 counts as absent.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

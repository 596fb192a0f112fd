//! A configuration looked at without running it: whether a start would succeed, and what it meets on this machine.

mod surroundings;
mod user;

use std::path::Path;

use anyhow::anyhow;
use lb_config::Config;
use tokio::runtime::{Builder, LocalOptions};

use crate::faults::Collected;
use crate::file_keys::FileKeys;
use crate::source::{NO_LISTENERS, load, read};
use crate::tls::{BackendsTls, Tls};
use crate::xdp::faults_of_machine;
use crate::{discovery, names};

/// What was found in a configuration that a start would take.
#[derive(Debug, Default)]
pub struct Findings {
    /// Listeners that a start would bind.
    pub listeners: usize,
    /// What is probably not meant, one line each.
    pub warnings: Vec<String>,
    /// What is good to know, one line each.
    pub notes: Vec<String>,
}

/// Looks at the file at `path` as a start would, and at the files that it names. `user` is who is said to run the gateway. With `resolve`,
/// name servers are asked for every name.
///
/// # Errors
/// Names what a start would fail for, one line each.
pub fn inspect(path: &Path, user: Option<&str>, resolve: bool) -> anyhow::Result<Findings> {
    let config = load(&read(path)?)?;
    let mut faults = Collected::default();
    faults.keep(Tls::load(&config));
    faults.keep(BackendsTls::load(&config, &BackendsTls::default()));
    faults.keep(FileKeys::look(&config));
    faults.extend(faults_of_machine(&config));
    let listeners = config.listeners.iter().filter(|listener| listener.starts()).count();
    if !config.serves() {
        faults.note(&anyhow!("{}: {NO_LISTENERS}", path.display()));
    }
    let sources: Vec<_> =
        discovery::unusable_files(&config).iter().map(|source| format!("{source}")).collect();
    let mut found = surroundings::look(&config, path, user, &mut faults);
    if resolve {
        found.warnings.extend(faults.keep(ask_for_names(&config)).unwrap_or_default());
    }
    if !faults.is_empty() {
        return Err(faults.into_error());
    }
    let warnings = config.warnings.iter().chain(&found.warnings).chain(&sources).cloned().collect();
    Ok(Findings { listeners, warnings, notes: found.notes })
}

/// Asks for every name, and says which leads nowhere.
fn ask_for_names(config: &Config) -> anyhow::Result<Vec<String>> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(names::trial(config))
}

//! Reading a configuration the way both `check` and a start do.

mod surroundings;
mod user;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use lb_config::Config;
use tokio::runtime::{Builder, LocalOptions};

use crate::cli::CheckArgs;
use crate::gateway::Outcome;
use crate::sticky::StickyKeys;
use crate::tls::{BackendsTls, Tls};
use crate::{discovery, names};

/// A larger file is not a configuration (attack C-01).
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What a configuration is told under which nothing would be served.
pub(crate) const NO_LISTENERS: &str = "no listeners started — check your configuration";

/// `expressgateway check`.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<Outcome> {
    let path = args.path();
    let config = load(&read(path)?, path)?;
    Tls::load(&config)?;
    BackendsTls::load(&config, &BackendsTls::default())?;
    StickyKeys::load(&config, &StickyKeys::default())?;
    let listeners = config.listeners.iter().filter(|listener| listener.starts()).count();
    if listeners == 0 {
        bail!("{}: {NO_LISTENERS}", path.display());
    }
    let sources: Vec<_> =
        discovery::unusable_files(&config).iter().map(|source| format!("{source}")).collect();
    let mut found = surroundings::look(&config, path, args.user.as_deref())?;
    if args.resolve {
        found.warnings.extend(resolve(&config)?);
    }
    if !found.errors.is_empty() {
        bail!("{}", found.errors.join("\n"));
    }
    let mut out = std::io::stdout().lock();
    for warning in config.warnings.iter().chain(&found.warnings).chain(&sources) {
        writeln!(out, "warning: {warning}")?;
    }
    for note in &found.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out, "{}: ok, {listeners} listener(s)", path.display())?;
    Ok(Outcome::Clean)
}

/// Asks for every name, and says which leads nowhere.
fn resolve(config: &Config) -> anyhow::Result<Vec<String>> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(names::trial(config))
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

/// A configuration that this build can run.
pub(crate) fn load(text: &str, path: &Path) -> anyhow::Result<Config> {
    let config =
        Config::parse(text, &path.display().to_string()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let missing = config.not_built_yet();
    if !missing.is_empty() {
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    }
    Ok(config)
}

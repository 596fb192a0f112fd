//! `expressgateway import`: writes the configuration of another proxy as one of ours.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use lb_control::ProcessOutcome;
use lb_desk::import::{Dialect, Fate, Files, MAX_IMPORT_BYTES, import};

use crate::cli::{ImportArgs, ImportedFrom};

/// Files that one pattern may lead to.
const MOST_FILES: usize = 1000;

/// Writes the configuration to standard output, and what became of directives to standard error.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<ProcessOutcome> {
    let name = args.file.display().to_string();
    let dialect = match args.from {
        Some(ImportedFrom::Nginx) => Dialect::Nginx,
        Some(ImportedFrom::Haproxy) => Dialect::Haproxy,
        Some(ImportedFrom::Traefik) => Dialect::Traefik,
        None => Dialect::of_name(&name)
            .context("the name does not tell whose configuration it is: --from does")?,
    };
    let text = read(&args.file).map_err(|problem| anyhow::anyhow!("{name}: {problem}"))?;
    let directory = args.file.parent().unwrap_or(Path::new("")).to_owned();
    let imported = import(dialect, &name, &text, &Included { directory }).map_err(anyhow::Error::msg)?;
    let mut err = std::io::stderr().lock();
    let (mut carried, mut lost) = (0_usize, 0_usize);
    for note in &imported.notes {
        match note.fate {
            Fate::Carried => carried = carried.saturating_add(1),
            Fate::Adapted(_) => carried = carried.saturating_add(1),
            Fate::Lost(_) => lost = lost.saturating_add(1),
            Fate::Needless(_) => {}
        }
        if args.verbose || matches!(note.fate, Fate::Adapted(_) | Fate::Lost(_)) {
            writeln!(err, "{note}")?;
        }
    }
    writeln!(err, "{} directives: {carried} carried, {lost} not carried", imported.notes.len())?;
    let Some(toml) = imported.toml else {
        bail!("{name}: nothing is carried that could be served");
    };
    std::io::stdout().lock().write_all(toml.as_bytes())?;
    Ok(ProcessOutcome::Clean)
}

/// Files beside the one that is imported.
struct Included {
    directory: PathBuf,
}

impl Files for Included {
    fn read(&self, pattern: &str, _from: &str) -> Result<Vec<(String, String)>, String> {
        let whole = self.directory.join(pattern);
        let text = whole.to_str().ok_or("its path is not UTF-8")?;
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![(text.to_owned(), read(&whole)?)]);
        }
        let found = glob::glob(text).map_err(|error| error.to_string())?;
        let paths = found.filter_map(Result::ok).filter(|path| path.is_file()).take(MOST_FILES);
        paths.map(|path| Ok((path.display().to_string(), read(&path)?))).collect()
    }
}

fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
    if !file.metadata().is_ok_and(|about| about.is_file()) {
        return Err("it is not a file".to_owned());
    }
    lb_io::read_text(file, MAX_IMPORT_BYTES as u64).map_err(|error| format!("it cannot be read: {error}"))
}

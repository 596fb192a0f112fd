//! Configurations of other proxies as ours: nginx's, HAProxy's and Traefik's.
//!
//! Each directive of the input has a fate that is told: it is carried, carried with a difference, not needed, or lost, with what to do instead. A
//! directive that no part of the import has settled is lost; what would be wrong in the output is taken out of it and lost as well. So the output is
//! always a configuration that is right, and nothing disappears without a word.

mod address;
mod haproxy;
mod ledger;
mod names;
mod nginx;
mod output;
mod traefik;

pub use ledger::{DirectiveId, Fate, ImportNote};

use ledger::Ledger;

/// Bytes that a file and those that it includes may have.
pub const MAX_IMPORT_BYTES: usize = 8 << 20;

/// Files that are included.
pub trait Files {
    /// The files that a pattern leads to, each with its name and its text. `from` is the file that includes them.
    ///
    /// # Errors
    /// Why they cannot be had, in plain words.
    fn read(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String>;
}

/// Whose configuration is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// nginx's.
    Nginx,
    /// HAProxy's.
    Haproxy,
    /// Traefik's, in YAML.
    Traefik,
}

impl Dialect {
    /// By the name of a file, where that tells.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        match name.rsplit('.').next().unwrap_or_default() {
            "conf" => Some(Self::Nginx),
            "cfg" => Some(Self::Haproxy),
            "yml" | "yaml" => Some(Self::Traefik),
            _ if name.contains("haproxy") => Some(Self::Haproxy),
            _ => name.contains("nginx").then_some(Self::Nginx),
        }
    }
}

/// What an import has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// The configuration; `None` where nothing is carried that could be served.
    pub toml: Option<String>,
    /// Every directive of the input, in its order.
    pub notes: Vec<ImportNote>,
}

/// Reads a configuration of another proxy.
///
/// # Errors
/// When the text is not one of its kind: file, line and what is wrong.
pub fn import(dialect: Dialect, name: &str, text: &str, files: &dyn Files) -> Result<Imported, String> {
    if text.len() > MAX_IMPORT_BYTES {
        return Err(format!("{name}: has more than {MAX_IMPORT_BYTES} bytes"));
    }
    let mut ledger = Ledger::default();
    let root = match dialect {
        Dialect::Nginx => nginx::read(name, text, files, &mut ledger)?,
        Dialect::Haproxy => haproxy::read(name, text, &mut ledger)?,
        Dialect::Traefik => traefik::read(name, text, files, &mut ledger)?,
    };
    let toml = output::settle(root, &mut ledger);
    Ok(Imported { toml, notes: ledger.notes() })
}

#[cfg(test)]
mod tests;

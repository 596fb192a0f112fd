//! The keys of sticky cookies.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context;
use lb_config::{BackendPool, Config};
use lb_security::{KeyAccess, StickyKey};

use crate::faults;

/// The keys of all pools that have such cookies. One that is read from no file is the same as long as the process lives.
#[derive(Clone, Debug, Default)]
pub struct StickyKeys {
    own: Option<StickyKey>,
    files: HashMap<PathBuf, StickyKey>,
}

impl StickyKeys {
    /// Reads what the configuration names; makes a key where it names none and `known` has none.
    pub(crate) fn load(config: &Config, known: &Self) -> anyhow::Result<Self> {
        let (keys, failures) = known.renew(config);
        failures.into_iter().next().map_or(Ok(keys), |(_, first)| Err(faults::instead_of(first, config)))
    }

    /// Reads every file again. One that cannot be used leaves in force what was read from it before, and is
    /// returned with the reason.
    pub(crate) fn renew(&self, config: &Config) -> (Self, Vec<(Option<PathBuf>, anyhow::Error)>) {
        let mut keys = Self { own: self.own.clone(), files: HashMap::new() };
        let mut failures = Vec::new();
        for pool in config.pools_in_use() {
            let Some(sticky) = &pool.sticky else { continue };
            let context = || format!("pool {}: sticky cookies", pool.id);
            let result = match &sticky.key_path {
                Some(path) if keys.files.contains_key(path) => Ok(()),
                Some(path) => {
                    let key = StickyKey::load(path, KeyAccess::of(config)).with_context(context);
                    let (key, result) = match key {
                        Ok(key) => (Some(key), Ok(())),
                        Err(error) => (self.files.get(path).cloned(), Err(error)),
                    };
                    keys.files.extend(key.map(|key| (path.clone(), key)));
                    result
                }
                None if keys.own.is_some() => Ok(()),
                None => StickyKey::generate().with_context(context).map(|key| keys.own = Some(key)),
            };
            failures.extend(result.err().map(|error| (sticky.key_path.clone(), error)));
        }
        (keys, failures)
    }

    /// Whether some are read from files.
    pub(crate) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// The key of a pool.
    pub fn of(&self, pool: &BackendPool) -> Option<&StickyKey> {
        match &pool.sticky.as_ref()?.key_path {
            Some(path) => self.files.get(path),
            None => self.own.as_ref(),
        }
    }
}

//! The keys of sticky cookies.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context;
use lb_config::{BackendPool, Config};
use lb_security::StickyKey;

/// The keys of all pools that have such cookies. One that is read from no file is the same as long as the process lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct StickyKeys {
    own: Option<StickyKey>,
    files: HashMap<PathBuf, StickyKey>,
}

impl StickyKeys {
    /// Reads what the configuration names; makes a key where it names none and `known` has none.
    pub(crate) fn load(config: &Config, known: &Self) -> anyhow::Result<Self> {
        let mut keys = Self { own: known.own.clone(), files: HashMap::new() };
        for pool in config.pools_in_use() {
            let Some(sticky) = &pool.sticky else { continue };
            let context = || format!("pool {}: sticky cookies", pool.id);
            match &sticky.key_path {
                Some(path) if keys.files.contains_key(path) => {}
                Some(path) => {
                    let key = StickyKey::load(path).with_context(context)?;
                    keys.files.insert(path.clone(), key);
                }
                None if keys.own.is_some() => {}
                None => keys.own = Some(StickyKey::generate().with_context(context)?),
            }
        }
        Ok(keys)
    }

    /// Whether some are read from files.
    pub(crate) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// The key of a pool.
    pub(crate) fn of(&self, pool: &BackendPool) -> Option<&StickyKey> {
        match &pool.sticky.as_ref()?.key_path {
            Some(path) => self.files.get(path),
            None => self.own.as_ref(),
        }
    }
}

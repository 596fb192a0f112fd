//! The difference between the running configuration and a new one: what applies at once, and what needs a restart.

use crate::config::Config;

/// What a reload would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Changes that apply while running.
    pub live: Vec<Change>,
    /// Changes that need a restart; they are reported by every reload until then.
    pub restart: Vec<Change>,
}

/// One changed setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where and what, for people: `listener 0.0.0.0:80 backends: 2 -> 3`.
    pub scope: String,
    /// A metric label out of a fixed set.
    pub field: &'static str,
}

impl Plan {
    /// Compares two configurations; listeners are the same when address (as written) and transport are.
    pub fn between(running: &Config, new: &Config) -> Self {
        let _ = (running, new);
        Self::default()
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }

    /// The configuration to run after the reload: what is live comes from `new`, all else stays as it runs, so that
    /// the next reload reports the same restart-required drift again.
    pub fn apply(running: &Config, new: Config) -> Config {
        let _ = running;
        new
    }
}

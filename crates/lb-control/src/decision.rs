//! What a reload puts in force: decided from configurations alone, for a reload and for who asks what one would do.

use std::collections::HashSet;

use anyhow::bail;
use lb_config::{
    BackendChange, Config, Listener, ListenerId, Plan, RouteChange, backend_changes, route_changes,
};

use crate::overlay::Overlay;
use crate::source::NO_LISTENERS;

/// What is in force after a reload with a new file.
#[derive(Debug)]
pub(crate) struct Decision {
    /// What differs in the files.
    pub(crate) plan: Plan,
    /// The configuration, without what lies over it.
    pub(crate) next: Config,
    /// What lies over it.
    pub(crate) overlay: Overlay,
    /// Both together. A listener may have no backends but those that lie over the file.
    pub(crate) merged: Config,
}

impl Decision {
    /// `running` and `overlay` are in force, and `new` is what the file says now.
    ///
    /// # Errors
    /// When nothing would be served.
    pub(crate) fn of(running: &Config, overlay: &Overlay, new: Config) -> anyhow::Result<Self> {
        let next = Plan::apply(running, new.clone());
        if !next.serves() {
            bail!("{NO_LISTENERS}");
        }
        let before = started(&overlay.over(running));
        let mut overlay = overlay.clone();
        overlay.reloaded(&next);
        let merged = overlay.over(&next);
        let after = started(&merged);
        // A listener whose backends have all come by the admin port runs as well.
        let ran = |listener: &Listener| before.contains(&listener.id());
        let runs = |listener: &Listener| after.contains(&listener.id());
        let plan = Plan::between_started(running, &new, (&ran, &runs));
        Ok(Self { plan, next, overlay, merged })
    }

    /// Which backends and routes come, go and change. `merged` is in force.
    pub(crate) fn elements(&self, merged: &Config) -> (Vec<BackendChange>, Vec<RouteChange>) {
        (backend_changes(merged, &self.merged), route_changes(merged, &self.merged))
    }
}

fn started(merged: &Config) -> HashSet<ListenerId> {
    merged.listeners.iter().filter(|listener| listener.starts()).map(Listener::id).collect()
}

#[cfg(test)]
mod tests;

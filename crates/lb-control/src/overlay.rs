//! What lies over the configuration's backends while the process runs: those that were discovered, and what the admin port was told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lb_config::{Backend, BackendPool, Config, Listener, PoolId, SocketName};

use crate::route_weights::RouteWeights;

/// Backends that a pool may be given through the admin port; what is written down nowhere stays small.
pub(crate) const MAX_ADDED: usize = 256;

/// Where a backend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The configuration.
    File,
    /// A source that the configuration names.
    Discovery {
        /// Whether its name may lead to this machine itself.
        allow_loopback: bool,
    },
    /// The admin port.
    Api,
}

impl Origin {
    /// What operators see.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Discovery { .. } => "discovery",
            Self::Api => "api",
        }
    }
}

/// What a source of backends said last.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Discovered {
    pub(crate) backends: Vec<Backend>,
    pub(crate) allow_loopback: bool,
}

/// What lies over the backends of all pools, and over the weights of routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay(HashMap<PoolId, Layer>, RouteWeights);

#[derive(Clone, Debug, Default)]
struct Layer {
    discovered: Discovered,
    /// In force whatever file and source say.
    added: Vec<Backend>,
    /// Not used although file or source names them.
    removed: Vec<SocketName>,
}

impl Overlay {
    /// The configuration with all backends that are to be used: those of the file first, then what was discovered, then what was added.
    pub(crate) fn over(&self, file: &Config) -> Config {
        let mut config = file.clone();
        let mut merged: HashMap<PoolId, Arc<BackendPool>> = HashMap::new();
        let of_listeners = config.listeners.iter_mut().flat_map(Listener::pools_mut);
        for pool in of_listeners.chain(config.xdp.services.iter_mut().map(|service| &mut service.pool)) {
            let Some(layer) = self.0.get(&pool.id) else { continue };
            let over = merged.entry(pool.id.clone()).or_insert_with(|| Arc::new(layer.over(pool)));
            *pool = Arc::clone(over);
        }
        for listener in &mut config.listeners {
            if let Some(routing) = &listener.routing
                && let Some(other) = self.1.over(routing)
            {
                listener.routing = Some(Arc::new(other));
            }
        }
        config
    }

    /// The weights of routes.
    pub(crate) fn route_weights_mut(&mut self) -> &mut RouteWeights {
        &mut self.1
    }

    /// Where the backends in use come from. To be made once for many of them: a pool may have tens of thousands.
    pub(crate) fn origins<'a>(&'a self, file: &'a Config) -> Origins<'a> {
        let pools = self.0.iter().filter_map(|(id, layer)| {
            let pool = file.pool(id)?;
            let of_pool = OfPool {
                added: addresses(&layer.added),
                named: addresses(&pool.backends),
                allow_loopback: layer.discovered.allow_loopback,
            };
            Some((id, of_pool))
        });
        Origins(pools.collect())
    }

    /// Takes in what a source says now. Whether that is something new.
    pub(crate) fn discovered(&mut self, pool: &PoolId, found: Discovered) -> bool {
        let layer = self.0.entry(pool.clone()).or_default();
        let is_new = layer.discovered != found;
        layer.discovered = found;
        is_new
    }

    /// Adds a backend to a pool, which is as the file has it.
    ///
    /// # Errors
    /// Why not, in plain words.
    pub(crate) fn add(&mut self, pool: &BackendPool, backend: Backend) -> Result<(), String> {
        let layer = self.0.entry(pool.id.clone()).or_default();
        if names(&layer.over(pool).backends, &backend.address) {
            return Err(format!("{} is a backend of the pool already", backend.name));
        }
        if layer.added.len() >= MAX_ADDED {
            return Err(format!("{MAX_ADDED} backends were added already: write them into the file"));
        }
        layer.added.push(backend);
        Ok(())
    }

    /// Takes a backend away, wherever it comes from. `pool` is as the file has it.
    pub(crate) fn remove(&mut self, pool: &BackendPool, address: &SocketName) {
        let layer = self.0.entry(pool.id.clone()).or_default();
        layer.added.retain(|backend| backend.address != *address);
        let is_named = names(&pool.backends, address) || names(&layer.discovered.backends, address);
        if is_named && !layer.removed.contains(address) {
            // What no source named at the time cannot come back, so that this is no longer than they are.
            layer.removed.retain(|old| names(&pool.backends, old) || names(&layer.discovered.backends, old));
            layer.removed.push(address.clone());
        }
    }

    /// After a reload: pools and sources that are gone are forgotten, and the file wins for the backends that it names. What was removed
    /// comes back with them, and what was added is theirs.
    pub(crate) fn reloaded(&mut self, file: &Config) {
        self.0.retain(|id, layer| {
            let Some(pool) = file.pool(id) else { return false };
            layer.removed.retain(|address| !names(&pool.backends, address));
            layer.added.retain(|backend| !names(&pool.backends, &backend.address));
            if pool.discovery.is_none() {
                layer.discovered = Discovered::default();
            }
            true
        });
        self.1.reloaded(file);
    }
}

/// Where the backends in use come from, by pool and address.
#[derive(Debug)]
pub(crate) struct Origins<'a>(HashMap<&'a PoolId, OfPool<'a>>);

#[derive(Debug)]
struct OfPool<'a> {
    added: HashSet<&'a SocketName>,
    /// By the file.
    named: HashSet<&'a SocketName>,
    allow_loopback: bool,
}

impl Origins<'_> {
    /// Where a backend comes from that is in use.
    pub(crate) fn of(&self, pool: &PoolId, address: &SocketName) -> Origin {
        match self.0.get(pool) {
            Some(pool) if pool.added.contains(address) => Origin::Api,
            Some(pool) if !pool.named.contains(address) => {
                Origin::Discovery { allow_loopback: pool.allow_loopback }
            }
            _ => Origin::File,
        }
    }
}

impl Layer {
    fn over(&self, pool: &BackendPool) -> BackendPool {
        let named = addresses(&pool.backends);
        let mut backends: Vec<Backend> = Vec::new();
        // A file may name one address several times, for several shares.
        backends.extend(pool.backends.iter().filter(|backend| self.admits(backend)).cloned());
        for backend in self.discovered.backends.iter().filter(|backend| self.admits(backend)) {
            if !named.contains(&backend.address) {
                backends.push(backend.clone());
            }
        }
        backends.extend(self.added.iter().cloned());
        BackendPool { backends, ..pool.clone() }
    }

    fn admits(&self, backend: &Backend) -> bool {
        !self.removed.contains(&backend.address) && !names(&self.added, &backend.address)
    }
}

fn addresses(backends: &[Backend]) -> HashSet<&SocketName> {
    backends.iter().map(|backend| &backend.address).collect()
}

fn names(backends: &[Backend], address: &SocketName) -> bool {
    backends.iter().any(|backend| backend.address == *address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(backends: &[&str]) -> Config {
        let blocks: String = backends
            .iter()
            .map(|address| format!("[[pools.p.backends]]\naddress = \"{address}\"\n"))
            .collect();
        let listener = "[[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"h1\"\npool = \"p\"\n";
        let discovery = "[pools.p.discovery]\nfile = \"x\"\n";
        Config::parse(&format!("{listener}{blocks}{discovery}"), "lb.toml").unwrap()
    }

    fn backend(address: &str, weight: u32) -> Backend {
        let text = format!("[[backends]]\naddress = \"{address}\"\nweight = {weight}\n");
        lb_config::parse_backends(&text, "list", lb_config::ListFormat::Toml).unwrap().remove(0)
    }

    fn names_of(overlay: &Overlay, file: &Config) -> Vec<(String, u32)> {
        let pool = &overlay.over(file).listeners[0].pool;
        pool.backends.iter().map(|backend| (backend.name.clone(), backend.weight)).collect()
    }

    fn expect(list: &[(&str, u32)]) -> Vec<(String, u32)> {
        list.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    const A: &str = "10.0.0.1:80";
    const B: &str = "10.0.0.2:80";
    const C: &str = "10.0.0.3:80";

    #[test]
    fn the_file_wins_and_the_admin_port_comes_last() {
        let file = config(&[A]);
        let pool = &file.listeners[0].pool;
        let mut overlay = Overlay::default();
        assert_eq!(overlay.over(&file), file);
        let found = Discovered { backends: vec![backend(A, 5), backend(B, 6)], allow_loopback: true };
        assert!(overlay.discovered(&pool.id, found.clone()));
        assert!(!overlay.discovered(&pool.id, found));
        assert_eq!(names_of(&overlay, &file), expect(&[(A, 1), (B, 6)]));
        assert!(overlay.add(pool, backend(B, 7)).is_err());
        overlay.add(pool, backend(C, 8)).unwrap();
        assert_eq!(names_of(&overlay, &file), expect(&[(A, 1), (B, 6), (C, 8)]));
        let origins =
            [A, B, C].map(|address| overlay.origins(&file).of(&pool.id, &backend(address, 1).address));
        assert_eq!(origins, [Origin::File, Origin::Discovery { allow_loopback: true }, Origin::Api]);
    }

    #[test]
    fn a_reload_brings_back_what_the_file_names_and_keeps_the_rest() {
        let file = config(&[A]);
        let pool = &file.listeners[0].pool;
        let mut overlay = Overlay::default();
        overlay.add(pool, backend(B, 2)).unwrap();
        overlay.remove(pool, &backend(A, 1).address);
        assert_eq!(names_of(&overlay, &file), expect(&[(B, 2)]));
        overlay.add(pool, backend(A, 9)).unwrap();
        assert_eq!(names_of(&overlay, &file), expect(&[(B, 2), (A, 9)]), "added with a share of its own");
        overlay.reloaded(&file);
        assert_eq!(names_of(&overlay, &file), expect(&[(A, 1), (B, 2)]));
        let new = config(&[A, B]);
        overlay.reloaded(&new);
        assert_eq!(names_of(&overlay, &new), expect(&[(A, 1), (B, 1)]));
        let id = &new.listeners[0].pool.id;
        assert_eq!(overlay.origins(&new).of(id, &backend(B, 1).address), Origin::File);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let file = config(&[A]);
        let pool = &file.listeners[0].pool;
        let mut overlay = Overlay::default();
        for port in 1..=MAX_ADDED {
            overlay.add(pool, backend(&format!("10.0.0.9:{port}"), 1)).unwrap();
        }
        assert!(overlay.add(pool, backend(B, 1)).unwrap_err().contains("256"));
        for port in 1..=MAX_ADDED {
            overlay.remove(pool, &backend(&format!("10.0.0.9:{port}"), 1).address);
        }
        overlay.remove(pool, &backend(B, 1).address);
        assert!(overlay.0[&pool.id].removed.is_empty(), "nobody names them any more");
    }
}

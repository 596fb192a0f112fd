//! Sources of backends: each is looked at by a task of its own, which tells the control thread what it found.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use lb_config::{
    Backend, BackendProtocol, Config, Discovery, DiscoverySource, HostPort, ListFormat, PoolId, Protocol,
    parse_backends,
};
use lb_io::resolver::{Resolver, ServiceRecord};
use lb_observe::metrics::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::overlay::{Discovered, Overlay};
use crate::together::together;

/// A longer file is not a list of backends (attack C-03).
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Backends that one source may name; a hostile one cannot make a pool grow without bound (attack C-03).
const MAX_BACKENDS: usize = 1024;

/// A file that was changed more recently than this may change again without a new time of change.
const SETTLED: Duration = Duration::from_secs(2);

/// Levels of a pool.
const MAX_PRIORITY: usize = 127;

/// What a source said.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) pool: PoolId,
    pub(crate) what: Discovered,
}

/// The tasks that look at the sources of a configuration.
#[derive(Debug)]
pub(crate) struct Sources {
    running: Vec<(Source, JoinHandle<()>)>,
    found: mpsc::Sender<Found>,
}

impl Sources {
    /// None yet, and where they will tell what they find.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Found>) {
        let (found, receiver) = mpsc::channel(64);
        (Self { running: Vec::new(), found }, receiver)
    }

    /// Looks at exactly the sources of `config` from now on. One that is new is looked at at once, unless it is among `looked`.
    pub(crate) fn follow(
        &mut self,
        config: &Config,
        resolver: &Rc<Resolver>,
        metrics: &Arc<Metrics>,
        mut looked: Vec<Look>,
    ) {
        let wanted = sources(config);
        self.running.retain(|(source, task)| {
            let stays = wanted.contains(source);
            if !stays {
                task.abort();
            }
            stays
        });
        for source in wanted {
            if self.running.iter().any(|(running, _)| *running == source) {
                continue;
            }
            let known = looked.iter().position(|look| look.source == source);
            let look = known.map_or_else(|| Look::new(source.clone()), |at| looked.swap_remove(at));
            let watch = watch(look, Rc::clone(resolver), Arc::clone(metrics), self.found.clone());
            self.running.push((source, tokio::task::spawn_local(watch)));
        }
    }
}

/// Looks at a source as long as somebody wants to hear of it.
async fn watch(mut look: Look, resolver: Rc<Resolver>, metrics: Arc<Metrics>, found: mpsc::Sender<Found>) {
    loop {
        sleep_until(look.due).await;
        let Some(what) = look.look(&resolver, &metrics).await else { continue };
        if found.send(Found { pool: look.source.pool.clone(), what }).await.is_err() {
            return;
        }
    }
}

/// Where backends of a pool come from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    pool: PoolId,
    discovery: Discovery,
    /// What clients speak in front of them.
    protocols: Vec<Protocol>,
}

/// The sources of all pools that are in use, each once.
fn sources(config: &Config) -> Vec<Source> {
    let sources = config.pools_in_use().into_iter().filter_map(|pool| {
        let users = config.listeners.iter().filter(|listener| listener.pool.id == pool.id);
        let protocols = users.map(|listener| listener.protocol).collect();
        Some(Source { pool: pool.id.clone(), discovery: pool.discovery.clone()?, protocols })
    });
    sources.collect()
}

/// The first look at every source. One that fails leaves its pool with what else it has.
pub(crate) async fn first(config: &Config, resolver: &Resolver, metrics: &Metrics) -> (Overlay, Vec<Look>) {
    let looks = sources(config).into_iter().map(|source| async {
        let mut look = Look::new(source);
        let found = look.look(resolver, metrics).await;
        (look, found)
    });
    let mut overlay = Overlay::default();
    let mut looked = Vec::new();
    for (look, found) in together(looks).await {
        if let Some(found) = found {
            overlay.discovered(&look.source.pool, found);
        }
        looked.push(look);
    }
    (overlay, looked)
}

/// One source, and when it was looked at.
#[derive(Debug)]
pub(crate) struct Look {
    source: Source,
    due: Instant,
    /// The file as it was read last.
    seen: Option<Stamp>,
    /// Whether the last look failed: a failure that lasts is told once.
    failed: Option<String>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    changed: SystemTime,
    size: u64,
    inode: u64,
}

impl Look {
    fn new(source: Source) -> Self {
        Self { source, due: Instant::now(), seen: None, failed: None }
    }

    /// Looks at the source. `None` when it says nothing new that can be used: what it said last is kept then (attack C-03).
    async fn look(&mut self, resolver: &Resolver, metrics: &Metrics) -> Option<Discovered> {
        let began = Instant::now();
        let least = self.source.discovery.refresh;
        self.due = began + least;
        let result = match self.source.discovery.source.clone() {
            DiscoverySource::File(path) => self.read(&path),
            DiscoverySource::Srv { name, protocol, allow_loopback } => {
                let answer = resolver.services(&name).await;
                let wait = answer.as_ref().map_or(resolver.negative_ttl(), |services| services.ttl);
                self.due = Instant::now() + wait.max(least);
                answer.map_err(anyhow::Error::from).map(|services| {
                    Some(Discovered { backends: backends(&services.records, protocol), allow_loopback })
                })
            }
        };
        let pool = self.source.pool.name().to_owned();
        match result {
            Ok(found) => {
                if self.failed.take().is_some() {
                    tracing::info!(pool, "source of backends is usable again");
                }
                found
            }
            Err(error) => {
                metrics.discovery_failures.inc(&pool);
                let reason = format!("{error:#}");
                if self.failed.as_ref() != Some(&reason) {
                    tracing::warn!(pool, reason, "source of backends cannot be used — keeping its last ones");
                    self.failed = Some(reason);
                }
                None
            }
        }
    }

    /// What the file says; `None` when it is the one that was read last.
    fn read(&mut self, path: &Path) -> anyhow::Result<Option<Discovered>> {
        use std::io::Read;
        use std::os::unix::fs::MetadataExt;
        let name = path.display().to_string();
        let context = || format!("{name}: cannot be read");
        let metadata = std::fs::metadata(path).with_context(context)?;
        if !metadata.is_file() {
            // To open a pipe would wait for whoever writes into it.
            bail!("{name}: is no file");
        }
        let changed = metadata.modified().with_context(context)?;
        let stamp = Stamp { changed, size: metadata.len(), inode: metadata.ino() };
        if self.seen == Some(stamp) && self.failed.is_none() {
            return Ok(None);
        }
        if metadata.len() > MAX_FILE_BYTES {
            bail!("{name}: has {} bytes; a list of backends has at most {MAX_FILE_BYTES}", metadata.len());
        }
        let mut text = String::new();
        let file = std::fs::File::open(path).with_context(context)?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).with_context(context)?;
        if text.trim().is_empty() {
            bail!("{name}: is empty; a list without backends says `backends = []`");
        }
        let backends = parse_backends(&text, &name, ListFormat::of(path))?;
        check(&backends, &self.source.protocols).map_err(|problem| anyhow::anyhow!("{name}: {problem}"))?;
        let is_settled = changed.elapsed().is_ok_and(|age| age > SETTLED);
        self.seen = is_settled.then_some(stamp);
        Ok(Some(Discovered { backends, allow_loopback: true }))
    }
}

/// The rules for a list as a whole, and for what stands behind these listeners.
pub(crate) fn check(backends: &[Backend], protocols: &[Protocol]) -> Result<(), String> {
    if backends.len() > MAX_BACKENDS {
        return Err(format!("{} backends; there are at most {MAX_BACKENDS}", backends.len()));
    }
    let mut addresses = std::collections::HashSet::new();
    for backend in backends {
        if !addresses.insert(&backend.address) {
            return Err(format!("{} is listed twice", backend.name));
        }
        if backend.protocol == BackendProtocol::H3 && protocols.iter().any(|protocol| protocol.is_http()) {
            return Err(format!("{}: HTTP/3 to backends is not built yet", backend.name));
        }
    }
    Ok(())
}

/// The backends that SRV records name. Priorities become levels from 0 on, in their order.
fn backends(records: &[ServiceRecord], protocol: BackendProtocol) -> Vec<Backend> {
    let mut priorities: Vec<u16> = records.iter().map(|record| record.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let level = |record: &ServiceRecord| {
        let level = priorities.iter().position(|priority| *priority == record.priority).unwrap_or_default();
        u32::try_from(level.min(MAX_PRIORITY)).unwrap_or_default()
    };
    let backend = |record: &ServiceRecord| {
        let address = HostPort { host: record.host.clone(), port: record.port };
        Backend {
            name: address.to_string(),
            address,
            protocol,
            // RFC 2782: 0 is a very small chance, not none.
            weight: u32::from(record.weight).max(1),
            priority: level(record),
            tls: None,
        }
    };
    records.iter().map(backend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srv_records_become_levels_and_shares() {
        let record = |priority, host: &str, weight| ServiceRecord {
            priority,
            host: host.to_owned(),
            port: 80,
            weight,
        };
        let records = [record(10, "a.test", 3), record(10, "b.test", 0), record(500, "c.test", 65_535)];
        let found = backends(&records, BackendProtocol::H2);
        let said: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.priority, one.weight)).collect();
        assert_eq!(said, [("a.test:80", 0, 3), ("b.test:80", 0, 1), ("c.test:80", 1, 65_535)]);
        assert!(found.iter().all(|one| one.protocol == BackendProtocol::H2 && one.tls.is_none()));
    }
}

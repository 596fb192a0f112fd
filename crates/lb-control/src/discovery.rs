//! Sources of backends: each is looked at by a task of its own, which tells the control thread what it found.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use lb_config::{
    Backend, BackendProtocol, Config, ConfigError, Discovery, DiscoverySource, HostPort, ListFormat, PoolId,
    Protocol, SocketName, parse_backends,
};
use lb_io::resolver::{Resolver, ServiceRecord};
use lb_observe::metrics::Metrics;
use lb_security::{ClientTls, KeyAccess};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
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
    /// Whether it is in force, or why not.
    pub(crate) verdict: oneshot::Sender<anyhow::Result<()>>,
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
        let result = match look.look(&resolver).await {
            Ok(Some(what)) => {
                let (verdict, told) = oneshot::channel();
                if found.send(Found { pool: look.source.pool.clone(), what, verdict }).await.is_err() {
                    return;
                }
                // Nobody answers any more when the gateway ends.
                let Ok(result) = told.await else { return };
                result
            }
            other => other.map(drop),
        };
        look.settle(result, &metrics);
    }
}

/// Where backends of a pool come from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    pool: PoolId,
    discovery: Discovery,
    /// What clients speak in front of them.
    protocols: Vec<Protocol>,
    /// Who may have access to the keys that it names.
    access: KeyAccess,
}

/// The sources of all pools that are in use, each once.
fn sources(config: &Config) -> Vec<Source> {
    let sources = config.pools_in_use().into_iter().filter_map(|pool| {
        let protocols = config.listeners_of(&pool.id).map(|listener| listener.protocol).collect();
        Some(Source {
            pool: pool.id.clone(),
            discovery: pool.discovery.clone()?,
            protocols,
            access: KeyAccess::of(config),
        })
    });
    sources.collect()
}

/// The first look at every source. One that fails leaves its pool with what else it has.
pub(crate) async fn first(config: &Config, resolver: &Resolver, metrics: &Metrics) -> (Overlay, Vec<Look>) {
    let looks = sources(config).into_iter().map(|source| async {
        let mut look = Look::new(source);
        let result = look.look(resolver).await;
        (look, result)
    });
    let mut overlay = Overlay::default();
    let mut looked = Vec::new();
    for (mut look, result) in together(looks).await {
        let result = result.map(|found| {
            if let Some(found) = found {
                overlay.discovered(&look.source.pool, found);
            }
        });
        look.settle(result, metrics);
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
    /// Why the last look came to nothing: a failure that lasts is told once.
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

    /// Looks at the source. `None` when it says nothing new. [`Self::settle`] is due with what came of it.
    async fn look(&mut self, resolver: &Resolver) -> anyhow::Result<Option<Discovered>> {
        let began = Instant::now();
        let least = self.source.discovery.refresh;
        self.due = began + least;
        match self.source.discovery.source.clone() {
            DiscoverySource::File(path) => self.read(path).await,
            DiscoverySource::Srv { name, protocol, allow_loopback } => {
                let answer = resolver.services(&name).await;
                let wait = answer.as_ref().map_or(resolver.negative_ttl(), |services| services.ttl);
                self.due = Instant::now() + wait.max(least);
                Ok(Some(Discovered { backends: backends(&answer?.records, protocol), allow_loopback }))
            }
        }
    }

    /// Takes in whether what the source said could be read and is in force. What could not is looked at again however it looks, and what
    /// the source said before is kept (attack C-03).
    fn settle(&mut self, result: anyhow::Result<()>, metrics: &Metrics) {
        let pool = self.source.pool.name();
        let Err(error) = result else {
            if self.failed.take().is_some() {
                tracing::info!(pool, "source of backends is usable again");
            }
            return;
        };
        metrics.discovery_failures.inc(pool);
        let reason = format!("{error:#}");
        if self.failed.as_ref() != Some(&reason) {
            tracing::warn!(pool, reason, "source of backends cannot be used — keeping its last ones");
            self.failed = Some(reason);
        }
    }

    /// What the file says; `None` when it is the one that was read last. It is read on a thread that has nothing else to do: a slow
    /// file system, and the files of TLS that a list may name, must not keep signals and other sources waiting.
    async fn read(&mut self, path: PathBuf) -> anyhow::Result<Option<Discovered>> {
        let seen = self.seen.filter(|_| self.failed.is_none());
        let (protocols, access) = (self.source.protocols.clone(), self.source.access);
        let Some((backends, stamp)) = spawn_blocking(move || read(&path, seen, &protocols, access)).await??
        else {
            return Ok(None);
        };
        self.seen = stamp;
        Ok(Some(Discovered { backends, allow_loopback: true }))
    }
}

/// The backends that a file lists, and its stamp if it will tell a change. `None` when it is as it was `seen`.
fn read(
    path: &Path,
    seen: Option<Stamp>,
    protocols: &[Protocol],
    access: KeyAccess,
) -> anyhow::Result<Option<(Vec<Backend>, Option<Stamp>)>> {
    let name = path.display().to_string();
    let context = || format!("{name}: cannot be read");
    let file = lb_io::open_regular(path).with_context(context)?;
    let metadata = file.metadata().with_context(context)?;
    let changed = metadata.modified().with_context(context)?;
    let stamp = Stamp { changed, size: metadata.len(), inode: metadata.ino() };
    if seen == Some(stamp) {
        return Ok(None);
    }
    if metadata.len() > MAX_FILE_BYTES {
        bail!("{name}: has {} bytes; a list of backends has at most {MAX_FILE_BYTES}", metadata.len());
    }
    // It may have grown since.
    let text = lb_io::read_text(file, MAX_FILE_BYTES).with_context(context)?;
    if text.trim().is_empty() {
        bail!("{name}: is empty; a list without backends says `backends = []`");
    }
    let backends = parse_backends(&text, &name, ListFormat::of(path))?;
    check(&backends, protocols).map_err(|problem| anyhow::anyhow!("{name}: {problem}"))?;
    for backend in &backends {
        if let Some(tls) = backend.tls.as_ref().filter(|_| backend.protocol != BackendProtocol::H3) {
            // What cannot be read must not keep the gateway from starting, nor hold up what else is found.
            ClientTls::load(tls, &[], access, SystemTime::now())
                .with_context(|| format!("{name}: backend {}", backend.name))?;
        }
    }
    let is_settled = changed.elapsed().is_ok_and(|age| age > SETTLED);
    Ok(Some((backends, is_settled.then_some(stamp))))
}

/// The files of backends that cannot be used as they are now, each with what is wrong and where it is named.
pub(crate) fn unusable_files(config: &Config) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    for source in sources(config) {
        let DiscoverySource::File(path) = &source.discovery.source else { continue };
        if let Err(error) = read(path, None, &source.protocols, source.access) {
            let problem = format!("no backends come from it: {error:#}");
            faults.extend(config.faults(
                Some(&source.pool),
                &["file"],
                &path.display().to_string(),
                &problem,
            ));
        }
    }
    faults
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
        if backend.tls.is_some() && protocols.contains(&Protocol::Udp) {
            return Err(format!(
                "{}: datagrams of a \"udp\" listener are carried as they are, not inside TLS",
                backend.name
            ));
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
            address: SocketName::Host(address),
            protocol,
            // RFC 2782: 0 is a very small chance, not none.
            weight: u32::from(record.weight).max(1),
            priority: level(record),
            tls: None,
            proxy_protocol: None,
        }
    };
    records.iter().map(backend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_could_not_be_put_in_force_is_read_again_although_it_has_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.toml");
        std::fs::write(&path, "[[backends]]\naddress = \"10.0.0.1:80\"\n").unwrap();
        let long_ago = SystemTime::now() - 10 * SETTLED;
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"h1\"\npool = \"p\"\n\
             [pools.p.discovery]\nfile = {path:?}\n"
        );
        let config = Config::parse(&text, "lb.toml").unwrap();
        let resolver = crate::names::resolver(&config.dns).unwrap();
        let metrics = Metrics::new(1);
        let mut look = Look::new(sources(&config).remove(0));
        let found = look.look(&resolver).await.unwrap().unwrap();
        assert_eq!(found.backends.len(), 1);
        for _ in 0..2 {
            look.settle(Err(anyhow::anyhow!("no")), &metrics);
            assert_eq!(look.look(&resolver).await.unwrap().as_ref(), Some(&found));
        }
        look.settle(Ok(()), &metrics);
        assert_eq!(look.look(&resolver).await.unwrap(), None, "in force, and as it was");
    }

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

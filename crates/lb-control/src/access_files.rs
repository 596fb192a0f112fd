//! Files of access lists: read with the configuration, and watched from then on.
//!
//! What a file says is put in force without a new snapshot: requests look at one state of a list, which is exchanged whole. A file is read on a thread that
//! gives way to others, for a million networks take a while.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use lb_config::Config;
use lb_core::filter::{AccessFiles, AccessList, AccessMap, LiveNetworks, parse_access_file};
use lb_core::route::IpNetwork;
use lb_observe::metrics::{Metrics, PolicyMetrics};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::{aside, faults};

/// How often files are looked at. One that has changed is read when it has not changed again in that time: it may be being written.
const LOOK: Duration = Duration::from_secs(1);

/// A longer file is no list of a million networks.
const MOST_BYTES: u64 = 64 << 20;

/// The lists in force that have files, by their policies.
#[derive(Clone, Debug, Default)]
pub struct AccessSets(HashMap<Box<str>, AccessSet>);

#[derive(Clone, Debug)]
struct AccessSet {
    list: Arc<AccessList>,
    live: Arc<LiveNetworks>,
    /// The files, as they were before they were read.
    stamps: Stamps,
}

/// What tells one state of a file from another; `None` where it is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    changed: SystemTime,
    size: u64,
    inode: u64,
}

/// Those of the files of a list.
type Stamps = Vec<Option<Stamp>>;

impl AccessSets {
    /// Reads the files of each list of a configuration, and has the list say what they say. One that a configuration in force has as well is shared
    /// with that one, whatever has become of its files since.
    ///
    /// # Errors
    /// Every file that cannot be used, with its line and where the configuration names it.
    pub(crate) fn load(config: &Config, known: &Self) -> anyhow::Result<Self> {
        let (mut sets, mut problems) = (HashMap::new(), Vec::new());
        for list in config.access_lists() {
            let Some(files) = list.files() else { continue };
            let before = known.0.get(&list.policy);
            let before = before.filter(|set| set.list.files().is_some_and(|known| known == files));
            let set = match before {
                Some(set) => AccessSet { list: Arc::clone(list), ..set.clone() },
                None => {
                    let stamps = stamps(files);
                    match read(files) {
                        Ok(map) => AccessSet { list: Arc::clone(list), live: LiveNetworks::new(map), stamps },
                        Err((path, error)) => {
                            let path = path.display().to_string();
                            problems.extend(config.faults_wherever(&path, &format!("{error:#}")));
                            continue;
                        }
                    }
                }
            };
            files.bind(&set.live);
            sets.insert(list.policy.clone(), set);
        }
        if problems.is_empty() { Ok(Self(sets)) } else { Err(faults::lines(&problems)) }
    }
}

/// Reads the files of access lists of a configuration that is to be explained rather than served.
///
/// # Errors
/// Every file that cannot be used.
pub fn read_access_files(config: &Config) -> anyhow::Result<()> {
    AccessSets::load(config, &AccessSets::default()).map(drop)
}

/// Every file of an access list that a listener uses.
pub(crate) fn paths(config: &Config) -> impl Iterator<Item = &Path> {
    config.access_lists().filter_map(|list| list.files()).flat_map(AccessFiles::paths)
}

/// The networks of a list, its files included; or the file that cannot be used, and why.
fn read(files: &AccessFiles) -> Result<AccessMap, (&Path, anyhow::Error)> {
    Ok(files.map(read_if_any(files.allow_file.as_deref())?, read_if_any(files.deny_file.as_deref())?))
}

fn read_if_any(path: Option<&Path>) -> Result<Vec<IpNetwork>, (&Path, anyhow::Error)> {
    path.map_or(Ok(Vec::new()), |path| read_file(path).map_err(|error| (path, error)))
}

fn read_file(path: &Path) -> anyhow::Result<Vec<IpNetwork>> {
    let context = || "cannot be read";
    // A pipe or a device has any number of bytes.
    let file = lb_io::open_regular(path).with_context(context)?;
    let size = file.metadata().with_context(context)?.len();
    if size > MOST_BYTES {
        bail!("has {size} bytes; a list of networks has at most {MOST_BYTES}");
    }
    let text = lb_io::read_text(file, MOST_BYTES).with_context(context)?;
    Ok(parse_access_file(&text)?)
}

fn stamps(files: &AccessFiles) -> Stamps {
    let stamp = |path: &Path| {
        let facts = std::fs::metadata(path).ok()?;
        Some(Stamp { changed: facts.modified().ok()?, size: facts.len(), inode: facts.ino() })
    };
    files.paths().map(stamp).collect()
}

/// The tasks that look at files of access lists, with what they exchange.
#[derive(Debug, Default)]
pub(crate) struct AccessWatch(Vec<(Arc<LiveNetworks>, JoinHandle<()>)>);

impl AccessWatch {
    /// Looks at exactly the files of these lists from now on.
    pub(crate) fn follow(&mut self, sets: &AccessSets, metrics: &Metrics) {
        self.0.retain(|(live, task)| {
            let stays = sets.0.values().any(|set| Arc::ptr_eq(&set.live, live));
            if !stays {
                task.abort();
            }
            stays
        });
        for set in sets.0.values() {
            if self.0.iter().any(|(live, _)| Arc::ptr_eq(&set.live, live)) {
                continue;
            }
            let watch = watch(set.clone(), metrics.policy(&set.list.policy));
            self.0.push((Arc::clone(&set.live), tokio::task::spawn_local(watch)));
        }
    }
}

/// Looks at the files of a list, and has it say what they say.
async fn watch(AccessSet { list, live, stamps: mut read_at }: AccessSet, metrics: Arc<PolicyMetrics>) {
    let policy = &*list.policy;
    // As they were at the last look; why they could not be used.
    let (mut seen, mut failed): (_, Option<String>) = (read_at.clone(), None);
    loop {
        sleep(LOOK).await;
        let looked = Arc::clone(&list);
        // The panic hook has told of what else there is.
        let Ok(now) = spawn_blocking(move || looked.files().map(stamps).unwrap_or_default()).await else {
            return;
        };
        let is_settled = std::mem::replace(&mut seen, now.clone()) == now;
        if !is_settled || now == read_at {
            continue;
        }
        let reads = Arc::clone(&list);
        let reading = aside::run("access", move || {
            let files = reads.files()?;
            let result = read(files);
            Some(result.map_err(|(path, error)| format!("{}: {error:#}", path.display())))
        });
        let Ok(Some(result)) = reading.await else { continue };
        read_at = now;
        match result {
            Ok(map) => {
                live.replace(map);
                failed = None;
                tracing::info!(policy, "files of an access list have changed — in force");
            }
            Err(reason) => {
                metrics.access_file_failures.inc();
                if failed.as_ref() != Some(&reason) {
                    tracing::error!(
                        policy,
                        reason,
                        "a file of an access list cannot be used — keeping what was read before"
                    );
                    failed = Some(reason);
                }
            }
        }
    }
}

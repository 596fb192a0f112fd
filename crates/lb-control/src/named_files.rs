//! The files that a configuration names for TLS and cookies, and whether they have changed since they were read.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::answer_bodies;
use lb_config::{BackendTls, ClientAuth, ClientAuthMode, Config, Listener, TlsCertificate, TlsFiles};

/// The files of a listener; with each, whether it holds a secret.
pub(crate) fn of_listener(listener: &Listener) -> Vec<(&Path, bool)> {
    let Some(files) = listener.tls.as_ref().filter(|_| listener.starts()) else { return Vec::new() };
    let TlsFiles { cert_path, key_path, ticket_key_path, client_auth, certificates, .. } = files;
    let mut all = vec![(cert_path.as_path(), false), (key_path.as_path(), true)];
    all.extend(ticket_key_path.iter().map(|path| (path.as_path(), true)));
    all.extend(of_clients(client_auth));
    for TlsCertificate { cert_path, key_path, client_auth, .. } in certificates {
        all.extend([(cert_path.as_path(), false), (key_path.as_path(), true)]);
        all.extend(of_clients(client_auth));
    }
    all
}

fn of_clients(rules: &ClientAuth) -> impl Iterator<Item = (&Path, bool)> {
    let are_asked = rules.mode != ClientAuthMode::Off;
    let paths = rules.ca_path.iter().chain(&rules.crl_path).filter(move |_| are_asked);
    paths.map(|path| (path.as_path(), false))
}

/// The files of a backend.
pub(crate) fn of_backend(tls: &BackendTls) -> Vec<(&Path, bool)> {
    let mut all = Vec::new();
    if let Some(path) = tls.ca_path.as_ref().filter(|_| tls.verify_peer) {
        all.push((path.as_path(), false));
    }
    if let Some(own) = &tls.client_certificate {
        all.extend([(own.cert_path.as_path(), false), (own.key_path.as_path(), true)]);
    }
    all
}

/// All files of a configuration, each once, in the order of their first mention.
pub(crate) fn all(config: &Config) -> Vec<(&Path, bool)> {
    let pools = config.pools_in_use();
    let backends = pools.iter().flat_map(|pool| &pool.backends).filter_map(|backend| backend.tls.as_ref());
    let cookies = pools.iter().filter_map(|pool| pool.sticky.as_ref()?.key_path.as_deref());
    let passthrough = config.listeners.iter().filter_map(|listener| listener.passthrough.as_ref());
    let secrets = passthrough.flat_map(|block| {
        let keys = block.quic_lb.iter().filter_map(|lb| lb.key_path.as_deref());
        std::iter::once(block.retry_secret_path.as_path()).chain(keys)
    });
    let files = config
        .listeners
        .iter()
        .flat_map(of_listener)
        .chain(backends.flat_map(of_backend))
        .chain(cookies.chain(secrets).map(|path| (path, true)))
        .chain(answer_bodies::files(config).map(|path| (path, false)));
    let mut seen = HashSet::new();
    files.filter(|(path, _)| seen.insert(*path)).collect()
}

/// What tells one state of a file from another: a file that is replaced by renaming is another one, whatever its time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    changed: Option<SystemTime>,
    size: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self { changed: facts.modified().ok(), size: facts.len(), inode: facts.ino() })
    }
}

/// The files in force, as they were when they were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stamps(HashMap<PathBuf, Option<Stamp>>);

impl Stamps {
    /// Looks at every file. To be done before they are read: what changes in between is then seen as changed.
    pub(crate) fn take(config: &Config) -> Self {
        Self(all(config).into_iter().map(|(path, _)| (path.to_owned(), Stamp::of(path))).collect())
    }

    /// The files that are others on disk than in force. Those that are new in the configuration are read now, and noted.
    pub(crate) fn changed(&mut self, config: &Config) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (path, _) in all(config) {
            let now = Stamp::of(path);
            let known = *self.0.entry(path.to_owned()).or_insert(now);
            // A file that is being replaced may be gone for a moment.
            if now.is_some() && known != now {
                changed.push(path.to_owned());
            }
        }
        changed
    }

    /// Keeps what was known of files that were looked at again and could not be used.
    pub(crate) fn keep(&mut self, before: &Self, files: &[PathBuf]) {
        for path in files {
            if let Some(stamp) = before.0.get(path) {
                self.0.insert(path.clone(), *stamp);
            }
        }
    }
}

//! Certificates and ticket keys of the whole process: read at boot, turned by the clock, read again on SIGUSR1.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use lb_config::{
    Backend, BackendPool, BackendProtocol, BackendTls, Config, Listener, ListenerId, Probe, Protocol,
    TlsFiles,
};
use lb_observe::metrics::{Certificates, Metrics};
use lb_security::{
    ALPN_HTTP, ClientTls, KeyAccess, RetrySecret, SharedTlsBundle, TicketRotator, TlsConfigBundle, TlsError,
};
use tokio::time::Instant;

use crate::{faults, named_files};

/// How long after a try to turn a ticket key the next one comes at the earliest: there may be no randomness.
const PATIENCE: Duration = Duration::from_secs(1);

/// The TLS side of one listener.
#[derive(Clone, Debug)]
struct ListenerTls {
    id: ListenerId,
    protocol: Protocol,
    files: TlsFiles,
    tls13_only: bool,
    bundle: SharedTlsBundle,
    tickets: Arc<TicketRotator>,
    /// The secret of Retry tokens with its file, on QUIC listeners.
    secret: Option<(PathBuf, Arc<RetrySecret>)>,
}

/// The TLS side of every listener. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    listeners: Vec<ListenerTls>,
    /// What ticket keys take as their clock's zero.
    origin: Instant,
}

/// The TLS side of a configuration to come. Listeners go on with what they have until it is put in force.
#[derive(Debug)]
pub(crate) struct NextTls {
    tls: Tls,
    /// What listeners that stay are to have.
    bundles: Vec<(SharedTlsBundle, Arc<TlsConfigBundle>)>,
    /// Files that were read for it.
    pub(crate) read: Vec<PathBuf>,
}

impl NextTls {
    /// The TLS side as it will be.
    pub(crate) fn get(&self) -> &Tls {
        &self.tls
    }

    /// Whether listeners that stay get something new.
    pub(crate) fn is_new(&self) -> bool {
        !self.read.is_empty()
    }

    /// Gives listeners that stay what they are to have from now on.
    pub(crate) fn put_in_force(self) -> Tls {
        for (shared, bundle) in self.bundles {
            shared.store(bundle);
        }
        self.tls
    }
}

/// How many listeners a pass over all certificates has renewed, and how many not.
#[derive(Debug, Default)]
pub(crate) struct Renewed {
    pub(crate) ok: usize,
    pub(crate) fail: usize,
    /// The files of those that were not.
    pub(crate) kept: Vec<PathBuf>,
}

impl Tls {
    /// Reads all that the configuration names.
    pub(crate) fn load(config: &Config) -> anyhow::Result<Self> {
        let none = Self { listeners: Vec::new(), origin: Instant::now() };
        none.next(config).map(NextTls::put_in_force)
    }

    /// Reads what the configuration names and this has not: files of listeners that are as they were are not read again.
    pub(crate) fn next(&self, config: &Config) -> anyhow::Result<NextTls> {
        self.read(config).map_err(|first| faults::instead_of(first, config))
    }

    fn read(&self, config: &Config) -> anyhow::Result<NextTls> {
        let tls = Self { listeners: Vec::new(), origin: self.origin };
        let mut next = NextTls { tls, bundles: Vec::new(), read: Vec::new() };
        let tls13_only = config.runtime.tls13_only;
        for listener in config.listeners.iter().filter(|listener| listener.starts()) {
            let Some(files) = &listener.tls else { continue };
            let (id, protocol) = (listener.id(), listener.protocol);
            let known = self.listeners.iter().find(|known| known.id == id && known.protocol == protocol);
            let context = || format!("listener {}", listener.name);
            let secret = match &listener.quic {
                Some(quic) => Some(secret(config, &quic.retry_secret_path, known).with_context(context)?),
                None => None,
            };
            if let Some(known) = known.filter(|known| known.files == *files && known.tls13_only == tls13_only)
            {
                next.tls.listeners.push(ListenerTls { secret, ..known.clone() });
                continue;
            }
            let tickets = match known.filter(|known| has_tickets_of(&known.files, files)) {
                Some(known) => Arc::clone(&known.tickets),
                None => self.tickets(config, files).with_context(context)?,
            };
            let bundle = bundle(config, listener, &tickets).with_context(context)?;
            let shared = match known {
                Some(known) => {
                    next.bundles.push((known.bundle.clone(), bundle));
                    known.bundle.clone()
                }
                None => SharedTlsBundle::new(bundle),
            };
            let files = files.clone();
            next.read.extend(named_files::of_listener(listener).into_iter().map(|(path, _)| path.to_owned()));
            let new = ListenerTls { id, protocol, files, tls13_only, bundle: shared, tickets, secret };
            next.tls.listeners.push(new);
        }
        Ok(next)
    }

    fn tickets(&self, config: &Config, files: &TlsFiles) -> Result<Arc<TicketRotator>, TlsError> {
        let (interval, overlap) = (files.ticket_rotation_interval, files.ticket_rotation_overlap);
        match &files.ticket_key_path {
            Some(path) => TicketRotator::from_file(path, KeyAccess::of(config), interval, overlap),
            None => TicketRotator::new(interval, overlap, self.origin.elapsed()),
        }
    }

    /// Shows every certificate in metrics.
    pub(crate) fn show(&self, config: &Config, metrics: &Metrics) {
        for tls in &self.listeners {
            if let Some(listener) = config.listener(&tls.id) {
                show(listener, &tls.bundle.load(), metrics);
            }
        }
    }

    /// The bundle of a listener, where clients speak TLS.
    pub(crate) fn bundle(&self, id: &ListenerId) -> Option<SharedTlsBundle> {
        self.listeners.iter().find(|tls| tls.id == *id).map(|tls| tls.bundle.clone())
    }

    /// The secret of Retry tokens of a QUIC listener.
    pub(crate) fn secret(&self, id: &ListenerId) -> Option<Arc<RetrySecret>> {
        let tls = self.listeners.iter().find(|tls| tls.id == *id)?;
        tls.secret.as_ref().map(|(_, secret)| Arc::clone(secret))
    }

    /// When [`Self::tick`] is due; `None` where no key is turned by the clock.
    pub(crate) fn due(&self) -> Option<Instant> {
        let first = self.listeners.iter().filter_map(|tls| tls.tickets.due()).min()?;
        Some(self.origin.checked_add(first)?.max(Instant::now() + PATIENCE))
    }

    /// Turns the ticket keys that are due.
    pub(crate) fn tick(&self, config: &Config, metrics: &Metrics) {
        for tls in self.listeners.iter().filter(|tls| tls.tickets.tick(self.origin.elapsed())) {
            if let Some(listener) = config.listener(&tls.id) {
                rotated(listener, metrics);
            }
        }
    }

    /// Reads every listener's files again. What cannot be used leaves in force what that listener has.
    pub(crate) fn renew(&self, config: &Config, metrics: &Metrics) -> Renewed {
        let mut renewed = Renewed::default();
        for tls in &self.listeners {
            let Some(listener) = config.listener(&tls.id) else { continue };
            match renew(config, listener, tls, metrics) {
                Ok(()) => {
                    renewed.ok = renewed.ok.saturating_add(1);
                    metrics.cert_rotation_succeeded.inc();
                    tracing::info!(listener = listener.name, "TLS cert reload succeeded");
                }
                Err(error) => {
                    renewed.fail = renewed.fail.saturating_add(1);
                    let files = named_files::of_listener(listener).into_iter();
                    renewed.kept.extend(files.map(|(path, _)| path.to_owned()));
                    metrics.cert_rotation_failed.of(error.reason).inc();
                    tracing::error!(
                        listener = listener.name,
                        reason = %error,
                        "TLS cert reload failed — keeping previous bundle live"
                    );
                }
            }
        }
        renewed
    }
}

/// The secret in a file, unless the listener has it already.
fn secret(
    config: &Config,
    path: &Path,
    known: Option<&ListenerTls>,
) -> Result<(PathBuf, Arc<RetrySecret>), TlsError> {
    match known.and_then(|known| known.secret.as_ref()).filter(|(known, _)| known == path) {
        Some(known) => Ok(known.clone()),
        None => {
            let secret = RetrySecret::load_or_make(path, KeyAccess::of(config))?;
            Ok((path.to_owned(), Arc::new(secret)))
        }
    }
}

/// Whether tickets of a listener go on when its files change.
fn has_tickets_of(running: &TlsFiles, new: &TlsFiles) -> bool {
    let of = |files: &TlsFiles| {
        (files.ticket_key_path.clone(), files.ticket_rotation_interval, files.ticket_rotation_overlap)
    };
    of(running) == of(new)
}

fn renew(config: &Config, listener: &Listener, tls: &ListenerTls, metrics: &Metrics) -> Result<(), TlsError> {
    let bundle = bundle(config, listener, &tls.tickets)?;
    if let Some(path) = listener.tls.as_ref().and_then(|files| files.ticket_key_path.as_ref())
        && tls.tickets.reread(path, KeyAccess::of(config))?
    {
        rotated(listener, metrics);
    }
    show(listener, &bundle, metrics);
    tls.bundle.store(bundle);
    Ok(())
}

fn rotated(listener: &Listener, metrics: &Metrics) {
    metrics.listener(&listener.name).ticket_key_rotations.inc();
    tracing::info!(listener = listener.name, "TLS ticket key rotated");
}

fn bundle(
    config: &Config,
    listener: &Listener,
    tickets: &Arc<TicketRotator>,
) -> Result<Arc<TlsConfigBundle>, TlsError> {
    let alpn: &[&[u8]] = if listener.protocol == Protocol::H1s { ALPN_HTTP } else { &[] };
    TlsConfigBundle::load(
        listener,
        alpn,
        config.runtime.tls13_only,
        KeyAccess::of(config),
        tickets,
        SystemTime::now(),
    )
}

fn show(listener: &Listener, bundle: &TlsConfigBundle, metrics: &Metrics) {
    let facts = bundle.certificates().iter();
    let expiries = facts.map(|facts| (facts.cert_path.display().to_string(), facts.not_after)).collect();
    let certificates = Certificates { loaded_at: bundle.loaded_at(), expiries };
    metrics.listener(&listener.name).set_certificates(certificates);
}

/// TLS towards backends, one [`ClientTls`] for all backends with equal settings, so that sessions are resumed.
#[derive(Clone, Debug, Default)]
pub struct BackendsTls(HashMap<Key, Arc<ClientTls>>);

/// Settings, and what is said inside.
type Key = (BackendTls, Option<BackendProtocol>);

impl BackendsTls {
    /// Reads what the configuration names and `known` does not have.
    pub(crate) fn load(config: &Config, known: &Self) -> anyhow::Result<Self> {
        let all = keys(config).into_iter().map(|(key, whose)| {
            let tls = match known.0.get(&key) {
                Some(known) => Arc::clone(known),
                None => load(&key, KeyAccess::of(config)).context(whose)?,
            };
            Ok((key, tls))
        });
        let all: anyhow::Result<_> = all.collect();
        all.map(Self).map_err(|first| faults::instead_of(first, config))
    }

    /// Reads every file again. What cannot be used leaves in force what such backends have; their files are returned
    /// with the reason.
    pub(crate) fn renew(&self, config: &Config) -> (Self, Vec<(Vec<PathBuf>, anyhow::Error)>) {
        let mut failures = Vec::new();
        let all = keys(config).into_iter().filter_map(|(key, whose)| {
            let tls = match load(&key, KeyAccess::of(config)).context(whose) {
                Ok(tls) => tls,
                Err(error) => {
                    let files = named_files::of_backend(&key.0).into_iter();
                    failures.push((files.map(|(path, _)| path.to_owned()).collect(), error));
                    Arc::clone(self.0.get(&key)?)
                }
            };
            Some((key, tls))
        });
        let all = Self(all.collect());
        (all, failures)
    }

    /// As [`Self::load`], on a thread that nothing else waits for: a list of backends that was found may name any file.
    pub(crate) async fn load_aside(config: &Config, known: &Self) -> anyhow::Result<Self> {
        let (config, known) = (config.clone(), known.clone());
        tokio::task::spawn_blocking(move || Self::load(&config, &known)).await?
    }

    /// Whether no backend is inside TLS.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How a backend is reached by traffic that is HTTP or not, if inside TLS.
    pub fn of(&self, is_http: bool, backend: &Backend) -> Option<Arc<ClientTls>> {
        self.0.get(&key(is_http, backend)?).cloned()
    }

    /// How health checks reach a backend of a pool whose traffic is HTTP or not, if inside TLS.
    pub(crate) fn of_probe(
        &self,
        pool: &BackendPool,
        is_http: bool,
        backend: &Backend,
    ) -> Option<Arc<ClientTls>> {
        self.0.get(&probe_key(pool, is_http, backend)?).cloned()
    }
}

fn load((tls, says): &Key, access: KeyAccess) -> Result<Arc<ClientTls>, TlsError> {
    let alpn: &[&[u8]] = match says {
        Some(BackendProtocol::H2) => &[b"h2"],
        // Of HTTP/3 it is asked for by QUIC.
        Some(BackendProtocol::H3) => &[],
        Some(_) => &[b"http/1.1"],
        None => &[],
    };
    ClientTls::load(tls, alpn, access, SystemTime::now())
}

/// What the configuration asks for, each once, and a backend that needs it.
fn keys(config: &Config) -> Vec<(Key, String)> {
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    for listener in &config.listeners {
        for (pool, backend) in
            listener.pools().flat_map(|pool| pool.backends.iter().map(move |one| (pool, one)))
        {
            let is_http = listener.is_http();
            let keys = [key(is_http, backend), probe_key(pool, is_http, backend)];
            for key in keys.into_iter().flatten() {
                if seen.insert(key.clone()) {
                    all.push((key, format!("listener {}: backend {}", listener.name, backend.name)));
                }
            }
        }
    }
    all
}

fn key(is_http: bool, backend: &Backend) -> Option<Key> {
    let says = is_http.then_some(backend.protocol);
    Some((backend.tls.clone()?, says))
}

/// Health checks may speak HTTP where the listener does not.
fn probe_key(pool: &BackendPool, is_http: bool, backend: &Backend) -> Option<Key> {
    let says = match (&pool.health.as_ref()?.probe, backend.protocol) {
        (Probe::Quic | Probe::Udp(_), _) => return None,
        (Probe::Tcp, _) => return key(is_http, backend),
        (Probe::Grpc { .. }, _) | (Probe::Http(_), BackendProtocol::H2) => BackendProtocol::H2,
        (Probe::Http(_), _) => BackendProtocol::H1,
    };
    Some((backend.tls.clone()?, Some(says)))
}

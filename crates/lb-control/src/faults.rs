//! All that is wrong with the files that a configuration names, each with the place that names it.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use lb_config::{
    BackendPool, BackendProtocol, BackendTls, Config, ConfigError, Listener, Passthrough, PoolId,
};
use lb_security::{
    ClientTls, KeyAccess, Part, RetrySecret, StickyKey, TicketRotator, TlsError, identity_faults, load_key,
    rules_fault,
};

/// The faults of all files in place of the `first` that a load has met; that one alone where a second look finds none.
pub(crate) fn instead_of(first: anyhow::Error, config: &Config) -> anyhow::Error {
    let all = of_files(config);
    if all.is_empty() { first } else { lines(&all) }
}

/// Faults with their places in the file, as one error of a line each.
pub(crate) fn lines(all: &[ConfigError]) -> anyhow::Error {
    anyhow::Error::new(Collected { placed: all.to_vec(), others: Vec::new() })
}

/// Collects the faults of several steps, so that a step that fails does not hide what is wrong with the next. As an error it displays as
/// one line for each fault: by the lines of the file, and then what has no place there.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    placed: Vec<ConfigError>,
    others: Vec<String>,
}

impl Collected {
    /// Notes an error.
    pub(crate) fn note(&mut self, error: &anyhow::Error) {
        match error.downcast_ref::<Self>() {
            Some(Self { placed, others }) => {
                self.placed.extend_from_slice(placed);
                self.others.extend_from_slice(others);
            }
            None => self.others.push(format!("{error:#}")),
        }
    }

    /// Notes faults that have places.
    pub(crate) fn extend(&mut self, faults: Vec<ConfigError>) {
        self.placed.extend(faults);
    }

    /// The value of a step, or `None` where it failed.
    pub(crate) fn keep<T>(&mut self, outcome: anyhow::Result<T>) -> Option<T> {
        outcome.inspect_err(|error| self.note(error)).ok()
    }

    /// Whether anything was wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.placed.is_empty() && self.others.is_empty()
    }

    /// All of it as one error, each fault once.
    pub(crate) fn into_error(mut self) -> anyhow::Error {
        self.placed.sort_by_key(ConfigError::line);
        self.placed.dedup();
        anyhow::Error::new(self)
    }
}

impl fmt::Display for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.placed.iter().map(ToString::to_string).chain(self.others.iter().cloned());
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Collected {}

/// What is wrong with a backend's address, where the file names it.
pub(crate) fn of_backend(config: &Config, pool: &PoolId, name: &str, problem: &str) -> Vec<ConfigError> {
    config.faults(Some(pool), &["address"], name, problem)
}

/// What is wrong with the address of a listener.
pub(crate) fn of_listener(config: &Config, listener: &Listener, problem: &str) -> Vec<ConfigError> {
    config.faults(Some(&owner(listener)), &["address", "bind_addr"], &listener.written, problem)
}

/// What the settings of a listener belong to.
pub(crate) fn owner(listener: &Listener) -> PoolId {
    PoolId::Listener(listener.name.as_str().into(), listener.transport())
}

fn of_files(config: &Config) -> Vec<ConfigError> {
    let (access, now) = (KeyAccess::of(config), SystemTime::now());
    let mut faults = Faults { config, access, now, found: Vec::new() };
    let mut seen = HashSet::new();
    for listener in config.listeners.iter().filter(|listener| listener.starts()) {
        faults.listener(listener);
        for pool in listener.pools().filter(|pool| seen.insert(&pool.id)) {
            faults.pool(pool);
        }
    }
    let mut found = faults.found;
    found.sort_by_key(ConfigError::line);
    found.dedup();
    found
}

struct Faults<'a> {
    config: &'a Config,
    access: KeyAccess,
    now: SystemTime,
    found: Vec<ConfigError>,
}

impl Faults<'_> {
    fn listener(&mut self, listener: &Listener) {
        let owner = owner(listener);
        if let Some(passthrough) = &listener.passthrough {
            self.passthrough(&owner, passthrough);
        }
        let Some(tls) = &listener.tls else { return };
        let own = (&tls.cert_path, &tls.key_path, &tls.client_auth);
        let others = tls.certificates.iter().map(|one| (&one.cert_path, &one.key_path, &one.client_auth));
        for (cert_path, key_path, rules) in std::iter::once(own).chain(others) {
            for (part, error) in identity_faults(cert_path, key_path, self.access, self.now) {
                let key = if part == Part::Key { "key_path" } else { "cert_path" };
                self.note(&owner, &[key], &error);
            }
            if let Some(error) = rules_fault(rules) {
                let is_list = error.path() == rules.crl_path.as_deref() && rules.crl_path != rules.ca_path;
                self.note(&owner, &[if is_list { "client_crl_path" } else { "client_ca_path" }], &error);
            }
        }
        if let Some(path) = &tls.ticket_key_path
            && let Err(error) = TicketRotator::from_file(path, self.access, Duration::ZERO, Duration::ZERO)
        {
            self.note(&owner, &["ticket_key_path"], &error);
        }
    }

    fn passthrough(&mut self, owner: &PoolId, passthrough: &Passthrough) {
        let path = &passthrough.retry_secret_path;
        if path.exists()
            && let Err(error) = RetrySecret::load_or_make(path, self.access)
        {
            self.note(owner, &["retry_secret_path"], &error);
        }
        for path in passthrough.quic_lb.iter().filter_map(|lb| lb.key_path.as_ref()) {
            if let Err(error) = load_key::<16>(path, self.access) {
                self.note(owner, &["key_path"], &error);
            }
        }
    }

    fn pool(&mut self, pool: &BackendPool) {
        let mut seen = HashSet::new();
        let secured = pool.backends.iter().filter(|backend| backend.protocol != BackendProtocol::H3);
        for tls in secured.filter_map(|backend| backend.tls.as_ref()).filter(|tls| seen.insert(*tls)) {
            self.backend(&pool.id, tls);
        }
        if let Some(path) = pool.sticky.as_ref().and_then(|sticky| sticky.key_path.as_ref())
            && let Err(error) = StickyKey::load(path, self.access)
        {
            self.note(&pool.id, &["key_path"], &error);
        }
    }

    fn backend(&mut self, pool: &PoolId, tls: &BackendTls) {
        if let Some(own) = &tls.client_certificate {
            for (part, error) in identity_faults(&own.cert_path, &own.key_path, self.access, self.now) {
                let key = if part == Part::Key { "tls_client_key_path" } else { "tls_client_cert_path" };
                self.note(pool, &[key], &error);
            }
        }
        let rest = BackendTls { client_certificate: None, ..tls.clone() };
        if let Err(error) = ClientTls::load(&rest, &[], self.access, self.now) {
            self.note(pool, &["tls_ca_path"], &error);
        }
    }

    fn note(&mut self, owner: &PoolId, keys: &[&str], error: &TlsError) {
        let value = error.path().map_or(String::new(), |path| path.display().to_string());
        self.found.extend(self.config.faults(Some(owner), keys, &value, error.detail()));
    }
}

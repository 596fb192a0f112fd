//! What a configuration meets on this machine: who reads its files, where its log goes, and what its authorities can verify.

use std::collections::HashSet;
use std::path::Path;
use std::time::SystemTime;

use lb_config::{AccessLogPlace, ClientAuthMode, Config, ConfigError};
use lb_security::futility_of_authorities;
use rustix::process::geteuid;

use super::user::{self, Access, User};
use crate::faults::{self, Collected};
use crate::{access_files, named_files};

/// What was found and does not keep a start from succeeding.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is probably not meant.
    pub(super) warnings: Vec<String>,
    /// What is good to know.
    pub(super) notes: Vec<String>,
}

/// Looks at all of it. `path` is that of the configuration, `user` who is said to run the gateway. What a start would fail for goes to
/// `faults`.
pub(super) fn look(config: &Config, path: &Path, user: Option<&str>, faults: &mut Collected) -> Found {
    let mut found = Found::default();
    let is_root = geteuid().is_root();
    let reader = match user {
        Some(name) => faults.keep(user::named(name)),
        // Another than root sees what it may read by reading it.
        None => is_root.then(user::of_unit).flatten(),
    };
    match &reader {
        Some(reader) => found.readable(config, path, reader, user.is_some().then_some(&mut *faults)),
        None if is_root
            && user.is_none()
            && named_files::all(config).iter().any(|(_, is_secret)| *is_secret) =>
        {
            let note = "private keys were read as root; --user NAME says whether the user of a service could read them";
            found.notes.push(note.to_owned());
        }
        None => {}
    }
    found.log(config, reader.as_ref(), user.is_some(), faults);
    found.socket_files(config, reader.as_ref());
    found.authorities(config);
    found
}

impl Found {
    /// Whether all files can be read. What a reader cannot read goes to `faults` where it is certain that this user runs the gateway: the
    /// user of a unit may not be.
    fn readable(&mut self, config: &Config, path: &Path, reader: &User, faults: Option<&mut Collected>) {
        let named = named_files::all(config).into_iter().map(|(path, _)| path);
        let files = std::iter::once(path).chain(named).chain(access_files::paths(config));
        let problems: Vec<ConfigError> = files
            .filter_map(|path| Some((path.display().to_string(), reader.refusal(Access::Read, path)?)))
            .flat_map(|(path, problem)| config.faults_wherever(&path, &problem))
            .collect();
        match faults {
            _ if problems.is_empty() => {
                self.notes.push(format!("user {} ({}) can read every file", reader.name, reader.origin));
            }
            Some(faults) => faults.extend(problems),
            None => self.warn(&problems),
        }
    }

    fn warn(&mut self, problems: &[ConfigError]) {
        self.warnings.extend(problems.iter().map(ToString::to_string));
    }

    /// Whether the access log can be written.
    fn log(&mut self, config: &Config, writer: Option<&User>, is_certain: bool, faults: &mut Collected) {
        let Some(AccessLogPlace::File(path)) = &config.observability.access_log else { return };
        // A file that is not there yet is made in its directory.
        let place = if path.exists() {
            path.as_path()
        } else {
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
        };
        let said = |problem: String| {
            let value = path.display().to_string();
            config.faults(None, &["access_log"], &value, &format!("cannot be written: {problem}"))
        };
        match rustix::fs::access(place, rustix::fs::Access::WRITE_OK) {
            Err(error) => {
                let error = std::io::Error::from(error);
                faults.extend(said(format!("{}: {error}", place.display())));
            }
            Ok(()) if path.is_dir() => faults.extend(said("it is a directory".to_owned())),
            Ok(()) => {
                let refusal = writer.and_then(|writer| writer.refusal(Access::Write, place));
                let problems = refusal.map(said).unwrap_or_default();
                if is_certain {
                    faults.extend(problems);
                } else {
                    self.warn(&problems);
                }
            }
        }
    }

    /// Whether the files of Unix sockets can be made. A directory may come into being with the service.
    fn socket_files(&mut self, config: &Config, writer: Option<&User>) {
        for listener in config.listeners.iter().filter(|listener| listener.starts()) {
            let Some(file) = listener.address.unix().and_then(|path| path.file()) else { continue };
            let directory = file.parent().unwrap_or(Path::new("/"));
            let shown = directory.display();
            let problem = match rustix::fs::access(directory, rustix::fs::Access::WRITE_OK) {
                Err(rustix::io::Errno::NOENT) => Some(format!("the directory {shown} is not there")),
                Err(error) => Some(format!("{shown} cannot be written: {}", std::io::Error::from(error))),
                Ok(()) if !directory.is_dir() => Some(format!("{shown} is no directory")),
                Ok(()) => writer.and_then(|writer| writer.refusal(Access::Write, directory)),
            };
            if let Some(problem) = problem {
                self.warn(&faults::of_listener(config, listener, &problem));
            }
        }
    }

    /// Whether the files of authorities can verify anybody. One that cannot be read is a fault of its own.
    fn authorities(&mut self, config: &Config) {
        let now = SystemTime::now();
        let mut seen = HashSet::new();
        let started = config.listeners.iter().filter(|listener| listener.starts());
        for listener in started {
            let own = listener.tls.iter().flat_map(|tls| {
                std::iter::once(&tls.client_auth).chain(tls.certificates.iter().map(|one| &one.client_auth))
            });
            let clients = own
                .filter(|rules| rules.mode != ClientAuthMode::Off)
                .filter_map(|rules| Some((rules.ca_path.as_ref()?, None)))
                .map(|(path, name)| (faults::owner(listener), "client_ca_path", path, name));
            let backends = listener.pools().flat_map(|pool| pool.backends.iter().map(move |one| (pool, one)));
            let backends = backends.filter_map(|(pool, backend)| {
                let tls = backend.tls.as_ref().filter(|tls| tls.verify_peer)?;
                let name = Some(tls.verify_hostname.as_str());
                Some((pool.id.clone(), "tls_ca_path", tls.ca_path.as_ref()?, name))
            });
            for (owner, key, path, name) in clients.chain(backends) {
                if !seen.insert((path, name)) {
                    continue;
                }
                if let Ok(Some(why)) = futility_of_authorities(path, name, now) {
                    let whom = name.map_or("any client".to_owned(), |name| format!("a backend as `{name}`"));
                    let problem = format!("cannot verify {whom}: {why}");
                    let places = config.faults(Some(&owner), &[key], &path.display().to_string(), &problem);
                    // Hundreds of backends may name one file.
                    self.warn(places.get(..1).unwrap_or_default());
                }
            }
        }
    }
}

//! What a configuration meets on this machine: who reads its files, where its log goes, and what its authorities can verify.

use std::collections::HashSet;
use std::path::Path;
use std::time::SystemTime;

use lb_config::{AccessLog, ClientAuthMode, Config};
use lb_security::futility_of_authorities;
use rustix::process::geteuid;

use super::user::{self, Access, User};
use crate::named_files;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What a start would fail for.
    pub(super) errors: Vec<String>,
    /// What is probably not meant.
    pub(super) warnings: Vec<String>,
    /// What is good to know.
    pub(super) notes: Vec<String>,
}

/// Looks at all of it. `path` is that of the configuration, `user` who is said to run the gateway.
pub(super) fn look(config: &Config, path: &Path, user: Option<&str>) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let is_root = geteuid().is_root();
    let reader = match user {
        Some(name) => Some(user::named(name)?),
        // Another than root sees what it may read by reading it.
        None => is_root.then(user::of_unit).flatten(),
    };
    match &reader {
        Some(reader) => found.readable(config, path, reader, user.is_some()),
        None if is_root && named_files::all(config).iter().any(|(_, is_secret)| *is_secret) => {
            let note = "private keys were read as root; --user NAME says whether the user of a service could read them";
            found.notes.push(note.to_owned());
        }
        None => {}
    }
    found.log(config, reader.as_ref(), user.is_some());
    found.socket_files(config, reader.as_ref());
    found.authorities(config)?;
    Ok(found)
}

impl Found {
    /// Whether all files can be read. One that only a unit speaks for may not be who runs it.
    fn readable(&mut self, config: &Config, path: &Path, reader: &User, is_certain: bool) {
        let files = std::iter::once(path).chain(named_files::all(config).into_iter().map(|(path, _)| path));
        let problems: Vec<String> = files.filter_map(|path| reader.refusal(Access::Read, path)).collect();
        if problems.is_empty() {
            self.notes.push(format!("user {} ({}) can read every file", reader.name, reader.origin));
        } else if is_certain {
            self.errors.extend(problems);
        } else {
            self.warnings.extend(problems);
        }
    }

    /// Whether the access log can be written.
    fn log(&mut self, config: &Config, writer: Option<&User>, is_certain: bool) {
        let Some(AccessLog::File(path)) = &config.observability.access_log else { return };
        // A file that is not there yet is made in its directory.
        let place = if path.exists() {
            path.as_path()
        } else {
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
        };
        let said = |problem: String| {
            let value = path.display().to_string();
            let faults =
                config.faults(None, &["access_log"], &value, &format!("cannot be written: {problem}"));
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        match rustix::fs::access(place, rustix::fs::Access::WRITE_OK) {
            Err(error) => {
                let error = std::io::Error::from(error);
                self.errors.push(said(format!("{}: {error}", place.display())));
            }
            Ok(()) if path.is_dir() => self.errors.push(said("it is a directory".to_owned())),
            Ok(()) => {
                let refusal = writer.and_then(|writer| writer.refusal(Access::Write, place));
                let problems = if is_certain { &mut self.errors } else { &mut self.warnings };
                problems.extend(refusal.map(said));
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
            self.warnings.extend(problem.map(|problem| format!("listener {}: {problem}", listener.name)));
        }
    }

    /// Whether the files of authorities can verify anybody.
    fn authorities(&mut self, config: &Config) -> anyhow::Result<()> {
        let now = SystemTime::now();
        let mut seen = HashSet::new();
        let started = config.listeners.iter().filter(|listener| listener.starts());
        for listener in started {
            let own = listener.tls.iter().flat_map(|tls| {
                std::iter::once(&tls.client_auth).chain(tls.certificates.iter().map(|one| &one.client_auth))
            });
            let clients = own
                .filter(|rules| rules.mode != ClientAuthMode::Off)
                .filter_map(|rules| Some((rules.ca_path.as_ref()?, None)));
            let backends = listener.pool.backends.iter().filter_map(|backend| {
                let tls = backend.tls.as_ref().filter(|tls| tls.verify_peer)?;
                Some((tls.ca_path.as_ref()?, Some(tls.verify_hostname.as_str())))
            });
            for (path, name) in clients.chain(backends) {
                if !seen.insert((path, name)) {
                    continue;
                }
                if let Some(why) = futility_of_authorities(path, name, now)? {
                    let whom = name.map_or("any client".to_owned(), |name| format!("a backend as `{name}`"));
                    let path = path.display();
                    self.warnings
                        .push(format!("listener {}: {path}: cannot verify {whom}: {why}", listener.name));
                }
            }
        }
        Ok(())
    }
}

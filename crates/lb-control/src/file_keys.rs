//! What is read from files beside the keys of TLS: keys of sticky cookies and of QUIC that is forwarded without keys, and bodies of answers.

use std::path::PathBuf;
use std::sync::Arc;

use lb_config::{Config, Passthrough};
use lb_http::AnswerBodies;
use lb_quic::passthrough::PassthroughSecrets;
use lb_security::{KeyAccess, RetrySecret, load_key};

use crate::access_files::AccessSets;
use crate::sticky::StickyKeys;
use crate::{answer_bodies, faults};

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct FileKeys {
    /// Those of sticky cookies.
    pub sticky: StickyKeys,
    /// Those of `[passthrough]`.
    pub passthrough: Option<Arc<PassthroughSecrets>>,
    /// The bodies of answers that stand in files.
    pub bodies: AnswerBodies,
    /// Access lists with files, which are watched.
    pub access: AccessSets,
}

impl FileKeys {
    /// Reads what the configuration names, and makes the files of secrets that may be made.
    pub(crate) fn load(config: &Config, known: &Self) -> anyhow::Result<Self> {
        let sticky = StickyKeys::load(config, &known.sticky)?;
        let passthrough = match of_passthrough(config).map(|block| secrets(config, block)) {
            Some(Err((_, error))) => return Err(faults::instead_of(error, config)),
            read => read.and_then(Result::ok),
        };
        let access = AccessSets::load(config, &known.access)?;
        Ok(Self { sticky, passthrough, bodies: answer_bodies::load(config)?, access })
    }

    /// As [`Self::load`] for a look at a configuration that is not to be served: no file is made.
    pub(crate) fn look(config: &Config) -> anyhow::Result<()> {
        StickyKeys::load(config, &StickyKeys::default())?;
        answer_bodies::load(config)?;
        AccessSets::load(config, &AccessSets::default())?;
        match of_passthrough(config).filter(|block| block.retry_secret_path.exists()) {
            Some(block) => {
                secrets(config, block).map(|_| ()).map_err(|(_, error)| faults::instead_of(error, config))
            }
            None => Ok(()),
        }
    }

    /// Reads every file again. One that cannot be used leaves in force what was read from it before, and is returned with the reason.
    pub(crate) fn renew(&self, config: &Config) -> (Self, Vec<(Option<PathBuf>, anyhow::Error)>) {
        let (sticky, mut failures) = self.sticky.renew(config);
        let passthrough = match of_passthrough(config).map(|block| secrets(config, block)) {
            Some(Err((path, error))) => {
                failures.push((Some(path), error));
                self.passthrough.clone()
            }
            read => read.and_then(Result::ok),
        };
        let (bodies, unread) = answer_bodies::renew(&self.bodies, config);
        let told = |(path, error): (PathBuf, anyhow::Error)| {
            let place = path.display().to_string();
            (Some(path), error.context(place))
        };
        failures.extend(unread.into_iter().map(told));
        // Files of access lists are read again whenever they change.
        (Self { sticky, passthrough, bodies, access: self.access.clone() }, failures)
    }

    /// Whether some are read from files.
    pub(crate) fn has_files(&self) -> bool {
        self.sticky.has_files() || self.passthrough.is_some() || !self.bodies.is_empty()
    }
}

fn of_passthrough(config: &Config) -> Option<&Passthrough> {
    config.listeners.iter().find_map(|listener| listener.passthrough.as_ref())
}

fn secrets(
    config: &Config,
    block: &Passthrough,
) -> Result<Arc<PassthroughSecrets>, (PathBuf, anyhow::Error)> {
    let access = KeyAccess::of(config);
    let of_file = |path: &PathBuf, error: lb_security::TlsError| {
        (path.clone(), anyhow::Error::new(error).context("passthrough"))
    };
    let path = &block.retry_secret_path;
    let retry = RetrySecret::load_or_make(path, access).map_err(|error| of_file(path, error))?;
    let mut quic_lb = Vec::new();
    for lb in &block.quic_lb {
        let key =
            lb.key_path.as_ref().map(|path| load_key(path, access).map_err(|error| of_file(path, error)));
        quic_lb.push(key.transpose()?);
    }
    Ok(Arc::new(PassthroughSecrets { retry, quic_lb }))
}

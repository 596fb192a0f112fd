//! What is wrong with the files of a TLS configuration.

use std::fmt;
use std::path::{Path, PathBuf};

/// Kinds of fault, as metrics name them.
pub use lb_observe::metrics::CertFailure;

/// Why a file, or what was made of several, cannot be used. The detail never holds what stands in a key file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsError {
    /// The kind of fault.
    pub reason: CertFailure,
    path: Option<PathBuf>,
    detail: String,
}

impl TlsError {
    pub(crate) fn of(reason: CertFailure, path: &Path, detail: impl Into<String>) -> Self {
        Self { reason, path: Some(path.to_owned()), detail: detail.into() }
    }

    pub(crate) fn config(detail: impl fmt::Display) -> Self {
        Self { reason: CertFailure::Config, path: None, detail: detail.to_string() }
    }

    /// What is wrong, without the file.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The file that is meant, where it is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl std::error::Error for TlsError {}

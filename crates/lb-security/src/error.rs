//! What is wrong with the files of a TLS configuration.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a file, or what was made of several, cannot be used. The detail never holds what stands in a key file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsError {
    /// The kind of fault.
    pub reason: Reason,
    path: Option<PathBuf>,
    detail: String,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal,)+) => {
        /// Kinds of fault, each a metric label.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Reason {
            $($(#[$doc])* $variant,)+
        }

        impl Reason {
            /// Every label, in the order of declaration.
            pub const LABELS: &'static [&'static str] = &[$($label),+];

            /// The label in metrics.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

reasons! {
    /// A file cannot be read, or is larger than any such file is.
    Io = "io",
    /// A file of secrets can be read by group or others.
    Permissions = "permissions",
    /// A certificate is not PEM, or not a certificate.
    CertParse = "cert_parse",
    /// A key is not PEM, or of no kind that is known.
    KeyParse = "key_parse",
    /// There is no certificate in the file.
    EmptyChain = "empty_chain",
    /// There is no private key in the file.
    NoKey = "no_key",
    /// There are too many certificates in the file.
    ChainTooDeep = "chain_too_deep",
    /// The key is not that of the certificate.
    KeyMismatch = "key_mismatch",
    /// A certificate has passed its date.
    Expired = "expired",
    /// A certificate's time has not come.
    NotYetValid = "not_yet_valid",
    /// The authorities for the other side's certificates cannot be used.
    Authorities = "authorities",
    /// A revocation list cannot be used.
    RevocationList = "revocation_list",
    /// The file of ticket keys has a length that no number of keys has.
    TicketKeys = "ticket_keys",
    /// The parts do not go together.
    Config = "config",
}

impl TlsError {
    pub(crate) fn of(reason: Reason, path: &Path, detail: impl Into<String>) -> Self {
        Self { reason, path: Some(path.to_owned()), detail: detail.into() }
    }

    pub(crate) fn config(detail: impl fmt::Display) -> Self {
        Self { reason: Reason::Config, path: None, detail: detail.to_string() }
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

//! What is wrong with files, one by one. A load stops at the first fault, and an operator needs all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use lb_config::ClientAuth;
use rustls::crypto::aws_lc_rs::default_provider;

use crate::certificate::Identity;
use crate::client_auth::Verifier;
use crate::error::{CertFailure, TlsError};
use crate::files::{self, KeyAccess};

/// Which of the two files of an identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The chain.
    Certificate,
    /// The private key.
    Key,
}

/// What is wrong with a chain and its key.
pub fn identity_faults(
    cert_path: &Path,
    key_path: &Path,
    access: KeyAccess,
    now: SystemTime,
) -> Vec<(Part, TlsError)> {
    let Err(first) = Identity::load(cert_path, key_path, access, &default_provider(), now) else {
        return Vec::new();
    };
    let is_of_key = match first.reason {
        CertFailure::NoKey | CertFailure::KeyParse | CertFailure::KeyMismatch | CertFailure::Permissions => {
            true
        }
        _ => cert_path != key_path && first.path() == Some(key_path),
    };
    if is_of_key {
        return vec![(Part::Key, first)];
    }
    // The key was not checked yet. In one file with the chain it has the chain's fault.
    let key = (cert_path != key_path).then(|| files::private_key(key_path, access).err()).flatten();
    let key = key.map(|error| (Part::Key, error));
    std::iter::once((Part::Certificate, first)).chain(key).collect()
}

/// What is wrong with the files of client-certificate rules.
pub fn rules_fault(rules: &ClientAuth) -> Option<TlsError> {
    Verifier::load(rules, &Arc::new(default_provider())).err()
}

//! Verification of clients' certificates.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use lb_config::{ClientAuth, ClientAuthMode};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, VerifierBuilderError, WebPkiClientVerifier};

use crate::error::{CertFailure, TlsError};
use crate::files;
use crate::trust::{OfClients, Trusted};

/// A verifier, and a digest of all that it decides by.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// Differs as soon as mode, authorities or revocation lists do. Tickets are bound to it, so that a session cannot outlive
    /// the rules that its client was checked by (attacks T-02, T-06).
    pub(crate) digest: [u8; 32],
}

impl Verifier {
    /// Reads the files that `policy` names.
    pub(crate) fn load(policy: &ClientAuth, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut seal = Context::new(&SHA256);
        seal.update(policy.mode.as_str().as_bytes());
        let (ClientAuthMode::Request | ClientAuthMode::Require, Some(ca_path)) =
            (policy.mode, &policy.ca_path)
        else {
            let digest = finish(seal);
            return match policy.mode {
                ClientAuthMode::Off => Ok(Self { verifier: Arc::new(NoClientAuth), digest }),
                _ => Err(TlsError::config("client certificates are asked for, but no authorities are named")),
            };
        };
        let trusted = Trusted::load(ca_path, &mut |der| update(&mut seal, der))?;
        let lists = match &policy.crl_path {
            Some(path) => {
                let lists = files::revocation_lists(path)?;
                seal.update(b"lists");
                lists.iter().for_each(|list| update(&mut seal, list));
                Some(lists)
            }
            None => None,
        };
        // What a list would have to cover cannot stand for itself.
        let takes_named = lists.is_none();
        let chains: Option<Arc<dyn ClientCertVerifier>> = match trusted.issuers.is_empty() {
            true => None,
            false => {
                let roots = Arc::new(trusted.issuers.clone());
                let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
                let verifier = builder.with_crls(lists.unwrap_or_default()).build();
                Some(verifier.map_err(|error| unusable(&error, ca_path, policy.crl_path.as_deref()))?)
            }
        };
        let is_required = policy.mode == ClientAuthMode::Require;
        let verifier = OfClients::new(trusted, chains, takes_named, is_required, provider);
        Ok(Self { verifier: Arc::new(verifier), digest: finish(seal) })
    }
}

fn unusable(error: &VerifierBuilderError, ca_path: &Path, crl_path: Option<&Path>) -> TlsError {
    match (error, crl_path) {
        (VerifierBuilderError::InvalidCrl(what), Some(path)) => {
            TlsError::of(CertFailure::RevocationList, path, format!("cannot be used: {what:?}"))
        }
        _ => TlsError::of(CertFailure::Authorities, ca_path, format!("cannot be used: {error}")),
    }
}

/// With its length, so that no two lists of parts look alike.
fn update(seal: &mut Context, part: &[u8]) {
    seal.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
    seal.update(part);
}

fn finish(seal: Context) -> [u8; 32] {
    let mut digest = [0; 32];
    let whole = seal.finish();
    for (to, from) in digest.iter_mut().zip(whole.as_ref()) {
        *to = *from;
    }
    digest
}

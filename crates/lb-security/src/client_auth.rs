//! What is asked of clients' certificates.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use lb_config::{ClientAuth, ClientAuthMode};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};

use crate::error::{Reason, TlsError};
use crate::files;

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
        let roots = roots(ca_path, &mut |der| update(&mut seal, der))?;
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if let Some(path) = &policy.crl_path {
            let lists = files::revocation_lists(path)?;
            seal.update(b"lists");
            lists.iter().for_each(|list| update(&mut seal, list));
            builder = builder.with_crls(lists);
        }
        if policy.mode == ClientAuthMode::Request {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| match (&error, &policy.crl_path) {
            (rustls::server::VerifierBuilderError::InvalidCrl(what), Some(path)) => {
                TlsError::of(Reason::RevocationList, path, format!("cannot be used: {what:?}"))
            }
            _ => TlsError::of(Reason::Authorities, ca_path, format!("cannot be used: {error}")),
        })?;
        Ok(Self { verifier, digest: finish(seal) })
    }
}

/// The authorities in a file; `each` sees their DER.
pub(crate) fn roots(path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for der in files::authorities(path)? {
        each(&der);
        roots
            .add(der)
            .map_err(|error| TlsError::of(Reason::Authorities, path, format!("cannot be used: {error}")))?;
    }
    Ok(roots)
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

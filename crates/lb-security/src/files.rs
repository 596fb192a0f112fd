//! Reading the files of a TLS configuration, with bounds.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::error::{CertFailure, TlsError};

/// Certificates in a chain, the leaf included.
pub(crate) const MAX_CHAIN_DEPTH: usize = 6;

/// DER bytes of a whole chain: what one handshake message may carry (attack T-09).
pub(crate) const MAX_CHAIN_BYTES: usize = 60 * 1024;

/// The largest chain or key file.
const MAX_SMALL_FILE: u64 = 256 * 1024;

/// The largest file of authorities or revocation lists.
const MAX_LARGE_FILE: u64 = 16 * 1024 * 1024;

/// The largest file of ticket keys.
const MAX_TICKET_FILE: u64 = 16 * 1024;

/// Which users may have access to the file of a private key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyAccess {
    /// Its owner alone.
    Owner,
    /// Its group may read it too, as in the secrets of Kubernetes.
    Group,
}

impl KeyAccess {
    /// The setting of `[security] group_readable_keys`.
    pub fn of(config: &lb_config::Config) -> Self {
        if config.security.group_readable_keys { Self::Group } else { Self::Owner }
    }

    /// What is wrong with the permissions `mode`.
    pub(crate) fn refusal(self, mode: u32) -> Option<String> {
        let (mode, forbidden) = (mode & 0o777, if self == Self::Group { 0o037 } else { 0o077 });
        (mode & forbidden != 0).then(|| match self {
            Self::Owner => format!(
                "has mode {mode:04o}: group and others may not have access (chmod 600, or [security] group_readable_keys = true)"
            ),
            Self::Group => format!("has mode {mode:04o}: the group may only read, and others nothing (chmod 640)"),
        })
    }
}

/// A chain, leaf first.
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path, MAX_SMALL_FILE, None)?;
    let chain = certificates(path, &pem, CertFailure::CertParse)?;
    if chain.is_empty() {
        return Err(TlsError::of(CertFailure::EmptyChain, path, "holds no certificate"));
    }
    if chain.len() > MAX_CHAIN_DEPTH {
        let problem = format!("holds {} certificates; a chain has at most {MAX_CHAIN_DEPTH}", chain.len());
        return Err(TlsError::of(CertFailure::ChainTooDeep, path, problem));
    }
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if bytes > MAX_CHAIN_BYTES {
        let problem = format!("the chain has {bytes} bytes; at most {MAX_CHAIN_BYTES} fit into a handshake");
        return Err(TlsError::of(CertFailure::CertParse, path, problem));
    }
    Ok(chain)
}

/// A private key. The file may be read only by the users that `access` allows (attack T-07).
pub(crate) fn private_key(path: &Path, access: KeyAccess) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path, MAX_SMALL_FILE, Some(access))?;
    if is_encrypted(&pem) {
        let problem = "is encrypted, and nobody is there to type a passphrase: store it decrypted (openssl pkey -in OLD -out NEW)";
        return Err(TlsError::of(CertFailure::KeyParse, path, problem));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => {
            let other = match CertificateDer::from_pem_slice(&pem) {
                Ok(_) => ", but a certificate: are the paths of certificate and key exchanged?",
                Err(_) => " (PKCS#8, SEC1 or PKCS#1 in PEM)",
            };
            TlsError::of(CertFailure::NoKey, path, format!("holds no private key{other}"))
        }
        // The parser's own words may quote the file.
        _ => TlsError::of(CertFailure::KeyParse, path, "is not PEM"),
    })
}

/// Certificate authorities, at least one.
pub(crate) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = certificates(path, &read(path, MAX_LARGE_FILE, None)?, CertFailure::Authorities)?;
    if all.is_empty() {
        return Err(TlsError::of(CertFailure::Authorities, path, "holds no certificate"));
    }
    Ok(all)
}

/// Revocation lists, at least one.
pub(crate) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let pem = read(path, MAX_LARGE_FILE, None)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let lists = lists.map_err(|_| TlsError::of(CertFailure::RevocationList, path, "is not PEM"))?;
    if lists.is_empty() {
        return Err(TlsError::of(CertFailure::RevocationList, path, "holds no revocation list"));
    }
    Ok(lists)
}

/// The bytes of a small file that only the users which `access` allows may read.
pub(crate) fn secret(path: &Path, access: KeyAccess) -> Result<Vec<u8>, TlsError> {
    read(path, MAX_SMALL_FILE, Some(access))
}

/// The bytes of a file of ticket keys.
pub(crate) fn ticket_keys(path: &Path, access: KeyAccess) -> Result<Vec<u8>, TlsError> {
    read(path, MAX_TICKET_FILE, Some(access))
}

/// Whether a key is kept under a passphrase, in PKCS#8 or in the older way of OpenSSL (RFC 1421 §4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let marks: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
    marks.iter().any(|mark| pem.windows(mark.len()).any(|part| part == *mark))
}

fn certificates(
    path: &Path,
    pem: &[u8],
    reason: CertFailure,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.map_err(|_| TlsError::of(reason, path, "is not PEM"))
}

/// The whole file. What is checked is the file that is read, not what another has put in its place since.
fn read(path: &Path, largest: u64, secret: Option<KeyAccess>) -> Result<Vec<u8>, TlsError> {
    let unreadable =
        |error: std::io::Error| TlsError::of(CertFailure::Io, path, format!("cannot be read: {error}"));
    let file = lb_io::open_regular(path).map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    let mode = facts.permissions().mode() & 0o777;
    if let Some(problem) = secret.and_then(|access| access.refusal(mode)) {
        return Err(TlsError::of(CertFailure::Permissions, path, problem));
    }
    let mut bytes = Vec::new();
    file.take(largest.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size > largest) {
        return Err(TlsError::of(CertFailure::Io, path, format!("is larger than {largest} bytes")));
    }
    Ok(bytes)
}

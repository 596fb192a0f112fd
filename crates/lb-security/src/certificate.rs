//! One certificate with its key, and what is read out of certificates.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{CertFailure, TlsError};
use crate::files::KeyAccess;
use crate::{files, names};

/// A chain and its key, checked against each other and the clock.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) key: Arc<CertifiedKey>,
    /// The private key, for an implementation of TLS that is not rustls.
    pub(crate) private_key: PrivateKeyDer<'static>,
    /// Unix time at which the first certificate of the chain runs out.
    pub(crate) not_after: i64,
    /// DNS names of the leaf, in lower case.
    pub(crate) names: Vec<String>,
}

impl Identity {
    /// Reads chain and key.
    ///
    /// # Errors
    /// What is wrong with either, with their match, or with a date as of `now`.
    pub(crate) fn load(
        cert_path: &Path,
        key_path: &Path,
        access: KeyAccess,
        provider: &CryptoProvider,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let chain = files::chain(cert_path)?;
        let now = unix(now);
        let mut not_after = i64::MAX;
        let mut names = Vec::new();
        for (index, der) in chain.iter().enumerate() {
            let certificate = parse(der).ok_or_else(|| {
                TlsError::of(CertFailure::CertParse, cert_path, "holds what is no certificate")
            })?;
            let validity = certificate.validity();
            let (from, until) = (validity.not_before, validity.not_after);
            if until.timestamp() < now {
                let problem = format!("certificate {} of the chain has expired ({until})", index + 1);
                return Err(TlsError::of(CertFailure::Expired, cert_path, problem));
            }
            if from.timestamp() > now {
                let problem = format!("certificate {} of the chain is not valid yet ({from})", index + 1);
                return Err(TlsError::of(CertFailure::NotYetValid, cert_path, problem));
            }
            not_after = not_after.min(until.timestamp());
            if index == 0 {
                names = dns_names(&certificate);
            }
        }
        let private_key = files::private_key(key_path, access)?;
        let key = provider
            .key_provider
            .load_private_key(private_key.clone_key())
            .map_err(|_| TlsError::of(CertFailure::KeyParse, key_path, "is no key of a known kind"))?;
        let key = CertifiedKey::new(chain, key);
        if key.keys_match().is_err() {
            let problem = format!("is not the key of the certificate in {}", cert_path.display());
            return Err(TlsError::of(CertFailure::KeyMismatch, key_path, problem));
        }
        Ok(Self { key: Arc::new(key), private_key, not_after, names })
    }
}

/// The facts about a peer's certificate that are kept for logs and headers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerCertificate {
    /// The subject, as RFC 4514 writes it. What is not printable ASCII is escaped, so that it can stand in a header or a log.
    pub subject: String,
    /// SHA-256 of the certificate, in lower-case hex.
    pub sha256: String,
    /// The common name in the subject, escaped in the same way. Empty where there is none.
    pub common_name: String,
    /// The DNS names that it carries, in lower case.
    pub dns_names: Vec<String>,
    /// The URIs that it carries.
    pub uris: Vec<String>,
    /// Unix time at which it runs out.
    pub not_after: i64,
}

impl PeerCertificate {
    /// The facts of a leaf in DER that was accepted.
    pub fn of_der(der: &[u8]) -> Self {
        Self::of(&CertificateDer::from(der))
    }

    /// The facts of a leaf that the verifier has accepted.
    pub(crate) fn of(der: &CertificateDer<'_>) -> Self {
        let certificate = parse(der);
        let subject = certificate.as_ref().map(|certificate| certificate.subject().to_string());
        let common_name = certificate.as_ref().and_then(|certificate| {
            certificate.subject().iter_common_name().next()?.as_str().ok().map(printable)
        });
        Self {
            subject: printable(&subject.unwrap_or_default()),
            common_name: common_name.unwrap_or_default(),
            dns_names: certificate.as_ref().map(dns_names).unwrap_or_default(),
            uris: certificate.as_ref().map(uris).unwrap_or_default(),
            sha256: hex(digest(&SHA256, der).as_ref()),
            not_after: certificate
                .map_or(i64::MIN, |certificate| certificate.validity().not_after.timestamp()),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.filter(|name| names::is_server_name(name)).collect()
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let uris = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    uris.collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A subject is chosen by the issuer of the certificate; it may hold anything, and be long.
fn printable(text: &str) -> String {
    const LONGEST: usize = 1024;
    let mut safe = String::new();
    for char in text.chars() {
        if safe.len() >= LONGEST {
            break;
        }
        match char {
            ' '..='~' => safe.push(char),
            other => other.to_string().bytes().for_each(|byte| {
                let _ = write!(safe, "\\{byte:02X}");
            }),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_07_a_subject_cannot_break_out_of_a_header() {
        assert_eq!(printable("CN=a, O=b"), "CN=a, O=b");
        assert_eq!(printable("CN=a\r\nX: y\u{e9}"), "CN=a\\0D\\0AX: y\\C3\\A9");
        assert!(printable(&"\r".repeat(10_000)).len() < 1100);
    }
}

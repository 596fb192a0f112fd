//! What a file of certificate authorities is trusted for.
//!
//! Operators put two kinds of certificates into such a file: authorities, and the very certificate of a peer, often self-signed. An
//! authority vouches for what it has signed. Every certificate in the file, authority or not, also stands for itself: a peer that shows
//! exactly this certificate is taken, if the certificate is within its dates, is meant for this purpose, carries the name that is asked
//! for, and the peer holds its key. A certificate that is no authority vouches for nobody else: as a trust anchor of webpki it would,
//! because webpki does not ask of an anchor whether it may sign.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::error::{CertFailure, TlsError};
use crate::files;

/// What a certificate is shown for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To be reached as a server.
    Server,
    /// To be let in as a client.
    Client,
}

/// The certificates of a file.
#[derive(Debug)]
pub(crate) struct Trusted {
    /// Those that may have signed others.
    pub(crate) issuers: RootCertStore,
    /// All of them: each stands for itself.
    named: Vec<CertificateDer<'static>>,
    /// Names of issuers that a client may look for among its certificates.
    hints: Vec<DistinguishedName>,
}

impl Trusted {
    /// Reads a file; `each` sees the DER of every certificate.
    pub(crate) fn load(path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<Self, TlsError> {
        let unusable = |problem: String| TlsError::of(CertFailure::Authorities, path, problem);
        let mut trusted = Self { issuers: RootCertStore::empty(), named: Vec::new(), hints: Vec::new() };
        for der in files::authorities(path)? {
            each(&der);
            let certificate =
                parse(&der).ok_or_else(|| unusable("holds what is no certificate".to_owned()))?;
            let hint = if may_issue(&certificate) {
                trusted
                    .issuers
                    .add(der.clone())
                    .map_err(|error| unusable(format!("cannot be used: {error}")))?;
                certificate.subject().as_raw()
            } else {
                certificate.issuer().as_raw()
            };
            if !trusted.hints.iter().any(|known| known.as_ref() == hint) {
                trusted.hints.push(DistinguishedName::from(hint.to_vec()));
            }
            trusted.named.push(der);
        }
        Ok(trusted)
    }

    fn names(&self, certificate: &CertificateDer<'_>) -> bool {
        self.named.iter().any(|named| named == certificate)
    }

    /// Why none of the certificates can verify anything; `None` when one can. `name` is that which a server must have.
    pub(crate) fn futility(&self, name: Option<&ServerName<'_>>, now: UnixTime) -> Option<String> {
        let purpose = if name.is_some() { Purpose::Server } else { Purpose::Client };
        let mut why = None;
        for der in &self.named {
            let vouches = parse(der).is_some_and(|certificate| {
                may_issue(&certificate) && within_dates(&certificate, now).is_ok()
            });
            let stands = || stands_for_itself(der, purpose, name, now);
            match (vouches, stands()) {
                (true, _) | (false, Ok(())) => return None,
                (false, Err(error)) => why = why.or(Some(crate::failure::describe(&error))),
            }
        }
        why
    }
}

/// Whether a certificate may sign others. One of version 1 has no field for that, and may if it is a root.
fn may_issue(certificate: &X509Certificate<'_>) -> bool {
    if certificate.version() != X509Version::V3 {
        return certificate.subject().as_raw() == certificate.issuer().as_raw();
    }
    let signs = match certificate.key_usage() {
        Ok(usage) => usage.map(|usage| usage.value.key_cert_sign()),
        Err(_) => Some(false),
    };
    match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca && signs != Some(false),
        Ok(None) => signs == Some(true),
        Err(_) => false,
    }
}

/// Whether a certificate that the file names is good for its owner.
fn stands_for_itself(
    der: &CertificateDer<'_>,
    purpose: Purpose,
    name: Option<&ServerName<'_>>,
    now: UnixTime,
) -> Result<(), Error> {
    let certificate = parse(der).ok_or(CertificateError::BadEncoding)?;
    within_dates(&certificate, now)?;
    let is_meant = match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => {
            usage.value.any
                || match purpose {
                    Purpose::Server => usage.value.server_auth,
                    Purpose::Client => usage.value.client_auth,
                }
        }
        Err(_) => false,
    };
    if !is_meant {
        return Err(CertificateError::InvalidPurpose.into());
    }
    // Refuses what has extensions that must be understood and are not.
    let parsed = ParsedCertificate::try_from(der)?;
    name.map_or(Ok(()), |name| verify_server_name(&parsed, name))
}

fn within_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let time =
        |at: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at).unwrap_or_default()));
    let not_before = time(certificate.validity().not_before.timestamp());
    let not_after = time(certificate.validity().not_after.timestamp());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before });
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after });
    }
    Ok(())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

/// The methods that [`ServerCertVerifier`] and [`ClientCertVerifier`] have in common: whether the peer holds the key of its certificate
/// does not depend on who trusts it. For types with a `provider`.
macro_rules! signatures_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Verifies backends by a file of authorities.
#[derive(Debug)]
pub(crate) struct OfServers {
    trusted: Trusted,
    /// By chains, where the file has an authority.
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl OfServers {
    /// Reads the file.
    pub(crate) fn load(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let trusted = Trusted::load(path, &mut |_| {})?;
        let chains = match trusted.issuers.is_empty() {
            true => None,
            false => {
                let roots = Arc::new(trusted.issuers.clone());
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
                let unusable =
                    |error| TlsError::of(CertFailure::Authorities, path, format!("cannot be used: {error}"));
                Some(verifier.map_err(unusable)?)
            }
        };
        Ok(Self { trusted, chains, provider: Arc::clone(provider) })
    }
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trusted.names(end_entity) {
            stands_for_itself(end_entity, Purpose::Server, Some(server_name), now)?;
            return Ok(ServerCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => {
                chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    signatures_by_provider!();
}

/// Verifies clients by a file of authorities.
#[derive(Debug)]
pub(crate) struct OfClients {
    trusted: Trusted,
    /// By chains, where the file has an authority.
    chains: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether a certificate may stand for itself: not where each must be covered by a revocation list.
    takes_named: bool,
    is_required: bool,
    provider: Arc<CryptoProvider>,
}

impl OfClients {
    /// `chains` goes by the issuers of `trusted`.
    pub(crate) fn new(
        trusted: Trusted,
        chains: Option<Arc<dyn ClientCertVerifier>>,
        takes_named: bool,
        is_required: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        Self { trusted, chains, takes_named, is_required, provider: Arc::clone(provider) }
    }
}

impl ClientCertVerifier for OfClients {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trusted.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.takes_named && self.trusted.names(end_entity) {
            stands_for_itself(end_entity, Purpose::Client, None, now)?;
            return Ok(ClientCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    signatures_by_provider!();
}

/// Why a file of authorities can verify no peer: the backend `server_name`, or any client without a name. `None` when it can.
///
/// # Errors
/// When the file cannot be read.
pub fn futility_of_authorities(
    path: &Path,
    server_name: Option<&str>,
    now: std::time::SystemTime,
) -> Result<Option<String>, TlsError> {
    let trusted = Trusted::load(path, &mut |_| {})?;
    let seconds = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // A name that cannot stand in a certificate is an error of its own.
    let name = match server_name.map(ServerName::try_from) {
        Some(Err(_)) => return Ok(None),
        Some(Ok(name)) => Some(name),
        None => None,
    };
    Ok(trusted.futility(name.as_ref(), UnixTime::since_unix_epoch(seconds)))
}

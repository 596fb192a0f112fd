//! TLS towards a backend.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use lb_config::BackendTls;
use lb_core::address::Address;
use lb_core::log_limit::LogLimit;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::certificate::Identity;
use crate::error::TlsError;
use crate::failure::failure_of;
use crate::files::KeyAccess;
use crate::trust::OfServers;

/// Lines about failed handshakes that are written at once for the backends with the same settings.
const FAILURES_AT_ONCE: u32 = 5;

/// The time for each further line.
const FAILURES_EACH: Duration = Duration::from_secs(10);

/// How a backend is reached inside TLS. Shared by all its connections, so that they resume each other's sessions.
#[derive(Debug)]
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
    verifier: Arc<dyn ServerCertVerifier>,
    failures: LogLimit,
}

impl ClientTls {
    /// Reads the files that the backend's settings name. `alpn` is what is offered, the best first; empty = nothing.
    ///
    /// # Errors
    /// What is wrong with a file, or with the name that is to be verified.
    pub fn load(
        backend: &BackendTls,
        alpn: &[&[u8]],
        access: KeyAccess,
        now: SystemTime,
    ) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(default_provider());
        let name = ServerName::try_from(backend.verify_hostname.clone()).map_err(|_| {
            TlsError::config(format!("{} cannot stand in a certificate", backend.verify_hostname))
        })?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::config)?;
        let verifier: Arc<dyn ServerCertVerifier> = match &backend.ca_path {
            _ if !backend.verify_peer => Arc::new(Unverified(Arc::clone(&provider))),
            Some(path) => Arc::new(OfServers::load(path, &provider)?),
            None => WebPkiServerVerifier::builder_with_provider(system_roots()?, Arc::clone(&provider))
                .build()
                .map_err(TlsError::config)?,
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&verifier));
        let mut config = match &backend.client_certificate {
            Some(files) => {
                let identity = Identity::load(&files.cert_path, &files.key_path, access, &provider, now)?;
                let resolver = rustls::sign::SingleCertAndKey::from(identity.key);
                builder.with_client_cert_resolver(Arc::new(resolver))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let failures = LogLimit::new(FAILURES_AT_ONCE, FAILURES_EACH);
        Ok(Arc::new(Self { config: Arc::new(config), name, verifier, failures }))
    }

    /// The name that is looked for in the backend's certificate.
    pub fn server_name(&self) -> String {
        self.name.to_str().into_owned()
    }

    /// Judges the chain that a backend has shown, leaf first, at `now`, for an implementation of TLS that is not rustls.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn check(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), String> {
        let (leaf, rest) = chain.split_first().ok_or("no certificate was shown")?;
        let since_epoch = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since_epoch);
        let checked = self.verifier.verify_server_cert(leaf, rest, &self.name, &[], now);
        checked.map(drop).map_err(|error| crate::failure::describe(&error))
    }

    /// Writes to the log why TLS with a backend has failed, a few times at once and then now and again. An error that is none of TLS is
    /// left to the caller.
    pub fn tell(&self, address: Address, error: &io::Error) {
        if failure_of(error).is_none() {
            return;
        }
        if let Some(left_out) = self.failures.admit(Instant::now()) {
            let name = self.name.to_str();
            tracing::warn!(%address, server_name = %name, reason = %error, left_out, "TLS handshake with a backend failed");
        }
    }
}

/// The system's authorities, read once: they are many.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // Some systems ship certificates that no parser reads; the remaining ones count.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err(TlsError::config(
            "the system has no certificate authorities; name a file with tls_ca_path",
        ));
    }
    Ok(Arc::clone(roots))
}

/// `tls_verify_peer = false`: any peer is taken for the backend, as long as it holds the key that it shows.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

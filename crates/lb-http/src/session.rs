//! What a client's TLS handshake has settled for the requests that come over its connection.

use lb_core::route::{ConnectionFacts, ShownCertificate};
use lb_observe::access_log::TlsRecord;
use lb_security::{Accepted, PeerCertificate, TlsStream};

/// Facts of one TLS connection.
#[derive(Debug)]
pub struct Session {
    version: &'static str,
    alpn: Option<Box<[u8]>>,
    server_name: Option<Box<str>>,
    accepted: Option<Accepted>,
    certificate: Option<PeerCertificate>,
}

impl Session {
    /// The facts of a handshake that is over: the version of TLS as OpenSSL writes it, the protocol that ALPN has chosen, the name that the
    /// client asked for, the rules for client certificates that it was accepted under where they differ by name, and the certificate that it
    /// has shown and that was accepted.
    pub fn new(
        version: &'static str,
        alpn: Option<&[u8]>,
        server_name: Option<&str>,
        accepted: Option<Accepted>,
        certificate: Option<PeerCertificate>,
    ) -> Self {
        let (alpn, server_name) = (alpn.map(Box::from), server_name.map(Box::from));
        Self { version, alpn, server_name, accepted, certificate }
    }

    /// The facts of a connection over TCP whose handshake is over.
    pub(crate) fn of(stream: &TlsStream) -> Self {
        let certificate = stream.peer_certificate().cloned();
        Self::new(stream.version(), stream.alpn(), stream.server_name(), stream.accepted(), certificate)
    }

    /// The certificate that the client has shown, verified.
    pub(crate) fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_ref()
    }

    /// Whether requests for `authority` may come over the connection; if not, they are answered 421 (attack T-03).
    pub(crate) fn serves(&self, authority: &[u8]) -> bool {
        self.accepted.as_ref().is_none_or(|accepted| accepted.serves(authority))
    }

    /// What conditions of routes look at.
    pub(crate) fn facts(&self) -> ConnectionFacts<'_> {
        ConnectionFacts {
            server_name: self.server_name.as_deref(),
            alpn: self.alpn.as_deref(),
            certificate: self.certificate.as_ref().map(|certificate| ShownCertificate {
                sha256: &certificate.sha256,
                subject: &certificate.subject,
                dns_names: &certificate.dns_names,
                uris: &certificate.uris,
            }),
            ..ConnectionFacts::default()
        }
    }

    /// For the access log.
    pub(crate) fn record(&self) -> TlsRecord<'_> {
        TlsRecord {
            version: self.version,
            alpn: self.alpn.as_deref(),
            server_name: self.server_name.as_deref().map(str::as_bytes),
        }
    }
}

//! Why a TLS connection failed, in the terms that logs, metrics and peers get.

use std::fmt;
use std::io;

use lb_observe::metrics::{TlsFault, TlsResult};
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

macro_rules! failures {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)+) => {
        /// Kinds of failure.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum TlsFailure {
            $($(#[$doc])* $variant,)+
        }

        impl TlsFailure {
            fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

failures! {
    /// The handshake took too long.
    Timeout = "the handshake took too long";
    /// The peer went away before the handshake was over.
    Closed = "the peer closed the connection during the handshake";
    /// The peer sent a fatal alert.
    Alert = "the peer sent an alert";
    /// What the peer sends is not TLS (attack T-05).
    NotTls = "the peer does not speak TLS";
    /// A hello or a whole handshake above its cap (attack T-01).
    TooLarge = "the peer's part of the handshake is too large";
    /// Nothing in common: version, cipher suite, group or ALPN.
    Incompatible = "no TLS version, cipher suite, group or protocol in common";
    /// The peer's certificate is missing, wrong, out of date or revoked.
    Certificate = "the peer's certificate is missing or not accepted";
    /// Too many records without data (attack T-04).
    Flood = "too many TLS records without data";
    /// The connection ended without close_notify: what came may not be all.
    Truncated = "the connection ended without close_notify";
    /// Anything else that breaks the protocol.
    Protocol = "the peer breaks the TLS protocol";
    /// A fault on our side.
    Internal = "TLS failed on our side";
}

impl TlsFailure {
    /// How a handshake that failed so is counted.
    pub fn result(self) -> TlsResult {
        match self {
            Self::Timeout => TlsResult::Timeout,
            Self::Closed | Self::Truncated => TlsResult::Closed,
            Self::Alert => TlsResult::Alert,
            Self::NotTls => TlsResult::NotTls,
            Self::TooLarge => TlsResult::TooLarge,
            Self::Incompatible => TlsResult::Incompatible,
            Self::Certificate => TlsResult::Certificate,
            Self::Flood | Self::Protocol => TlsResult::Protocol,
            Self::Internal => TlsResult::Internal,
        }
    }

    /// How an established connection that failed so is counted.
    pub fn fault(self) -> TlsFault {
        match self {
            Self::Flood => TlsFault::Flood,
            Self::Truncated | Self::Closed | Self::Timeout => TlsFault::Truncated,
            Self::Alert => TlsFault::Alert,
            _ => TlsFault::Protocol,
        }
    }

    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Self::Incompatible,
            Error::AlertReceived(_) => Self::Alert,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            Error::InvalidCertificate(_)
            | Error::InvalidCertRevocationList(_)
            | Error::NoCertificatesPresented
            | Error::UnsupportedNameType => Self::Certificate,
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            Error::InvalidMessage(
                InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
            ) => Self::TooLarge,
            Error::PeerMisbehaved(
                rustls::PeerMisbehaved::TooManyKeyUpdateRequests
                | rustls::PeerMisbehaved::TooManyEmptyFragments
                | rustls::PeerMisbehaved::TooManyRenegotiationRequests
                | rustls::PeerMisbehaved::TooManyWarningAlertsReceived,
            ) => Self::Flood,
            Error::EncryptError | Error::FailedToGetRandomBytes | Error::FailedToGetCurrentTime => {
                Self::Internal
            }
            _ => Self::Protocol,
        }
    }

    /// The error of a stream that failed so; `detail` is for the log, never for a peer.
    pub(crate) fn error(self, detail: Option<&Error>) -> io::Error {
        self.with(detail.map(describe))
    }

    /// The error of a stream that failed so, for a cause that is no error of TLS.
    pub fn because(self, cause: impl fmt::Display) -> io::Error {
        self.with(Some(cause.to_string()))
    }

    fn with(self, detail: Option<String>) -> io::Error {
        let kind = match self {
            Self::Timeout => io::ErrorKind::TimedOut,
            Self::Closed | Self::Truncated => io::ErrorKind::UnexpectedEof,
            Self::Alert => io::ErrorKind::ConnectionAborted,
            Self::Internal => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, StreamError { failure: self, detail })
    }
}

/// In words of ours where rustls would print what a certificate holds.
pub(crate) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Revoked) => "the certificate is revoked".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate comes from no known authority".to_owned()
        }
        // Self-signed ones, which are authorities themselves or have the name of one.
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the certificate comes from no known authority: the one of its name has not signed it".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string() == "CaUsedAsEndEntity" =>
        {
            "the certificate comes from no known authority: it is one itself".to_owned()
        }
        _ => {
            let mut text = error.to_string();
            text.truncate(text.char_indices().nth(200).map_or(text.len(), |(at, _)| at));
            text
        }
    }
}

/// Why a TLS stream failed, when it was TLS that failed.
pub fn failure_of(error: &io::Error) -> Option<TlsFailure> {
    error.get_ref()?.downcast_ref::<StreamError>().map(|error| error.failure)
}

#[derive(Debug)]
struct StreamError {
    failure: TlsFailure,
    detail: Option<String>,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.failure.text())?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StreamError {}

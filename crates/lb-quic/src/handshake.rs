//! How handshakes end, in the words of metrics and errors.

use std::io;
use std::time::Instant;

use lb_observe::metrics::TlsResult;
use lb_security::TlsFailure;

use crate::connection::Quic;

/// How a client's handshake has failed, if it has: alerts are told as codes from 0x100 on (RFC 9001 §4.8).
pub(crate) fn of_client(quic: &Quic) -> Option<TlsResult> {
    let alert = |error: &quiche::ConnectionError| {
        error.error_code.checked_sub(0x100).filter(|alert| !error.is_app && *alert < 0x100)
    };
    if let Some(error) = quic.local_error() {
        return Some(match alert(error) {
            // handshake_failure, protocol_version, no_application_protocol
            Some(40 | 70 | 120) => TlsResult::Incompatible,
            // From bad_certificate to certificate_unknown, unknown_ca, certificate_required
            Some(42..=46 | 48 | 116) => TlsResult::Certificate,
            Some(80) => TlsResult::Internal,
            _ => TlsResult::Protocol,
        });
    }
    quic.peer_error().and_then(alert).map(|_| TlsResult::Alert)
}

/// How a handshake with a backend that is to choose `protocol` has ended, if it has; it may take until `limit`. `otherwise` is what is said of
/// another protocol.
pub(crate) fn with_backend(
    quic: &Quic,
    protocol: &[u8],
    otherwise: &'static str,
    limit: Instant,
    now: Instant,
) -> Option<io::Result<TlsResult>> {
    if quic.is_established() {
        return Some(if quic.application_proto() != protocol {
            Err(TlsFailure::Incompatible.because(otherwise))
        } else if quic.is_resumed() {
            Ok(TlsResult::Resumed)
        } else {
            Ok(TlsResult::Full)
        });
    }
    let error = if let Some(error) = quic.local_error().or(quic.peer_error()) {
        of_backend(error)
    } else if now >= limit {
        io::ErrorKind::TimedOut.into()
    } else if quic.is_closed() || quic.is_timed_out() {
        io::ErrorKind::ConnectionRefused.into()
    } else {
        return None;
    };
    Some(Err(error))
}

/// Why a handshake with a backend has failed: alerts of TLS are errors of the transport (RFC 9001 §4.8).
fn of_backend(error: &quiche::ConnectionError) -> io::Error {
    const ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
    const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
    // From `bad_certificate` to `unknown_ca`.
    const CERTIFICATE: std::ops::RangeInclusive<u64> = 0x100 + 42..=0x100 + 48;
    match error.error_code {
        NO_APPLICATION_PROTOCOL => TlsFailure::Incompatible.because("no application protocol in common"),
        code if CERTIFICATE.contains(&code) => {
            TlsFailure::Certificate.because("it is not accepted over QUIC")
        }
        code if ALERTS.contains(&code) => {
            TlsFailure::Alert.because(format!("alert {}", code.saturating_sub(0x100)))
        }
        code => TlsFailure::Protocol.because(format!("QUIC error {code:#x}")),
    }
}

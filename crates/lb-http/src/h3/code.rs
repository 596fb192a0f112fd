//! Error codes, and the error that breaks a rule.

use lb_core::failure::{Reset, ResetReason};

/// Why a stream or the connection ends (RFC 9114 §8.1, RFC 9204 §6). Unknown codes are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct H3Code(pub u64);

#[rustfmt::skip]
#[allow(missing_docs, reason = "the names are those of RFC 9114 §8.1, RFC 9204 §6 and RFC 9297 §5.2")]
impl H3Code {
    pub const DATAGRAM_ERROR: Self = Self(0x33);
    pub const NO_ERROR: Self = Self(0x100);
    pub const GENERAL_PROTOCOL_ERROR: Self = Self(0x101);
    pub const INTERNAL_ERROR: Self = Self(0x102);
    pub const STREAM_CREATION_ERROR: Self = Self(0x103);
    pub const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    pub const FRAME_UNEXPECTED: Self = Self(0x105);
    pub const FRAME_ERROR: Self = Self(0x106);
    pub const EXCESSIVE_LOAD: Self = Self(0x107);
    pub const ID_ERROR: Self = Self(0x108);
    pub const SETTINGS_ERROR: Self = Self(0x109);
    pub const MISSING_SETTINGS: Self = Self(0x10a);
    pub const REQUEST_REJECTED: Self = Self(0x10b);
    pub const REQUEST_CANCELLED: Self = Self(0x10c);
    pub const REQUEST_INCOMPLETE: Self = Self(0x10d);
    pub const MESSAGE_ERROR: Self = Self(0x10e);
    pub const CONNECT_ERROR: Self = Self(0x10f);
    pub const VERSION_FALLBACK: Self = Self(0x110);
    pub const QPACK_DECOMPRESSION_FAILED: Self = Self(0x200);
    pub const QPACK_ENCODER_STREAM_ERROR: Self = Self(0x201);
    pub const QPACK_DECODER_STREAM_ERROR: Self = Self(0x202);
}

impl H3Code {
    /// The name in the RFC, or `UNKNOWN`: a fixed set, fit for a label.
    pub fn name(self) -> &'static str {
        const HTTP: [&str; 17] = [
            "H3_NO_ERROR",
            "H3_GENERAL_PROTOCOL_ERROR",
            "H3_INTERNAL_ERROR",
            "H3_STREAM_CREATION_ERROR",
            "H3_CLOSED_CRITICAL_STREAM",
            "H3_FRAME_UNEXPECTED",
            "H3_FRAME_ERROR",
            "H3_EXCESSIVE_LOAD",
            "H3_ID_ERROR",
            "H3_SETTINGS_ERROR",
            "H3_MISSING_SETTINGS",
            "H3_REQUEST_REJECTED",
            "H3_REQUEST_CANCELLED",
            "H3_REQUEST_INCOMPLETE",
            "H3_MESSAGE_ERROR",
            "H3_CONNECT_ERROR",
            "H3_VERSION_FALLBACK",
        ];
        const QPACK: [&str; 3] =
            ["QPACK_DECOMPRESSION_FAILED", "QPACK_ENCODER_STREAM_ERROR", "QPACK_DECODER_STREAM_ERROR"];
        let name = match self.0 {
            0x33 => Some(&"H3_DATAGRAM_ERROR"),
            code @ 0x100..0x200 => HTTP.get((code - 0x100) as usize),
            code @ 0x200.. => QPACK.get(usize::try_from(code - 0x200).unwrap_or(usize::MAX)),
            _ => None,
        };
        name.copied().unwrap_or("UNKNOWN")
    }

    /// The code of a reset that means this.
    pub fn of(reason: ResetReason) -> Self {
        match reason {
            ResetReason::Refused => Self::REQUEST_REJECTED,
            ResetReason::Cancelled => Self::REQUEST_CANCELLED,
            ResetReason::ExcessiveLoad => Self::EXCESSIVE_LOAD,
            // HTTP/3 has no code for security that does not suffice.
            ResetReason::InadequateSecurity | ResetReason::Fault | ResetReason::Other => Self::INTERNAL_ERROR,
        }
    }

    /// What a reset of a stream with this code means, whatever the protocol.
    pub fn reset(self) -> Reset {
        let reason = match self {
            Self::REQUEST_REJECTED => ResetReason::Refused,
            Self::REQUEST_CANCELLED => ResetReason::Cancelled,
            Self::EXCESSIVE_LOAD => ResetReason::ExcessiveLoad,
            // The code names a protocol to go to, not a fault.
            Self::VERSION_FALLBACK => ResetReason::Other,
            code if code.name() != "UNKNOWN" => ResetReason::Fault,
            _ => ResetReason::Other,
        };
        Reset { reason, code: self.0 }
    }
}

impl std::fmt::Debug for H3Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:#x})", self.name(), self.0)
    }
}

/// What an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H3Scope {
    /// Everything: CONNECTION_CLOSE.
    Connection,
    /// One stream: RESET_STREAM and STOP_SENDING.
    Stream,
}

/// Bytes of the peer that break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H3Error {
    /// What it ends.
    pub scope: H3Scope,
    /// What the peer is told.
    pub code: H3Code,
    /// What the log is told.
    pub what: &'static str,
}

impl H3Error {
    /// An error that ends the connection.
    pub const fn connection(code: H3Code, what: &'static str) -> Self {
        Self { scope: H3Scope::Connection, code, what }
    }

    /// An error that ends one stream.
    pub const fn stream(code: H3Code, what: &'static str) -> Self {
        Self { scope: H3Scope::Stream, code, what }
    }

    /// A malformed message (RFC 9114 §4.1.2).
    pub const fn message(what: &'static str) -> Self {
        Self::stream(H3Code::MESSAGE_ERROR, what)
    }
}

#[cfg(test)]
mod tests {
    use lb_core::grpc::Status;

    use super::*;

    #[test]
    fn names_stand_at_their_codes() {
        for (code, name) in [
            (0x33, "H3_DATAGRAM_ERROR"),
            (0xff, "UNKNOWN"),
            (0x100, "H3_NO_ERROR"),
            (0x106, "H3_FRAME_ERROR"),
            (0x10a, "H3_MISSING_SETTINGS"),
            (0x110, "H3_VERSION_FALLBACK"),
            (0x111, "UNKNOWN"),
            (0x200, "QPACK_DECOMPRESSION_FAILED"),
            (0x202, "QPACK_DECODER_STREAM_ERROR"),
            (0x203, "UNKNOWN"),
            (u64::MAX, "UNKNOWN"),
        ] {
            assert_eq!(H3Code(code).name(), name);
        }
    }

    #[test]
    fn resets_keep_their_meaning() {
        use ResetReason::{Cancelled, ExcessiveLoad, Fault, Refused};
        for reason in [Refused, Cancelled, ExcessiveLoad, Fault] {
            assert_eq!(H3Code::of(reason).reset().reason, reason);
        }
        let status = |code: H3Code| Status::from_reset(code.reset().reason).code();
        assert_eq!(status(H3Code::NO_ERROR), 13);
        assert_eq!(status(H3Code::REQUEST_REJECTED), 14);
        assert_eq!(status(H3Code::REQUEST_CANCELLED), 1);
        assert_eq!(status(H3Code::EXCESSIVE_LOAD), 8);
        assert_eq!(status(H3Code::VERSION_FALLBACK), 2);
        assert_eq!(status(H3Code(0x4242)), 2);
    }
}

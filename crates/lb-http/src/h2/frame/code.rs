//! Numbers with names: error codes and settings, and the error that a frame causes.

use lb_core::failure::{Reset, ResetReason};
use lb_core::reason::Reason;

/// Why a stream or the connection ends (RFC 9113 §7). Unknown codes are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

#[rustfmt::skip]
#[allow(missing_docs, reason = "the names are those of RFC 9113 §7")]
impl ErrorCode {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const CONNECT_ERROR: Self = Self(0xa);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);
}

impl ErrorCode {
    /// The name in the RFC, or `UNKNOWN`: a fixed set, fit for a label.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(self.0 as usize).copied().unwrap_or("UNKNOWN")
    }

    /// The code of a reset that means this.
    pub fn of(reason: ResetReason) -> Self {
        match reason {
            ResetReason::Refused => Self::REFUSED_STREAM,
            ResetReason::Cancelled => Self::CANCEL,
            ResetReason::ExcessiveLoad => Self::ENHANCE_YOUR_CALM,
            ResetReason::InadequateSecurity => Self::INADEQUATE_SECURITY,
            ResetReason::Fault | ResetReason::Other => Self::INTERNAL_ERROR,
        }
    }

    /// What a reset of a stream with this code means, whatever the protocol (as the gRPC protocol, "Errors", reads them).
    pub fn reset(self) -> Reset {
        let reason = match self {
            Self::REFUSED_STREAM => ResetReason::Refused,
            Self::CANCEL => ResetReason::Cancelled,
            Self::ENHANCE_YOUR_CALM => ResetReason::ExcessiveLoad,
            Self::INADEQUATE_SECURITY => ResetReason::InadequateSecurity,
            Self::NO_ERROR
            | Self::PROTOCOL_ERROR
            | Self::INTERNAL_ERROR
            | Self::FLOW_CONTROL_ERROR
            | Self::SETTINGS_TIMEOUT
            | Self::FRAME_SIZE_ERROR
            | Self::COMPRESSION_ERROR
            | Self::CONNECT_ERROR => ResetReason::Fault,
            _ => ResetReason::Other,
        };
        Reset { reason, code: u64::from(self.0) }
    }
}

impl std::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:#x})", self.name(), self.0)
    }
}

/// A setting (RFC 9113 §6.5.2). Unknown settings are kept, and ignored where settings are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SettingId(pub u16);

#[rustfmt::skip]
#[allow(missing_docs, reason = "the names are those of RFC 9113 §6.5.2, RFC 8441 §3 and RFC 9218 §2.1")]
impl SettingId {
    pub const HEADER_TABLE_SIZE: Self = Self(0x1);
    pub const ENABLE_PUSH: Self = Self(0x2);
    pub const MAX_CONCURRENT_STREAMS: Self = Self(0x3);
    pub const INITIAL_WINDOW_SIZE: Self = Self(0x4);
    pub const MAX_FRAME_SIZE: Self = Self(0x5);
    pub const MAX_HEADER_LIST_SIZE: Self = Self(0x6);
    pub const ENABLE_CONNECT_PROTOCOL: Self = Self(0x8);
    pub const NO_RFC7540_PRIORITIES: Self = Self(0x9);
}

/// What an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: GOAWAY, and close.
    Connection,
    /// One stream: RST_STREAM.
    Stream(u32),
}

/// A frame that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// What it ends.
    pub scope: Scope,
    /// What the peer is told.
    pub code: ErrorCode,
    /// What the log is told.
    pub what: &'static str,
    /// The budget that is used up, if that is the error.
    pub excess: Option<Reason>,
}

impl FrameError {
    /// An error that ends the connection.
    pub const fn connection(code: ErrorCode, what: &'static str) -> Self {
        Self { scope: Scope::Connection, code, what, excess: None }
    }

    /// An error that ends one stream.
    pub const fn stream(stream: u32, code: ErrorCode, what: &'static str) -> Self {
        Self { scope: Scope::Stream(stream), code, what, excess: None }
    }

    /// Too much of something: the budget of this reason is used up.
    pub const fn excess(scope: Scope, reason: Reason) -> Self {
        Self { scope, code: ErrorCode::ENHANCE_YOUR_CALM, what: reason.name(), excess: Some(reason) }
    }
}

#[cfg(test)]
mod tests {
    use lb_core::grpc::Status;

    use super::*;

    #[test]
    fn resets_mean_to_calls_what_their_protocol_says() {
        let status = |code| Status::from_reset(ErrorCode(code).reset().reason).code();
        let codes: Vec<u8> = (0x0..=0xe).map(status).collect();
        assert_eq!(codes, [13, 13, 13, 13, 13, 2, 13, 14, 1, 13, 13, 8, 7, 2, 2]);
        assert_eq!(status(u32::MAX), 2);
    }
}

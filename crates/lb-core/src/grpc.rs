//! How gRPC calls end, and the messages of the health protocol.

pub mod health;

use crate::failure::ResetReason;

/// A `grpc-status` (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the status of that name")]
#[repr(u8)]
pub enum Status {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Status {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether it says that the server is broken, not that it declines the call.
    pub fn is_breakdown(self) -> bool {
        matches!(self, Self::Internal | Self::Unavailable | Self::DataLoss)
    }

    /// The number as it stands in a field.
    pub fn text(self) -> &'static str {
        TEXTS.get(usize::from(self.code())).map_or("2", |(text, _)| text)
    }

    /// The name, for the label of a metric.
    pub fn name(self) -> &'static str {
        TEXTS.get(usize::from(self.code())).map_or("UNKNOWN", |(_, name)| name)
    }

    /// Reads the value of a `grpc-status` field. What is no known number is [`Self::Unknown`], as clients read it.
    pub fn parse(value: &[u8]) -> Self {
        let number = |sum: u8, byte: &u8| match byte {
            b'0'..=b'9' => sum.checked_mul(10)?.checked_add(byte - b'0'),
            _ => None,
        };
        let code = match value {
            [] => None,
            _ => value.iter().try_fold(0, number),
        };
        code.and_then(|code| Self::ALL.get(usize::from(code)).copied()).unwrap_or(Self::Unknown)
    }

    /// The status of a response that bears none of its own, by its HTTP status
    /// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
    pub fn from_http(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// The status of a call that the gateway refuses with what would be this HTTP status. Unlike the table for clients it knows the cause
    /// of each.
    pub fn from_refusal(status: u16) -> Self {
        match status {
            413 | 414 | 431 => Self::ResourceExhausted,
            408 => Self::DeadlineExceeded,
            _ => Self::from_http(status),
        }
    }

    /// The status of a stream that was reset (the protocol, "Errors").
    pub fn from_reset(reason: ResetReason) -> Self {
        match reason {
            ResetReason::Fault => Self::Internal,
            ResetReason::Refused => Self::Unavailable,
            ResetReason::Cancelled => Self::Cancelled,
            ResetReason::ExcessiveLoad => Self::ResourceExhausted,
            ResetReason::InadequateSecurity => Self::PermissionDenied,
            ResetReason::Other => Self::Unknown,
        }
    }
}

/// Number and name of each status, by its code.
const TEXTS: [(&str, &str); 17] = [
    ("0", "OK"),
    ("1", "CANCELLED"),
    ("2", "UNKNOWN"),
    ("3", "INVALID_ARGUMENT"),
    ("4", "DEADLINE_EXCEEDED"),
    ("5", "NOT_FOUND"),
    ("6", "ALREADY_EXISTS"),
    ("7", "PERMISSION_DENIED"),
    ("8", "RESOURCE_EXHAUSTED"),
    ("9", "FAILED_PRECONDITION"),
    ("10", "ABORTED"),
    ("11", "OUT_OF_RANGE"),
    ("12", "UNIMPLEMENTED"),
    ("13", "INTERNAL"),
    ("14", "UNAVAILABLE"),
    ("15", "DATA_LOSS"),
    ("16", "UNAUTHENTICATED"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_texts_belong_together() {
        for (code, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!((usize::from(status.code()), status.text()), (code, &*code.to_string()));
            assert_eq!(Status::parse(status.text().as_bytes()), status);
            let camel: String = format!("{status:?}").to_ascii_uppercase();
            assert_eq!(status.name().replace('_', ""), camel);
        }
        for odd in ["", "17", "-1", "256", "00000000000000000000014x", "4294967296", "ok"] {
            assert_eq!(Status::parse(odd.as_bytes()), Status::Unknown, "{odd:?}");
        }
        assert_eq!(Status::parse(b"014"), Status::Unavailable);
    }

    #[test]
    fn http_statuses_map_as_the_table_says() {
        let mapped = |status: u16| Status::from_http(status).code();
        let table = [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (502, 14), (503, 14), (504, 14)];
        for (http, grpc) in table {
            assert_eq!(mapped(http), grpc, "{http}");
        }
        for other in [200, 204, 301, 402, 409, 413, 418, 431, 499, 500, 501, 505] {
            assert_eq!(mapped(other), 2, "{other}");
        }
    }

    #[test]
    fn refusals_say_what_was_too_much() {
        let mapped = |status: u16| Status::from_refusal(status).code();
        assert_eq!([413, 414, 431, 503, 400, 405].map(mapped), [8, 8, 8, 14, 13, 2]);
    }
}

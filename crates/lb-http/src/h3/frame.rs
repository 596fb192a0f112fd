//! Frames (RFC 9114 §7): reading those of a request stream and of a control stream, and writing them.

pub mod control;
pub mod message;
pub mod write;

use super::code::{H3Code, H3Error};

/// Which side of a connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The peer is a client.
    Server,
    /// The peer is a server.
    Client,
}

pub(crate) const DATA: u64 = 0x0;
pub(crate) const HEADERS: u64 = 0x1;
pub(crate) const CANCEL_PUSH: u64 = 0x3;
pub(crate) const SETTINGS: u64 = 0x4;
pub(crate) const PUSH_PROMISE: u64 = 0x5;
pub(crate) const GOAWAY: u64 = 0x7;
pub(crate) const MAX_PUSH_ID: u64 = 0xd;
/// PRIORITY_UPDATE of a request (RFC 9218 §7.2).
pub(crate) const PRIORITY_UPDATE_REQUEST: u64 = 0xf_0700;
/// PRIORITY_UPDATE of a push.
pub(crate) const PRIORITY_UPDATE_PUSH: u64 = 0xf_0701;

/// Whether a type was a frame of HTTP/2 that HTTP/3 does without (RFC 9114 §7.2.8).
pub(crate) fn is_of_http2(kind: u64) -> bool {
    matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
}

/// A frame that may not stand where it stands.
pub(crate) const fn unexpected(what: &'static str) -> H3Error {
    H3Error::connection(H3Code::FRAME_UNEXPECTED, what)
}

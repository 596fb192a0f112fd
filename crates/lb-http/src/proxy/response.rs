//! The response of an exchange, as far as the client has it.

use lb_core::head::{BodyLength, ResponseHead};
use lb_io::pipe::Pipe;
use tokio::time::Instant;

/// What the client was told.
#[derive(Debug, Default)]
pub(super) struct Response {
    /// Status of the final head; 0 while there is none.
    pub(super) status: u16,
    /// Interim responses of backends.
    pub(super) interims: u32,
    /// One of them was passed to the client.
    pub(super) interim_passed: bool,
    /// When the first interim response came.
    pub(super) interim_since: Option<Instant>,
    /// The client was asked for its body by 100 (Continue).
    pub(super) continues: bool,
    pub(super) done: bool,
    /// Its length was not announced: trailers can end it at any time.
    pub(super) takes_trailers: bool,
    /// Bytes on their way past user space.
    pub(super) pipe: Option<Pipe>,
    /// Bytes that its body may still have, where the route says so.
    pub(super) left: Option<u64>,
    /// It had more.
    pub(super) over: bool,
}

impl Response {
    /// Whether a piece of the body may pass.
    #[inline]
    pub(super) fn takes(&mut self, bytes: &[u8]) -> bool {
        if let Some(left) = &mut self.left {
            match left.checked_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) {
                Some(rest) => *left = rest,
                None => self.over = true,
            }
        }
        !self.over
    }

    /// Whether a response announces more than it may have.
    pub(super) fn is_too_large(&self, head: &ResponseHead) -> bool {
        matches!((self.left, head.body), (Some(most), BodyLength::Known(length)) if length > most)
    }

    /// Whether anything has reached the client, interim responses included: what follows can be no other response.
    pub(super) fn has_begun(&self) -> bool {
        self.status != 0 || self.interim_passed
    }

    /// Takes note of a final head that goes to the client.
    pub(super) fn begun(&mut self, head: &ResponseHead) {
        self.status = head.status;
        self.takes_trailers = head.body == BodyLength::Unknown;
    }
}

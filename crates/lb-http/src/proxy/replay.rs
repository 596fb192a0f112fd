//! The beginning of a request's body, kept while no backend has answered: a backend that speaks HTTP/2 may say that it has not processed a
//! request (RFC 9113 §8.7) when a small body has left long since.

use std::task::{Context, Poll};

use lb_core::head::Fields;

use crate::message::{Gone, Sink};

/// The largest body that is kept.
const MAX_BYTES: usize = 16 * 1024;

/// What was taken from the client and may have to be sent again.
#[derive(Debug, Default)]
pub(super) struct Replay {
    bytes: Vec<u8>,
    /// Something is missing.
    broken: bool,
}

impl Replay {
    /// Keeps a piece of the body, if it still belongs to a whole.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.bytes.len().saturating_add(piece.len()) > MAX_BYTES {
            self.forget();
        } else if !self.broken {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// Keeps nothing of this body, now and later.
    pub(super) fn forget(&mut self) {
        self.broken = true;
        self.bytes = Vec::new();
    }

    /// Whether all that was taken of the body is here.
    pub(super) fn is_whole(&self) -> bool {
        !self.broken
    }

    /// Sends it again.
    pub(super) fn send(&self, cx: &mut Context<'_>, to: &mut impl Sink) {
        if !self.bytes.is_empty() {
            to.data(cx, &self.bytes);
        }
    }
}

/// Keeps a body on its way.
pub(super) struct Keep<'a, S> {
    pub(super) to: &'a mut S,
    pub(super) replay: &'a mut Replay,
}

impl<S: Sink> Sink for Keep<'_, S> {
    #[inline]
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.replay.push(bytes);
        self.to.data(cx, bytes);
    }

    fn trailers(&mut self, fields: &Fields) {
        self.replay.forget();
        self.to.trailers(fields);
    }

    fn end(&mut self) {
        self.to.end();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.to.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_whole_or_not_at_all() {
        let mut replay = Replay::default();
        replay.push(&[0; MAX_BYTES - 1]);
        replay.push(&[0; 1]);
        assert!(replay.is_whole() && replay.bytes.len() == MAX_BYTES);
        replay.push(&[0; 1]);
        assert!(!replay.is_whole() && replay.bytes.capacity() == 0);
        replay.push(&[0; 1]);
        assert!(!replay.is_whole() && replay.bytes.capacity() == 0);
    }
}

//! Requests that wait on purpose before anything else becomes of them.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::exchange::{Exchange, Stage, Turn};
use crate::message::Front;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Delayed {
    /// Until when.
    pub(super) until: Instant,
    /// What it is about then.
    pub(super) then: Stage,
}

impl Exchange {
    /// Waits, or goes on. Nothing of the request's body is read meanwhile.
    pub(super) fn delayed(&mut self, cx: &mut Context<'_>, front: &mut impl Front) -> Turn {
        let Stage::Delayed(delayed) = &self.stage else { return Turn::Again };
        if delayed.until > self.clock.now {
            return match front.poll_hangup(cx) {
                Poll::Ready(gone) if self.request.upload.is_done() => self.client_gone(gone),
                _ => Turn::Wait,
            };
        }
        if let Stage::Delayed(delayed) = std::mem::replace(&mut self.stage, Stage::Flush) {
            self.stage = delayed.then;
        }
        // The times of the body and of the backend begin now.
        self.request.upload.progress = self.clock.now;
        Turn::Again
    }
}

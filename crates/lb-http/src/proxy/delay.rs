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
        if self.delayed_until().is_some_and(|until| until > self.clock.now) {
            return match front.poll_hangup(cx) {
                Poll::Ready(gone) if self.request.upload.is_done() => self.client_gone(gone),
                _ => Turn::Wait,
            };
        }
        let delayed = self.extras.as_mut().and_then(|extras| extras.delayed.take());
        self.stage = delayed.map_or(Stage::Flush, |delayed| delayed.then);
        // The times of the body and of the backend begin now.
        self.request.upload.progress = self.clock.now;
        Turn::Again
    }

    /// Until when the request waits on purpose.
    pub(super) fn delayed_until(&self) -> Option<Instant> {
        self.extras.as_ref()?.delayed.as_ref().map(|delayed| delayed.until)
    }
}

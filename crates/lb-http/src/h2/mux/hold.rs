//! Bodies that wait for more than a sliver of a window.
//!
//! A sender that uses up whatever little is open makes many tiny frames of a body, and a peer that gives back just what it has read keeps
//! them tiny for good: the silly window (RFC 9113 §5.2.2). So a body of which more waits than a sliver of the windows lets pass is held
//! back until the peer opens them further ([`SendWindow::is_sliver`]).
//!
//! The protocol does not promise that: a peer may open its window only after the last byte of it was used. So nothing is held back for longer
//! than two ticks, and once the peer was waited for in vain nothing on its connection is held back again.
//!
//! [`SendWindow::is_sliver`]: crate::h2::window::SendWindow::is_sliver

use std::time::Duration;

use tokio::time::Instant;

use super::{Key, Mux};
use crate::h2::stream::Hold;

/// A body is held back for one to two of these: about as long as the answer of a far peer is under way.
const TICK: Duration = Duration::from_millis(50);

impl Mux {
    /// Whether the body of a stream waits rather than fill the sliver that its windows let pass.
    pub(super) fn holds(&mut self, key: Key) -> bool {
        let Some(stream) = self.streams.get_mut(key.0) else { return false };
        let sliver = stream.send_window.is_sliver() || self.send_window.is_sliver();
        if self.eager || !sliver || stream.hold == Hold::Over {
            return false;
        }
        if stream.hold == Hold::None {
            stream.hold = Hold::Begun;
        }
        self.held = true;
        true
    }

    /// When bodies that are held back are to be looked at again. To be asked after every attempt to write.
    pub(in crate::h2) fn hold_due(&mut self, now: Instant) -> Option<Instant> {
        self.hold_due = self.held.then(|| self.hold_due.unwrap_or(now + TICK));
        self.hold_due
    }

    /// Lets go of what was held back for long enough.
    pub(in crate::h2) fn end_hold(&mut self, now: Instant) {
        if self.hold_due.is_none_or(|due| now < due) {
            return;
        }
        self.hold_due = None;
        for at in &self.queue {
            let Some(stream) = self.streams.get_mut(*at) else { continue };
            match stream.hold {
                Hold::Begun => stream.hold = Hold::Ripe,
                Hold::Ripe => {
                    let limit =
                        if stream.send_window.is_sliver() { stream.send_window } else { self.send_window };
                    self.eager |= limit.is_sliver() && !limit.was_opened();
                    stream.hold = Hold::Over;
                }
                Hold::None | Hold::Over => {}
            }
        }
    }
}

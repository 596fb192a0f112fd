//! PINGs at the beginning of a connection to a server.
//!
//! quiche can count fewer bytes in flight than there are when a client's handshake ends, and then sets no timer for its last packet, or for what
//! follows. Where that packet is lost, the server waits for it in vain until the client says something else. A few small packets that are to be
//! acknowledged set the timer, and show what was lost before them.

use std::time::{Duration, Instant};

use crate::connection::Quic;

/// The pauses before each of them. They are over before anything concludes from what comes that the server is alive.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(45)];

/// What is left of them.
#[derive(Debug)]
pub(crate) struct Nudges {
    left: std::slice::Iter<'static, Duration>,
    next: Option<Instant>,
}

impl Nudges {
    /// Those of a connection; none where the peer is the client.
    pub(crate) fn of(quic: &Quic) -> Option<Self> {
        (!quic.is_server()).then(|| Self { left: PAUSES.iter(), next: None })
    }

    /// Has a PING sent where it is time. Whether there are more to come.
    pub(crate) fn look(&mut self, quic: &mut Quic, now: Instant) -> bool {
        if !quic.is_established() {
            return true;
        }
        if self.next.is_some_and(|next| now < next) {
            return true;
        }
        if self.next.is_some() {
            let _ = quic.send_ack_eliciting();
        }
        self.next = self.left.next().map(|pause| now + *pause);
        self.next.is_some()
    }

    /// When it is time for the next one.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

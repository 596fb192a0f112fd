//! How a relay ends: with one of its two connections. The other is ended with the same code and words, once it has what the first had sent.

use std::time::{Duration, Instant};

use lb_observe::metrics::RelayEnd;

use super::half::Way;
use crate::connection::Quic;

/// NO_ERROR (RFC 9000 §20.1). What an application would mean by a code of its own the gateway does not know.
pub(super) const NO_ERROR: u64 = 0x0;

/// CONNECTION_REFUSED (RFC 9000 §20.1).
pub(super) const REFUSED: u64 = 0x2;

/// STREAM_LIMIT_ERROR (RFC 9000 §20.1).
pub(super) const STREAM_LIMIT: u64 = 0x4;

/// How long the last bytes are given at least, and at most.
const SETTLING: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));

/// How often it is looked whether they have arrived.
const LOOK: Duration = Duration::from_millis(5);

/// What a connection is closed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) is_app: bool,
    pub(super) code: u64,
    pub(super) reason: Vec<u8>,
}

impl Close {
    /// A close that says nothing of the application.
    pub(super) fn of_transport(code: u64, reason: &str) -> Self {
        Self { is_app: false, code, reason: reason.into() }
    }

    pub(super) fn tell(&self, quic: &mut Quic) {
        let _ = quic.close(self.is_app, self.code, &self.reason);
    }
}

/// An end that is passed on.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// The direction in which it goes.
    pub(super) way: Way,
    pub(super) why: RelayEnd,
    pub(super) close: Close,
    until: Instant,
    /// When it is looked at next.
    pub(super) look: Instant,
}

impl Ending {
    /// The end of a connection, if it has ended: that of the client for [`Way::Up`].
    pub(super) fn of(quic: &Quic, way: Way, now: Instant) -> Option<Self> {
        let (closed, idle, fault) = match way {
            Way::Up => (RelayEnd::Client, RelayEnd::ClientIdle, RelayEnd::ClientFault),
            Way::Down => (RelayEnd::Backend, RelayEnd::BackendIdle, RelayEnd::BackendFault),
        };
        let (why, close) = if let Some(error) = quic.peer_error() {
            let (is_app, code, reason) = (error.is_app, error.error_code, error.reason.clone());
            (closed, Close { is_app, code, reason })
        } else if quic.is_timed_out() {
            (idle, Close::of_transport(NO_ERROR, "idle timeout"))
        } else if quic.local_error().is_some() {
            (fault, Close::of_transport(NO_ERROR, "the other side broke QUIC"))
        } else if quic.is_closed() || quic.is_draining() {
            // A stateless reset.
            (closed, Close::of_transport(NO_ERROR, "the other side is gone"))
        } else {
            return None;
        };
        Some(Self { way, why, close, until: now, look: now })
    }

    /// Sets how long the other side has to take what is on its way to it, as its round trip takes.
    pub(super) fn begin(mut self, round_trip: Duration, now: Instant) -> Self {
        let (least, most) = SETTLING;
        self.until = now + round_trip.saturating_mul(6).clamp(least, most);
        self.look_again(now);
        self
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.until
    }

    pub(super) fn look_again(&mut self, now: Instant) {
        self.look = now + LOOK;
    }
}

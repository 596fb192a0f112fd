//! How often a backend bears to be asked whether it is there.
//!
//! Servers of gRPC count the PINGs that come between one part of an answer and the next. By default three of them that come less than five
//! minutes after the one before, or while no stream is open, are too many: the connection ends with ENHANCE_YOUR_CALM, `too_many_pings`
//! (gRPC proposals A8 and A9). So a backend is asked only while streams are open, and once it has answered [`QUICK`] times without a part of
//! an answer to any request, it is asked at a pace that no server minds.

use std::time::Duration;

use tokio::time::Instant;

/// PINGs at the pace of the configuration: one fewer than are borne with at any pace.
const QUICK: u8 = 2;

/// The time between PINGs after those: the five minutes of gRPC, and some for the way.
const PACE: Duration = Duration::from_secs(330);

/// The PINGs since the last part of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    pings: u8,
    last: Option<Instant>,
}

impl Patience {
    /// A PING is sent.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pings = self.pings.saturating_add(1);
        self.last = Some(now);
    }

    /// HEADERS or DATA came.
    pub(super) fn answered(&mut self) {
        self.pings = 0;
    }

    /// When the next PING may be sent that the configuration wants at `due`.
    pub(super) fn earliest(&self, due: Instant) -> Instant {
        self.last.filter(|_| self.pings >= QUICK).map_or(due, |last| due.max(last + PACE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pings_are_quick_until_an_answer_comes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut patience = Patience::default();
        assert_eq!(patience.earliest(at(30)), at(30));
        patience.pinged(at(30));
        assert_eq!(patience.earliest(at(60)), at(60));
        patience.pinged(at(60));
        assert_eq!(patience.earliest(at(90)), at(390));
        assert_eq!(patience.earliest(at(500)), at(500));
        patience.pinged(at(390));
        assert_eq!(patience.earliest(at(420)), at(720));
        patience.answered();
        assert_eq!(patience.earliest(at(451)), at(451));
    }
}

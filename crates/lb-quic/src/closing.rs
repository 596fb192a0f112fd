//! What is left of a connection that was closed here: the packet that says so.
//!
//! quiche sends that packet once, is deaf from then on, and forgets the connection after three times its estimate of a probe timeout, which is a
//! few milliseconds where the peer is near. A peer that the packet does not reach in that time would hear of the close only by a stateless
//! reset, which has no code. So the packet takes the place of the connection in the table: it is sent again as it is, and answers what still
//! comes (RFC 9000 §10.2.1), while the memory of the connection is free.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Times at which the packet is sent again, in parts of quiche's time: a peer that is silent may not have heard.
const PARTS: u32 = 3;

/// How much longer than quiche's time the packet is kept: a probe timeout includes the delay of the peer's acknowledgements (RFC 9002 §6.2.1),
/// which quiche leaves out, and the peer may be busy.
const GRACE: Duration = Duration::from_millis(300);

/// Datagrams that are all answered, before fewer and fewer are.
const ALWAYS: u32 = 8;

/// A connection that closes.
#[derive(Debug)]
pub(crate) struct Closing {
    packet: Box<[u8]>,
    /// Where it is sent, and from which address, where that is to be set.
    to: SocketAddr,
    from: Option<IpAddr>,
    /// Datagrams that have come since.
    heard: u32,
    /// When it is sent again whatever comes, and how often that is still done.
    next: Instant,
    part: Duration,
    left: u32,
    /// When it is forgotten.
    end: Instant,
}

impl Closing {
    /// A connection that was closed by this packet now, and that quiche would forget after `lasts`.
    pub(crate) fn new(
        packet: &[u8],
        (to, from): (SocketAddr, Option<IpAddr>),
        lasts: Duration,
        now: Instant,
    ) -> Self {
        let part = lasts.checked_div(PARTS).unwrap_or(lasts);
        let (next, end) = (now + part, now + lasts.saturating_add(GRACE));
        Self { packet: packet.into(), to, from, heard: 0, next, part, left: PARTS.saturating_sub(1), end }
    }

    /// A datagram has come from there. True where the packet answers it: fewer and fewer are answered, so that no two ends keep each other
    /// busy, and none that comes from somewhere else.
    pub(crate) fn hear(&mut self, from: SocketAddr) -> bool {
        if from != self.to {
            return false;
        }
        self.heard = self.heard.saturating_add(1);
        self.heard <= ALWAYS || self.heard.is_power_of_two()
    }

    /// Whether the time has come at which the packet is sent whatever comes.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.left > 0 && self.next <= now;
        if is_due {
            self.left = self.left.saturating_sub(1);
            self.next = now + self.part;
        }
        is_due
    }

    /// Whether it is to be forgotten.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.end <= now
    }

    /// When it is to be looked at again.
    pub(crate) fn next(&self) -> Instant {
        if self.left > 0 { self.next.min(self.end) } else { self.end }
    }

    /// Where the packet is sent, from where, and the packet.
    pub(crate) fn packet(&self) -> (SocketAddr, Option<IpAddr>, &[u8]) {
        (self.to, self.from, &self.packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_sent_twice_more_and_for_ever_fewer_that_come() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let [peer, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut closing = Closing::new(b"bye", (peer, None), Duration::from_millis(300), start);
        assert!(!closing.is_due(at(99)));
        assert!(closing.is_due(at(100)) && !closing.is_due(at(100)));
        assert_eq!(closing.next(), at(200));
        assert!(closing.is_due(at(200)));
        assert!(!closing.is_due(at(599)));
        assert_eq!(
            (closing.next(), closing.is_over(at(599)), closing.is_over(at(600))),
            (at(600), false, true)
        );
        assert!((0..64).all(|_| !closing.hear(other)));
        assert_eq!((0..64).filter(|_| closing.hear(peer)).count(), 8 + 3);
        assert_eq!(closing.packet(), (peer, None, &b"bye"[..]));
    }
}

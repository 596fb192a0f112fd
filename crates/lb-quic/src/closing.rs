//! The packet with which a connection was closed. quiche sends it once, and is deaf from then on: where it is lost, the peer takes the
//! connection for alive until its idle timeout. So it is kept while the connection closes, which is for three times the time after which a
//! packet is taken for lost, and is sent again as it is (RFC 9000 §10.2.1).

use std::time::{Duration, Instant};

/// Times at which the packet is sent again, in parts of the time for which the connection closes: a peer that is silent may not have heard.
const PARTS: u32 = 3;

/// A connection that closes.
#[derive(Debug)]
pub(crate) struct Closing {
    packet: Box<[u8]>,
    /// Datagrams that have come since.
    heard: u32,
    /// The packet is to be sent for what has come.
    is_owed: bool,
    /// When it is sent again without that.
    next: Option<Instant>,
    part: Duration,
    /// How often that is done.
    left: u32,
}

impl Closing {
    /// A connection that was closed by this packet now, and is gone after `lasts`.
    pub(crate) fn new(packet: &[u8], lasts: Duration, now: Instant) -> Self {
        let part = lasts.checked_div(PARTS).unwrap_or(lasts);
        let left = PARTS.saturating_sub(1);
        Self { packet: packet.into(), heard: 0, is_owed: false, next: Some(now + part), part, left }
    }

    /// A datagram has come from the peer. Fewer and fewer of them are answered, so that no two ends keep each other busy.
    pub(crate) fn hear(&mut self) {
        self.heard = self.heard.saturating_add(1);
        self.is_owed |= self.heard.is_power_of_two();
    }

    /// The packet, where it is to be sent now.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<&[u8]> {
        let is_time = self.next.is_some_and(|next| next <= now);
        if is_time {
            self.left = self.left.saturating_sub(1);
            self.next = (self.left > 0).then(|| now + self.part);
        }
        (std::mem::take(&mut self.is_owed) || is_time).then_some(&*self.packet)
    }

    /// When it is sent again at the latest.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_sent_twice_more_and_for_ever_fewer_that_come() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut closing = Closing::new(b"bye", Duration::from_millis(300), start);
        assert_eq!(closing.take_due(at(99)), None);
        assert_eq!(closing.take_due(at(100)), Some(&b"bye"[..]));
        assert_eq!(closing.next(), Some(at(200)));
        assert_eq!(closing.take_due(at(200)), Some(&b"bye"[..]));
        assert_eq!((closing.next(), closing.take_due(at(299))), (None, None));
        let mut answers = 0;
        for _ in 0..64 {
            closing.hear();
            answers += usize::from(closing.take_due(at(299)).is_some());
        }
        assert_eq!(answers, 7);
    }
}

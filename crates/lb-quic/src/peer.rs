//! Where the client of a connection is, and how much may be sent there.
//!
//! quiche is shown one address for each connection, for ever. Its own account of paths frees none, so that a client can move only so many
//! times, and never declares lost what was in flight on a path that is gone, so that a download during which the client moves may stand
//! still. With one path, what is lost on a move is lost like anything else. The rules of moves are therefore kept here (RFC 9000 §9): a packet
//! that is genuine and new moves its connection, one that only probes does not, and an address of another host has to prove itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How many times what an unproven address has sent may be sent there (RFC 9000 §8.1).
const AMPLIFICATION: usize = 3;

/// How long an address that was left is not returned to at least: packets that were overtaken still come from there.
const SETTLING: Duration = Duration::from_millis(20);

/// Bytes without which no packet is written: nothing that matters fits in less.
pub(crate) const LEAST: usize = 48;

/// Bytes that may be sent to an address on trial when nothing that was sent is acknowledged: one small packet, without which a peer that waits
/// and a budget that is used up would wait for each other.
const GRANT: usize = 100;

/// How long an address that has given way is tried again.
const TRIED_AGAIN: Duration = Duration::from_secs(5);

/// Both ends of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// What a datagram has brought that came from somewhere else than the ones before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brought {
    /// Its length in bytes.
    pub(crate) length: usize,
    /// It was sent to find out whether its path works (RFC 9000 §9.1).
    pub(crate) probes: bool,
    /// Bytes of ours that the client has acknowledged until now.
    pub(crate) acknowledged: u64,
    /// The time that a round trip takes.
    pub(crate) round_trip: Duration,
}

/// An address that has not proved that what is sent there arrives.
#[derive(Clone, Copy, Debug)]
struct Trial {
    ends: Ends,
    /// Bytes that may still be sent there.
    budget: usize,
    /// From then on only packets can be acknowledged that were sent there: those that were sent elsewhere are older than a round trip.
    proves_after: Instant,
    /// What was acknowledged until then.
    acknowledged: u64,
}

/// Where a peer is.
#[derive(Debug)]
pub(crate) struct Peer {
    /// What quiche is told, whatever the truth is.
    shown: Ends,
    current: Ends,
    /// The last address that has proved itself.
    proven: Ends,
    /// That of the current address.
    trial: Option<Trial>,
    /// That of an address that has given way to the proven one, and how long it is tried again.
    other: Option<(Trial, Instant)>,
    /// An address that is not returned to before that time.
    left: Option<(Ends, Instant)>,
    /// Where a probe came from, and how many bytes may answer it.
    probed: Option<(Ends, usize)>,
    /// How often it came to be elsewhere.
    moves: u64,
}

impl Peer {
    pub(crate) fn new(ends: Ends) -> Self {
        Self {
            shown: ends,
            current: ends,
            proven: ends,
            trial: None,
            other: None,
            left: None,
            probed: None,
            moves: 0,
        }
    }

    /// How often the peer came to be at another address.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// The ends that quiche is told.
    pub(crate) fn shown(&self) -> Ends {
        self.shown
    }

    /// Whether datagrams are sent there already.
    #[inline]
    pub(crate) fn is_at(&self, ends: Ends) -> bool {
        self.current == ends
    }

    /// Whether the address has yet to prove itself.
    #[inline]
    pub(crate) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// A genuine datagram of `length` bytes came from the current address, which is on trial. `acknowledged` is as in [`Brought`].
    pub(crate) fn received(&mut self, length: usize, acknowledged: u64, now: Instant) {
        let Some(trial) = self.trial.as_mut() else { return };
        trial.budget = trial.budget.saturating_add(length.saturating_mul(AMPLIFICATION));
        if now < trial.proves_after {
            trial.acknowledged = acknowledged;
        } else if acknowledged > trial.acknowledged {
            (self.proven, self.trial, self.other) = (self.current, None, None);
        }
    }

    /// A genuine datagram came from another address than the current one. True when the connection goes on there, over another path.
    pub(crate) fn heard_elsewhere(&mut self, ends: Ends, brought: &Brought, now: Instant) -> bool {
        let budget = brought.length.saturating_mul(AMPLIFICATION);
        if brought.probes {
            self.probed = (budget >= LEAST).then_some((ends, budget));
            return false;
        }
        let settled = brought.round_trip.saturating_mul(2).max(SETTLING);
        if self.trial.is_some() && ends == self.proven {
            // An address that has proved nothing gives way at once, so that nobody who copies packets and sends them from elsewhere takes a
            // connection away. Perhaps the packet was only late.
            self.return_to_proven(now);
            return false;
        }
        if self.left.is_some_and(|(left, until)| left == ends && now < until) {
            return false;
        }
        self.left = Some((self.current, now + settled));
        self.current = ends;
        self.moves = self.moves.saturating_add(1);
        // Another port of a host that has proved itself: a NAT has forgotten the flow, and nobody else's host can be flooded.
        if ends.peer.ip() == self.proven.peer.ip() {
            (self.proven, self.trial, self.other) = (ends, None, None);
            return false;
        }
        let begun = self.other.take().map(|(trial, _)| trial).filter(|trial| trial.ends == ends);
        let mut trial = begun.unwrap_or(Trial {
            ends,
            budget: 0,
            proves_after: now + settled.saturating_add(brought.round_trip),
            acknowledged: brought.acknowledged,
        });
        trial.budget = trial.budget.saturating_add(budget);
        self.trial = Some(trial);
        begun.is_none()
    }

    fn return_to_proven(&mut self, now: Instant) {
        self.other = self.trial.take().map(|trial| (trial, now + TRIED_AGAIN));
        self.current = self.proven;
        self.left = None;
    }

    /// What was sent is not acknowledged in time: where two addresses are possible, the other one is tried.
    pub(crate) fn timed_out(&mut self, now: Instant) {
        if self.trial.is_some() {
            self.return_to_proven(now);
        } else if let Some((mut trial, until)) = self.other.take()
            && now < until
        {
            trial.budget = trial.budget.max(GRANT);
            self.current = trial.ends;
            self.trial = Some(trial);
        }
    }

    /// Where the next datagram goes, and how many bytes it may have at most.
    #[inline]
    pub(crate) fn destination(&self) -> (Ends, usize) {
        match (&self.probed, &self.trial) {
            (Some((ends, budget)), _) => (*ends, *budget),
            (None, Some(trial)) => (self.current, trial.budget),
            (None, None) => (self.current, usize::MAX),
        }
    }

    /// So much was sent to [`Self::destination`].
    #[inline]
    pub(crate) fn sent(&mut self, length: usize) {
        if self.probed.take().is_none()
            && let Some(trial) = self.trial.as_mut()
        {
            trial.budget = trial.budget.saturating_sub(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(30);

    fn ends(peer: &str) -> Ends {
        Ends { peer: peer.parse().unwrap(), local: "192.0.2.1:443".parse().unwrap() }
    }

    fn brought(length: usize, probes: bool, acknowledged: u64) -> Brought {
        Brought { length, probes, acknowledged, round_trip: RTT }
    }

    #[test]
    fn another_port_of_the_host_needs_no_proof() {
        let (mut peer, now) = (Peer::new(ends("198.51.100.1:1000")), Instant::now());
        for port in 1001..2000 {
            let to = ends(&format!("198.51.100.1:{port}"));
            assert!(!peer.heard_elsewhere(to, &brought(40, false, 0), now));
            assert_eq!(peer.destination(), (to, usize::MAX));
        }
        assert_eq!(peer.shown(), ends("198.51.100.1:1000"));
    }

    #[test]
    fn another_host_gets_three_times_what_it_has_sent_until_it_has_acknowledged() {
        let (mut peer, start) = (Peer::new(ends("198.51.100.1:1000")), Instant::now());
        let to = ends("203.0.113.9:1000");
        assert!(peer.heard_elsewhere(to, &brought(100, false, 5000), start));
        assert_eq!(peer.destination(), (to, 300));
        peer.sent(250);
        assert_eq!(peer.destination(), (to, 50));
        peer.received(10, 6000, start + RTT);
        assert_eq!(peer.destination(), (to, 80), "that may have been sent to the host before");
        peer.received(10, 6000, start + RTT * 4);
        assert!(peer.is_on_trial(), "nothing new");
        peer.received(10, 6001, start + RTT * 4);
        assert!(!peer.is_on_trial());
        assert_eq!(peer.destination(), (to, usize::MAX));
        assert!(!peer.heard_elsewhere(ends("203.0.113.9:1"), &brought(1, false, 6001), start + RTT * 9));
        assert!(!peer.is_on_trial(), "the host has proved itself");
    }

    /// Attack Q-05: packets that are copied, and sent from elsewhere faster than they come.
    #[test]
    fn a_copied_packet_takes_nothing_away() {
        let home = ends("198.51.100.1:1000");
        let (mut peer, now) = (Peer::new(home), Instant::now());
        assert!(peer.heard_elsewhere(ends("203.0.113.9:7"), &brought(100, false, 0), now));
        peer.heard_elsewhere(home, &brought(40, false, 0), now);
        assert_eq!(peer.destination(), (home, usize::MAX));
    }

    #[test]
    fn a_late_packet_does_not_keep_a_connection_at_an_address_that_is_gone() {
        let (home, away) = (ends("198.51.100.1:1000"), ends("203.0.113.9:7"));
        let (mut peer, now) = (Peer::new(home), Instant::now());
        peer.heard_elsewhere(away, &brought(20, false, 0), now);
        peer.sent(60);
        peer.heard_elsewhere(home, &brought(40, false, 0), now);
        assert!(peer.is_at(home));
        for round in 1..4 {
            peer.timed_out(now + RTT * round);
            assert_eq!(peer.destination(), (away, GRANT));
            peer.sent(GRANT);
            peer.timed_out(now + RTT * round);
            assert_eq!(peer.destination(), (home, usize::MAX));
        }
        peer.timed_out(now + TRIED_AGAIN * 2);
        assert!(peer.is_at(home), "for a while");
    }

    #[test]
    fn late_packets_from_where_the_client_was_do_not_lead_back() {
        let (home, away) = (ends("198.51.100.1:1000"), ends("198.51.100.1:2000"));
        let (mut peer, now) = (Peer::new(home), Instant::now());
        peer.heard_elsewhere(away, &brought(40, false, 0), now);
        peer.heard_elsewhere(home, &brought(40, false, 0), now + RTT);
        assert!(peer.is_at(away));
        peer.heard_elsewhere(home, &brought(40, false, 0), now + RTT * 3);
        assert!(peer.is_at(home), "it has gone back");
    }

    #[test]
    fn a_probe_is_answered_where_it_came_from_and_moves_nothing() {
        let home = ends("198.51.100.1:1000");
        let (mut peer, now) = (Peer::new(home), Instant::now());
        let other = ends("203.0.113.9:7");
        assert!(!peer.heard_elsewhere(other, &brought(1200, true, 0), now));
        assert_eq!(peer.destination(), (other, 3600));
        peer.sent(1200);
        assert_eq!(peer.destination(), (home, usize::MAX));
    }
}

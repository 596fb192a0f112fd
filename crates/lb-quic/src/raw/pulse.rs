//! Passes on that a side is alive: PINGs end at the gateway, which sends its own on the other side for a peer that has been heard of.

use std::time::{Duration, Instant};

use super::half::Way;
use super::relay::Pair;
use crate::connection::Quic;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

/// What is known of a side.
#[derive(Debug, Default)]
struct Side {
    /// Packets that had come at the last look.
    received: usize,
    /// Packets that answer a PING of the gateway, and so say nothing.
    answers: usize,
}

/// The pulse of both sides.
#[derive(Debug)]
pub(crate) struct Pulse {
    every: Duration,
    pub(super) next: Instant,
    client: Side,
    backend: Side,
}

impl Pulse {
    /// Looks often enough that neither side takes the other for gone. `idle` is the gateway's own timeout.
    pub(super) fn new(front: &Quic, back: &Quic, idle: Duration, now: Instant) -> Self {
        let of_peer = |quic: &Quic| quic.peer_transport_params().map(|peer| peer.max_idle_timeout);
        let peers = [of_peer(front), of_peer(back)].into_iter().flatten().filter(|millis| *millis > 0);
        let least = peers.map(Duration::from_millis).chain([idle]).min().unwrap_or(idle);
        let every = (least / 3).max(SHORTEST);
        Self { every, next: now + every, client: Side::default(), backend: Side::default() }
    }

    /// Looks, where it is time, which sides were heard of, and has the others told. Whether anything is to be sent.
    pub(super) fn look(&mut self, pair: &mut Pair<'_>, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        let heard = Way::BOTH.map(|way| {
            let received = pair.from(way).stats().recv;
            let side = self.side(way);
            let come = received.saturating_sub(side.received);
            let is_alive = come > side.answers;
            (side.received, side.answers) = (received, 0);
            is_alive
        });
        for (way, is_alive) in Way::BOTH.into_iter().zip(heard) {
            if is_alive && pair.to(way).send_ack_eliciting().is_ok() {
                self.side(way.other()).answers = 1;
            }
        }
        heard.contains(&true)
    }

    fn side(&mut self, way: Way) -> &mut Side {
        match way {
            Way::Up => &mut self.client,
            Way::Down => &mut self.backend,
        }
    }
}

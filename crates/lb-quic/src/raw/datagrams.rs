//! Datagrams (RFC 9221) between the two connections of a client.

use std::collections::VecDeque;

use lb_observe::metrics::RelayDrop;

use super::half::Way;
use super::relay::{Counters, Pair, path};
use crate::connection::Quic;

/// What came before there was a connection to a backend.
#[derive(Debug, Default)]
pub(crate) struct Early(VecDeque<Vec<u8>>);

impl Early {
    /// Keeps what has come, `most` at most; newer ones are dropped.
    pub(super) fn keep(&mut self, from: &mut Quic, most: usize, counters: &Counters) {
        while let Ok(datagram) = from.dgram_recv_buf() {
            if self.0.len() < most {
                self.0.push_back(datagram);
            } else {
                counters.relay().datagrams_dropped.of(RelayDrop::Queue).inc();
            }
        }
    }

    /// Passes on what was kept.
    pub(super) fn pass(&mut self, to: &mut Quic, counters: &Counters) {
        for datagram in self.0.drain(..) {
            give(to, datagram, Way::Up, counters);
        }
    }
}

/// Passes on what has come from one side. Whether there was anything.
pub(super) fn pass(pair: &mut Pair<'_>, way: Way, counters: &Counters) -> bool {
    let mut any = false;
    while let Ok(datagram) = pair.from(way).dgram_recv_buf() {
        any = true;
        pair.passes(way, datagram.len());
        give(pair.to(way), datagram, way, counters);
    }
    any
}

/// Gives a datagram to be sent: behind as many as may wait it is dropped, as on a path that is full.
fn give(to: &mut Quic, datagram: Vec<u8>, way: Way, counters: &Counters) {
    let relay = counters.relay();
    let why = match to.dgram_send_buf(datagram) {
        Ok(()) => return relay.datagrams.of(path(way)).inc(),
        Err(quiche::Error::BufferTooShort) => RelayDrop::TooLarge,
        Err(quiche::Error::InvalidState) => RelayDrop::Unsupported,
        Err(_) => RelayDrop::Queue,
    };
    relay.datagrams_dropped.of(why).inc();
}

//! What is counted of a client's connection when it has ended.

use lb_observe::metrics::{QuicMetrics, QuicPackets};

use crate::connection::Quic;

/// Counts the packets of a connection, and how often its client has moved.
pub(crate) fn ended(metrics: &QuicMetrics, quic: &Quic, moves: u64) {
    let stats = quic.stats();
    metrics.moves.add(moves);
    for (what, count) in [
        (QuicPackets::Sent, stats.sent),
        (QuicPackets::Received, stats.recv),
        (QuicPackets::Lost, stats.lost),
    ] {
        metrics.packets.of(what).add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

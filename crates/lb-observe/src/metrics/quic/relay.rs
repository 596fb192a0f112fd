//! What is counted of QUIC that is relayed without being read.

use super::super::families;
use super::super::label::{By, Label};
use super::super::labels::{DatagramPath, RelayDrop, RelayEnd};
use super::super::scrape::Scrape;
use super::super::shards::ListenerMetrics;
use super::super::values::{Counter, Gauge};

/// What one worker counts of a listener's QUIC that is relayed without being read.
#[derive(Debug, Default)]
pub struct RelayShard {
    /// `quic_relay_streams`: streams that are relayed now.
    pub streams: Gauge,
    /// `quic_relay_streams_total`.
    pub streams_opened: Counter,
    /// `quic_relay_resets_total`.
    pub resets: By<DatagramPath, Counter>,
    /// `quic_relay_datagrams_total`.
    pub datagrams: By<DatagramPath, Counter>,
    /// `quic_relay_datagrams_dropped_total`.
    pub datagrams_dropped: By<RelayDrop, Counter>,
    /// `quic_relays_ended_total`.
    pub ended: By<RelayEnd, Counter>,
}

/// The families of a listener that relays QUIC.
pub(in crate::metrics) fn scrape_relay(scrape: &mut Scrape, name: &str, listener: &ListenerMetrics) {
    if !listener.relays_quic() {
        return;
    }
    let shards = || listener.shards().map(|shard| &shard.quic_relay);
    let open = shards().map(|shard| shard.streams.value()).sum::<i64>();
    scrape.gauge(&families::QUIC_RELAY_STREAMS, &[name], open as f64);
    let opened = shards().map(|shard| shard.streams_opened.value()).sum();
    scrape.counter(&families::QUIC_RELAY_STREAMS_OPENED, &[name], opened);
    for path in DatagramPath::ALL {
        let resets = shards().map(|shard| shard.resets.of(*path).value()).sum();
        scrape.counter(&families::QUIC_RELAY_RESETS, &[name, path.name()], resets);
        let passed = shards().map(|shard| shard.datagrams.of(*path).value()).sum();
        scrape.counter(&families::QUIC_RELAY_DATAGRAMS, &[name, path.name()], passed);
    }
    for reason in RelayDrop::ALL {
        let dropped = shards().map(|shard| shard.datagrams_dropped.of(*reason).value()).sum();
        scrape.counter(&families::QUIC_RELAY_DATAGRAMS_DROPPED, &[name, reason.name()], dropped);
    }
    for end in RelayEnd::ALL {
        let ended = shards().map(|shard| shard.ended.of(*end).value()).sum();
        scrape.counter(&families::QUIC_RELAYS_ENDED, &[name, end.name()], ended);
    }
}

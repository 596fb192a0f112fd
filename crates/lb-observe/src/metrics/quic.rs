//! What is counted of QUIC connections with clients that end here, and of HTTP/3 on them.

mod relay;

use std::fmt;

pub use relay::RelayShard;
pub(super) use relay::scrape_relay;

use super::families;
use super::label::{By, Label, label, labels};
use super::scrape::Scrape;
use super::values::{Counter, Gauge};

labels! {
    /// What became of a datagram that belongs to no connection of the worker which received it, and opened none.
    QuicStray {
        /// Its sender was asked to prove its address, by a Retry.
        Retry = "retry",
        /// Its sender was told which versions are spoken.
        Versions = "versions",
        /// Its sender was told that the connection is gone, by a stateless reset.
        Reset = "reset",
        /// It went to the worker or the process that has its connection.
        PassedOn = "passed_on",
        /// A cap on connections or handshakes refused its connection.
        Refused = "refused",
        /// It would begin a connection, and has fewer than 1200 bytes (RFC 9000 §14.1).
        SmallInitial = "small_initial",
        /// It was dropped: a packet of a connection that is gone, without a reset where there had been many, or while the listener drains.
        Unknown = "unknown",
        /// Nothing that could be read as a packet of QUIC.
        Malformed = "malformed",
    }

    /// Packets of QUIC connections.
    QuicPackets {
        /// They were sent.
        Sent = "sent",
        /// They were received, and taken.
        Received = "received",
        /// They were sent, and are thought lost.
        Lost = "lost",
    }

    /// What became of a request that came before the end of its handshake.
    EarlyRequest {
        /// It went to a backend at once, with `Early-Data: 1`.
        Forwarded = "forwarded",
        /// It waited for the end of the handshake.
        Held = "held",
    }

    /// Why an HTTP/3 connection to a client was ended: the code of our CONNECTION_CLOSE (RFC 9114 §8.1, RFC 9204 §6).
    Http3Error {
        /// H3_STREAM_CREATION_ERROR.
        StreamCreation = "H3_STREAM_CREATION_ERROR",
        /// H3_CLOSED_CRITICAL_STREAM.
        ClosedCriticalStream = "H3_CLOSED_CRITICAL_STREAM",
        /// H3_FRAME_UNEXPECTED.
        FrameUnexpected = "H3_FRAME_UNEXPECTED",
        /// H3_FRAME_ERROR.
        Frame = "H3_FRAME_ERROR",
        /// H3_EXCESSIVE_LOAD; `http2_abuse_total` says what for.
        ExcessiveLoad = "H3_EXCESSIVE_LOAD",
        /// H3_ID_ERROR.
        Id = "H3_ID_ERROR",
        /// H3_SETTINGS_ERROR.
        Settings = "H3_SETTINGS_ERROR",
        /// H3_MISSING_SETTINGS.
        MissingSettings = "H3_MISSING_SETTINGS",
        /// QPACK_DECOMPRESSION_FAILED.
        QpackDecompression = "QPACK_DECOMPRESSION_FAILED",
        /// QPACK_ENCODER_STREAM_ERROR.
        QpackEncoderStream = "QPACK_ENCODER_STREAM_ERROR",
        /// QPACK_DECODER_STREAM_ERROR.
        QpackDecoderStream = "QPACK_DECODER_STREAM_ERROR",
        /// Any other.
        Other = "other",
    }
}

impl Http3Error {
    /// The value that is called `name`, which is that of the code in the RFC.
    pub fn of(name: &str) -> Self {
        Self::ALL.iter().copied().find(|error| error.name() == name).unwrap_or(Self::Other)
    }
}

/// What one worker counts of QUIC connections with clients that end here.
#[derive(Debug, Default)]
pub struct QuicMetrics {
    /// `quic_stray_datagrams_total`.
    pub stray: By<QuicStray, Counter>,
    /// `quic_packets_total`, of connections that have ended.
    pub packets: By<QuicPackets, Counter>,
    /// `quic_buffered_bytes`, of connections to clients and to backends.
    pub buffered: Gauge,
    /// `quic_unbuffered_datagrams_total`.
    pub unbuffered: Counter,
    /// `quic_client_moves_total`: how often clients came to be at another address.
    pub moves: Counter,
    /// `h3_early_requests_total`.
    pub early_requests: By<EarlyRequest, Counter>,
    /// `h3_goaway_sent_total`.
    pub goaways: Counter,
    /// `h3_connections_recycled_total`: connections that had all the requests they may carry.
    pub recycled: Counter,
    /// `h3_connection_errors_total`.
    pub errors: By<Http3Error, Counter>,
}

/// Adds the families of all workers together.
pub(super) fn scrape(scrape: &mut Scrape, workers: &[&QuicMetrics]) {
    let sum = |of: fn(&QuicMetrics) -> &Counter| workers.iter().map(|worker| of(worker).value()).sum();
    let buffered: i64 = workers.iter().map(|worker| worker.buffered.value()).sum();
    scrape.gauge(&families::QUIC_BUFFERED, &[], buffered as f64);
    scrape.counter(&families::QUIC_UNBUFFERED, &[], sum(|quic| &quic.unbuffered));
    scrape.counter(&families::QUIC_MOVES, &[], sum(|quic| &quic.moves));
    scrape.counter(&families::H3_GOAWAYS, &[], sum(|quic| &quic.goaways));
    scrape.counter(&families::H3_RECYCLED, &[], sum(|quic| &quic.recycled));
    by(scrape, &families::QUIC_STRAY, workers, |quic| &quic.stray);
    by(scrape, &families::QUIC_PACKETS, workers, |quic| &quic.packets);
    by(scrape, &families::H3_EARLY_REQUESTS, workers, |quic| &quic.early_requests);
    by(scrape, &families::H3_ERRORS, workers, |quic| &quic.errors);
}

fn by<L: Label>(
    scrape: &mut Scrape,
    family: &families::Family,
    workers: &[&QuicMetrics],
    of: fn(&QuicMetrics) -> &By<L, Counter>,
) {
    for value in L::ALL {
        let sum = workers.iter().map(|worker| of(worker).of(*value).value()).sum();
        scrape.counter(family, &[value.name()], sum);
    }
}

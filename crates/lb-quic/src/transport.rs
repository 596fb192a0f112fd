//! The transport parameters and TLS context of new connections, made anew when certificates or settings change.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lb_config::{Listener, QuicRetry};
use lb_http::service::Settings;
use lb_security::{ClientTls, SharedTlsBundle, TlsConfigBundle};

use crate::tls;

/// What the configuration says of the QUIC connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicSettings {
    /// How long a connection may be silent.
    pub max_idle_timeout: Duration,
    /// The largest UDP payload that is accepted, in bytes.
    pub max_recv_udp_payload_size: u64,
    /// Whether every client has to prove its address, by a Retry, before anything is kept of it.
    pub always_retry: bool,
    /// Gateways that forward without keys, whose tokens are taken whatever client they were made for.
    pub retry_tokens_from: Vec<IpAddr>,
    /// Whether clients may send requests before the handshake is over (RFC 9001 §4.6).
    pub early_data: bool,
    /// Requests that a client may have open at once.
    pub max_concurrent_streams: u32,
    /// What stands in each connection ID for balancers, and may be nothing. That of the first settings counts.
    pub server_id: Vec<u8>,
    /// The first window of a stream, in bytes.
    pub stream_window: u32,
    /// The first window of a connection, in bytes.
    pub connection_window: u32,
    /// What is relayed. None = HTTP/3 is spoken.
    pub raw: Option<RawTransport>,
}

/// What either side of a relayed connection may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTransport {
    /// The protocols that clients may choose from. Empty = any.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// Streams of each kind that each side may have open.
    pub(crate) max_streams: u64,
    /// Datagrams that may wait in each direction.
    pub(crate) datagrams: usize,
}

impl QuicSettings {
    /// The settings of a listener; `None` where it does not speak QUIC.
    pub fn of(listener: &Listener) -> Option<Self> {
        let (quic, h2) = (listener.quic.as_ref()?, &listener.h2_security);
        Some(Self {
            max_idle_timeout: quic.max_idle_timeout,
            max_recv_udp_payload_size: quic.max_recv_udp_payload_size,
            always_retry: quic.retry == QuicRetry::Always,
            retry_tokens_from: quic.retry_tokens_from.clone(),
            server_id: quic.server_id.clone(),
            // What comes early may be a copy, and only its application could tell (RFC 9001 §9.2).
            early_data: quic.early_data && quic.raw_proxy.is_none(),
            max_concurrent_streams: h2.max_concurrent_streams,
            stream_window: h2.initial_stream_window_size,
            connection_window: h2.initial_connection_window_size,
            raw: listener.raw_proxy().map(|raw| RawTransport {
                alpn: raw.alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
                max_streams: raw.max_relay_streams,
                datagrams: raw.dgram_queue_cap,
            }),
        })
    }

    /// The limits that clients remember for early data.
    fn remembered(&self) -> Box<[u8]> {
        let windows = [self.max_concurrent_streams, self.stream_window, self.connection_window];
        windows.into_iter().flat_map(u32::to_be_bytes).collect()
    }
}

/// ALPN of HTTP/3 (RFC 9114 §3.1).
const HTTP3: &[&[u8]] = &[b"h3"];

/// Unidirectional streams that a client may have open: its control stream, two of QPACK, and some of types that are not known here.
const UNIDIRECTIONAL: u64 = 16;

/// The largest packet that is tried on a path between these addresses; what the path takes is found out. Elsewhere than within the machine it is the
/// Ethernet's: few paths take more, and the first window of a connection grows with what is tried (RFC 9002 §7.2).
pub(crate) fn largest_packet(local: IpAddr) -> usize {
    match local.to_canonical() {
        address if address.is_loopback() => 16_383,
        IpAddr::V4(_) => 1500 - 20 - 8,
        IpAddr::V6(_) => 1500 - 40 - 8,
    }
}

/// Makes the configuration of new connections.
pub(crate) struct Transport {
    tls: SharedTlsBundle,
    settings: Rc<RefCell<Rc<QuicSettings>>>,
    /// One for each size of packets that is tried.
    current: Vec<Current>,
}

struct Current {
    largest: usize,
    bundle: Arc<TlsConfigBundle>,
    settings: Rc<QuicSettings>,
    config: quiche::Config,
}

impl Transport {
    pub(crate) fn new(tls: SharedTlsBundle, settings: Rc<RefCell<Rc<QuicSettings>>>) -> Self {
        Self { tls, settings, current: Vec::new() }
    }

    /// Whether a client has to prove its address before anything is kept of it. `is_crowded` says that many handshakes run.
    pub(crate) fn wants_proof(&self, is_crowded: bool) -> bool {
        is_crowded || self.settings.borrow().always_retry
    }

    /// Whether tokens that come from this address were made for clients which the gateway there has compared with them.
    pub(crate) fn takes_tokens_of(&self, from: SocketAddr) -> bool {
        self.settings.borrow().retry_tokens_from.contains(&from.ip().to_canonical())
    }

    /// The configuration for a connection that begins now, of a client that has sent to `local`, and the bundle that it shakes hands under. `None`
    /// when none can be made.
    pub(crate) fn config(
        &mut self,
        local: IpAddr,
        reset_token: u128,
    ) -> Option<(&mut quiche::Config, Arc<TlsConfigBundle>)> {
        let (bundle, settings) = (self.tls.load(), Rc::clone(&self.settings.borrow()));
        let largest = largest_packet(local);
        let known = self.current.iter().position(|current| current.largest == largest);
        let is_current = known.and_then(|at| self.current.get(at)).is_some_and(|current| {
            Arc::ptr_eq(&current.bundle, &bundle) && Rc::ptr_eq(&current.settings, &settings)
        });
        if !is_current {
            match make(&bundle, &settings, largest) {
                Ok(config) => {
                    self.current.retain(|current| current.largest != largest);
                    self.current.push(Current { largest, bundle, settings, config });
                }
                // What was in force goes on.
                Err(error) => {
                    tracing::error!(%error, "no QUIC connection can be accepted under the new certificates");
                }
            }
        }
        let current = self.current.iter_mut().find(|current| current.largest == largest)?;
        current.config.set_stateless_reset_token(Some(reset_token));
        Some((&mut current.config, Arc::clone(&current.bundle)))
    }
}

/// The configuration of a connection to a backend.
pub(crate) fn client(
    tls: &Arc<ClientTls>,
    settings: &Settings,
) -> Result<quiche::Config, Box<dyn std::error::Error>> {
    let mut config =
        quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls::client(tls)?)?;
    config.set_application_protos(HTTP3)?;
    config.set_max_idle_timeout(CLIENT_IDLE);
    config.set_max_recv_udp_payload_size(lb_io::udp::MAX_DATAGRAM);
    config.discover_pmtu(true);
    let stream = u64::from(settings.h2.initial_stream_window_size);
    // Streams whose clients do not read must not use up what the others need: their own windows bound what they hold.
    let whole = stream.saturating_mul(settings.h2.max_concurrent_streams.into());
    config.set_initial_max_data(whole);
    config.set_initial_max_stream_data_bidi_local(stream);
    config.set_initial_max_stream_data_uni(stream);
    config.set_max_stream_window(stream);
    config.set_max_connection_window(whole);
    config.set_initial_max_streams_uni(UNIDIRECTIONAL);
    Ok(config)
}

/// How long a connection to a backend may be silent, in milliseconds: one that is kept open without a request must not cost the backend
/// packets.
const CLIENT_IDLE: u64 = 300_000;

fn make(
    bundle: &Arc<TlsConfigBundle>,
    settings: &QuicSettings,
    largest_packet: usize,
) -> Result<quiche::Config, Box<dyn std::error::Error>> {
    let mut context = tls::server(bundle, settings.remembered(), largest_packet)?;
    if let Some(raw) = &settings.raw {
        tls::choose_protocol(&mut context, raw.alpn.clone());
    }
    let mut config = quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, context)?;
    if settings.early_data {
        config.enable_early_data();
    }
    settle(&mut config, settings)?;
    config.set_max_send_udp_payload_size(largest_packet);
    Ok(config)
}

/// Sets what a listener says of its connections.
fn settle(config: &mut quiche::Config, settings: &QuicSettings) -> quiche::Result<()> {
    idle(config, settings.max_idle_timeout);
    let largest = usize::try_from(settings.max_recv_udp_payload_size).unwrap_or(usize::MAX);
    config.set_max_recv_udp_payload_size(largest.min(lb_io::udp::MAX_DATAGRAM));
    config.discover_pmtu(true);
    windows(config, settings);
    match &settings.raw {
        Some(raw) => relays(config, raw),
        None => {
            config.set_application_protos(HTTP3)?;
            config.set_initial_max_streams_bidi(settings.max_concurrent_streams.into());
            config.set_initial_max_streams_uni(UNIDIRECTIONAL);
        }
    }
    Ok(())
}

/// The configuration of a connection to a backend that a client's is relayed to, with the protocol that the client has chosen.
pub(crate) fn relayed(
    tls: &Arc<ClientTls>,
    settings: &QuicSettings,
    raw: &RawTransport,
    protocol: &[u8],
) -> Result<quiche::Config, Box<dyn std::error::Error>> {
    let mut config =
        quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls::client(tls)?)?;
    config.set_application_protos(&[protocol])?;
    idle(&mut config, settings.max_idle_timeout);
    config.set_max_recv_udp_payload_size(lb_io::udp::MAX_DATAGRAM);
    config.discover_pmtu(true);
    windows(&mut config, settings);
    relays(&mut config, raw);
    Ok(config)
}

/// The largest number that takes four bytes (RFC 9000 §16). quiche has 128 bytes for the parameters of a connection, which hold up to four
/// connection IDs and tokens after a Retry: with longer numbers no connection could begin then.
const FOUR_BYTES: u64 = (1 << 30) - 1;

/// The largest number that takes two bytes.
const TWO_BYTES: u64 = (1 << 14) - 1;

/// Sets how long a connection may be silent.
fn idle(config: &mut quiche::Config, timeout: Duration) {
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    config.set_max_idle_timeout(millis.min(FOUR_BYTES));
}

/// Windows do not grow beyond what the configuration says: they bound what a peer can make us hold.
fn windows(config: &mut quiche::Config, settings: &QuicSettings) {
    let stream = u64::from(settings.stream_window).min(FOUR_BYTES);
    let whole = u64::from(settings.connection_window).min(FOUR_BYTES);
    config.set_initial_max_data(whole);
    config.set_initial_max_stream_data_bidi_local(stream);
    config.set_initial_max_stream_data_bidi_remote(stream);
    config.set_initial_max_stream_data_uni(stream);
    config.set_max_stream_window(stream);
    config.set_max_connection_window(whole);
}

/// Datagrams that arrive are taken with the turn in which they have come: how many wait is decided where they leave.
const ARRIVING: usize = 4096;

fn relays(config: &mut quiche::Config, raw: &RawTransport) {
    config.set_initial_max_streams_bidi(raw.max_streams.min(TWO_BYTES));
    config.set_initial_max_streams_uni(raw.max_streams.min(TWO_BYTES));
    config.enable_dgram(raw.datagrams > 0, ARRIVING, raw.datagrams);
}

#[cfg(test)]
mod tests {
    use quiche::ConnectionId;

    use super::*;
    use crate::connection::Lent;

    /// quiche refuses a connection whose parameters are longer than it has room for.
    #[test]
    fn the_longest_parameters_after_a_retry_find_room() {
        let settings = QuicSettings {
            max_idle_timeout: Duration::MAX,
            max_recv_udp_payload_size: u64::MAX,
            always_retry: true,
            retry_tokens_from: Vec::new(),
            server_id: Vec::new(),
            early_data: false,
            max_concurrent_streams: u32::MAX,
            stream_window: u32::MAX,
            connection_window: u32::MAX,
            raw: None,
        };
        let raw = RawTransport { alpn: Vec::new(), max_streams: u64::MAX, datagrams: 1 };
        let begins = |raw: Option<&RawTransport>| {
            let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION).unwrap();
            settle(&mut config, &QuicSettings { raw: raw.cloned(), ..settings.clone() }).unwrap();
            config.set_stateless_reset_token(Some(1));
            let (own, client, retry) = ([1; 16], [2; 20], [3; 8]);
            let ids = quiche::RetryConnectionIds {
                original_destination_cid: &ConnectionId::from_ref(&client),
                retry_source_cid: &ConnectionId::from_ref(&retry),
            };
            let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
            quiche::accept_with_retry::<Lent>(&ConnectionId::from_ref(&own), ids, at(1), at(2), &mut config)
                .map(drop)
        };
        assert_eq!(begins(None), Ok(()));
        assert_eq!(begins(Some(&raw)), Ok(()));
    }
}

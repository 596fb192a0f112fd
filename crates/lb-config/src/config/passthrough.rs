//! QUIC that is forwarded without a handshake of our own (Mode A).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lb_core::words;

use super::BackendPool;

/// `[passthrough]`, beside what it has in common with other listeners.
#[derive(Clone, PartialEq, Debug)]
pub struct Passthrough {
    /// The 32-byte secret that signs Retry tokens.
    pub retry_secret_path: PathBuf,
    /// Whether the gateway sends Retry itself.
    pub mint_retry: MintRetry,
    /// Backends that have the secret too.
    pub retry_secret_shared_with: Vec<SocketAddr>,
    /// Paths of clients that are tracked at once.
    pub max_quic_connections: usize,
    /// The shortest destination connection ID that a client may choose.
    pub min_client_dcid_len: usize,
    /// Connections that one source may begin in a second. 0 = any number.
    pub new_connections_per_source: u32,
    /// Datagrams that may wait until a server name is whole.
    pub per_flow_backlog: usize,
    /// Whether a connection is bound to the address it began from.
    pub strict_source_binding: bool,
    /// How often a repeated refusal is logged.
    pub audit_throttle_window: Duration,
    /// The longest connection ID that is remembered.
    pub max_dcid_len_routed: usize,
    /// How long a path may be silent. None = for ever.
    pub flow_idle_timeout: Option<Duration>,
    /// Whether the first datagram of a path has a PROXY v2 header before it.
    pub proxy_protocol: bool,
    /// Which server names lead to other pools.
    pub routes: Vec<SniRoute>,
    /// How servers make their connection IDs.
    pub quic_lb: Vec<QuicLb>,
}

words! {
    /// Whether the gateway sends Retry.
    MintRetry {
        /// To clients of backends that have the secret too.
        Auto = "auto",
        /// To every client.
        Always = "true",
        /// To no client.
        Never = "false",
    }
}

/// Server names, and the pool that they lead to.
#[derive(Clone, Debug)]
pub struct SniRoute {
    /// The names, in lower case; the first label may be `*`.
    pub sni: Vec<String>,
    /// The pool.
    pub pool: Arc<BackendPool>,
}

/// What the pool is by itself is no part of the route.
impl PartialEq for SniRoute {
    fn eq(&self, other: &Self) -> bool {
        self.sni == other.sni && self.pool.id == other.pool.id
    }
}

/// A format of connection IDs that name their server (draft-ietf-quic-load-balancers).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuicLb {
    /// The config rotation bits.
    pub config_id: u8,
    /// The bytes of a nonce.
    pub nonce_length: usize,
    /// File of the 16-byte key. None = IDs are in the clear.
    pub key_path: Option<PathBuf>,
    /// The server IDs, all of one length, each with its backend.
    pub servers: Vec<(Vec<u8>, SocketAddr)>,
}

impl QuicLb {
    /// Reads a server ID in hex digits and the address of its backend, with `=` between.
    pub(crate) fn parse_server(text: &str) -> Option<(Vec<u8>, SocketAddr)> {
        let (id, address) = text.split_once('=')?;
        let id = hex_octets(id.trim()).filter(|id| id.len() <= 15)?;
        Some((id, address.trim().parse().ok()?))
    }
}

/// The bytes of a text in hex digits; at least one.
pub(crate) fn hex_octets(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |hex: u8| char::from(hex).to_digit(16);
    let byte = |&[high, low]: &[u8; 2]| u8::try_from(digit(high)? * 16 + digit(low)?).ok();
    let octets: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    (rest.is_empty() && !octets.is_empty()).then_some(octets)
}

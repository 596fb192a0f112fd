//! What the log says of connections that a cap has turned away.
//!
//! A gateway behind another load balancer sees all clients at one address, and meets its caps with honest traffic. So each cap says in the
//! log which it is and which key widens it: a few lines, however many connections it turns away.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use lb_core::address::{ClientAddress, UNIX_PREFIX};
use lb_core::log_limit::LogLimit;

/// A cap on connections of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Connections of one address.
    Address,
    /// Connections of one listener.
    Listener,
    /// Handshakes at once.
    Handshakes,
    /// Handshakes of one network at once.
    HandshakesOfNetwork,
    /// Memory that QUIC holds.
    Memory,
}

/// Lines of one cap that are written at once, and how often another one is.
const BURST: u32 = 3;
const INTERVAL: Duration = Duration::from_secs(10);

static ADDRESS: LogLimit = LogLimit::new(BURST, INTERVAL);
static LISTENER: LogLimit = LogLimit::new(BURST, INTERVAL);
static HANDSHAKES: LogLimit = LogLimit::new(BURST, INTERVAL);
static HANDSHAKES_OF_NETWORK: LogLimit = LogLimit::new(BURST, INTERVAL);
static MEMORY: LogLimit = LogLimit::new(BURST, INTERVAL);

impl Cap {
    fn limit(self) -> &'static LogLimit {
        match self {
            Self::Address => &ADDRESS,
            Self::Listener => &LISTENER,
            Self::Handshakes => &HANDSHAKES,
            Self::HandshakesOfNetwork => &HANDSHAKES_OF_NETWORK,
            Self::Memory => &MEMORY,
        }
    }

    /// The key that widens it.
    fn key(self) -> &'static str {
        match self {
            Self::Address => "runtime.per_ip_connection_cap",
            Self::Listener => "runtime.max_inflight_connections",
            Self::Handshakes => "runtime.max_handshakes_in_flight",
            Self::HandshakesOfNetwork => "runtime.max_handshakes_per_network",
            Self::Memory => "runtime.quic_buffer_bytes",
        }
    }

    /// Says that a connection from `client` was turned away, unless enough was said lately.
    pub fn tell(self, listener: &str, client: ClientAddress) {
        let Some(unsaid) = self.limit().admit(Instant::now()) else { return };
        let (key, network) = (self.key(), Network::of(client));
        match self {
            Self::Address => {
                tracing::warn!(listener, %network, key, unsaid, "refused accept — per-address connection cap reached");
            }
            Self::Listener => {
                tracing::warn!(listener, %network, key, unsaid, "shed accept — per-listener inflight cap reached");
            }
            Self::Memory => {
                tracing::warn!(listener, %network, key, unsaid, "refused QUIC connection — memory for QUIC is used up");
            }
            Self::Handshakes | Self::HandshakesOfNetwork => {
                tracing::warn!(listener, %network, key, unsaid, "refused TLS handshake — cap of handshakes in flight reached");
            }
        }
    }
}

/// The network that a client has its address in: one subscriber may have a whole /64 of IPv6, and one attacker many addresses of a /24.
/// Clients of a Unix socket are in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(Option<IpAddr>);

impl Network {
    /// That of a client.
    pub fn of(client: ClientAddress) -> Self {
        Self(client.ip().map(|ip| match ip.to_canonical() {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        }))
    }

    /// Whether there is one.
    pub fn is_known(self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(network) => write!(f, "{network}/{}", if network.is_ipv4() { 24 } else { 64 }),
            None => f.write_str(UNIX_PREFIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn a_network_is_written_with_its_length() {
        let written = |text: &str| Network::of(SocketAddr::new(text.parse().unwrap(), 1).into()).to_string();
        assert_eq!(written("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(written("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(written("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(Network::of(ClientAddress::Unix).to_string(), "unix:");
    }
}

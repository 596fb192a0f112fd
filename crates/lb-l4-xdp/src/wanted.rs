//! What the tables of the programs are to say.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_l4_xdp_layout::{AclRule, Backend, Mode, Service, Settings, Standing};

use crate::plane::{words4, words6};

/// What a packet is found to be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// The virtual address.
    pub address: IpAddr,
    /// The number of the protocol.
    pub protocol: u8,
    /// The port; 0 = all that have no service of their own.
    pub port: u16,
}

/// The whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// What holds for all services.
    pub settings: Settings,
    /// The services. No two of them have the same [`Vip`].
    pub services: Vec<WantedService>,
    /// Networks of sources, each by its first address and the bits of its prefix.
    pub rules: BTreeMap<(IpAddr, u8), AclRule>,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedService {
    /// What it is found by.
    pub vip: Vip,
    /// How packets get to a backend.
    pub mode: Mode,
    /// Whether all flows of one client address have one backend.
    pub by_source: bool,
    /// Whether a listener of this machine gets what leads to no backend.
    pub has_listener: bool,
    /// The gateway's address towards backends in mode `nat`.
    pub nat_source: Option<IpAddr>,
    /// First port for translated flows, and their number.
    pub nat_ports: (u16, u16),
    /// How the connection IDs of QUIC lead to backends, if they do.
    pub ids: Option<IdFormat>,
    /// In mode `local` the SYNs of a second that a core lets through; more are answered with a cookie. 0 = no end.
    pub syns_per_core: u32,
    /// Where its packets go.
    pub members: Vec<WantedMember>,
}

/// Connection IDs of QUIC that name their server in the clear (draft-ietf-quic-load-balancers-21 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdFormat {
    /// Their first three bits.
    pub rotation: u8,
    /// Octets of the server ID, behind the first octet; 1 to 15.
    pub server_id: u8,
    /// Octets of the whole ID; at most 20.
    pub length: u8,
}

impl IdFormat {
    /// The bits of the server ID in what follows the first octet.
    fn mask(self) -> [u32; 4] {
        server_id_words([0xff; 15].get(..usize::from(self.server_id)).unwrap_or(&[0xff; 15]))
    }
}

/// A server ID as the programs have it: at most sixteen octets, and zeros behind them.
pub fn server_id_words(id: &[u8]) -> [u32; 4] {
    let mut octets = [0; 16];
    for (to, from) in octets.iter_mut().zip(id) {
        *to = *from;
    }
    words6(octets)
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedMember {
    /// Where it is.
    pub address: SocketAddr,
    /// What places it in the table of its service: the same on all gateways.
    pub identity: u64,
    /// Whether it gets packets.
    pub standing: Standing,
    /// Its share of new flows while it is live; 0 = none.
    pub weight: u32,
    /// Source of the packets that wrap those for it, of its own family.
    pub tunnel_source: Option<IpAddr>,
    /// How many of the last bits of that differ from flow to flow; at most 32.
    pub spread_bits: u32,
    /// The server IDs that lead to it, as [`server_id_words`] makes them. No other member of the service has one of them.
    pub server_ids: Vec<[u32; 4]>,
}

impl WantedService {
    /// As it stands in the table.
    pub(crate) fn entry(&self) -> Service {
        Service {
            present: 1,
            mode: self.mode as u8,
            by_source: u8::from(self.by_source),
            has_listener: u8::from(self.has_listener),
            nat_port_first: self.nat_ports.0,
            nat_port_count: self.nat_ports.1,
            nat_source: self.nat_source.map_or([0; 4], words),
            id_mask: self.ids.map_or([0; 4], IdFormat::mask),
            id_length: self.ids.map_or(0, |ids| ids.length),
            id_rotation: self.ids.map_or(0, |ids| ids.rotation),
            zero: [0; 2],
            syns_per_core: self.syns_per_core,
        }
    }
}

impl WantedMember {
    /// As it stands in the table, for the service of this index.
    pub(crate) fn entry(&self, service: u16, of: &WantedService) -> Backend {
        let port = match of.mode {
            // A service of all ports leaves them as they are.
            Mode::Nat if of.vip.port == 0 => 0,
            Mode::Nat | Mode::Gue => self.address.port(),
            Mode::Ipip | Mode::Link | Mode::Local => 0,
        };
        let spread = 1u32.checked_shl(self.spread_bits).unwrap_or(0).wrapping_sub(1);
        Backend {
            address: words(self.address.ip()),
            outer_source: self.tunnel_source.map_or([0; 4], words),
            spread_mask: if self.tunnel_source.is_some() { spread.to_be() } else { 0 },
            generation: 0,
            standing: self.standing as u8,
            mode: of.mode as u8,
            is_ipv6: u8::from(self.address.is_ipv6()),
            by_id: u8::from(of.ids.is_some()),
            port: port.to_be(),
            service,
        }
    }
}

/// An address as programs have it.
pub(crate) fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [words4(address.octets()), 0, 0, 0],
        IpAddr::V6(address) => words6(address.octets()),
    }
}

/// What `words` was made of.
pub fn address(words: [u32; 4], is_ipv6: bool) -> IpAddr {
    let [first, ..] = words;
    if !is_ipv6 {
        return IpAddr::from(first.to_ne_bytes());
    }
    let mut octets = [0; 16];
    for (to, word) in octets.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::from(octets)
}

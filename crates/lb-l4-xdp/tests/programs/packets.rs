//! Builds frames, and takes apart what comes out.

use std::net::IpAddr;

use crate::rig::{ETH0, mac};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const FIN: u8 = 0x11;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A frame that is built.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) tags: Vec<[u8; 4]>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// Options over IPv4, extension headers over IPv6 with the number of the first.
    pub(crate) options: Vec<u8>,
    pub(crate) first_extension: Option<u8>,
    /// Identification, and offset with flags as over IPv4.
    pub(crate) fragment: (u16, u16),
    pub(crate) payload: Vec<u8>,
    /// Octets of the transport's header and payload that are in the checksum besides: those of other fragments.
    pub(crate) is_bare: bool,
}

pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

impl Packet {
    pub(crate) fn tcp(source: (&str, u16), destination: (&str, u16), flags: u8) -> Self {
        let mut header = vec![0; 20];
        header[0..2].copy_from_slice(&source.1.to_be_bytes());
        header[2..4].copy_from_slice(&destination.1.to_be_bytes());
        header[4..8].copy_from_slice(&[1, 2, 3, 4]);
        header[12] = 0x50;
        header[13] = flags;
        header[14] = 0xff;
        Self::of(source.0, destination.0, TCP, header)
    }

    pub(crate) fn udp(source: (&str, u16), destination: (&str, u16), data: &[u8]) -> Self {
        let mut header = vec![0; 8];
        header[0..2].copy_from_slice(&source.1.to_be_bytes());
        header[2..4].copy_from_slice(&destination.1.to_be_bytes());
        header[4..6].copy_from_slice(&(8 + data.len() as u16).to_be_bytes());
        header.extend(data);
        Self::of(source.0, destination.0, UDP, header)
    }

    pub(crate) fn of(source: &str, destination: &str, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            tags: Vec::new(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            ttl: 64,
            tos: 0,
            options: Vec::new(),
            first_extension: None,
            fragment: (0x1234, DONT_FRAGMENT),
            payload,
            is_bare: false,
        }
    }

    pub(crate) fn with_data(mut self, length: usize) -> Self {
        self.payload.extend((0..length).map(|at| at as u8));
        if self.protocol == UDP {
            let length = self.payload.len() as u16;
            self.payload[4..6].copy_from_slice(&length.to_be_bytes());
        }
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The packet from the IP header on.
    pub(crate) fn ip(&self) -> Vec<u8> {
        let mut payload = self.payload.clone();
        if !self.is_bare {
            let at = match self.protocol {
                TCP => Some(16),
                UDP => Some(6),
                ICMP | ICMPV6 => Some(2),
                _ => None,
            };
            if let Some(at) = at.filter(|at| payload.len() >= at + 2) {
                let sum = transport_checksum(self.source, self.destination, self.protocol, &payload);
                let sum = if sum == 0 && self.protocol == UDP { 0xffff } else { sum };
                payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
        }
        let mut ip;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + self.options.len();
                ip = vec![0x40 | (header / 4) as u8, self.tos];
                ip.extend(((header + payload.len()) as u16).to_be_bytes());
                ip.extend(self.fragment.0.to_be_bytes());
                ip.extend(self.fragment.1.to_be_bytes());
                ip.extend([self.ttl, self.protocol, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                ip.extend(&self.options);
                let sum = checksum(&ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ip = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
                ip.extend(((self.options.len() + payload.len()) as u16).to_be_bytes());
                ip.extend([self.first_extension.unwrap_or(self.protocol), self.ttl]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                ip.extend(&self.options);
            }
            _ => panic!("two families"),
        }
        ip.extend(payload);
        ip
    }

    /// The frame, from the next hop 9 to the gateway.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = [ETH0, mac(9)].concat();
        for tag in &self.tags {
            frame.extend(tag);
        }
        frame.extend(if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(self.ip());
        frame
    }
}

/// The checksum of the internet (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of a transport's header and payload whose checksum field is as it is: of one that is right, 0.
pub(crate) fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    // ICMP over IPv4 covers no addresses.
    if protocol != ICMP {
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
    }
    bytes.extend(payload);
    !fold(sum(&bytes))
}

/// A packet that is taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// Identification, and offset with flags.
    pub(crate) fragment: (u16, u16),
    pub(crate) payload: Vec<u8>,
}

impl Parsed {
    /// A packet from the IP header on. Its lengths and the header's checksum are right.
    pub(crate) fn ip(bytes: &[u8]) -> Self {
        match bytes[0] >> 4 {
            4 => {
                let header = usize::from(bytes[0] & 0xf) * 4;
                assert_eq!(checksum(&bytes[..header]), 0, "checksum of the header");
                let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                assert!(length <= bytes.len(), "{length} of {}", bytes.len());
                let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                let address = |at: usize| -> [u8; 4] { bytes[at..at + 4].try_into().unwrap() };
                Self {
                    source: address(12).into(),
                    destination: address(16).into(),
                    protocol: bytes[9],
                    ttl: bytes[8],
                    tos: bytes[1],
                    fragment: (word(4), word(6)),
                    payload: bytes[header..length].to_vec(),
                }
            }
            6 => {
                let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
                assert!(40 + length <= bytes.len(), "{length} of {}", bytes.len());
                let address = |at: usize| -> [u8; 16] { bytes[at..at + 16].try_into().unwrap() };
                Self {
                    source: address(8).into(),
                    destination: address(24).into(),
                    protocol: bytes[6],
                    ttl: bytes[7],
                    tos: bytes[0] << 4 | bytes[1] >> 4,
                    fragment: (0, 0),
                    payload: bytes[40..40 + length].to_vec(),
                }
            }
            version => panic!("version {version}"),
        }
    }

    /// The packet of a frame without tags, between two MAC addresses.
    pub(crate) fn frame(bytes: &[u8], destination: [u8; 6], source: [u8; 6]) -> Self {
        assert_eq!(bytes[..6], destination, "to {:02x?}", &bytes[..6]);
        assert_eq!(bytes[6..12], source, "from {:02x?}", &bytes[6..12]);
        let expected = if bytes[14] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        assert_eq!(bytes[12..14], expected);
        Self::ip(&bytes[14..])
    }

    /// Source and destination port. The checksum is right.
    pub(crate) fn ports(&self) -> (u16, u16) {
        self.is_sound();
        let word = |at: usize| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]);
        (word(0), word(2))
    }

    pub(crate) fn is_sound(&self) {
        if self.protocol == UDP && self.payload[6..8] == [0, 0] {
            return;
        }
        let sum = transport_checksum(self.source, self.destination, self.protocol, &self.payload);
        assert_eq!(sum, 0, "checksum of the transport: {self:?}");
    }

    /// The packet that this one wraps.
    pub(crate) fn inner(&self) -> Self {
        Self::ip(&self.payload)
    }

    pub(crate) fn goes(&self, source: &str, destination: &str) {
        assert_eq!((self.source, self.destination), (source.parse().unwrap(), destination.parse().unwrap()));
    }
}

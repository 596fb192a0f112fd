//! The PROXY protocol, version 2, in front of a datagram.

use std::net::{IpAddr, SocketAddr};

/// The longest header: that of IPv6.
const LONGEST: usize = 52;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and that the connection is made for another.
const PROXY: u8 = 0x21;

/// Datagrams over IPv4 and over IPv6.
const OVER_V4: u8 = 0x12;
const OVER_V6: u8 = 0x22;

/// A header, which stands before the first bytes of what it tells the addresses of.
#[derive(Debug)]
pub struct ProxyHeader {
    bytes: [u8; LONGEST],
    length: usize,
}

impl ProxyHeader {
    /// The header of what `client` has sent to `local`. Addresses of two families are both written as IPv6.
    pub fn new(client: SocketAddr, local: SocketAddr) -> Self {
        let mut header = Self { bytes: [0; LONGEST], length: 0 };
        header.put(&SIGNATURE);
        header.put(&[PROXY]);
        match (client.ip().to_canonical(), local.ip().to_canonical()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                header.put(&[OVER_V4, 0, 12]);
                header.put(&from.octets());
                header.put(&to.octets());
            }
            (from, to) => {
                header.put(&[OVER_V6, 0, 36]);
                for ip in [from, to] {
                    let ip = match ip {
                        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                        IpAddr::V6(v6) => v6,
                    };
                    header.put(&ip.octets());
                }
            }
        }
        header.put(&client.port().to_be_bytes());
        header.put(&local.port().to_be_bytes());
        header
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.length.saturating_add(part.len());
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(part);
            self.length = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_specification_has_them() {
        let of = |client: &str, local: &str| {
            ProxyHeader::new(client.parse().unwrap(), local.parse().unwrap()).bytes().to_vec()
        };
        let v4 = of("192.0.2.1:258", "192.0.2.9:53");
        assert_eq!(v4[..12], SIGNATURE);
        assert_eq!(v4[12..], [0x21, 0x12, 0, 12, 192, 0, 2, 1, 192, 0, 2, 9, 1, 2, 0, 53]);
        let v6 = of("[2001:db8::1]:1", "[2001:db8::2]:53");
        assert_eq!((v6.len(), &v6[12..16]), (LONGEST, &[0x21, 0x22, 0, 36][..]));
        assert_eq!(
            (v6[16..18].to_vec(), v6[31], v6[47], &v6[48..]),
            (vec![0x20, 1], 1, 2, &[0, 1, 0, 53][..])
        );
        // A socket of both families tells IPv4 in the form of IPv6.
        assert_eq!(of("[::ffff:192.0.2.1]:258", "192.0.2.9:53"), v4);
    }
}

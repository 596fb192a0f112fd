//! Socket addresses as the kernel writes them (`sockaddr_in`, `sockaddr_in6`).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the longer of the two.
pub(super) const NAME: usize = size_of::<libc::sockaddr_in6>();

/// Bytes of `sockaddr_in`.
const NAME_V4: usize = size_of::<libc::sockaddr_in>();

/// An address, and how many of its bytes are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    bytes: [u8; NAME],
    length: u8,
}

impl Name {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Whether it is one of IPv6.
    pub(super) fn is_v6(&self) -> bool {
        usize::from(self.length) == NAME
    }
}

fn family(number: libc::c_int) -> [u8; 2] {
    u16::try_from(number).unwrap_or_default().to_ne_bytes()
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; NAME];
        let mut put = |at: usize, part: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at.saturating_add(part.len())) {
                place.copy_from_slice(part);
            }
        };
        put(2, &address.port().to_be_bytes());
        let length = match address {
            SocketAddr::V4(v4) => {
                put(0, &family(libc::AF_INET));
                put(4, &v4.ip().octets());
                NAME_V4
            }
            SocketAddr::V6(v6) => {
                put(0, &family(libc::AF_INET6));
                put(4, &v6.flowinfo().to_ne_bytes());
                put(8, &v6.ip().octets());
                put(24, &v6.scope_id().to_ne_bytes());
                NAME
            }
        };
        Self { bytes, length: u8::try_from(length).unwrap_or_default() }
    }
}

/// Reads what the kernel has written. `None` for an address of another family.
pub(super) fn read(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let number = *bytes.first_chunk()?;
    if number == family(libc::AF_INET) {
        let ip = Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?);
        return Some(SocketAddrV4::new(ip, port).into());
    }
    if number != family(libc::AF_INET6) {
        return None;
    }
    let flow = u32::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let ip = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
    let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
    Some(SocketAddrV6::new(ip, port, flow, scope).into())
}

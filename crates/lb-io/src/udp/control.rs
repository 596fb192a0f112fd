//! Control messages of datagrams (cmsg(3)): the address that one was sent to, its ECN bits, and the size of joined ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of `cmsghdr` on Linux: a length of the machine's word, a level and a type. Its size is a multiple of a word, so that data follow at
/// once.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// Control messages begin at multiples of this.
const ALIGN: usize = size_of::<usize>();

/// Room for all control messages of a datagram that is received.
pub(super) const RECEIVE_ROOM: usize = 128;

/// Room for all control messages of a message that is sent: an address of IPv6, ECN bits, and a size.
pub(super) const SEND_ROOM: usize = aligned(HEADER + size_of::<libc::in6_pktinfo>())
    + aligned(HEADER + size_of::<libc::c_int>())
    + aligned(HEADER + size_of::<u16>());

/// What the control messages of a datagram have said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The address of this machine that it was sent to.
    pub(super) to: Option<IpAddr>,
    /// The two bits of explicit congestion notification (RFC 3168).
    pub(super) ecn: u8,
    /// The size of each datagram but the last, where the kernel has joined several.
    pub(super) segment: Option<usize>,
    /// The error (errno(3)) for a datagram that was sent, where this is one that has come back.
    pub(super) error: Option<libc::c_int>,
}

const fn aligned(length: usize) -> usize {
    length.div_ceil(ALIGN) * ALIGN
}

impl Facts {
    /// Reads the control messages that the kernel has written. What is not understood is passed over.
    pub(super) fn read(mut bytes: &[u8]) -> Self {
        let mut facts = Self::default();
        while let Some((length, level, kind)) = header(bytes) {
            let Some(data) = bytes.get(HEADER..length) else { break };
            facts.take(level, kind, data);
            let Some(rest) = bytes.get(aligned(length)..) else { break };
            bytes = rest;
        }
        facts
    }

    fn take(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let number = || data.first_chunk().map(|bytes| libc::c_int::from_ne_bytes(*bytes));
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment = number().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
            }
            // `in_pktinfo`: the interface, the local address, and the one in the header of the datagram.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let address = data.get(8..).and_then(<[u8]>::first_chunk::<4>);
                self.to = address.map(|address| Ipv4Addr::from(*address).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                self.to = data.first_chunk::<16>().map(|address| Ipv6Addr::from(*address).into());
            }
            // `sock_extended_err`, which begins with the error.
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                self.error = number();
            }
            // One byte, where that of IPv6 is a number.
            (libc::IPPROTO_IP, libc::IP_TOS) => self.ecn = data.first().copied().unwrap_or_default() & 3,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.ecn = number().and_then(|class| u8::try_from(class & 3).ok()).unwrap_or_default();
            }
            _ => {}
        }
    }
}

/// The length, the level and the type of the control message that stands first.
fn header(bytes: &[u8]) -> Option<(usize, libc::c_int, libc::c_int)> {
    let length = usize::from_ne_bytes(*bytes.first_chunk()?);
    let level = libc::c_int::from_ne_bytes(*bytes.get(HEADER - 8..)?.first_chunk()?);
    let kind = libc::c_int::from_ne_bytes(*bytes.get(HEADER - 4..)?.first_chunk()?);
    (length >= HEADER).then_some((length, level, kind))
}

/// Writes control messages one behind the other.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    room: &'a mut [u8; SEND_ROOM],
    used: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(room: &'a mut [u8; SEND_ROOM]) -> Self {
        Self { room, used: 0 }
    }

    /// Has the message sent from this address of the machine.
    pub(super) fn from(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                let mut data = [0; size_of::<libc::in_pktinfo>()];
                if let Some(local) = data.get_mut(4..8) {
                    local.copy_from_slice(&v4.octets());
                }
                self.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
            }
            IpAddr::V6(v6) => {
                let mut data = [0; size_of::<libc::in6_pktinfo>()];
                if let Some(local) = data.first_chunk_mut::<16>() {
                    *local = v6.octets();
                }
                self.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
            }
        }
    }

    /// Has the packets of the message carry these ECN bits (RFC 3168), over IPv4 or over IPv6.
    pub(super) fn ecn(&mut self, bits: u8, is_v6: bool) {
        let (level, kind) = match is_v6 {
            false => (libc::IPPROTO_IP, libc::IP_TOS),
            true => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        self.put(level, kind, &libc::c_int::from(bits & 3).to_ne_bytes());
    }

    /// Has the message cut into datagrams of this size.
    pub(super) fn segment(&mut self, size: u16) {
        self.put(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// Bytes written.
    pub(super) fn finish(self) -> usize {
        self.used
    }

    fn put(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let length = HEADER.saturating_add(data.len());
        let end = self.used.saturating_add(aligned(length));
        let Some(place) = self.room.get_mut(self.used..end) else { return };
        let parts: [&[u8]; 4] = [&length.to_ne_bytes(), &level.to_ne_bytes(), &kind.to_ne_bytes(), data];
        let mut bytes = parts.into_iter().flatten();
        for place in place {
            *place = bytes.next().copied().unwrap_or(0);
        }
        self.used = end;
    }
}

/// Writes what the kernel says of a datagram that was sent to this address; says how many bytes that has taken.
pub(super) fn write_arrived(to: IpAddr, room: &mut [u8; RECEIVE_ROOM]) -> usize {
    let mut written = [0; SEND_ROOM];
    let mut writer = Writer::new(&mut written);
    match to {
        IpAddr::V4(v4) => {
            let mut data = [0; size_of::<libc::in_pktinfo>()];
            if let Some(local) = data.get_mut(8..12) {
                local.copy_from_slice(&v4.octets());
            }
            writer.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
        }
        IpAddr::V6(_) => writer.from(to),
    }
    let used = writer.finish();
    for (place, byte) in room.iter_mut().zip(written) {
        *place = byte;
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for address in ["192.0.2.7", "2001:db8::7"] {
            let address: IpAddr = address.parse().unwrap();
            let mut room = [0xff; SEND_ROOM];
            let mut writer = Writer::new(&mut room);
            let is_v4 = address.is_ipv4();
            writer.from(address);
            writer.ecn(0xfe, !is_v4);
            writer.segment(1200);
            let used = writer.finish();
            assert!(used <= SEND_ROOM && used.is_multiple_of(ALIGN));
            let Some((length, level, kind)) = header(&room) else { panic!("no header") };
            let expected = if is_v4 {
                (HEADER + 12, libc::IPPROTO_IP, libc::IP_PKTINFO)
            } else {
                (HEADER + 20, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
            };
            assert_eq!((length, level, kind), expected);
            let second = &room[aligned(length)..used];
            let (level, kind) = match is_v4 {
                true => (libc::IPPROTO_IP, libc::IP_TOS),
                false => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            assert_eq!(header(second), Some((HEADER + 4, level, kind)));
            assert_eq!(second[HEADER..HEADER + 4], 2i32.to_ne_bytes());
            let third = &second[aligned(HEADER + 4)..];
            assert_eq!(header(third), Some((HEADER + 2, libc::SOL_UDP, libc::UDP_SEGMENT)));
            // What is sent says the source where what is received says the destination.
            if !is_v4 {
                assert_eq!(Facts::read(&room[..used]).to, Some(address));
            }
        }
    }

    #[test]
    fn nonsense_says_nothing() {
        let default = Facts::default();
        assert_eq!(Facts::read(&[]), default);
        assert_eq!(Facts::read(&[0; RECEIVE_ROOM]), default);
        assert_eq!(Facts::read(&[0xff; RECEIVE_ROOM]), default);
        for length in 0..40 {
            let mut bytes = [0u8; RECEIVE_ROOM];
            bytes[0] = length;
            bytes[8..16].copy_from_slice(&[17, 0, 0, 0, 104, 0, 0, 0]);
            let _ = Facts::read(&bytes[..usize::from(length)]);
        }
    }
}

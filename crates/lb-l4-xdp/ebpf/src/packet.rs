//! Access to packets, and the headers in them.

use core::{arch::asm, mem::size_of};

use aya_ebpf::programs::XdpContext;

use crate::checksum::Sum;

pub const ETHERNET: usize = 14;
pub const ETHER_IPV4: u16 = 0x0800u16.to_be();
pub const ETHER_IPV6: u16 = 0x86ddu16.to_be();
pub const ETHER_VLAN: u16 = 0x8100u16.to_be();
pub const ETHER_QINQ: u16 = 0x88a8u16.to_be();

pub const ICMP: u8 = 1;
pub const IPIP: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const IPV6: u8 = 41;
pub const ICMPV6: u8 = 58;

/// The header of IPv4 without options (RFC 791 section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub length: u16,
    pub identification: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

impl Ipv4 {
    pub const SIZE: usize = size_of::<Self>();
    pub const DONT_FRAGMENT: u16 = 0x4000u16.to_be();
    pub const MORE_FRAGMENTS: u16 = 0x2000u16.to_be();
    pub const OFFSET: u16 = 0x1fffu16.to_be();
}

/// The fixed header of IPv6 (RFC 8200 section 3).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub version_class_label: u32,
    pub length: u16,
    pub next: u8,
    pub hop_limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

impl Ipv6 {
    pub const SIZE: usize = size_of::<Self>();
}

/// The beginning of a TCP header, up to the checksum and the urgent pointer (RFC 9293 section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Tcp {
    pub ports: u32,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub offset: u8,
    pub flags: u8,
    pub window: u16,
    pub checksum: u16,
    pub urgent: u16,
}

pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

/// RFC 768.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Udp {
    pub ports: u32,
    pub length: u16,
    pub checksum: u16,
}

impl Udp {
    pub const SIZE: u32 = size_of::<Self>() as u32;
}

/// The header at a place that is known when the program is compiled, if the packet is so long.
#[inline(always)]
pub fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some(start as *mut T)
}

/// The header at a place below 512, if the packet is so long.
///
/// The verifier knows that an access is within a packet when the pointer that is used is the one that was compared. The compiler must
/// therefore neither see through the sum nor drop the mask: the two empty assembler lines hide them from it.
#[inline(always)]
pub fn at_variable<T>(ctx: &XdpContext, offset: u32) -> Option<*mut T> {
    let mut offset = offset as usize;
    // SAFETY: no instruction is emitted.
    unsafe { asm!("/* {0} */", inout(reg) offset, options(pure, nomem, nostack, preserves_flags)) };
    offset &= 0x1ff;
    let mut start = ctx.data() + offset;
    // SAFETY: no instruction is emitted.
    unsafe { asm!("/* {0} */", inout(reg) start, options(pure, nomem, nostack, preserves_flags)) };
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    Some(start as *mut T)
}

/// Four words anywhere. One by one: the compiler copies an array of unknown alignment octet by octet.
#[inline(always)]
pub fn words(from: *const [u32; 4]) -> [u32; 4] {
    let from: *const u32 = from.cast();
    // SAFETY: the caller's pointer is to four words.
    unsafe {
        [
            from.read_unaligned(),
            from.add(1).read_unaligned(),
            from.add(2).read_unaligned(),
            from.add(3).read_unaligned(),
        ]
    }
}

/// Writes four words anywhere, as [`words`] reads them.
#[inline(always)]
pub fn write_words(to: *mut [u32; 4], words: &[u32; 4]) {
    let to: *mut u32 = to.cast();
    // SAFETY: the caller's pointer is to four words.
    unsafe {
        to.write_unaligned(words[0]);
        to.add(1).write_unaligned(words[1]);
        to.add(2).write_unaligned(words[2]);
        to.add(3).write_unaligned(words[3]);
    }
}

/// Whether two addresses are not the same, without a call to compare memory.
#[inline(always)]
pub fn differs(one: &[u32; 4], other: &[u32; 4]) -> bool {
    (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) != 0
}

/// The first twelve octets of a frame.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Macs([u32; 3]);

impl Macs {
    /// Writes them to the start of a frame.
    #[inline(always)]
    pub fn write(to: *mut Self, link: &[u32; 3]) {
        let to: *mut u32 = to.cast();
        // SAFETY: the caller's pointer is to twelve octets of the packet.
        unsafe {
            to.write_unaligned(link[0]);
            to.add(1).write_unaligned(link[1]);
            to.add(2).write_unaligned(link[2]);
        }
    }
}

/// What an outer header is made of.
pub struct Outer<'a> {
    /// Traffic class.
    pub class: u8,
    /// Octets of what it carries.
    pub carried: u16,
    pub protocol: u8,
    /// Hash of the flow, for the flow label (RFC 6438 section 3).
    pub hash: u32,
    pub source: &'a [u32; 4],
    pub destination: &'a [u32; 4],
}

impl Outer<'_> {
    /// Writes a header over IPv4. One that may not be fragmented has no identification (RFC 6864 section 4.1).
    #[inline(always)]
    pub fn write4(&self, to: *mut Ipv4, fragment: u16, identification: u16) {
        // SAFETY: the caller's pointer is to a header within the packet.
        let ip = unsafe { &mut *to };
        let length = (self.carried + Ipv4::SIZE as u16).to_be();
        let (source, destination) = (self.source[0], self.destination[0]);
        let first = u16::from_ne_bytes([0x45, self.class]);
        let life = u16::from_ne_bytes([64, self.protocol]);
        let sum = u64::from(first)
            + u64::from(length)
            + u64::from(identification)
            + u64::from(fragment)
            + u64::from(life)
            + u64::from(source)
            + u64::from(destination);
        ip.version_ihl = 0x45;
        ip.tos = self.class;
        ip.length = length;
        ip.identification = identification;
        ip.fragment = fragment;
        ip.ttl = 64;
        ip.protocol = self.protocol;
        ip.checksum = !Sum(sum).fold();
        ip.source = source;
        ip.destination = destination;
    }

    /// Writes a header over IPv6.
    #[inline(always)]
    pub fn write6(&self, to: *mut Ipv6) {
        // SAFETY: the caller's pointer is to a header within the packet.
        unsafe {
            (*to).version_class_label =
                (0x6000_0000 | u32::from(self.class) << 20 | self.hash & 0xf_ffff).to_be();
            (*to).length = self.carried.to_be();
            (*to).next = self.protocol;
            (*to).hop_limit = 64;
            write_words(&raw mut (*to).source, self.source);
            write_words(&raw mut (*to).destination, self.destination);
        }
    }
}

/// The traffic class of the first word of a header over IPv6.
#[inline(always)]
pub fn class_of(word: u32) -> u8 {
    (u32::from_be(word) >> 20) as u8
}

//! Headers as they stand in a packet, in network byte order.

use core::mem::size_of;

/// Octets of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Ether type of IPv4.
pub const ETHER_IPV4: u16 = 0x0800u16.to_be();
/// Ether type of IPv6.
pub const ETHER_IPV6: u16 = 0x86ddu16.to_be();
/// Ether type of a VLAN tag (IEEE 802.1Q).
pub const ETHER_VLAN: u16 = 0x8100u16.to_be();
/// Ether type of an outer VLAN tag (IEEE 802.1ad).
pub const ETHER_QINQ: u16 = 0x88a8u16.to_be();

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of IPv4 in IP.
pub const IPIP: u8 = 4;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPv6 in IP.
pub const IPV6: u8 = 41;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// Something that a packet holds at any place.
///
/// # Safety
///
/// The type has the alignment 1, no padding and no pointer, and every pattern of bits is a value of it.
#[expect(unsafe_code, reason = "only the type's author can promise this; `wire!` asserts the alignment")]
pub unsafe trait Wire: Copy + 'static {}

macro_rules! wire {
    ($($name:ty: $size:literal;)*) => {$(
        const _: () = assert!(size_of::<$name>() == $size && align_of::<$name>() == 1);
        // SAFETY: the fields of the type are integers and arrays of them, packed, and their sizes sum up to the asserted size.
        #[expect(unsafe_code, reason = "the trait is a promise about memory")]
        unsafe impl Wire for $name {}
    )*};
}

wire! {
    u8: 1;
    Short: 2;
    Ipv4: 20;
    Ipv6: 40;
    Tcp: 20;
    Udp: 8;
    Ports: 4;
    Extension: 8;
    Octets16: 16;
}

/// A word of 16 bits.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct Short(pub u16);

/// Source port, then destination port.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct Ports(pub u32);

/// Sixteen octets.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct Octets16([u32; 4]);

impl Octets16 {
    /// As words. One by one: the compiler copies an array of unknown alignment octet by octet.
    #[inline(always)]
    pub fn words(&self) -> [u32; 4] {
        let from: *const u32 = (&raw const self.0).cast();
        // SAFETY: the pointer is to the four words of this value.
        #[expect(unsafe_code, reason = "an array in a packed structure has no reference")]
        unsafe {
            [
                from.read_unaligned(),
                from.add(1).read_unaligned(),
                from.add(2).read_unaligned(),
                from.add(3).read_unaligned(),
            ]
        }
    }
}

/// What stands at a place of a slice; none beyond its end.
pub fn view<T: Wire>(octets: &[u8], offset: usize) -> Option<&T> {
    let found = octets.get(offset..)?.get(..size_of::<T>())?;
    // SAFETY: so many octets are there, and by the promise of the trait they need no alignment and are a value.
    #[expect(unsafe_code, reason = "what `Wire` is for")]
    Some(unsafe { &*found.as_ptr().cast() })
}

/// The header of IPv4 without options (RFC 791 section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct Ipv4 {
    /// Version, and length of the header in words.
    pub version_ihl: u8,
    /// Class and mark of congestion.
    pub tos: u8,
    /// Octets of the packet.
    pub length: u16,
    /// What fragments of one packet share.
    pub identification: u16,
    /// Flags, and the place of a fragment.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// What it carries.
    pub protocol: u8,
    /// Checksum of the header.
    pub checksum: u16,
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
}

impl Ipv4 {
    /// Its octets.
    pub const SIZE: usize = size_of::<Self>();
    /// The flag of [`Self::fragment`] that forbids fragments.
    pub const DONT_FRAGMENT: u16 = 0x4000u16.to_be();
    /// The flag of [`Self::fragment`] of all fragments but the last.
    pub const MORE_FRAGMENTS: u16 = 0x2000u16.to_be();
    /// The bits of [`Self::fragment`] that are the place of a fragment.
    pub const OFFSET: u16 = 0x1fffu16.to_be();
}

/// The fixed header of IPv6 (RFC 8200 section 3).
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct Ipv6 {
    /// Version, traffic class and flow label.
    pub version_class_label: u32,
    /// Octets behind this header.
    pub length: u16,
    /// What follows it.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Octets16,
    /// Destination address.
    pub destination: Octets16,
}

impl Ipv6 {
    /// Its octets.
    pub const SIZE: usize = size_of::<Self>();
}

/// The beginning of a TCP header, up to the checksum and the urgent pointer (RFC 9293 section 3.1).
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Source port, then destination port.
    pub ports: u32,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Its length in words, in the upper four bits.
    pub offset: u8,
    /// Control bits.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Checksum.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
}

impl Tcp {
    /// Its octets without options.
    pub const SIZE: usize = size_of::<Self>();
    /// The sender has finished.
    pub const FIN: u8 = 1;
    /// The connection begins.
    pub const SYN: u8 = 2;
    /// The connection is no more.
    pub const RST: u8 = 4;
    /// [`Self::acknowledgment`] counts.
    pub const ACK: u8 = 16;
}

/// RFC 768.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct Udp {
    /// Source port, then destination port.
    pub ports: u32,
    /// Octets of header and data.
    pub length: u16,
    /// Checksum.
    pub checksum: u16,
}

impl Udp {
    /// Its octets.
    pub const SIZE: usize = size_of::<Self>();
}

/// The first octets of an extension header, as long as the shortest is.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// What follows it.
    pub next: u8,
    /// Its length, in units that depend on what it is.
    pub length: u8,
    /// Offset and flags of a fragment; type and segments left of a routing header.
    pub third: u16,
    /// What fragments of one packet share.
    pub identification: u32,
}

//! Access to packets, and the headers in them.

use core::{arch::asm, mem::size_of};

use aya_ebpf::{helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};

use lb_l4_xdp_layout::read::Frame;
pub use lb_l4_xdp_layout::wire::{
    ETHER_IPV4, ETHER_IPV6, ETHERNET, ICMP, ICMPV6, IPIP, IPV6, Ipv4, Ipv6, Octets16, Ports, TCP, Tcp, UDP,
    Udp, Wire,
};

use crate::checksum::Sum;

/// The packet of a program, to be read.
pub struct Packet<'a>(pub &'a XdpContext);

impl Frame for Packet<'_> {
    #[inline(always)]
    fn at<T: Wire>(&self, offset: usize) -> Option<&T> {
        // SAFETY: within the packet, and of a type that stands anywhere.
        at::<T>(self.0, offset).map(|found| unsafe { &*found })
    }

    #[inline(always)]
    fn at_variable<T: Wire>(&self, offset: u32) -> Option<&T> {
        // SAFETY: as above.
        at_variable::<T>(self.0, offset).map(|found| unsafe { &*found })
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        frame_length(self.0)
    }

    #[inline(always)]
    fn holds(&self, octets: usize) -> bool {
        self.0.data() + octets <= self.0.data_end()
    }
}

/// Whether the kernel knows packets in several buffers (5.18). The loader sets it.
#[unsafe(no_mangle)]
static HAS_FRAGS: u8 = 1;

/// The octets of a frame in all its buffers.
#[inline(always)]
pub fn frame_length(ctx: &XdpContext) -> u32 {
    // SAFETY: a constant that the loader may have changed before the program was loaded.
    if unsafe { core::ptr::read_volatile(&raw const HAS_FRAGS) } != 0 {
        // SAFETY: the context is that of this program.
        unsafe { bpf_xdp_get_buff_len(ctx.ctx) as u32 }
    } else {
        (ctx.data_end() - ctx.data()) as u32
    }
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

/// Writes four words anywhere, one by one as [`Octets16::words`] reads them.
#[inline(always)]
pub fn write_words(to: *mut Octets16, words: &[u32; 4]) {
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

/// Both MAC addresses of a frame.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Link {
    to_high: u32,
    to_low: u16,
    from_high: u32,
    from_low: u16,
}

impl Link {
    /// Those of a frame that goes back.
    #[inline(always)]
    pub fn turned(self) -> Self {
        Self {
            to_high: self.from_high,
            to_low: self.from_low,
            from_high: self.to_high,
            from_low: self.to_low,
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

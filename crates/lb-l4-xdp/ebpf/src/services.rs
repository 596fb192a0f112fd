//! Which service a packet is for, and which sources may reach it.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_l4_xdp_layout::{AclRule, PacketFlags, PacketNote, Settings, VipKey4, VipKey6};

use crate::maps::{ADDRESSES, SOURCES4, SOURCES6, VIPS4, VIPS6};

/// Whether anything has the address at this place of the filter.
#[inline(always)]
pub fn may_be_ours((word, bit): (u32, u32)) -> bool {
    ADDRESSES.get(word).is_some_and(|word| word >> bit & 1 != 0)
}

/// Whether a service has the address of a packet over IPv4.
#[inline(always)]
pub fn is_vip4(address: u32) -> bool {
    VIPS4.get_ptr(&VipKey4 { address, port: 0, protocol: 0, zero: 0 }).is_some()
}

#[inline(always)]
pub fn is_vip6(address: &[u32; 4]) -> bool {
    VIPS6.get_ptr(&VipKey6 { address: *address, port: 0, protocol: 0, zero: 0 }).is_some()
}

/// Whether a service has the address of a packet.
#[inline(always)]
pub fn is_vip(note: &PacketNote) -> bool {
    if note.flags & PacketFlags::IPV6 == 0 {
        is_vip4(note.destination[0])
    } else {
        is_vip6(&note.destination)
    }
}

/// The index of the service of a packet: that of its port, or else that of all ports.
#[inline(always)]
pub fn service_of(note: &PacketNote) -> Option<u32> {
    let port = (note.ports >> 16) as u16;
    let protocol = note.protocol as u8;
    let index = if note.flags & PacketFlags::IPV6 == 0 {
        let mut key = VipKey4 { address: note.destination[0], port, protocol, zero: 0 };
        match VIPS4.get_ptr(&key) {
            Some(index) => index,
            None => {
                key.port = 0;
                VIPS4.get_ptr(&key)?
            }
        }
    } else {
        let mut key = VipKey6 { address: note.destination, port, protocol, zero: 0 };
        match VIPS6.get_ptr(&key) {
            Some(index) => index,
            None => {
                key.port = 0;
                VIPS6.get_ptr(&key)?
            }
        }
    };
    // SAFETY: a value of a map, of which entries are written whole.
    Some(unsafe { *index })
}

/// What is said of a source over IPv4; 0 if nothing is.
#[inline(always)]
pub fn rule4(settings: &Settings, source: u32) -> u32 {
    if settings.has_acl4 == 0 {
        return 0;
    }
    SOURCES4.get(&Key::new(32, source)).map_or(0, |rule| *rule)
}

/// What is said of a source over IPv6; 0 if nothing is.
#[inline(always)]
pub fn rule6(settings: &Settings, source: &[u32; 4]) -> u32 {
    if settings.has_acl6 == 0 {
        return 0;
    }
    SOURCES6.get(&Key::new(128, *source)).map_or(0, |rule| *rule)
}

/// What is said of the source of a packet; 0 if nothing is.
#[inline(always)]
pub fn rule(settings: &Settings, note: &PacketNote) -> u32 {
    if note.flags & PacketFlags::IPV6 == 0 {
        rule4(settings, note.source[0])
    } else {
        rule6(settings, &note.source)
    }
}

pub const DENY: u32 = AclRule::Deny as u32;
pub const ALLOW: u32 = AclRule::Allow as u32;

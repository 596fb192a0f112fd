//! The hash that leads a flow to a slot of its service's ring.
//!
//! Gateways that share a service must agree on it, and so must user space with the kernel: this is the one definition. A seed that all
//! gateways of a service share keeps clients from choosing their backend.

use crate::RING_SLOTS;
use crate::flow::{FlowKey4, FlowKey6};

/// The hash of a flow over IPv4.
#[inline(always)]
pub const fn flow_hash4(key: &FlowKey4, seed: u32) -> u32 {
    let one = mix(((key.source as u64) << 32 | key.ports as u64) ^ SOURCE);
    let two = (key.destination as u64) << 32 | (key.protocol ^ seed) as u64;
    (mix(one ^ two) >> 32) as u32
}

/// The hash of a flow over IPv6.
#[inline(always)]
pub const fn flow_hash6(key: &FlowKey6, seed: u32) -> u32 {
    let [a, b, c, d] = key.source;
    let [e, f, g, h] = key.destination;
    let mut hash = mix(((a as u64) << 32 | b as u64) ^ SOURCE);
    hash = mix(hash ^ ((c as u64) << 32 | d as u64));
    hash = mix(hash ^ ((e as u64) << 32 | f as u64));
    hash = mix(hash ^ ((g as u64) << 32 | h as u64));
    hash = mix(hash ^ ((key.ports as u64) << 32 | (key.protocol ^ seed) as u64));
    (hash >> 32) as u32
}

/// The slot of a hash: where it falls when its range is cut into as many parts as a ring has slots.
#[inline(always)]
pub const fn ring_slot(hash: u32) -> u32 {
    ((hash as u64 * RING_SLOTS as u64) >> 32) as u32
}

/// Where an address over IPv4 stands in the filter of addresses that services and translations have: the word, and the bit in it. Packets to an
/// address whose bit is not set are not looked at any further; a bit that another address has set costs a look-up.
#[inline(always)]
pub const fn address_place4(address: u32) -> (u32, u32) {
    let place = address.wrapping_mul(0x9e37_79b1) >> 16;
    (place >> 6, place & 63)
}

/// The same over IPv6.
#[inline(always)]
pub const fn address_place6(address: &[u32; 4]) -> (u32, u32) {
    address_place4(address[0] ^ address[1].rotate_left(8) ^ address[2].rotate_left(16) ^ address[3])
}

/// A number whose upper bits depend on all bits of `value`.
#[inline(always)]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (value ^ (value >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

const SOURCE: u64 = 0x9e37_79b9_7f4a_7c15;

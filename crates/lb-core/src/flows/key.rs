//! What tells flows apart.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// The addresses of a flow: the client's, and the local one that it sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    client: u128,
    local: u128,
    /// The client's port, and the scope of its address.
    port: u64,
}

impl FlowKey {
    /// That of datagrams from `client` to `local`. Without a local address there is only one.
    pub fn new(client: SocketAddr, local: Option<IpAddr>) -> Self {
        let scope = match client {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        Self {
            client: wide(client.ip()),
            local: local.map_or(0, wide),
            port: u64::from(scope) << 16 | u64::from(client.port()),
        }
    }
}

/// An IPv4 address in the form that IPv6 has for it.
fn wide(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for wide in [self.client, self.local] {
            state.write_u64(low(wide));
            state.write_u64(low(wide >> 64));
        }
        state.write_u64(self.port);
    }
}

/// A quick keyed hash for keys of a few words: of each word, the two halves of a product are joined. It withstands senders that do not know
/// the seed and see no times to the nanosecond; a table is bounded besides.
#[derive(Clone, Copy, Debug)]
pub struct FlowHash {
    seed: u64,
}

impl FlowHash {
    /// With a secret.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }
}

impl BuildHasher for FlowHash {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.seed, secret: self.seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15 }
    }
}

/// The state of a [`FlowHash`].
#[derive(Clone, Copy, Debug)]
pub struct Folded {
    state: u64,
    secret: u64,
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        fold(self.state, 0x5851_f42d_4c95_7f2d ^ self.secret)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(chunk) {
                *place = *byte;
            }
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.secret | 1).wrapping_add(self.secret);
    }
}

#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one).wrapping_mul(u128::from(other));
    low(product) ^ low(product >> 64)
}

#[inline]
fn low(wide: u128) -> u64 {
    u64::try_from(wide & u128::from(u64::MAX)).unwrap_or_default()
}

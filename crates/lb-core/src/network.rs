//! Sets of networks, looked up by address: whom a listener trusts, whom it lets in.
//!
//! The networks become ranges that do not overlap, in order, when the configuration is read. A look-up is then one binary search,
//! whatever the number of networks and however they lie in each other.

use std::net::IpAddr;

use crate::route::IpNetwork;

/// What holds for addresses by the networks they are in: of several, the one with the longest prefix decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkMap<V> {
    v4: Ranges<V>,
    v6: Ranges<V>,
}

impl<V: Copy + PartialEq> NetworkMap<V> {
    /// The map of these networks. Of two entries for one network, the later one holds.
    pub fn new(entries: impl IntoIterator<Item = (IpNetwork, V)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, value) in entries {
            let into = if network.address().is_ipv4() { &mut v4 } else { &mut v6 };
            let (first, last) = network.bits();
            into.push(Entry { first, last, length: network.length(), value });
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    /// What holds for an address; `None` where no network has it. IPv4 addresses in IPv6 form are IPv4 addresses.
    pub fn get(&self, address: IpAddr) -> Option<V> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.get(u128::from(address.to_bits())),
            IpAddr::V6(address) => self.v6.get(address.to_bits()),
        }
    }

    /// Whether it has no network.
    pub fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }
}

/// A network as the numbers of its first and its last address.
#[derive(Clone, Copy)]
struct Entry<V> {
    first: u128,
    last: u128,
    length: u8,
    value: V,
}

/// Ranges in ascending order, by their first address; each ends before the next one begins. A gap is a range without a value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ranges<V>(Vec<(u128, Option<V>)>);

impl<V: Copy + PartialEq> Ranges<V> {
    fn new(mut entries: Vec<Entry<V>>) -> Self {
        // Networks either lie in each other or apart: an outer one comes before those within it. The sort is stable, so that of equal
        // ones the last comes last.
        entries.sort_by_key(|entry| (entry.first, entry.length));
        let mut ranges: Vec<(u128, Option<V>)> = Vec::new();
        let mut open: Vec<Entry<V>> = Vec::new();
        for entry in entries {
            close(&mut ranges, &mut open, Some(entry.first));
            begin(&mut ranges, entry.first, Some(entry.value));
            open.push(entry);
        }
        close(&mut ranges, &mut open, None);
        Self(ranges)
    }

    fn get(&self, address: u128) -> Option<V> {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        self.0.get(after.checked_sub(1)?)?.1
    }
}

/// Ends those open networks that end before an address, the inner ones first; without an address, all of them.
fn close<V: Copy + PartialEq>(
    ranges: &mut Vec<(u128, Option<V>)>,
    open: &mut Vec<Entry<V>>,
    before: Option<u128>,
) {
    while let Some(inner) = open.pop_if(|entry| before.is_none_or(|before| entry.last < before)) {
        // The last address of all has none behind it.
        if let Some(next) = inner.last.checked_add(1) {
            begin(ranges, next, open.last().map(|outer| outer.value));
        }
    }
}

fn begin<V: Copy + PartialEq>(ranges: &mut Vec<(u128, Option<V>)>, first: u128, value: Option<V>) {
    ranges.pop_if(|(last, _)| *last == first);
    if ranges.last().map_or(value.is_some(), |(_, before)| *before != value) {
        ranges.push((first, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    fn network(text: &str) -> IpNetwork {
        IpNetwork::parse(text).unwrap()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let map = NetworkMap::new([
            (network("10.1.2.3"), 'd'),
            (network("0.0.0.0/0"), 'a'),
            (network("10.0.0.0/8"), 'b'),
            (network("10.1.0.0/16"), 'c'),
            (network("255.255.255.255"), 'e'),
            (network("2001:db8::/32"), 'f'),
        ]);
        for (address, value) in [
            ("9.255.255.255", Some('a')),
            ("10.0.0.0", Some('b')),
            ("10.1.0.0", Some('c')),
            ("10.1.2.2", Some('c')),
            ("10.1.2.3", Some('d')),
            ("::ffff:10.1.2.3", Some('d')),
            ("10.1.2.4", Some('c')),
            ("10.2.0.0", Some('b')),
            ("11.0.0.0", Some('a')),
            ("255.255.255.255", Some('e')),
            ("2001:db8::1", Some('f')),
            ("2001:db9::", None),
            ("::", None),
        ] {
            assert_eq!(map.get(address.parse().unwrap()), value, "{address}");
        }
        assert!(!map.is_empty() && NetworkMap::<()>::new([]).is_empty());
        let later = NetworkMap::new([(network("::/0"), 1), (network("::/0"), 2)]);
        assert_eq!(later.get("ffff::".parse().unwrap()), Some(2));
    }

    #[test]
    fn ranges_say_what_the_networks_say() {
        let mut rng = SplitMix64::new(7);
        for _ in 0..2000 {
            // A few bits that vary, so that networks meet.
            let mut entries = Vec::new();
            for value in 0..rng.next_u64() % 12 {
                let length = u32::try_from(rng.next_u64() % 33).unwrap();
                let high = (rng.next_u64() & 0xc000_0007).wrapping_mul(0x0101_0101);
                let bits = u32::try_from(high & 0xffff_ffff).unwrap();
                let bits = if length == 0 { 0 } else { bits >> (32 - length) << (32 - length) };
                let address = std::net::Ipv4Addr::from_bits(bits);
                entries.push((network(&format!("{address}/{length}")), value));
            }
            let map = NetworkMap::new(entries.clone());
            let at_edges = entries.iter().flat_map(|(network, _)| {
                let (first, last) = network.bits();
                [first.saturating_sub(1), first, last, last.saturating_add(1)]
            });
            for bits in at_edges.filter_map(|bits| u32::try_from(bits).ok()) {
                let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(bits));
                let fitting = entries.iter().filter(|(network, _)| network.contains(address));
                let naive = fitting.max_by_key(|(network, _)| network.length()).map(|(_, value)| *value);
                assert_eq!(map.get(address), naive, "{address} in {entries:?}");
            }
        }
    }
}

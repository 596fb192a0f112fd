//! Sets of networks, looked up by address: whom a listener trusts, whom it lets in.
//!
//! The networks become ranges that do not overlap, in order, when they are read. A look-up then goes down a tree of their beginnings, one line of memory at
//! each step: five or six lines of 100 000 networks, however the networks lie in each other. Of IPv6 the tree has the upper 64 bits, which tell most
//! networks apart.

use std::net::IpAddr;

use crate::route::IpNetwork;

/// What holds for addresses by the networks they are in: of several, the one with the longest prefix decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkMap<V> {
    v4: Tree<u32, 16>,
    /// What holds from each beginning on.
    v4_values: Box<[Option<V>]>,
    v6: Tree<u64, 8>,
    /// What holds from the last beginning on that has these upper 64 bits.
    v6_values: Box<[Option<V>]>,
    /// The beginnings whose upper bits have lower ones besides 0, by their place: with the lower bits in ascending order, from 0 on.
    v6_lower: Box<[(usize, LowerBits<V>)]>,
}

type LowerBits<V> = Box<[(u64, Option<V>)]>;

impl<V: Copy + PartialEq> NetworkMap<V> {
    /// The map of these networks. Of two entries for one network, the later one holds.
    pub fn new(entries: impl IntoIterator<Item = (IpNetwork, V)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, value) in entries {
            let into = if network.address().is_ipv4() { &mut v4 } else { &mut v6 };
            let (first, last) = network.bits();
            into.push(Entry { first, last, length: network.length(), value });
        }
        // What follows the last address of IPv4 is none of its addresses.
        let v4 =
            ranges(v4).into_iter().filter_map(|(first, value)| Some((u32::try_from(first).ok()?, value)));
        let (v4, v4_values): (Vec<u32>, Vec<_>) = v4.unzip();
        let (mut uppers, mut v6_values, mut v6_lower) = (Vec::new(), Vec::new(), Vec::new());
        for ranges in ranges(v6).chunk_by(|(one, _), (other, _)| one >> 64 == other >> 64) {
            let Some((first, _)) = ranges.first() else { continue };
            let [upper, lower] = halves(*first);
            // Up to the first beginning goes on what was before it.
            let rest = (lower != 0).then_some((0, v6_values.last().copied().flatten()));
            let ranges = ranges.iter().map(|(first, value)| (halves(*first)[1], *value));
            let lower: LowerBits<V> = rest.into_iter().chain(ranges).collect();
            uppers.push(upper);
            v6_values.push(lower.last().and_then(|(_, value)| *value));
            if lower.len() > 1 {
                v6_lower.push((v6_values.len().wrapping_sub(1), lower));
            }
        }
        Self {
            v4: Tree::new(v4),
            v4_values: v4_values.into(),
            v6: Tree::new(uppers),
            v6_values: v6_values.into(),
            v6_lower: v6_lower.into(),
        }
    }

    /// What holds for an address; `None` where no network has it. IPv4 addresses in IPv6 form are IPv4 addresses.
    pub fn get(&self, address: IpAddr) -> Option<V> {
        match address.to_canonical() {
            IpAddr::V4(address) => *self.v4_values.get(self.v4.find(address.to_bits())?.0)?,
            IpAddr::V6(address) => {
                let [upper, lower] = halves(address.to_bits());
                let (at, found) = self.v6.find(upper)?;
                if found == upper
                    && !self.v6_lower.is_empty()
                    && let Ok(known) = self.v6_lower.binary_search_by_key(&at, |(at, _)| *at)
                {
                    let (_, ranges) = self.v6_lower.get(known)?;
                    let after = ranges.partition_point(|(first, _)| *first <= lower);
                    return ranges.get(after.checked_sub(1)?)?.1;
                }
                *self.v6_values.get(at)?
            }
        }
    }

    /// Whether it has no network.
    pub fn is_empty(&self) -> bool {
        self.v4_values.is_empty() && self.v6_values.is_empty()
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

/// The upper and the lower 64 bits.
fn halves(bits: u128) -> [u64; 2] {
    let low = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    [low(bits >> 64), low(bits)]
}

/// Keys in ascending order, to find the last one that is not above another.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Tree<K, const WIDTH: usize> {
    count: usize,
    /// The keys, and above them the first one of each block of the level below, up to a level of one block.
    levels: Box<[Box<[Block<K, WIDTH>]>]>,
}

/// Neighbours of a level, sought through at once: one line of memory. Behind the last of a level stand copies of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(align(64))]
struct Block<K, const WIDTH: usize>([K; WIDTH]);

impl<K: Copy + Ord + Default, const WIDTH: usize> Tree<K, WIDTH> {
    fn new(mut keys: Vec<K>) -> Self {
        let (count, mut levels) = (keys.len(), Vec::new());
        while !keys.is_empty() {
            let block = |keys: &[K]| {
                let last = keys.last().copied().unwrap_or_default();
                Block(std::array::from_fn(|at| keys.get(at).copied().unwrap_or(last)))
            };
            let level: Box<[Block<K, WIDTH>]> = keys.chunks(WIDTH).map(block).collect();
            keys = level.iter().filter_map(|block| block.0.first().copied()).collect();
            let is_top = level.len() == 1;
            levels.push(level);
            if is_top {
                break;
            }
        }
        Self { count, levels: levels.into() }
    }

    /// The place of the last key that is not above this one, and that key.
    #[inline]
    fn find(&self, key: K) -> Option<(usize, K)> {
        let (mut at, mut found) = (0_usize, None);
        for level in self.levels.iter().rev() {
            // Places behind the last one come of its copies in a block.
            at = at.min(level.len().wrapping_sub(1));
            let Block(keys) = level.get(at)?;
            let mut not_above = 0_usize;
            for other in keys {
                not_above = not_above.wrapping_add(usize::from(*other <= key));
            }
            // Before the first key there is none.
            let last = not_above.checked_sub(1)?;
            found = keys.get(last);
            at = at.wrapping_mul(WIDTH).wrapping_add(last);
        }
        Some((at.min(self.count.wrapping_sub(1)), *found?))
    }
}

/// The ranges of networks: they begin where the value changes.
fn ranges<V: Copy + PartialEq>(mut entries: Vec<Entry<V>>) -> Vec<(u128, Option<V>)> {
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
    ranges
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
    fn many_networks_are_found_as_few_are() {
        // As many as fill blocks and levels, and one more or less; apart, so that each is a range, and so is each gap.
        let v4 = |at: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(at * 3));
        // Some upper halves have many of them.
        let v6 = |at: u32| {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::from(at / 9) << 64 | u128::from(at * 3)))
        };
        for address in [v4 as fn(u32) -> IpAddr, v6] {
            for count in [1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 4096, 4097, 5000]
            {
                let map = NetworkMap::new((1..=count).map(|at| (network(&address(at).to_string()), at)));
                for at in 0..=count + 1 {
                    let expected = (1..=count).contains(&at).then_some(at);
                    assert_eq!(map.get(address(at)), expected, "{at} of {count}");
                    let next = match address(at) {
                        IpAddr::V4(address) => IpAddr::V4((address.to_bits() + 1).into()),
                        IpAddr::V6(address) => IpAddr::V6((address.to_bits() + 1).into()),
                    };
                    assert_eq!(map.get(next), None, "behind {at} of {count}");
                }
            }
        }
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
                // The same bits around the middle of an IPv6 address.
                let (bits, length) = (u128::from(bits) << 48, if length == 0 { 0 } else { length + 48 });
                let address = std::net::Ipv6Addr::from_bits(bits);
                entries.push((network(&format!("{address}/{length}")), value));
            }
            let map = NetworkMap::new(entries.clone());
            let at_edges = entries.iter().flat_map(|(network, _)| {
                let (first, last) = network.bits();
                [first.saturating_sub(1), first, last, last.saturating_add(1)].map(|bits| {
                    match network.address() {
                        IpAddr::V4(_) => u32::try_from(bits).ok().map(|bits| IpAddr::V4(bits.into())),
                        IpAddr::V6(_) => Some(IpAddr::V6(bits.into())),
                    }
                })
            });
            for address in at_edges.flatten() {
                let fitting = entries.iter().filter(|(network, _)| network.contains(address));
                let naive = fitting.max_by_key(|(network, _)| network.length()).map(|(_, value)| *value);
                assert_eq!(map.get(address), naive, "{address} in {entries:?}");
            }
        }
    }
}

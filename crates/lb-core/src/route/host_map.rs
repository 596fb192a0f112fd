//! Hosts by number, in as few places of memory as a look-up allows: a table of thousands of hosts does not stay in the caches.

use super::hash::{ReadyMap, SEED, extend};
use super::host::{Host, HostPattern};
use super::texts::{Text, Texts};

/// Hosts, each with a number.
#[derive(Debug)]
pub(super) struct HostMap {
    /// What hashes begin with; such that no two hosts of the map have one hash.
    seed: u64,
    /// Exact hosts, and domains with their dot, by hash. The two never meet, since only a domain begins with a dot.
    numbers: ReadyMap<u64, (Text, u32)>,
    texts: Texts,
    has_exact: bool,
    /// How many labels the domains have.
    under_labels: u128,
}

impl HostMap {
    /// A map of these hosts. Of a host that comes twice the first number counts.
    pub(super) fn new(hosts: &[(&HostPattern, u32)]) -> Self {
        let name = |host: &HostPattern| match host {
            HostPattern::Exact(name) | HostPattern::Under(name) => name.clone(),
        };
        let named: Vec<_> = hosts.iter().map(|(host, number)| (name(host), *number)).collect();
        let labels = hosts.iter().filter_map(|(host, _)| match host {
            HostPattern::Under(suffix) => Some(label_bit(dots(suffix))),
            HostPattern::Exact(_) => None,
        });
        let mut map = Self {
            seed: SEED,
            numbers: ReadyMap::default(),
            texts: Texts::default(),
            has_exact: hosts.iter().any(|(host, _)| matches!(host, HostPattern::Exact(_))),
            under_labels: labels.fold(0, |all, bit| all | bit),
        };
        // Two hosts of one hash are next to impossible, and then part under the next seed.
        while !map.fill(&named) {
            map.seed = map.seed.wrapping_add(1);
        }
        map
    }

    /// Whether no two hosts have one hash.
    fn fill(&mut self, named: &[(Box<[u8]>, u32)]) -> bool {
        self.numbers.clear();
        self.texts = Texts::default();
        self.numbers.reserve(named.len());
        for (name, number) in named {
            let hash = extend(self.seed, name);
            match self.numbers.get(&hash) {
                Some((text, _)) if self.texts.get(*text) != &**name => return false,
                Some(_) => {}
                None => {
                    self.numbers.insert(hash, (self.texts.push(name), *number));
                }
            }
        }
        true
    }

    #[inline]
    fn number(&self, name: &[u8]) -> Option<u32> {
        let (text, number) = self.numbers.get(&extend(self.seed, name))?;
        (self.texts.get(*text) == name).then_some(*number)
    }

    /// The numbers of what is for this host, the most specific first.
    #[inline]
    pub(super) fn find(&self, host: &Host) -> impl Iterator<Item = u32> {
        let name = host.as_bytes();
        let exact = if self.has_exact { self.number(name) } else { None };
        let mut left = if self.under_labels == 0 { 0 } else { dots(name) };
        let mut rest = name;
        let under = std::iter::from_fn(move || {
            while left > 0 {
                let dot = rest.iter().skip(1).position(|byte| *byte == b'.')?.saturating_add(1);
                rest = rest.get(dot..)?;
                let labels = left;
                left = left.saturating_sub(1);
                if self.under_labels & label_bit(labels) != 0
                    && let Some(number) = self.number(rest)
                {
                    return Some(number);
                }
            }
            None
        });
        exact.into_iter().chain(under)
    }
}

fn dots(name: &[u8]) -> usize {
    name.iter().filter(|byte| **byte == b'.').count()
}

fn label_bit(labels: usize) -> u128 {
    u32::try_from(labels).ok().and_then(|labels| 1_u128.checked_shl(labels)).unwrap_or_default()
}

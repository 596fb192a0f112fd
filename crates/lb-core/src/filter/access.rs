//! Access lists: which clients are let in, by their addresses.

use crate::address::ClientAddress;
use crate::network::NetworkMap;
use crate::route::IpNetwork;

/// A list of networks that are let in, and of others that are not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessList {
    networks: NetworkMap<bool>,
    /// Whether clients that no network has are let in.
    lets_others_in: bool,
}

impl AccessList {
    /// The longest prefix decides; of equal ones, that of `deny`. Where no network has a client, it is refused if anything stands in `allow`.
    pub fn new(
        allow: impl IntoIterator<Item = IpNetwork>,
        deny: impl IntoIterator<Item = IpNetwork>,
    ) -> Self {
        let mut entries: Vec<_> = allow.into_iter().map(|network| (network, true)).collect();
        let lets_others_in = entries.is_empty();
        // Of two entries of one network the later one holds.
        entries.extend(deny.into_iter().map(|network| (network, false)));
        Self { networks: NetworkMap::new(entries), lets_others_in }
    }

    /// Whether a client is let in. One without an address is in no network.
    pub fn lets_in(&self, client: ClientAddress) -> bool {
        let found = client.ip().and_then(|ip| self.networks.get(ip));
        found.unwrap_or(self.lets_others_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(allow: &[&str], deny: &[&str]) -> AccessList {
        let read = |texts: &[&str]| -> Vec<IpNetwork> {
            texts.iter().map(|text| IpNetwork::parse(text).unwrap()).collect()
        };
        AccessList::new(read(allow), read(deny))
    }

    #[test]
    fn the_longest_prefix_decides_and_deny_on_ties() {
        let lets_in = |list: &AccessList, ip: &str| {
            list.lets_in(std::net::SocketAddr::new(ip.parse().unwrap(), 1).into())
        };
        let some = list(&["10.0.0.0/8", "10.1.2.3"], &["10.1.0.0/16", "10.2.0.0/16", "10.9.9.9"]);
        for (ip, expected) in [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.3.4", false),
            ("10.9.9.9", false),
            ("11.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(lets_in(&some, ip), expected, "{ip}");
        }
        assert!(!some.lets_in(ClientAddress::Unix));
        let tie = list(&["10.0.0.0/8"], &["10.0.0.0/8"]);
        assert!(!lets_in(&tie, "10.0.0.1"));
        // Without anything that is let in, everything is that is not kept out.
        let others = list(&[], &["10.0.0.0/8"]);
        assert!(lets_in(&others, "11.0.0.1") && !lets_in(&others, "10.0.0.1"));
        assert!(others.lets_in(ClientAddress::Unix));
    }
}

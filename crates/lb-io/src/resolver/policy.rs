//! What names may lead to.

use std::net::{IpAddr, Ipv6Addr};

/// Why an address that a name server returned is not used (attack C-03). Addresses written in the configuration are free.
///
/// Never used: addresses that no backend can have (unspecified, multicast, broadcast), and link-local addresses and the like, at which
/// rented machines offer credentials. The machine itself is used only with `allow_loopback`.
pub fn refusal(address: IpAddr, allow_loopback: bool) -> Option<&'static str> {
    let address = address.to_canonical();
    if address.is_multicast() {
        return Some("multicast address");
    }
    if address.is_loopback() && !allow_loopback {
        return Some("loopback address");
    }
    match address {
        IpAddr::V4(v4) if v4.octets().first() == Some(&0) => Some("unspecified address"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("unspecified address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local address"),
        IpAddr::V4(v4) if v4.octets() == METADATA_V4 => Some("metadata address"),
        IpAddr::V6(METADATA_V6) => Some("metadata address"),
        _ => None,
    }
}

/// The two that are not link-local.
const METADATA_V4: [u8; 4] = [100, 100, 100, 200];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, allow_loopback: bool) -> Option<&'static str> {
        refusal(address.parse().unwrap(), allow_loopback)
    }

    #[test]
    fn c_03_names_do_not_lead_to_the_machine_or_its_keeper() {
        for address in ["0.0.0.0", "0.1.2.3", "::", "255.255.255.255", "224.0.0.1", "ff02::1"] {
            assert!(refused(address, true).is_some(), "{address}");
        }
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "100.100.100.200",
        ] {
            assert!(refused(address, true).is_some(), "{address}");
        }
        for address in ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(refused(address, true), None, "{address}");
            assert_eq!(refused(address, false), Some("loopback address"), "{address}");
        }
        for address in
            ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"]
        {
            assert_eq!(refused(address, false), None, "{address}");
        }
    }
}

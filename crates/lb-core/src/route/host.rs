//! Hosts as routes compare them: lower case, without port and last dot, IPv6 in one spelling.

use std::fmt;
use std::net::Ipv6Addr;

/// The longest name (RFC 1035 §2.3.4), and longer than any IPv6 literal.
const MOST_BYTES: usize = 253;

/// The longest label of a name.
const MOST_LABEL: usize = 63;

/// The host that a request asks for, in canonical form; empty where it names none.
#[derive(Clone, Copy)]
pub struct Host {
    /// The bytes after the host are zero.
    bytes: [u8; MOST_BYTES],
    length: u8,
}

impl Host {
    /// The host of a valid authority, with or without a port. `None` where it is neither a DNS name nor an IP literal: percent-encoding,
    /// for one, is a second spelling that a backend may take for another host (attack R-09).
    pub fn of(authority: &[u8]) -> Option<Self> {
        if let Some(rest) = authority.strip_prefix(b"[") {
            let inside = rest.split(|byte| *byte == b']').next()?;
            let address: Ipv6Addr = std::str::from_utf8(inside).ok()?.parse().ok()?;
            return Self::copy(format!("[{address}]").as_bytes());
        }
        let name = authority.split(|byte| *byte == b':').next().unwrap_or_default();
        let name = name.strip_suffix(b".").unwrap_or(name);
        let mut host = Self { bytes: [0; MOST_BYTES], length: u8::try_from(name.len()).ok()? };
        // One pass copies, folds letter case and checks, since all requests of a listener with routes come through here.
        let (mut label, mut is_name) = (0_usize, true);
        for (slot, byte) in host.bytes.get_mut(..name.len())?.iter_mut().zip(name) {
            *slot = CANONICAL.get(usize::from(*byte)).copied().unwrap_or_default();
            is_name &= *slot != 0;
            if *slot == b'.' {
                is_name &= label != 0;
                label = 0;
            } else {
                label = label.saturating_add(1);
                is_name &= label <= MOST_LABEL;
            }
        }
        (name.is_empty() || is_name && label != 0).then_some(host)
    }

    fn copy(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; MOST_BYTES];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { bytes, length: u8::try_from(name.len()).ok()? })
    }

    /// The canonical form.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// What stands in the canonical form for each byte of a name; 0 where none may.
#[allow(clippy::indexing_slicing, reason = "a constant: an index out of bounds would not compile")]
const CANONICAL: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// Which hosts a route or a virtual host is for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum HostPattern {
    /// This host.
    Exact(Box<[u8]>),
    /// Names that end in this, which begins with a dot: any number of labels before it, but not none.
    Under(Box<[u8]>),
}

impl HostPattern {
    /// Reads `www.example.org`, `*.example.org` or an IP literal, with IPv6 in brackets or without.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.is_empty()
            || (name.contains(':') && !name.starts_with('[') && name.parse::<Ipv6Addr>().is_err())
        {
            return None;
        }
        if !is_wildcard && let Ok(address) = name.parse::<Ipv6Addr>() {
            return Some(Self::Exact(format!("[{address}]").into_bytes().into()));
        }
        if let Some(inside) = name.strip_prefix('[') {
            let whole = inside.strip_suffix(']').is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok());
            if is_wildcard || !whole {
                return None;
            }
        }
        let host = Host::of(name.as_bytes()).filter(|host| !host.as_bytes().is_empty())?;
        Some(match is_wildcard {
            true => Self::Under([b".", host.as_bytes()].concat().into()),
            false => Self::Exact(host.as_bytes().into()),
        })
    }

    /// Whether it is for this host.
    pub fn fits(&self, host: &Host) -> bool {
        match self {
            Self::Exact(name) => **name == *host.as_bytes(),
            Self::Under(suffix) => host.as_bytes().len() > suffix.len() && host.as_bytes().ends_with(suffix),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(&String::from_utf8_lossy(name)),
            Self::Under(suffix) => write!(f, "*{}", String::from_utf8_lossy(suffix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(authority: &str) -> Option<String> {
        Host::of(authority.as_bytes()).map(|host| String::from_utf8(host.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn case_port_and_last_dot_do_not_count() {
        for (authority, host) in [
            ("FOO.bar.com:1234", "foo.bar.com"),
            ("foo.bar.com.", "foo.bar.com"),
            ("foo.bar.com.:80", "foo.bar.com"),
            ("[2001:DB8:0::1]:8080", "[2001:db8::1]"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("_a.b", "_a.b"),
            ("", ""),
        ] {
            assert_eq!(canonical(authority).as_deref(), Some(host), "{authority}");
        }
    }

    #[test]
    fn r_09_what_is_no_name_and_no_address_is_no_host() {
        let long = "a.".repeat(126) + "ab.";
        for authority in ["%61.example.com", "a..b", ".a", "a b", "a,b", "a*b", "..", &long, &"a".repeat(64)]
        {
            assert_eq!(canonical(authority), None, "{authority}");
        }
    }

    #[test]
    fn patterns_are_exact_or_for_all_below_a_domain() {
        let host = |text: &str| Host::of(text.as_bytes()).unwrap();
        let below = HostPattern::parse("*.Bar.com.").unwrap();
        assert!(below.fits(&host("foo.bar.com")) && below.fits(&host("a.b.bar.com")));
        assert!(
            !below.fits(&host("bar.com"))
                && !below.fits(&host("foobar.com"))
                && !below.fits(&host("bar.com.org"))
        );
        assert!(HostPattern::parse("::1").unwrap().fits(&host("[0::1]:80")));
        assert_eq!(HostPattern::parse("[::1]"), HostPattern::parse("::1"));
        for bad in ["", "*", "*.", "a.*.b", "*.*.a", "a:80", "[::1", "*.[::1]", "a/b", "ä.org", "[::1]x"] {
            assert_eq!(HostPattern::parse(bad), None, "{bad}");
        }
    }
}

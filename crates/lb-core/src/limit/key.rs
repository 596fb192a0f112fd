//! What requests are counted by: parts of a request, joined.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::ClientAddress;
use crate::head::RequestHead;
use crate::route::{Host, condition};
use crate::words;

words! {
    /// What becomes of a request that has no value for a part of the key.
    OnMissing {
        /// The client's address stands in for the value.
        ClientIp = "client_ip",
        /// The limit does not hold for it.
        Skip = "skip",
        /// It is refused.
        Deny = "deny",
    }
}

/// A part of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyPart {
    /// The network of the client's address.
    ClientIp,
    /// A field; all its lines count.
    Header(Box<[u8]>),
    /// A cookie.
    Cookie(Box<[u8]>),
    /// A parameter of the query.
    Query(Box<[u8]>),
    /// The host that is asked for.
    Host,
    /// The canonical path.
    Path,
    /// The name of the route.
    Route,
}

/// What requests are counted by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitKey {
    /// Its parts; at least one.
    pub parts: Vec<KeyPart>,
    /// Bits of IPv4 addresses that count.
    pub ipv4_prefix: u8,
    /// Bits of IPv6 addresses that count.
    pub ipv6_prefix: u8,
    /// What becomes of a request without a value.
    pub on_missing: OnMissing,
}

/// What of a request keys look at.
#[derive(Clone, Copy, Debug)]
pub struct LimitRequest<'a> {
    /// The client, behind whatever proxies are trusted.
    pub client: ClientAddress,
    /// Fields and authority, without the fields of the hop.
    pub head: &'a RequestHead,
    /// Its canonical path.
    pub path: &'a [u8],
    /// What follows `?`.
    pub query: &'a [u8],
    /// The name of its route; empty for none.
    pub route: &'a str,
}

/// A request has no value for a part of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissingKey {
    /// The limit does not hold for it.
    Skip,
    /// It is refused.
    Deny,
}

impl KeyPart {
    /// Reads a part as the file writes it. What fields other than `client_ip` tell of the client's address is none.
    ///
    /// # Errors
    /// What is wrong, for people; empty where it is none of the parts that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').map_or((text, None), |(kind, name)| (kind, Some(name)));
        let owned = |name: &str| name.as_bytes().into();
        match (kind, name) {
            ("client_ip", None) => Ok(Self::ClientIp),
            ("host", None) => Ok(Self::Host),
            ("path", None) => Ok(Self::Path),
            ("route", None) => Ok(Self::Route),
            ("user", None) => Err("not built yet: users, which need authentication".to_owned()),
            ("jwt", Some(_)) => Err("not built yet: claims, which need authentication".to_owned()),
            ("header", Some(name)) if is_token(name) => {
                let name = name.to_ascii_lowercase();
                match name.as_str() {
                    "x-forwarded-for" | "forwarded" | "x-real-ip" | "x-client-ip" | "true-client-ip" => {
                        Err(format!("the client writes `{name}` as it likes; its address is client_ip"))
                    }
                    "host" | "x-forwarded-host" => Err(format!("`{name}` is written host")),
                    "cookie" => Err("a cookie is written cookie:NAME".to_owned()),
                    _ => Ok(Self::Header(owned(&name))),
                }
            }
            ("cookie", Some(name)) if is_token(name) => Ok(Self::Cookie(owned(name))),
            ("query", Some(name)) if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Self::Query(owned(name)))
            }
            _ => Err(String::new()),
        }
    }
}

/// Whether a text is a token (RFC 9110 §5.6.2) in which no `+` stands, which joins parts.
fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

impl LimitKey {
    /// The parts of a key as the file writes them, joined by `+`.
    ///
    /// # Errors
    /// As [`KeyPart::parse`].
    pub fn parse_parts(text: &str) -> Result<Vec<KeyPart>, String> {
        let parts = text.split('+').map(KeyPart::parse).collect::<Result<Vec<_>, _>>()?;
        let repeats =
            parts.iter().enumerate().any(|(at, part)| parts.iter().take(at).any(|other| other == part));
        if repeats { Err("a part stands in it twice".to_owned()) } else { Ok(parts) }
    }

    /// The hash of the key of a request.
    ///
    /// # Errors
    /// Where it has no key.
    pub fn hash(&self, request: &LimitRequest<'_>, mut hasher: impl Hasher) -> Result<u64, MissingKey> {
        for part in &self.parts {
            if self.feed(part, request, &mut hasher) {
                continue;
            }
            match self.on_missing {
                OnMissing::Skip => return Err(MissingKey::Skip),
                OnMissing::Deny => return Err(MissingKey::Deny),
                OnMissing::ClientIp => {
                    hasher.write_u8(MISSING);
                    self.feed_client(request.client, &mut hasher);
                }
            }
        }
        Ok(hasher.finish())
    }

    /// Feeds the value of a part. False where there is none.
    fn feed(&self, part: &KeyPart, request: &LimitRequest<'_>, hasher: &mut impl Hasher) -> bool {
        match part {
            KeyPart::ClientIp => return self.feed_client(request.client, hasher),
            KeyPart::Header(name) => {
                let mut is_there = false;
                for line in request.head.fields.iter().filter(|line| line.name.eq_ignore_ascii_case(name)) {
                    is_there = true;
                    value(line.value, hasher);
                }
                if is_there {
                    hasher.write_u8(END);
                }
                return is_there;
            }
            KeyPart::Cookie(name) => match condition::cookie_of(request.head, name) {
                Some(found) => value(&found, hasher),
                None => return false,
            },
            KeyPart::Query(name) => match condition::parameter_of(request.query, name) {
                Some(found) => value(&found, hasher),
                None => return false,
            },
            KeyPart::Host => match Host::of(request.head.authority()) {
                Some(host) if !host.as_bytes().is_empty() => value(host.as_bytes(), hasher),
                _ => return false,
            },
            KeyPart::Path => value(request.path, hasher),
            KeyPart::Route => value(request.route.as_bytes(), hasher),
        }
        true
    }

    /// Feeds the network of a client. False for one without an address, which is fed as such.
    fn feed_client(&self, client: ClientAddress, hasher: &mut impl Hasher) -> bool {
        let network = client.ip().map(|ip| self.network(ip));
        match network {
            Some(IpAddr::V4(address)) => {
                hasher.write_u8(V4);
                hasher.write_u32(address.to_bits());
            }
            Some(IpAddr::V6(address)) => {
                hasher.write_u8(V6);
                hasher.write_u128(address.to_bits());
            }
            None => hasher.write_u8(NOWHERE),
        }
        network.is_some()
    }

    /// The network of an address, as its first address. An IPv6 address that has an IPv4 address inside counts as that one: IPv4-mapped (RFC
    /// 4291 §2.5.5.2), NAT64 (RFC 6052, 64:ff9b::/96) and 6to4 (RFC 3056, 2002::/16).
    pub fn network(&self, ip: IpAddr) -> IpAddr {
        match inner(ip) {
            IpAddr::V4(address) => {
                let beyond = 32_u32.saturating_sub(u32::from(self.ipv4_prefix));
                let mask = u32::MAX.checked_shl(beyond).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let beyond = 128_u32.saturating_sub(u32::from(self.ipv6_prefix));
                let mask = u128::MAX.checked_shl(beyond).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        }
    }
}

/// The IPv4 address inside an IPv6 address, where there is one.
fn inner(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(address) = ip.to_canonical() else { return ip.to_canonical() };
    let bits = address.to_bits();
    let low = |shift: u32| u32::try_from((bits >> shift) & u128::from(u32::MAX)).unwrap_or_default();
    if bits >> 32 == 0x0064_ff9b_0000_0000_0000_0000 {
        IpAddr::V4(Ipv4Addr::from_bits(low(0)))
    } else if bits >> 112 == 0x2002 {
        IpAddr::V4(Ipv4Addr::from_bits(low(80)))
    } else {
        IpAddr::V6(address)
    }
}

/// What stands before each thing that is fed, so that no two keys are fed alike.
const MISSING: u8 = 0;
const VALUE: u8 = 1;
const END: u8 = 2;
const V4: u8 = 4;
const V6: u8 = 6;
const NOWHERE: u8 = 7;

fn value(bytes: &[u8], hasher: &mut impl Hasher) {
    hasher.write_u8(VALUE);
    hasher.write_usize(bytes.len());
    hasher.write(bytes);
}

impl std::fmt::Display for KeyPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, name) = match self {
            Self::ClientIp => ("client_ip", None),
            Self::Header(name) => ("header:", Some(name)),
            Self::Cookie(name) => ("cookie:", Some(name)),
            Self::Query(name) => ("query:", Some(name)),
            Self::Host => ("host", None),
            Self::Path => ("path", None),
            Self::Route => ("route", None),
        };
        f.write_str(kind)?;
        name.map_or(Ok(()), |name| f.write_str(&String::from_utf8_lossy(name)))
    }
}

impl std::fmt::Display for LimitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            let joint = if at == 0 { "" } else { "+" };
            write!(f, "{joint}{part}")?;
        }
        Ok(())
    }
}

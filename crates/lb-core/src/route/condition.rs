//! RouteConditions of a route, and what of a request they look at.

use std::borrow::Cow;
use std::net::IpAddr;

use super::connection::{ConnectionConditions, ConnectionFacts};
use super::host::Host;
use super::pattern::{Pattern, PatternCaches};
use crate::head::RequestHead;
use crate::words;

words! {
    /// How a client reaches the gateway.
    Scheme {
        /// In the clear.
        Http = "http",
        /// Inside TLS.
        Https = "https",
    }
}

impl Scheme {
    /// The port that stands for it (RFC 9110 §4.2).
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What of a request routes look at.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// The host that it asks for.
    pub host: &'a Host,
    /// Its method, or the one that a CORS preflight announces.
    pub method: &'a [u8],
    /// Its path without the query, or `*`.
    pub path: &'a [u8],
    /// What follows `?`.
    pub query: &'a [u8],
    /// Method and fields, without those of the hop.
    pub head: &'a RequestHead,
    /// Where the client is; `None` at a Unix socket.
    pub client: Option<IpAddr>,
    /// How it came.
    pub scheme: Scheme,
    /// What the TLS handshake of its connection has settled, where there was one.
    pub connection: Option<&'a ConnectionFacts<'a>>,
}

/// A network (CIDR).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpNetwork {
    address: IpAddr,
    length: u8,
}

impl IpNetwork {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or an address, which is a network of one. Bits beyond the prefix must be zero, as in a file they are
    /// mostly an error.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) if !length.starts_with('+') => {
                (address.parse().ok()?, Some(length.parse().ok()?))
            }
            Some(_) => return None,
            None => (text.parse().ok()?, None),
        };
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let network = Self { address, length: length.unwrap_or(most) };
        (network.length <= most && network.contains_bits(address, true)).then_some(network)
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits of the prefix.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The numbers of its first and its last address.
    pub fn bits(&self) -> (u128, u128) {
        let (first, most) = match self.address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32_u32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let beyond = most.saturating_sub(u32::from(self.length));
        (first, first | u128::MAX.checked_shr(128_u32.saturating_sub(beyond)).unwrap_or(0))
    }

    /// Whether the address is in it. IPv4 addresses in IPv6 form are IPv4 addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.contains_bits(address.to_canonical(), false)
    }

    /// Whether the bits of the prefix are those of the address; with `exactly`, and all others of the address zero.
    fn contains_bits(&self, address: IpAddr, exactly: bool) -> bool {
        let (own, other, most) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32_u32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let beyond = most.saturating_sub(u32::from(self.length));
        let high = |bits: u128| bits.checked_shr(beyond).unwrap_or(0);
        high(own) == high(other) && (!exactly || high(other).checked_shl(beyond).unwrap_or(0) == other)
    }
}

/// What a path must be.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum PathCondition {
    /// Anything, also the `*` of `OPTIONS *`.
    #[default]
    Any,
    /// This.
    Exact(Box<[u8]>),
    /// This, or what follows it after a slash. It has no slash at its end: `/` is empty here.
    Prefix(Box<[u8]>),
    /// What matches this.
    Regex(Pattern),
}

/// What the value of a field, parameter or cookie must be.
#[derive(Clone, PartialEq, Debug)]
pub enum Want {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// This.
    Is(Box<[u8]>),
    /// What matches this.
    Fits(Pattern),
}

/// A condition on a field, a parameter of the query, or a cookie.
#[derive(Clone, PartialEq, Debug)]
pub struct ValueCondition {
    /// The name; that of a field in lower case.
    pub name: Box<[u8]>,
    /// What its value must be.
    pub want: Want,
}

/// RouteConditions that must all hold.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RouteConditions {
    /// On the path.
    pub path: PathCondition,
    /// Letter case of the path does not count.
    pub ignore_case: bool,
    /// One of these methods; none for any.
    pub methods: Vec<Box<[u8]>>,
    /// On fields.
    pub headers: Vec<ValueCondition>,
    /// On parameters of the query.
    pub query: Vec<ValueCondition>,
    /// On cookies.
    pub cookies: Vec<ValueCondition>,
    /// The client is in one of these; none for any.
    pub sources: Vec<IpNetwork>,
    /// How the client comes.
    pub scheme: Option<Scheme>,
    /// On the client's TLS connection, if there are any.
    pub connection: Option<Box<ConnectionConditions>>,
}

impl RouteConditions {
    /// The first condition that does not hold, as the file calls it; `None` when all do.
    pub fn unmet(&self, request: &RouteRequest<'_>, caches: &mut PatternCaches) -> Option<&'static str> {
        if !self.path_holds(request.path, caches) {
            return Some(match self.path {
                PathCondition::Exact(_) => "path",
                PathCondition::Regex(_) => "path_regex",
                PathCondition::Any | PathCondition::Prefix(_) => "path_prefix",
            });
        }
        self.unmet_beside_path(request, caches)
    }

    /// Whether they are about the path and nothing else.
    pub(super) fn is_path_alone(&self) -> bool {
        let Self { path, ignore_case, .. } = self;
        *self == Self { path: path.clone(), ignore_case: *ignore_case, ..Self::default() }
    }

    /// As [`Self::unmet`], without the path.
    #[inline]
    pub(super) fn unmet_beside_path(
        &self,
        request: &RouteRequest<'_>,
        caches: &mut PatternCaches,
    ) -> Option<&'static str> {
        if !self.methods.is_empty() && !self.methods.iter().any(|method| **method == *request.method) {
            return Some("methods");
        }
        if self.scheme.is_some_and(|scheme| scheme != request.scheme) {
            return Some("scheme");
        }
        if !self.sources.is_empty() {
            let is_in = |network: &IpNetwork| request.client.is_some_and(|client| network.contains(client));
            if !self.sources.iter().any(is_in) {
                return Some("sources");
            }
        }
        if let Some(conditions) = &self.connection
            && let Some(unmet) = conditions.unmet(request.connection)
        {
            return Some(unmet);
        }
        let mut all = |conditions: &[ValueCondition], find: Finder| {
            conditions.iter().all(|condition| condition.want.holds(find(request, &condition.name), caches))
        };
        if !all(&self.headers, header) {
            Some("headers")
        } else if !all(&self.query, parameter) {
            Some("query")
        } else if !all(&self.cookies, cookie) {
            Some("cookies")
        } else {
            None
        }
    }

    /// Whether the path is as it must be.
    #[inline]
    pub(super) fn path_holds(&self, path: &[u8], caches: &mut PatternCaches) -> bool {
        let is = |one: &[u8], other: &[u8]| {
            if self.ignore_case { one.eq_ignore_ascii_case(other) } else { one == other }
        };
        match &self.path {
            PathCondition::Any => true,
            PathCondition::Exact(wanted) => is(path, wanted),
            PathCondition::Prefix(prefix) => match path.split_at_checked(prefix.len()) {
                Some((start, [] | [b'/', ..])) => is(start, prefix) && path.first() == Some(&b'/'),
                _ => false,
            },
            PathCondition::Regex(pattern) => path.first() == Some(&b'/') && pattern.fits(path, caches),
        }
    }

    /// The patterns in it.
    pub(super) fn patterns_mut(&mut self) -> impl Iterator<Item = &mut Pattern> {
        let path = match &mut self.path {
            PathCondition::Regex(pattern) => Some(pattern),
            _ => None,
        };
        let values = self.headers.iter_mut().chain(&mut self.query).chain(&mut self.cookies);
        path.into_iter().chain(values.filter_map(|condition| match &mut condition.want {
            Want::Fits(pattern) => Some(pattern),
            _ => None,
        }))
    }
}

/// A value that was looked for.
type Found<'a> = Option<Cow<'a, [u8]>>;

/// What looks for the value of a name.
type Finder = for<'a> fn(&RouteRequest<'a>, &[u8]) -> Found<'a>;

impl Want {
    fn holds(&self, found: Found<'_>, caches: &mut PatternCaches) -> bool {
        match (self, found) {
            (Self::Absent, found) => found.is_none(),
            (_, None) => false,
            (Self::Present, Some(_)) => true,
            (Self::Is(wanted), Some(value)) => **wanted == *value,
            (Self::Fits(pattern), Some(value)) => pattern.fits(&value, caches),
        }
    }
}

/// The lines of a field, joined by `, ` (RFC 9110 §5.3): a value in two lines is none of the two.
fn header<'a>(request: &RouteRequest<'a>, name: &[u8]) -> Found<'a> {
    let mut lines = request.head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let mut value = Cow::Borrowed(lines.next()?.value);
    for line in lines {
        let joined = value.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.value);
    }
    Some(value)
}

/// The first parameter of that name, decoded.
fn parameter<'a>(request: &RouteRequest<'a>, name: &[u8]) -> Found<'a> {
    parameter_of(request.query, name)
}

/// The value of the first parameter of that name in a query, decoded.
pub fn parameter_of<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let (key, value) = split_pair(pair);
        (*decode(key) == *name).then(|| decode(value))
    })
}

/// The first cookie of that name.
fn cookie<'a>(request: &RouteRequest<'a>, name: &[u8]) -> Found<'a> {
    cookie_of(request.head, name)
}

/// The value of the first cookie of that name (RFC 6265 §5.4).
pub fn cookie_of<'a>(head: &'a RequestHead, name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let lines = head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"cookie"));
    let mut pairs = lines.flat_map(|line| line.value.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| {
        let (key, value) = split_pair(pair);
        (key == name).then_some(Cow::Borrowed(value))
    })
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            (pair.get(..at).unwrap_or_default(), pair.get(at.saturating_add(1)..).unwrap_or_default())
        }
        None => (pair, &[]),
    }
}

/// A part of a query as forms write it: `+` is a space, and escapes are decoded. What is no escape stays.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, super::path::escape(after)) {
            (b'%', Some((value, after))) => {
                decoded.push(value);
                rest = after;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

//! Whom a request is from, where other proxies stand in front of the gateway: `X-Forwarded-For`, `Forwarded` (RFC 7239), and fields of the
//! kind of `CF-Connecting-IP`.
//!
//! Anybody can write such fields, so they are believed as far as they come from proxies that the operator trusts, and no further. A list is
//! read from its end: each element was added by the hop behind it, and the first that is no trusted proxy's address is the client. What stands
//! before that element is whatever the client has sent, and is neither read nor passed on (attacks C-09, R-16).

use std::net::IpAddr;

use crate::address::ClientAddress;
use crate::head::{Fields, reads_as};
use crate::network::NetworkMap;
use crate::route::{Host, Scheme};

mod element;
#[cfg(test)]
mod tests;

pub use element::{Element, node};

/// How much of a list is read.
const MOST_BYTES: usize = 4096;

/// How a listener finds out whom its requests are from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustPolicy {
    /// The proxies that are believed.
    pub trusted: NetworkMap<()>,
    /// Which field tells the client.
    pub source: AddressSource,
    /// Whether what others say about clients passes, with the peer's address behind it, in place of being dropped.
    pub appends: bool,
    /// How many elements of a list are read.
    pub max_hops: usize,
    /// Whether backends get `Forwarded` besides.
    pub sends_forwarded: bool,
}

/// Which field tells the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressSource {
    /// `X-Forwarded-For`, and beside it `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-Port`.
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
    /// A field of this name, in lower case, with addresses as in `X-Forwarded-For`, and beside it the same fields.
    Field(Box<str>),
}

impl AddressSource {
    /// Reads `x_forwarded_for`, `forwarded` or `header:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "x_forwarded_for" => Some(Self::XForwardedFor),
            "forwarded" => Some(Self::Forwarded),
            text => match text.strip_prefix("header:")?.to_ascii_lowercase() {
                name if name == "x-forwarded-for" => Some(Self::XForwardedFor),
                name if name == "forwarded" => Some(Self::Forwarded),
                name => Some(Self::Field(name.into())),
            },
        }
    }

    /// The name of the field, in lower case.
    pub fn field(&self) -> &str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::Field(name) => name,
        }
    }
}

/// Whom a request is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestOrigin {
    /// The client. Its port is 0 where no field tells it.
    pub client: ClientAddress,
    /// How the client came.
    pub scheme: Scheme,
    /// What a trusted proxy has told; `None` where the peer is none.
    pub told: Option<Box<ToldOrigin>>,
}

/// What a trusted proxy has told of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ToldOrigin {
    /// The addresses that the request came through, the client's first, without that of the peer. Empty where the peer is the client.
    pub hops: Vec<IpAddr>,
    /// The host that the client asked for, with or without a port.
    pub host: Option<Box<[u8]>>,
    /// The port that the client asked at.
    pub port: Option<u16>,
}

impl RequestOrigin {
    /// What is known where nothing but the connection tells it.
    pub fn of_connection(peer: ClientAddress, scheme: Scheme) -> Self {
        Self { client: peer, scheme, told: None }
    }

    /// Whether the request came from a proxy that is believed.
    pub fn is_trusted(&self) -> bool {
        self.told.is_some()
    }

    /// The host and the port that the client asked for, where they differ from what the request itself says.
    pub fn authority(&self) -> Option<Vec<u8>> {
        let told = self.told.as_deref()?;
        let host = told.host.as_deref()?;
        let has_port = host.rsplit(|byte| *byte == b']').next().is_some_and(|rest| rest.contains(&b':'));
        let port = told.port.filter(|port| !has_port && *port != self.scheme.port());
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        Some([host, port.as_bytes()].concat())
    }
}

impl TrustPolicy {
    /// Whether a peer is believed. A peer without an address is not.
    pub fn trusts(&self, peer: ClientAddress) -> bool {
        peer.ip().is_some_and(|ip| self.trusted.get(ip).is_some())
    }

    /// Whom a request is from that came from `peer` in this way. All fields count that have arrived, also such as `Connection` names: a client
    /// must not be able to have them forgotten.
    pub fn origin(&self, fields: &Fields, peer: ClientAddress, scheme: Scheme) -> RequestOrigin {
        let mut origin = RequestOrigin::of_connection(peer, scheme);
        if !self.trusts(peer) {
            return origin;
        }
        let mut told = Box::<ToldOrigin>::default();
        let found = match &self.source {
            AddressSource::XForwardedFor => {
                self.walk(backwards(fields, b"x-forwarded-for"), plain, &mut told)
            }
            AddressSource::Field(name) => self.walk(backwards(fields, name.as_bytes()), plain, &mut told),
            AddressSource::Forwarded => {
                let lines = lines_backwards(fields, b"forwarded");
                self.walk(lines.flat_map(element::backwards), Element::parse, &mut told)
            }
        };
        if let Some(client) = found.address {
            origin.client = (client.ip().to_canonical(), client.port()).into();
        }
        let (scheme, host) = if self.source == AddressSource::Forwarded {
            (found.scheme, found.host)
        } else {
            let depth = told.hops.len().saturating_sub(1);
            told.port = nth(fields, b"x-forwarded-port", depth).and_then(port);
            let scheme = nth(fields, b"x-forwarded-proto", depth).and_then(element::scheme);
            (scheme, nth(fields, b"x-forwarded-host", depth).map(<[u8]>::to_vec))
        };
        origin.scheme = scheme.unwrap_or(origin.scheme);
        told.host = host.filter(|host| is_authority(host)).map(Into::into);
        origin.told = Some(told);
        origin
    }

    /// Reads elements, the last of which comes first, past trusted proxies. The result is what the last element says that is believed.
    fn walk<'a>(
        &self,
        elements: impl Iterator<Item = &'a [u8]>,
        read: fn(&[u8]) -> Option<Element>,
        told: &mut ToldOrigin,
    ) -> Element {
        let mut last = Element::default();
        for text in bounded(elements).take(self.max_hops) {
            let Some(element) = read(text) else { break };
            let Some(address) = element.address else { break };
            told.hops.insert(0, address.ip().to_canonical());
            last = element;
            if self.trusted.get(address.ip()).is_none() {
                break;
            }
        }
        last
    }
}

fn plain(text: &[u8]) -> Option<Element> {
    Some(Element { address: Some(node(text)?), ..Element::default() })
}

/// The values of a field, the last line first.
fn lines_backwards<'a>(fields: &'a Fields, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.lines().iter().rev();
    lines
        .filter(move |line| fields.slice(line.name).eq_ignore_ascii_case(name))
        .map(|line| fields.slice(line.value))
}

/// The elements of a list, the last of which comes first, over the lines of the field.
fn backwards<'a>(fields: &'a Fields, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    lines_backwards(fields, name).flat_map(|value| value.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

/// What a list says of the hop that is `depth` before the last; of a shorter list the first element.
fn nth<'a>(fields: &'a Fields, name: &'a [u8], depth: usize) -> Option<&'a [u8]> {
    bounded(backwards(fields, name)).take(depth.saturating_add(1)).last()
}

/// The elements within the last [`MOST_BYTES`].
fn bounded<'a>(elements: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    elements.scan(MOST_BYTES, |left, text| {
        *left = left.checked_sub(text.len().saturating_add(1))?;
        Some(text)
    })
}

fn port(text: &[u8]) -> Option<u16> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok()?.parse().ok().filter(|port| digits && *port > 0)
}

/// Whether it is a host as routes know them, with or without a port.
fn is_authority(text: &[u8]) -> bool {
    let after_host = match text.strip_prefix(b"[") {
        Some(rest) => {
            rest.iter().position(|byte| *byte == b']').and_then(|end| rest.get(end.saturating_add(1)..))
        }
        None => Some(
            text.iter()
                .position(|byte| *byte == b':')
                .map_or(&b""[..], |at| text.get(at..).unwrap_or_default()),
        ),
    };
    let port_fits = match after_host {
        Some([]) => true,
        Some([b':', digits @ ..]) => port(digits).is_some(),
        _ => false,
    };
    port_fits && Host::of(text).is_some_and(|host| !host.as_bytes().is_empty())
}

/// Fields by which proxies tell the client's address, beside those whose names begin with `X-Forwarded-`. In lower case.
pub const ADDRESS_FIELDS: &[&str] =
    &["cf-connecting-ip", "fastly-client-ip", "forwarded", "true-client-ip", "x-client-ip", "x-real-ip"];

/// Whether backends may take `name` for one that begins with `X-Forwarded-`.
pub fn is_x_forwarded(name: &[u8]) -> bool {
    const START: &[u8] = b"x-forwarded-";
    name.get(..START.len()).is_some_and(|start| reads_as(start, START))
}

//! Headers that the gateway sends to backends.

use std::net::{IpAddr, SocketAddr};

use super::tlv::{ALPN, AUTHORITY, SSL, SSL_CN, SSL_VERSION, UNIQUE_ID};
use super::{HeaderVersion, V2_SIGNATURE};
use crate::address::ClientAddress;

/// The longest text that goes into a header.
const MOST_TEXT_BYTES: usize = 255;

/// The client came inside TLS, and has shown a certificate.
const CLIENT_SSL: u8 = 1;
const CLIENT_CERT: u8 = 2;

/// What a backend is told of the client at the beginning of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProxySends {
    /// The form of the header.
    pub version: HeaderVersion,
    /// Whether it says which host the client asked for (SNI).
    pub authority: bool,
    /// Whether it says which protocol was chosen on the client's connection.
    pub alpn: bool,
    /// Whether it says what is known of TLS on the client's connection.
    pub ssl: bool,
    /// Whether it names the connection.
    pub unique_id: bool,
}

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
pub struct ProxyClient<'a> {
    /// Its address.
    pub from: ClientAddress,
    /// What it has connected to, where that is known.
    pub to: Option<SocketAddr>,
    /// The host that it asked for.
    pub authority: Option<&'a [u8]>,
    /// The protocol that was chosen.
    pub alpn: Option<&'a [u8]>,
    /// TLS on its connection, if it came inside it.
    pub tls: Option<ProxyTls<'a>>,
    /// What names its connection.
    pub unique_id: &'a [u8],
}

/// TLS on a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct ProxyTls<'a> {
    /// The version.
    pub version: &'a str,
    /// The common name of the certificate that it has shown and that was verified; empty where that has none.
    pub certificate: Option<&'a str>,
}

impl ProxySends {
    /// The names of what it says besides the addresses.
    pub const TLVS: [&str; 4] = ["authority", "alpn", "ssl", "unique_id"];

    /// The names of what this one says besides the addresses.
    pub fn tlv_names(&self) -> Vec<&'static str> {
        let said = [self.authority, self.alpn, self.ssl, self.unique_id];
        Self::TLVS.into_iter().zip(said).filter_map(|(name, said)| said.then_some(name)).collect()
    }

    /// The header of a connection for a client. Addresses of two families are both written as IPv6; a client without an address is told as one
    /// of which nothing is known.
    pub fn header(&self, client: &ProxyClient<'_>) -> Vec<u8> {
        let pair = client.from.ip().map(|ip| pair(ip, client));
        match self.version {
            HeaderVersion::V1 => line(pair),
            HeaderVersion::V2 => {
                let mut rest = Vec::new();
                let family = match pair {
                    None => 0,
                    Some((from, to)) => {
                        octets(&mut rest, from.ip());
                        octets(&mut rest, to.ip());
                        rest.extend(from.port().to_be_bytes());
                        rest.extend(to.port().to_be_bytes());
                        if from.is_ipv4() { 0x11 } else { 0x21 }
                    }
                };
                if family != 0 {
                    self.tlvs(client, &mut rest);
                }
                binary(0x21, family, &rest)
            }
        }
    }

    /// The header of a connection that the gateway makes for itself, such as that of a probe.
    pub fn local(&self) -> Vec<u8> {
        match self.version {
            HeaderVersion::V1 => line(None),
            HeaderVersion::V2 => binary(0x20, 0, &[]),
        }
    }

    fn tlvs(&self, client: &ProxyClient<'_>, rest: &mut Vec<u8>) {
        if let Some(alpn) = client.alpn.filter(|_| self.alpn) {
            tlv(rest, ALPN, alpn);
        }
        if let Some(authority) = client.authority.filter(|_| self.authority) {
            tlv(rest, AUTHORITY, authority);
        }
        if self.unique_id {
            tlv(rest, UNIQUE_ID, client.unique_id);
        }
        if self.ssl {
            let mut ssl = Vec::new();
            let has_shown = client.tls.is_some_and(|tls| tls.certificate.is_some());
            let client_bits = match client.tls {
                None => 0,
                Some(_) if has_shown => CLIENT_SSL | CLIENT_CERT,
                Some(_) => CLIENT_SSL,
            };
            ssl.push(client_bits);
            // Certificates that do not verify are not let in: 0 is for one that has been verified.
            ssl.extend(u32::from(!has_shown).to_be_bytes());
            if let Some(tls) = client.tls {
                tlv(&mut ssl, SSL_VERSION, tls.version.as_bytes());
                if let Some(name) = tls.certificate.filter(|name| !name.is_empty()) {
                    tlv(&mut ssl, SSL_CN, name.as_bytes());
                }
            }
            tlv(rest, SSL, &ssl);
        }
    }
}

/// Both ends, in one family.
fn pair(ip: IpAddr, client: &ProxyClient<'_>) -> (SocketAddr, SocketAddr) {
    let port = match client.from {
        ClientAddress::Ip(from) => from.port(),
        ClientAddress::Unix => 0,
    };
    let ip = ip.to_canonical();
    let nowhere: IpAddr = if ip.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let to = client.to.map_or((nowhere, 0), |to| (to.ip().to_canonical(), to.port()));
    let (from, to_ip) = match (ip, to.0) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        same => same,
    };
    (SocketAddr::new(from, port), SocketAddr::new(to_ip, to.1))
}

fn line(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((from, to)) = pair else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
}

fn octets(into: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => into.extend(ip.octets()),
        IpAddr::V6(ip) => into.extend(ip.octets()),
    }
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap_or_default();
    [V2_SIGNATURE, &[command, family][..], &length.to_be_bytes(), rest].concat()
}

/// What is longer than a name can be is cut, so that a header stays short.
fn tlv(into: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let value = value.get(..value.len().min(MOST_TEXT_BYTES)).unwrap_or_default();
    into.push(kind);
    into.extend(u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
    into.extend(value);
}

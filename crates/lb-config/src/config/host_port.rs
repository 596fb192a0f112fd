//! `host:port` as operators write it: a name, an IPv4 address, or an IPv6 address in brackets.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A host and a port. Equal when they would reach the same place by the same name: names are kept in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// A DNS name, or an IP address without brackets (an IPv6 address may carry `%scope`).
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a text is not a `host:port`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostPortError(&'static str);

impl HostPort {
    /// Reads `name:port`, `1.2.3.4:port` or `[::1]:port`.
    ///
    /// # Errors
    /// Names in a few words what is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, HostPortError> {
        if text.contains("//") {
            return Err(HostPortError(
                "a URL is not an address: leave out scheme and path; TLS to a backend is tls = true",
            ));
        }
        if text.starts_with("unix:") || text.starts_with(['/', '@']) {
            return Err(HostPortError("a Unix socket cannot stand here, only a host and a port"));
        }
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError("the port is missing"))?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HostPortError("the port is not a number"));
        }
        let port = port.parse().map_err(|_| HostPortError("the port is above 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                rest.strip_suffix(']').ok_or(HostPortError("`[` without `]` before the port"))?.to_owned()
            }
            None => host.to_ascii_lowercase(),
        };
        let bracketed = text.starts_with('[');
        let parsed = Self { host, port };
        match (bracketed, parsed.ip()) {
            (true, Some(IpAddr::V6(_))) => Ok(parsed),
            (true, _) => Err(HostPortError("only an IPv6 address stands in brackets")),
            (false, Some(IpAddr::V6(_))) => Err(HostPortError("an IPv6 address needs brackets")),
            (false, _) if parsed.host.contains(':') => Err(HostPortError("an IPv6 address needs brackets")),
            (false, Some(IpAddr::V4(_))) => Ok(parsed),
            (false, None) => check_name(&parsed.host).map(|()| parsed),
        }
    }

    /// The address, when the host is one and not a name. A scope id is left out: see [`Self::socket_addr`].
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// The socket address, when the host is an IP address and not a name.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.to_string().parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            _ => address.ip().to_string(),
        };
        Self { host, port: address.port() }
    }
}

impl fmt::Display for HostPortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for HostPortError {}

fn check_name(name: &str) -> Result<(), HostPortError> {
    if name.is_empty() {
        return Err(HostPortError(
            "the host is missing; all addresses are 0.0.0.0 for IPv4 and [::] for IPv6",
        ));
    }
    if name == "*" {
        return Err(HostPortError("all addresses are 0.0.0.0 for IPv4 and [::] for IPv6"));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(label_ok) {
        return Err(HostPortError("the host is neither a DNS name nor an IP address"));
    }
    // RFC 3696 section 2: a top-level label is never all digits, so `10.0.0.300` is a mistyped address, not a name.
    if name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(HostPortError("the host looks like an IPv4 address but is none"));
    }
    Ok(())
}

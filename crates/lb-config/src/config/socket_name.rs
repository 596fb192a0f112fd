//! The address of a stream socket as operators write it: `host:port`, or `unix:` and a path.

use std::fmt;
use std::net::SocketAddr;

use lb_core::address::{Address, UNIX_PREFIX, UnixPath};

use super::HostPort;

/// A host and a port, or a Unix socket.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum SocketName {
    /// A name or an IP address, and a port.
    Host(HostPort),
    /// A Unix socket.
    Unix(UnixPath),
}

impl SocketName {
    /// Reads what [`HostPort::parse`] reads, `unix:/run/app.sock`, or `unix:@name` for the abstract namespace.
    ///
    /// # Errors
    /// Names in a few words what is missing or malformed.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix(UNIX_PREFIX) {
            Some(path) if path.starts_with("//") => {
                Err("a URL is not an address: a Unix socket is written unix:/run/app.sock".to_owned())
            }
            Some(path) => UnixPath::new(path).map(Self::Unix).map_err(|error| error.to_string()),
            None if text.starts_with(['/', '@']) && !text.starts_with("//") => {
                Err(format!("a Unix socket is written {UNIX_PREFIX}{text}"))
            }
            None => HostPort::parse(text).map(Self::Host).map_err(|error| error.to_string()),
        }
    }

    /// The host and the port, if it is no Unix socket.
    pub fn host_port(&self) -> Option<&HostPort> {
        match self {
            Self::Host(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// The host, if it is no Unix socket.
    pub fn host(&self) -> Option<&str> {
        self.host_port().map(|address| address.host.as_str())
    }

    /// The address, unless a name server has to be asked for it.
    pub fn literal(&self) -> Option<Address> {
        match self {
            Self::Host(address) => address.socket_addr().map(Address::Ip),
            Self::Unix(path) => Some(Address::Unix(*path)),
        }
    }

    /// The path, if it is a Unix socket.
    pub fn unix(&self) -> Option<&UnixPath> {
        match self {
            Self::Host(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{path}"),
        }
    }
}

impl From<SocketAddr> for SocketName {
    fn from(address: SocketAddr) -> Self {
        Self::Host(address.into())
    }
}

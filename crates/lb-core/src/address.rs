//! Where a backend or a listener is reached, and where a client comes from: by IP, or at a Unix socket.
//!
//! All of it is plain data that is copied, so that a connection or a log line costs no allocation.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that the path of a Unix socket may have: `sun_path` of unix(7) has room for them and a zero.
pub const MAX_UNIX_PATH: usize = 107;

/// What the written form of a Unix socket begins with.
pub const UNIX_PREFIX: &str = "unix:";

/// The path of a Unix socket, or `@` and a name in the abstract namespace (unix(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixPath {
    /// The bytes after the path are zero.
    bytes: [u8; MAX_UNIX_PATH],
    length: u8,
}

/// Why a text is no path of a Unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnixPathError {
    /// There is no path, or no name behind `@`.
    Empty,
    /// It does not begin with `/` or `@`.
    Relative,
    /// It has so many bytes, which is more than [`MAX_UNIX_PATH`].
    TooLong(usize),
    /// It ends with `/`.
    Directory,
    /// A control character is in it.
    Control,
}

impl UnixPath {
    /// Reads an absolute path, or a name that begins with `@`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self, UnixPathError> {
        let path = path.as_ref();
        match path {
            [] | b"@" => return Err(UnixPathError::Empty),
            [b'/', .., b'/'] | b"/" => return Err(UnixPathError::Directory),
            [b'/' | b'@', ..] => {}
            _ => return Err(UnixPathError::Relative),
        }
        if path.iter().any(u8::is_ascii_control) {
            return Err(UnixPathError::Control);
        }
        let mut bytes = [0; MAX_UNIX_PATH];
        match (bytes.get_mut(..path.len()), u8::try_from(path.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(path);
                Ok(Self { bytes, length })
            }
            _ => Err(UnixPathError::TooLong(path.len())),
        }
    }

    /// The path or name as it was written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// The path of the file; a name in the abstract namespace has none.
    pub fn file(&self) -> Option<&Path> {
        self.abstract_name().is_none().then(|| Path::new(OsStr::from_bytes(self.as_bytes())))
    }

    /// The name in the abstract namespace, without `@`, if it is one.
    pub fn abstract_name(&self) -> Option<&[u8]> {
        self.as_bytes().strip_prefix(b"@")
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for UnixPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the path of the Unix socket is missing"),
            Self::Relative => f.write_str(
                "the path of a Unix socket begins with `/`, and a name in the abstract namespace with `@`",
            ),
            Self::TooLong(length) => {
                write!(
                    f,
                    "the path of a Unix socket has at most {MAX_UNIX_PATH} bytes, this one has {length}"
                )
            }
            Self::Directory => f.write_str("the path of the Unix socket ends with `/`: it names a directory"),
            Self::Control => f.write_str("the path of the Unix socket has a control character in it"),
        }
    }
}

impl std::error::Error for UnixPathError {}

/// Where a backend or a listener is reached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(UnixPath),
}

impl Address {
    /// The IP address and port, if it is one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Self {
        Self::Ip(address.into())
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl From<UnixPath> for Address {
    fn from(path: UnixPath) -> Self {
        Self::Unix(path)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{path}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a client comes from. Clients at a Unix socket have no address of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClientAddress {
    /// It came over IP.
    Ip(SocketAddr),
    /// It came to a Unix socket.
    Unix,
}

impl ClientAddress {
    /// The IP address, if there is one.
    #[inline]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }

    /// The address as a line of the log has it where the port says nothing.
    pub fn without_port(&self) -> impl fmt::Display {
        WithoutPort(self.ip())
    }
}

struct WithoutPort(Option<IpAddr>);

impl fmt::Display for WithoutPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ip) => ip.fmt(f),
            None => f.write_str(UNIX_PREFIX),
        }
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for ClientAddress {
    fn from(address: (I, u16)) -> Self {
        Self::Ip(address.into())
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str(UNIX_PREFIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_as_it_was_written() {
        for text in ["/run/app.sock", "@app", "/a", "/run/ä b.sock"] {
            let path = UnixPath::new(text).unwrap();
            assert_eq!((path.as_bytes(), path.to_string().as_str()), (text.as_bytes(), text));
            assert_eq!(Address::from(path).to_string(), format!("unix:{text}"));
        }
        assert_eq!(UnixPath::new("@app").unwrap().abstract_name(), Some(&b"app"[..]));
        assert_eq!(UnixPath::new("/app").unwrap().abstract_name(), None);
        assert_eq!(UnixPath::new("/app").unwrap().file(), Some(Path::new("/app")));
        assert_eq!(UnixPath::new("@app").unwrap().file(), None);
        assert_eq!(UnixPath::new(b"/a\xff").unwrap().to_string(), "/a\u{fffd}");
        let longest = format!("/{}", "x".repeat(MAX_UNIX_PATH - 1));
        assert_eq!(UnixPath::new(&longest).unwrap().to_string(), longest);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let of = |text: &str| UnixPath::new(text).unwrap_err();
        assert_eq!(["", "@"].map(of), [UnixPathError::Empty; 2]);
        assert_eq!(["app", "./app", "~/app"].map(of), [UnixPathError::Relative; 3]);
        assert_eq!(["/", "/run/"].map(of), [UnixPathError::Directory; 2]);
        assert_eq!(["/a\nb", "/a\0", "@a\u{7f}"].map(of), [UnixPathError::Control; 3]);
        assert_eq!(of(&format!("/{}", "x".repeat(MAX_UNIX_PATH))), UnixPathError::TooLong(108));
    }

    #[test]
    fn a_client_costs_no_more_than_its_socket_address() {
        assert_eq!(size_of::<ClientAddress>(), size_of::<SocketAddr>());
        let client = ClientAddress::from("192.0.2.1:80".parse::<SocketAddr>().unwrap());
        assert_eq!(
            (client.to_string().as_str(), ClientAddress::Unix.to_string().as_str()),
            ("192.0.2.1:80", "unix:")
        );
        assert_eq!((client.ip(), ClientAddress::Unix.ip()), (Some([192, 0, 2, 1].into()), None));
    }
}

//! Why a message could not be read.

use std::fmt;
use std::io;

/// Why a message could not be read.
#[derive(Debug)]
pub enum Fault {
    /// The peer ended the connection between two messages.
    Closed,
    /// The peer ended the connection inside a message.
    Truncated(String),
    /// The peer reset the connection.
    Reset,
    /// Nothing came within the socket's timeout.
    TimedOut,
    /// What came is not what the protocol allows.
    Malformed(String),
    /// Any other error of the system.
    Io(io::Error),
}

impl Fault {
    /// Whether the peer is gone, in whatever manner.
    pub fn is_gone(&self) -> bool {
        matches!(self, Fault::Closed | Fault::Truncated(_) | Fault::Reset)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Closed => write!(f, "closed by the peer"),
            Fault::Truncated(at) => write!(f, "ended inside {at}"),
            Fault::Reset => write!(f, "reset by the peer"),
            Fault::TimedOut => write!(f, "timed out"),
            Fault::Malformed(why) => write!(f, "malformed: {why}"),
            Fault::Io(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Fault::Reset,
            _ => Fault::Io(e),
        }
    }
}

pub(super) fn malformed<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Malformed(why.into()))
}

//! What tells listeners apart, and pools.
//!
//! An identity outlives a reload: whatever else the new file says about a listener or a pool, and wherever it stands in that file, it is
//! the one that ran before if the identities are equal.

use std::fmt;
use std::sync::Arc;

use crate::words;

words! {
    /// The kind of socket.
    Transport {
        /// A TCP socket.
        Tcp = "tcp",
        /// A UDP socket.
        Udp = "udp",
        /// A Unix stream socket.
        Unix = "unix",
    }
}

/// The identity of a listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId {
    /// What it is called: the address as written, and over UDP `/udp` behind it.
    pub name: String,
    /// The kind of socket.
    pub transport: Transport,
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The identity of a pool. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PoolId {
    /// The pool of this name, which any number of listeners may use.
    Named(Arc<str>),
    /// The pool that one listener has for itself, by the listener's name and transport.
    Listener(Arc<str>, Transport),
}

impl PoolId {
    /// The name of the pool, or that of the listener whose own it is.
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) | Self::Listener(name, _) => name,
        }
    }

    /// The name of the listener that has the pool for itself; `None` where the pool has a name of its own.
    pub fn listener(&self) -> Option<&str> {
        match self {
            Self::Named(_) => None,
            Self::Listener(name, _) => Some(name),
        }
    }

    /// Kind and name of the owner, as messages begin with it: `pool web` or `listener 0.0.0.0:80`.
    pub fn owner(&self) -> impl fmt::Display {
        let kind = if self.listener().is_some() { "listener" } else { "pool" };
        format!("{kind} {}", self.name())
    }
}

impl From<&str> for PoolId {
    fn from(name: &str) -> Self {
        Self::Named(name.into())
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

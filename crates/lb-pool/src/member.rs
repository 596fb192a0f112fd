//! One address of a backend, for the whole process.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lb_core::health;

/// What tells members of a pool apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberKey {
    /// The backend as the configuration names it.
    pub backend: String,
    /// One of its addresses.
    pub address: SocketAddr,
}

/// One address of a backend. Lives on while any configuration names it in the same pool.
#[derive(Debug)]
pub struct Member {
    /// Which one it is.
    pub key: MemberKey,
    /// What changes while it lives.
    live: Mutex<Live>,
}

/// What changes while a member lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// What its health checks have found, where there are any.
    pub(crate) health: Option<health::Target>,
    /// An operator wants it to finish what it has and to get nothing more.
    pub(crate) draining: bool,
    /// The weight that an operator has given it in place of the configured one.
    pub(crate) weight: Option<u32>,
}

impl Member {
    pub(crate) fn new(key: MemberKey) -> Self {
        Self { key, live: Mutex::default() }
    }

    /// A panic elsewhere leaves plain values behind, which are as good as before.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

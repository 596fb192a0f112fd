//! The members of a pool as a worker reaches them.

use std::sync::Arc;

use lb_core::address::Address;
use lb_core::proxy_protocol::ProxySends;
use lb_observe::metrics::BackendMetrics;

use crate::member::SharedMember;

/// A member of a pool as a worker reaches it, whatever is spoken there. `T` is what it takes to reach it inside TLS.
#[derive(Debug)]
pub struct WorkerMember<T> {
    member: Arc<SharedMember>,
    /// How it is reached inside TLS, if it is.
    pub tls: Option<Arc<T>>,
    /// What it is told of clients before all other bytes, if anything.
    pub proxy_protocol: Option<ProxySends>,
    /// Counters of its backend.
    pub metrics: Arc<BackendMetrics>,
}

impl<T> WorkerMember<T> {
    pub(crate) fn new(member: &Arc<SharedMember>, tls: Option<Arc<T>>, metrics: Arc<BackendMetrics>) -> Self {
        Self { member: Arc::clone(member), tls, proxy_protocol: None, metrics }
    }

    /// The same, told this of clients.
    #[must_use]
    pub fn telling(mut self, proxy_protocol: Option<ProxySends>) -> Self {
        self.proxy_protocol = proxy_protocol;
        self
    }

    /// The backend as the configuration names it; all its addresses have this name.
    pub fn name(&self) -> &str {
        &self.member.key.backend
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        self.member.key.address
    }
}

//! The members of a pool as a worker reaches them.

use std::sync::Arc;

use lb_core::address::Address;
use lb_observe::metrics::BackendMetrics;

use crate::member::SharedMember;

/// A member of a pool as a worker reaches it, whatever is spoken there. `T` is what it takes to reach it inside TLS.
#[derive(Debug)]
pub struct WorkerMember<T> {
    member: Arc<SharedMember>,
    /// How it is reached inside TLS, if it is.
    pub tls: Option<Arc<T>>,
    /// Counters of its backend.
    pub metrics: Arc<BackendMetrics>,
}

impl<T> WorkerMember<T> {
    pub(crate) fn new(member: &Arc<SharedMember>, tls: Option<Arc<T>>, metrics: Arc<BackendMetrics>) -> Self {
        Self { member: Arc::clone(member), tls, metrics }
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

//! One flow: where its datagrams come from and go to, and what it occupies.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lb_core::rest::RestCause;
use lb_io::ConnectionGuard;
use lb_io::gate::AddressTicket;
use lb_io::udp::{Uplink, UplinkRest};
use lb_observe::metrics::BackendMetrics;
use lb_pool::{Place, WorkerMember};
use lb_security::ClientTls;
use lb_security::admission::Admission;

use crate::load::MemberLoad;
use crate::service::TcpPool;

/// A flow.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) client: SocketAddr,
    /// The address of this machine that the client sends to.
    pub(super) local: Option<IpAddr>,
    /// The listening socket that the flow comes in by.
    pub(super) socket: usize,
    pub(super) target: Target,
    /// Datagrams of the client, and replies.
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) _occupied: Occupied,
}

/// What a flow occupies at the listener.
#[derive(Debug)]
pub(super) struct Occupied {
    pub(super) _source: Option<AddressTicket>,
    pub(super) _admission: Admission,
    pub(super) _guard: ConnectionGuard,
}

/// Where a flow goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) uplink: Uplink,
    /// The pool as it is in force, and the position of the member there.
    pub(super) pool: Rc<TcpPool>,
    pub(super) at: usize,
    load: Option<MemberLoad>,
    begun: Instant,
    /// The backend has got a datagram of the flow.
    pub(super) is_greeted: bool,
    is_heard: bool,
    metrics: FlowInflight,
    _place: Option<Place>,
}

impl Target {
    /// A flow goes to this member from now on.
    pub(super) fn new(
        uplink: Uplink,
        (pool, at, member): (&Rc<TcpPool>, usize, &WorkerMember<ClientTls>),
        place: Option<Place>,
        worker: usize,
        now: Instant,
    ) -> Self {
        let metrics = Arc::clone(&member.metrics);
        let shard = metrics.worker(worker);
        shard.connections.inc();
        shard.inflight.inc();
        let metrics = FlowInflight { metrics, worker };
        Self {
            uplink,
            pool: Rc::clone(pool),
            at,
            load: Some(MemberLoad::take(pool.balance(), at)),
            begun: now,
            is_greeted: false,
            is_heard: false,
            metrics,
            _place: place,
        }
    }

    /// The flow goes there no more; what is left to be given back.
    pub(super) fn release(self) -> Uplink {
        self.uplink
    }

    /// A reply has come.
    #[inline]
    pub(super) fn heard(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.is_heard, true)
            && let Some(load) = &mut self.load
        {
            load.connected(now.saturating_duration_since(self.begun));
            self.pool.balance().answered(self.at, self.begun, now);
        }
    }

    /// An ICMP error says that the backend cannot be reached.
    pub(super) fn unreachable(&mut self, now: Instant) {
        if let Some(load) = self.load.take() {
            load.failed();
        }
        self.pool.balance().unreachable(self.at, RestCause::Connect, now);
        self.load = Some(MemberLoad::take(self.pool.balance(), self.at));
        (self.begun, self.is_heard) = (now, false);
        self.metrics.metrics.worker(self.metrics.worker).connect_failures.inc();
    }
}

/// Counts a flow as being at its backend while it lives.
#[derive(Debug)]
struct FlowInflight {
    metrics: Arc<BackendMetrics>,
    worker: usize,
}

impl Drop for FlowInflight {
    fn drop(&mut self) {
        self.metrics.worker(self.worker).inflight.dec();
    }
}

/// How long the uplink of a flow rests that has ended: replies may be on their way, unless all have come or none is wanted.
pub(super) fn rest(flow: &Flow, replies: Option<u32>) -> UplinkRest {
    match replies {
        Some(0) => UplinkRest::None,
        Some(_) if is_answered(flow, replies) => UplinkRest::Short,
        _ => UplinkRest::Long,
    }
}

/// Whether all replies to what the client has sent have come.
pub(super) fn is_answered(flow: &Flow, replies: Option<u32>) -> bool {
    replies.is_some_and(|replies| flow.answered >= flow.asked.saturating_mul(replies.into()))
}

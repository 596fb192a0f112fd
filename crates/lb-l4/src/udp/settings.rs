//! Everything about a UDP listener that a reload can change.

use std::rc::Rc;
use std::time::Instant;

use lb_config::Udp;
use lb_core::address::ClientAddress;
use lb_core::balance::hash;
use lb_pool::{Place, WorkerMember};
use lb_security::ClientTls;

use super::refusal::Refusal;
use crate::service::TcpPool;

/// The settings of one UDP listener on one worker.
#[derive(Debug)]
pub struct UdpSettings {
    /// Timeouts, caps and rules.
    pub udp: Udp,
    /// Sockets to backends that there may be at once.
    pub max_sockets: usize,
    pub(crate) pool: Rc<TcpPool>,
}

impl UdpSettings {
    /// Settings for one worker, which has `descriptors` to spare.
    pub fn new(udp: Udp, descriptors: usize, pool: Rc<TcpPool>) -> Rc<Self> {
        let max_sockets = udp.max_flows.min(descriptors).max(1);
        Rc::new(Self { udp, max_sockets, pool })
    }

    /// A member for a flow of this client, and its room there where that is limited.
    pub(super) fn pick(
        &self,
        client: ClientAddress,
        now: Instant,
    ) -> Result<(usize, Option<Place>), Refusal> {
        let pool = self.pool.balance();
        let key = pool.follows_key().then(|| hash::connection(None, client));
        if !pool.is_limited() {
            return Ok((pool.pick(now, key, |_| true).ok_or(Refusal::NoBackend)?, None));
        }
        let has_room = |at: usize| pool.gate(at).is_none_or(|gate| gate.has_room(lb_pool::Need::Connection));
        match pool.pick(now, key, has_room) {
            Some(at) => match pool.gate(at).map(|gate| gate.connection()) {
                Some(None) => Err(Refusal::BackendFull),
                place => Ok((at, place.flatten())),
            },
            None if pool.pick(now, key, |_| true).is_some() => Err(Refusal::BackendFull),
            None => Err(Refusal::NoBackend),
        }
    }
}

impl TcpPool {
    /// Where a member of another version of this pool stands in it.
    pub(super) fn position(&self, member: &WorkerMember<ClientTls>) -> Option<usize> {
        let is_it = |other: &WorkerMember<ClientTls>| {
            other.address() == member.address() && other.name() == member.name()
        };
        self.members().iter().position(is_it)
    }
}

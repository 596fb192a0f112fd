//! What is let in: connections and flows within the caps of their addresses and listeners, and handshakes within those of a worker.
//!
//! Every protocol admits its clients here, whatever transport they come over, so that one cap counts them all.

mod cap;
mod handshakes;

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use lb_core::address::ClientAddress;
use lb_io::gate::{AddressGate, AddressTicket, CountGate, CountTicket};
use lb_io::{ConnectionGuard, Connections};
use lb_observe::metrics::{AcceptReject, ListenerMetrics, WorkerMetrics};

pub use cap::{Cap, Network};
pub use handshakes::{Handshake, Handshakes};

/// Caps shared by all workers.
#[derive(Clone, Debug)]
pub struct Gates {
    /// Connections of each client address.
    pub address: Arc<AddressGate>,
    /// Connections of the listener.
    pub listener: Arc<CountGate>,
    /// Flows of each client address at the listener, where it forwards datagrams.
    pub sources: Arc<AddressGate>,
}

/// The caps on the connections of one listener, as one worker sees them, and what it counts of them.
#[derive(Debug)]
pub struct Admissions {
    /// What logs call the listener.
    pub name: String,
    /// Live connections of the listener on this worker.
    pub connections: Rc<Connections>,
    /// Counters of the listener.
    pub metrics: Arc<ListenerMetrics>,
    /// Counters of the worker.
    pub worker_metrics: Arc<WorkerMetrics>,
    gates: Gates,
    max_inflight: Cell<usize>,
    worker: usize,
}

impl Admissions {
    /// The caps of a listener on worker `worker`; `max_inflight` connections may be open over all workers.
    pub fn new(
        name: String,
        gates: Gates,
        max_inflight: usize,
        worker: usize,
        metrics: Arc<ListenerMetrics>,
        worker_metrics: Arc<WorkerMetrics>,
    ) -> Rc<Self> {
        let max_inflight = Cell::new(max_inflight);
        let connections = Connections::new();
        Rc::new(Self { name, connections, metrics, worker_metrics, gates, max_inflight, worker })
    }

    /// Changes how many connections may be open from now on.
    pub fn set_max_inflight(&self, most: usize) {
        self.max_inflight.set(most);
    }

    /// Connections of the listener over all workers.
    pub fn open(&self) -> usize {
        self.gates.listener.open()
    }

    /// Changes how many flows of one client address the listener may have from now on.
    pub fn set_max_of_source(&self, most: u32) {
        self.gates.sources.set_cap(most);
    }

    /// Admits a flow of an address at the listener while the ticket lives, besides [`Self::admit`].
    pub fn admit_source(&self, address: IpAddr) -> Option<AddressTicket> {
        self.gates.sources.admit(address)
    }

    /// Refuses a connection of `client` because no memory is left for it. That is counted and logged.
    pub fn refuse_for_memory(&self, client: ClientAddress) -> Cap {
        self.worker_metrics.accept_rejects.of(AcceptReject::Memory).inc();
        Cap::Memory.tell(&self.name, client);
        Cap::Memory
    }

    /// Admits a connection of `client`, and counts it. A refusal is counted and logged.
    ///
    /// # Errors
    /// The cap that leaves no room.
    pub fn admit(&self, client: ClientAddress) -> Result<(Admission, ConnectionGuard), Cap> {
        let address = self.admit_address(client)?;
        let (mut admission, guard) = self.admit_proxy(client)?;
        admission.count(address);
        Ok((admission, guard))
    }

    /// As [`Self::admit`], for a connection of a proxy, whose own address does not count: the client's will, when it is known
    /// ([`Self::admit_address`]).
    ///
    /// # Errors
    /// The cap that leaves no room.
    pub fn admit_proxy(&self, proxy: ClientAddress) -> Result<(Admission, ConnectionGuard), Cap> {
        let Some(place) = self.gates.listener.admit(self.max_inflight.get()) else {
            self.metrics.worker(self.worker).accept_shed.inc();
            Cap::Listener.tell(&self.name, proxy);
            return Err(Cap::Listener);
        };
        self.worker_metrics.connections.inc();
        let shard = self.metrics.worker(self.worker);
        shard.connections_inflight.inc();
        shard.accept_inflight.inc();
        let admission = Admission {
            worker: self.worker,
            metrics: Arc::clone(&self.metrics),
            address: None,
            _place: place,
        };
        Ok((admission, self.connections.enter()))
    }

    /// Counts a connection of the client's address. A client without one has no ticket.
    ///
    /// # Errors
    /// The cap that leaves no room.
    pub fn admit_address(&self, client: ClientAddress) -> Result<Option<AddressTicket>, Cap> {
        match client.ip().map(|ip| self.gates.address.admit(ip)) {
            Some(None) => {
                self.worker_metrics.accept_rejects.of(AcceptReject::PerIp).inc();
                Cap::Address.tell(&self.name, client);
                Err(Cap::Address)
            }
            ticket => Ok(ticket.flatten()),
        }
    }
}

/// Everything that a live connection occupies. Dropping it gives that back.
#[derive(Debug)]
pub struct Admission {
    worker: usize,
    metrics: Arc<ListenerMetrics>,
    /// None for a client without an address, or whose address is not known yet.
    address: Option<AddressTicket>,
    _place: CountTicket,
}

impl Admission {
    /// Keeps the count of the client's address, which has become known.
    pub fn count(&mut self, address: Option<AddressTicket>) {
        self.address = address;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let shard = self.metrics.worker(self.worker);
        shard.connections_inflight.dec();
        shard.accept_inflight.dec();
    }
}

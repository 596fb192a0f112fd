//! What the control thread tells workers, and the workers as it sees them.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;

use lb_io::gate::{AddressGate, CountGate};
use lb_security::SharedTlsBundle;
use tokio::sync::{mpsc, oneshot};

use crate::snapshot::Snapshot;

/// Orders to a worker.
#[derive(Debug)]
pub enum Order {
    /// Serve by this from now on, and tell.
    Apply(Arc<Snapshot>, oneshot::Sender<()>),
    /// Accept no more; tell when every socket is closed.
    StopAccepting(oneshot::Sender<()>),
    /// Close idle connections, spread over the jitter of their listener; finish the others.
    Drain,
    /// Announce the end on what is left of a listener, by its position.
    Farewell(usize),
    /// End what is left of it.
    Abort(usize),
    /// Tell that orders are taken.
    Answer(oneshot::Sender<()>),
    /// End.
    Stop,
}

/// A listener's sockets on one worker.
#[derive(Debug)]
pub struct ListenerSockets {
    /// Position in the configuration.
    pub index: usize,
    /// One bound socket for each address.
    pub sockets: Vec<std::net::TcpListener>,
    /// Caps on its connections.
    pub gates: Gates,
    /// Its certificates, where clients speak TLS.
    pub tls: Option<SharedTlsBundle>,
}

/// Caps shared by all workers.
#[derive(Clone, Debug)]
pub struct Gates {
    /// Connections of each client address.
    pub address: Arc<AddressGate>,
    /// Connections of the listener.
    pub listener: Arc<CountGate>,
}

/// The running workers.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    pub(crate) orders: Vec<mpsc::UnboundedSender<Order>>,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Waits until a worker is gone that nobody has told to stop, and says which.
    pub(crate) fn lost(&self) -> impl Future<Output = usize> + use<> {
        let mut gone: Vec<_> = self
            .orders
            .iter()
            .cloned()
            .map(|orders| Box::pin(async move { orders.closed().await }))
            .collect();
        poll_fn(move |cx| match gone.iter_mut().position(|gone| gone.as_mut().poll(cx).is_ready()) {
            Some(worker) => Poll::Ready(worker),
            None => Poll::Pending,
        })
    }

    /// Gives an order to every worker.
    pub(crate) fn order(&self, mut order: impl FnMut() -> Order) {
        for orders in &self.orders {
            // A worker that is gone has nothing left to do.
            let _ = orders.send(order());
        }
    }
}

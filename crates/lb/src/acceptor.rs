//! Accepts connections for one listener on one worker, within the caps.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lb_io::gate::{AddressGate, AddressTicket, CountGate, CountTicket};
use lb_io::listener::{AcceptBackoff, AcceptError, TcpListener};
use lb_io::{Connections, Phase, TcpStream};
use lb_observe::metrics::{AcceptErrorKind, AcceptReject, ListenerMetrics, WorkerMetrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::worker::Protocol;

/// Clients that may be reading a refusal at a time, per listener and worker; others are closed without a word.
const MAX_REFUSALS: usize = 128;

/// How long a client is given to read a refusal.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Caps shared by all workers.
#[derive(Clone, Debug)]
pub(crate) struct Gates {
    pub(crate) address: Arc<AddressGate>,
    pub(crate) listener: Arc<CountGate>,
}

/// What an accept loop needs.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) worker: usize,
    pub(crate) protocol: Protocol,
    pub(crate) gates: Gates,
    pub(crate) connections: Rc<Connections>,
    pub(crate) max_inflight: Cell<usize>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    pub(crate) worker_metrics: Arc<WorkerMetrics>,
    /// Set before `stop` is notified, for loops that are not waiting at that moment.
    pub(crate) stopping: Cell<bool>,
    pub(crate) stop: Notify,
    pub(crate) refusals: Rc<()>,
}

impl Acceptor {
    /// Accepts until told to stop; then takes what waits already and closes the socket.
    pub(crate) async fn run(self: Rc<Self>, listener: TcpListener, seed: u64) {
        let mut backoff = AcceptBackoff::new(seed);
        while !self.stopping.get() {
            let accepted = tokio::select! {
                biased;
                () = self.stop.notified() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    backoff.reset();
                    self.admit(stream, peer);
                }
                Err(error) => {
                    if let Some(wait) = self.failed(&error, &mut backoff) {
                        tokio::select! {
                            () = self.stop.notified() => break,
                            () = tokio::time::sleep(wait) => {}
                        }
                    }
                }
            }
        }
        listener.close(|stream, peer| self.admit(stream, peer));
    }

    /// Counts a failure and says how long to wait before the next try.
    fn failed(&self, error: &std::io::Error, backoff: &mut AcceptBackoff) -> Option<Duration> {
        let (kind, wait) = match AcceptError::of(error) {
            AcceptError::Connection => (AcceptErrorKind::ConnReset, None),
            AcceptError::Descriptors => (AcceptErrorKind::FdExhausted, Some(backoff.wait())),
            AcceptError::Memory => (AcceptErrorKind::NoMemory, Some(backoff.wait())),
            AcceptError::Fatal => (AcceptErrorKind::Fatal, Some(Duration::from_secs(1))),
        };
        self.worker_metrics.accept_errors.of(kind).inc();
        match kind {
            AcceptErrorKind::ConnReset => {}
            AcceptErrorKind::Fatal => tracing::error!(%error, "listening socket fails — trying on"),
            _ => tracing::warn!(%error, "transient accept error — backing off"),
        }
        wait
    }

    fn admit(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(address) = self.gates.address.admit(peer.ip()) else {
            self.worker_metrics.accept_rejects.of(AcceptReject::PerIp).inc();
            return;
        };
        let Some(place) = self.gates.listener.admit(self.max_inflight.get()) else {
            self.shed(stream);
            return;
        };
        self.worker_metrics.connections.inc();
        let admission = Admission::new(self, address, place);
        let guard = self.connections.enter();
        match &self.protocol {
            Protocol::Http(service) => {
                let service = Rc::clone(service);
                tokio::task::spawn_local(async move {
                    lb_http::serve(lb_security::Stream::Plain(stream), peer, guard, service).await;
                    drop(admission);
                });
            }
            Protocol::Tcp(service) => {
                let service = Rc::clone(service);
                tokio::task::spawn_local(async move {
                    lb_l4::serve(stream, guard, service).await;
                    drop(admission);
                });
            }
        }
    }

    /// Turns a connection away because the listener is full.
    fn shed(&self, mut stream: TcpStream) {
        self.metrics.worker(self.worker).accept_shed.inc();
        tracing::debug!("shed accept — per-listener inflight cap reached");
        let http = matches!(self.protocol, Protocol::Http(_));
        if !http
            || self.connections.phase() != Phase::Serving
            || Rc::strong_count(&self.refusals) > MAX_REFUSALS
        {
            return;
        }
        let busy = Rc::clone(&self.refusals);
        tokio::task::spawn_local(async move {
            // Closed only when the client has read it: unread bytes of its request would turn the close into a reset.
            let told = async {
                stream.write_all(lb_http::answer::OVER_CAPACITY).await?;
                stream.shutdown().await?;
                let mut rest = [0u8; 512];
                while stream.read(&mut rest).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = tokio::time::timeout(REFUSAL_TIME, told).await;
            drop(busy);
        });
    }
}

/// Everything that a live connection occupies.
struct Admission {
    worker: usize,
    metrics: Arc<ListenerMetrics>,
    _address: AddressTicket,
    _place: CountTicket,
}

impl Admission {
    fn new(acceptor: &Acceptor, address: AddressTicket, place: CountTicket) -> Self {
        let shard = acceptor.metrics.worker(acceptor.worker);
        shard.connections_inflight.inc();
        shard.accept_inflight.inc();
        Self {
            worker: acceptor.worker,
            metrics: Arc::clone(&acceptor.metrics),
            _address: address,
            _place: place,
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let shard = self.metrics.worker(self.worker);
        shard.connections_inflight.dec();
        shard.accept_inflight.dec();
    }
}

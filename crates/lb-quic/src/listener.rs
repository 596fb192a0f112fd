//! A QUIC listener on one worker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lb_http::service::Service;
use lb_io::WorkerIo;
use lb_io::udp::{Steering, UdpSocket};
use lb_security::admission::{Admissions, Handshakes};
use lb_security::{RetrySecret, SharedTlsBundle};

use crate::connection::{Application, Turns};
use crate::connection_id::ConnectionIds;
use crate::endpoint::{Acceptor, AcceptorParts, Arrived, Endpoint, Table};
use crate::h3::{Server, ServerParts};
use crate::memory::QuicMemory;
use crate::qlog::Qlogs;
use crate::raw::{Front, FrontParts, RawDialer, RawSettings};
use crate::transport::{QuicSettings, Transport};

/// What the workers of a listener share.
#[derive(Clone, Debug)]
pub struct QuicShared {
    /// What signs Retry tokens, and is behind connection IDs.
    pub secret: Arc<RetrySecret>,
    /// Where datagrams go that belong to connections elsewhere.
    pub steering: Arc<Steering>,
    /// Which connections are logged, if any are.
    pub qlogs: Option<Qlogs>,
}

/// What a listener does with its connections.
#[derive(Debug)]
pub enum QuicService {
    /// It serves requests.
    Http {
        /// What they go to.
        service: Rc<Service>,
        /// Requests that one connection may carry; 0 = any number.
        max_requests: u32,
    },
    /// It relays them, and reads nothing.
    Relay {
        /// The first settings.
        settings: Rc<RawSettings>,
        /// What makes connections to backends.
        dialer: Rc<RawDialer>,
    },
}

/// What a listener is made of.
#[derive(Debug)]
pub struct QuicListenerParts {
    /// What becomes of connections.
    pub service: QuicService,
    /// The worker.
    pub io: Rc<WorkerIo>,
    /// Caps on connections.
    pub admissions: Rc<Admissions>,
    /// Places for handshakes.
    pub handshakes: Rc<Handshakes>,
    /// The budget of what is held for peers.
    pub memory: Rc<QuicMemory>,
    /// Certificates.
    pub tls: SharedTlsBundle,
    /// What all workers share.
    pub shared: QuicShared,
    /// The first settings.
    pub settings: QuicSettings,
}

/// What the connections of a listener share.
#[derive(Clone)]
enum Kind {
    Http(Rc<ServerParts>),
    Relay(Rc<FrontParts>),
}

/// A QUIC listener on one worker.
pub struct QuicListener {
    parts: QuicListenerParts,
    kind: Kind,
    settings: Rc<RefCell<Rc<QuicSettings>>>,
    is_read_elsewhere: Rc<Cell<bool>>,
}

impl std::fmt::Debug for QuicListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicListener").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl QuicListener {
    /// A listener with its first settings.
    pub fn new(parts: QuicListenerParts) -> Rc<Self> {
        let admissions = Rc::clone(&parts.admissions);
        let kind = match &parts.service {
            QuicService::Http { service, max_requests } => Kind::Http(Rc::new(ServerParts {
                service: Rc::clone(service),
                admissions,
                max_requests: Cell::new(*max_requests),
                qpack: RefCell::default(),
                worker: parts.io.id,
            })),
            QuicService::Relay { settings, dialer } => Kind::Relay(Rc::new(FrontParts {
                io: Rc::clone(&parts.io),
                admissions,
                metrics: Arc::clone(&parts.admissions.worker_metrics),
                dialer: Rc::clone(dialer),
                settings: RefCell::new(Rc::clone(settings)),
            })),
        };
        let settings = Rc::new(RefCell::new(Rc::new(parts.settings.clone())));
        Rc::new(Self { parts, kind, settings, is_read_elsewhere: Rc::default() })
    }

    /// Another process, or another listener, reads the sockets from now on. Connections that live send by them, and are passed what is theirs.
    pub fn stop_reading(&self) {
        self.is_read_elsewhere.set(true);
    }

    /// What requests go to, where there are any.
    pub fn service(&self) -> Option<&Rc<Service>> {
        match &self.parts.service {
            QuicService::Http { service, .. } => Some(service),
            QuicService::Relay { .. } => None,
        }
    }

    /// Has connections to come carry so many requests.
    pub fn set_max_requests(&self, max_requests: u32) {
        if let Kind::Http(server) = &self.kind {
            server.max_requests.set(max_requests);
        }
    }

    /// Has connections to come relayed under other settings.
    pub fn relay_under(&self, settings: Rc<RawSettings>) {
        if let Kind::Relay(front) = &self.kind {
            *front.settings.borrow_mut() = settings;
        }
    }

    /// Puts other settings in force for connections to come.
    pub fn replace(&self, settings: QuicSettings) {
        if **self.settings.borrow() != settings {
            *self.settings.borrow_mut() = Rc::new(settings);
        }
    }

    /// Serves the connections of one socket until the listener has drained.
    pub async fn run(self: Rc<Self>, io: Rc<WorkerIo>, socket: UdpSocket, seed: u64) {
        let QuicListenerParts { admissions, handshakes, tls, shared, .. } = &self.parts;
        let (now, local) = (Instant::now(), socket.local());
        if let Err(error) = socket.never_fragment() {
            tracing::warn!(listener = admissions.name, %error, "packets of QUIC may be cut into fragments");
        }
        let server_id = self.settings.borrow().server_id.clone();
        let key = shared.secret.key_for(b"connection id");
        let Some(ids) = key.and_then(|key| ConnectionIds::new(&key, &server_id)) else { return };
        let Some(own) = shared.steering.register() else {
            tracing::error!(listener = admissions.name, "there are too many tables of QUIC connections");
            return;
        };
        let worker = io.id;
        // Generations of an earlier table in this process and this worker are far away.
        let first = u32::try_from(seed & u64::from(u32::MAX)).unwrap_or_default();
        let parts = AcceptorParts {
            admissions: Rc::clone(admissions),
            handshakes: Rc::clone(handshakes),
            transport: Transport::new(tls.clone(), Rc::clone(&self.settings)),
            secret: Arc::clone(&shared.secret),
            qlogs: shared.qlogs.clone(),
            memory: Rc::clone(&self.parts.memory),
            metrics: Arc::clone(&admissions.worker_metrics),
            own,
            is_read_elsewhere: Rc::clone(&self.is_read_elsewhere),
            seed,
            worker,
            local,
        };
        match self.kind.clone() {
            Kind::Http(server) => {
                let make = move |arrived| Server::new(&server, arrived, Instant::now());
                serve(parts, make, now, (io, socket, ids, first)).await;
            }
            Kind::Relay(front) => {
                let make = move |arrived| Front::new(&front, arrived);
                serve(parts, make, now, (io, socket, ids, first)).await;
            }
        }
    }
}

/// Serves connections on which `make` puts an application.
async fn serve<A: Application>(
    parts: AcceptorParts,
    make: impl FnMut(Arrived) -> A + Unpin,
    now: Instant,
    (io, socket, ids, first): (Rc<WorkerIo>, UdpSocket, ConnectionIds, u32),
) {
    let table = Table::new(Rc::new(ids), parts.own.id(), first);
    let Some(acceptor) = Acceptor::new(parts, make, now) else { return };
    Endpoint::new(io, socket, table, Rc::new(Turns::default()), acceptor).await;
}

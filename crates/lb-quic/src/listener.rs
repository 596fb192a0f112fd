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

use crate::connection::Turns;
use crate::connection_id::ConnectionIds;
use crate::endpoint::{Acceptor, AcceptorParts, Endpoint, Table};
use crate::h3::{Server, ServerParts};
use crate::qlog::Qlogs;
use crate::transport::{QuicSettings, Transport};

/// ALPN of HTTP/3 (RFC 9114 §3.1).
const ALPN: &[&[u8]] = &[b"h3"];

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

/// What a listener is made of.
#[derive(Debug)]
pub struct QuicListenerParts {
    /// What requests go to.
    pub service: Rc<Service>,
    /// Caps on connections.
    pub admissions: Rc<Admissions>,
    /// Places for handshakes.
    pub handshakes: Rc<Handshakes>,
    /// Certificates.
    pub tls: SharedTlsBundle,
    /// What all workers share.
    pub shared: QuicShared,
    /// The first settings.
    pub settings: QuicSettings,
    /// Requests that one connection may carry; 0 = any number.
    pub max_requests: u32,
}

/// An HTTP/3 listener on one worker.
pub struct QuicListener {
    parts: QuicListenerParts,
    server: Rc<ServerParts>,
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
        let server = Rc::new(ServerParts {
            service: Rc::clone(&parts.service),
            admissions: Rc::clone(&parts.admissions),
            max_requests: Cell::new(parts.max_requests),
            qpack: RefCell::default(),
            worker: parts.service.worker.io.id,
        });
        let settings = Rc::new(RefCell::new(Rc::new(parts.settings.clone())));
        Rc::new(Self { parts, server, settings, is_read_elsewhere: Rc::default() })
    }

    /// Another process, or another listener, reads the sockets from now on. Connections that live send by them, and are passed what is theirs.
    pub fn stop_reading(&self) {
        self.is_read_elsewhere.set(true);
    }

    /// What requests go to.
    pub fn service(&self) -> &Rc<Service> {
        &self.parts.service
    }

    /// Puts other settings in force for connections to come.
    pub fn replace(&self, settings: QuicSettings, max_requests: u32) {
        self.server.max_requests.set(max_requests);
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
        let Some(ids) = shared.secret.key_for(b"connection id").and_then(|key| ConnectionIds::new(&key))
        else {
            return;
        };
        let Some(own) = shared.steering.register() else {
            tracing::error!(listener = admissions.name, "there are too many tables of QUIC connections");
            return;
        };
        let worker = io.id;
        // Generations of an earlier table in this process and this worker are far away.
        let first = u32::try_from(seed & u64::from(u32::MAX)).unwrap_or_default();
        let table = Table::new(Rc::new(ids), own.id(), first);
        let parts = AcceptorParts {
            admissions: Rc::clone(admissions),
            handshakes: Rc::clone(handshakes),
            transport: Transport::new(tls.clone(), Rc::clone(&self.settings), ALPN),
            secret: Arc::clone(&shared.secret),
            qlogs: shared.qlogs.clone(),
            metrics: Arc::clone(&self.parts.service.worker.metrics),
            own,
            is_read_elsewhere: Rc::clone(&self.is_read_elsewhere),
            seed,
            worker,
            local,
        };
        let server = Rc::clone(&self.server);
        let make = move |arrived| Server::new(&server, arrived, Instant::now());
        let Some(acceptor) = Acceptor::new(parts, make, now) else { return };
        Endpoint::new(io, socket, table, Rc::new(Turns::default()), acceptor).await;
    }
}

//! The backend's side of a relay: one connection for each client.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lb_io::WorkerIo;
use lb_observe::metrics::TlsResult;
use lb_security::ClientTls;
use tokio::sync::oneshot;

use super::end::NO_ERROR;
use super::front::Front;
use super::half::Way;
use super::session::turn;
use crate::connection::{Application, Connection, Quic};
use crate::endpoint::Shared;
use crate::handshake;

/// What became of a handshake.
pub(super) type Established = io::Result<TlsResult>;

/// What rides on a connection to a backend.
pub(crate) struct Back {
    io: Rc<WorkerIo>,
    /// The client's side, until this one is gone.
    pub(super) front: Option<Shared<Front>>,
    /// When it is to be looked whether an end can be passed on.
    pub(super) look: Option<Instant>,
    /// Told when the handshake is over.
    established: Option<oneshot::Sender<Established>>,
    /// The handshake is to be over then.
    limit: Instant,
    protocol: Vec<u8>,
    _tls: Arc<ClientTls>,
}

impl Back {
    pub(super) fn new(
        io: &Rc<WorkerIo>,
        tls: Arc<ClientTls>,
        protocol: Vec<u8>,
        established: oneshot::Sender<Established>,
        limit: Instant,
    ) -> Self {
        let established = Some(established);
        Self { io: Rc::clone(io), front: None, look: None, established, limit, protocol, _tls: tls }
    }

    /// Nobody needs the connection any more.
    pub(super) fn leave(connection: &mut Connection<Self>) {
        let _ = connection.quic.close(false, NO_ERROR, b"");
        connection.said();
    }

    fn settle_handshake(connection: &mut Connection<Self>, now: Instant) {
        let Connection { app, quic, .. } = connection;
        if app.established.is_none() {
            return;
        }
        let otherwise = "the backend does not choose the client's protocol";
        let Some(outcome) = handshake::with_backend(quic, &app.protocol, otherwise, app.limit, now) else {
            return;
        };
        let mut is_wanted = outcome.is_ok();
        if let Some(established) = app.established.take() {
            is_wanted &= established.send(outcome).is_ok();
        }
        if !is_wanted {
            Self::leave(connection);
        }
    }
}

impl Application for Back {
    fn progress(shared: &Shared<Self>, now: Instant) {
        let connection = &mut *shared.borrow_mut();
        Self::settle_handshake(connection, now);
        if let Some(front) = connection.app.front.clone() {
            let io = Rc::clone(&connection.app.io);
            turn(&mut front.borrow_mut(), connection, Way::Down, &io, now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.established.is_some() { Some(self.limit) } else { self.look }
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn closed(&mut self, _: &Quic, _: u64) {
        if let Some(established) = self.established.take() {
            let _ = established.send(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        if let Some(front) = self.front.take() {
            front.borrow_mut().due();
        }
    }
}

//! One HTTP/3 connection to a backend, shared by the exchanges of a worker.

mod control;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::ledger::{Charge, Ledger, Verdict};
use lb_http::h3::{H3Code, H3Error, H3Settings, MessageReader, PeerStreams, QpackDecoder, UniStream, write};
use lb_http::message::Gone;
use lb_observe::metrics::TlsResult;
use lb_security::ClientTls;
use tokio::sync::oneshot;

use super::stream::Stream;
use crate::connection::{Application, Connection, Quic};
use crate::endpoint::Shared;
use crate::handshake;
use crate::streams::Streams;

/// How often a connection with exchanges shows that it is alive: a quarter of what servers commonly allow for silence.
const KEEP_ALIVE: Duration = Duration::from_secs(8);

/// The first of our unidirectional streams: the control stream.
const CONTROL: u64 = 2;

/// What became of a handshake.
pub(crate) type Established = Result<TlsResult, io::Error>;

/// What a connection to a backend is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    /// Bytes of a decoded field section.
    pub(crate) max_list: u32,
    /// How wide the budgets of the ledger are.
    pub(crate) flood_percent: u32,
}

/// What rides on a connection to a backend.
pub(crate) struct Client {
    pub(super) streams: Streams<Stream>,
    pub(super) qpack: Rc<RefCell<QpackDecoder>>,
    pub(super) limits: ClientLimits,
    ledger: Ledger,
    /// Unidirectional streams of the backend.
    told: Streams<UniStream>,
    peer: PeerStreams,
    pub(super) settings: Option<H3Settings>,
    /// Told when the handshake is over.
    established: Option<oneshot::Sender<Established>>,
    /// The handshake is to be over then.
    limit: Instant,
    control: Vec<u8>,
    next_stream: u64,
    /// Streams that were opened here and of which QUIC has heard nothing yet.
    pub(super) unheard: u64,
    /// Streams from this one on are not processed.
    refused_from: Option<u64>,
    /// No more streams are opened.
    retired: bool,
    is_closed: bool,
    keep_alive: Instant,
    _tls: Arc<ClientTls>,
}

impl Client {
    pub(crate) fn new(
        tls: Arc<ClientTls>,
        qpack: Rc<RefCell<QpackDecoder>>,
        limits: ClientLimits,
        established: oneshot::Sender<Established>,
        limit: Instant,
    ) -> Self {
        let now = Instant::now();
        Self {
            streams: Streams::default(),
            qpack,
            limits,
            ledger: Ledger::of_backend(limits.flood_percent, now),
            told: Streams::default(),
            peer: PeerStreams::client(),
            settings: None,
            established: Some(established),
            limit,
            control: Vec::new(),
            next_stream: 0,
            unheard: 0,
            refused_from: None,
            retired: false,
            is_closed: false,
            keep_alive: now + KEEP_ALIVE,
            _tls: tls,
        }
    }

    /// Whether a stream could be opened now.
    pub(crate) fn has_room(connection: &Connection<Self>) -> bool {
        let app = &connection.app;
        !app.retired && !app.is_closed && connection.quic.peer_streams_left_bidi() > app.unheard
    }

    /// Whether no stream can ever be opened on it again.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired || self.is_closed
    }

    /// Exchanges that run.
    pub(crate) fn active(&self) -> usize {
        self.streams.len()
    }

    /// Opens a stream; its identifier.
    pub(crate) fn open(connection: &mut Connection<Self>, now: Instant) -> Option<u64> {
        if !Self::has_room(connection) {
            return None;
        }
        let app = &mut connection.app;
        let id = app.next_stream;
        app.next_stream = id.saturating_add(4);
        app.unheard = app.unheard.saturating_add(1);
        app.streams.insert(id, Stream::new(MessageReader::responses(app.limits.max_list), now));
        app.ledger.request();
        Some(id)
    }

    /// Opens no more streams; the connection ends with the last of those that run.
    pub(crate) fn retire(connection: &mut Connection<Self>) {
        connection.app.retired = true;
        connection.due();
    }

    /// The exchange behind a stream has ended. A stream that is not complete is ended with `code`.
    pub(super) fn leave(connection: &mut Connection<Self>, id: u64, code: H3Code) {
        let Connection { app, quic, .. } = connection;
        let Some(stream) = app.streams.remove(&id) else { return };
        if !stream.has_begun {
            app.unheard = app.unheard.saturating_sub(1);
        } else if !app.is_closed {
            if !stream.is_read {
                let _ = quic.stream_shutdown(id, quiche::Shutdown::Read, code.0);
            }
            if !stream.has_ended {
                let _ = quic.stream_shutdown(id, quiche::Shutdown::Write, code.0);
            }
        }
        connection.said();
    }

    /// The backend has broken a rule that ends the connection.
    pub(super) fn fault(connection: &mut Connection<Self>, error: H3Error) {
        tracing::debug!(code = error.code.name(), "HTTP/3 backend ended: {}", error.what);
        connection.app.give_up();
        let _ = connection.quic.close(true, error.code.0, error.what.as_bytes());
        connection.said();
    }

    pub(super) fn charge(connection: &mut Connection<Self>, what: Charge, now: Instant) {
        if connection.app.ledger.charge(what, now) != Verdict::Fine {
            connection.app.give_up();
            let _ = connection.quic.close(true, H3Code::EXCESSIVE_LOAD.0, b"");
            connection.said();
        }
    }

    /// Every exchange finds the connection gone.
    fn give_up(&mut self) {
        self.is_closed = true;
        self.streams.values_mut().for_each(|stream| stream.is_gone(Gone::Closed));
    }

    /// The backend takes no streams from this one on.
    fn refused_from(&mut self, id: u64) {
        self.retired = true;
        self.refused_from = Some(id);
        for (_, stream) in self.streams.iter_mut().filter(|(stream, _)| **stream >= id) {
            stream.is_unprocessed = true;
            stream.is_gone(Gone::Closed);
        }
    }

    /// The handshake is over, or has failed.
    fn settle_handshake(connection: &mut Connection<Self>, now: Instant) {
        let Connection { app, quic, .. } = connection;
        if app.established.is_none() {
            return;
        }
        let otherwise = "the backend does not choose HTTP/3";
        let Some(outcome) = handshake::with_backend(quic, b"h3", otherwise, app.limit, now) else { return };
        if outcome.is_ok() {
            let ours = H3Settings {
                max_field_section_size: Some(app.limits.max_list.into()),
                ..H3Settings::default()
            };
            write::control_stream(&ours, &mut app.control);
        }
        if outcome.is_err() {
            app.give_up();
            let _ = quic.close(false, 0, b"");
        }
        if let Some(established) = app.established.take() {
            // Where the exchange that has asked for it is gone, the connection ends.
            app.retired |= established.send(outcome).is_err();
        }
        connection.said();
    }
}

impl Application for Client {
    fn progress(shared: &Shared<Self>, now: Instant) {
        let connection = &mut *shared.borrow_mut();
        Self::settle_handshake(connection, now);
        if connection.app.established.is_some() || connection.app.is_closed {
            return;
        }
        while let Some(id) = connection.quic.stream_readable_next() {
            if connection.app.is_closed {
                return;
            }
            match id & 3 {
                0 => {
                    if let Some(stream) = connection.app.streams.get_mut(&id) {
                        stream.wake();
                    }
                }
                _ => control::readable(connection, id, now),
            }
        }
        if connection.has_received() {
            let Connection { app, quic, .. } = &mut *connection;
            app.streams.iter_mut().for_each(|(id, stream)| stream.find_end(quic, *id));
        }
        while let Some(id) = connection.quic.stream_writable_next() {
            if let Some(stream) = connection.app.streams.get_mut(&id) {
                stream.wake();
            }
        }
        control::give(connection);
        if now >= connection.app.keep_alive {
            connection.app.keep_alive = now + KEEP_ALIVE;
            if connection.app.active() > 0 && connection.quic.send_ack_eliciting().is_ok() {
                connection.said();
            }
        }
        if connection.app.retired && connection.app.streams.is_empty() {
            connection.app.is_closed = true;
            let _ = connection.quic.close(true, H3Code::NO_ERROR.0, b"");
            connection.said();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.established.is_some() {
            return Some(self.limit);
        }
        (!self.is_closed && self.active() > 0).then_some(self.keep_alive)
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn closed(&mut self, _: &Quic, _: u64) {
        if let Some(established) = self.established.take() {
            let _ = established.send(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        self.give_up();
    }
}

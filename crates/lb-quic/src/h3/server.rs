//! One HTTP/3 connection from a client, from its handshake to its end.

mod control;
mod requests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::address::ClientAddress;
use lb_core::head::Version;
use lb_core::ledger::{Ledger, Limits as Budgets, Verdict};
use lb_core::reason::Reason;
use lb_http::Session;
use lb_http::h3::{H3Code, H3Error, H3Settings, PeerStreams, QpackDecoder, UniStream, write};
use lb_http::message::Gone;
use lb_http::proxy::Client;
use lb_http::service::{Service, Settings};
use lb_io::{ConnectionGuard, Phase};
use lb_observe::metrics::{Http3Error, QuicMetrics, TlsResult};
use lb_security::admission::{Admission, Admissions, Handshake};
use lb_security::{Accepted, PeerCertificate, TlsConfigBundle};

use super::priority::Awaited;
use super::stream::Stream;
use crate::connection::{Application, Connection, Quic};
use crate::endpoint::{Arrived, Shared};
use crate::handshake;
use crate::streams::Streams;
use crate::tally;

/// How long the first of the two GOAWAYs is given to arrive.
const NOTICE: Duration = Duration::from_secs(1);

/// How long a client is given to read the last bytes.
const LINGER: Duration = Duration::from_millis(500);

/// How long a connection that has said everything waits for the client to acknowledge it: what is lost has to be sent again.
const LONGEST_LINGER: Duration = Duration::from_secs(30);

/// How long it waits for streams that the client has not ended: whether one that was told to stop ever does so is up to it.
const LINGER_UNENDED: Duration = Duration::from_secs(2);

/// Streams that clients have not ended, of which that is known.
const UNENDED: usize = 256;

/// How long a connection is without a request before it gives back the memory that it kept for the next one.
const RESTS: Duration = Duration::from_secs(1);

/// The streams, from the last one back, among which those are looked for whose bytes are under way.
const LATEST: u64 = 4096;

/// The first of our unidirectional streams: the control stream.
const CONTROL: u64 = 3;

/// The largest identifier of a stream that a client can open (RFC 9000 §2.1).
const LAST_STREAM: u64 = (1 << 62) - 4;

/// What the connections of a listener share on one worker.
pub(crate) struct ServerParts {
    pub(crate) service: Rc<Service>,
    pub(crate) admissions: Rc<Admissions>,
    /// Requests that one connection may carry; 0 = any number.
    pub(crate) max_requests: Cell<u32>,
    pub(crate) qpack: RefCell<QpackDecoder>,
    pub(crate) worker: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The handshake runs, and is to be over then.
    Handshake(Instant),
    Serving,
    /// The client was told that the end is near; which request is the last is not settled yet.
    Notice(Instant),
    /// No new request is served; those that run are finished.
    Finishing,
    /// Everything is said.
    Linger(Instant),
    Closed,
}

/// What rides on a connection from a client.
pub(crate) struct Server {
    pub(super) shared: Rc<ServerParts>,
    pub(super) streams: Streams<Stream>,
    pub(super) ledger: Ledger,
    /// Unidirectional streams of the client.
    told: Streams<UniStream>,
    peer: PeerStreams,
    client: Option<Rc<Client>>,
    address: ClientAddress,
    guard: ConnectionGuard,
    _admission: Admission,
    handshake: Option<Handshake>,
    bundle: Option<Arc<TlsConfigBundle>>,
    state: State,
    /// Bytes of our control stream that quiche has not taken.
    control: Vec<u8>,
    /// Exchanges that run.
    active: usize,
    requests: u32,
    /// Streams from this one on are not served.
    refused_from: u64,
    /// The next request stream that was not seen.
    next_stream: u64,
    /// Requests that the client may have open at once, as it was told first.
    most_streams: u32,
    /// Priorities of requests that have not come.
    priorities: Awaited,
    /// Since when no exchange runs.
    idle_since: Instant,
    /// Requests that came before the handshake was over, and wait for its end.
    held: Vec<requests::Begun>,
    /// When the next head has to be complete, if one is awaited.
    heads_until: Option<Instant>,
    /// Streams that the client has stopped, as quiche counts them.
    stopped: u64,
    /// The last streams whose exchanges were over before the client had ended its part.
    unended: VecDeque<u64>,
    /// What the client has not acknowledged, once everything is said.
    unheard: Vec<u64>,
    /// Since when that is waited for.
    unheard_since: Instant,
}

impl Server {
    pub(crate) fn new(shared: &Rc<ServerParts>, arrived: Arrived, now: Instant) -> Self {
        let Arrived { client, guard, admission, handshake, limit, bundle } = arrived;
        let settings = shared.service.settings();
        let budgets = Budgets {
            streams: settings.h2.max_concurrent_streams,
            peer_resets: settings.h2.max_pending_accept_reset_streams,
            local_resets: settings.h2.max_local_error_reset_streams,
            percent: settings.h2.flood_budget_percent,
        };
        Self {
            shared: Rc::clone(shared),
            streams: Streams::default(),
            ledger: Ledger::of_client(budgets, now),
            told: Streams::default(),
            peer: PeerStreams::server(),
            client: None,
            address: client,
            guard,
            _admission: admission,
            handshake: Some(handshake),
            bundle: Some(bundle),
            state: State::Handshake(limit),
            control: Vec::new(),
            active: 0,
            requests: 0,
            refused_from: LAST_STREAM,
            next_stream: 0,
            most_streams: settings.h2.max_concurrent_streams,
            priorities: Awaited::default(),
            idle_since: now,
            held: Vec::new(),
            heads_until: None,
            stopped: 0,
            unended: VecDeque::new(),
            unheard: Vec::new(),
            unheard_since: now,
        }
    }

    pub(super) fn stream(&mut self, id: u64) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// The first request stream that the client has certainly not been given leave to open: one more is given for each that ends, and some may have ended
    /// that were not seen yet.
    fn openable(&self) -> u64 {
        self.next_stream.saturating_add(u64::from(self.most_streams).saturating_mul(2 * 4))
    }

    /// So many bytes of a response went on their way.
    pub(super) fn paid(&mut self, bytes: u64) {
        self.ledger.data_sent(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The exchange behind a stream has ended. A stream that is not complete is ended with `code`.
    pub(super) fn leave(connection: &mut Connection<Self>, id: u64, code: H3Code) {
        let Connection { app, quic, .. } = connection;
        let Some(mut stream) = app.streams.remove(&id) else { return };
        if stream.has_begun {
            app.active = app.active.saturating_sub(1);
            app.idle_since = Instant::now();
        }
        if app.state != State::Closed {
            let is_complete = code == H3Code::NO_ERROR && stream.give(quic, id).is_ok() && stream.has_ended;
            if !stream.is_read {
                let _ = quic.stream_shutdown(id, quiche::Shutdown::Read, code.0);
                if app.unended.len() >= UNENDED {
                    app.unended.pop_front();
                }
                app.unended.push_back(id);
            }
            if !is_complete && !stream.has_ended {
                let _ = quic.stream_shutdown(id, quiche::Shutdown::Write, code.0);
            }
        }
        connection.said();
    }

    /// The client has broken a rule that ends the connection.
    pub(super) fn fault(connection: &mut Connection<Self>, error: H3Error) {
        let app = &mut connection.app;
        tracing::debug!(client = %app.address, code = error.code.name(), "HTTP/3 connection ended: {}", error.what);
        app.metrics().errors.of(Http3Error::of(error.code.name())).inc();
        app.give_up(Gone::GivenUp(Reason::ProtocolError));
        let _ = connection.quic.close(true, error.code.0, error.what.as_bytes());
        connection.said();
    }

    /// The client has used up a budget of the ledger.
    pub(super) fn exceeded(connection: &mut Connection<Self>, verdict: Verdict) {
        let Verdict::TooMuch(charge) = verdict else { return };
        let reason = charge.budget().reason;
        let app = &mut connection.app;
        app.shared.service.worker.metrics.http2_abuse.of(reason).inc();
        app.metrics().errors.of(Http3Error::ExcessiveLoad).inc();
        app.give_up(Gone::GivenUp(reason));
        let _ = connection.quic.close(true, H3Code::EXCESSIVE_LOAD.0, reason.name().as_bytes());
        connection.said();
    }

    /// Every exchange finds the client gone.
    fn give_up(&mut self, gone: Gone) {
        self.state = State::Closed;
        self.handshake = None;
        self.streams.values_mut().for_each(|stream| stream.is_gone(gone));
    }

    /// Requests can be served from now on: the handshake is over, or early data are accepted.
    fn opened(connection: &mut Connection<Self>, settings: &Rc<Settings>) {
        let Connection { app, quic, .. } = connection;
        let name = quic.server_name();
        let accepted = app.bundle.take().and_then(|bundle| Accepted::under(&bundle, name));
        let certificate = quic.peer_cert().map(PeerCertificate::of_der);
        let alpn = quic.application_proto();
        let session = Rc::new(Session::new("TLSv1.3", Some(alpn), name, accepted, certificate));
        app.client = Some(Rc::new(Client::new(app.address, Version::H3, Some(session), settings).told(None)));
        let ours = H3Settings {
            max_field_section_size: Some(settings.h2.max_header_list_size.into()),
            enable_connect_protocol: settings.h3_extended_connect,
            ..H3Settings::default()
        };
        write::control_stream(&ours, &mut app.control);
        connection.said();
    }

    /// What the worker counts of QUIC.
    pub(super) fn metrics(&self) -> &QuicMetrics {
        &self.shared.service.worker.metrics.quic
    }

    /// The handshake is over.
    fn established(connection: &mut Connection<Self>, settings: &Rc<Settings>) {
        if connection.app.client.is_none() {
            Self::opened(connection, settings);
        }
        let Connection { app, quic, .. } = connection;
        app.handshake = None;
        let result = if quic.is_resumed() { TlsResult::Resumed } else { TlsResult::Full };
        app.count_handshake(result);
        app.state = State::Serving;
        app.idle_since = Instant::now();
        // Another one, so that a client can go on from another address without that the two can be linked (RFC 9000 §5.1.1).
        connection.wants_id = true;
        connection.said();
    }

    fn count_handshake(&self, result: TlsResult) {
        self.shared.admissions.metrics.worker(self.shared.worker).tls_handshakes.of(result).inc();
    }

    /// Tells the client that no more requests will be served soon. Requests that are on their way still are.
    fn notice(connection: &mut Connection<Self>, now: Instant) {
        if connection.app.state == State::Serving {
            connection.app.state = State::Notice(now);
            write::goaway(LAST_STREAM, &mut connection.app.control);
            connection.app.metrics().goaways.inc();
            connection.said();
        }
    }

    /// Tells the client which requests are served.
    fn finish(connection: &mut Connection<Self>) {
        let app = &mut connection.app;
        app.state = State::Finishing;
        app.refused_from = app.next_stream;
        write::goaway(app.refused_from, &mut app.control);
        app.metrics().goaways.inc();
        connection.said();
    }

    /// Goes on with an end that has begun.
    fn settle(connection: &mut Connection<Self>, settings: &Settings, now: Instant) {
        let app = &mut connection.app;
        match app.guard.phase() {
            Phase::Abort if app.state != State::Closed => {
                app.give_up(Gone::GivenUp(Reason::Aborted));
                // Before the end of the handshake no code of HTTP/3 can be sent (RFC 9000 §10.2.3).
                let (is_app, code) = match connection.quic.is_established() {
                    true => (true, H3Code::NO_ERROR.0),
                    false => (false, 0),
                };
                let _ = connection.quic.close(is_app, code, b"");
                return connection.said();
            }
            Phase::Serving => {}
            _ if app.guard.is_asked() => Self::notice(connection, now),
            _ => {}
        }
        let Connection { app, quic, .. } = &mut *connection;
        let lingers = matches!(app.state, State::Linger(_)) && app.has_unheard(quic, now);
        match app.state {
            State::Handshake(limit) if now >= limit => {
                app.count_handshake(TlsResult::Timeout);
                app.give_up(Gone::Closed);
                // The handshake is not over, so that no code of HTTP/3 can be sent (RFC 9000 §10.2.3).
                let _ = connection.quic.close(false, 0x2, b"handshake timeout");
                connection.said();
            }
            State::Serving if app.active == 0 && now >= app.idle_until(settings) => Self::finish(connection),
            State::Notice(since) if now >= since + NOTICE => Self::finish(connection),
            State::Finishing if app.streams.is_empty() && app.control.is_empty() => {
                app.state = State::Linger(now + LINGER);
                let first = app.next_stream.saturating_sub(LATEST.saturating_mul(4));
                let latest = (first..app.next_stream).step_by(4);
                app.unheard = latest.filter(|id| quic.stream_capacity(*id).is_ok()).collect();
                app.unheard_since = now;
            }
            State::Linger(_) if lingers => app.state = State::Linger(now + LINGER),
            State::Linger(until) if now >= until || app.guard.phase() == Phase::Serving => {
                app.state = State::Closed;
                let _ = connection.quic.close(true, H3Code::NO_ERROR.0, b"");
                connection.said();
            }
            _ => {}
        }
    }

    /// Whether the client has not acknowledged everything of its responses: the packet that closes a connection takes what is lost of them with
    /// it. quiche forgets a stream with the last acknowledgement, if the client has ended its part.
    fn has_unheard(&mut self, quic: &mut Quic, now: Instant) -> bool {
        let (unended, since) = (&self.unended, self.unheard_since);
        self.unheard.retain(|id| {
            let most = if unended.contains(id) { LINGER_UNENDED } else { LONGEST_LINGER };
            now < since + most && quic.stream_capacity(*id).is_ok()
        });
        !self.unheard.is_empty()
    }

    /// When a connection without a request gives back what it keeps for the next one; `None` where it keeps nothing.
    fn rests_from(&self) -> Option<Instant> {
        (self.active == 0 && self.streams.is_empty() && self.streams.capacity() > 0)
            .then(|| self.idle_since + RESTS)
    }

    /// Gives back the memory that was kept for further requests, if it is time.
    fn rest(&mut self, now: Instant) {
        if self.rests_from().is_some_and(|at| now >= at) {
            self.streams = Streams::default();
            self.told.shrink_to_fit();
            self.control.shrink_to_fit();
            self.held.shrink_to_fit();
            self.unended.shrink_to_fit();
        }
    }

    /// When a connection without a request is given up.
    fn idle_until(&self, settings: &Settings) -> Instant {
        let wait = match self.requests {
            0 => settings.http.header_timeout,
            _ => settings.http.keepalive_timeout,
        };
        self.idle_since + wait
    }
}

impl Application for Server {
    fn progress(shared: &Shared<Self>, now: Instant) {
        let connection = &mut *shared.borrow_mut();
        let settings = connection.app.shared.service.settings();
        if let State::Handshake(_) = connection.app.state
            && connection.quic.is_established()
        {
            Self::established(connection, &settings);
            requests::release(shared, connection, &settings, now);
        }
        if let State::Handshake(_) = connection.app.state
            && let Some(result) = handshake::of_client(&connection.quic)
        {
            connection.app.count_handshake(result);
            connection.app.give_up(Gone::Closed);
        }
        Self::settle(connection, &settings, now);
        connection.app.rest(now);
        match connection.app.state {
            State::Closed => return,
            State::Handshake(_) if !connection.quic.is_in_early_data() => return,
            State::Handshake(_) if connection.app.client.is_none() => Self::opened(connection, &settings),
            _ => {}
        }
        while let Some(id) = connection.quic.stream_readable_next() {
            if connection.app.state == State::Closed {
                return;
            }
            match id & 3 {
                0 => requests::readable(shared, connection, id, &settings, now),
                _ => control::readable(connection, id, now),
            }
        }
        requests::expire(shared, connection, &settings, now);
        // Only what a client sends stops a stream.
        if connection.has_received() {
            requests::stopped(connection, now);
            let Connection { app, quic, .. } = &mut *connection;
            app.streams.iter_mut().for_each(|(id, stream)| stream.find_end(quic, *id));
        }
        while let Some(id) = connection.quic.stream_writable_next() {
            if let Some(stream) = connection.app.streams.get_mut(&id) {
                // A client that wants no more of a response is found out here.
                if let Err(quiche::Error::StreamStopped(code)) = connection.quic.stream_capacity(id) {
                    stream.is_gone(Gone::Reset(H3Code(code).reset()));
                }
                stream.wake();
            }
        }
        control::give(connection);
    }

    fn deadline(&self) -> Option<Instant> {
        let settings = self.shared.service.settings();
        let end = match self.state {
            State::Handshake(limit) => Some(limit),
            State::Serving if self.active == 0 => Some(self.idle_until(&settings)),
            State::Notice(since) => Some(since + NOTICE),
            State::Linger(until) => Some(until),
            State::Serving | State::Finishing => None,
            State::Closed => return None,
        };
        end.into_iter().chain(self.heads_until).chain(self.rests_from()).min()
    }

    fn is_busy(&self) -> bool {
        self.active > 0
    }

    fn closed(&mut self, quic: &Quic, moves: u64) {
        tally::ended(self.metrics(), quic, moves);
        if let State::Handshake(_) = self.state {
            self.count_handshake(TlsResult::Closed);
        }
        self.give_up(Gone::Closed);
    }
}

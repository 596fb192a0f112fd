//! What a listener does with datagrams that belong to no connection: it opens connections, sends Retry and Version Negotiation packets,
//! and stateless resets.
//!
//! Nothing is kept of a client before its first packet has been admitted: by the caps that hold for every listener, and by a place among the
//! handshakes of the worker. While many handshakes run, clients have to prove their address first, by a Retry, which costs no memory (attack
//!

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lb_core::address::ClientAddress;
use lb_core::rng::SplitMix64;
use lb_io::udp::{Passed, Registered, SendBatch, TableId};
use lb_io::{ConnectionGuard, Follower, Phase};
use lb_observe::metrics::{QuicStray, WorkerMetrics};
use lb_security::admission::{Admission, Admissions, Handshake, Handshakes};
use lb_security::{RetrySecret, TlsConfigBundle};
use quiche::ConnectionId;

use super::{Datagram, Ground, Stray};
use crate::connection::{Application, Connection, Quic, Site};
use crate::connection_id::LENGTH;
use crate::memory::QuicMemory;
use crate::packet::Start;
use crate::peer::Ends;
use crate::qlog::Qlogs;
use crate::transport::Transport;

/// A client's first datagram has at least so many bytes (RFC 9000 §14.1).
const FIRST_DATAGRAM: usize = 1200;

/// The version that is spoken.
const VERSION: u32 = quiche::PROTOCOL_VERSION;

/// Bytes that a stateless reset has at least (RFC 9000 §10.3), and those of one that looks like any short packet.
const LEAST_RESET: usize = 21;
const RESET: usize = 43;

/// Stateless resets that are sent at once, and in each second (attack Q-13).
const RESETS: u32 = 100;

/// CONNECTION_REFUSED (RFC 9000 §20.1).
const REFUSED: u64 = 0x2;

/// A connection that was accepted.
pub(crate) struct Arrived {
    pub(crate) client: ClientAddress,
    pub(crate) guard: ConnectionGuard,
    pub(crate) admission: Admission,
    pub(crate) handshake: Handshake,
    /// When the handshake is to be over.
    pub(crate) limit: Instant,
    /// What it is under.
    pub(crate) bundle: Arc<TlsConfigBundle>,
}

/// What a listener's endpoint opens connections with.
pub(crate) struct Acceptor<M> {
    pub(crate) admissions: Rc<Admissions>,
    pub(crate) handshakes: Rc<Handshakes>,
    pub(crate) transport: Transport,
    pub(crate) secret: Arc<RetrySecret>,
    qlogs: Option<Qlogs>,
    memory: Rc<QuicMemory>,
    metrics: Arc<WorkerMetrics>,
    own: Registered,
    is_read_elsewhere: Rc<Cell<bool>>,
    /// Makes what rides on a connection.
    pub(crate) make: M,
    pub(crate) rng: SplitMix64,
    /// Key of the tokens of stateless resets.
    pub(crate) reset_key: aws_lc_rs::hmac::Key,
    resets_left: u32,
    resets_since: Instant,
    worker: usize,
    from_any: bool,
    /// Has the endpoint woken when the phase changes: where there is no connection, nothing else would.
    follower: Option<Follower>,
}

/// A datagram of the other kind that is answered without a connection.
enum Without {
    Retry,
    Versions,
}

impl<M> Acceptor<M> {
    pub(crate) fn new(parts: AcceptorParts, make: M, now: Instant) -> Option<Self> {
        let AcceptorParts { admissions, handshakes, transport, secret, qlogs, metrics, .. } = parts;
        let AcceptorParts { memory, own, is_read_elsewhere, seed, worker, local, .. } = parts;
        let reset_key = secret.key_for(b"stateless reset")?;
        Some(Self {
            admissions,
            handshakes,
            transport,
            secret,
            qlogs,
            memory,
            metrics,
            own,
            is_read_elsewhere,
            make,
            rng: SplitMix64::new(seed),
            reset_key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &reset_key),
            resets_left: RESETS,
            resets_since: now,
            worker,
            from_any: local.ip().is_unspecified(),
            follower: None,
        })
    }

    fn random_id(&mut self) -> [u8; LENGTH] {
        let mut id = [0; LENGTH];
        let (halves, _) = id.as_chunks_mut::<8>();
        for half in halves {
            *half = self.rng.next_u64().to_be_bytes();
        }
        id
    }

    fn source(&self, to: SocketAddr) -> Option<IpAddr> {
        self.from_any.then(|| to.ip())
    }

    /// Answers with a packet that `write` makes, if it makes one.
    fn answer(
        &self,
        batch: &mut SendBatch,
        (from, to): (SocketAddr, SocketAddr),
        write: impl FnOnce(&mut [u8]) -> quiche::Result<usize>,
    ) {
        let source = self.source(to);
        let _ = batch.write(FIRST_DATAGRAM, |room| write(room).map(|length| (length, from, source)));
    }

    fn answer_without(
        &mut self,
        what: &Without,
        (from, to): (SocketAddr, SocketAddr),
        (client_id, chosen): (&[u8], &[u8]),
        batch: &mut SendBatch,
    ) {
        let (client_id, chosen_id) = (ConnectionId::from_ref(client_id), ConnectionId::from_ref(chosen));
        match what {
            Without::Versions => {
                self.count(QuicStray::Versions);
                self.answer(batch, (from, to), |room| {
                    quiche::negotiate_version(&client_id, &chosen_id, room)
                });
            }
            Without::Retry => {
                // Its length counts: the client is told the ID once more (`transport`).
                let id = self.rng.next_u64().to_be_bytes();
                let Some(token) = self.secret.token(since_epoch(), from, &id, chosen) else { return };
                let id = ConnectionId::from_ref(&id);
                self.count(QuicStray::Retry);
                self.answer(batch, (from, to), |room| {
                    quiche::retry(&client_id, &chosen_id, &id, &token, VERSION, room)
                });
            }
        }
    }

    /// Tells a client whose connection is unknown that it is gone, by a packet that only the one that had the connection can make.
    fn reset(&mut self, id: &[u8], datagram: &Datagram<'_>, batch: &mut SendBatch) {
        // Shorter than what it answers: two endpoints that know nothing of each other's packets fall silent (attack Q-13).
        let length = datagram.bytes.len().saturating_sub(1).min(RESET);
        if length < LEAST_RESET {
            return self.count(QuicStray::Unknown);
        }
        let now = Instant::now();
        if now >= self.resets_since + Duration::from_secs(1) {
            (self.resets_left, self.resets_since) = (RESETS, now);
        }
        let Some(left) = self.resets_left.checked_sub(1) else { return self.count(QuicStray::Unknown) };
        self.count(QuicStray::Reset);
        self.resets_left = left;
        let token = token_of(&self.reset_key, id).to_be_bytes();
        let noise = [self.random_id(), self.random_id(), self.random_id()].concat();
        let mut packet: Vec<u8> = noise.into_iter().take(length.saturating_sub(token.len())).collect();
        if let Some(first) = packet.first_mut() {
            // A short header.
            *first = (*first & 0x3f) | 0x40;
        }
        packet.extend_from_slice(&token);
        batch.push(datagram.from, self.source(datagram.to), &packet);
    }
}

/// What an acceptor is made of.
pub(crate) struct AcceptorParts {
    pub(crate) admissions: Rc<Admissions>,
    pub(crate) handshakes: Rc<Handshakes>,
    pub(crate) transport: Transport,
    pub(crate) secret: Arc<RetrySecret>,
    /// Which connections are logged.
    pub(crate) qlogs: Option<Qlogs>,
    pub(crate) memory: Rc<QuicMemory>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// The number of the table.
    pub(crate) own: Registered,
    /// Whether another process, or another listener, reads the socket.
    pub(crate) is_read_elsewhere: Rc<Cell<bool>>,
    pub(crate) seed: u64,
    pub(crate) worker: usize,
    pub(crate) local: SocketAddr,
}

impl<A: Application, M: FnMut(Arrived) -> A> Stray<A> for Acceptor<M> {
    fn stray(&mut self, ground: &mut Ground<A>, datagram: Datagram<'_>) {
        let io = Rc::clone(&ground.io);
        let mut batch = io.outgoing_datagrams.borrow_mut();
        self.take(ground, datagram, &mut batch);
        if !batch.is_empty() {
            let _ = ground.socket.try_send(&mut batch);
            batch.clear();
        }
    }

    fn reset_token(&self, id: &[u8]) -> u128 {
        token_of(&self.reset_key, id)
    }

    fn passed(&mut self, cx: &Context<'_>) -> VecDeque<Passed> {
        self.follower.get_or_insert_with(|| self.admissions.connections.follow(cx.waker()));
        self.own.take(cx)
    }

    fn reads(&self) -> bool {
        !self.is_read_elsewhere.get()
    }

    fn phase(&self) -> Phase {
        self.admissions.connections.phase()
    }
}

impl<M> Acceptor<M> {
    /// Passes a datagram on to the table that its connection ID names, if that is another one. False when there is no such table.
    fn pass_on(&self, table: Option<TableId>, datagram: &Datagram<'_>) -> bool {
        let Datagram { bytes, from, to } = datagram;
        let elsewhere = table.filter(|table| *table != self.own.id());
        let has_passed = elsewhere.is_some_and(|table| self.own.steering().pass_on(table, *from, *to, bytes));
        if has_passed {
            self.count(QuicStray::PassedOn);
        }
        has_passed
    }

    fn count(&self, fate: QuicStray) {
        self.metrics.quic.stray.of(fate).inc();
    }

    fn take<A: Application>(&mut self, ground: &mut Ground<A>, datagram: Datagram<'_>, batch: &mut SendBatch)
    where
        M: FnMut(Arrived) -> A,
    {
        let ends = (datagram.from, datagram.to);
        let Some(start) = Start::read(datagram.bytes, ground.table.id_length()) else {
            return self.count(QuicStray::Malformed);
        };
        let (version, is_initial, chosen, client_id, token) = match start {
            Start::Short { to } => {
                let table = ground.table.table_of(to);
                let is_own = table.is_some_and(|table| table.epoch == self.own.id().epoch);
                // A process that takes over may have the connection, and may not have said yet that it reads the socket.
                if self.pass_on(table, &datagram) {
                    return;
                }
                if !is_own && self.own.steering().is_shared() {
                    return self.count(QuicStray::Unknown);
                }
                let id = to.to_vec();
                return self.reset(&id, &datagram, batch);
            }
            Start::Long { version, is_initial, to, from, token } => (version, is_initial, to, from, token),
        };
        if self.pass_on(ground.table.table_of(chosen), &datagram) {
            return;
        }
        if datagram.bytes.len() < FIRST_DATAGRAM {
            return self.count(QuicStray::SmallInitial);
        }
        if version != VERSION {
            // What negotiates versions itself is no client's packet (RFC 9000 §17.2.1).
            if version != 0 {
                self.answer_without(&Without::Versions, ends, (client_id, chosen), batch);
            } else {
                self.count(QuicStray::Malformed);
            }
            return;
        }
        // RFC 9000 §7.2: a client's first ID has at least 8 bytes.
        if chosen.len() < 8 {
            return self.count(QuicStray::Malformed);
        }
        if !is_initial || self.admissions.connections.phase() != Phase::Serving {
            return self.count(QuicStray::Unknown);
        }
        let original = match token {
            [] => None,
            token if self.transport.takes_tokens_of(datagram.from) => {
                self.secret.open_for_any(since_epoch(), chosen, token)
            }
            token => self.secret.open(since_epoch(), datagram.from, chosen, token),
        };
        if original.is_none() && self.transport.wants_proof(self.handshakes.is_crowded()) {
            self.answer_without(&Without::Retry, ends, (client_id, chosen), batch);
            return;
        }
        let chosen: Box<[u8]> = chosen.into();
        self.accept(ground, datagram, &chosen, original.as_deref(), batch);
    }

    fn accept<A: Application>(
        &mut self,
        ground: &mut Ground<A>,
        datagram: Datagram<'_>,
        chosen: &[u8],
        original: Option<&[u8]>,
        batch: &mut SendBatch,
    ) where
        M: FnMut(Arrived) -> A,
    {
        let Some((place, generation, id)) = ground.table.next() else { return };
        let token = token_of(&self.reset_key, &id);
        let Datagram { bytes, from, to } = datagram;
        let Some((config, bundle)) = self.transport.config(to.ip(), token) else { return };
        let own = ConnectionId::from_ref(&id);
        let quic = match original {
            None => quiche::accept_with_buf_factory(&own, None, to, from, config),
            Some(original) => {
                let (original, retry) = (ConnectionId::from_ref(original), ConnectionId::from_ref(chosen));
                let ids = quiche::RetryConnectionIds {
                    original_destination_cid: &original,
                    retry_source_cid: &retry,
                };
                quiche::accept_with_retry(&own, ids, to, from, config)
            }
        };
        let mut quic = match quic {
            Ok(quic) => quic,
            Err(error) => {
                tracing::debug!(?error, listener = self.admissions.name, "a QUIC connection cannot begin");
                return;
            }
        };
        let client = ClientAddress::from(from);
        let has_memory = match self.memory.is_used_up() {
            true => Err(self.admissions.refuse_for_memory(client)),
            false => Ok(()),
        };
        let admitted =
            has_memory.and_then(|()| self.admissions.admit(client)).and_then(|(admission, guard)| {
                let metrics = (&self.admissions.metrics, self.worker);
                let handshake = self.handshakes.enter(client, metrics).inspect_err(|cap| {
                    cap.tell(&self.admissions.name, client);
                })?;
                Ok((admission, guard, handshake))
            });
        let Ok((admission, guard, handshake)) = admitted else {
            return self.refuse(&mut quic, (bytes, from, to), batch);
        };
        if let Some(qlogs) = &self.qlogs {
            qlogs.choose(&mut quic);
        }
        let limit = Instant::now() + self.handshakes.timeout();
        let arrived = Arrived { client, guard, admission, handshake, limit, bundle };
        let app = (self.make)(arrived);
        let (ends, site) = (Ends { peer: from, local: to }, Site { from_any: self.from_any, may_move: true });
        let own = (site, self.memory.connection(false));
        let connection = Connection::new(quic, app, (place, generation), &ground.turns, ends, own);
        let shared = ground.table.insert(generation, connection, chosen);
        shared.borrow_mut().receive(bytes, ends);
    }

    /// Tells a client that there is no room for its connection, and forgets it.
    fn refuse(
        &self,
        quic: &mut Quic,
        (bytes, from, to): (&mut [u8], SocketAddr, SocketAddr),
        batch: &mut SendBatch,
    ) {
        self.count(QuicStray::Refused);
        if quic.recv(bytes, quiche::RecvInfo { from, to }).is_err() {
            return;
        }
        let _ = quic.close(false, REFUSED, b"over capacity");
        self.answer(batch, (from, to), |room| quic.send(room).map(|(length, _)| length));
    }
}

/// The token of a stateless reset for packets to `id` (RFC 9000 §10.3.2).
fn token_of(key: &aws_lc_rs::hmac::Key, id: &[u8]) -> u128 {
    let tag = aws_lc_rs::hmac::sign(key, id);
    tag.as_ref().first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

/// The time since the Unix epoch.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

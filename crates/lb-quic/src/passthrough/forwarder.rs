//! The flows of one socket, and where each datagram goes.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::quic::ConnectionId;
use lb_core::quic::ids::{IdKind, IdTable};
use lb_core::quic::paths::{ClientKey, Path, PathId, Paths, Proof};
use lb_io::udp::{NoUplink, Uplink, UplinkRest, UplinkSocket, Uplinks};
use lb_io::{ConnectionGuard, Phase};
use lb_observe::metrics::{PassthroughDrop, PassthroughMetrics, WorkerMetrics};
use lb_security::ProxyHeader;
use lb_security::admission::{Admission, Admissions, Cap};

use super::initial::InitialReader;
use super::load::MemberLoad;
use super::settings::PassthroughSettings;
use super::shared::{PassthroughShared, Refusal};
use super::waiting::{Kept, Waiting};

mod begin;
mod reply;
mod route;

/// How often what is silent is looked for.
const TICK: Duration = Duration::from_millis(500);

/// How often sockets that are not needed are closed.
const REST: Duration = Duration::from_secs(5);

/// How many unproven flows give way at most for a socket.
const DISPLACED: usize = 8;

/// How long a flow may be silent once the listener drains.
const DRAINING_IDLE: Duration = Duration::from_secs(2);

/// The bytes of an ID that nobody can guess.
const UNGUESSABLE: usize = 8;

/// How old an unproven flow is at least that gives way to another.
const DISPLACED_AGE: Duration = Duration::from_secs(1);

/// The flows of one socket.
#[derive(Debug)]
pub(crate) struct Forwarder {
    pub(crate) settings: Rc<PassthroughSettings>,
    pub(crate) shared: Arc<PassthroughShared>,
    pub(crate) admissions: Rc<Admissions>,
    pub(crate) worker_metrics: Arc<WorkerMetrics>,
    pub(crate) worker: usize,
    /// Where the clients' socket is bound.
    local: SocketAddr,
    pub(crate) uplinks: Uplinks,
    paths: Paths<Carrier>,
    ids: IdTable<IdOwner>,
    waiting: Waiting,
    reader: Option<InitialReader>,
    expire_at: Instant,
    rest_at: Instant,
}

/// Where an ID leads to, and the path on which its backend has issued it.
#[derive(Clone, Copy, PartialEq, Debug)]
struct IdOwner {
    backend: SocketAddr,
    path: Option<PathId>,
}

/// What carries the packets of a path.
#[derive(Debug)]
struct Carrier {
    uplink: Option<Uplink>,
    load: Option<MemberLoad>,
    /// The backend has been told who the client is, or is not to be.
    is_greeted: bool,
    /// Nothing listens where the backend should be.
    is_refused: bool,
    /// The backend has issued an ID here that nobody can guess.
    has_issued: bool,
    /// Until then the ID that was seen last need not be looked up.
    looked_up_until: Option<Instant>,
    _admission: Admission,
    _guard: ConnectionGuard,
}

/// What becomes of a datagram.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on along this path.
    Forward(PathId),
    /// It goes on along this path, behind others that have waited for it.
    After(PathId, Vec<Kept>),
    /// The client is sent this in its place.
    Answer(Vec<u8>),
    /// It waits.
    Waits,
    /// It is dropped.
    Drop(PassthroughDrop),
}

impl Forwarder {
    pub(crate) fn new(
        settings: Rc<PassthroughSettings>,
        shared: Arc<PassthroughShared>,
        admissions: Rc<Admissions>,
        worker_metrics: Arc<WorkerMetrics>,
        (worker, local, seed): (usize, SocketAddr, u64),
        mut uplinks: Uplinks,
    ) -> Self {
        let config = &settings.config;
        let ids = IdTable::new(config.max_quic_connections, config.flow_idle_timeout);
        let (paths, waiting, reader) = (Paths::new(seed), Waiting::default(), InitialReader::new());
        uplinks.set_fragments(config.proxy_protocol);
        let now = Instant::now();
        Self {
            settings,
            shared,
            admissions,
            worker_metrics,
            worker,
            local,
            uplinks,
            paths,
            ids,
            waiting,
            reader,
            expire_at: now,
            rest_at: now,
        }
    }

    /// Puts new settings in force. Flows stay where they are.
    pub(crate) fn replace(&mut self, settings: Rc<PassthroughSettings>) {
        let config = &settings.config;
        self.ids.set_limits(config.max_quic_connections, config.flow_idle_timeout);
        // A header makes the first datagram larger than its client has made it.
        self.uplinks.set_fragments(config.proxy_protocol);
        self.settings = settings;
    }

    pub(crate) fn metrics(&self) -> &PassthroughMetrics {
        &self.worker_metrics.passthrough
    }

    /// Counts datagrams that are dropped.
    pub(crate) fn dropped(&self, why: PassthroughDrop, count: u64) {
        self.metrics().dropped.of(why).add(count);
    }

    /// By which socket and where a datagram of a path with so many bytes leaves, and what stands before it there, if anything does.
    #[inline]
    pub(crate) fn leave(
        &mut self,
        path: PathId,
        bytes: usize,
        now: Instant,
    ) -> Option<(UplinkSocket, SocketAddr, Option<ProxyHeader>)> {
        let path = self.paths.get(path)?;
        path.receive(bytes, now);
        let socket = path.carrier.uplink.as_ref()?.path();
        let is_greeted = std::mem::replace(&mut path.carrier.is_greeted, true);
        let header = (!is_greeted).then(|| {
            let own = SocketAddr::new(path.client.to.unwrap_or(self.local.ip()), self.local.port());
            ProxyHeader::new(path.client.from, own)
        });
        Some((socket, path.backend, header))
    }

    /// The address of this machine that answers to a client are sent from, where the kernel would have to choose one.
    #[inline]
    pub(crate) fn answers_from(&self, client: &ClientKey) -> Option<IpAddr> {
        client.to.filter(|_| self.local.ip().is_unspecified())
    }

    /// When [`Self::expire`] is to be called next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let is_empty = self.is_idle() && self.ids.is_empty() && self.uplinks.sockets() == 0;
        (!is_empty).then_some(self.expire_at)
    }

    /// Whether nothing is tracked.
    pub(crate) fn is_idle(&self) -> bool {
        self.paths.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.admissions.connections.phase()
    }

    /// Forgets what has been silent for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.expire_at = now + TICK;
        let idle = self.settings.config.flow_idle_timeout;
        while let Some(path) = self.paths.expire(now, idle) {
            self.close(path, now);
        }
        match self.phase() {
            Phase::Serving => {}
            Phase::Abort => self.close_all(now),
            Phase::Draining | Phase::Farewell => {
                let silent = |path: &Path<_>| path.seen() + DRAINING_IDLE <= now;
                let gone: Vec<_> =
                    self.paths.iter().filter(|(_, path)| silent(path)).map(|(id, _)| id).collect();
                for id in gone {
                    if let Some(path) = self.paths.remove(id) {
                        self.close(path, now);
                    }
                }
            }
        }
        self.paths.tidy();
        let (shared, worker) = (&self.shared, self.worker);
        self.ids.expire(now, |id| shared.forget(id, worker));
        // Another worker has no room and nothing of its own that could give way: its client comes again.
        while self.shared.wants_room()
            && self.admissions.open() >= self.settings.config.max_quic_connections
            && let Some(path) = self.paths.displace(now, DISPLACED_AGE)
        {
            self.shared.gave_room();
            self.metrics().flows_evicted.inc();
            self.close(path, now);
        }
        let lost = self.waiting.expire(now);
        self.dropped(PassthroughDrop::Waiting, lost);
        if self.rest_at <= now {
            self.rest_at = now + REST;
            self.uplinks.rest(now);
        }
    }

    /// Ends all flows.
    pub(crate) fn close_all(&mut self, now: Instant) {
        for path in self.paths.drain() {
            self.close(path, now);
        }
    }

    /// A late answer that reaches the next client of the uplink does no harm: it is sealed with keys that only the client before has. So an
    /// uplink is used again as soon as it is needed.
    fn close(&mut self, path: Path<Carrier>, now: Instant) {
        self.metrics().flows.dec();
        if let Some(uplink) = path.carrier.uplink {
            self.uplinks.give_back(uplink, UplinkRest::Short, now);
        }
    }

    /// A path for a client to this backend, beside those that it has.
    fn open(
        &mut self,
        client: ClientKey,
        backend: SocketAddr,
        proof: Proof,
        load: Option<MemberLoad>,
        now: Instant,
    ) -> Result<PathId, PassthroughDrop> {
        if self.paths.room_of_client(&client) == 0 {
            return Err(PassthroughDrop::SourceCap);
        }
        let from = client.from.into();
        let admitted = match self.admissions.admit(from) {
            Err(Cap::Listener) => match self.paths.displace(now, DISPLACED_AGE) {
                Some(path) => {
                    self.metrics().flows_evicted.inc();
                    self.close(path, now);
                    self.admissions.admit(from)
                }
                None => Err(Cap::Listener),
            },
            admitted => admitted,
        };
        let (_admission, _guard) = match admitted {
            Ok(admitted) => admitted,
            Err(Cap::Listener) => {
                self.shared.want_room();
                self.refused(Refusal::TableFull, client, now);
                return Err(PassthroughDrop::TableFull);
            }
            Err(_) => return Err(PassthroughDrop::SourceCap),
        };
        let carrier = Carrier {
            uplink: None,
            load,
            is_greeted: !self.settings.config.proxy_protocol,
            is_refused: false,
            has_issued: false,
            looked_up_until: None,
            _admission,
            _guard,
        };
        let idle = self.settings.config.flow_idle_timeout;
        let id = self.paths.insert((client, backend), proof, carrier, now, idle);
        self.metrics().flows.inc();
        let mut taken = self.uplinks.take(backend, id.number(), now);
        for _ in 0..DISPLACED {
            if taken.is_ok() {
                break;
            }
            // There are as many sockets as there may be: flows that have proven nothing give way to others here as well.
            let Some(path) = self.paths.displace(now, DISPLACED_AGE) else { break };
            self.metrics().flows_evicted.inc();
            self.close(path, now);
            taken = self.uplinks.take(backend, id.number(), now);
        }
        match taken {
            Ok(uplink) => {
                if let Some(path) = self.paths.get(id) {
                    path.carrier.uplink = Some(uplink);
                }
                Ok(id)
            }
            Err(error) => {
                if let Some(path) = self.paths.remove(id) {
                    self.close(path, now);
                }
                if let NoUplink::Socket(error) = &error {
                    tracing::debug!(%error, %backend, "no socket towards a backend");
                }
                self.refused(Refusal::NoSocket, client, now);
                Err(PassthroughDrop::NoSocket)
            }
        }
    }

    /// Learns an ID that a backend has issued.
    fn issued(&mut self, id: ConnectionId, backend: SocketAddr, path: Option<PathId>, now: Instant) {
        if id.len() > self.settings.config.max_dcid_len_routed {
            return;
        }
        if self.ids.issuer(&id).is_some_and(|owner| owner.backend != backend) {
            // No backend takes connections of another one away by what it sends.
            return;
        }
        let learned = self.ids.learn(id, IdKind::Issued, IdOwner { backend, path }, now);
        if learned.is_new {
            self.shared.learn(id, backend, self.worker);
        }
        if let Some(displaced) = learned.displaced {
            self.shared.forget(displaced, self.worker);
        }
        if id.len() >= UNGUESSABLE
            && let Some(path) = path.and_then(|path| self.paths.get(path))
        {
            path.carrier.has_issued = true;
        }
    }

    /// Says in the log why something is refused, unless that was said lately.
    fn refused(&self, kind: Refusal, client: ClientKey, now: Instant) {
        let window = self.settings.config.audit_throttle_window;
        let Some(unsaid) = self.shared.audit.admit(kind, window, now) else { return };
        let (listener, client) = (&self.admissions.name, client.from);
        match kind {
            Refusal::TableFull => {
                tracing::warn!(listener, %client, unsaid, event = "audit/quic_passthrough_cap_hit", "QUIC passthrough: as many flows as max_quic_connections allows");
            }
            Refusal::SourceBinding => {
                tracing::warn!(listener, %client, unsaid, event = "audit/source_binding_violation", "QUIC passthrough: a known connection ID from another address");
            }
            Refusal::SourceRate => {
                tracing::warn!(listener, %client, unsaid, key = "passthrough.new_connections_per_source", "QUIC passthrough: a source begins too many connections");
            }
            Refusal::NoBackend => {
                tracing::warn!(listener, unsaid, "QUIC passthrough: no backend can be picked");
            }
            Refusal::NoSocket => {
                tracing::warn!(listener, unsaid, "QUIC passthrough: no socket towards a backend can be had");
            }
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.close_all(Instant::now());
    }
}

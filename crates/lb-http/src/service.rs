//! What a worker knows of one HTTP listener.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lb_config::{Backend, BackendPool, BackendProtocol, ClientAuthMode, Config, HashKey, Listener, PoolId};
use lb_core::filter::RequestIdPolicy;
use lb_core::forwarded::TrustPolicy;
use lb_core::head::{RequestHead, ResponseHead};
use lb_core::relief::CROWD;
use lb_core::trace::Sampler;
use lb_io::{Connections, WorkerIo};
use lb_observe::access_log::AccessLogHandle;
use lb_observe::metrics::{ListenerMetrics, Metrics, WorkerMetrics};
use lb_observe::tap::Taps;
use lb_observe::traces::TraceHandle;
use lb_pool::{ResolvedBackend, WorkerMember, WorkerPool};
use lb_security::{ClientTls, StickyKey};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::budget::BodyBudget;
use crate::concurrency::AdaptiveLimits;
use crate::h1::request::HeadLimits;
use crate::h2::ClientSettings;
use crate::proxy::{Exchange, TunnelLimits};
use crate::routes::{Routes, SharedParts};
use crate::sticky::Sticky;
use crate::upstream::{Endpoint, EndpointKey, Upstreams};

/// Request heads kept for reuse.
const KEEP_HEADS: usize = 256;

/// Memory of exchanges kept for reuse.
const KEEP_PLACES: usize = 256;

/// Bytes of request bodies that a worker holds, beyond what every request may have held.
const MOST_HELD_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of request bodies that wait in a worker for mirrors.
const MOST_MIRRORED_BYTES: usize = 64 * 1024 * 1024;

/// What the HTTP listeners of a worker share.
#[derive(Debug)]
pub struct HttpWorker {
    /// Buffers and randomness.
    pub io: Rc<WorkerIo>,
    /// This worker's counters.
    pub metrics: Arc<WorkerMetrics>,
    /// Idle connections to backends.
    pub upstreams: Rc<Upstreams>,
    /// Where access log lines go.
    pub access_log: Option<AccessLogHandle>,
    /// Who looks on as requests end.
    pub taps: Arc<Taps>,
    /// Where requests whose spans are recorded go.
    pub traces: Option<TraceHandle>,
    /// Limits on requests at once that find themselves.
    pub adaptive: AdaptiveLimits,
    /// Responses pass through one head at a time, within one call.
    pub(crate) response: RefCell<ResponseHead>,
    heads: RefCell<Vec<RequestHead>>,
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is kept")]
    places: RefCell<Vec<Box<Option<Exchange>>>>,
    /// Memory for bodies that are buffered or kept for another try.
    pub(crate) held: Rc<BodyBudget>,
    /// Memory for bodies that wait for mirrors.
    pub(crate) mirrored: Rc<BodyBudget>,
    /// Mirrors that run.
    pub(crate) errands: Cell<usize>,
    /// Exchanges that run.
    running: Cell<usize>,
    /// The most that ran at once since [`Self::most_running`] was asked for, and between the two calls before.
    most_running: Cell<usize>,
    most_before: Cell<usize>,
    /// There are many of a sudden.
    crowded: Notify,
}

impl HttpWorker {
    /// Assembles a worker.
    pub fn new(
        io: Rc<WorkerIo>,
        metrics: Arc<WorkerMetrics>,
        upstreams: Rc<Upstreams>,
        access_log: Option<AccessLogHandle>,
        taps: Arc<Taps>,
        traces: Option<TraceHandle>,
    ) -> Rc<Self> {
        Rc::new(Self {
            adaptive: AdaptiveLimits::of_worker(io.id),
            io,
            metrics,
            upstreams,
            access_log,
            taps,
            traces,
            response: RefCell::default(),
            heads: RefCell::default(),
            places: RefCell::default(),
            held: BodyBudget::new(MOST_HELD_BYTES),
            mirrored: BodyBudget::new(MOST_MIRRORED_BYTES),
            errands: Cell::new(0),
            running: Cell::new(0),
            most_running: Cell::new(0),
            most_before: Cell::new(0),
            crowded: Notify::new(),
        })
    }

    /// Exchanges that run.
    pub fn running(&self) -> usize {
        self.running.get()
    }

    /// The most exchanges that ran at once since this was asked for last.
    pub fn most_running(&self) -> usize {
        let most = self.most_running.replace(self.running.get());
        self.most_before.set(most);
        most
    }

    /// The most exchanges that ran at once lately: since the last call of [`Self::most_running`] and between that one and the one before.
    pub(crate) fn busiest(&self) -> usize {
        self.most_running.get().max(self.most_before.get())
    }

    /// An exchange has begun.
    #[inline]
    pub(crate) fn begun(&self) {
        let running = self.running.get().saturating_add(1);
        self.running.set(running);
        self.most_running.set(self.most_running.get().max(running));
        if running == CROWD {
            self.crowded.notify_one();
        }
    }

    /// Ready when so many exchanges run at once that they leave memory behind which is worth giving back.
    pub async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// An exchange has ended.
    #[inline]
    pub(crate) fn ended(&self) {
        self.running.set(self.running.get().saturating_sub(1));
    }

    /// Frees what is kept for more requests than run. To be called now and then.
    pub fn rest(&self) {
        let most = self.running.get();
        self.heads.borrow_mut().truncate(most);
        self.places.borrow_mut().truncate(most);
    }

    /// Puts an exchange into memory that earlier ones have used.
    #[inline]
    pub(crate) fn place(&self, exchange: Exchange) -> Box<Option<Exchange>> {
        let mut place = self.places.borrow_mut().pop().unwrap_or_default();
        *place = Some(exchange);
        place
    }

    /// Ends an exchange and keeps its memory for the next.
    #[inline]
    pub(crate) fn put_place(&self, mut place: Box<Option<Exchange>>) {
        *place = None;
        let mut places = self.places.borrow_mut();
        if places.len() < KEEP_PLACES {
            places.push(place);
        }
    }

    /// An empty head.
    #[inline]
    pub fn take_head(&self) -> RequestHead {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps a head's memory for the next request.
    #[inline]
    pub fn put_head(&self, mut head: RequestHead) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < KEEP_HEADS && head.fields.text_capacity() <= 16 * 1024 {
            head.clear();
            heads.push(head);
        }
    }
}

/// One backend address as this worker sees it.
#[derive(Debug)]
pub struct Member {
    /// The address with its idle connections.
    pub endpoint: Rc<Endpoint>,
    /// The backend, and how it is reached.
    pub backend: WorkerMember<ClientTls>,
}

/// A pool as this worker sees it.
#[derive(Debug)]
pub struct Pool {
    /// What it is called.
    pub(crate) name: Arc<str>,
    /// Backend addresses.
    pub members: Vec<Rc<Member>>,
    /// Which of them is picked.
    pub balance: Rc<WorkerPool>,
    /// What of a request they are picked by, under a policy that follows a key.
    pub hash_key: HashKey,
    /// The cookies that bring clients back to the member that served them.
    pub(crate) sticky: Option<Sticky>,
    /// The member that is tried next while none can be reached, and when one was tried last.
    probe: Cell<(usize, Option<Instant>)>,
}

impl Pool {
    /// A pool of the configuration, for all listeners that use it. `tls` says how a backend is reached inside TLS.
    pub fn new(
        pool: &BackendPool,
        parts: PoolParts<'_>,
        tls: impl Fn(&Backend) -> Option<Arc<ClientTls>>,
        upstreams: &Upstreams,
        metrics: &Metrics,
    ) -> Rc<Self> {
        let PoolParts { backends, balance, sticky } = parts;
        let sticky = pool.sticky.as_ref().zip(sticky).map(|(settings, key)| {
            let identities = balance.shared().members.iter().map(|(_, spec)| spec.identity);
            Sticky::new(settings, key, pool.id.name(), identities)
        });
        let member = |at: usize, backend: &Backend| {
            let counted = metrics.backend(&pool.id, true, &backend.name);
            let reached = balance.member(at, tls(backend), counted)?.telling(backend.proxy_protocol);
            let address = reached.address();
            // Raw bytes on an HTTP listener are HTTP/1.1.
            let protocol = match backend.protocol {
                BackendProtocol::Tcp => BackendProtocol::H1,
                protocol => protocol,
            };
            let endpoint = upstreams.endpoint(EndpointKey { address, protocol, tls: backend.tls.clone() });
            Some(Rc::new(Member { endpoint, backend: reached }))
        };
        let members = ResolvedBackend::for_members(backends, &pool.backends)
            .map_while(|(at, backend)| member(at, backend));
        let (members, hash_key) = (members.collect(), pool.hash_key.clone());
        let name = pool.id.name().into();
        Rc::new(Self { name, members, balance, hash_key, sticky, probe: Cell::default() })
    }

    /// Whether nothing is known against some member, and the last connect to some came about or none was tried yet. A pool of which
    /// only panic makes use does not serve.
    pub(crate) fn is_reachable(&self, now: Instant) -> bool {
        self.balance.fit(now.into_std()) > 0
            && self.members.iter().any(|member| member.backend.metrics.is_reachable())
    }

    /// The cookie that brings a client back to the member at this position.
    pub(crate) fn cookie(&self, at: Option<usize>) -> Option<&[u8]> {
        self.sticky.as_ref()?.line(at?)
    }

    /// The member to be tried now, one in each `interval`.
    pub(crate) fn next_probe(&self, now: Instant, interval: Duration) -> Option<(usize, &Member)> {
        let (next, last) = self.probe.get();
        if last.is_some_and(|last| now < last + interval) {
            return None;
        }
        self.probe.set((next.wrapping_add(1), Some(now)));
        let at = next.checked_rem(self.members.len())?;
        Some((at, self.members.get(at)?))
    }
}

/// What a pool of the configuration has become.
#[derive(Debug)]
pub struct PoolParts<'a> {
    /// Its backends with their addresses, in the order of the configuration.
    pub backends: &'a [ResolvedBackend],
    /// Which of those addresses is picked; its members are all of them, in order.
    pub balance: Rc<WorkerPool>,
    /// What signs its cookies, where it has any.
    pub sticky: Option<&'a StickyKey>,
}

/// What becomes of `X-Client-Cert-Subject` and `X-Client-Cert-SHA256` in requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Clients are not asked for certificates: these are fields as any other.
    Off,
    /// Clients' own are dropped.
    Checked,
    /// As [`Self::Checked`], and the backend is told the certificate.
    Told,
}

impl ClientCertificates {
    fn of(listener: &Listener) -> Self {
        let Some(files) = &listener.tls else { return Self::Off };
        let asked = |auth: &lb_config::ClientAuth| auth.mode != ClientAuthMode::Off;
        match asked(&files.client_auth) || files.certificates.iter().any(|one| asked(&one.client_auth)) {
            true if files.client_cert_headers => Self::Told,
            true => Self::Checked,
            false => Self::Off,
        }
    }
}

/// Everything about a listener that a reload can change, as one request sees it from its first byte to its last.
#[derive(Debug)]
pub struct Settings {
    /// Timeouts and limits.
    pub http: lb_config::Http,
    /// HTTP/2 limits.
    pub h2: lb_config::H2Security,
    /// Whether HTTP/2 is spoken to clients that begin with its preface.
    pub h2c: bool,
    /// Whether WebSockets are carried over HTTP/2 (RFC 8441).
    pub h2_extended_connect: bool,
    /// Whether WebSockets are carried over HTTP/3 (RFC 9220).
    pub h3_extended_connect: bool,
    /// How gRPC calls are served; without, they are requests like others.
    pub grpc: Option<lb_config::Grpc>,
    /// Limits on heads.
    pub limits: HeadLimits,
    /// Time for one connect.
    pub connect_timeout: Duration,
    /// Time for one TLS handshake with a backend.
    pub handshake_timeout: Duration,
    /// From the first byte of a head to its end.
    pub header_deadline: Duration,
    /// Least average rate of an upload, bytes per second; 0 = any.
    pub min_upload_rate: u64,
    /// How often the rate is looked at.
    pub rate_interval: Duration,
    /// Requests that an HTTP/1.1 connection may carry; 0 = any number.
    pub max_requests: u32,
    /// Requests that an HTTP/2 connection may carry; 0 = any number.
    pub max_h2_requests: u32,
    /// What requests are told of client certificates.
    pub client_certificates: ClientCertificates,
    /// Limits of WebSocket tunnels, where they are let through.
    pub websocket: Option<TunnelLimits>,
    /// `Alt-Svc` of every response.
    pub alt_svc: Option<String>,
    /// What is done about IDs of requests.
    pub request_id: Option<RequestIdPolicy>,
    /// How the client of a request is found behind other proxies; None = it is the peer.
    pub client_address: Option<Arc<TrustPolicy>>,
    /// Which requests have their spans recorded, where there is a collector.
    pub sampler: Option<Sampler>,
    /// Where requests go.
    pub routes: Routes,
}

impl Settings {
    /// Builds what one worker needs from a validated configuration. `pool` is the pool of `listener`, and `others` gives those that its routes
    /// lead to besides.
    pub fn new(
        config: &Config,
        listener: &Listener,
        pool: Rc<Pool>,
        others: impl FnMut(&PoolId) -> Option<Rc<Pool>>,
        shared: SharedParts<'_>,
        metrics: &Metrics,
    ) -> Rc<Self> {
        let runtime = &config.runtime;
        let grpc = listener.grpc.clone().filter(|grpc| grpc.enabled);
        if grpc.is_some() {
            metrics.listener(&listener.name).set_grpc();
        }
        let websocket = listener.websocket.as_ref().filter(|websocket| websocket.enabled);
        Rc::new(Self {
            limits: HeadLimits {
                bytes: listener.http.max_header_bytes,
                fields: listener.http.max_header_count,
                target: listener.http.max_uri_bytes,
                underscore: runtime.header_underscore_policy,
                strict_te: config.security.strict_te,
                websocket: websocket.is_some(),
            },
            connect_timeout: runtime.connect_timeout,
            handshake_timeout: runtime.handshake_timeout,
            header_deadline: runtime.watchdog.header_deadline,
            min_upload_rate: runtime.watchdog.body_progress_min_bps,
            rate_interval: runtime.watchdog.sweep_interval,
            max_requests: runtime.max_keepalive_requests,
            max_h2_requests: runtime.max_requests_per_h2_connection,
            client_certificates: ClientCertificates::of(listener),
            websocket: websocket.map(TunnelLimits::new),
            alt_svc: listener
                .alt_svc
                .as_ref()
                .map(|alt| format!("h3=\":{}\"; ma={}", alt.h3_port, alt.max_age.as_secs())),
            http: listener.http.clone(),
            h2: listener.h2_security.clone(),
            h2c: listener.h2c,
            grpc,
            h2_extended_connect: websocket.is_some_and(|websocket| websocket.h2_extended_connect),
            h3_extended_connect: websocket.is_some_and(|websocket| websocket.h3_extended_connect),
            client_address: listener.client_address.clone(),
            request_id: listener.request_id.clone(),
            sampler: config.tracing.collector.as_ref().map(|_| config.tracing.sampler),
            routes: Routes::new(listener, pool, others, shared, metrics),
        })
    }

    /// What a connection to a backend that speaks HTTP/2 is held to.
    pub(crate) fn client_settings(&self) -> ClientSettings {
        ClientSettings {
            max_concurrent_streams: self.h2.max_concurrent_streams,
            max_header_list_size: self.h2.max_header_list_size,
            initial_stream_window: self.h2.initial_stream_window_size,
            initial_connection_window: self.h2.initial_connection_window_size,
            max_send_buffer: self.h2.max_send_buf_size,
            keep_alive_interval: self.h2.keep_alive_interval,
            keep_alive_timeout: self.h2.keep_alive_timeout,
            flood_budget_percent: self.h2.flood_budget_percent,
            write_timeout: self.http.write_timeout,
            settings_timeout: self.http.header_timeout,
        }
    }
}

/// One HTTP listener on one worker.
#[derive(Debug)]
pub struct Service {
    /// What all listeners of the worker share.
    pub worker: Rc<HttpWorker>,
    /// The listener as written in the configuration.
    pub name: String,
    /// Counters.
    pub metrics: Arc<ListenerMetrics>,
    /// Live connections.
    pub connections: Rc<Connections>,
    settings: RefCell<Rc<Settings>>,
}

impl Service {
    /// A listener with its first settings.
    pub fn new(
        worker: Rc<HttpWorker>,
        name: String,
        metrics: Arc<ListenerMetrics>,
        connections: Rc<Connections>,
        settings: Rc<Settings>,
    ) -> Rc<Self> {
        Rc::new(Self { worker, name, metrics, connections, settings: RefCell::new(settings) })
    }

    /// The settings for a request that begins now.
    #[inline]
    pub fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    /// Puts new settings in force for requests to come.
    pub fn replace(&self, settings: Rc<Settings>) {
        *self.settings.borrow_mut() = settings;
    }
}

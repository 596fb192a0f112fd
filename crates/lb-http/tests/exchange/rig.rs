//! A worker with one listener, whose clients and backends are those of the test.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_config::{Backend, BackendProtocol, Config};
use lb_core::head::{BodyLength, RequestHead, Span, Version};
use lb_core::limit::LimitTables;
use lb_core::pool::PoolSettings;
use lb_http::proxy::{Arrival, Client, End, Running};
use lb_http::service::{HttpWorker, Pool, PoolParts, Service, Settings};
use lb_http::upstream::Upstreams;
use lb_http::{AdaptiveLimits, AnswerBodies, SharedParts};
use lb_io::WorkerIo;
use lb_io::gate::AddressGate;
use lb_observe::access_log::AccessLogHandle;
use lb_observe::metrics::{BackendMetrics, Metrics, PoolMetrics};
use lb_pool::{MemberKey, Registry, ResolvedBackend, WorkerPool};
use lb_security::admission::{Admissions, Gates};
use lb_security::{ClientTls, KeyAccess};
use tokio::time::{Instant, sleep};

use crate::back::{TestUpstream, World};
use crate::front::TestFront;

/// The listener and what it counts.
pub(crate) struct Rig {
    pub(crate) service: Rc<Service>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pool: Rc<WorkerPool>,
    pub(crate) world: Rc<World>,
    pub(crate) config: Config,
    pub(crate) admissions: Rc<Admissions>,
    client: Client,
    of_pool: Arc<PoolMetrics>,
    of_backends: Vec<Arc<BackendMetrics>>,
}

/// What a test sets.
pub(crate) struct Setup<'a> {
    /// What the backends speak; those of `h3` are the [`World`]'s.
    pub(crate) protocol: &'a str,
    pub(crate) backends: u16,
    /// What the listener speaks.
    pub(crate) front: &'a str,
    /// Lines of `[[listeners]]`, of which the last table is `[listeners.http]`.
    pub(crate) listener: &'a str,
    /// What backends of `h3` are reached by in place of the [`World`]'s.
    pub(crate) plug: Option<Plug>,
    pub(crate) pool: PoolSettings,
    pub(crate) access_log: Option<AccessLogHandle>,
}

/// Has backends of `h3` reached in some way, for a worker.
pub(crate) type Plug = Box<dyn FnOnce(&Upstreams, &Rc<WorkerIo>, &Config, &Arc<Metrics>)>;

impl Default for Setup<'_> {
    fn default() -> Self {
        let pool = PoolSettings::default();
        Self { protocol: "h3", backends: 2, front: "h1", listener: "", plug: None, pool, access_log: None }
    }
}

impl Rig {
    pub(crate) fn new(setup: Setup<'_>, world: &Rc<World>) -> Self {
        let Setup { protocol, backends, front, listener, plug, pool, access_log } = setup;
        let tls = if protocol == "h3" { "tls_verify_peer = false\n" } else { "" };
        let list: String = (1..=backends)
            .map(|port| {
                let address = format!("192.0.2.1:{port}");
                format!(
                    "[[pools.back.backends]]\naddress = \"{address}\"\nprotocol = \"{protocol}\"\n{tls}\n"
                )
            })
            .collect();
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:1\"\nprotocol = \"{front}\"\npool = \"back\"\n{listener}\n{list}"
        );
        let config = Config::parse(&text, "test").unwrap_or_else(|error| panic!("{error}\n{text}"));
        let metrics = Metrics::new(1);
        let io = Rc::new(WorkerIo::new(0, 1));
        let upstreams = Upstreams::new(config.pool.clone(), metrics.worker(0));
        let has_tls = plug.is_some();
        match plug {
            Some(plug) => plug(&upstreams, &io, &config, &metrics),
            None => {
                let world = Rc::clone(world);
                upstreams.plug(BackendProtocol::H3, move |key| TestUpstream::of(&world, key));
            }
        }
        let listener = &config.listeners[0];
        let resolved = listener.pool.backends.iter().map(|backend| ResolvedBackend {
            name: backend.name.clone(),
            addresses: backend.address.literal().into_iter().collect(),
        });
        let resolved: Vec<ResolvedBackend> = resolved.collect();
        let members = resolved.iter().map(|one| {
            let key = MemberKey { backend: one.name.clone(), address: one.addresses[0] };
            (key, 1, 0)
        });
        let members: Vec<(MemberKey, u32, u32)> = members.collect();
        let now = Instant::now().into_std();
        let shared = Registry::new(1, 1).pool(&listener.pool.id, &pool, &members, now);
        let of_pool = metrics.pool(&listener.pool.id);
        let pool = Rc::new(WorkerPool::new(shared, 0, now, None, Arc::clone(&of_pool)));
        let parts = PoolParts { backends: &resolved, balance: Rc::clone(&pool), sticky: None };
        let tls = |backend: &Backend| {
            let tls = backend.tls.as_ref().filter(|_| has_tls)?;
            Some(ClientTls::load(tls, &[], KeyAccess::Owner, SystemTime::now()).unwrap())
        };
        let served = Pool::new(&listener.pool, parts, tls, &upstreams, &metrics);
        let of_backends = served.members.iter().map(|member| Arc::clone(&member.backend.metrics)).collect();
        let shared = SharedParts {
            bodies: &AnswerBodies::default(),
            limits: &LimitTables::default(),
            adaptive: &AdaptiveLimits::default(),
        };
        let settings = Settings::new(&config, listener, served, |_| None, shared, &metrics);
        let taps = Arc::clone(&metrics.taps);
        let worker = HttpWorker::new(io, metrics.worker(0), upstreams, access_log, taps, None);
        let client = Client::new(([198, 51, 100, 7], 4242).into(), Version::H3, None, &settings);
        let (name, of_listener) = (listener.name.clone(), metrics.listener(&listener.name));
        let gates = Gates {
            address: AddressGate::new(u32::MAX),
            listener: Arc::default(),
            sources: AddressGate::new(u32::MAX),
        };
        let counted = (Arc::clone(&of_listener), metrics.worker(0));
        let admissions = Admissions::new(name.clone(), gates, usize::MAX, 0, counted.0, counted.1);
        let connections = Rc::clone(&admissions.connections);
        let service = Service::new(worker, name, of_listener, connections, settings);
        let world = Rc::clone(world);
        Self { service, metrics, pool, world, config, admissions, client, of_pool, of_backends }
    }

    /// A request of this method, with fields.
    pub(crate) fn head(&self, method: &str, body: BodyLength, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = self.service.worker.take_head();
        head.version = Version::H3;
        head.body = body;
        let mut span = |text: &str| {
            let start = head.fields.append_text(text.as_bytes());
            Span::new(start, start + text.len())
        };
        (head.method, head.target, head.authority) = (span(method), span("/path"), span("a.example"));
        head.fields.push(b"host", b"a.example");
        if let BodyLength::Known(length) = body {
            head.fields.push(b"content-length", length.to_string().as_bytes());
        }
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    pub(crate) fn begin(&self, head: RequestHead, front: &TestFront) -> Running {
        self.arrival(&self.service.settings()).begin(head, front)
    }

    pub(crate) fn arrival<'a>(&'a self, settings: &'a Rc<Settings>) -> Arrival<'a> {
        Arrival { service: &self.service, settings, client: &self.client, started: Instant::now() }
    }

    /// Runs a request to its end.
    pub(crate) async fn run(&self, head: RequestHead, front: &mut TestFront) -> End {
        self.begin(head, front).run(front).await
    }

    /// Requests that are at some backend by the counters.
    pub(crate) fn inflight(&self) -> i64 {
        self.of_backends.iter().map(|backend| backend.worker(0).inflight.value()).sum()
    }

    /// Checks that nothing is counted for requests any more.
    pub(crate) fn assert_at_rest(&self) {
        let waiting = self.of_pool.worker(0).pending.value();
        assert_eq!(
            (self.service.worker.running(), self.inflight(), waiting),
            (0, 0, 0),
            "running, in flight, waiting"
        );
    }

    /// Checks that every place which a limit grants can be had again, once idle connections have given theirs back.
    pub(crate) async fn check_places(&self) {
        self.service.worker.upstreams.replace(|| {});
        sleep(Duration::from_secs(5)).await;
        for at in 0..self.of_backends.len() {
            let Some(gate) = self.pool.gate(at) else { continue };
            let limit = self.pool.shared().settings.limits.max_connections;
            let places: Vec<_> = (0..limit).map_while(|_| gate.connection()).collect();
            assert_eq!(places.len(), limit as usize, "places for connections at member {at}");
        }
        let now = Instant::now().into_std();
        let budget = self.pool.retry().budget;
        let granted = (0..budget.min).filter(|_| self.pool.take_hedge(now)).count();
        assert_eq!(granted, budget.min as usize, "places in the budget of further tries");
    }
}

//! From a configuration to a control thread with running workers.

use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use lb_config::{AccessLogPlace, Config, Plan, PoolId, SocketName};
use lb_io::WorkerIo;
use lb_io::gate::AddressGate;
use lb_io::inherited::Inherited;
use lb_observe::access_log::{AccessLog, AccessLogHandle, LogTarget};
use lb_observe::admin::{Readiness, State};
use lb_observe::metrics::Metrics;
use lb_pool::Registry;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::admin_port::AdminPort;
use crate::alone::Alone;
use crate::control::{Control, give_back_of};
use crate::discovery::Sources;
use crate::faults::{self, Collected};
use crate::listeners::{Listeners, buffers};
use crate::named_files::Stamps;
use crate::names::Patience;
use crate::orders::{Change, Order, Workers};
use crate::probe::Prober;
use crate::snapshot::Snapshot;
use crate::source::{NO_LISTENERS, Source};
use crate::sticky::StickyKeys;
use crate::tls::{BackendsTls, Tls};
use crate::upgrade::{self, Program};
use crate::{descriptors, discovery, names, process, systemd};

/// What a control thread is given.
#[derive(Debug)]
pub struct Start {
    /// Where the configuration comes from.
    pub source: Source,
    /// What was read there.
    pub text: String,
    /// What that says.
    pub config: Config,
    /// The claim on the file, where there is one.
    pub alone: Option<Alone>,
    /// What the process was started with.
    pub inherited: Inherited,
    /// How it was started.
    pub program: Program,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// How many workers there are to be.
    pub workers: usize,
}

/// Everything that a worker is given at its start.
#[derive(Debug)]
pub struct NewWorker {
    /// 0-based number.
    pub id: usize,
    /// A number that differs from worker to worker and from process to process.
    pub seed: u64,
    /// What is in force. Listeners are opened by an order.
    pub snapshot: Arc<Snapshot>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLogHandle>,
    /// What the control thread orders.
    pub orders: mpsc::UnboundedReceiver<Order>,
}

/// Starts a worker on a thread of its own.
pub type Spawn<'a> = dyn Fn(NewWorker) -> std::io::Result<JoinHandle<()>> + 'a;

impl Control {
    /// Binds and starts everything; when this returns, traffic is served. Files are read on threads that nothing else waits for.
    ///
    /// # Errors
    /// When something that the configuration names cannot be had. Nothing is served then.
    pub async fn start(start: Start, spawn: &Spawn<'_>) -> anyhow::Result<Self> {
        let Start { source, text, config, alone, inherited, program, metrics, workers } = start;
        let Inherited { mut sockets, ready } = inherited;
        descriptors::warn_of_limit(&config, None, workers);
        tracing::info!(version = 1, "control plane (file-backed) ready — config reloads are SIGHUP-driven");
        let pool = &config.pool;
        tracing::info!(
            per_peer_max = pool.per_peer_max,
            total_max = pool.total_max,
            "TCP backend pool ready"
        );
        let resolver = Rc::new(names::resolver(&config.dns)?);
        tracing::info!(
            "DNS resolver ready (positive cap {}s, negative TTL {}s)",
            config.dns.max_ttl.as_secs(),
            config.dns.negative_ttl.as_secs()
        );
        let readiness = Readiness::new();
        // Steps that fail are noted, and the next ones tried all the same, so that all that is wrong is told at once.
        let mut faults = Collected::default();
        let mut admin_port = faults.keep(AdminPort::bind(&config, &mut sockets)).unwrap_or_default();
        // The process that this one takes over from answers there until this one serves.
        let mut calls = match ready {
            None => Some(admin_port.serve(&config, &metrics, &readiness)?),
            Some(_) => None,
        };
        let runtime = &config.runtime;
        tracing::info!(
            max_inflight = runtime.max_inflight_connections,
            per_ip_cap = runtime.per_ip_connection_cap,
            connect_timeout_ms = u64::try_from(runtime.connect_timeout.as_millis()).unwrap_or(u64::MAX),
            "accept-loop guards configured"
        );
        let (wanted, of_log) = (config.clone(), Arc::clone(&metrics));
        let access_log = faults.keep(spawn_blocking(move || open_access_log(&wanted, &of_log)).await?);
        let (overlay, looked) = discovery::first(&config, &resolver, &metrics).await;
        let file = config;
        let config = overlay.over(&file);
        let resolution = {
            let origins = overlay.origins(&file);
            let origin = |pool: &PoolId, address: &SocketName| origins.of(pool, address);
            names::resolve(&config, origin, &resolver, &metrics, (None, Patience::Short)).await
        };
        // On a thread that nothing else waits for: a file system that does not answer must not keep the order to stop waiting.
        let named = config.clone();
        let files = spawn_blocking(move || -> anyhow::Result<_> {
            let stamps = Stamps::take(&named);
            // An error of one of them tells of all files.
            let tls = Tls::load(&named)?;
            let backends_tls = BackendsTls::load(&named, &BackendsTls::default())?;
            Ok((stamps, tls, backends_tls, StickyKeys::load(&named, &StickyKeys::default())?))
        });
        let (resolution, files) = (faults.keep(resolution), faults.keep(files.await?));
        let mut listeners = Listeners::with_sockets(sockets);
        let (Some(access_log), Some(resolution), Some((stamps, tls, backends_tls, sticky)), true) =
            (access_log, resolution, files, faults.is_empty())
        else {
            faults.extend(listeners.obstacles(&config, &resolver, &metrics).await);
            return Err(faults.into_error());
        };
        if config.listeners.iter().any(|listener| listener.tls.is_some()) {
            process::forbid_core_dumps();
        }
        tls.show(&config, &metrics);
        lb_io::sockopts::set_backend_buffers(buffers(&config));
        let turn = listeners.turn(&config, &resolver, &metrics, workers).await?;
        if turn.opened.is_empty() {
            bail!("{NO_LISTENERS}");
        }
        let address_gate = AddressGate::new(config.runtime.per_ip_connection_cap);
        let opened = turn.sockets(&tls, &address_gate, workers)?;
        listeners.take(turn, &config, &metrics);
        listeners.close_spare();
        let mut registry = Registry::new(workers, process::seed()).shown_in(Arc::clone(&metrics));
        let snapshot = Snapshot::new(&mut registry, config, resolution.pools, backends_tls, sticky.clone());
        let mut prober = Prober::new(WorkerIo::new(workers, process::seed()));
        prober.follow(&snapshot);
        let workers = start_workers(workers, spawn, |id, orders| NewWorker {
            id,
            seed: process::seed(),
            snapshot: Arc::clone(&snapshot),
            metrics: Arc::clone(&metrics),
            access_log: access_log.as_ref().map(AccessLog::handle),
            orders,
        })?;
        let changes = opened.into_iter().map(|opened| Change {
            snapshot: Arc::clone(&snapshot),
            closed: Vec::new(),
            opened,
        });
        workers.apply(changes).taken().await;
        let calls = match calls.take() {
            Some(calls) => calls,
            None => admin_port.serve(&file, &metrics, &readiness)?,
        };
        readiness.advance(State::Ok);
        tracing::info!("probes flipped to Ready — service open for traffic");
        systemd::ready(&format!("serving {} listener(s), configuration version 1", listeners.bound.len()));
        if let Some(ready) = ready {
            // Where nothing reads any more, the process that this one takes over from has ended.
            let _ = rustix::io::write(&ready, upgrade::SERVES);
        }
        tokio::task::spawn_local(systemd::watch(workers.orders.clone()));

        let (sources, found) = Sources::new();
        let mut control = Self {
            source,
            text,
            config: file,
            overlay,
            alone,
            stamps,
            sources,
            found,
            admin_port,
            calls,
            snapshot,
            sticky,
            registry,
            prober,
            resolver,
            valid_until: resolution.valid_until,
            metrics,
            readiness,
            address_gate,
            workers,
            listeners,
            retired: Vec::new(),
            look_at: None,
            tickets_due: tls.due(),
            tls,
            access_log,
            program,
            upgrade: None,
            version: 1,
        };
        control.follow_sources(looked);
        control.show_backends(&control.snapshot.config);
        control.metrics.reload_restart_required.declare(&Plan::restart_fields());
        give_back_of(control.snapshot.members());
        Ok(control)
    }
}

fn start_workers(
    count: usize,
    spawn: &Spawn<'_>,
    mut new: impl FnMut(usize, mpsc::UnboundedReceiver<Order>) -> NewWorker,
) -> anyhow::Result<Workers> {
    let mut running = Workers::default();
    for id in 0..count {
        let (orders, receiver) = mpsc::unbounded_channel();
        let thread = spawn(new(id, receiver)).with_context(|| format!("worker {id} cannot be started"))?;
        running.orders.push(orders);
        running.threads.push(thread);
    }
    Ok(running)
}

/// Opens the access log that the configuration asks for.
fn open_access_log(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<AccessLog>> {
    let Some(wanted) = &config.observability.access_log else { return Ok(None) };
    let (target, name) = match wanted {
        AccessLogPlace::Stdout => (LogTarget::Stdout, "stdout".to_owned()),
        AccessLogPlace::File(path) => (LogTarget::File(path.clone()), path.display().to_string()),
    };
    AccessLog::open(target, Arc::clone(metrics)).map(Some).map_err(|error| {
        faults::lines(&config.faults(None, &["access_log"], &name, &format!("cannot be opened: {error}")))
    })
}

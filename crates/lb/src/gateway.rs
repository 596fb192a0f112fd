//! The life of a gateway process, from its configuration to its exit code.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use lb_config::{Config, HostPort, Plan, PoolId};
use lb_io::gate::AddressGate;
use lb_io::{Runtime, WorkerIo};
use lb_observe::admin::{Admin, MAX_WAITING_CALLS, Readiness, State};
use lb_observe::logs;
use lb_observe::metrics::Metrics;
use lb_pool::Registry;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::alone::{self, Alone};
use crate::control::{Control, Signals};
use crate::discovery::Sources;
use crate::named_files::Stamps;
use crate::probe::Prober;
use crate::sticky::StickyKeys;
use crate::tls::{BackendsTls, Tls};
use crate::worker::Snapshot;
use crate::{api, boot, check, descriptors, discovery, drain, names, pools, systemd};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file, read again on SIGHUP.
    File(PathBuf),
    /// A text that the process made itself.
    Text(String),
}

impl Source {
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Text(_) => PathBuf::from("(built in)"),
        }
    }

    pub(crate) fn read(&self) -> anyhow::Result<String> {
        match self {
            Self::File(path) => check::read(path),
            Self::Text(text) => Ok(text.clone()),
        }
    }
}

/// How a process ended that started well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Clean,
    /// Connections were still open when the drain ran out of time.
    DrainDeadlineMissed,
    /// A worker could not go on; the others were drained.
    WorkerLost,
}

/// Runs a gateway until it is told to stop. `allow_second`: even if another process runs this file.
pub(crate) fn run(source: Source, allow_second: bool) -> anyhow::Result<Outcome> {
    let control = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("the control thread's event loop cannot be set up")?;
    let result = control.block_on(live(source, allow_second));
    // A file that is still being read, from a file system that does not answer, keeps nobody from leaving.
    control.shutdown_background();
    result
}

async fn live(source: Source, allow_second: bool) -> anyhow::Result<Outcome> {
    let mut signals = Signals::new().context("signal handlers cannot be installed")?;
    lb_io::signals::release();
    // A configuration that cannot be used is reported on a line of its own, before any log.
    let reading = source.clone();
    let text = tokio::select! {
        biased;
        _ = signals.terminated() => return Ok(Outcome::Clean),
        text = spawn_blocking(move || reading.read()) => text??,
    };
    let config = check::load(&text, &source.path())?;
    logs::init().context("logging cannot be set up")?;
    tracing::info!("ExpressGateway v{}", env!("CARGO_PKG_VERSION"));
    tracing::info!(
        listeners = config.listeners.len(),
        "configuration loaded from {}",
        source.path().display()
    );
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let alone = match &source {
        Source::File(path) if !allow_second => alone::claim(path),
        _ => Ok(None),
    };
    let result = match alone {
        Ok(alone) => serve(source, text, config, alone, signals).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        tracing::error!(error = format!("{error:#}"), "startup failed");
    }
    result
}

async fn serve(
    source: Source,
    text: String,
    config: Config,
    alone: Option<Alone>,
    mut signals: Signals,
) -> anyhow::Result<Outcome> {
    // Nothing is served yet, so that an order to end is obeyed at once; the other signals are kept until they are served.
    let (mut control, stop_admin) = tokio::select! {
        biased;
        signal = signals.terminated() => {
            tracing::info!(signal, "terminal signal during the start — nothing is served yet");
            return Ok(Outcome::Clean);
        }
        started = start(source, text, config) => started?,
    };
    control.alone = alone;
    let was_asked = control.until_terminated(signals).await;
    let Control { config, overlay, snapshot, .. } = &control;
    let (config, overlay, snapshot) = (config.clone(), overlay.clone(), Arc::clone(snapshot));
    // What waits is refused; what comes later is told how things stood.
    let calls = std::mem::replace(&mut control.calls, mpsc::channel(1).1);
    tokio::task::spawn_local(api::answer_in_drain(calls, config, overlay, snapshot));
    let outcome = drain::run(&mut control).await;
    drop(stop_admin);
    Ok(if was_asked { outcome } else { Outcome::WorkerLost })
}

/// Binds and starts everything. The admin port stays open as long as what comes with the control thread's things is kept. Files are read
/// on threads that nothing else waits for.
async fn start(
    source: Source,
    text: String,
    config: Config,
) -> anyhow::Result<(Control, oneshot::Sender<()>)> {
    let workers = boot::worker_count(&config);
    let metrics = Metrics::new(workers);
    logs::install_panic_hook(Arc::clone(&metrics));
    descriptors::raise_limit();
    descriptors::warn_of_limit(&config, workers);
    tracing::info!(version = 1, "control plane (file-backed) ready — config reloads are SIGHUP-driven");
    let runtime = Runtime::new(boot::io_choice(&config), workers)?;
    let pool = &config.pool;
    tracing::info!(per_peer_max = pool.per_peer_max, total_max = pool.total_max, "TCP backend pool ready");
    let resolver = Rc::new(names::resolver(&config.dns)?);
    tracing::info!(
        "DNS resolver ready (positive cap {}s, negative TTL {}s)",
        config.dns.max_ttl.as_secs(),
        config.dns.negative_ttl.as_secs()
    );
    let readiness = Readiness::new();
    let (caller, calls) = mpsc::channel(MAX_WAITING_CALLS);
    let (stop_admin, admin_stopped) = oneshot::channel::<()>();
    if let Some(listener) = boot::bind_admin(config.observability.metrics_bind)? {
        let admin = Admin {
            metrics: Arc::clone(&metrics),
            readiness: Arc::clone(&readiness),
            token_hash: config.admin.api_token_hash,
            check_host: !config.admin.allow_non_loopback,
            calls: caller,
        };
        tokio::task::spawn_local(lb_observe::admin::serve(listener, admin, async {
            let _ = admin_stopped.await;
        }));
    }
    let runtime_config = &config.runtime;
    tracing::info!(
        max_inflight = runtime_config.max_inflight_connections,
        per_ip_cap = runtime_config.per_ip_connection_cap,
        connect_timeout_ms = u64::try_from(runtime_config.connect_timeout.as_millis()).unwrap_or(u64::MAX),
        "accept-loop guards configured"
    );
    let (wanted, of_log) = (config.clone(), Arc::clone(&metrics));
    let access_log = spawn_blocking(move || boot::open_access_log(&wanted, &of_log)).await??;
    let (overlay, looked) = discovery::first(&config, &resolver, &metrics).await;
    let file = config;
    let config = overlay.over(&file);
    let origin = |pool: &PoolId, address: &HostPort| overlay.origin_in(&file, pool, address);
    let resolution = names::resolve(&config, origin, &resolver, &metrics, None).await;
    // On a thread that nothing else waits for: a file system that does not answer must not keep the order to stop waiting.
    let named = config.clone();
    let files = spawn_blocking(move || -> anyhow::Result<_> {
        let stamps = Stamps::take(&named);
        let tls = Tls::load(&named)?;
        let backends_tls = BackendsTls::load(&named, &BackendsTls::default())?;
        Ok((stamps, tls, backends_tls, StickyKeys::load(&named, &StickyKeys::default())?))
    });
    let (resolution, (stamps, tls, backends_tls, sticky)) = match (resolution, files.await?) {
        (Ok(resolution), Ok(files)) => (resolution, files),
        // All that is wrong is told at once.
        (Err(names), Err(files)) => anyhow::bail!("{names:#}\n{files:#}"),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    if config.listeners.iter().any(|listener| listener.tls.is_some()) {
        boot::forbid_core_dumps();
    }
    tls.show(&config, &metrics);
    lb_io::sockopts::set_backend_buffers(boot::buffers(&config));
    let mut bound = boot::bind(&config, &resolver, &metrics, workers).await?;
    let address_gate = AddressGate::new(config.runtime.per_ip_connection_cap);
    let mut registry = Registry::new(workers, boot::seed()).shown_in(Arc::clone(&metrics));
    let pools = pools::of(&mut registry, &config, &resolution.listeners);
    let snapshot = Arc::new(Snapshot {
        config,
        backends: resolution.listeners,
        pools,
        backends_tls,
        sticky: sticky.clone(),
    });
    let mut prober = Prober::new(WorkerIo::new(workers, boot::seed()));
    prober.follow(&snapshot);
    let workers = boot::start(
        &runtime,
        &snapshot,
        &mut bound,
        &tls,
        &address_gate,
        &metrics,
        access_log.as_ref(),
        workers,
    )?;
    readiness.advance(State::Ok);
    tracing::info!("probes flipped to Ready — service open for traffic");
    systemd::ready(&format!("serving {} listener(s), configuration version 1", bound.len()));
    tokio::task::spawn_local(systemd::watch(workers.orders.clone()));

    let (sources, found) = Sources::new();
    let mut control = Control {
        source,
        text,
        config: file,
        overlay,
        alone: None,
        stamps,
        sources,
        found,
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
        bound,
        tls,
        access_log,
        version: 1,
    };
    control.follow_sources(looked);
    control.show_backends(&control.snapshot.config);
    control.metrics.reload_restart_required.declare(&Plan::restart_fields());
    Ok((control, stop_admin))
}

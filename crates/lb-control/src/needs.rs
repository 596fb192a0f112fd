//! What a start needs from outside, gathered so that all that is wrong is told at once.

use std::rc::Rc;
use std::sync::Arc;

use lb_config::{AccessLogPlace, Config, PoolId, SocketName};
use lb_io::listener::ListeningSocket;
use lb_io::resolver::Resolver;
use lb_observe::access_log::{AccessLog, LogTarget};
use lb_observe::admin::{Call, Readiness};
use lb_observe::metrics::Metrics;
use lb_quic::Qlogs;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::admin_port::AdminPort;
use crate::descriptors;
use crate::discovery::{self, Look};
use crate::faults::{self, Collected};
use crate::file_keys::FileKeys;
use crate::listeners::Listeners;
use crate::named_files::Stamps;
use crate::names::{self, Patience, Resolution};
use crate::overlay::Overlay;
use crate::tls::{BackendsTls, Tls};
use crate::traces::TraceExport;
use crate::xdp::faults_of_machine;

/// What a start needs from outside: files, names, sockets other than those of listeners.
pub(crate) struct Needs {
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) admin_port: AdminPort,
    /// What is asked at the admin port, where that is served already.
    pub(crate) calls: Option<mpsc::Receiver<Call>>,
    pub(crate) access_log: Option<AccessLog>,
    /// What sends traces.
    pub(crate) traces: Option<TraceExport>,
    pub(crate) qlogs: Option<Qlogs>,
    pub(crate) resolver: Rc<Resolver>,
    /// What lies over the file.
    pub(crate) overlay: Overlay,
    pub(crate) looked: Vec<Look>,
    /// The file with that.
    pub(crate) config: Config,
    pub(crate) resolution: Resolution,
    pub(crate) files: Files,
    /// None of which is bound yet.
    pub(crate) listeners: Listeners,
}

/// What was read of the files that a configuration names.
pub(crate) struct Files {
    pub(crate) stamps: Stamps,
    pub(crate) tls: Tls,
    pub(crate) backends_tls: BackendsTls,
    pub(crate) keys: FileKeys,
}

impl Files {
    fn read(config: &Config) -> anyhow::Result<Self> {
        let stamps = Stamps::take(config);
        // An error of one kind tells of all files.
        let tls = Tls::load(config)?;
        let backends_tls = BackendsTls::load(config, &BackendsTls::default())?;
        Ok(Self { stamps, tls, backends_tls, keys: FileKeys::load(config, &FileKeys::default())? })
    }
}

impl Needs {
    /// Gets all of it. `sockets` are those that the process was started with; the admin port is served at once where `is_first`.
    ///
    /// # Errors
    /// Tells of all that cannot be had, and of listeners that could not be bound besides.
    pub(crate) async fn gather(
        file: &Config,
        mut sockets: Vec<ListeningSocket>,
        is_first: bool,
        metrics: &Arc<Metrics>,
        workers: usize,
    ) -> anyhow::Result<Self> {
        descriptors::warn_of_limit(file, None, workers);
        tell_of_limits(file);
        let resolver = Rc::new(names::resolver(&file.dns)?);
        let readiness = Readiness::new();
        // Steps that fail are noted, and the next ones tried all the same.
        let mut faults = Collected::default();
        faults.extend(faults_of_machine(file));
        let mut admin_port = faults.keep(AdminPort::bind(file, &mut sockets)).unwrap_or_default();
        // The process that this one takes over from answers there until this one serves.
        let calls = if is_first { Some(admin_port.serve(file, metrics, &readiness)?) } else { None };
        let (wanted, of_log) = (file.clone(), Arc::clone(metrics));
        let access_log = faults.keep(spawn_blocking(move || open_access_log(&wanted, &of_log)).await?);
        let (wanted, of_traces) = (file.clone(), Arc::clone(metrics));
        let traces = faults.keep(spawn_blocking(move || start_traces(&wanted, &of_traces)).await?);
        let wanted = file.clone();
        let qlogs = faults.keep(spawn_blocking(move || open_qlogs(&wanted)).await?);
        let (overlay, looked) = discovery::first(file, &resolver, metrics).await;
        let config = overlay.over(file);
        let resolution = {
            let origins = overlay.origins(file);
            let origin = |pool: &PoolId, address: &SocketName| origins.of(pool, address);
            names::resolve(&config, origin, &resolver, metrics, (None, Patience::Short)).await
        };
        let resolution = faults.keep(resolution);
        // On a thread that nothing else waits for: a file system that does not answer must not keep the order to stop waiting.
        let named = config.clone();
        let files = faults.keep(spawn_blocking(move || Files::read(&named)).await?);
        let listeners = Listeners::with_sockets(sockets);
        let (Some(access_log), Some(traces), Some(qlogs), Some(resolution), Some(files), true) =
            (access_log, traces, qlogs, resolution, files, faults.is_empty())
        else {
            faults.extend(listeners.obstacles(&config, &resolver, metrics).await);
            return Err(faults.into_error());
        };
        Ok(Self {
            readiness,
            admin_port,
            calls,
            access_log,
            traces,
            qlogs,
            resolver,
            overlay,
            looked,
            config,
            resolution,
            files,
            listeners,
        })
    }
}

/// Says what the limits are that operators ask for first.
fn tell_of_limits(config: &Config) {
    let Config { pool, dns, runtime, .. } = config;
    tracing::info!(version = 1, "control plane (file-backed) ready — config reloads are SIGHUP-driven");
    tracing::info!(per_peer_max = pool.per_peer_max, total_max = pool.total_max, "TCP backend pool ready");
    tracing::info!(
        "DNS resolver ready (positive cap {}s, negative TTL {}s)",
        dns.max_ttl.as_secs(),
        dns.negative_ttl.as_secs()
    );
    tracing::info!(
        max_inflight = runtime.max_inflight_connections,
        per_ip_cap = runtime.per_ip_connection_cap,
        connect_timeout_ms = u64::try_from(runtime.connect_timeout.as_millis()).unwrap_or(u64::MAX),
        "accept-loop guards configured"
    );
}

/// Opens the access log that the configuration asks for.
fn open_access_log(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<AccessLog>> {
    let Some(wanted) = &config.observability.access_log else { return Ok(None) };
    let (target, name) = match wanted {
        AccessLogPlace::Stdout => (LogTarget::Stdout, "stdout".to_owned()),
        AccessLogPlace::File(path) => (LogTarget::File(path.clone()), path.display().to_string()),
    };
    let format = config.observability.access_log_format.clone();
    AccessLog::open(target, format, Arc::clone(metrics)).map(Some).map_err(|error| {
        faults::lines(&config.faults(None, &["access_log"], &name, &format!("cannot be opened: {error}")))
    })
}

/// Starts what sends traces to the collector that the configuration names.
fn start_traces(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<TraceExport>> {
    let Some(collector) = &config.tracing.collector else { return Ok(None) };
    TraceExport::start(collector, Arc::clone(metrics)).map(Some).map_err(|error| {
        let problem = format!("cannot be used: {error:#}");
        faults::lines(&config.faults(None, &["endpoint"], &collector.endpoint, &problem))
    })
}

/// Opens the directory for logs of QUIC connections that the configuration asks for.
fn open_qlogs(config: &Config) -> anyhow::Result<Option<Qlogs>> {
    let Some(directory) = &config.observability.qlog_dir else { return Ok(None) };
    Qlogs::open(directory, config.observability.qlog_one_in).map(Some).map_err(|error| {
        let name = directory.display().to_string();
        faults::lines(&config.faults(None, &["qlog_dir"], &name, &format!("cannot be written: {error}")))
    })
}

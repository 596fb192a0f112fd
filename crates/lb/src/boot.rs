//! From a configuration to running workers.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use lb_config::{AccessLog as AccessLogConfig, Config, Listener, MetricsBind, Protocol, Runtime};
use lb_io::gate::{AddressGate, CountGate};
use lb_io::resolver::Resolver;
use lb_io::sockopts::Buffers;
use lb_observe::access_log::{AccessLog, Target};
use lb_observe::metrics::{HttpVersion, Metrics};
use tokio::sync::mpsc;

use crate::acceptor::Gates;
use crate::check::NO_LISTENERS;
use crate::tls::Tls;
use crate::worker::{self, Birth, BoundListener, Order, Snapshot};
use crate::{faults, names};

/// A listener whose sockets are bound, for all workers.
pub(crate) struct Bound {
    /// Position in the configuration.
    pub(crate) index: usize,
    pub(crate) name: String,
    /// Places taken by its connections.
    pub(crate) gate: Arc<CountGate>,
    /// For each worker, one socket per address.
    sockets: Vec<Vec<std::net::TcpListener>>,
}

/// The running workers.
pub(crate) struct Workers {
    pub(crate) orders: Vec<mpsc::UnboundedSender<Order>>,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Waits until a worker is gone that nobody has told to stop, and says which.
    pub(crate) fn lost(&self) -> impl Future<Output = usize> + use<> {
        let mut gone: Vec<_> = self
            .orders
            .iter()
            .cloned()
            .map(|orders| Box::pin(async move { orders.closed().await }))
            .collect();
        poll_fn(move |cx| match gone.iter_mut().position(|gone| gone.as_mut().poll(cx).is_ready()) {
            Some(worker) => Poll::Ready(worker),
            None => Poll::Pending,
        })
    }

    /// Gives an order to every worker.
    pub(crate) fn order(&self, mut order: impl FnMut() -> Order) {
        for orders in &self.orders {
            // A worker that is gone has nothing left to do.
            let _ = orders.send(order());
        }
    }
}

/// The number of workers that the configuration asks for.
pub(crate) fn worker_count(config: &Config) -> usize {
    config.runtime.workers.map_or_else(lb_io::default_workers, std::num::NonZeroUsize::get)
}

/// What the configuration says of the driver.
pub(crate) fn io_choice(config: &Config) -> lb_io::IoChoice {
    match config.runtime.io_backend {
        lb_config::IoBackend::Auto => lb_io::IoChoice::Auto,
        lb_config::IoBackend::IoUring => lb_io::IoChoice::IoUring,
        lb_config::IoBackend::Epoll => lb_io::IoChoice::Epoll,
    }
}

/// Keeps private keys out of core dumps (attack T-10).
pub(crate) fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
}

/// What the configuration says of the buffers of sockets.
pub(crate) fn buffers(config: &Config) -> Buffers {
    let Runtime { receive_buffer, send_buffer, .. } = &config.runtime;
    Buffers { receive: receive_buffer.map(NonZeroUsize::get), send: send_buffer.map(NonZeroUsize::get) }
}

/// With the remedy, where a port may not be bound because it is low.
fn explained(error: std::io::Error, address: SocketAddr) -> anyhow::Error {
    let is_low = address.port() != 0 && error.kind() == std::io::ErrorKind::PermissionDenied;
    let error = anyhow::Error::new(error);
    if !is_low {
        return error;
    }
    error.context(format!(
        "port {} needs the capability CAP_NET_BIND_SERVICE (AmbientCapabilities= of a systemd unit, cap_add of a container), or \
         net.ipv4.ip_unprivileged_port_start={0} or lower",
        address.port()
    ))
}

/// Binds every listener that has something behind it. Nothing is served before all are bound.
pub(crate) async fn bind(
    config: &Config,
    resolver: &Resolver,
    metrics: &Metrics,
    workers: usize,
) -> anyhow::Result<Vec<Bound>> {
    let mut all = Vec::new();
    let mut faults = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        if !listener.starts() {
            tracing::warn!(listener = listener.name, "listener has no backends configured — skipping");
            continue;
        }
        describe(listener);
        let sockets = match names::listen_addresses(&listener.address, resolver, metrics).await {
            Ok(addresses) => sockets(listener, addresses, workers, buffers(config)),
            Err(error) => Err(error),
        };
        match sockets {
            Ok(sockets) => {
                show_listener(metrics, listener);
                all.push(Bound { index, name: listener.name.clone(), gate: Arc::default(), sockets });
            }
            // The others are tried as well, so that all that is in the way is told at once.
            Err(error) => faults.extend(faults::of_listener(config, listener, &format!("{error:#}"))),
        }
    }
    if !faults.is_empty() {
        return Err(faults::lines(&faults));
    }
    if all.is_empty() {
        bail!("{NO_LISTENERS}");
    }
    Ok(all)
}

/// For each worker, a socket at each of the addresses of a listener.
fn sockets(
    listener: &Listener,
    addresses: Vec<SocketAddr>,
    workers: usize,
    buffers: Buffers,
) -> anyhow::Result<Vec<Vec<std::net::TcpListener>>> {
    let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for mut address in addresses {
        // Port 0 means any port, but the same one for every worker.
        for own in &mut sockets {
            let socket = lb_io::listener::bind(address, buffers)
                .map_err(|error| explained(error, address))
                .with_context(|| format!("cannot bind {address}"))?;
            address = socket.local_addr().unwrap_or(address);
            own.push(socket);
        }
        tracing::info!(listener = listener.name, protocol = %listener.protocol, "listening on {address}");
    }
    Ok(sockets)
}

/// Shows a listener's drain budget, and the versions of HTTP that it serves.
pub(crate) fn show_listener(metrics: &Metrics, listener: &Listener) {
    let of_listener = metrics.listener(&listener.name);
    let millis = i64::try_from(listener.drain_timeout.as_millis()).unwrap_or(i64::MAX);
    of_listener.drain_timeout_ms.set(millis);
    if listener.protocol.is_http() {
        of_listener.serves(&[HttpVersion::H1]);
    }
    if listener.protocol == Protocol::H1s || listener.h2c {
        of_listener.serves(&[HttpVersion::H2]);
    }
}

fn describe(listener: &Listener) {
    let backends = listener.pool.backends.len();
    let name = &listener.name;
    match listener.protocol {
        Protocol::Tls => tracing::info!(listener = name, backends, "listener configured for TLS termination"),
        Protocol::H1s => {
            tracing::info!(listener = name, backends, "listener configured for TLS termination and HTTP");
        }
        Protocol::H1 => tracing::info!(listener = name, backends, "listener configured for HTTP/1.1"),
        _ => tracing::info!(listener = name, backends, "listener configured for plain TCP forwarding"),
    }
}

/// Starts the workers on their sockets.
#[expect(clippy::too_many_arguments, reason = "what a process consists of")]
pub(crate) fn start(
    runtime: &lb_io::Runtime,
    snapshot: &Arc<Snapshot>,
    bound: &mut [Bound],
    tls: &Tls,
    address_gate: &Arc<AddressGate>,
    metrics: &Arc<Metrics>,
    access_log: Option<&AccessLog>,
    workers: usize,
) -> anyhow::Result<Workers> {
    let mut running = Workers { orders: Vec::new(), threads: Vec::new() };
    let seed = seed();
    for id in 0..workers {
        let (orders, receiver) = mpsc::unbounded_channel();
        let sockets = bound
            .iter_mut()
            .map(|bound| BoundListener {
                index: bound.index,
                sockets: bound.sockets.pop().unwrap_or_default(),
                tls: tls.bundle(bound.index),
                gates: Gates { address: Arc::clone(address_gate), listener: Arc::clone(&bound.gate) },
            })
            .collect();
        let birth = Birth {
            id,
            seed: seed.wrapping_add(u64::try_from(id).unwrap_or_default()),
            snapshot: Arc::clone(snapshot),
            sockets,
            metrics: Arc::clone(metrics),
            access_log: access_log.map(AccessLog::handle),
            orders: receiver,
        };
        let thread = runtime
            .spawn_worker(id, move || worker::run(birth))
            .with_context(|| format!("worker {id} cannot be started"))?;
        running.orders.push(orders);
        running.threads.push(thread);
    }
    Ok(running)
}

/// Opens the access log that the configuration asks for.
pub(crate) fn open_access_log(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<AccessLog>> {
    let Some(wanted) = &config.observability.access_log else { return Ok(None) };
    let (target, name) = match wanted {
        AccessLogConfig::Stdout => (Target::Stdout, "stdout".to_owned()),
        AccessLogConfig::File(path) => (Target::File(path.clone()), path.display().to_string()),
    };
    let log = AccessLog::open(target, Arc::clone(metrics))
        .with_context(|| format!("observability.access_log: {name} cannot be opened"))?;
    Ok(Some(log))
}

/// Binds the admin port, if there is to be one. Nobody asked for the default address in so many words: another process may have it.
pub(crate) fn bind_admin(wanted: MetricsBind) -> anyhow::Result<Option<tokio::net::TcpListener>> {
    let bind = |address: SocketAddr| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    match wanted {
        MetricsBind::Off => Ok(None),
        MetricsBind::At(address) => bind(address)
            .map(Some)
            .map_err(|error| explained(error, address))
            .with_context(|| format!("observability.metrics_bind: cannot bind {address}")),
        MetricsBind::Default => Ok(bind(MetricsBind::DEFAULT)
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    "no admin port: {} cannot be bound — set observability.metrics_bind",
                    MetricsBind::DEFAULT
                );
            })
            .ok()),
    }
}

/// A number that differs from process to process and from start to start.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

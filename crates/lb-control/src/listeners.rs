//! Listeners whose sockets are bound.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, bail};
use lb_config::{Config, Listener, Protocol, Runtime};
use lb_io::gate::CountGate;
use lb_io::resolver::Resolver;
use lb_io::sockopts::Buffers;
use lb_observe::metrics::{HttpVersion, Metrics};

use crate::source::NO_LISTENERS;
use crate::{faults, names};

/// A listener whose sockets are bound, for all workers.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Position in the configuration.
    pub(crate) index: usize,
    pub(crate) name: String,
    /// Places taken by its connections.
    pub(crate) gate: Arc<CountGate>,
    /// For each worker, one socket per address.
    pub(crate) sockets: Vec<Vec<std::net::TcpListener>>,
}

/// What the configuration says of the buffers of sockets.
pub(crate) fn buffers(config: &Config) -> Buffers {
    let Runtime { receive_buffer, send_buffer, .. } = &config.runtime;
    Buffers { receive: receive_buffer.map(NonZeroUsize::get), send: send_buffer.map(NonZeroUsize::get) }
}

/// With the remedy, where a port may not be bound because it is low.
pub(crate) fn explained(error: std::io::Error, address: SocketAddr) -> anyhow::Error {
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
                show(metrics, listener);
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
pub(crate) fn show(metrics: &Metrics, listener: &Listener) {
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

//! Listeners whose sockets are bound.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use lb_config::{Config, ConfigError, Listener, ListenerId, ListenerKind, Protocol};
use lb_core::address::Address;
use lb_core::identity::Transport;
use lb_io::gate::{AddressGate, CountGate};
use lb_io::listener::ListeningSocket;
use lb_io::resolver::Resolver;
use lb_io::sockopts::Buffers;
use lb_io::udp::Steering;
use lb_io::unix::SocketFile;
use lb_observe::metrics::{HttpVersion, Metrics};
use lb_quic::passthrough::PassthroughShared;
use lb_quic::{Qlogs, QuicShared};
use lb_security::admission::Gates;

use crate::orders::{ListenerKey, ListenerSockets};
use crate::tls::Tls;
use crate::{faults, names};
use bind::{New, PerWorker, bind_all, inherited, try_bind};

mod bind;

pub(crate) use bind::{buffers, explained};

/// A listener whose sockets are bound, for all workers.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) id: ListenerId,
    pub(crate) key: ListenerKey,
    kind: ListenerKind,
    /// Places taken by its connections.
    pub(crate) gate: Arc<CountGate>,
    /// Flows of each client address.
    sources: Arc<AddressGate>,
    /// Workers have duplicates: so a listener that becomes another one at its address never stops to listen.
    sockets: PerWorker,
    /// What all workers know of QUIC that it forwards without keys.
    passthrough: Arc<PassthroughShared>,
    /// The permissions that the file of its Unix socket was given.
    mode: Option<u32>,
}

impl Bound {
    /// For each worker, the sockets that it accepts from.
    ///
    /// # Errors
    /// When descriptors are wanting.
    pub(crate) fn for_workers(
        &self,
        tls: &Tls,
        address_gate: &Arc<AddressGate>,
        (steering, qlogs): (&Arc<Steering>, &Option<Qlogs>),
    ) -> std::io::Result<Vec<ListenerSockets>> {
        let shared = |secret| QuicShared { secret, steering: Arc::clone(steering), qlogs: qlogs.clone() };
        let quic = tls.secret(&self.id).map(shared);
        let duplicates = self.sockets.iter().map(|own| {
            let sockets = own.iter().map(ListeningSocket::for_worker).collect::<Result<_, _>>()?;
            let gates = Gates {
                address: Arc::clone(address_gate),
                listener: Arc::clone(&self.gate),
                sources: Arc::clone(&self.sources),
            };
            Ok(ListenerSockets {
                id: self.id.clone(),
                key: self.key,
                sockets,
                gates,
                tls: tls.bundle(&self.id),
                quic: quic.clone(),
                passthrough: Arc::clone(&self.passthrough),
            })
        });
        duplicates.collect()
    }

    /// The files of its Unix sockets that this process is to remove.
    fn files(&self) -> impl Iterator<Item = &Arc<SocketFile>> {
        self.sockets.iter().flatten().filter_map(ListeningSocket::file)
    }

    /// Gives the file of its Unix socket the permissions that the configuration wants.
    fn show_mode(&mut self, listener: &Listener) {
        let mode = listener.socket_mode;
        if self.mode == Some(mode) {
            return;
        }
        for file in self.sockets.first().into_iter().flatten().filter_map(ListeningSocket::file) {
            if let Err(error) = file.set_mode(mode) {
                tracing::warn!(listener = listener.name, %error, "socket_mode cannot be set — the file keeps its permissions");
            }
        }
        self.mode = Some(mode);
    }

    /// Keeps no socket open any more, and removes the files of Unix sockets that no other listener has by now. Those of workers go on.
    pub(crate) fn let_go(&mut self) {
        self.sockets.clear();
    }

    /// Says in the log and in metrics that the listener is there.
    fn announce(&self, listener: &Listener, metrics: &Metrics) {
        describe(listener);
        let addresses = self.sockets.first().into_iter().flatten().map(ListeningSocket::address);
        let mut addresses: Vec<_> = addresses.collect();
        addresses.dedup();
        for address in addresses {
            tracing::info!(listener = listener.name, protocol = %listener.protocol, "listening on {address}");
        }
        show(metrics, listener);
    }

    /// Duplicates of the sockets at this address, if it is bound there.
    fn at(&self, address: Address, transport: Transport) -> Option<std::io::Result<PerWorker>> {
        let at_address =
            self.sockets.iter().map(|own| own.iter().filter(|socket| socket.is_at(&address, transport)));
        let duplicates: std::io::Result<PerWorker> =
            at_address.map(|own| own.map(ListeningSocket::try_clone).collect()).collect();
        match duplicates {
            Ok(found) if found.iter().any(Vec::is_empty) => None,
            found => Some(found),
        }
    }

    /// Duplicates of all its sockets.
    fn share(&self) -> anyhow::Result<PerWorker> {
        let duplicates = self.sockets.iter().map(|own| own.iter().map(ListeningSocket::try_clone).collect());
        duplicates.collect::<std::io::Result<_>>().context("cannot share a listening socket")
    }
}

impl Turn {
    /// For each worker, the sockets of the listeners that are opened.
    ///
    /// # Errors
    /// When descriptors are wanting.
    pub(crate) fn sockets(
        &self,
        tls: &Tls,
        address_gate: &Arc<AddressGate>,
        (steering, qlogs): (&Arc<Steering>, &Option<Qlogs>),
        workers: usize,
    ) -> anyhow::Result<Vec<Vec<ListenerSockets>>> {
        let mut all: Vec<Vec<ListenerSockets>> = (0..workers).map(|_| Vec::new()).collect();
        for bound in &self.opened {
            let sockets = bound.for_workers(tls, address_gate, (steering, qlogs));
            let sockets = sockets.context("cannot share a listening socket")?;
            for (own, sockets) in all.iter_mut().zip(sockets) {
                own.push(sockets);
            }
        }
        Ok(all)
    }
}

/// The listeners that are bound, and the keys that are given out.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) bound: Vec<Bound>,
    /// Listening sockets that the process was started with, and that no listener has.
    spare: Vec<ListeningSocket>,
    /// Files of Unix sockets among those. They go with this process, and not earlier: the process that has given them may go on without it.
    abandoned: Vec<Arc<SocketFile>>,
    last_key: u64,
}

/// Listeners that come and go. Nothing of it is in force.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Those that are bound for it.
    pub(crate) opened: Vec<Bound>,
    /// Those that are to end.
    pub(crate) closed: Vec<ListenerKey>,
}

impl Listeners {
    /// No listener yet, but sockets for those that are to be bound where these are.
    pub(crate) fn with_sockets(spare: Vec<ListeningSocket>) -> Self {
        Self { spare, ..Self::default() }
    }

    /// Sockets that no listener has taken: they are closed, since nothing accepts from them.
    pub(crate) fn close_spare(&mut self) {
        for socket in self.spare.drain(..) {
            tracing::warn!(
                address = %socket.address(),
                "a listening socket that the process was started with belongs to no listener — closed"
            );
            self.abandoned.extend(socket.file().cloned());
        }
    }

    /// Every socket that is bound. Workers share a Unix socket, which is there once.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = &ListeningSocket> {
        self.bound.iter().flat_map(|bound| {
            let is_unix = |socket: &ListeningSocket| matches!(socket.address(), Address::Unix(_));
            let workers = bound.sockets.iter().enumerate();
            workers.flat_map(move |(at, own)| own.iter().filter(move |socket| at == 0 || !is_unix(socket)))
        })
    }

    /// Where UDP sockets are bound.
    pub(crate) fn udp_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let first = self.bound.iter().filter_map(|bound| bound.sockets.first());
        first.flatten().filter_map(ListeningSocket::udp_address)
    }

    /// Leaves the files of Unix sockets to the process that serves in place of this one.
    pub(crate) fn keep_files(&self) {
        let files = self.bound.iter().flat_map(Bound::files).chain(&self.abandoned);
        files.for_each(|file| file.keep());
    }

    /// What keeps listeners that a configuration wants bound, and that are not, from being bound. Nothing listens meanwhile, so no client
    /// notices: for a configuration that is refused for something else.
    pub(crate) async fn obstacles(
        &self,
        config: &Config,
        resolver: &Resolver,
        metrics: &Metrics,
    ) -> Vec<ConfigError> {
        let has = |address: &Address, transport| {
            let bound = self.bound.iter().flat_map(|bound| bound.sockets.iter().flatten());
            bound.chain(&self.spare).any(|socket| socket.is_at(address, transport))
        };
        let mut faults = Vec::new();
        for listener in config.listeners.iter().filter(|listener| listener.starts()) {
            if self.bound.iter().any(|bound| bound.id == listener.id()) {
                continue;
            }
            let transport = listener.transport();
            let outcome = match names::listen_addresses(&listener.address, resolver, metrics).await {
                Ok(addresses) => addresses
                    .iter()
                    .filter(|address| !has(address, transport))
                    .try_for_each(|address| try_bind(address, transport)),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                faults.extend(faults::of_listener(config, listener, &format!("{error:#}")));
            }
        }
        faults
    }

    /// Binds what a configuration wants bound and is not, and names what it does not want any more. A listener that speaks another protocol
    /// is another one, but has the sockets of the one before.
    ///
    /// # Errors
    /// Names every listener that cannot be bound, with its place in the file. Nothing is left bound of the others then.
    pub(crate) async fn turn(
        &mut self,
        config: &Config,
        resolver: &Resolver,
        metrics: &Metrics,
        workers: usize,
    ) -> anyhow::Result<Turn> {
        let is_gone = |bound: &&Bound| {
            config.listener(&bound.id).is_none_or(|listener| !listener.starts() || !stays(bound, listener))
        };
        let going: Vec<&Bound> = self.bound.iter().filter(is_gone).collect();
        let closed = going.iter().map(|bound| bound.key).collect();
        let mut opened = Vec::new();
        let mut last_key = self.last_key;
        let mut faults = Vec::new();
        for listener in &config.listeners {
            if !listener.starts() {
                tracing::warn!(listener = listener.name, "listener has no backends configured — skipping");
                continue;
            }
            if self.bound.iter().any(|bound| stays(bound, listener)) {
                continue;
            }
            let sockets = match going.iter().find(|bound| bound.id == listener.id()) {
                Some(bound) => bound.share(),
                None => match names::listen_addresses(&listener.address, resolver, metrics).await {
                    Ok(addresses) => {
                        let new = New {
                            transport: listener.transport(),
                            mode: listener.socket_mode,
                            workers,
                            buffers: buffers(config),
                        };
                        sockets(addresses, &going, &self.spare, &new)
                    }
                    Err(error) => Err(error),
                },
            };
            match sockets {
                Ok(sockets) => {
                    last_key = last_key.wrapping_add(1);
                    opened.push(Bound {
                        id: listener.id(),
                        key: ListenerKey(last_key),
                        kind: listener.kind(),
                        gate: Arc::default(),
                        sources: AddressGate::new(u32::MAX),
                        passthrough: Arc::default(),
                        sockets,
                        mode: None,
                    });
                }
                // The others are tried as well, so that all that is in the way is told at once.
                Err(error) => faults.extend(faults::of_listener(config, listener, &format!("{error:#}"))),
            }
        }
        if !faults.is_empty() {
            return Err(faults::lines(&faults));
        }
        // Options of a socket are those of the other process as well that has it, so nothing may fail from here on that is likely to.
        for bound in &opened {
            self.adopt(bound, buffers(config)).with_context(|| format!("listener {}", bound.id.name))?;
        }
        self.last_key = last_key;
        Ok(Turn { opened, closed })
    }

    /// Gives sockets that the process was started with the options of those that it binds itself.
    fn adopt(&self, bound: &Bound, buffers: Buffers) -> anyhow::Result<()> {
        for socket in bound.sockets.iter().flatten() {
            let address = socket.address();
            if !self.spare.iter().any(|spare| spare.is_at(&address, socket.transport())) {
                continue;
            }
            let adopted = lb_io::listener::adopt(socket, buffers)
                .context("the kernel refuses options of a socket that the process was started with")?;
            if adopted.takes_ipv4 {
                tracing::warn!(
                    %address,
                    "a socket that the process was started with accepts IPv4 as well, which a listener at this address otherwise does \
                     not — systemd: BindIPv6Only=ipv6-only"
                );
            }
        }
        Ok(())
    }

    /// Takes over what is opened, and gives up what is closed: its sockets are those of the workers alone from now on.
    pub(crate) fn take(&mut self, turn: Turn, config: &Config, metrics: &Metrics) -> Vec<Bound> {
        let is_closed = |bound: &mut Bound| turn.closed.contains(&bound.key);
        let mut closed: Vec<Bound> = self.bound.extract_if(.., is_closed).collect();
        // A listener that is opened at the same path has the file as well.
        closed.iter_mut().for_each(Bound::let_go);
        for bound in &turn.opened {
            let taken: Vec<_> = bound.sockets.iter().flatten().collect();
            self.spare.retain(|spare| {
                !taken.iter().any(|socket| spare.is_at(&socket.address(), socket.transport()))
            });
        }
        for bound in turn.opened {
            if let Some(listener) = config.listener(&bound.id) {
                bound.announce(listener, metrics);
            }
            self.bound.push(bound);
        }
        for bound in &mut self.bound {
            if let Some(listener) = config.listener(&bound.id) {
                bound.show_mode(listener);
            }
        }
        closed
    }
}

/// For each worker, a socket at each of the addresses of a listener: that of one that is going, otherwise a new one.
fn sockets(
    addresses: Vec<Address>,
    going: &[&Bound],
    spare: &[ListeningSocket],
    new: &New,
) -> anyhow::Result<PerWorker> {
    let workers = new.workers;
    let mut sockets: PerWorker = (0..workers).map(|_| Vec::new()).collect();
    for address in addresses {
        let known = going
            .iter()
            .find_map(|bound| bound.at(address, new.transport))
            .or_else(|| inherited(spare, (address, new.transport), workers));
        let at_address = match known {
            Some(known) => known.context("cannot share a listening socket")?,
            None => bind_all(address, new)?,
        };
        for (own, more) in sockets.iter_mut().zip(at_address) {
            own.extend(more);
        }
    }
    Ok(sockets)
}

/// Whether a bound listener is the one that the configuration wants.
fn stays(bound: &Bound, listener: &Listener) -> bool {
    bound.id == listener.id() && bound.kind == listener.kind()
}

/// Shows a listener's drain budget, and the versions of HTTP that it serves.
pub(crate) fn show(metrics: &Metrics, listener: &Listener) {
    let of_listener = metrics.listener(&listener.name);
    let millis = i64::try_from(listener.drain_timeout.as_millis()).unwrap_or(i64::MAX);
    of_listener.drain_timeout_ms.set(millis);
    match listener.protocol {
        Protocol::Quic if listener.raw_proxy().is_some() => of_listener.set_quic_relay(),
        Protocol::Quic => of_listener.serves(&[HttpVersion::H3]),
        protocol if protocol.is_http() => of_listener.serves(&[HttpVersion::H1]),
        _ => {}
    }
    if listener.protocol == Protocol::H1s || listener.h2c {
        of_listener.serves(&[HttpVersion::H2]);
    }
    if listener.tls.is_none() {
        of_listener.clear_certificates();
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
        Protocol::Quic if listener.raw_proxy().is_some() => {
            tracing::info!(listener = name, backends, "listener configured for a relay of QUIC");
        }
        Protocol::Quic => tracing::info!(listener = name, backends, "listener configured for HTTP/3"),
        Protocol::Udp => tracing::info!(listener = name, backends, "listener configured for UDP forwarding"),
        Protocol::Passthrough => {
            tracing::info!(listener = name, backends, "listener configured for QUIC passthrough");
        }
        _ => tracing::info!(listener = name, backends, "listener configured for plain TCP forwarding"),
    }
}

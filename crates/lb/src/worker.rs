//! One worker: its listeners, and the orders it takes from the control thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lb_config::{Config, PoolId};
use lb_control::{Change, ListenerKey, ListenerSockets, NewWorker, Order, Snapshot};
use lb_core::relief::Relief;
use lb_core::rng::SplitMix64;
use lb_http::service::{HttpWorker, Service as HttpService};
use lb_http::upstream::Upstreams;
use lb_io::listener::ListeningSocket;
use lb_io::udp::UdpSocket;
use lb_io::{Connections, Phase, WorkerIo};
use lb_l4::{TcpService, UdpService};
use lb_observe::metrics::Metrics;
use lb_pool::WorkerPool;
use lb_quic::passthrough::PassthroughService;
use lb_quic::{QuicListener, QuicMemory, QuicService, QuicSettings, RawDialer};
use lb_security::admission::{Admissions, Handshakes};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::acceptor::Acceptor;

use pools::Made;
use running::Running;

mod pools;
mod running;
#[cfg(test)]
mod tests;

/// How exactly the turns of connections to end are kept during a drain.
const CLOSE_STEP: Duration = Duration::from_millis(20);

/// How often memory is looked over while a crowd is here or has just left.
const REST: Duration = Duration::from_secs(1);

/// What a listener does with its connections.
#[derive(Debug)]
pub(crate) enum Protocol {
    Http(Rc<HttpService>),
    Tcp(Rc<TcpService>),
    Quic(Rc<QuicListener>),
    Udp(Rc<UdpService>),
    Passthrough(Rc<PassthroughService>),
}

struct Worker {
    io: Rc<WorkerIo>,
    seed: u64,
    /// Descriptors that the sockets of one listener towards backends may take.
    descriptors: usize,
    http: Rc<HttpWorker>,
    metrics: Arc<Metrics>,
    upstreams: Rc<Upstreams>,
    raw_dialer: Rc<RawDialer>,
    listeners: Vec<Running>,
    handshakes: Rc<Handshakes>,
    quic_memory: Rc<QuicMemory>,
    /// The pools of the snapshot. Listeners may have one in common, and one that a reload does not touch goes on with its counts.
    pools: RefCell<HashMap<PoolId, Rc<WorkerPool>>>,
    snapshot: Arc<Snapshot>,
    relief: Relief,
}

/// Runs a worker until it is told to stop.
pub(crate) async fn run(new: NewWorker) {
    let NewWorker { id, seed, snapshot, metrics, access_log, traces, mut orders } = new;
    let io = Rc::new(WorkerIo::new(id, seed));
    let upstreams = Upstreams::new(snapshot.config.pool.clone(), metrics.worker(id));
    let workers = crate::boot::worker_count(&snapshot.config);
    let quic_memory = QuicMemory::new(&snapshot.config, workers, metrics.worker(id));
    lb_quic::plug(&upstreams, &io, &quic_memory);
    let raw_dialer = RawDialer::new(&io, &quic_memory);
    let spare = Rc::clone(&upstreams);
    io.set_spare(Rc::new(move || spare.give_way_to_all()));
    let handshakes = Handshakes::new(&snapshot.config);
    let taps = Arc::clone(&metrics.taps);
    let http =
        HttpWorker::new(Rc::clone(&io), metrics.worker(id), Rc::clone(&upstreams), access_log, taps, traces);
    let (listeners, pools) = (Vec::new(), RefCell::default());
    let relief = Relief::default();
    let descriptors = descriptors_of_worker(workers);
    let mut worker = Worker {
        io,
        seed,
        descriptors,
        http,
        metrics,
        upstreams,
        raw_dialer,
        listeners,
        handshakes,
        quic_memory,
        pools,
        snapshot,
        relief,
    };
    let mut rest_at = None;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = worker.upstreams.sweep_is_due() => {
                worker.upstreams.sweep(Instant::now());
                rest_at = worker.rest();
                continue;
            }
            () = rest_is_due(&worker.http, rest_at) => {
                rest_at = worker.rest();
                continue;
            }
        };
        match order {
            Some(Order::Apply(change, done)) => worker.apply(change, done),
            Some(Order::Answer(answer)) => {
                let _ = answer.send(());
            }
            Some(Order::StopAccepting { read_elsewhere, done }) => {
                worker.stop_accepting(&read_elsewhere, done);
            }
            Some(Order::Drain(keys)) => worker.drain(&keys),
            Some(Order::Farewell(key)) => worker.advance(key, Phase::Farewell),
            Some(Order::Abort(key)) => worker.advance(key, Phase::Abort),
            Some(Order::Forget(key)) => worker.listeners.retain(|running| running.key != key),
            Some(Order::Stop) | None => return,
        }
    }
}

impl Worker {
    /// Accepts on a listener of the snapshot.
    fn open(&self, bound: ListenerSockets, snapshot: &Snapshot, made: &mut Made) -> Option<Running> {
        let ListenerSockets { id, key, mut sockets, gates, tls, quic, passthrough } = bound;
        let (listener, pool) = snapshot.listener(&id)?;
        let udp = sockets.iter().filter_map(ListeningSocket::udp_address).collect();
        if listener.tls.is_some() && tls.is_none() {
            // Clients would be served in plain text.
            tracing::error!(listener = listener.name, "a listener without its certificates is not opened");
            return None;
        }
        let metrics = self.metrics.listener(&listener.name);
        let (worker, worker_metrics) = (self.io.id, self.metrics.worker(self.io.id));
        let most = max_inflight(&snapshot.config, listener);
        let admissions = Admissions::new(
            listener.name.clone(),
            gates,
            most,
            worker,
            Arc::clone(&metrics),
            Arc::clone(&worker_metrics),
        );
        let connections = &admissions.connections;
        let protocol = if let Some(settings) = self.passthrough_settings(snapshot, listener, made) {
            Protocol::Passthrough(PassthroughService::new(
                Rc::clone(&self.io),
                (passthrough, self.descriptors),
                Rc::clone(&admissions),
                worker_metrics,
                settings,
            ))
        } else if let Some(settings) = self.raw_settings(snapshot, listener, pool, made) {
            let (Some(shared), Some(tls)) = (quic, &tls) else { return None };
            let dialer = Rc::clone(&self.raw_dialer);
            let service = QuicService::Relay { settings, dialer };
            let parts = self.quic_parts(listener, service, &admissions, (tls, shared))?;
            Protocol::Quic(QuicListener::new(parts))
        } else if listener.protocol.is_http() {
            let settings = self.http_settings(snapshot, listener, pool, made);
            let (worker, name) = (Rc::clone(&self.http), listener.name.clone());
            let service = HttpService::new(worker, name, metrics, Rc::clone(connections), settings);
            match (quic, &tls) {
                (Some(shared), Some(tls)) => {
                    let max_requests = snapshot.config.runtime.max_requests_per_h3_connection;
                    let service = QuicService::Http { service, max_requests };
                    let parts = self.quic_parts(listener, service, &admissions, (tls, shared))?;
                    Protocol::Quic(QuicListener::new(parts))
                }
                _ => Protocol::Http(service),
            }
        } else if listener.protocol == lb_config::Protocol::Udp {
            let settings = self.udp_settings(listener, self.tcp_pool(snapshot, pool, made));
            let (io, admissions) = (Rc::clone(&self.io), Rc::clone(&admissions));
            let own = sockets.drain(..).map(UdpSocket::listening).filter_map(|socket| {
                let tell =
                    |error| tracing::error!(%error, listener = listener.name, "listening socket is unusable");
                socket.map_err(tell).ok()
            });
            let (own, seed) = (own.collect(), self.io.rng.borrow_mut().next_u64());
            match UdpService::new(io, admissions, settings, own, seed) {
                Ok(service) => Protocol::Udp(service),
                Err(error) => {
                    tracing::error!(%error, listener = listener.name, "a listener is not opened");
                    return None;
                }
            }
        } else {
            let settings = self.tcp_settings(snapshot, listener, pool, made);
            Protocol::Tcp(TcpService::new(
                Rc::clone(&self.io),
                worker_metrics,
                metrics,
                Rc::clone(connections),
                settings,
            ))
        };
        let acceptor = Rc::new(Acceptor {
            io: Rc::clone(&self.io),
            protocol,
            tls,
            handshakes: Rc::clone(&self.handshakes),
            admissions,
            drain_jitter: Cell::new(drain_jitter(listener)),
            stopping: Cell::new(false),
            stop: Notify::new(),
            refusals: Rc::new(()),
            entry: RefCell::default(),
            tells_clients: Cell::default(),
            passing: RefCell::default(),
        });
        acceptor.set_entry(listener);
        acceptor.set_passing(
            listener,
            self.passing_settings(snapshot, listener, made),
            self.metrics.worker(worker),
        );
        let mut tasks = Vec::new();
        if let Protocol::Udp(service) = &acceptor.protocol {
            tasks.push(tokio::task::spawn_local(Rc::clone(service).run()));
            return Some(Running { id, key, udp, acceptor, tasks });
        }
        for socket in sockets {
            if let Protocol::Quic(quic) = &acceptor.protocol {
                match UdpSocket::listening(socket) {
                    Ok(socket) => {
                        // The socket is that of the connections as well, and ends with the last of them.
                        let seed = self.io.rng.borrow_mut().next_u64();
                        tokio::task::spawn_local(Rc::clone(quic).run(Rc::clone(&self.io), socket, seed));
                    }
                    Err(error) => {
                        tracing::error!(%error, listener = listener.name, "a UDP socket is unusable");
                    }
                }
                continue;
            }
            if let Protocol::Passthrough(service) = &acceptor.protocol {
                let (service, name) = (Rc::clone(service), listener.name.clone());
                tasks.push(tokio::task::spawn_local(async move {
                    if let Err(error) = service.serve(socket).await {
                        tracing::error!(%error, listener = name, "listening socket is unusable");
                    }
                }));
                continue;
            }
            match lb_io::listener::WorkerListener::new(socket) {
                Ok(socket) => {
                    tasks.push(tokio::task::spawn_local(Rc::clone(&acceptor).run(socket, self.seed)));
                }
                Err(error) => {
                    tracing::error!(%error, listener = listener.name, "listening socket is unusable");
                }
            }
        }
        Some(Running { id, key, udp, acceptor, tasks })
    }

    /// Gives up memory that is not needed any more. Says when to look again, while a crowd is here or has just left.
    fn rest(&mut self) -> Option<Instant> {
        let http = &self.http;
        self.io.rest();
        http.rest();
        let now = Instant::now();
        if self.relief.look(http.running(), http.most_running(), now.into_std()) {
            lb_io::memory::give_back();
        }
        self.relief.is_waiting().then(|| now + REST)
    }

    /// Puts a change in force. Requests and connections that run keep what they began with, and so do all of a listener that closes.
    fn apply(&mut self, change: Change, done: oneshot::Sender<()>) {
        let Change { snapshot, closed, opened } = change;
        let closing = self.listeners.iter_mut().filter(|running| closed.contains(&running.key));
        let tasks: Vec<_> = closing.flat_map(Running::close).collect();
        for running in &self.listeners {
            if let Some(bound) = opened.iter().find(|bound| bound.id == running.id) {
                running.give_way(&bound.sockets);
            }
        }
        self.upstreams.set_limits(snapshot.config.pool.clone());
        self.handshakes.set_limits(&snapshot.config);
        self.quic_memory.set_limit(&snapshot.config);
        let (mut new, mut made) = (Vec::new(), Made::default());
        self.upstreams.replace(|| {
            for running in self.listeners.iter().filter(|running| !running.is_closed()) {
                let Some((listener, pool)) = snapshot.listener(&running.id) else { continue };
                running.acceptor.admissions.set_max_inflight(max_inflight(&snapshot.config, listener));
                running.acceptor.drain_jitter.set(drain_jitter(listener));
                running.acceptor.set_entry(listener);
                let passing = self.passing_settings(&snapshot, listener, &mut made);
                running.acceptor.set_passing(listener, passing, self.metrics.worker(self.io.id));
                match &running.acceptor.protocol {
                    Protocol::Http(service) => {
                        service.replace(self.http_settings(&snapshot, listener, pool, &mut made));
                    }
                    Protocol::Quic(quic) => {
                        if let Some(service) = quic.service() {
                            service.replace(self.http_settings(&snapshot, listener, pool, &mut made));
                            quic.set_max_requests(snapshot.config.runtime.max_requests_per_h3_connection);
                        } else if let Some(settings) = self.raw_settings(&snapshot, listener, pool, &mut made)
                        {
                            quic.relay_under(settings);
                        }
                        if let Some(settings) = QuicSettings::of(listener) {
                            quic.replace(settings);
                        }
                    }
                    Protocol::Passthrough(service) => {
                        if let Some(settings) = self.passthrough_settings(&snapshot, listener, &mut made) {
                            service.replace(settings);
                        }
                    }
                    Protocol::Tcp(service) => {
                        service.replace(self.tcp_settings(&snapshot, listener, pool, &mut made));
                    }
                    Protocol::Udp(service) => {
                        let pool = self.tcp_pool(&snapshot, pool, &mut made);
                        service.replace(self.udp_settings(listener, pool));
                    }
                }
            }
            new.extend(opened.into_iter().filter_map(|bound| self.open(bound, &snapshot, &mut made)));
        });
        self.listeners.append(&mut new);
        self.pools.borrow_mut().retain(|id, _| snapshot.pool(id).is_some());
        self.snapshot = snapshot;
        tell_after(tasks, done);
    }

    fn stop_accepting(&mut self, read_elsewhere: &[SocketAddr], done: oneshot::Sender<()>) {
        self.listeners.iter().for_each(|running| running.stop_reading(read_elsewhere));
        tell_after(self.listeners.iter_mut().flat_map(Running::close).collect(), done);
    }

    fn drain(&self, keys: &[ListenerKey]) {
        let mut rng = self.io.rng.borrow_mut();
        for running in self.listeners.iter().filter(|running| keys.contains(&running.key)) {
            let connections = Rc::clone(&running.acceptor.admissions.connections);
            connections.advance(Phase::Draining);
            connections.wake_followers();
            let jitter = running.acceptor.drain_jitter.get();
            let seed = rng.next_u64();
            tokio::task::spawn_local(close_idle(connections, jitter, seed));
        }
    }

    fn advance(&self, key: ListenerKey, phase: Phase) {
        for running in self.listeners.iter().filter(|running| running.key == key) {
            running.acceptor.admissions.connections.advance(phase);
            running.acceptor.admissions.connections.wake_all();
        }
    }
}

/// Tells when all tasks have ended.
fn tell_after(tasks: Vec<tokio::task::JoinHandle<()>>, done: oneshot::Sender<()>) {
    if tasks.is_empty() {
        // Whoever ordered it may wait no longer.
        let _ = done.send(());
        return;
    }
    tokio::task::spawn_local(async move {
        for task in tasks {
            let _ = task.await;
        }
        let _ = done.send(());
    });
}

/// The time over which connections of a listener are asked to end in a drain. Those that close last still need time to close.
fn drain_jitter(listener: &lb_config::Listener) -> Duration {
    listener.drain_jitter.min(listener.drain_timeout / 2)
}

/// Asks connections to end one after the other over the whole of the jitter, however few they are, so that their clients do not all come
/// back at once, and those that are busy have a request answered before their turn comes, with the word that it is the last.
async fn close_idle(connections: Rc<Connections>, jitter: Duration, seed: u64) {
    let begun = Instant::now();
    for (key, after) in turns(connections.keys(), jitter, seed) {
        if after > begun.elapsed() {
            // Several turns share a timer.
            tokio::time::sleep_until(begun + after + CLOSE_STEP.min(jitter.saturating_sub(after))).await;
        }
        connections.ask(key);
    }
}

/// When the turn of each connection comes, in order: somewhere within its equal part of the time.
fn turns(keys: Vec<usize>, jitter: Duration, seed: u64) -> impl Iterator<Item = (usize, Duration)> {
    let mut rng = SplitMix64::new(seed);
    let part = jitter.checked_div(u32::try_from(keys.len()).unwrap_or(u32::MAX)).unwrap_or_default();
    let nanos = u64::try_from(part.as_nanos()).unwrap_or(u64::MAX);
    keys.into_iter().enumerate().map(move |(number, key)| {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        (key, part.saturating_mul(number).saturating_add(Duration::from_nanos(rng.below(nanos))))
    })
}

/// Ready at that moment, or when a crowd has come.
async fn rest_is_due(http: &HttpWorker, at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => http.crowded().await,
    }
}

/// The part of a worker of half the descriptors that the process may have: the rest is for connections, which a flood of datagrams must not
/// keep out.
fn descriptors_of_worker(workers: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX));
    half.checked_div(workers).unwrap_or(half).max(1)
}

fn max_inflight(config: &Config, listener: &lb_config::Listener) -> usize {
    let runtime = || usize::try_from(config.runtime.max_inflight_connections).unwrap_or(usize::MAX);
    listener.passthrough.as_ref().map_or_else(runtime, |passthrough| passthrough.max_quic_connections)
}

//! One client connection and the backend connection made for it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::address::ClientAddress;
use lb_core::balance::hash;
use lb_core::failure::Shortage;
use lb_core::rest::RestCause;
use lb_core::retry::RetryClass;
use lb_io::{ConnectionGuard, Deadline, Phase, shortage_of};
use lb_observe::metrics::{BackendMetrics, Counter};
use lb_pool::{Entry, Need, Pass, WorkerMember};
use lb_security::{ClientTls, Connector, Stream, TlsFailure, failure_of};
use tokio::time::{Instant, sleep_until};

use crate::half::{Half, Moved};
use crate::load::MemberLoad;
use crate::service::{TcpService, TcpSettings};

/// Relays one accepted connection to its end. `guard` is its entry in the registry of live connections.
pub async fn serve(stream: Stream, peer: ClientAddress, guard: ConnectionGuard, service: Rc<TcpService>) {
    poll_fn(|cx| {
        guard.set_waker(cx.waker());
        Poll::Ready(())
    })
    .await;
    let settings = service.settings();
    if let Some((backend, load, _room)) = connect(&service, &settings, peer).await {
        let metrics = settings.member(load.at).map(|backend| &backend.metrics);
        let _inflight = metrics.map(|metrics| Inflight::new(metrics, service.io.id));
        let (up, down) = (Half::default(), Half::default());
        Relay { client: stream, backend, up, down, service, settings: &settings, guard: &guard }.run().await;
    }
}

/// A connection to a backend with its load and the room it takes there, after as many tries as are allowed. Nothing was sent yet, so
/// every failure may be followed by another try; and since none has cost a backend anything, none is charged to a budget.
async fn connect(
    service: &TcpService,
    settings: &TcpSettings,
    client: ClientAddress,
) -> Option<(Stream, MemberLoad, Pass)> {
    let worker = service.io.id;
    let mut tried = Vec::new();
    // The one key that bytes without a protocol have. Connections over TCP have no ID.
    let key = settings.pool().follows_key().then(|| hash::connection(None, client));
    let (mut tries, mut refusals) = (settings.tries(), settings.refusals());
    while tries > 0 {
        let (at, backend) = settings.pick(key, &tried)?;
        let room = enter(settings, at).await?;
        if !tried.is_empty() {
            service.worker_metrics.http_retries.of(RetryClass::Connect).inc();
            settings.pool().shard().retries.of(RetryClass::Connect).inc();
        }
        service.worker_metrics.pool_acquires.inc();
        let shard = backend.metrics.worker(worker);
        let mut load = MemberLoad::take(settings.pool(), at);
        let began = Instant::now();
        match open_in_time(service, settings, backend).await {
            Ok(stream) => {
                load.connected(began.elapsed());
                settings.pool().answered(at, now(), now());
                shard.connections.inc();
                return Some((stream, load, room));
            }
            Err(error) => {
                if let Some(shortage) = shortage_of(&error) {
                    // No backend is to blame, and only for ports another one may be better off.
                    service.io.tell_shortage(shortage);
                    tracing::debug!(backend = backend.name(), address = %backend.address(), %error, "no connection can be made");
                    if shortage != Shortage::Ports {
                        return None;
                    }
                    tries = tries.saturating_sub(1);
                    tried.push(at);
                    continue;
                }
                load.failed();
                shard.connect_failures.inc();
                let timed_out = error.kind() == io::ErrorKind::TimedOut;
                let cause = RestCause::of_connect(failure_of(&error).is_some(), timed_out);
                settings.pool().unreachable(at, cause, now());
                if timed_out {
                    service.worker_metrics.backend_connect_timeouts.inc();
                }
                if refusals > 0 && !timed_out {
                    refusals = refusals.saturating_sub(1);
                } else {
                    tries = tries.saturating_sub(1);
                }
                tracing::debug!(backend = backend.name(), address = %backend.address(), %error, "connect failed");
                tried.push(at);
            }
        }
    }
    None
}

/// Room for a connection at the member at `at`. `None` when there is none and none in time.
async fn enter(settings: &TcpSettings, at: usize) -> Option<Pass> {
    let Some(gate) = settings.pool().gate(at) else { return Some(Pass::default()) };
    let mut waiting = match poll_fn(|cx| Poll::Ready(gate.enter(Need::Connection, now(), cx))).await {
        Entry::Go(pass) => return Some(pass),
        Entry::Full(_) => return None,
        Entry::Wait(waiting) => waiting,
    };
    let sleep = pin!(sleep_until(Instant::now()));
    let mut deadline = Deadline::new(sleep);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(entered) = waiting.poll(Need::Connection, now(), cx) {
                return Poll::Ready(entered.ok());
            }
            if !deadline.poll(cx, waiting.until().into()) {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Connects within the time for one try, where there is one.
async fn open_in_time(
    service: &TcpService,
    settings: &TcpSettings,
    backend: &WorkerMember<ClientTls>,
) -> io::Result<Stream> {
    let opening = open(service, settings, backend);
    match settings.pool().retry().per_try_timeout {
        None => opening.await,
        Some(limit) => tokio::time::timeout(limit, opening).await?,
    }
}

/// Connects, and does the handshake where the backend is inside TLS.
async fn open(
    service: &TcpService,
    settings: &TcpSettings,
    backend: &WorkerMember<ClientTls>,
) -> io::Result<Stream> {
    let connector = Connector {
        address: backend.address(),
        timeout: settings.connect_timeout,
        tls: backend.tls.clone(),
        handshake_timeout: settings.handshake_timeout,
        resets: false,
    };
    let count = |result| service.worker_metrics.backend_tls_handshakes.of(result).inc();
    Ok(connector.connect(&service.io, count).await?)
}

/// Counts a connection as being at its backend while it lives.
struct Inflight<'a> {
    metrics: &'a BackendMetrics,
    worker: usize,
}

impl<'a> Inflight<'a> {
    fn new(metrics: &'a BackendMetrics, worker: usize) -> Self {
        metrics.worker(worker).inflight.inc();
        Self { metrics, worker }
    }
}

impl Drop for Inflight<'_> {
    fn drop(&mut self) {
        self.metrics.worker(self.worker).inflight.dec();
    }
}

struct Relay<'a> {
    client: Stream,
    backend: Stream,
    up: Half,
    down: Half,
    service: Rc<TcpService>,
    settings: &'a TcpSettings,
    guard: &'a ConnectionGuard,
}

/// What a turn of the relay came to.
enum Turn {
    Moved,
    Quiet,
    Over,
}

impl Relay<'_> {
    async fn run(mut self) {
        let idle = self.settings.tcp.idle_timeout;
        let mut active = Instant::now();
        // Never polled, and so never armed, where there is no idle timeout.
        let sleep = pin!(sleep_until(active));
        let mut deadline = Deadline::new(sleep);
        poll_fn(|cx| {
            match self.turn(cx) {
                Turn::Over => return Poll::Ready(()),
                Turn::Moved if idle.is_some() => active = Instant::now(),
                Turn::Moved | Turn::Quiet => {}
            }
            match idle {
                Some(idle) if deadline.poll(cx, active + idle) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        if self.guard.phase() == Phase::Abort {
            self.reset();
            return Turn::Over;
        }
        let Self { client, backend, up, down, service, settings, .. } = self;
        let (io, metrics) = (&service.io, &service.worker_metrics);
        let splice = settings.tcp.splice && client.can_splice() && backend.can_splice();
        let moved = up
            .pump(cx, client, backend, io, splice)
            .and_then(|sent| Ok((sent, down.pump(cx, backend, client, io, splice)?)));
        let (sent, received) = match moved {
            Ok(moved) => moved,
            Err(error) => {
                let failure = failure_of(&error);
                if failure == Some(TlsFailure::Truncated) && (up.is_done() || down.is_done()) {
                    // The other direction has ended well, and many a peer then leaves without a word.
                    self.reset();
                    return Turn::Over;
                }
                if let Some(failure) = failure {
                    metrics.tls_faults.of(failure.fault()).inc();
                    tracing::debug!(%error, "TLS connection given up");
                }
                // A reset, so that the other side does not take what it has for the whole.
                self.reset();
                return Turn::Over;
            }
        };
        add(&metrics.bytes_client_to_backend, sent.bytes);
        add(&metrics.bytes_backend_to_client, received.bytes);
        add(&metrics.tcp_splice_bytes, sent.spliced.saturating_add(received.spliced));
        if up.is_done() && down.is_done() {
            return Turn::Over;
        }
        if sent.more || received.more {
            cx.waker().wake_by_ref();
        }
        if sent == Moved::default() && received == Moved::default() { Turn::Quiet } else { Turn::Moved }
    }

    fn reset(&mut self) {
        self.client.reset_on_close();
        self.backend.reset_on_close();
    }
}

fn add(counter: &Counter, amount: u64) {
    if amount > 0 {
        counter.add(amount);
    }
}

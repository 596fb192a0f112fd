//! A connection to a backend of a pool, whatever it carries: which member it goes to, and which are tried after it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use lb_core::failure::Shortage;
use lb_core::rest::RestCause;
use lb_core::retry::RetryClass;
use lb_io::{Deadline, WorkerIo, shortage_of};
use lb_observe::metrics::{BackendMetrics, WorkerMetrics};
use lb_pool::{Entry, Need, Pass, WorkerMember};
use lb_security::{ClientTls, failure_of};
use tokio::time::{Instant, sleep_until};

use crate::load::MemberLoad;
use crate::service::TcpSettings;

/// What a connection occupies at its backend while it lives.
#[derive(Debug)]
pub struct Stay {
    load: MemberLoad,
    _room: Pass,
    inflight: Option<(Arc<BackendMetrics>, usize)>,
}

impl Stay {
    /// Where the backend stands in its pool.
    pub fn at(&self) -> usize {
        self.load.at
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Some((metrics, worker)) = &self.inflight {
            metrics.worker(*worker).inflight.dec();
        }
    }
}

/// What connections to backends are made with.
#[derive(Clone, Copy, Debug)]
pub struct Connects<'a> {
    /// The worker.
    pub io: &'a WorkerIo,
    /// Its counters.
    pub metrics: &'a WorkerMetrics,
    /// The pool, and how often others of it are tried.
    pub settings: &'a TcpSettings,
}

impl Connects<'_> {
    /// A connection that `open` makes, after as many tries as are allowed. Nothing was sent yet, so every failure may be followed by another
    /// try; and since none has cost a backend anything, none is charged to a budget. `key` is what hashing policies go by.
    pub async fn connect<S>(
        &self,
        key: Option<u64>,
        open: impl AsyncFn(&WorkerMember<ClientTls>) -> io::Result<S>,
    ) -> Option<(S, Stay)> {
        let Self { io, metrics, settings } = self;
        let worker = io.id;
        let mut tried = Vec::new();
        let (mut tries, mut refusals) = (settings.tries(), settings.refusals());
        while tries > 0 {
            let (at, backend) = settings.pick(key, &tried)?;
            let room = enter(settings, at).await?;
            if !tried.is_empty() {
                metrics.http_retries.of(RetryClass::Connect).inc();
                settings.pool().shard().retries.of(RetryClass::Connect).inc();
            }
            metrics.pool_acquires.inc();
            let shard = backend.metrics.worker(worker);
            let mut load = MemberLoad::take(settings.pool(), at);
            let began = Instant::now();
            let opening = open(backend);
            let opened = match settings.pool().retry().per_try_timeout {
                None => opening.await,
                Some(limit) => match tokio::time::timeout(limit, opening).await {
                    Ok(opened) => opened,
                    Err(late) => Err(late.into()),
                },
            };
            match opened {
                Ok(stream) => {
                    load.connected(began.elapsed());
                    settings.pool().answered(at, now(), now());
                    shard.connections.inc();
                    shard.inflight.inc();
                    let inflight = Some((Arc::clone(&backend.metrics), worker));
                    return Some((stream, Stay { load, _room: room, inflight }));
                }
                Err(error) => {
                    if let Some(shortage) = shortage_of(&error) {
                        // No backend is to blame, and only for ports another one may be better off.
                        io.tell_shortage(shortage);
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
                        metrics.backend_connect_timeouts.inc();
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

//! Active health checks: one prober for each address of each pool, on the control thread.
//!
//! A prober asks when the pool says that it is time and tells the pool what came of it; what that means, the pool decides. Probers follow
//! each new snapshot. That of an address that leaves ends at once, in the middle of a probe too. That of an address that stays goes on
//! with what is known of it, however the pool around it has changed; only if something else is asked from now on, it begins anew.
//!
//! A probe is bounded in time and in bytes, has a connection of its own and leaves nothing behind (attack C-04).

mod connection;
mod exchange;
mod grpc;
mod http;
mod plan;
mod quic;
mod udp;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lb_config::Probe;
use lb_core::health::ProbeOutcome;
use lb_io::WorkerIo;
use lb_pool::{SharedMember, SharedPool};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use crate::snapshot::{PoolInForce, Snapshot};
use plan::Plan;

/// All probers of the process.
pub(crate) struct Prober {
    io: Rc<WorkerIo>,
    /// By member. The pool that each has a place in keeps the member where it is.
    running: HashMap<*const SharedMember, Running>,
}

/// A prober; it ends when dropped.
struct Running {
    subject: Rc<Subject>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who is asked what.
struct Subject {
    plan: Plan,
    /// Where what is known of it stands: a pool, and its position there.
    place: RefCell<(Arc<SharedPool>, usize)>,
    /// The place has changed, and with it perhaps the time of the next probe.
    moved: Notify,
}

impl Prober {
    /// No prober yet.
    pub(crate) fn new(io: WorkerIo) -> Self {
        Self { io: Rc::new(io), running: HashMap::new() }
    }

    /// Probes from now on what this snapshot wants probed, and nothing else.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let mut earlier = std::mem::take(&mut self.running);
        for PoolInForce { config, shared: pool, .. } in snapshot.pools() {
            let is_http = snapshot.config.listeners_of(&config.id).any(lb_config::Listener::is_http);
            for (at, (member, _)) in pool.members.iter().enumerate() {
                let key = Arc::as_ptr(member);
                let plan = Plan::of(config, is_http, &snapshot.backends_tls, &member.key);
                let Some(plan) = plan else { continue };
                let running = match earlier.remove(&key) {
                    Some(running) if running.subject.plan == plan => {
                        running.subject.put_in(pool, at);
                        running
                    }
                    other => {
                        drop(other);
                        pool.abandon_probe(at);
                        self.start(plan, pool, at)
                    }
                };
                self.running.insert(key, running);
            }
        }
    }

    fn start(&self, plan: Plan, pool: &Arc<SharedPool>, at: usize) -> Running {
        let place = RefCell::new((Arc::clone(pool), at));
        let subject = Rc::new(Subject { plan, place, moved: Notify::new() });
        let task = tokio::task::spawn_local(run(Rc::clone(&subject), Rc::clone(&self.io)));
        Running { subject, task }
    }
}

impl Subject {
    fn place(&self) -> (Arc<SharedPool>, usize) {
        let place = self.place.borrow();
        (Arc::clone(&place.0), place.1)
    }

    fn put_in(&self, pool: &Arc<SharedPool>, at: usize) {
        if Arc::ptr_eq(&self.place.borrow().0, pool) {
            return;
        }
        self.place.replace((Arc::clone(pool), at));
        self.moved.notify_one();
    }
}

/// Probes, one time after the other.
async fn run(subject: Rc<Subject>, io: Rc<WorkerIo>) {
    loop {
        let (pool, at) = subject.place();
        let Some(due) = pool.probe_due(at) else {
            // The pool is not probed any more; whoever said so ends this task or gives it another place.
            subject.moved.notified().await;
            continue;
        };
        tokio::select! {
            biased;
            () = subject.moved.notified() => continue,
            () = sleep_until(due.into()) => {}
        }
        if !pool.begin_probe(at, Instant::now()) {
            continue;
        }
        let outcome = probe(&subject.plan, &io).await;
        // A reload may have put it elsewhere meanwhile.
        let (pool, at) = subject.place();
        if !outcome.passed() {
            let plan = &subject.plan;
            tracing::debug!(pool = pool.id.name(), address = %plan.address, ?outcome, "health check failed");
        }
        pool.end_probe(at, outcome, Instant::now());
    }
}

/// One probe, from its connect to its end. Whatever it has opened is closed when this returns, or when it is dropped.
async fn probe(plan: &Plan, io: &Rc<WorkerIo>) -> ProbeOutcome {
    let asked = async {
        match &plan.probe {
            Probe::Tcp => connection::check(plan, io).await,
            Probe::Http(request) => http::check(plan, request, io).await,
            Probe::Grpc { service, .. } => grpc::check(plan, service, io).await,
            Probe::Quic => quic::check(plan, io).await,
            Probe::Udp(asked) => udp::check(plan, asked).await,
        }
    };
    match timeout(plan.timeout, asked).await {
        Ok(Ok(())) => ProbeOutcome::Passed,
        Ok(Err(outcome)) => outcome,
        Err(_) => ProbeOutcome::Timeout,
    }
}

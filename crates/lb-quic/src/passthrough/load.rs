//! The load of a backend while a flow is there, as its pool counts it.

use std::rc::Rc;
use std::time::Instant;

use lb_core::outlier::Ending;
use lb_core::rest::RestCause;

use super::settings::PassthroughPool;

/// A flow at a member. To the pool it is a connection, and one request whose outcome is whether the backend answers.
#[derive(Debug)]
pub(crate) struct MemberLoad {
    pool: Rc<PassthroughPool>,
    at: usize,
    worker: usize,
    began: Instant,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Asked,
    Answered,
    Failed,
}

impl MemberLoad {
    pub(crate) fn take(pool: &Rc<PassthroughPool>, at: usize, worker: usize, now: Instant) -> Self {
        pool.balance.begin(at);
        pool.balance.opened(at);
        if let Some(metrics) = pool.metrics(at) {
            let shard = metrics.worker(worker);
            shard.connections.inc();
            shard.inflight.inc();
        }
        Self { pool: Rc::clone(pool), at, worker, began: now, state: State::Asked }
    }

    /// Which member of which pool.
    pub(crate) fn member(&self) -> (&Rc<PassthroughPool>, usize) {
        (&self.pool, self.at)
    }

    /// The backend has answered. What the flow carries from now on is load until it ends.
    pub(crate) fn answered(&mut self, now: Instant) {
        if self.state == State::Asked {
            self.state = State::Answered;
            let balance = &self.pool.balance;
            balance.end(self.at, now, Some(Ending::Fine), Some(now.saturating_duration_since(self.began)));
            balance.answered(self.at, self.began, now);
            balance.begin(self.at);
        }
    }

    /// Nothing is there. That a backend does not answer is not held against it: it drops what it cannot open, and everybody can send that.
    pub(crate) fn failed(&mut self, now: Instant) {
        if self.state == State::Asked {
            self.state = State::Failed;
            let balance = &self.pool.balance;
            balance.end(self.at, now, Some(Ending::GatewayFailure), None);
            balance.unreachable(self.at, RestCause::Connect, now);
            if let Some(metrics) = self.pool.metrics(self.at) {
                metrics.worker(self.worker).connect_failures.inc();
            }
        }
    }
}

impl Drop for MemberLoad {
    fn drop(&mut self) {
        let balance = &self.pool.balance;
        balance.closed(self.at);
        match self.state {
            State::Asked => balance.end(self.at, Instant::now(), None, None),
            State::Answered => balance.withdraw(self.at, Instant::now()),
            State::Failed => {}
        }
        if let Some(metrics) = self.pool.metrics(self.at) {
            metrics.worker(self.worker).inflight.dec();
        }
    }
}

//! What a connection, or a flow of datagrams, is to the pool of its backend.

use std::rc::Rc;
use std::time::{Duration, Instant};

use lb_core::outlier::Ending;
use lb_pool::WorkerPool;

/// Load of a member, as its pool counts it, while a connection is being made and while it lives. To the pool it is one request, whose
/// outcome is that of the connect.
#[derive(Debug)]
pub(crate) struct MemberLoad {
    pool: Rc<WorkerPool>,
    pub(crate) at: usize,
    state: Connecting,
}

/// The state of a connect.
#[derive(Debug)]
enum Connecting {
    Running,
    Failed,
    Done,
}

impl MemberLoad {
    pub(crate) fn take(pool: &Rc<WorkerPool>, at: usize) -> Self {
        pool.begin(at);
        pool.opened(at);
        Self { pool: Rc::clone(pool), at, state: Connecting::Running }
    }

    /// The connection is made, after this time. What it carries is load until it ends.
    pub(crate) fn connected(&mut self, took: Duration) {
        self.state = Connecting::Done;
        self.pool.end(self.at, Instant::now(), Some(Ending::Fine), Some(took));
        self.pool.begin(self.at);
    }

    /// There is no connection.
    pub(crate) fn failed(mut self) {
        self.state = Connecting::Failed;
    }
}

impl Drop for MemberLoad {
    fn drop(&mut self) {
        self.pool.closed(self.at);
        match self.state {
            Connecting::Running => self.pool.end(self.at, Instant::now(), None, None),
            Connecting::Failed => self.pool.end(self.at, Instant::now(), Some(Ending::GatewayFailure), None),
            Connecting::Done => self.pool.withdraw(self.at, Instant::now()),
        }
    }
}

//! A listener that accepts no more, and the time that its connections have to finish: at the end of the process, or after a reload that took
//! the listener away.

use std::sync::Arc;
use std::time::Duration;

use lb_io::gate::CountGate;
use tokio::time::Instant;

use crate::listeners::Bound;
use crate::orders::{ListenerKey, Order, Workers};
use crate::status::EndingShown;

/// How long before the end of its budget the end of a listener is announced to its clients, if the budget is not small: tunnels need a
/// moment to close.
const FAREWELL: Duration = Duration::from_secs(1);

/// A listener whose connections are to finish.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) key: ListenerKey,
    pub(crate) name: String,
    gate: Arc<CountGate>,
    /// When the end is announced, unless it has been.
    farewell: Option<Instant>,
    deadline: Instant,
}

/// How far that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Connections are open, and have time left.
    Running,
    /// None is open.
    Finished,
    /// Time is over, and so many connections were still open. They have been told to end at once.
    Aborted(usize),
}

impl Ending {
    /// The connections of `bound` have `budget` from `now` on.
    pub(crate) fn new(bound: &Bound, budget: Duration, now: Instant) -> Self {
        Self {
            key: bound.key,
            name: bound.id.name.clone(),
            gate: Arc::clone(&bound.gate),
            farewell: Some(now + budget.saturating_sub(FAREWELL.min(budget / 4))),
            deadline: now + budget,
        }
    }

    /// What the status shows of it.
    pub(crate) fn shown(&self) -> EndingShown {
        EndingShown { name: self.name.clone(), gate: Arc::clone(&self.gate), deadline: self.deadline }
    }

    /// Gives the orders that are due.
    pub(crate) fn advance(&mut self, workers: &Workers, now: Instant) -> Progress {
        let open = self.gate.open();
        if self.farewell.take_if(|at| now >= *at).is_some() {
            workers.order(|| Order::Farewell(self.key));
        }
        if open == 0 {
            return Progress::Finished;
        }
        if now < self.deadline {
            return Progress::Running;
        }
        tracing::warn!(listener = self.name, remaining = open, "drain deadline elapsed");
        workers.order(|| Order::Abort(self.key));
        Progress::Aborted(open)
    }
}

//! The limits of one member in one worker, and the queue of what waits for room.
//!
//! What is limited is held as a [`Place`], which gives itself back when it is dropped and wakes the entry that has waited longest. A place
//! belongs to the gate that it was taken at: a reload that keeps the member keeps its gate.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

pub use lb_core::breaker::Need;
use lb_core::breaker::{Admit, Answer, Breaker, Full, MemberLimits, Ticket};
use lb_observe::metrics::{PoolMetrics, PoolShard};

/// The limits of one member in one worker.
#[derive(Debug)]
pub struct Gate {
    breaker: RefCell<Breaker<Waker>>,
    metrics: Arc<PoolMetrics>,
    worker: usize,
    /// The last that came found no room, and nothing has become free since.
    open: Cell<bool>,
}

/// How a request or connection gets in.
#[derive(Debug)]
pub enum Entry {
    /// At once.
    Go(Pass),
    /// When there is room.
    Wait(Waiting),
    /// Not at all.
    Full(Full),
}

/// What a place is room for.
#[derive(Debug, Default)]
pub struct Pass {
    /// A request.
    pub request: Option<Place>,
    /// A connection.
    pub connection: Option<Place>,
}

/// Room for one request or one connection. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    gate: Rc<Gate>,
    connection: bool,
}

/// A place in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Waiting {
    gate: Rc<Gate>,
    ticket: Ticket,
    until: Instant,
    spent: bool,
}

impl Gate {
    pub(crate) fn new(limits: MemberLimits, metrics: Arc<PoolMetrics>, worker: usize) -> Rc<Self> {
        Rc::new(Self { breaker: RefCell::new(Breaker::new(limits)), metrics, worker, open: Cell::new(false) })
    }

    pub(crate) fn reconfigure(&self, limits: MemberLimits) {
        self.breaker.borrow_mut().reconfigure(limits);
        self.wake_first();
    }

    /// Whether a request or connection that arrives now would get in at once.
    #[inline]
    pub fn has_room(&self, need: Need) -> bool {
        self.breaker.borrow().has_room(need)
    }

    /// Whether a request that arrives now would lack nothing but a connection.
    pub fn lacks_connection(&self) -> bool {
        self.has_room(Need::Request) && !self.has_room(Need::Both)
    }

    /// A request or connection arrives. If it has to wait, its task is woken through `cx`.
    pub fn enter(self: &Rc<Self>, need: Need, now: Instant, cx: &Context<'_>) -> Entry {
        let admit = self.breaker.borrow_mut().admit(need, now, || cx.waker().clone());
        match admit {
            Admit::Go => Entry::Go(self.pass(need)),
            Admit::Refuse(full) => {
                self.set_open(true);
                Entry::Full(self.refused(full))
            }
            Admit::Wait(ticket) => {
                self.set_open(true);
                self.shard().pending.inc();
                // The first poll returns the deadline.
                Entry::Wait(Waiting { gate: Rc::clone(self), ticket, until: now, spent: false })
            }
        }
    }

    /// Room for a connection alone, if there is any. Never waits, and a refusal is not counted.
    pub fn connection(self: &Rc<Self>) -> Option<Place> {
        let taken = self.breaker.borrow_mut().take_connection();
        taken.then(|| Place { gate: Rc::clone(self), connection: true })
    }

    fn pass(self: &Rc<Self>, need: Need) -> Pass {
        let place = |connection| Place { gate: Rc::clone(self), connection };
        Pass {
            request: (need != Need::Connection).then(|| place(false)),
            connection: (need != Need::Request).then(|| place(true)),
        }
    }

    fn refused(&self, full: Full) -> Full {
        self.shard().overflow.of(full).inc();
        full
    }

    /// A place is free: the first in the queue may get in.
    fn wake_first(&self) {
        let (first, idle) = {
            let breaker = self.breaker.borrow();
            (breaker.first().cloned(), breaker.pending() == 0)
        };
        if idle {
            self.set_open(false);
        }
        if let Some(first) = first {
            first.wake();
        }
    }

    fn set_open(&self, open: bool) {
        if self.open.replace(open) != open {
            self.shard().circuit_open.add(if open { 1 } else { -1 });
        }
    }

    fn shard(&self) -> &PoolShard {
        self.metrics.worker(self.worker)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.set_open(false);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut breaker = self.gate.breaker.borrow_mut();
            if self.connection { breaker.connection_done() } else { breaker.request_done() }
        }
        self.gate.wake_first();
    }
}

impl Waiting {
    /// Ready when there is room, or no hope of it. `need` is what is needed by now.
    pub fn poll(&mut self, need: Need, now: Instant, cx: &Context<'_>) -> Poll<Result<Pass, Full>> {
        let answer = {
            let mut breaker = self.gate.breaker.borrow_mut();
            let answer = breaker.ask(self.ticket, need, now);
            if matches!(answer, Answer::Wait(_)) {
                breaker.rewake(self.ticket, cx.waker().clone());
            }
            answer
        };
        let result = match answer {
            Answer::Wait(until) => {
                self.until = until;
                return Poll::Pending;
            }
            Answer::Go => Ok(self.gate.pass(need)),
            Answer::Refuse(full) => Err(self.gate.refused(full)),
        };
        self.spend();
        Poll::Ready(result)
    }

    /// Whether a connection is all that is missing: it is the first in the queue, and there is room for a request.
    pub fn lacks_connection(&self) -> bool {
        let breaker = self.gate.breaker.borrow();
        breaker.would_go(self.ticket, Need::Request) && !breaker.would_go(self.ticket, Need::Both)
    }

    /// The deadline of the wait. Valid after a poll.
    pub fn until(&self) -> Instant {
        self.until
    }

    fn spend(&mut self) {
        if !std::mem::replace(&mut self.spent, true) {
            self.gate.shard().pending.dec();
            let first = self.gate.breaker.borrow().first().cloned();
            if let Some(first) = first {
                first.wake();
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gate.breaker.borrow_mut().leave(self.ticket);
        self.spend();
    }
}

//! Connections in the making that several requests are to share.
//!
//! While one is being made, exchanges wait for it rather than make another each: a burst must not turn into as many connections as it has
//! requests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use lb_core::failure::Failure;
use slab::Slab;

/// The connections that are being made to one endpoint, and the exchanges that wait for them.
#[derive(Debug, Default)]
pub struct Dials {
    under_way: Cell<usize>,
    /// Dials that have ended, and those of them that failed, ever.
    ended: Cell<u64>,
    failed: Cell<u64>,
    /// How the last of them failed.
    failure: Cell<Option<Failure>>,
    waiting: Cell<usize>,
    /// Wakers of the exchanges that wait for the dials under way.
    wakers: RefCell<Slab<Waker>>,
}

impl Dials {
    /// Dials that are under way.
    pub fn under_way(&self) -> usize {
        self.under_way.get()
    }

    /// Exchanges that wait for them.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Begins a dial, which is under way until the ticket is dropped.
    pub fn dial(self: &Rc<Self>) -> DialTicket {
        self.under_way.set(self.under_way.get().saturating_add(1));
        DialTicket { dials: Rc::clone(self), failure: None }
    }

    /// Waits for the end of a dial that is under way.
    pub fn wait(self: &Rc<Self>) -> Wait {
        self.waiting.set(self.waiting.get().saturating_add(1));
        Wait { dials: Rc::clone(self), ended: self.ended.get(), failed: self.failed.get(), waker: None }
    }

    fn wake_all(&self) {
        for waker in self.wakers.borrow_mut().drain() {
            waker.wake();
        }
    }
}

/// A connection is being made. The exchanges that wait for it are woken when the ticket is dropped.
#[derive(Debug)]
pub struct DialTicket {
    dials: Rc<Dials>,
    failure: Option<Failure>,
}

impl DialTicket {
    /// The connection did not come about: the exchanges that wait are not to try one after the other.
    pub fn fail(mut self, failure: Failure) {
        self.failure = Some(failure);
    }
}

impl Drop for DialTicket {
    fn drop(&mut self) {
        let dials = &self.dials;
        dials.under_way.set(dials.under_way.get().saturating_sub(1));
        dials.ended.set(dials.ended.get().wrapping_add(1));
        if self.failure.is_some() {
            dials.failure.set(self.failure);
            dials.failed.set(dials.failed.get().wrapping_add(1));
        }
        dials.wake_all();
    }
}

/// What became of the connection that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialOutcome {
    /// The upstream is to be asked for a way again.
    Again,
    /// The connection did not come about.
    Failed(Failure),
}

/// An exchange's place among those that wait for a connection.
#[derive(Debug)]
pub struct Wait {
    dials: Rc<Dials>,
    ended: u64,
    failed: u64,
    /// Where its waker is, until a dial ends.
    waker: Option<usize>,
}

impl Wait {
    /// Ready when a dial has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DialOutcome> {
        if self.dials.failed.get() != self.failed
            && let Some(failure) = self.dials.failure.get()
        {
            return Poll::Ready(DialOutcome::Failed(failure));
        }
        if self.dials.ended.get() != self.ended {
            return Poll::Ready(DialOutcome::Again);
        }
        let mut wakers = self.dials.wakers.borrow_mut();
        match self.waker.and_then(|at| wakers.get_mut(at)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(wakers.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.dials.waiting.set(self.dials.waiting.get().saturating_sub(1));
        // Once a dial has ended, what stands in its place is another's.
        if let Some(at) = self.waker.filter(|_| self.dials.ended.get() == self.ended) {
            self.dials.wakers.borrow_mut().try_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_core::failure::Kind;

    use super::*;

    #[test]
    fn an_exchange_that_stops_waiting_leaves_nothing_behind() {
        let dials = Rc::new(Dials::default());
        let mut cx = Context::from_waker(Waker::noop());
        let ticket = dials.dial();
        for _ in 0..10_000 {
            let mut one = dials.wait();
            assert_eq!((one.poll(&mut cx), one.poll(&mut cx)), (Poll::Pending, Poll::Pending));
            assert_eq!(dials.wakers.borrow().len(), 1);
        }
        assert_eq!((dials.wakers.borrow().len(), dials.waiting()), (0, 0));

        // A waiter that was woken and leaves later does not take the place of another.
        let mut woken = dials.wait();
        assert_eq!(woken.poll(&mut cx), Poll::Pending);
        drop(ticket);
        let ticket = dials.dial();
        let mut next = dials.wait();
        assert_eq!(next.poll(&mut cx), Poll::Pending);
        assert_eq!(woken.poll(&mut cx), Poll::Ready(DialOutcome::Again));
        drop(woken);
        assert_eq!(dials.wakers.borrow().len(), 1);
        let failure = Kind::Tls { timed_out: false }.unconnected();
        ticket.fail(failure);
        assert_eq!(next.poll(&mut cx), Poll::Ready(DialOutcome::Failed(failure)));
        assert_eq!(dials.under_way(), 0);
    }
}

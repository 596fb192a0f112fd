//! The HTTP/2 connections of one worker to one backend address.
//!
//! Streams share connections, and a new one is made only when those that exist are full. While one is being made, exchanges wait for it
//! rather than make another each: a burst must not turn into as many connections as it has requests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lb_config::Pool as PoolLimits;
use lb_core::failure::Failure;
use slab::Slab;
use tokio::time::Instant;

use super::back::H2Back;
use super::client::ClientConnection;

/// Streams that a connection is expected to take while its SETTINGS are still to come (RFC 9113 §6.5.2 recommends no fewer).
const EXPECTED_STREAMS: u32 = 100;

/// How long a connection's lifetime is taken for that of the next.
const LEARNED_FOR: Duration = Duration::from_secs(10);

/// The connections.
#[derive(Debug, Default)]
pub(crate) struct H2Pool {
    connections: RefCell<Vec<Rc<ClientConnection>>>,
    dials: Cell<usize>,
    /// Dials that have ended, and those of them that failed, ever.
    ended: Cell<u64>,
    failed: Cell<u64>,
    /// How the last of them failed.
    failure: Cell<Option<Failure>>,
    waiting: Cell<usize>,
    /// After how many streams the backend ended a connection, and when.
    learned: Cell<Option<(u32, Instant)>>,
    /// Wakers of the exchanges that wait for the dials under way.
    wakers: RefCell<Slab<Waker>>,
}

/// How an exchange gets its stream.
#[derive(Debug)]
pub(crate) enum Way {
    /// Here it is.
    Open(H2Back),
    /// A connection is being made that will have room.
    Wait(Wait),
    /// A connection is to be made; the ticket is held meanwhile.
    Dial(DialTicket),
}

impl H2Pool {
    /// The way to a stream; `body` says that there is something to send on it.
    pub(crate) fn way(self: &Rc<Self>, body: bool, now: Instant) -> Way {
        let lifetime = self.lifetime(now);
        // A stream with a body would stand still where the connection's window is closed; where it has been closed for a while, for good.
        let open = [true, false].into_iter().find_map(|can_send| {
            let connections = self.connections.borrow();
            let mut alike = connections.iter().filter(|connection| {
                connection.can_send() == can_send && !(body && connection.is_stuck(now))
            });
            alike.find_map(|connection| connection.open(lifetime, now))
        });
        let room = self.expected(lifetime);
        match open {
            Some(stream) => Way::Open(stream),
            None if self.waiting.get() < room => {
                self.waiting.set(self.waiting.get().saturating_add(1));
                Way::Wait(Wait {
                    pool: Rc::clone(self),
                    ended: self.ended.get(),
                    failed: self.failed.get(),
                    waker: None,
                })
            }
            None => Way::Dial(self.ticket()),
        }
    }

    /// Whether [`Self::way`] would not lead to a new connection.
    pub(crate) fn has_way(&self, body: bool, now: Instant) -> bool {
        let lifetime = self.lifetime(now);
        let takes = |connection: &Rc<ClientConnection>| {
            connection.has_room(lifetime) && !(body && connection.is_stuck(now))
        };
        self.connections.borrow().iter().any(takes) || self.waiting.get() < self.expected(lifetime)
    }

    /// How many may wait for the connections that are being made.
    fn expected(&self, lifetime: u32) -> usize {
        let expected = usize::try_from(EXPECTED_STREAMS.min(lifetime)).unwrap_or(usize::MAX);
        self.dials.get().saturating_mul(expected.saturating_sub(1).max(1))
    }

    /// How many streams a connection is given.
    ///
    /// A backend that ends each connection after some number of streams (nginx's `keepalive_requests`) turns all away that come after
    /// the last one. So that number is learned from its GOAWAY and kept to for a while, rather than found out by each burst anew.
    fn lifetime(&self, now: Instant) -> u32 {
        self.connections.borrow_mut().retain(|connection| {
            if let Some(served) = connection.served().filter(|served| *served > 0) {
                self.learned.set(Some((served, now)));
            }
            !connection.is_retired()
        });
        let learned = self.learned.get().filter(|(_, at)| now < *at + LEARNED_FOR);
        self.learned.set(learned);
        learned.map_or(u32::MAX, |(streams, _)| streams)
    }

    fn ticket(self: &Rc<Self>) -> DialTicket {
        self.dials.set(self.dials.get().saturating_add(1));
        DialTicket { pool: Rc::clone(self), failure: None }
    }

    /// Adds a connection.
    pub(crate) fn add(&self, connection: Rc<ClientConnection>) {
        self.connections.borrow_mut().push(connection);
    }

    /// Lets go of connections that are over, too old, or idle for too long; of all that are idle where the pool is `retired`.
    /// When there will be something to let go of, if any connection is left.
    pub(crate) fn sweep(&self, limits: &PoolLimits, retired: bool, now: Instant) -> Option<Instant> {
        let mut next = None::<Instant>;
        self.connections.borrow_mut().retain(|connection| {
            let idle =
                connection.active() == 0 && (retired || now >= connection.used.get() + limits.idle_timeout);
            if idle || now >= connection.born + limits.max_age {
                connection.retire();
            }
            if connection.active() > 0 {
                connection.used.set(now);
            }
            // The pool is not told of the end of the last stream: a connection in use is looked at often enough to notice it.
            let wait = if connection.active() > 0 { limits.idle_timeout / 4 } else { limits.idle_timeout };
            let due = [connection.used.get() + wait, connection.born + limits.max_age];
            next = next.into_iter().chain(due).min();
            !connection.is_retired()
        });
        next
    }

    /// Lets go of connections that carry nothing.
    pub(crate) fn close_idle(&self) {
        self.connections.borrow_mut().retain(|connection| {
            if connection.active() == 0 {
                connection.retire();
            }
            !connection.is_retired()
        });
    }

    /// Takes no more streams on any connection.
    pub(crate) fn retire(&self) {
        for connection in self.connections.borrow_mut().drain(..) {
            connection.retire();
        }
    }

    fn wake_all(&self) {
        for waker in self.wakers.borrow_mut().drain() {
            waker.wake();
        }
    }
}

impl Drop for H2Pool {
    /// The task behind a connection lives on its own, and would hold an idle one for as long as the backend does.
    fn drop(&mut self) {
        self.retire();
    }
}

/// A connection is being made. The exchanges that wait for it are woken when the ticket is dropped.
#[derive(Debug)]
pub(crate) struct DialTicket {
    pool: Rc<H2Pool>,
    failure: Option<Failure>,
}

impl DialTicket {
    /// The connection did not come about: the exchanges that wait are not to try one after the other.
    pub(crate) fn fail(mut self, failure: Failure) {
        self.failure = Some(failure);
    }
}

impl Drop for DialTicket {
    fn drop(&mut self) {
        self.pool.dials.set(self.pool.dials.get().saturating_sub(1));
        self.pool.ended.set(self.pool.ended.get().wrapping_add(1));
        if self.failure.is_some() {
            self.pool.failure.set(self.failure);
            self.pool.failed.set(self.pool.failed.get().wrapping_add(1));
        }
        self.pool.wake_all();
    }
}

/// What became of the connection that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is to be asked for a way again.
    Again,
    /// It did not come about.
    Failed(Failure),
}

/// An exchange's place among those that wait for a connection.
#[derive(Debug)]
pub(crate) struct Wait {
    pool: Rc<H2Pool>,
    ended: u64,
    failed: u64,
    /// Where its waker is, until a dial ends.
    waker: Option<usize>,
}

impl Wait {
    /// Ready when a dial has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if self.pool.failed.get() != self.failed
            && let Some(failure) = self.pool.failure.get()
        {
            return Poll::Ready(Outcome::Failed(failure));
        }
        if self.pool.ended.get() != self.ended {
            return Poll::Ready(Outcome::Again);
        }
        let mut wakers = self.pool.wakers.borrow_mut();
        match self.waker.and_then(|at| wakers.get_mut(at)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(wakers.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.pool.waiting.set(self.pool.waiting.get().saturating_sub(1));
        // Once a dial has ended, what stands in its place is another's.
        if let Some(at) = self.waker.filter(|_| self.pool.ended.get() == self.ended) {
            self.pool.wakers.borrow_mut().try_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_core::failure::Kind;

    use super::*;

    fn wait(pool: &Rc<H2Pool>, now: Instant) -> Wait {
        match pool.way(false, now) {
            Way::Wait(wait) => wait,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_stops_waiting_leaves_nothing_behind() {
        let pool = Rc::new(H2Pool::default());
        let (now, mut cx) = (Instant::now(), Context::from_waker(Waker::noop()));
        let Way::Dial(ticket) = pool.way(false, now) else { panic!("a way without a connection") };
        for _ in 0..10_000 {
            let mut one = wait(&pool, now);
            assert_eq!((one.poll(&mut cx), one.poll(&mut cx)), (Poll::Pending, Poll::Pending));
            assert_eq!(pool.wakers.borrow().len(), 1);
        }
        assert_eq!((pool.wakers.borrow().len(), pool.waiting.get()), (0, 0));

        // A waiter that was woken and leaves later does not take the place of another.
        let mut woken = wait(&pool, now);
        assert_eq!(woken.poll(&mut cx), Poll::Pending);
        drop(ticket);
        let Way::Dial(ticket) = pool.way(false, now) else { panic!("a way without a connection") };
        let mut next = wait(&pool, now);
        assert_eq!(next.poll(&mut cx), Poll::Pending);
        assert_eq!(woken.poll(&mut cx), Poll::Ready(Outcome::Again));
        drop(woken);
        assert_eq!(pool.wakers.borrow().len(), 1);
        let failure = Kind::Tls { timed_out: false }.unconnected();
        ticket.fail(failure);
        assert_eq!(next.poll(&mut cx), Poll::Ready(Outcome::Failed(failure)));
    }
}

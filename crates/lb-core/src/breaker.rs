//! Limits of one backend: how much it is given at once, and which requests wait for room.
//!
//! A [`Breaker`] counts connections and requests against their limits. What finds no room waits in a bounded queue, for a bounded time, or
//! is refused. Waiting is first come, first served: a request that arrives later never overtakes one that waits. A breaker has no sockets
//! and no tasks. It keeps what is to be woken (`W`) for the caller, which calls [`Breaker::first`] after each change.
//!
//! A breaker has one owner. The limits of a backend that several workers share are split by [`MemberLimits::share`].

use std::time::{Duration, Instant};

use crate::reason::Reason;

mod queue;

use queue::Queue;
pub use queue::Ticket;

/// The limits of a backend (`[pools.NAME.limits]`); 0 is no limit, for the queue no queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberLimits {
    /// Connections at once, in use or idle.
    pub max_connections: u32,
    /// Requests at once.
    pub max_requests: u32,
    /// Requests or connections that wait at once.
    pub max_pending: u32,
    /// How long each of them waits.
    pub pending_timeout: Duration,
}

impl Default for MemberLimits {
    fn default() -> Self {
        Self { max_connections: 0, max_requests: 0, max_pending: 0, pending_timeout: Duration::from_secs(1) }
    }
}

impl MemberLimits {
    /// Whether there is anything to count.
    pub fn is_off(&self) -> bool {
        self.max_connections == 0 && self.max_requests == 0
    }

    /// The part of one of `workers`, the first being 0. The parts add up to the whole, except that each is at least 1, so that every
    /// worker can reach the backend: with fewer connections or requests than workers the sum is the number of workers.
    #[must_use]
    pub fn share(self, worker: u32, workers: u32) -> Self {
        let workers = workers.max(1);
        let part = |whole: u32| whole / workers + u32::from(worker < whole % workers);
        let limit = |whole: u32| if whole == 0 { 0 } else { part(whole).max(1) };
        Self {
            max_connections: limit(self.max_connections),
            max_requests: limit(self.max_requests),
            max_pending: part(self.max_pending),
            pending_timeout: self.pending_timeout,
        }
    }
}

/// What a request or connection needs of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Room for a request; a connection stands ready.
    Request,
    /// Room for a connection that carries no requests (TCP).
    Connection,
    /// Room for a request, and for a connection to send it on.
    Both,
}

impl Need {
    fn connections(self) -> u32 {
        u32::from(self != Self::Request)
    }

    fn requests(self) -> u32 {
        u32::from(self != Self::Connection)
    }
}

/// The answer to a request or connection that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admit {
    /// It may go on; the room is taken, and given back by [`Breaker::request_done`] and [`Breaker::connection_done`].
    Go,
    /// It waits. Its ticket is passed to [`Breaker::ask`] to find out more, or to [`Breaker::leave`] to give up.
    Wait(Ticket),
    /// It does not get in.
    Refuse(Full),
}

/// What was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All connections are taken, and there is no queue.
    Connections,
    /// All requests are taken, and there is no queue.
    Requests,
    /// The queue.
    Pending,
    /// Nothing became free in time.
    PendingTimeout,
}

impl Full {
    /// The reason under which it is counted and logged.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Connections => Reason::MaxConnections,
            Self::Requests => Reason::MaxRequests,
            Self::Pending => Reason::MaxPending,
            Self::PendingTimeout => Reason::PendingTimeout,
        }
    }
}

/// The answer to a request or connection that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// It may go on, as with [`Admit::Go`]. The ticket is spent.
    Go,
    /// It goes on waiting, until this moment at most.
    Wait(Instant),
    /// Its time is over. The ticket is spent.
    Refuse(Full),
}

/// The use of one backend.
#[derive(Clone, Debug)]
pub struct Breaker<W> {
    limits: MemberLimits,
    connections: u32,
    requests: u32,
    queue: Queue<Waiter<W>>,
}

#[derive(Clone, Debug)]
struct Waiter<W> {
    need: Need,
    waker: W,
}

impl<W> Breaker<W> {
    /// A breaker with everything free.
    pub fn new(limits: MemberLimits) -> Self {
        Self { limits, connections: 0, requests: 0, queue: Queue::default() }
    }

    /// Goes on with other limits. What is in use or waits stays, even beyond them; there is room again when enough of it is done.
    pub fn reconfigure(&mut self, limits: MemberLimits) {
        self.limits = limits;
    }

    /// A request or connection arrives. `waker` is kept if it has to wait.
    #[inline]
    pub fn admit(&mut self, need: Need, now: Instant, waker: impl FnOnce() -> W) -> Admit {
        let full = match self.lacks(need) {
            None if self.queue.is_empty() => {
                self.take(need);
                return Admit::Go;
            }
            full => full.unwrap_or(Full::Pending),
        };
        if self.limits.max_pending == 0 {
            return Admit::Refuse(full);
        }
        if self.queue.len() >= self.limits.max_pending {
            return Admit::Refuse(Full::Pending);
        }
        let until = now.checked_add(self.limits.pending_timeout).unwrap_or(now);
        Admit::Wait(self.queue.push(until, Waiter { need, waker: waker() }))
    }

    /// The state of a request or connection that waits. `need` may differ from before: a connection may stand ready by now. Room is given
    /// only to the first in the queue, and once the waiting time is over, it is over even when there is room.
    pub fn ask(&mut self, ticket: Ticket, need: Need, now: Instant) -> Answer {
        let Some(until) = self.queue.until(ticket) else { return Answer::Refuse(Full::PendingTimeout) };
        if until <= now {
            self.queue.remove(ticket);
            return Answer::Refuse(Full::PendingTimeout);
        }
        if self.would_go(ticket, need) {
            self.queue.remove(ticket);
            self.take(need);
            return Answer::Go;
        }
        Answer::Wait(until)
    }

    /// Whether what waits with this ticket is the first in the queue, and there is room for `need`.
    pub fn would_go(&self, ticket: Ticket, need: Need) -> bool {
        self.queue.is_first(ticket) && self.lacks(need).is_none()
    }

    /// Replaces what is to be woken for a ticket. A spent ticket is ignored.
    pub fn rewake(&mut self, ticket: Ticket, waker: W) {
        if let Some(waiter) = self.queue.waiter(ticket) {
            waiter.waker = waker;
        }
    }

    /// A request or connection gives up waiting. A spent ticket is ignored.
    pub fn leave(&mut self, ticket: Ticket) {
        self.queue.remove(ticket);
    }

    /// Takes room for one more connection on behalf of a request that has its place already, ahead of the queue.
    #[must_use]
    pub fn take_connection(&mut self) -> bool {
        let room = self.lacks(Need::Connection).is_none();
        if room {
            self.take(Need::Connection);
        }
        room
    }

    /// A request is done.
    #[inline]
    pub fn request_done(&mut self) {
        debug_assert!(self.requests > 0, "more requests done than begun");
        self.requests = self.requests.saturating_sub(1);
    }

    /// A connection is closed.
    #[inline]
    pub fn connection_done(&mut self) {
        debug_assert!(self.connections > 0, "more connections closed than opened");
        self.connections = self.connections.saturating_sub(1);
    }

    /// What is to be woken: the first in the queue, if there may be room for it. To be called after anything was done, closed, left or
    /// answered. It may be woken in vain, when it needs a connection and none stands ready.
    #[inline]
    pub fn first(&self) -> Option<&W> {
        let waiter = self.queue.first()?;
        // A connection may stand ready by now for a request that arrived while there was none.
        let least = if waiter.need == Need::Connection { Need::Connection } else { Need::Request };
        self.lacks(least).is_none().then_some(&waiter.waker)
    }

    /// Whether a request or connection that arrives now would get in at once; lets a balancer pass over a member that is full.
    #[inline]
    pub fn has_room(&self, need: Need) -> bool {
        self.queue.is_empty() && self.lacks(need).is_none()
    }

    /// Connections, in use or idle. For tests and the simulator.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// Requests under way. For tests and the simulator.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// How many wait.
    pub fn pending(&self) -> u32 {
        self.queue.len()
    }

    #[inline]
    fn lacks(&self, need: Need) -> Option<Full> {
        let beyond = |limit: u32, used: u32, more: u32| limit != 0 && more != 0 && used >= limit;
        if beyond(self.limits.max_requests, self.requests, need.requests()) {
            Some(Full::Requests)
        } else if beyond(self.limits.max_connections, self.connections, need.connections()) {
            Some(Full::Connections)
        } else {
            None
        }
    }

    #[inline]
    fn take(&mut self, need: Need) {
        self.connections = self.connections.saturating_add(need.connections());
        self.requests = self.requests.saturating_add(need.requests());
    }
}

#[cfg(test)]
mod tests;

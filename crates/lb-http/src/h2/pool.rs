//! The HTTP/2 connections of one worker to one backend address.
//!
//! Streams share connections, and a new one is made only when those that exist are full. While one is being made, exchanges wait for it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use lb_config::IdlePool;
use lb_pool::Connection;
use tokio::time::Instant;

use super::back::H2Back;
use super::client::{Backend, ClientConnection};
use crate::back::AnyBack;
use crate::serve;
use crate::upstream::{self, Ask, Caller, Dialled, Dialling, Dials, Link, Upstream, Way};

/// Streams that a connection is expected to take while its SETTINGS are still to come (RFC 9113 §6.5.2 recommends no fewer).
const EXPECTED_STREAMS: u32 = 100;

/// How long a connection's lifetime is taken for that of the next.
const LEARNED_FOR: Duration = Duration::from_secs(10);

/// The connections.
#[derive(Debug, Default)]
pub(crate) struct H2Pool {
    connections: RefCell<Vec<Rc<ClientConnection>>>,
    dials: Rc<Dials>,
    /// After how many streams the backend ended a connection, and when.
    learned: Cell<Option<(u32, Instant)>>,
}

impl H2Pool {
    /// Opens a stream on a connection that has room; `body` says that there is something to send on it.
    fn open(&self, body: bool, lifetime: u32, now: Instant) -> Option<H2Back> {
        // A stream with a body would stand still where the connection's window is closed; where it has been closed for a while, for good.
        [true, false].into_iter().find_map(|can_send| {
            let connections = self.connections.borrow();
            let mut alike = connections.iter().filter(|connection| {
                connection.can_send() == can_send && !(body && connection.is_stuck(now))
            });
            alike.find_map(|connection| connection.open(lifetime, now))
        })
    }

    /// How many may wait for the connections that are being made.
    fn expected(&self, lifetime: u32) -> usize {
        let expected = usize::try_from(EXPECTED_STREAMS.min(lifetime)).unwrap_or(usize::MAX);
        self.dials.under_way().saturating_mul(expected.saturating_sub(1).max(1))
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
}

impl Upstream for H2Pool {
    fn has_way(&self, caller: &Caller<'_>, ask: Ask) -> bool {
        let lifetime = self.lifetime(caller.now);
        let takes = |connection: &Rc<ClientConnection>| {
            connection.has_room(lifetime) && !(ask.body && connection.is_stuck(caller.now))
        };
        self.connections.borrow().iter().any(takes) || self.dials.waiting() < self.expected(lifetime)
    }

    fn way(&self, caller: &Caller<'_>, ask: Ask) -> Way {
        let lifetime = self.lifetime(caller.now);
        match self.open(ask.body, lifetime, caller.now) {
            Some(back) => Way::Open(Link::on(AnyBack::H2(back), true, caller.now, None)),
            None if self.dials.waiting() < self.expected(lifetime) => Way::Wait(self.dials.wait()),
            None => Way::Dial(Some(self.dials.dial())),
        }
    }

    /// Inside TLS the backend must choose HTTP/2 (RFC 9113 §3.2).
    fn dial(&self, caller: &Caller<'_>) -> Dialling {
        upstream::tcp::dial(caller, Some(serve::H2))
    }

    fn adopt(&self, caller: &Caller<'_>, made: Dialled, connection: Option<Connection>) -> Option<Link> {
        let Dialled::Stream(stream) = made else { return None };
        let Caller { worker, settings, member, now, .. } = *caller;
        let backend = Backend { name: member.backend.name().into(), address: member.endpoint.key.address };
        let (in_tls, io) = (member.backend.tls.is_some(), Rc::clone(&worker.io));
        let limits = settings.client_settings();
        let shared = ClientConnection::start(stream, in_tls, backend, limits, io, connection, now);
        let back = shared.open(u32::MAX, now);
        self.connections.borrow_mut().push(shared);
        worker.upstreams.touched(now);
        Some(Link::on(AnyBack::H2(back?), false, now, None))
    }

    fn sweep(&self, limits: &IdlePool, retired: bool, now: Instant) -> Option<Instant> {
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

    fn close_idle(&self) {
        self.connections.borrow_mut().retain(|connection| {
            if connection.active() == 0 {
                connection.retire();
            }
            !connection.is_retired()
        });
    }

    fn retire(&self) {
        for connection in self.connections.borrow_mut().drain(..) {
            connection.retire();
        }
    }
}

impl Drop for H2Pool {
    /// The task behind a connection lives on its own, and would hold an idle one for as long as the backend does.
    fn drop(&mut self) {
        self.retire();
    }
}

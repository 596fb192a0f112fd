//! Connections to backends that were told by the PROXY protocol whose they are: each serves the requests of one client connection, and ends with it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use lb_config::IdlePool;
use lb_core::address::ClientAddress;
use lb_core::proxy_protocol::ProxySends;
use lb_pool::Connection;
use tokio::time::Instant;

use super::{Endpoint, Idle, LOOK, Reused, Upstreams};
use crate::h1::back::H1Back;

/// A connection of a client whom backends may be told, and those connections to backends that were told of it and carry no request now.
#[derive(Debug)]
pub struct ToldClient {
    /// Where the client has connected to, where that is known.
    pub(crate) asked: Option<SocketAddr>,
    idle: RefCell<Vec<ToldIdle>>,
    /// The worker sweeps it.
    is_swept: Cell<bool>,
}

/// What a connection to a backend was told: another client, though it came over the same connection from a trusted proxy, and another form of
/// header, get another one (attack R-17).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose<'a> {
    pub(crate) told: &'a Rc<ToldClient>,
    pub(crate) endpoint: &'a Rc<Endpoint>,
    pub(crate) client: ClientAddress,
    pub(crate) sends: ProxySends,
}

#[derive(Debug)]
struct ToldIdle {
    endpoint: Weak<Endpoint>,
    client: ClientAddress,
    sends: ProxySends,
    idle: Idle,
}

impl ToldIdle {
    fn is(&self, whose: &Whose<'_>) -> bool {
        std::ptr::eq(self.endpoint.as_ptr(), Rc::as_ptr(whose.endpoint))
            && (self.client, self.sends) == (whose.client, whose.sends)
    }

    fn is_usable(&mut self, limits: &IdlePool, now: Instant) -> bool {
        self.idle.back.stream().is_quiet() && self.idle.is_fresh(limits, now)
    }
}

impl ToldClient {
    /// A client that has just connected.
    pub(crate) fn new(asked: Option<SocketAddr>) -> Rc<Self> {
        Rc::new(Self { asked, idle: RefCell::default(), is_swept: Cell::new(false) })
    }

    /// Closes what is dead, too old, or idle for too long, and what leads to backends that are gone. Whether anything is left.
    fn sweep(&self, limits: &IdlePool, now: Instant) -> bool {
        let mut idle = self.idle.borrow_mut();
        let is_over = |one: &mut ToldIdle| {
            one.endpoint.upgrade().is_none_or(|endpoint| endpoint.retired.get())
                || !one.is_usable(limits, now)
        };
        idle.extract_if(.., is_over).for_each(|one| one.idle.close());
        !idle.is_empty()
    }
}

impl Drop for ToldClient {
    fn drop(&mut self) {
        self.idle.take().into_iter().for_each(|one| one.idle.close());
    }
}

impl Upstreams {
    /// Whether [`Self::take_told`] would find a connection.
    pub(crate) fn has_told(&self, whose: &Whose<'_>, now: Instant) -> bool {
        let limits = self.limits.borrow();
        let mut idle = whose.told.idle.borrow_mut();
        idle.iter_mut().any(|one| one.is(whose) && one.is_usable(&limits, now))
    }

    /// An idle connection of this client that is still open as far as this process knows.
    pub(crate) fn take_told(&self, whose: &Whose<'_>, now: Instant) -> Option<Reused> {
        let limits = self.limits.borrow();
        let mut idle = whose.told.idle.borrow_mut();
        loop {
            let at = idle.iter().rposition(|one| one.is(whose))?;
            let mut found = idle.swap_remove(at);
            if found.is_usable(&limits, now) {
                let Idle { back, born, connection, .. } = found.idle;
                return Some(Reused { back, born, connection });
            }
            self.metrics.pool_probe_failures.inc();
            found.idle.close();
        }
    }

    /// Keeps a connection for another request of this client, unless it has as many to one backend as are kept of all clients.
    pub(crate) fn put_told(
        &self,
        whose: &Whose<'_>,
        back: Box<H1Back>,
        born: Instant,
        connection: Option<Connection>,
        now: Instant,
    ) {
        let Whose { told, endpoint, client, sends } = *whose;
        let idle = Idle { back, born, since: now, connection };
        let most = self.limits.borrow().per_peer_max.min(self.limits.borrow().total_max);
        let mut kept = told.idle.borrow_mut();
        if endpoint.retired.get() || kept.len() >= most {
            return idle.close();
        }
        kept.push(ToldIdle { endpoint: Rc::downgrade(endpoint), client, sends, idle });
        drop(kept);
        if !told.is_swept.replace(true) {
            self.told.borrow_mut().push(Rc::downgrade(told));
        }
        self.touched(now);
    }

    /// As [`Self::give_way`], of those that clients have of their own.
    pub(super) fn give_way_told(&self, endpoint: &Endpoint) -> bool {
        let clients = self.told.borrow();
        let (mut oldest, mut whose): (Option<Instant>, Option<Rc<ToldClient>>) = (None, None);
        for client in clients.iter().filter_map(Weak::upgrade) {
            let idle = client.idle.borrow();
            let here = idle.iter().filter(|one| std::ptr::eq(one.endpoint.as_ptr(), endpoint));
            let Some(since) = here.map(|one| one.idle.since).min() else { continue };
            drop(idle);
            if oldest.is_none_or(|oldest| since < oldest) {
                (oldest, whose) = (Some(since), Some(client));
            }
        }
        let Some(client) = whose else { return false };
        let mut idle = client.idle.borrow_mut();
        let is_oldest =
            |one: &ToldIdle| std::ptr::eq(one.endpoint.as_ptr(), endpoint) && Some(one.idle.since) == oldest;
        let Some(at) = idle.iter().position(is_oldest) else { return false };
        let gone = idle.swap_remove(at);
        drop(idle);
        gone.idle.close();
        true
    }

    /// Closes what is over of the connections of all clients; all that is idle, where `limits` is none. When to look again, if any is left.
    pub(super) fn sweep_told(&self, limits: Option<&IdlePool>, now: Instant) -> Option<Instant> {
        let mut clients = self.told.borrow_mut();
        clients.retain(|client| {
            let Some(client) = client.upgrade() else { return false };
            let is_left = match limits {
                Some(limits) => client.sweep(limits, now),
                None => {
                    client.idle.take().into_iter().for_each(|one| one.idle.close());
                    false
                }
            };
            client.is_swept.set(is_left);
            is_left
        });
        (!clients.is_empty()).then(|| now + LOOK)
    }
}

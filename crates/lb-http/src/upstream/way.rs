//! How a request gets on a connection to its member, whatever the member speaks.
//!
//! A protocol brings an [`Upstream`]: it says whether a connection stands ready, is being made by another exchange, or is to be made, and
//! makes it. HTTP/1.1 and HTTP/2 bring theirs in this crate; others are plugged in by [`Upstreams::plug`].
//!
//! [`Upstreams::plug`]: super::Upstreams::plug

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use lb_config::IdlePool;
use lb_pool::Connection;
use lb_security::Stream;
use tokio::time::Instant;

use super::dials::{DialTicket, Wait};
use crate::back::AnyBack;
use crate::message::{Back, BackCapabilities};
use crate::proxy::ClientSide;
use crate::service::{HttpWorker, Member, Settings};

/// The connections of one endpoint, as its protocol keeps them.
pub trait Upstream: fmt::Debug {
    /// Whether [`Self::way`] would not lead to another connection.
    fn has_way(&self, caller: &Caller<'_>, ask: Ask) -> bool;

    /// The way of a request to the caller's member.
    fn way(&self, caller: &Caller<'_>, ask: Ask) -> Way;

    /// Makes a connection, with all handshakes that belong to it.
    fn dial(&self, caller: &Caller<'_>) -> Dialling;

    /// Puts a request on a connection that [`Self::dial`] has just made. `connection` is its count at its member, to be kept for as long as
    /// the connection is open. `None` where it has ended already.
    fn adopt(&self, caller: &Caller<'_>, made: Dialled, connection: Option<Connection>) -> Option<Link>;

    /// Takes a connection back on which a response has come to its end; `sent` says that the request has as well.
    fn release(&self, _caller: &Caller<'_>, link: Link, _sent: bool) {
        drop(link);
    }

    /// Closes what is over, too old, or idle for too long; all that is idle where the endpoint is `retired`. When there will be something
    /// to close, if any connection is left.
    fn sweep(&self, _limits: &IdlePool, _retired: bool, _now: Instant) -> Option<Instant> {
        None
    }

    /// Closes connections that carry nothing: the process lacks descriptors.
    fn close_idle(&self) {}

    /// Puts no more requests on the connections that are open.
    fn retire(&self) {}
}

/// What an exchange brings along to an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The worker that it runs on.
    pub worker: &'a HttpWorker,
    /// The settings that it began with.
    pub settings: &'a Settings,
    /// The member that it goes to.
    pub member: &'a Member,
    /// Whose request it is.
    pub(crate) client: &'a ClientSide,
    /// The time of its turn.
    pub now: Instant,
}

/// What a request asks of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// There is something to send after the head.
    pub body: bool,
    /// A connection that has been idle will not do.
    pub fresh: bool,
}

/// How a request gets on a connection.
#[derive(Debug)]
pub enum Way {
    /// A connection, or a place on one, stands ready.
    Open(Link),
    /// Another exchange is making a connection that will have room.
    Wait(Wait),
    /// A connection is to be made; the ticket, where others may wait for it, is held meanwhile.
    Dial(Option<DialTicket>),
}

/// A connection in the making, with its timeouts.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<Dialled>>>>;

/// A connection that was just made.
#[derive(Debug)]
pub enum Dialled {
    /// A stream of bytes, on which nothing was said.
    Stream(Stream),
    /// A connection of the upstream's own kind.
    Own(Box<dyn Any>),
}

/// A request on a connection to its member.
#[derive(Debug)]
pub struct Link {
    pub(crate) back: AnyBack,
    /// The connection had served before.
    pub(crate) reused: bool,
    /// What the protocol can do.
    pub(crate) can: BackCapabilities,
    /// When the connection was made.
    pub(crate) born: Instant,
    /// The connection's count at its member, unless other requests share it.
    pub(crate) connection: Option<Connection>,
}

impl Link {
    /// A request on a connection of a protocol from another crate. `reused` says that the connection had served before.
    pub fn new(back: impl Back + fmt::Debug + 'static, reused: bool, now: Instant) -> Self {
        Self::on(AnyBack::Plugged(Box::new(back)), reused, now, None)
    }

    pub(crate) fn on(back: AnyBack, reused: bool, born: Instant, connection: Option<Connection>) -> Self {
        let can = back.capabilities();
        Self { back, reused, can, born, connection }
    }
}

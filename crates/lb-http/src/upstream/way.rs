//! How a request gets on a connection to its member, whatever the member speaks.
//!
//! HTTP/1.1 carries one request at a time: an idle connection is taken, or one is made. HTTP/2 shares its connections: a stream is opened on
//! one that has room, or the request waits for one that another is making, or one is made. [`Member`] hides the difference.

use std::rc::Rc;

use lb_config::BackendProtocol;
use lb_pool::Connection;
use lb_security::Stream;
use tokio::time::Instant;

use super::Reused;
use crate::back::AnyBack;
use crate::h1::back::H1Back;
use crate::h2::{self, Backend, ClientConnection};
pub(crate) use crate::h2::{DialTicket, Outcome, Wait};
use crate::serve;
use crate::service::{HttpWorker, Member, Settings};

/// A request on a connection to its member.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) back: AnyBack,
    /// The connection had served before.
    pub(crate) reused: bool,
    /// When the connection was made.
    born: Instant,
    /// The connection's count at its member, unless other requests share it.
    connection: Option<Connection>,
}

/// What a request asks of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// There is something to send after the head.
    pub(crate) body: bool,
    /// A connection that has been idle will not do.
    pub(crate) fresh: bool,
}

/// How a request gets on a connection.
#[derive(Debug)]
pub(crate) enum Way {
    /// A connection, or a place on one, stands ready.
    Open(Link),
    /// Another exchange is making a connection that will have room.
    Wait(Wait),
    /// A connection is to be made; the ticket, where others may wait for it, is held meanwhile.
    Dial(Option<DialTicket>),
}

impl Member {
    fn speaks_h2(&self) -> bool {
        self.endpoint.key.protocol == BackendProtocol::H2
    }

    /// The protocol that the member must choose inside TLS, if it must choose one (RFC 9113 §3.2).
    pub(crate) fn required_alpn(&self) -> Option<&'static [u8]> {
        self.speaks_h2().then_some(serve::H2)
    }

    /// Whether [`Self::way`] would not lead to another connection.
    pub(crate) fn has_way(&self, worker: &HttpWorker, ask: Ask, now: Instant) -> bool {
        match self.speaks_h2() {
            true => self.endpoint.h2.has_way(ask.body, now),
            false => !ask.fresh && worker.upstreams.is_ready(&self.endpoint, now),
        }
    }

    /// The way of a request to this member.
    pub(crate) fn way(&self, worker: &HttpWorker, settings: &Settings, ask: Ask, now: Instant) -> Way {
        if self.speaks_h2() {
            return match self.endpoint.h2.way(ask.body, now) {
                h2::Way::Open(back) => {
                    Way::Open(Link { back: AnyBack::H2(back), reused: true, born: now, connection: None })
                }
                h2::Way::Wait(wait) => Way::Wait(wait),
                h2::Way::Dial(ticket) => Way::Dial(Some(ticket)),
            };
        }
        let pooled = if ask.fresh { None } else { worker.upstreams.take(&self.endpoint, now) };
        match pooled {
            Some(Reused { stream, born, connection }) => {
                let back = h1_back(worker, settings, stream);
                Way::Open(Link { back, reused: true, born, connection })
            }
            None => Way::Dial(None),
        }
    }

    /// Puts a request on a connection that was just made. `None` where the connection has ended already.
    pub(crate) fn adopt(
        &self,
        worker: &HttpWorker,
        settings: &Settings,
        stream: Stream,
        connection: Option<Connection>,
        born: Instant,
    ) -> Option<Link> {
        if !self.speaks_h2() {
            let back = h1_back(worker, settings, stream);
            return Some(Link { back, reused: false, born, connection });
        }
        let backend = Backend { name: self.name.as_str().into(), address: self.endpoint.key.address };
        let (in_tls, io) = (self.tls.is_some(), Rc::clone(&worker.io));
        let limits = settings.client_settings();
        let shared = ClientConnection::start(stream, in_tls, backend, limits, io, connection, born);
        let back = shared.open(u32::MAX, born);
        self.endpoint.h2.add(shared);
        worker.upstreams.touched(born);
        Some(Link { back: AnyBack::H2(back?), reused: false, born, connection: None })
    }

    /// Takes a connection back on which a response has come to its end; `sent` says that the request has as well. It is kept for another
    /// request if it can carry one.
    pub(crate) fn release(&self, worker: &HttpWorker, link: Link, sent: bool, now: Instant) {
        let Link { back, born, connection, .. } = link;
        match back.into_idle() {
            Ok(Some(stream)) if sent => {
                worker.upstreams.put(&self.endpoint, stream, born, connection, worker.busiest(), now);
            }
            Ok(_) => {}
            Err(reason) => worker.metrics.upstream_rejected.of(reason).inc(),
        }
    }
}

fn h1_back(worker: &HttpWorker, settings: &Settings, stream: Stream) -> AnyBack {
    AnyBack::H1(H1Back::new(stream, Rc::clone(&worker.io), settings.http.max_header_bytes))
}

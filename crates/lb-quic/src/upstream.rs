//! The HTTP/3 connections of one worker to one backend address.
//!
//! Streams share connections, and a new one is made only when those that exist are full. While one is being made, exchanges wait for it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::{BackendProtocol, IdlePool};
use lb_core::address::Address;
use lb_http::h3::QpackDecoder;
use lb_http::service::Settings;
use lb_http::upstream::{Ask, Caller, Dialled, Dialling, Dials, EndpointKey, Link, Upstream, Upstreams, Way};
use lb_io::WorkerIo;
use lb_observe::metrics::TlsResult;
use lb_pool::Connection as Counted;
use lb_security::{ClientTls, TlsFailure, failure_of};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::dialer::{Dialer, limit};
use crate::endpoint::Shared;
use crate::h3::{Client, ClientLimits, H3Back};
use crate::memory::QuicMemory;
use crate::transport;

/// Streams that a connection is expected to take (RFC 9114 §6.1).
const EXPECTED_STREAMS: usize = 100;

/// Has HTTP/3 backends reached over QUIC, within the worker's budget of memory.
pub fn plug(upstreams: &Upstreams, io: &Rc<WorkerIo>, memory: &Rc<QuicMemory>) {
    let dialer = Dialer::new(Rc::clone(io), Rc::clone(memory));
    let qpack: Rc<RefCell<QpackDecoder>> = Rc::default();
    upstreams.plug(BackendProtocol::H3, move |key: &EndpointKey| {
        Rc::new(H3Pool {
            dialer: Rc::clone(&dialer),
            qpack: Rc::clone(&qpack),
            address: key.address,
            connections: RefCell::default(),
            dials: Rc::default(),
            session: Rc::default(),
        })
    });
}

/// A connection, and what is known of its use.
struct Open {
    connection: Shared<Client>,
    born: Instant,
    used: Cell<Instant>,
    _counted: Option<Counted>,
}

/// The connections.
struct H3Pool {
    dialer: Rc<Dialer<Client>>,
    qpack: Rc<RefCell<QpackDecoder>>,
    address: Address,
    connections: RefCell<Vec<Open>>,
    dials: Rc<Dials>,
    /// The last session, for the next handshake.
    session: Rc<RefCell<Option<Vec<u8>>>>,
}

impl std::fmt::Debug for H3Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H3Pool").field("address", &self.address).finish_non_exhaustive()
    }
}

impl H3Pool {
    /// Opens a stream on a connection that has room.
    fn open(&self, now: Instant) -> Option<H3Back> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|open| {
            let connection = open.connection.borrow();
            let is_retired = connection.app.is_retired();
            if is_retired {
                self.keep_session(&connection);
            }
            !is_retired
        });
        connections.iter().find_map(|open| {
            let id = Client::open(&mut open.connection.borrow_mut(), now.into_std())?;
            open.used.set(now);
            Some(H3Back::new(Rc::clone(&open.connection), id))
        })
    }

    /// Keeps the session of a connection for the next handshake. Tickets come after the handshake, so that its end is too early to ask.
    fn keep_session(&self, connection: &Connection<Client>) {
        if let Some(session) = connection.quic.session() {
            *self.session.borrow_mut() = Some(session.to_vec());
        }
    }

    fn expected(&self) -> usize {
        self.dials.under_way().saturating_mul(EXPECTED_STREAMS - 1)
    }

    fn end_all(&self, which: impl Fn(&Open) -> bool) {
        self.connections.borrow_mut().retain(|open| {
            let ends = which(open);
            if ends {
                self.keep_session(&open.connection.borrow());
                Client::retire(&mut open.connection.borrow_mut());
            }
            !ends
        });
    }
}

impl Drop for H3Pool {
    /// The endpoint behind a connection lives on, and would hold an idle one for as long as the backend does.
    fn drop(&mut self) {
        self.end_all(|_| true);
    }
}

impl Upstream for H3Pool {
    fn has_way(&self, _: &Caller<'_>, _: Ask) -> bool {
        self.connections.borrow().iter().any(|open| Client::has_room(&open.connection.borrow()))
            || self.dials.waiting() < self.expected()
    }

    fn way(&self, caller: &Caller<'_>, _: Ask) -> Way {
        match self.open(caller.now) {
            Some(back) => Way::Open(Link::new(back, true, caller.now)),
            None if self.dials.waiting() < self.expected() => Way::Wait(self.dials.wait()),
            None => Way::Dial(Some(self.dials.dial())),
        }
    }

    fn dial(&self, caller: &Caller<'_>) -> Dialling {
        let Caller { worker, settings, member, .. } = caller;
        let metrics = Arc::clone(&worker.metrics);
        let tls = member.backend.tls.clone();
        let address = self.address;
        let begun = self.begin(settings, tls.clone());
        Box::pin(async move {
            let failed = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let (made, established) = begun?;
            let connection = made.await.map_err(|_| failed())??;
            let outcome = established.await.unwrap_or_else(|_| Err(failed()));
            let counted = match &outcome {
                Ok(result) => Some(*result),
                Err(error) => failure_of(error).map(|failure| failure.result()),
            };
            metrics.backend_tls_handshakes.of(counted.unwrap_or(TlsResult::Closed)).inc();
            if let (Err(error), Some(tls)) = (&outcome, &tls) {
                tls.tell(address, error);
            }
            outcome?;
            Ok(Dialled::Own(Box::new(connection)))
        })
    }

    fn adopt(&self, caller: &Caller<'_>, made: Dialled, counted: Option<Counted>) -> Option<Link> {
        let Dialled::Own(made) = made else { return None };
        let connection = *made.downcast::<Shared<Client>>().ok()?;
        let now = caller.now;
        let id = Client::open(&mut connection.borrow_mut(), now.into_std());
        let back = id.map(|id| H3Back::new(Rc::clone(&connection), id));
        self.connections.borrow_mut().push(Open {
            connection,
            born: now,
            used: Cell::new(now),
            _counted: counted,
        });
        Some(Link::new(back?, false, now))
    }

    fn sweep(&self, limits: &IdlePool, retired: bool, now: Instant) -> Option<Instant> {
        let mut next = None::<Instant>;
        self.connections.borrow_mut().retain(|open| {
            let mut connection = open.connection.borrow_mut();
            let active = connection.app.active();
            let idle = active == 0 && (retired || now >= open.used.get() + limits.idle_timeout);
            if idle || now >= open.born + limits.max_age {
                Client::retire(&mut connection);
            }
            if active > 0 {
                open.used.set(now);
            } else {
                self.keep_session(&connection);
            }
            let wait = if active > 0 { limits.idle_timeout / 4 } else { limits.idle_timeout };
            let due = [open.used.get() + wait, open.born + limits.max_age];
            next = next.into_iter().chain(due).min();
            !connection.app.is_retired()
        });
        next
    }

    fn close_idle(&self) {
        self.end_all(|open| open.connection.borrow().app.active() == 0);
    }

    fn retire(&self) {
        self.end_all(|_| true);
    }
}

/// A connection under way: itself, and what becomes of its handshake.
type Begun = (oneshot::Receiver<io::Result<Shared<Client>>>, oneshot::Receiver<io::Result<TlsResult>>);

impl H3Pool {
    fn begin(&self, settings: &Settings, tls: Option<Arc<ClientTls>>) -> io::Result<Begun> {
        let to: SocketAddr = self.address.socket_addr().ok_or(io::ErrorKind::Unsupported)?;
        let tls = tls.ok_or_else(|| TlsFailure::Internal.because("an h3 backend without TLS"))?;
        let limits = ClientLimits {
            max_list: settings.h2.max_header_list_size,
            flood_percent: settings.h2.flood_budget_percent,
        };
        let config =
            transport::client(&tls, settings).map_err(|error| TlsFailure::Internal.because(error))?;
        let (sender, established) = oneshot::channel();
        let name = tls.server_name();
        let app = Client::new(tls, Rc::clone(&self.qpack), limits, sender, limit(settings));
        let session = self.session.borrow().clone();
        let made = self.dialer.dial(to, name, session, config, app)?;
        Ok((made, established))
    }
}

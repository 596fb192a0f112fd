//! Raw connections that go to pools by what their clients ask for in TLS: server name, protocols, source.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use lb_config::{PoolId, RouteTarget, Routing};
use lb_core::address::ClientAddress;
use lb_core::head::RequestHead;
use lb_core::route::{
    ConnectionFacts, Host, PatternCaches, RouteDestination, RouteRequest, Scheme, ShownCertificate,
};
use lb_io::{ByteStream, ConnectionGuard, Phase, WorkerIo};
use lb_security::{Stream, WishReader};

use crate::service::TcpSettings;

/// The routes of a listener that forwards raw bytes. Whether TLS ends at the listener or behind it, they look at what the client asks for.
#[derive(Debug)]
pub struct NameRoutes {
    routing: Arc<Routing>,
    /// The settings with the pool of each route, by its position.
    pools: Vec<Option<Rc<TcpSettings>>>,
    caches: RefCell<PatternCaches>,
}

/// Where a connection goes.
#[derive(Debug)]
pub(crate) enum NameChoice {
    /// To the pool of a route.
    Route(Rc<TcpSettings>),
    /// To the listener's own pool.
    Own,
    /// Nowhere.
    Nothing,
}

impl NameRoutes {
    /// The routes of a listener; `of` gives the settings with a pool.
    pub fn new(routing: &Arc<Routing>, mut of: impl FnMut(&PoolId) -> Option<Rc<TcpSettings>>) -> Self {
        let pools = routing.routes.iter().map(|route| match &route.target {
            RouteTarget::Pool(id) => of(id),
            _ => None,
        });
        let pools = pools.collect();
        Self { routing: Arc::clone(routing), pools, caches: RefCell::default() }
    }

    /// Where a connection goes; `None` where it ends before that is known. The caller keeps the time.
    pub(crate) async fn choose(
        &self,
        stream: &mut Stream,
        client: ClientAddress,
        guard: &ConnectionGuard,
        io: &WorkerIo,
    ) -> Option<NameChoice> {
        let tls = match stream {
            Stream::Plain(stream) => return self.choose_unopened(stream, client, guard, io).await,
            Stream::Tls(tls) => tls,
        };
        let facts = ConnectionFacts {
            server_name: tls.server_name(),
            alpn: tls.alpn(),
            certificate: tls.peer_certificate().map(|certificate| ShownCertificate {
                sha256: &certificate.sha256,
                subject: &certificate.subject,
                dns_names: &certificate.dns_names,
                uris: &certificate.uris,
            }),
            ..ConnectionFacts::default()
        };
        Some(self.find(client, &facts))
    }

    /// As [`Self::choose`], for a connection whose TLS does not end here. What was read of it is given back to it.
    pub(crate) async fn choose_unopened(
        &self,
        stream: &mut ByteStream,
        client: ClientAddress,
        guard: &ConnectionGuard,
        io: &WorkerIo,
    ) -> Option<NameChoice> {
        let mut reader = WishReader::default();
        let wish = poll_fn(|cx| {
            guard.set_waker(cx.waker());
            if guard.phase() == Phase::Abort {
                return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
            }
            reader.poll(cx, stream, io)
        });
        let wish = wish.await.ok()?;
        let facts = ConnectionFacts {
            server_name: wish.server_name.as_deref(),
            offered: &wish.alpn,
            ..ConnectionFacts::default()
        };
        Some(self.find(client, &facts))
    }

    fn find(&self, client: ClientAddress, facts: &ConnectionFacts<'_>) -> NameChoice {
        // The server that is asked for stands in the place of the host. No path condition is met by `*`, and there is none.
        let name = facts.server_name.unwrap_or_default();
        let Some(host) = Host::of(name.as_bytes()).or_else(|| Host::of(b"")) else {
            return NameChoice::Nothing;
        };
        let head = RequestHead::default();
        let request = RouteRequest {
            host: &host,
            method: b"",
            path: b"*",
            query: b"",
            head: &head,
            client: client.ip(),
            scheme: Scheme::Https,
            connection: Some(facts),
        };
        match self.routing.table.find(&request, &mut self.caches.borrow_mut()) {
            RouteDestination::Route(at) => match self.pools.get(at as usize) {
                Some(Some(settings)) => NameChoice::Route(Rc::clone(settings)),
                _ => NameChoice::Nothing,
            },
            RouteDestination::Fallback(_) => NameChoice::Own,
            RouteDestination::Nowhere(_) => NameChoice::Nothing,
        }
    }
}

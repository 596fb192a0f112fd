//! Connections that pass to backends inside TLS, at a listener that ends TLS for all others.

use std::rc::Rc;
use std::sync::Arc;

use lb_config::Listener;
use lb_core::address::ClientAddress;
use lb_core::filter::AccessList;
use lb_io::{ByteStream, ConnectionGuard};
use lb_l4::{TcpService, TcpSettings};
use lb_observe::metrics::WorkerMetrics;

use super::Acceptor;

/// The connections of a listener that pass.
#[derive(Debug)]
pub(crate) struct Passing {
    service: Rc<TcpService>,
    /// Which clients are let in.
    access: Vec<Arc<AccessList>>,
}

impl Passing {
    /// What serves those that pass.
    pub(super) fn service(&self) -> Rc<TcpService> {
        Rc::clone(&self.service)
    }

    /// Reads what a client asks for, and whether its connection passes. The caller keeps the time. A connection that ends meanwhile does not pass, and
    /// fails its handshake.
    pub(super) async fn takes(
        &self,
        stream: &mut ByteStream,
        peer: ClientAddress,
        guard: &ConnectionGuard,
    ) -> bool {
        self.service.is_for_route(stream, peer, guard).await
    }

    /// Which clients may have their connections pass.
    pub(super) fn access(&self) -> &[Arc<AccessList>] {
        &self.access
    }
}

impl Acceptor {
    /// The connections that pass, where any do.
    pub(super) fn passing(&self) -> Option<Rc<Passing>> {
        self.passing.borrow().clone()
    }

    /// Puts other rules in force for connections to come.
    pub(crate) fn set_passing(
        &self,
        listener: &Listener,
        settings: Option<Rc<TcpSettings>>,
        worker: Arc<WorkerMetrics>,
    ) {
        let outer = listener.routing.as_ref().and_then(|routing| routing.own.chain.as_ref());
        let lists = outer.map(|chain| chain.access.clone()).unwrap_or_default();
        // A tls listener has its lists where all of its connections pass them.
        let access = if listener.is_http() { lists } else { Vec::new() };
        let passing = settings.map(|settings| {
            let (io, metrics) = (Rc::clone(&self.io), Arc::clone(&self.admissions.metrics));
            let connections = Rc::clone(&self.admissions.connections);
            Rc::new(Passing { service: TcpService::new(io, worker, metrics, connections, settings), access })
        });
        *self.passing.borrow_mut() = passing;
    }
}

//! The pools and settings of a snapshot, as the listeners of one worker use them.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lb_config::{Listener, PoolId};
use lb_control::{PoolInForce, Snapshot};
use lb_http::SharedParts;
use lb_http::service::{Pool as HttpPool, PoolParts, Settings as HttpSettings};
use lb_l4::{NameRoutes, TcpPool, TcpSettings, UdpSettings};
use lb_pool::{ResolvedBackend, SharedPool, WorkerPool};
use lb_quic::passthrough::{PassthroughPool, PassthroughSettings};
use lb_quic::{QuicListenerParts, QuicService, QuicSettings, QuicShared, RawSettings};
use lb_security::SharedTlsBundle;
use lb_security::admission::Admissions;

use super::Worker;

/// The pools that one snapshot has become in this worker so far: listeners that use the same pool share one of each.
#[derive(Default)]
pub(super) struct Made {
    http: HashMap<PoolId, Rc<HttpPool>>,
    tcp: HashMap<PoolId, Rc<TcpPool>>,
    passthrough: HashMap<PoolId, Rc<PassthroughPool>>,
}

impl Worker {
    /// A shared pool as this worker sees it. A pool that has changed takes over from the one that was here under its identity.
    pub(super) fn pool(&self, shared: &Arc<SharedPool>) -> Rc<WorkerPool> {
        let mut pools = self.pools.borrow_mut();
        let earlier = pools.get(&shared.id);
        if let Some(pool) = earlier.filter(|pool| Arc::ptr_eq(pool.shared(), shared)) {
            return Rc::clone(pool);
        }
        let metrics = self.metrics.pool(&shared.id);
        let now = std::time::Instant::now();
        let pool = WorkerPool::new(Arc::clone(shared), self.io.id, now, earlier.map(|pool| &**pool), metrics);
        let pool = Rc::new(pool);
        pools.insert(shared.id.clone(), Rc::clone(&pool));
        pool
    }

    /// Everything of a pool that listeners of one kind have in common, made when the first of them needs it.
    fn http_pool(&self, snapshot: &Snapshot, pool: PoolInForce<'_>, made: &mut Made) -> Rc<HttpPool> {
        let make = || {
            let PoolInForce { config, backends, shared } = pool;
            let tls = |backend: &lb_config::Backend| snapshot.backends_tls.of(true, backend);
            let parts =
                PoolParts { backends, balance: self.pool(shared), sticky: snapshot.keys.sticky.of(config) };
            HttpPool::new(config, parts, tls, &self.upstreams, &self.metrics)
        };
        Rc::clone(made.http.entry(pool.config.id.clone()).or_insert_with(make))
    }

    pub(super) fn http_settings(
        &self,
        snapshot: &Snapshot,
        listener: &Listener,
        pool: PoolInForce<'_>,
        made: &mut Made,
    ) -> Rc<HttpSettings> {
        let pool = self.http_pool(snapshot, pool, made);
        let others = |id: &PoolId| Some(self.http_pool(snapshot, snapshot.pool(id)?, made));
        let shared = SharedParts {
            bodies: &snapshot.keys.bodies,
            limits: &snapshot.limits,
            adaptive: &self.http.adaptive,
        };
        HttpSettings::new(&snapshot.config, listener, pool, others, shared, &self.metrics)
    }

    pub(super) fn tcp_pool(
        &self,
        snapshot: &Snapshot,
        pool: PoolInForce<'_>,
        made: &mut Made,
    ) -> Rc<TcpPool> {
        let make = || {
            let PoolInForce { config, backends, shared } = pool;
            let balance = self.pool(shared);
            let each = ResolvedBackend::for_members(backends, &config.backends);
            let members = each.map_while(|(at, backend)| {
                let metrics = self.metrics.backend(&config.id, false, &backend.name);
                let member = balance.member(at, snapshot.backends_tls.of(false, backend), metrics)?;
                Some(member.telling(backend.proxy_protocol))
            });
            TcpPool::new(members.collect(), Rc::clone(&balance))
        };
        Rc::clone(made.tcp.entry(pool.config.id.clone()).or_insert_with(make))
    }

    pub(super) fn tcp_settings(
        &self,
        snapshot: &Snapshot,
        listener: &Listener,
        pool: PoolInForce<'_>,
        made: &mut Made,
    ) -> Rc<TcpSettings> {
        let runtime = &snapshot.config.runtime;
        let (connect, handshake) = (runtime.connect_timeout, runtime.handshake_timeout);
        let of = |pool, names, made: &mut Made| {
            let pool = self.tcp_pool(snapshot, pool, made);
            TcpSettings::new(listener.tcp.clone(), connect, handshake, pool, names)
        };
        let names = listener.routing.as_ref();
        let names =
            names.map(|routing| NameRoutes::new(routing, |id| Some(of(snapshot.pool(id)?, None, made))));
        of(pool, names, made)
    }

    /// How the connections of a listener go on that pass inside TLS, if any do.
    pub(super) fn passing_settings(
        &self,
        snapshot: &Snapshot,
        listener: &Listener,
        made: &mut Made,
    ) -> Option<Rc<TcpSettings>> {
        let routing = listener.passing.as_ref()?;
        // No connection goes to a pool of the listener's own: one that no route takes does not pass.
        let first = routing.routes.iter().flat_map(|route| route.target.pools()).next()?;
        let raw = Listener { routing: Some(Arc::clone(routing)), ..listener.clone() };
        Some(self.tcp_settings(snapshot, &raw, snapshot.pool(first)?, made))
    }

    /// How a listener relays QUIC whose streams it does not read, if it does.
    pub(super) fn raw_settings(
        &self,
        snapshot: &Snapshot,
        listener: &Listener,
        pool: PoolInForce<'_>,
        made: &mut Made,
    ) -> Option<Rc<RawSettings>> {
        listener.raw_proxy()?;
        let tcp = self.tcp_settings(snapshot, listener, pool, made);
        RawSettings::new(tcp, QuicSettings::of(listener)?, &pool.config.hash_key)
    }

    /// What a QUIC listener is made of.
    pub(super) fn quic_parts(
        &self,
        listener: &Listener,
        service: QuicService,
        admissions: &Rc<Admissions>,
        (tls, shared): (&SharedTlsBundle, QuicShared),
    ) -> Option<QuicListenerParts> {
        Some(QuicListenerParts {
            service,
            io: Rc::clone(&self.io),
            admissions: Rc::clone(admissions),
            handshakes: Rc::clone(&self.handshakes),
            memory: Rc::clone(&self.quic_memory),
            tls: tls.clone(),
            shared,
            settings: QuicSettings::of(listener)?,
        })
    }

    pub(super) fn udp_settings(&self, listener: &Listener, pool: Rc<TcpPool>) -> Rc<UdpSettings> {
        UdpSettings::new(listener.udp.clone(), self.descriptors, pool)
    }

    /// What a listener does with QUIC that it forwards without keys, if it does.
    pub(super) fn passthrough_settings(
        &self,
        snapshot: &Snapshot,
        listener: &Listener,
        made: &mut Made,
    ) -> Option<Rc<PassthroughSettings>> {
        let (config, secrets) = (listener.passthrough.clone()?, snapshot.keys.passthrough.clone()?);
        let mut pool = |id: &PoolId| Some(self.passthrough_pool(snapshot.pool(id)?, made));
        let default = pool(&listener.pool.id)?;
        Some(PassthroughSettings::new(config, secrets, default, pool))
    }

    pub(super) fn passthrough_pool(&self, pool: PoolInForce<'_>, made: &mut Made) -> Rc<PassthroughPool> {
        let make = || {
            let PoolInForce { config, backends, shared } = pool;
            let each = ResolvedBackend::for_members(backends, &config.backends);
            let metrics = each.map(|(_, backend)| self.metrics.backend(&config.id, false, &backend.name));
            PassthroughPool::new(self.pool(shared), metrics, config.hash_key.clone())
        };
        Rc::clone(made.passthrough.entry(pool.config.id.clone()).or_insert_with(make))
    }
}

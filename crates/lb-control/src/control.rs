//! The control thread: signals, reloads, names that run out.

use std::collections::HashSet;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::bail;
use lb_config::{Config, ConfigText, PoolId, SocketName};
use lb_core::limit::LimitRegistry;
use lb_io::gate::AddressGate;
use lb_io::resolver::Resolver;
use lb_io::udp::Steering;
use lb_observe::access_log::AccessLog;
use lb_observe::admin::{Call, Readiness};
use lb_observe::metrics::Metrics;
use lb_pool::Registry;
use lb_quic::Qlogs;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::access_files::AccessWatch;
use crate::admin_port::AdminPort;
use crate::alone::Alone;
use crate::discovery::{Found, Sources};
use crate::drain::{Cause, ProcessOutcome};
use crate::ending::{Ending, Progress};
use crate::file_keys::FileKeys;
use crate::listeners::{Listeners, Turn};
use crate::named_files::Stamps;
use crate::names::{Patience, Resolution};
use crate::orders::{Change, ListenerKey, ListenerSockets, Order, Workers};
use crate::overlay::{Discovered, Overlay};
use crate::probe::Prober;
use crate::signals::Signals;
use crate::snapshot::{PoolBackends, Snapshot};
use crate::source::Source;
use crate::status::Standing;
use crate::tls::{BackendsTls, NextTls, Tls};
use crate::traces::TraceExport;
use crate::upgrade::{Program, Upgrade};
use crate::xdp::Xdp;
use crate::{api, drain, names};

/// How often the connections of listeners that a reload took away are counted.
const LOOK: Duration = Duration::from_millis(50);

/// How long a snapshot outlives the time that it is in force: what runs under it gives its parts up first, so that no worker has all of a large
/// configuration to free.
const RETIRES_AFTER: Duration = Duration::from_secs(2);

/// With so many members, what a change leaves behind is worth the milliseconds that it takes to give memory back.
const MANY_MEMBERS: usize = 2000;

/// What is to be in force next.
#[derive(Debug)]
pub(crate) struct Next {
    config: Config,
    overlay: Overlay,
    /// The configuration with what lies over it.
    pub(crate) merged: Config,
    resolution: Resolution,
    backends_tls: BackendsTls,
    /// Listeners that come and go.
    pub(crate) turn: Turn,
    /// The TLS side of listeners, if that is another one.
    pub(crate) tls: Option<NextTls>,
}

/// Everything that the control thread holds.
pub struct Control {
    pub(crate) source: Source,
    /// The text that was read last.
    pub(crate) text: ConfigText,
    /// What of it is in force: the configuration without the backends that lie over it.
    pub(crate) config: Config,
    /// Backends that were discovered, and what the admin port was told.
    pub(crate) overlay: Overlay,
    /// The place of the process that runs this file, until the drain.
    pub(crate) alone: Option<Alone>,
    /// The files of TLS and cookies, as they were when they were read.
    pub(crate) stamps: Stamps,
    /// Who looks for further backends, and what they found.
    pub(crate) sources: Sources,
    pub(crate) found: mpsc::Receiver<Found>,
    pub(crate) admin_port: AdminPort,
    /// What is asked of the admin port.
    pub(crate) calls: mpsc::Receiver<Call>,
    /// What runs.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Keys from files for what is published next.
    pub(crate) keys: FileKeys,
    /// Who looks at files of access lists.
    pub(crate) access_watch: AccessWatch,
    /// What is known of the members of all pools.
    pub(crate) registry: Registry,
    /// What is known of the keys of limits.
    pub(crate) limits: LimitRegistry,
    pub(crate) prober: Prober,
    pub(crate) resolver: Rc<Resolver>,
    /// When the first name must be asked again.
    pub(crate) valid_until: Option<Instant>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) address_gate: Arc<AddressGate>,
    pub(crate) workers: Workers,
    pub(crate) listeners: Listeners,
    /// Listeners that a reload took away, whose connections finish.
    pub(crate) retired: Vec<Ending>,
    /// When those are looked at next.
    pub(crate) look_at: Option<Instant>,
    pub(crate) tls: Tls,
    /// When the first ticket key is to be turned.
    pub(crate) tickets_due: Option<Instant>,
    pub(crate) access_log: Option<AccessLog>,
    /// What sends traces.
    pub(crate) traces: Option<TraceExport>,
    /// How this process was started.
    pub(crate) program: Program,
    /// A process that is to take over.
    pub(crate) upgrade: Option<Upgrade>,
    /// Where datagrams go that belong to connections elsewhere.
    pub(crate) steering: Arc<Steering>,
    /// Which QUIC connections are logged, if any are.
    pub(crate) qlogs: Option<Qlogs>,
    /// What is balanced in the kernel, if anything is.
    pub(crate) xdp: Option<Xdp>,
    /// Where another process reads the UDP sockets, once that serves.
    pub(crate) read_elsewhere: Arc<[SocketAddr]>,
    /// Configurations applied, the first included.
    pub(crate) version: u64,
    /// What the admin port was told of last: snapshot, version, listeners that end.
    pub(crate) told: Option<(Arc<Snapshot>, u64, usize)>,
}

impl Control {
    /// Serves until it is time to end, and drains; when this returns, nothing is served any more.
    pub async fn run(mut self, signals: Signals) -> ProcessOutcome {
        let cause = self.until_terminated(signals).await;
        self.tell_standing();
        // A process that is to take over ends as well.
        let upgrade = self.upgrade.take();
        if let Some(upgrade) = &upgrade {
            upgrade.terminate();
        }
        let (config, overlay, snapshot) =
            (self.config.clone(), self.overlay.clone(), Arc::clone(&self.snapshot));
        // What waits is refused; what comes later is told how things stood.
        let calls = std::mem::replace(&mut self.calls, mpsc::channel(1).1);
        tokio::task::spawn_local(api::answer_in_drain(calls, config, overlay, snapshot));
        let outcome = drain::run(&mut self, cause).await;
        if let Some(upgrade) = upgrade {
            upgrade.ended().await;
        }
        outcome
    }

    /// Serves signals and timers until it is time to drain; why it is.
    async fn until_terminated(&mut self, mut signals: Signals) -> Cause {
        let Signals { hangup, user1, user2, terminal } = &mut signals;
        let mut lost = pin!(self.workers.lost());
        let pool_news = self.registry.subscribe();
        let mut handed_over = None;
        loop {
            self.tell_standing();
            let pools_due = self.pools_due();
            let work = async {
                tokio::select! {
                    // However many came while a pass was running, one pass follows.
                    _ = hangup.recv() => self.reload().await,
                    _ = user1.recv() => self.reopen().await,
                    _ = user2.recv() => self.begin_upgrade().await,
                    served = until_served(&mut self.upgrade) => handed_over = self.end_upgrade(served).await,
                    () = at(self.tickets_due) => {
                        self.tls.tick(&self.snapshot.config, &self.metrics);
                        self.tickets_due = self.tls.due();
                    }
                    () = at(self.valid_until) => self.refresh_names().await,
                    () = at(pools_due) => self.tend_pools(),
                    // The first pool may be due sooner now, which the next round looks up.
                    _ = pool_news.changed() => {}
                    () = at(self.look_at) => self.tend_retired(),
                    Some(found) = self.found.recv() => self.discovered(found).await,
                    Some(call) = self.calls.recv() => self.answer(call).await,
                }
            };
            // A pass may wait for name servers and for files; the order to stop does not. A pass that is cut short has put nothing in
            // force, or has done so and tells nobody any more: workers take the drain after it.
            tokio::select! {
                biased;
                signal = terminal.recv() => {
                    tracing::info!(signal, "lifecycle signal received");
                    return Cause::Asked;
                }
                worker = &mut lost => {
                    tracing::error!(worker, "a worker has ended — the others finish what they have, then the process ends");
                    return Cause::WorkerLost;
                }
                () = work => {}
            }
            if let Some(successor) = handed_over {
                self.read_elsewhere = successor.reads().into();
                let came = poll_fn(|cx| {
                    Poll::Ready([hangup.poll_recv(cx).is_ready(), user1.poll_recv(cx).is_ready()])
                });
                let came = came.await;
                successor.pass_on(came);
                return Cause::HandedOver;
            }
        }
    }

    /// Ends what listeners that a reload took away have left when their time is over.
    fn tend_retired(&mut self) {
        let (workers, now) = (&self.workers, Instant::now());
        self.retired.retain_mut(|ending| {
            let progress = ending.advance(workers, now);
            if let Progress::Running = progress {
                return true;
            }
            workers.order(|| Order::Forget(ending.key));
            let aborted = if let Progress::Aborted(count) = progress { count } else { 0 };
            tracing::info!(
                listener = ending.name,
                aborted,
                "connections of a listener that is gone have ended"
            );
            false
        });
        self.look_at = (!self.retired.is_empty()).then(|| now + LOOK);
    }

    /// Tells the admin port what is in force, if that is something else than before.
    pub(crate) fn tell_standing(&mut self) {
        if !self.admin_port.is_served() {
            return;
        }
        let (version, endings) = (self.version, self.retired.len());
        let is_known = self.told.as_ref().is_some_and(|(snapshot, of_version, of_endings)| {
            Arc::ptr_eq(snapshot, &self.snapshot) && *of_version == version && *of_endings == endings
        });
        if is_known {
            return;
        }
        self.told = Some((Arc::clone(&self.snapshot), version, endings));
        self.admin_port.tell(Standing {
            config: self.config.clone(),
            overlay: self.overlay.clone(),
            snapshot: Arc::clone(&self.snapshot),
            version,
            endings: self.retired.iter().map(Ending::shown).collect(),
        });
    }

    fn pools_due(&self) -> Option<Instant> {
        self.snapshot.shared_pools().filter_map(|pool| pool.due()).min().map(Instant::from_std)
    }

    /// Takes ejected members back, and ejects those that stand out.
    fn tend_pools(&self) {
        let now = std::time::Instant::now();
        for pool in self.snapshot.shared_pools() {
            pool.tend(now);
        }
    }

    /// What a source of backends says now is put in force; what cannot be is left, and what it said before stays. Who looks at the source
    /// is told.
    async fn discovered(&mut self, Found { pool, what, verdict }: Found) {
        let result = self.put_in_force(&pool, what).await;
        // Who looked may have been told to stop.
        let _ = verdict.send(result);
    }

    async fn put_in_force(&mut self, pool: &PoolId, what: Discovered) -> anyhow::Result<()> {
        let mut overlay = self.overlay.clone();
        let has_source = self.config.pool(pool).is_some_and(|pool| pool.discovery.is_some());
        // It may have been found before a reload took the source away.
        if !has_source || !overlay.discovered(pool, what) {
            return Ok(());
        }
        self.apply(self.config.clone(), overlay).await?;
        tracing::info!(pool = pool.name(), "discovered backends changed — applied live");
        Ok(())
    }

    /// Puts in force what lies over a configuration, and says whether anything differs from what ran. Whatever fails, what runs stays as
    /// it is. The configuration has the listeners of the one that runs.
    pub(crate) async fn apply(&mut self, config: Config, overlay: Overlay) -> anyhow::Result<bool> {
        self.apply_if(config, overlay, &|| true).await
    }

    /// Does what [`Self::apply`] does, unless it is not wanted any more by the time that names are found and files are read.
    pub(crate) async fn apply_if(
        &mut self,
        config: Config,
        overlay: Overlay,
        is_wanted: &dyn Fn() -> bool,
    ) -> anyhow::Result<bool> {
        let next = self.prepare(config, overlay).await?;
        if !is_wanted() {
            bail!("nobody waits for it any more");
        }
        self.commit(next).await
    }

    /// Finds the names of a configuration, and reads the files of its backends. Nothing is in force yet.
    pub(crate) async fn prepare(&self, config: Config, overlay: Overlay) -> anyhow::Result<Next> {
        let merged = overlay.over(&config);
        let known = Some(&self.snapshot.backends);
        let resolution = {
            let origins = overlay.origins(&config);
            let origin = |pool: &PoolId, address: &SocketName| origins.of(pool, address);
            names::resolve(&merged, origin, &self.resolver, &self.metrics, (known, Patience::Short)).await?
        };
        let backends_tls = BackendsTls::load_aside(&merged, &self.snapshot.backends_tls).await?;
        Ok(Next { config, overlay, merged, resolution, backends_tls, turn: Turn::default(), tls: None })
    }

    /// Puts in force what was prepared, and says whether anything differs from what ran.
    ///
    /// # Errors
    /// When descriptors are wanting for its listeners; nothing has changed then.
    pub(crate) async fn commit(&mut self, next: Next) -> anyhow::Result<bool> {
        let Next { config, overlay, merged, resolution, backends_tls, turn, tls } = next;
        let differs = tls.as_ref().is_some_and(NextTls::is_new)
            || resolution.pools != self.snapshot.backends
            || merged != self.snapshot.config;
        let workers = self.workers.orders.len();
        let opened = match &tls {
            Some(tls) => {
                turn.sockets(tls.get(), &self.address_gate, (&self.steering, &self.qlogs), workers)?
            }
            None => turn.sockets(&self.tls, &self.address_gate, (&self.steering, &self.qlogs), workers)?,
        };
        if let Some(tls) = tls {
            self.tls = tls.put_in_force();
            self.tls.show(&merged, &self.metrics);
            // Listeners that are new may have the first key to turn.
            self.tickets_due = [self.tickets_due, self.tls.due()].into_iter().flatten().min();
        }
        self.valid_until = resolution.valid_until;
        (self.config, self.overlay) = (config, overlay);
        if !differs {
            return Ok(false);
        }
        let closed = self.listeners.take(turn, &merged, &self.metrics);
        let budgets: Vec<_> = closed
            .iter()
            .map(|bound| {
                self.snapshot.config.listener(&bound.id).map_or(Duration::ZERO, |one| one.drain_timeout)
            })
            .collect();
        let keys: Vec<_> = closed.iter().map(|bound| bound.key).collect();
        let now = Instant::now();
        for (bound, budget) in closed.iter().zip(budgets) {
            tracing::info!(
                listener = bound.id.name,
                connections = bound.gate.open(),
                "listener closed by a reload — its connections finish"
            );
            self.retired.push(Ending::new(bound, budget, now));
            self.look_at = Some(now);
        }
        let before = self.snapshot.members();
        // Nothing that must be done may follow this wait: the order to stop can cut it short.
        self.publish_turn(merged, resolution.pools, backends_tls, &keys, opened).await;
        give_back_of(before.max(self.snapshot.members()));
        Ok(true)
    }

    /// Asks again for names whose answers have run out, and publishes what changed.
    async fn refresh_names(&mut self) {
        let config = &self.snapshot.config;
        let known = Some(&self.snapshot.backends);
        let origins = self.overlay.origins(&self.config);
        let origin = |pool: &PoolId, address: &SocketName| origins.of(pool, address);
        let resolution =
            match names::resolve(config, origin, &self.resolver, &self.metrics, (known, Patience::Whole))
                .await
            {
                Ok(resolution) => resolution,
                Err(error) => {
                    // Every name has a last answer, so this cannot happen twice in a row for the same reason.
                    tracing::warn!(error = format!("{error:#}"), "names could not be refreshed");
                    self.valid_until = Some(Instant::now() + names::retry_after(&self.resolver));
                    return;
                }
            };
        self.valid_until = resolution.valid_until;
        if resolution.pools != self.snapshot.backends {
            tracing::info!("backend addresses changed — applied live");
            let config = config.clone();
            let backends_tls = self.snapshot.backends_tls.clone();
            self.publish(config, resolution.pools, backends_tls).await;
        }
    }

    /// Puts a snapshot with the listeners that run in force on every worker, and waits until they have taken it: whoever is told that a change
    /// is made finds it made.
    pub(crate) async fn publish(
        &mut self,
        config: Config,
        backends: PoolBackends,
        backends_tls: BackendsTls,
    ) {
        let none = self.workers.orders.iter().map(|_| Vec::new()).collect();
        self.publish_turn(config, backends, backends_tls, &[], none).await;
    }

    /// Puts a snapshot in force where some listeners are closed and others, whose sockets are given for each worker, are opened.
    async fn publish_turn(
        &mut self,
        config: Config,
        backends: PoolBackends,
        backends_tls: BackendsTls,
        closed: &[ListenerKey],
        opened: Vec<Vec<ListenerSockets>>,
    ) {
        let (registry, limits) = (&mut self.registry, &mut self.limits);
        let snapshot = Snapshot::new(registry, limits, config, backends, backends_tls, self.keys.clone());
        self.address_gate.set_cap(snapshot.config.runtime.per_ip_connection_cap);
        self.show_backends(&snapshot.config);
        self.prober.follow(&snapshot);
        if let Some(xdp) = &self.xdp {
            xdp.follow(&snapshot);
        }
        let old = std::mem::replace(&mut self.snapshot, Arc::clone(&snapshot));
        let changes = opened.into_iter().map(|opened| Change {
            snapshot: Arc::clone(&snapshot),
            closed: closed.to_vec(),
            opened,
        });
        let applied = self.workers.apply(changes);
        if !closed.is_empty() {
            self.workers.order(|| Order::Drain(closed.to_vec()));
        }
        applied.taken().await;
        tokio::task::spawn_local(async move {
            tokio::time::sleep(RETIRES_AFTER).await;
            drop(old);
        });
    }

    /// Metrics go on for the backends of a configuration, and no others.
    pub(crate) fn show_backends(&self, config: &Config) {
        self.metrics.export_backends(config.observability.max_exported_backends);
        let pools = config.pools_in_use();
        let backends: HashSet<(&str, &str)> = pools
            .iter()
            .flat_map(|pool| pool.backends.iter().map(|backend| (pool.id.name(), backend.name.as_str())))
            .collect();
        self.metrics.retain_backends(|pool, backend| backends.contains(&(pool, backend)));
        let listeners = config.listeners.iter().filter(|listener| listener.starts());
        let names: HashSet<&str> = listeners.map(|listener| listener.name.as_str()).collect();
        self.metrics.retain_listeners(|name| names.contains(name));
    }
}

/// Waits for a process that is to take over, if there is one.
async fn until_served(upgrade: &mut Option<Upgrade>) -> Result<(), String> {
    match upgrade {
        Some(upgrade) => upgrade.serves().await,
        None => pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Gives memory back to the system after a change that concerned so many members: what described them before, and what a file was read
/// into, lies between what describes them now.
pub(crate) fn give_back_of(members: usize) {
    if members >= MANY_MEMBERS {
        lb_io::memory::give_back();
    }
}

//! From a configuration to a control thread with running workers.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use lb_config::{Config, ConfigText, Plan};
use lb_core::limit::LimitRegistry;
use lb_io::WorkerIo;
use lb_io::gate::AddressGate;
use lb_io::inherited::Inherited;
use lb_io::udp::Steering;
use lb_io::udp::hand_over::Predecessor;
use lb_observe::access_log::{AccessLog, AccessLogHandle};
use lb_observe::admin::State;
use lb_observe::metrics::Metrics;
use lb_observe::traces::TraceHandle;
use lb_pool::Registry;
use tokio::sync::mpsc;

use crate::access_files::AccessWatch;
use crate::alone::Alone;
use crate::control::{Control, give_back_of};
use crate::discovery::Sources;
use crate::listeners::buffers;
use crate::needs::{Files, Needs};
use crate::orders::{Change, Order, Workers};
use crate::probe::Prober;
use crate::snapshot::Snapshot;
use crate::source::{NO_LISTENERS, Source};
use crate::traces::TraceExport;
use crate::upgrade::{self, Program};
use crate::xdp::Xdp;
use crate::{process, systemd};

/// What a control thread is given.
#[derive(Debug)]
pub struct Start {
    /// Where the configuration comes from.
    pub source: Source,
    /// What was read there.
    pub text: ConfigText,
    /// What that says.
    pub config: Config,
    /// The claim on the file, where there is one.
    pub alone: Option<Alone>,
    /// What the process was started with.
    pub inherited: Inherited,
    /// How it was started.
    pub program: Program,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// How many workers there are to be.
    pub workers: usize,
}

/// Everything that a worker is given at its start.
#[derive(Debug)]
pub struct NewWorker {
    /// 0-based number.
    pub id: usize,
    /// A number that differs from worker to worker and from process to process.
    pub seed: u64,
    /// What is in force. Listeners are opened by an order.
    pub snapshot: Arc<Snapshot>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLogHandle>,
    /// Where requests whose spans are recorded go.
    pub traces: Option<TraceHandle>,
    /// What the control thread orders.
    pub orders: mpsc::UnboundedReceiver<Order>,
}

/// Starts a worker on a thread of its own.
pub type Spawn<'a> = dyn Fn(NewWorker) -> std::io::Result<JoinHandle<()>> + 'a;

impl Control {
    /// Binds and starts everything; when this returns, traffic is served. Files are read on threads that nothing else waits for.
    ///
    /// # Errors
    /// When something that the configuration names cannot be had. Nothing is served then.
    pub async fn start(start: Start, spawn: &Spawn<'_>) -> anyhow::Result<Self> {
        let Start { source, text, config: file, alone, inherited, program, metrics, workers } = start;
        let Inherited { sockets, ready, predecessor } = inherited;
        let needs = Needs::gather(&file, sockets, ready.is_none(), &metrics, workers).await?;
        let Needs {
            readiness, mut admin_port, mut calls, access_log, traces, qlogs, resolver, looked, ..
        } = needs;
        let Needs { overlay, config, resolution, files, mut listeners, .. } = needs;
        let Files { stamps, tls, backends_tls, keys } = files;
        if config.listeners.iter().any(|listener| listener.tls.is_some()) {
            process::forbid_core_dumps();
        }
        tls.show(&config, &metrics);
        lb_io::sockopts::set_backend_buffers(buffers(&config));
        let turn = listeners.turn(&config, &resolver, &metrics, workers).await?;
        if turn.opened.is_empty() && config.xdp_services().is_empty() {
            bail!("{NO_LISTENERS}");
        }
        let address_gate = AddressGate::new(config.runtime.per_ip_connection_cap);
        let epochs = predecessor.as_ref().map(Predecessor::epochs).unwrap_or_default();
        let steering = Steering::new(process::epoch(epochs), predecessor);
        let opened = turn.sockets(&tls, &address_gate, (&steering, &qlogs), workers)?;
        listeners.take(turn, &config, &metrics);
        listeners.close_spare();
        let mut registry = Registry::new(workers, process::seed()).shown_in(Arc::clone(&metrics));
        let mut limits = LimitRegistry::default();
        let snapshot =
            Snapshot::new(&mut registry, &mut limits, config, resolution.pools, backends_tls, keys.clone());
        let mut prober = Prober::new(WorkerIo::new(workers, process::seed()));
        prober.follow(&snapshot);
        let xdp = Xdp::start(&snapshot, &registry, &metrics).await?;
        let workers = start_workers(workers, spawn, |id, orders| NewWorker {
            id,
            seed: process::seed(),
            snapshot: Arc::clone(&snapshot),
            metrics: Arc::clone(&metrics),
            access_log: access_log.as_ref().map(AccessLog::handle),
            traces: traces.as_ref().map(TraceExport::handle),
            orders,
        })?;
        let changes = opened.into_iter().map(|opened| Change {
            snapshot: Arc::clone(&snapshot),
            closed: Vec::new(),
            opened,
        });
        workers.apply(changes).taken().await;
        let calls = match calls.take() {
            Some(calls) => calls,
            None => admin_port.serve(&file, &metrics, &readiness)?,
        };
        readiness.advance(State::Ok);
        tracing::info!("probes flipped to Ready — service open for traffic");
        systemd::ready(&format!("serving {} listener(s), configuration version 1", listeners.bound.len()));
        if let Some(ready) = ready {
            steering.tell_reads(listeners.udp_addresses());
            // Where nothing reads any more, the process that this one takes over from has ended.
            let _ = rustix::io::write(&ready, upgrade::SERVES);
        }
        tokio::task::spawn_local(systemd::watch(workers.orders.clone()));

        let (sources, found) = Sources::new();
        let mut control = Self {
            source,
            text,
            config: file,
            overlay,
            alone,
            stamps,
            sources,
            found,
            admin_port,
            calls,
            snapshot,
            keys,
            access_watch: AccessWatch::default(),
            registry,
            limits,
            prober,
            resolver,
            valid_until: resolution.valid_until,
            metrics,
            readiness,
            address_gate,
            workers,
            listeners,
            retired: Vec::new(),
            look_at: None,
            tickets_due: tls.due(),
            tls,
            access_log,
            traces,
            program,
            upgrade: None,
            steering,
            qlogs,
            xdp,
            read_elsewhere: Arc::default(),
            version: 1,
            told: None,
        };
        control.access_watch.follow(&control.keys.access, &control.metrics);
        control.follow_sources(looked);
        control.show_backends(&control.snapshot.config);
        control.metrics.reload_restart_required.declare(&Plan::restart_fields());
        give_back_of(control.snapshot.members());
        Ok(control)
    }
}

fn start_workers(
    count: usize,
    spawn: &Spawn<'_>,
    mut new: impl FnMut(usize, mpsc::UnboundedReceiver<Order>) -> NewWorker,
) -> anyhow::Result<Workers> {
    let mut running = Workers::default();
    for id in 0..count {
        let (orders, receiver) = mpsc::unbounded_channel();
        let thread = spawn(new(id, receiver)).with_context(|| format!("worker {id} cannot be started"))?;
        running.orders.push(orders);
        running.threads.push(thread);
    }
    Ok(running)
}

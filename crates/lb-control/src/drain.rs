//! The end: lameduck, settle, stop accepting, finish what runs, close.

use std::time::Duration;

use lb_config::XdpAtShutdown;
use lb_observe::admin::State;
use lb_observe::metrics::{DrainOutcome, DrainPhase};
use tokio::time::{Instant, sleep, timeout};

use crate::admin_port::AdminPort;
use crate::control::Control;
use crate::ending::{Ending, Progress};
use crate::listeners::Bound;
use crate::orders::Order;
use crate::systemd;

/// How long the accept loops are given to leave.
const CANCEL_TIME: Duration = Duration::from_millis(500);

/// How often the open connections are counted.
const LOOK: Duration = Duration::from_millis(5);

/// How long an aborted connection is given to be gone.
const ABORT_TIME: Duration = Duration::from_millis(500);

/// How a process ended that started well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessOutcome {
    /// As asked.
    Clean,
    /// Connections were still open when the drain ran out of time.
    DrainDeadlineMissed,
    /// A worker could not go on; the others were drained.
    WorkerLost,
}

/// Why a process drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A signal.
    Asked,
    /// A worker could not go on.
    WorkerLost,
    /// Another process serves in its place.
    HandedOver,
}

/// Runs the drain; afterwards nothing is served any more.
pub(crate) async fn run(control: &mut Control, cause: Cause) -> ProcessOutcome {
    let begun = Instant::now();
    // Who starts the same file from now on takes over.
    control.alone = None;
    if cause == Cause::HandedOver {
        // The new process answers there, and has the files of Unix sockets.
        control.admin_port = AdminPort::default();
        control.listeners.keep_files();
    } else {
        tracing::info!("terminal signal — entering drain");
    }
    tracing::info!("entering drain — flipping /readyz to 503");
    control.readiness.advance(State::Draining);
    if cause != Cause::HandedOver {
        systemd::stopping();
    }
    phase(control, DrainPhase::MarkDraining, DrainOutcome::Clean, begun);

    let settling = Instant::now();
    // Nobody in front has to notice anything where another process serves already.
    let settle = match cause {
        Cause::HandedOver => Duration::ZERO,
        _ => control.snapshot.config.runtime.readiness_settle,
    };
    tracing::info!(settle_ms = millis(settle), "settling: load balancers in front take this instance out");
    sleep(settle).await;
    phase(control, DrainPhase::ReadinessSettle, DrainOutcome::Clean, settling);

    stop_accepting(control).await;
    let remaining = finish(control).await;
    leave_kernel(control, cause).await;

    let outcome = if remaining == 0 { DrainOutcome::Clean } else { DrainOutcome::TimedOut };
    phase(control, DrainPhase::Total, outcome, begun);
    tracing::info!(
        total_ms = millis(begun.elapsed()),
        in_flight_remaining = remaining,
        "drain coordinator complete"
    );
    if remaining == 0 {
        tracing::info!("drain completed cleanly");
    } else {
        tracing::warn!(remaining, "drain deadline elapsed — survivors were aborted");
    }
    stop(control);
    match (cause, remaining) {
        (Cause::WorkerLost, _) => ProcessOutcome::WorkerLost,
        (_, 0) => ProcessOutcome::Clean,
        _ => ProcessOutcome::DrainDeadlineMissed,
    }
}

async fn stop_accepting(control: &mut Control) {
    let begun = Instant::now();
    // Those of the workers are the last ones: whoever connects from now on is refused.
    control.listeners.bound.iter_mut().for_each(Bound::let_go);
    let outcome = match control.workers.stop_accepting(&control.read_elsewhere).within(CANCEL_TIME).await {
        None => DrainOutcome::Clean,
        Some(_) => {
            control.metrics.shutdown_listener_cancel_timeouts.inc();
            DrainOutcome::TimedOut
        }
    };
    for bound in &control.listeners.bound {
        tracing::info!(listener = bound.id.name, "listener cancelled by drain coordinator");
    }
    phase(control, DrainPhase::ListenerCancel, outcome, begun);
}

/// Lets connections finish, each listener's within its own budget; returns how many had to be aborted.
async fn finish(control: &mut Control) -> usize {
    let begun = Instant::now();
    let keys: Vec<_> = control.listeners.bound.iter().map(|bound| bound.key).collect();
    control.workers.order(|| Order::Drain(keys.clone()));
    let config = &control.snapshot.config;
    // Those of a reload have their orders already.
    let mut waiting = std::mem::take(&mut control.retired);
    waiting.extend(control.listeners.bound.iter().map(|bound| {
        let listener = config.listener(&bound.id);
        Ending::new(bound, listener.map_or(Duration::ZERO, |listener| listener.drain_timeout), begun)
    }));
    let mut aborted = 0usize;
    loop {
        waiting.retain_mut(|ending| match ending.advance(&control.workers, Instant::now()) {
            Progress::Running => true,
            Progress::Finished => false,
            Progress::Aborted(count) => {
                aborted = aborted.saturating_add(count);
                false
            }
        });
        if waiting.is_empty() {
            break;
        }
        sleep(LOOK).await;
    }
    let outcome = if aborted == 0 { DrainOutcome::Clean } else { DrainOutcome::TimedOut };
    if aborted > 0 {
        control.metrics.shutdown_inflight_drain_timeouts.inc();
        control.metrics.shutdown_aborted_connections.add(u64::try_from(aborted).unwrap_or(u64::MAX));
        let gone = async {
            while control.listeners.bound.iter().any(|bound| bound.gate.open() > 0) {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(ABORT_TIME, gone).await;
    }
    phase(control, DrainPhase::InFlightDrain, outcome, begun);
    aborted
}

/// Ends what keeps the tables in the kernel, and takes the programs away if they are not to stay.
async fn leave_kernel(control: &mut Control, cause: Cause) {
    let begun = Instant::now();
    let rules = &control.snapshot.config.xdp.rules;
    let detaches = rules.at_shutdown == XdpAtShutdown::Detach && cause != Cause::HandedOver;
    let outcome = match control.xdp.take() {
        Some(xdp) => xdp.end(detaches).await,
        None => DrainOutcome::NotAttempted,
    };
    phase(control, DrainPhase::XdpDetach, outcome, begun);
}

/// Ends the workers and writes the last lines.
fn stop(control: &mut Control) {
    control.workers.order(|| Order::Stop);
    for thread in std::mem::take(&mut control.workers.threads) {
        let _ = thread.join();
    }
    if let Some(log) = control.access_log.take() {
        log.flush_and_close(Duration::from_secs(1));
    }
    if let Some(traces) = control.traces.take() {
        traces.finish(Duration::from_secs(1));
    }
    let workers = 0..control.workers.orders.len();
    let sum = |value: fn(&lb_observe::metrics::WorkerMetrics) -> u64| {
        workers.clone().map(|worker| value(&control.metrics.worker(worker))).fold(0u64, u64::saturating_add)
    };
    tracing::info!(
        total_connections = sum(|worker| worker.connections.value()),
        bytes_in = sum(|worker| worker.bytes_client_to_backend.value()),
        bytes_out = sum(|worker| worker.bytes_backend_to_client.value()),
        "ExpressGateway stopped"
    );
}

fn phase(control: &Control, phase: DrainPhase, outcome: DrainOutcome, begun: Instant) {
    control.metrics.drain_phase(phase, outcome, begun.elapsed());
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

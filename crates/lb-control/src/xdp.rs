//! Balancing in the kernel: what the control thread says to the thread that keeps the tables.
//!
//! That thread follows the pools by itself, so that a backend that fails, drains or comes back is in the tables at once, whatever the control thread
//! is busy with; a ring of 65,537 slots takes it some tens of milliseconds, which no worker and no client waits for.

mod advice;
mod keeper;
mod machine;
mod wanted;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use lb_config::XdpMode;
use lb_l4_xdp::{Capacity, XdpAttach};
use lb_observe::metrics::{DrainOutcome, Metrics};
use lb_pool::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::snapshot::Snapshot;
use keeper::Keeper;
pub(crate) use machine::faults_of_machine;
use wanted::Followed;

/// How long the end of a drain waits for the programs to be taken away.
const END_TIME: Duration = Duration::from_secs(5);

/// The thread that keeps the tables of the programs.
#[derive(Debug)]
pub(crate) struct Xdp {
    orders: mpsc::UnboundedSender<XdpOrder>,
    thread: JoinHandle<()>,
}

/// What it is told.
enum XdpOrder {
    /// Services and rules from now on.
    Follow(Followed),
    /// Write nothing: another process may do so. With false, read what is there, and go on.
    Pause(bool),
    /// Leave the programs where they are, or take them away; whether that went well.
    End { detaches: bool, done: oneshot::Sender<bool> },
}

impl Xdp {
    /// Loads and attaches the programs, if the configuration wants them.
    ///
    /// # Errors
    /// When they cannot be had. What an earlier process has left goes on.
    pub(crate) async fn start(
        snapshot: &Snapshot,
        registry: &Registry,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Option<Self>> {
        let config = &snapshot.config;
        let (true, Some(interface)) = (config.runtime.xdp.enabled, config.runtime.xdp.interface.clone())
        else {
            return Ok(None);
        };
        let mut interfaces = vec![interface];
        interfaces.extend(config.xdp.place.interfaces.iter().cloned());
        let place = Place {
            pins: config.xdp.place.pin_dir.clone(),
            interfaces,
            mode: match config.runtime.xdp.mode {
                XdpMode::Auto => XdpAttach::Auto,
                XdpMode::Native => XdpAttach::Native,
                XdpMode::Skb => XdpAttach::Skb,
                XdpMode::Hw => XdpAttach::Hardware,
            },
            capacity: Capacity {
                flows4: config.xdp.place.max_flows_v4,
                flows6: config.xdp.place.max_flows_v6,
            },
        };
        let (orders, received) = mpsc::unbounded_channel();
        let (said, heard) = oneshot::channel();
        let (followed, news, metrics) = (Followed::of(snapshot), registry.subscribe(), Arc::clone(metrics));
        let thread = std::thread::Builder::new()
            .name("lb-xdp".to_owned())
            .spawn(move || match Keeper::begin(&place, followed, metrics) {
                Ok(keeper) => {
                    let _ = said.send(Ok(()));
                    keeper.run(received, &news);
                }
                Err(error) => _ = said.send(Err(error)),
            })
            .context("the thread that keeps XDP tables cannot be started")?;
        heard.await.context("the thread that keeps XDP tables has ended")??;
        Ok(Some(Self { orders, thread }))
    }

    /// Has the tables follow what runs now.
    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        self.order(XdpOrder::Follow(Followed::of(snapshot)));
    }

    /// Leaves the tables alone while another process may write them.
    pub(crate) fn pause(&self, pauses: bool) {
        self.order(XdpOrder::Pause(pauses));
    }

    /// Ends the thread. With `detaches` nothing is forwarded any more, and otherwise packets go on as they do.
    pub(crate) async fn end(self, detaches: bool) -> DrainOutcome {
        let (done, outcome) = oneshot::channel();
        self.order(XdpOrder::End { detaches, done });
        let outcome = match timeout(END_TIME, outcome).await {
            Ok(Ok(true)) if detaches => DrainOutcome::Clean,
            Ok(Ok(true)) => DrainOutcome::NotAttempted,
            Ok(_) => DrainOutcome::Failed,
            Err(_) => return DrainOutcome::TimedOut,
        };
        let _ = self.thread.join();
        outcome
    }

    fn order(&self, order: XdpOrder) {
        if self.orders.send(order).is_err() {
            tracing::error!(
                "XDP tables are kept no more: their thread has ended — packets are forwarded as before"
            );
        }
    }
}

/// What is fixed when the programs are loaded.
struct Place {
    pins: std::path::PathBuf,
    /// The first is that of clients.
    interfaces: Vec<String>,
    mode: XdpAttach,
    capacity: Capacity,
}

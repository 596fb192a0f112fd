//! The thread that keeps the tables of the programs.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lb_l4_xdp::layout::EVENT_NAMES;
use lb_l4_xdp::{
    Census, FlowCount, Nic, Pins, Plane, Tables, Vip, XdpAttach, XdpAttached, XdpError, address, check_needs,
    interface_index,
};
use lb_observe::metrics::{Metrics, XdpBackend, XdpReading};
use lb_pool::Subscription;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::advice::advice;
use super::wanted::Followed;
use super::{Place, XdpOrder};
use crate::process;

/// How often counts are read, and changes are tried again that the kernel has refused.
const TICK: Duration = Duration::from_secs(1);

/// So many ticks pass between two datagrams to a backend.
const KNOCK_TICKS: u32 = 5;

/// So many entries of the tables of flows are counted in a tick, so that a count of millions keeps no change of the tables waiting.
const COUNTED_IN_TICK: usize = 1 << 17;

/// `discard` (RFC 863): whoever listens there throws away what comes.
const DISCARD: u16 = 9;

/// The programs, and what their tables say.
pub(super) struct Keeper {
    plane: Plane,
    pins: Pins,
    tables: Tables,
    followed: Followed,
    /// The seed of the counters by source.
    secret: u32,
    attached: Vec<XdpAttached>,
    capacity: [u32; 2],
    /// The count that is under way.
    count: Option<FlowCount>,
    /// What the last one has found.
    census: Option<Census>,
    metrics: Arc<Metrics>,
    is_paused: bool,
    /// A change was refused, and is to be tried again.
    is_behind: bool,
}

impl Keeper {
    /// Loads the programs, fills their tables, and attaches them: packets are forwarded from then on, or as before if that fails.
    pub(super) fn begin(place: &Place, followed: Followed, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let capabilities = check_needs()?;
        tracing::info!(cap_mode = capabilities.as_str(), "XDP: the process may load programs");
        let indices = place.interfaces.iter().map(|name| interface_index(name));
        let indices: Vec<u32> = indices.collect::<Result<_, _>>()?;
        let pins = Pins::new(&place.pins)?;
        let mut plane = Plane::load_pinned(place.capacity, pins.clone())?;
        for index in indices {
            plane.add_device(index)?;
        }
        let tables = pins.tables()?;
        let secret = match tables.settings() {
            Some(settings) => settings.source_seed,
            None => process::seed() as u32,
        };
        let mut keeper = Self {
            plane,
            pins,
            tables,
            followed,
            secret,
            attached: Vec::new(),
            capacity: [place.capacity.flows4, place.capacity.flows6],
            count: None,
            census: None,
            metrics,
            is_paused: false,
            is_behind: false,
        };
        keeper.write().context("XDP tables cannot be filled")?;
        for name in &place.interfaces {
            keeper.attach(name, place.mode).with_context(|| format!("XDP cannot be attached to {name}"))?;
        }
        keeper.plane.settle()?;
        keeper.advise(&place.interfaces);
        for gone in keeper.pins.interfaces()?.iter().filter(|name| !place.interfaces.contains(name)) {
            let detached = keeper.pins.detach_from(gone);
            keeper.note_detached(1, detached.is_ok());
            detached?;
            tracing::info!(interface = gone, "XDP detached from an interface that is configured no more");
        }
        keeper.sample();
        Ok(keeper)
    }

    /// Tells what is probably not meant with the interfaces.
    fn advise(&self, interfaces: &[String]) {
        let nics = interfaces.iter().filter_map(|name| Some((name.as_str(), Nic::of(name).ok()?)));
        let nics: Vec<(&str, Nic)> = nics.collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for advice in advice(&nics, self.followed.overhead(), cores) {
            tracing::info!(advice, "XDP: what interfaces should be like");
        }
    }

    fn attach(&mut self, interface: &str, wanted: XdpAttach) -> Result<(), XdpError> {
        let nic = Nic::of(interface)?;
        let attached = self.plane.attach(interface, wanted)?;
        tracing::info!(
            interface,
            mode = mode_name(attached),
            driver = nic.driver,
            mtu = nic.mtu,
            channels = nic.channels.map(|channels| channels.combined),
            "xdp attached"
        );
        if wanted == XdpAttach::Auto && attached == XdpAttached::Skb {
            self.metrics.xdp.attach_probe_failed.inc();
            let limit = nic.native_limit().err().map(|limit| limit.to_string());
            tracing::warn!(
                interface,
                limit,
                "the driver does not run XDP programs — the kernel does behind it, which is slower (xdp_mode = \"skb\" says that it is meant)"
            );
        }
        self.attached.push(attached);
        Ok(())
    }

    /// Obeys orders and follows pools until it is told to end.
    pub(super) fn run(mut self, mut orders: mpsc::UnboundedReceiver<XdpOrder>, news: &Subscription<()>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "XDP tables are not kept: no event loop");
                return;
            }
        };
        runtime.block_on(async {
            let mut tick = interval(TICK);
            let mut ticks = 0u32;
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    order = orders.recv() => match order {
                        Some(XdpOrder::Follow(followed)) => {
                            self.followed = followed;
                            self.tend();
                        }
                        Some(XdpOrder::Pause(pauses)) => self.pause(pauses),
                        Some(XdpOrder::End { detaches, done }) => {
                            let _ = done.send(self.end(detaches));
                            return;
                        }
                        None => return,
                    },
                    Some(_) = news.changed() => if self.followed.is_behind() {
                        self.tend();
                    },
                    _ = tick.tick() => {
                        if self.is_behind {
                            self.tend();
                        }
                        if ticks.is_multiple_of(KNOCK_TICKS) {
                            self.knock();
                        }
                        ticks = ticks.wrapping_add(1);
                        self.sample();
                    }
                }
            }
        });
    }

    /// Has the tables say what is wanted now. What the kernel refuses is tried again.
    fn tend(&mut self) {
        if self.is_paused {
            return;
        }
        self.is_behind = match self.write() {
            Ok(()) => false,
            Err(error) => {
                self.metrics.xdp.table_errors.inc();
                tracing::error!(
                    error = format!("{error:#}"),
                    "XDP tables could not be changed — what was in force stays, and it is tried again"
                );
                true
            }
        };
    }

    /// Has the kernel find the MAC address of each backend, which it looks for only when it sends something itself: an empty datagram.
    fn knock(&self) {
        let socket = |any: IpAddr| {
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket.set_nonblocking(true).ok().map(|()| socket)
        };
        let sockets = [socket(Ipv4Addr::UNSPECIFIED.into()), socket(Ipv6Addr::UNSPECIFIED.into())];
        for (_, service) in self.tables.vips() {
            for (_, backend) in self.tables.backends_of(service) {
                let ip = address(backend.address, backend.is_ipv6 != 0);
                if let Some(Some(socket)) = sockets.get(usize::from(ip.is_ipv6())) {
                    // Where it fails, packets to the backend are dropped and counted.
                    let _ = socket.send_to(&[], (ip, DISCARD));
                }
            }
        }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let operations = self.tables.plan(&self.followed.wanted(self.secret))?;
        for operation in &operations {
            self.plane.apply(operation)?;
            self.tables.done(operation);
        }
        if !operations.is_empty() {
            self.knock();
            tracing::info!(changes = operations.len(), "XDP tables changed");
        }
        Ok(())
    }

    fn pause(&mut self, pauses: bool) {
        self.is_paused = pauses;
        if pauses {
            return;
        }
        // Another process has been here.
        match self.pins.tables() {
            Ok(tables) => self.tables = tables,
            Err(error) => tracing::error!(%error, "XDP tables could not be read"),
        }
        self.tend();
    }

    /// Whether it went well.
    fn end(&self, detaches: bool) -> bool {
        if !detaches {
            tracing::info!(
                "XDP programs and flows stay — packets are forwarded until the next start or `expressgateway xdp detach`"
            );
            return true;
        }
        let attached = self.pins.interfaces().map_or(0, |interfaces| interfaces.len());
        let result = self.pins.detach();
        self.note_detached(attached, result.is_ok());
        match &result {
            Ok(interfaces) => tracing::info!(interfaces = interfaces.join(", "), "xdp detached"),
            Err(error) => tracing::error!(%error, "XDP could not be detached"),
        }
        result.is_ok()
    }

    fn note_detached(&self, interfaces: usize, went_well: bool) {
        let [well, failed] = &self.metrics.xdp.detached;
        (0..interfaces).for_each(|_| if went_well { well } else { failed }.inc());
    }

    /// Counts on in the tables of flows.
    fn count(&mut self) -> Result<(), XdpError> {
        let mut count = match self.count.take() {
            Some(count) => count,
            None => FlowCount::begin(&self.pins)?,
        };
        match count.go_on(&self.tables, COUNTED_IN_TICK)? {
            Some(census) => {
                for (table, full) in census.tables.iter().zip(&self.metrics.xdp.conntrack_full) {
                    if table.is_full() {
                        full.inc();
                    }
                }
                self.census = Some(census);
            }
            None => self.count = Some(count),
        }
        Ok(())
    }

    /// Reads what the programs have counted.
    fn sample(&mut self) {
        if let Err(error) = self.count() {
            self.metrics.xdp.sampler_errors.inc();
            tracing::warn!(%error, "XDP flows could not be counted");
        }
        match self.read() {
            Ok(reading) => self.metrics.xdp.show(reading),
            Err(error) => {
                self.metrics.xdp.sampler_errors.inc();
                tracing::warn!(%error, "XDP counts could not be read");
            }
        }
    }

    fn read(&self) -> Result<XdpReading, XdpError> {
        let events = self.pins.events()?;
        let mut actions: Vec<(&'static str, u64)> =
            EVENT_NAMES.iter().zip(events).map(|(name, (_, count))| (*name, count)).collect();
        let names: HashMap<Vip, &str> = self.followed.names().collect();
        let mut backends = Vec::new();
        let mut packets = [0u64; 2];
        for (vip, service) in self.tables.vips() {
            let of_service: Vec<_> = self.tables.backends_of(service).collect();
            let indices: Vec<u32> = of_service.iter().map(|(index, _)| *index).collect();
            for ((index, backend), counts) in of_service.iter().zip(self.pins.counters(&indices)?) {
                let ip = address(backend.address, backend.is_ipv6 != 0);
                let of_backend = [counts.packets, counts.reply_packets];
                for (sum, count) in packets.iter_mut().zip(of_backend) {
                    *sum = sum.saturating_add(count);
                }
                backends.push(XdpBackend {
                    service: names.get(vip).copied().unwrap_or_default().to_owned(),
                    backend: match u16::from_be(backend.port) {
                        0 => ip.to_string(),
                        port => SocketAddr::new(ip, port).to_string(),
                    },
                    flows: counts.flows,
                    live: self
                        .census
                        .as_ref()
                        .map(|census| census.by_backend.get(index).copied().unwrap_or(0)),
                    packets: of_backend,
                    bytes: [counts.bytes, counts.reply_bytes],
                });
            }
        }
        actions.extend(["to_backend", "to_client"].into_iter().zip(packets));
        let in_mode = |mode| self.attached.iter().filter(|one| mode_name(**one) == mode).count();
        let attached = ["drv", "skb", "hw", "kept"].map(|mode| (mode, in_mode(mode))).to_vec();
        let live = self.census.as_ref().map(|census| census.tables.map(|table| table.live));
        Ok(XdpReading { actions, attached, capacity: self.capacity, live, backends })
    }
}

fn mode_name(attached: XdpAttached) -> &'static str {
    match attached {
        XdpAttached::Native => "drv",
        XdpAttached::Skb => "skb",
        XdpAttached::Hardware => "hw",
        XdpAttached::Replaced => "kept",
    }
}

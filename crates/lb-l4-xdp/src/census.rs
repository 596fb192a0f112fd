//! What is in the tables of flows, and how much room is left.
//!
//! Entries are not removed when their flows have ended: the table evicts what has not been used for longest. So an entry is one of a flow that is *live*
//! only if the programs would still use it, by the same conditions.

use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_l4_xdp_layout::{
    Flow4, Flow6, FlowHead, FlowKey4, FlowKey6, FlowKind, Settings, Standing, TICK_SHIFT, TcpState,
};

use crate::entries::Entries;
use crate::error::XdpError;
use crate::pins::Pins;
use crate::reconcile::Tables;
use crate::wanted::address;

/// How the tables of flows are used.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Over IPv4, and over IPv6.
    pub tables: [FlowUse; 2],
    /// Live flows by the index of their backend; translated ones once.
    pub by_backend: HashMap<u32, u32>,
}

/// How a table of flows is used. A translated flow has two entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowUse {
    /// Entries that there is room for.
    pub capacity: u32,
    /// Entries that are there.
    pub entries: u32,
    /// Those of them that packets follow.
    pub live: u32,
}

impl FlowUse {
    /// Whether nearly every entry is live, so that a new flow takes the place of one that goes on. Cores keep a few free entries each, so that it is
    /// never quite full.
    pub fn is_full(&self) -> bool {
        u64::from(self.live).saturating_mul(10) >= u64::from(self.capacity).saturating_mul(9)
    }
}

/// A live flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFlow {
    /// Where its packets come from.
    pub client: SocketAddr,
    /// Where the client sends them.
    pub service: SocketAddr,
    /// The number of the protocol.
    pub protocol: u8,
    /// The index of its backend.
    pub backend: u32,
    /// How far it is.
    pub state: TcpState,
    /// What the backend sees as its client, in mode `nat`.
    pub gateway: Option<SocketAddr>,
    /// How long ago its last packet came.
    pub idle: Duration,
}

/// A count that is under way. What it has found so far is kept, so that it can be made in pieces.
pub struct FlowCount {
    flows4: Entries<FlowKey4, Flow4>,
    flows6: Entries<FlowKey6, Flow6>,
    so_far: Census,
}

impl std::fmt::Debug for FlowCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowCount").field("so_far", &self.so_far).finish_non_exhaustive()
    }
}

impl FlowCount {
    /// A count of the pinned tables.
    pub fn begin(pins: &Pins) -> Result<Self, XdpError> {
        let (flows4, flows6) = (Entries::open(pins, "FLOWS4")?, Entries::open(pins, "FLOWS6")?);
        let table = |capacity| FlowUse { capacity, ..FlowUse::default() };
        let tables = [table(flows4.capacity()?), table(flows6.capacity()?)];
        Ok(Self { flows4, flows6, so_far: Census { tables, by_backend: HashMap::new() } })
    }

    /// Goes on until about so many entries more have been counted. What was found, if there are no more.
    pub fn go_on(&mut self, tables: &Tables, most: usize) -> Result<Option<Census>, XdpError> {
        let Some(view) = View::of(tables) else { return Ok(Some(self.so_far.clone())) };
        let mut left = most;
        while left > 0 {
            let mut seen = 0usize;
            let [over4, over6] = &mut self.so_far.tables;
            let by_backend = &mut self.so_far.by_backend;
            let mut note = |table: &mut FlowUse, head: &FlowHead| {
                seen = seen.saturating_add(1);
                table.entries = table.entries.saturating_add(1);
                if view.is_live(head) {
                    table.live = table.live.saturating_add(1);
                    if head.kind != FlowKind::Reverse as u8 {
                        let of_backend: &mut u32 = by_backend.entry(head.backend).or_default();
                        *of_backend = of_backend.saturating_add(1);
                    }
                }
            };
            if let Some(entries) = self.flows4.next()? {
                entries.for_each(|(_, flow)| note(over4, &flow.head));
            } else if let Some(entries) = self.flows6.next()? {
                entries.for_each(|(_, flow)| note(over6, &flow.head));
            } else {
                return Ok(Some(std::mem::take(&mut self.so_far)));
            }
            left = left.saturating_sub(seen.max(1));
        }
        Ok(None)
    }
}

impl Pins {
    /// How the tables of flows are used. `tables` are those that are pinned beside them.
    pub fn census(&self, tables: &Tables) -> Result<Census, XdpError> {
        let mut count = FlowCount::begin(self)?;
        loop {
            if let Some(census) = count.go_on(tables, usize::MAX)? {
                return Ok(census);
            }
        }
    }

    /// At most so many live flows: those that have had a packet last, the latest first.
    pub fn flows(&self, tables: &Tables, most: usize) -> Result<Vec<KnownFlow>, XdpError> {
        let Some(view) = View::of(tables) else { return Ok(Vec::new()) };
        let mut latest = BinaryHeap::new();
        let mut keep = |flow: KnownFlow| {
            latest.push(ByIdle(flow));
            if latest.len() > most {
                latest.pop();
            }
        };
        let mut flows4: Entries<FlowKey4, Flow4> = Entries::open(self, "FLOWS4")?;
        while let Some(entries) = flows4.next()? {
            entries.filter_map(|(key, flow)| view.flow4(&key, &flow)).for_each(&mut keep);
        }
        let mut flows6: Entries<FlowKey6, Flow6> = Entries::open(self, "FLOWS6")?;
        while let Some(entries) = flows6.next()? {
            entries.filter_map(|(key, flow)| view.flow6(&key, &flow)).for_each(&mut keep);
        }
        Ok(latest.into_sorted_vec().into_iter().map(|ByIdle(flow)| flow).collect())
    }
}

/// A flow in the order of its last packet.
struct ByIdle(KnownFlow);

impl ByIdle {
    fn place(&self) -> (Duration, SocketAddr, SocketAddr, u8) {
        (self.0.idle, self.0.client, self.0.service, self.0.protocol)
    }
}

impl PartialEq for ByIdle {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for ByIdle {}

impl PartialOrd for ByIdle {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByIdle {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

/// What tells whether an entry is used.
struct View<'a> {
    settings: &'a Settings,
    tables: &'a Tables,
    now: u32,
}

impl<'a> View<'a> {
    /// None before anything has been said: no entry is used then.
    fn of(tables: &'a Tables) -> Option<Self> {
        Some(Self { settings: tables.settings()?, tables, now: now() })
    }

    /// As the programs decide it (`flow::backend_of`).
    fn is_live(&self, head: &FlowHead) -> bool {
        let most = self.settings.idle.get(usize::from(head.state & 3)).copied().unwrap_or(0);
        let backend = self.tables.backends.get(&head.backend);
        self.idle_ticks(head) <= most
            && backend.is_some_and(|backend| {
                backend.generation == head.generation && backend.standing != Standing::Absent as u8
            })
    }

    /// A packet may have come since the clock was read.
    fn idle_ticks(&self, head: &FlowHead) -> u32 {
        let ticks = self.now.wrapping_sub(head.seen);
        if ticks.cast_signed() < 0 { 0 } else { ticks }
    }

    fn flow4(&self, key: &FlowKey4, flow: &Flow4) -> Option<KnownFlow> {
        let at = |word: u32| address([word, 0, 0, 0], false);
        let ends = (at(key.source), at(key.destination), key.ports);
        self.flow(&flow.head, ends, key.protocol, (at(flow.rewrite.source), flow.rewrite.ports))
    }

    fn flow6(&self, key: &FlowKey6, flow: &Flow6) -> Option<KnownFlow> {
        let at = |words: [u32; 4]| address(words, true);
        let ends = (at(key.source), at(key.destination), key.ports);
        self.flow(&flow.head, ends, key.protocol, (at(flow.rewrite.source), flow.rewrite.ports))
    }

    /// None for an entry that is not used, or that is the way back of another.
    fn flow(
        &self,
        head: &FlowHead,
        (source, destination, ports): (IpAddr, IpAddr, u32),
        protocol: u32,
        (gateway, new_ports): (IpAddr, u32),
    ) -> Option<KnownFlow> {
        if !self.is_live(head) || head.kind == FlowKind::Reverse as u8 {
            return None;
        }
        let is_translated = head.kind == FlowKind::Forward as u8;
        Some(KnownFlow {
            client: SocketAddr::new(source, source_port(ports)),
            service: SocketAddr::new(destination, source_port(ports.rotate_left(16))),
            protocol: u8::try_from(protocol).unwrap_or_default(),
            backend: head.backend,
            state: match head.state & 3 {
                1 => TcpState::Open,
                2 => TcpState::Finished,
                3 => TcpState::Reset,
                _ => TcpState::None,
            },
            gateway: is_translated.then(|| SocketAddr::new(gateway, source_port(new_ports))),
            idle: Duration::from_nanos(u64::from(self.idle_ticks(head)) << TICK_SHIFT),
        })
    }
}

/// The first of two ports that stand as in a packet.
fn source_port(ports: u32) -> u16 {
    let [high, low, ..] = ports.to_ne_bytes();
    u16::from_be_bytes([high, low])
}

/// The tick that it is on the clock of the programs, which is that of the kernel.
fn now() -> u32 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes the structure, and nothing else.
    #[expect(unsafe_code, reason = "std has no coarse clock")]
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    debug_assert_eq!(result, 0, "the clock is there");
    let nanoseconds =
        time.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.cast_unsigned());
    (nanoseconds >> TICK_SHIFT) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        layout_version: 1,
        hash_seed: 0,
        source_seed: 0,
        new_flows_per_core: 0,
        new_flows_per_source: 0,
        icmp_per_core: 0,
        idle: [100, 1000, 50, 10],
        hop_life: 0,
        has_acl4: 0,
        has_acl6: 0,
        zero: [0; 2],
    };

    fn tables() -> Tables {
        let mut tables = Tables::default();
        tables.settings = Some(SETTINGS);
        let backend = lb_l4_xdp_layout::Backend {
            generation: 7,
            standing: Standing::Draining as u8,
            ..Default::default()
        };
        tables.backends.insert(3, backend);
        tables
    }

    fn head(seen: u32) -> FlowHead {
        FlowHead {
            backend: 3,
            generation: 7,
            seen,
            service: 0,
            kind: FlowKind::Forward as u8,
            state: TcpState::Open as u8,
        }
    }

    #[test]
    fn an_entry_is_live_as_long_as_packets_follow_it() {
        let tables = tables();
        let view = View { settings: tables.settings().unwrap(), tables: &tables, now: 500 };
        assert!(view.is_live(&head(500)));
        // Written after the clock was read, and before it came round.
        assert!(view.is_live(&head(501)) && view.is_live(&head(500u32.wrapping_sub(1000))));
        assert!(!view.is_live(&head(500u32.wrapping_sub(1001))));
        assert!(!view.is_live(&FlowHead { state: TcpState::Finished as u8, ..head(449) }));
        assert!(!view.is_live(&FlowHead { generation: 6, ..head(500) }));
        assert!(!view.is_live(&FlowHead { backend: 4, ..head(500) }));
    }

    #[test]
    fn a_flow_is_shown_from_its_client_to_its_service() {
        let tables = tables();
        let view = View { settings: tables.settings().unwrap(), tables: &tables, now: 500 };
        let ports = |source: u16, destination: u16| {
            let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
            u32::from_ne_bytes([a, b, c, d])
        };
        let key = FlowKey4 {
            source: u32::from_ne_bytes([10, 1, 0, 9]),
            destination: u32::from_ne_bytes([10, 9, 0, 1]),
            ports: ports(40_000, 80),
            protocol: 6,
        };
        let rewrite = lb_l4_xdp_layout::Rewrite4 {
            source: u32::from_ne_bytes([10, 2, 0, 1]),
            destination: u32::from_ne_bytes([10, 2, 1, 11]),
            ports: ports(20_000, 8080),
        };
        let flow = Flow4 { head: head(400), rewrite, spare: 0 };
        let shown = view.flow4(&key, &flow).unwrap();
        assert_eq!(shown.client, "10.1.0.9:40000".parse().unwrap());
        assert_eq!(shown.service, "10.9.0.1:80".parse().unwrap());
        assert_eq!(shown.gateway, Some("10.2.0.1:20000".parse().unwrap()));
        assert_eq!(shown.idle, Duration::from_nanos(100 << TICK_SHIFT));
        let back = Flow4 { head: FlowHead { kind: FlowKind::Reverse as u8, ..flow.head }, ..flow };
        assert_eq!(view.flow4(&key, &back), None);
        let direct = Flow4 { head: FlowHead { kind: FlowKind::Direct as u8, ..flow.head }, ..flow };
        assert_eq!(view.flow4(&key, &direct).unwrap().gateway, None);
    }
}

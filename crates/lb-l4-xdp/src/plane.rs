//! The loaded programs and their tables.

use std::net::IpAddr;
use std::path::PathBuf;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, PerCpuArray, ProgramArray};
use aya::programs::Xdp;
use aya::programs::links::FdLink;
use aya::{Ebpf, EbpfLoader};
use lb_core::balance::Maglev;
use lb_l4_xdp_layout::{
    AclRule, Backend, BackendCounters, Event, Flow4, Flow6, FlowKey4, FlowKey6, Mode, NO_BACKEND, RING_SLOTS,
    ServerKey, Service, Settings, VipKey4, VipKey6, address_place4, address_place6, stage,
};

use crate::error::XdpError;
use crate::needs::has_syn_cookies;
use crate::object;
use crate::pins::{PINNED, Pins};
use crate::reconcile::Operation;
use crate::value::Value;

/// How many entries the large tables have.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Flows over IPv4; a translated flow takes two.
    pub flows4: u32,
    /// Flows over IPv6; a translated flow takes two.
    pub flows6: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { flows4: 1 << 20, flows6: 1 << 19 }
    }
}

/// The programs in the kernel, with their tables. Dropping it takes them out again.
pub struct Plane {
    ebpf: Ebpf,
    /// Programs are only called through this table while it is open or pinned.
    _stages: ProgramArray<MapData>,
    pins: Option<Pins>,
    /// Where the table of tail calls is pinned.
    stages_path: Option<PathBuf>,
    /// Attachments that were taken over from an earlier process.
    links: Vec<FdLink>,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").finish_non_exhaustive()
    }
}

impl Plane {
    /// Loads the programs. Nothing is attached, and all packets pass until there are [settings](Self::set_settings).
    pub fn load(capacity: Capacity) -> Result<Self, XdpError> {
        Self::make(capacity, None)
    }

    /// Loads the programs with tables that outlive the process: those that are there are taken over with all that they hold. Once all interfaces
    /// [are attached](Self::attach), [`Self::settle`] lets the programs of the process before go.
    pub fn load_pinned(capacity: Capacity, pins: Pins) -> Result<Self, XdpError> {
        pins.check([("FLOWS4", capacity.flows4), ("FLOWS6", capacity.flows6)])?;
        Self::make(capacity, Some(pins))
    }

    fn make(capacity: Capacity, pins: Option<Pins>) -> Result<Self, XdpError> {
        let object = object::object().ok_or(XdpError::NoObject)?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("FLOWS4", capacity.flows4).map_max_entries("FLOWS6", capacity.flows6);
        if let Some(pins) = &pins {
            for &(name, ..) in PINNED {
                loader.map_pin_path(name, pins.table(name));
            }
        }
        let mut ebpf = loader.load(object)?;
        let mut stages_path = None;
        if let Some(pins) = &pins {
            let path = pins.stages();
            ebpf.map("STAGES").ok_or(XdpError::Missing("STAGES"))?.pin(&path)?;
            stages_path = Some(path);
        }
        let stages = ebpf.take_map("STAGES").ok_or(XdpError::Missing("STAGES"))?;
        let mut stages = ProgramArray::try_from(stages)?;
        for &(name, place) in STAGES.iter().filter(|(name, _)| is_for_kernel(name)) {
            let program: &mut Xdp = ebpf.program_mut(name).ok_or(XdpError::Missing(name))?.try_into()?;
            program.load()?;
            stages.set(place, program.fd()?, 0)?;
        }
        let mut plane = Self { ebpf, _stages: stages, pins, stages_path, links: Vec::new() };
        plane.entry()?.load()?;
        Ok(plane)
    }

    /// Lets the programs of earlier processes go. Interfaces that were not attached again are cut off from their tail calls.
    pub fn settle(&self) -> Result<(), XdpError> {
        match (&self.pins, &self.stages_path) {
            (Some(pins), Some(path)) => pins.forget_stages_but(path),
            _ => Ok(()),
        }
    }

    pub(crate) fn pins(&self) -> Option<Pins> {
        self.pins.clone()
    }

    pub(crate) fn hold(&mut self, link: FdLink) {
        self.links.push(link);
    }

    /// The program that interfaces are given.
    pub fn entry(&mut self) -> Result<&mut Xdp, XdpError> {
        self.program(ENTRY)
    }

    /// The name of each program and the number of instructions that the kernel's verifier has looked at before it was content.
    pub fn verified(&mut self) -> Result<Vec<(&'static str, u32)>, XdpError> {
        let names = STAGES.iter().map(|&(name, _)| name).filter(|name| is_for_kernel(name)).chain([ENTRY]);
        names
            .map(|name| Ok((name, self.program(name)?.info()?.verified_instruction_count().unwrap_or(0))))
            .collect()
    }

    /// The name of each program and its size in instructions.
    pub fn sizes(&mut self) -> Result<Vec<(&'static str, u32)>, XdpError> {
        let names = STAGES.iter().map(|&(name, _)| name).filter(|name| is_for_kernel(name)).chain([ENTRY]);
        names.map(|name| Ok((name, self.program(name)?.info()?.size_translated().unwrap_or(0) / 8))).collect()
    }

    /// Says what holds for all services.
    pub fn set_settings(&mut self, settings: &Settings) -> Result<(), XdpError> {
        let mut table: Array<_, Value<Settings>> = self.table("SETTINGS")?.try_into()?;
        Ok(table.set(0, Value(*settings), 0)?)
    }

    /// Says what a service is. It gets packets once it has a ring and [an address](Self::set_vip).
    pub fn set_service(&mut self, index: u32, service: &Service) -> Result<(), XdpError> {
        if service.mode == Mode::Nat as u8 {
            let [first, rest @ ..] = service.nat_source;
            let is_ipv4 = rest == [0; 3];
            self.mark(if is_ipv4 { address_place4(first) } else { address_place6(&service.nat_source) })?;
        }
        let mut table: Array<_, Value<Service>> = self.table("SERVICES")?.try_into()?;
        Ok(table.set(index, Value(*service), 0)?)
    }

    /// Says what a backend is.
    pub fn set_backend(&mut self, index: u32, backend: &Backend) -> Result<(), XdpError> {
        let mut table: Array<_, Value<Backend>> = self.table("BACKENDS")?.try_into()?;
        Ok(table.set(index, Value(*backend), 0)?)
    }

    /// Gives a service another ring, in one step: the index of the backend of each slot.
    pub fn set_ring(&mut self, service: u32, slots: &[u32]) -> Result<(), XdpError> {
        if slots.len() != RING_SLOTS as usize {
            return Err(XdpError::OutOfBounds);
        }
        let mut ring: Array<MapData, u32> = Array::create(RING_SLOTS, 0)?;
        for (slot, backend) in (0..).zip(slots) {
            ring.set(slot, backend, 0)?;
        }
        let mut table: ArrayOfMaps<_, Array<MapData, u32>> = self.table("RINGS")?.try_into()?;
        Ok(table.set(service, &ring, 0)?)
    }

    /// Leads a server ID to a backend of its service.
    pub fn set_server(&mut self, key: &ServerKey, backend: u32) -> Result<(), XdpError> {
        let mut table: HashMap<_, Value<ServerKey>, u32> = self.table("SERVERS")?.try_into()?;
        Ok(table.insert(Value(*key), backend, 0)?)
    }

    /// Leads a server ID to no backend any more.
    pub fn remove_server(&mut self, key: &ServerKey) -> Result<(), XdpError> {
        let mut table: HashMap<_, Value<ServerKey>, u32> = self.table("SERVERS")?.try_into()?;
        gone(table.remove(&Value(*key)))
    }

    /// Leads an address, a protocol and a port to a service; port 0 is all that have none of their own.
    pub fn set_vip(
        &mut self,
        address: IpAddr,
        protocol: u8,
        port: u16,
        service: u32,
    ) -> Result<(), XdpError> {
        let port = port.to_be();
        match address {
            IpAddr::V4(address) => {
                let address = words4(address.octets());
                self.mark(address_place4(address))?;
                let mut table: HashMap<_, Value<VipKey4>, u32> = self.table("VIPS4")?.try_into()?;
                table.insert(Value(VipKey4 { address, port, protocol, zero: 0 }), service, 0)?;
                table.insert(Value(VipKey4 { address, port: 0, protocol: 0, zero: 0 }), 0, 0)?;
            }
            IpAddr::V6(address) => {
                let address = words6(address.octets());
                self.mark(address_place6(&address))?;
                let mut table: HashMap<_, Value<VipKey6>, u32> = self.table("VIPS6")?.try_into()?;
                table.insert(Value(VipKey6 { address, port, protocol, zero: 0 }), service, 0)?;
                table.insert(Value(VipKey6 { address, port: 0, protocol: 0, zero: 0 }), 0, 0)?;
            }
        }
        Ok(())
    }

    /// Leads an address, a protocol and a port to no service any more. `is_last`: nothing else leads from this address to one.
    pub fn remove_vip(
        &mut self,
        address: IpAddr,
        protocol: u8,
        port: u16,
        is_last: bool,
    ) -> Result<(), XdpError> {
        let port = port.to_be();
        match address {
            IpAddr::V4(address) => {
                let address = words4(address.octets());
                let mut table: HashMap<_, Value<VipKey4>, u32> = self.table("VIPS4")?.try_into()?;
                gone(table.remove(&Value(VipKey4 { address, port, protocol, zero: 0 })))?;
                if is_last {
                    gone(table.remove(&Value(VipKey4 { address, port: 0, protocol: 0, zero: 0 })))?;
                }
            }
            IpAddr::V6(address) => {
                let address = words6(address.octets());
                let mut table: HashMap<_, Value<VipKey6>, u32> = self.table("VIPS6")?.try_into()?;
                gone(table.remove(&Value(VipKey6 { address, port, protocol, zero: 0 })))?;
                if is_last {
                    gone(table.remove(&Value(VipKey6 { address, port: 0, protocol: 0, zero: 0 })))?;
                }
            }
        }
        Ok(())
    }

    /// Sets a bit in the filter of addresses.
    fn mark(&mut self, (word, bit): (u32, u32)) -> Result<(), XdpError> {
        let mut table: Array<_, u64> = self.table("ADDRESSES")?.try_into()?;
        let bits = table.get(&word, 0)? | (1 << bit);
        Ok(table.set(word, bits, 0)?)
    }

    /// Denies or allows the sources of a prefix. [`Settings::has_acl4`] or [`Settings::has_acl6`] must be set for it to be looked at.
    pub fn set_source_rule(&mut self, address: IpAddr, prefix: u32, rule: AclRule) -> Result<(), XdpError> {
        match address {
            IpAddr::V4(address) => {
                let mut table: LpmTrie<_, u32, u32> = self.table("SOURCES4")?.try_into()?;
                table.insert(&Key::new(prefix, words4(address.octets())), rule as u32, 0)?;
            }
            IpAddr::V6(address) => {
                let mut table: LpmTrie<_, [u32; 4], u32> = self.table("SOURCES6")?.try_into()?;
                table.insert(&Key::new(prefix, words6(address.octets())), rule as u32, 0)?;
            }
        }
        Ok(())
    }

    /// Says nothing of the sources of a prefix any more.
    pub fn remove_source_rule(&mut self, address: IpAddr, prefix: u32) -> Result<(), XdpError> {
        match address {
            IpAddr::V4(address) => {
                let mut table: LpmTrie<_, u32, u32> = self.table("SOURCES4")?.try_into()?;
                gone(table.remove(&Key::new(prefix, words4(address.octets()))))
            }
            IpAddr::V6(address) => {
                let mut table: LpmTrie<_, [u32; 4], u32> = self.table("SOURCES6")?.try_into()?;
                gone(table.remove(&Key::new(prefix, words6(address.octets()))))
            }
        }
    }

    /// Makes one change of a table.
    pub fn apply(&mut self, operation: &Operation) -> Result<(), XdpError> {
        match operation {
            Operation::Settings(settings) => self.set_settings(settings),
            Operation::Rule(address, prefix, rule) => {
                self.set_source_rule(*address, u32::from(*prefix), *rule)
            }
            Operation::NoRule(address, prefix) => self.remove_source_rule(*address, u32::from(*prefix)),
            Operation::Backend(index, backend) => self.set_backend(*index, backend),
            Operation::Ring(service, seats) if seats.is_empty() => {
                self.set_ring(*service, &vec![NO_BACKEND; RING_SLOTS as usize])
            }
            Operation::Ring(service, seats) => {
                self.set_ring(*service, Maglev::new(seats, RING_SLOTS).slots())
            }
            Operation::Server(key, backend) => self.set_server(key, *backend),
            Operation::NoServer(key) => self.remove_server(key),
            Operation::Service(index, service) => self.set_service(*index, service),
            Operation::Vip(vip, service) => self.set_vip(vip.address, vip.protocol, vip.port, *service),
            Operation::NoVip { vip, is_last } => {
                self.remove_vip(vip.address, vip.protocol, vip.port, *is_last)
            }
        }
    }

    /// Lets packets leave by an interface other than the one that they came by.
    pub fn add_device(&mut self, interface: u32) -> Result<(), XdpError> {
        let mut table: DevMapHash<_> = self.table("DEVICES")?.try_into()?;
        Ok(table.insert(interface, interface, None, 0)?)
    }

    /// How often an event has happened, on all cores together.
    pub fn event(&self, event: Event) -> Result<u64, XdpError> {
        let table = self.ebpf.map("EVENT_COUNTS").ok_or(XdpError::Missing("EVENT_COUNTS"))?;
        let table: PerCpuArray<_, u64> = table.try_into()?;
        Ok(table.get(&(event as u32), 0)?.iter().sum())
    }

    /// What has been sent to a backend and back, by all cores together.
    pub fn backend_counters(&self, index: u32) -> Result<BackendCounters, XdpError> {
        let table = self.ebpf.map("BACKEND_COUNTS").ok_or(XdpError::Missing("BACKEND_COUNTS"))?;
        let table: PerCpuArray<_, Value<BackendCounters>> = table.try_into()?;
        let mut sum = BackendCounters::default();
        for Value(core) in table.get(&index, 0)?.iter() {
            sum.packets += core.packets;
            sum.bytes += core.bytes;
            sum.flows += core.flows;
            sum.reply_packets += core.reply_packets;
            sum.reply_bytes += core.reply_bytes;
        }
        Ok(sum)
    }

    /// The entry of a flow over IPv4.
    pub fn flow4(&self, key: &FlowKey4) -> Result<Option<Flow4>, XdpError> {
        let table = self.ebpf.map("FLOWS4").ok_or(XdpError::Missing("FLOWS4"))?;
        let table: HashMap<_, Value<FlowKey4>, Value<Flow4>> = table.try_into()?;
        found(table.get(&Value(*key), 0))
    }

    /// The entry of a flow over IPv6.
    pub fn flow6(&self, key: &FlowKey6) -> Result<Option<Flow6>, XdpError> {
        let table = self.ebpf.map("FLOWS6").ok_or(XdpError::Missing("FLOWS6"))?;
        let table: HashMap<_, Value<FlowKey6>, Value<Flow6>> = table.try_into()?;
        found(table.get(&Value(*key), 0))
    }

    /// Forgets a flow over IPv4.
    pub fn remove_flow4(&mut self, key: &FlowKey4) -> Result<(), XdpError> {
        let mut table: HashMap<_, Value<FlowKey4>, Value<Flow4>> = self.table("FLOWS4")?.try_into()?;
        Ok(table.remove(&Value(*key))?)
    }

    fn program(&mut self, name: &'static str) -> Result<&mut Xdp, XdpError> {
        Ok(self.ebpf.program_mut(name).ok_or(XdpError::Missing(name))?.try_into()?)
    }

    pub(crate) fn table(&mut self, name: &'static str) -> Result<&mut Map, XdpError> {
        self.ebpf.map_mut(name).ok_or(XdpError::Missing(name))
    }
}

/// What is not there need not be taken away.
fn gone(removed: Result<(), aya::maps::MapError>) -> Result<(), XdpError> {
    match removed {
        Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn found<T: lb_l4_xdp_layout::Plain>(
    value: Result<Value<T>, aya::maps::MapError>,
) -> Result<Option<T>, XdpError> {
    match value {
        Ok(Value(value)) => Ok(Some(value)),
        Err(aya::maps::MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// An address as programs have it: its octets in memory, whatever the machine's order.
pub const fn words4(octets: [u8; 4]) -> u32 {
    u32::from_ne_bytes(octets)
}

/// An address as programs have it: its octets in memory, whatever the machine's order.
pub const fn words6(octets: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// The programs that are called by others, with their places.
const STAGES: &[(&str, u32)] = &[
    ("lb_parse", stage::PARSE),
    ("lb_choose", stage::CHOOSE),
    ("lb_tunnel", stage::TUNNEL),
    ("lb_link", stage::LINK),
    ("lb_translate", stage::TRANSLATE),
    ("lb_allocate", stage::ALLOCATE),
    ("lb_icmp", stage::ICMP),
    ("lb_too_big", stage::TOO_BIG),
    ("lb_connection_id", stage::CONNECTION_ID),
    (SYN, stage::SYN),
];

/// The program that makes cookies with what the kernel has since 6.0.
const SYN: &str = "lb_syn";

/// Whether the kernel has what a program needs.
fn is_for_kernel(name: &str) -> bool {
    name != SYN || has_syn_cookies()
}

/// The program that interfaces are given.
const ENTRY: &str = "lb_xdp";

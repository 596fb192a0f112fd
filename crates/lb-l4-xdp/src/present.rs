//! What the tables say: for a process that takes them over, and for commands that look at them while none runs.

use std::path::Path;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use lb_l4_xdp_layout::{
    AclRule, Backend, BackendCounters, Event, MAX_BACKENDS, MAX_SERVICES, ServerKey, Service, Settings,
    VipKey4, VipKey6,
};

use crate::error::XdpError;
use crate::pins::Pins;
use crate::reconcile::Tables;
use crate::value::Value;
use crate::wanted::{Vip, address};

impl Pins {
    /// What the pinned tables say now. Rings are not read.
    pub fn tables(&self) -> Result<Tables, XdpError> {
        if !self.table("SETTINGS").exists() {
            return Err(XdpError::NothingPinned(self.directory.clone()));
        }
        let mut tables = Tables::default();
        let map = self.open("SETTINGS")?;
        let settings: Array<_, Value<Settings>> = (&map).try_into()?;
        let Value(settings) = settings.get(&0, 0)?;
        // 0 before a process has said anything.
        tables.settings = (settings.layout_version != 0).then_some(settings);
        let map = self.open("SERVICES")?;
        let services: Array<_, Value<Service>> = (&map).try_into()?;
        for index in 0..MAX_SERVICES {
            let Value(service) = services.get(&index, 0)?;
            if service.present != 0 {
                tables.services.insert(index, service);
            }
        }
        let map = self.open("BACKENDS")?;
        let backends: Array<_, Value<Backend>> = (&map).try_into()?;
        for index in 0..MAX_BACKENDS {
            let Value(backend) = backends.get(&index, 0)?;
            if backend != Backend::default() {
                tables.backends.insert(index, backend);
            }
        }
        let map = self.open("VIPS4")?;
        let vips: HashMap<_, Value<VipKey4>, u32> = (&map).try_into()?;
        for entry in vips.iter() {
            let (Value(key), service) = entry?;
            if key.protocol != 0 {
                let address = address([key.address, 0, 0, 0], false);
                let vip = Vip { address, protocol: key.protocol, port: u16::from_be(key.port) };
                tables.vips.insert(vip, service);
            }
        }
        let map = self.open("VIPS6")?;
        let vips: HashMap<_, Value<VipKey6>, u32> = (&map).try_into()?;
        for entry in vips.iter() {
            let (Value(key), service) = entry?;
            if key.protocol != 0 {
                let address = address(key.address, true);
                let vip = Vip { address, protocol: key.protocol, port: u16::from_be(key.port) };
                tables.vips.insert(vip, service);
            }
        }
        let map = self.open("SERVERS")?;
        let servers: HashMap<_, Value<ServerKey>, u32> = (&map).try_into()?;
        for entry in servers.iter() {
            let (Value(key), backend) = entry?;
            tables.servers.insert(key, backend);
        }
        self.read_rules(&mut tables)?;
        Ok(tables)
    }

    fn read_rules(&self, tables: &mut Tables) -> Result<(), XdpError> {
        let rule = |value: u32| if value == AclRule::Deny as u32 { AclRule::Deny } else { AclRule::Allow };
        let map = self.open("SOURCES4")?;
        let sources: LpmTrie<_, u32, u32> = (&map).try_into()?;
        for entry in sources.iter() {
            let (key, value) = entry?;
            let prefix = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            tables.rules.insert((address([key.data(), 0, 0, 0], false), prefix), rule(value));
        }
        let map = self.open("SOURCES6")?;
        let sources: LpmTrie<_, [u32; 4], u32> = (&map).try_into()?;
        for entry in sources.iter() {
            let (key, value) = entry?;
            let prefix = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            tables.rules.insert((address(key.data(), true), prefix), rule(value));
        }
        Ok(())
    }

    /// How often each event has happened, on all cores together.
    pub fn events(&self) -> Result<Vec<(Event, u64)>, XdpError> {
        let map = self.open("EVENT_COUNTS")?;
        let counts: PerCpuArray<_, u64> = (&map).try_into()?;
        let one = |event: Event| Ok((event, counts.get(&(event as u32), 0)?.iter().sum()));
        Event::ALL.iter().map(|event| one(*event)).collect()
    }

    /// What has been sent to each of these backends and back, by all cores together.
    pub fn counters(&self, backends: &[u32]) -> Result<Vec<BackendCounters>, XdpError> {
        let map = self.open("BACKEND_COUNTS")?;
        let counts: PerCpuArray<_, Value<BackendCounters>> = (&map).try_into()?;
        let mut all = Vec::with_capacity(backends.len());
        for index in backends {
            let mut sum = BackendCounters::default();
            for Value(core) in counts.get(index, 0)?.iter() {
                sum.packets = sum.packets.wrapping_add(core.packets);
                sum.bytes = sum.bytes.wrapping_add(core.bytes);
                sum.flows = sum.flows.wrapping_add(core.flows);
                sum.reply_packets = sum.reply_packets.wrapping_add(core.reply_packets);
                sum.reply_bytes = sum.reply_bytes.wrapping_add(core.reply_bytes);
            }
            all.push(sum);
        }
        Ok(all)
    }

    /// A table that is pinned.
    pub(crate) fn open(&self, name: &str) -> Result<Map, XdpError> {
        open(&self.table(name))
    }
}

fn open(path: &Path) -> Result<Map, XdpError> {
    Ok(Map::from_map_data(MapData::from_pin(path)?)?)
}

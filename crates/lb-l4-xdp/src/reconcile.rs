//! From the tables that are there to those that are wanted, step by step.
//!
//! Packets are forwarded meanwhile, so the order counts. A backend stands in its table before a ring leads to it, and its new standing is known before
//! the ring without it: so no flow is begun at a backend that has left. A service has backends and a ring before an address leads to it, and loses
//! its address first. What stays keeps its place, and flows with it; whoever takes the place of a backend that has left has another generation, so that no old
//! flow is taken for one of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use lb_core::balance::Seat;
use lb_l4_xdp_layout::{
    AclRule, Backend, MAX_BACKENDS, MAX_SERVERS, MAX_SERVICES, Mode, ServerKey, Service, Settings, Standing,
};

use crate::wanted::{Vip, Wanted, WantedService};

/// One change of a table, made in one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// What holds for all services.
    Settings(Settings),
    /// What is said of a network of sources.
    Rule(IpAddr, u8, AclRule),
    /// Nothing is said of it any more.
    NoRule(IpAddr, u8),
    /// A backend, by its index.
    Backend(u32, Backend),
    /// The ring of a service, by its index: the backends, by theirs.
    Ring(u32, Vec<Seat>),
    /// A server ID of QUIC leads to a backend, by its index.
    Server(ServerKey, u32),
    /// A server ID leads to none any more.
    NoServer(ServerKey),
    /// A service, by its index.
    Service(u32, Service),
    /// An address leads to a service.
    Vip(Vip, u32),
    /// An address leads to none any more.
    NoVip {
        /// What it was.
        vip: Vip,
        /// Whether nothing else leads from this address to a service.
        is_last: bool,
    },
}

/// What cannot be had, whatever is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The table of services is full.
    #[error("more than {MAX_SERVICES} services in the kernel, those included that this change replaces")]
    Services,
    /// The table of backends is full.
    #[error("more than {MAX_BACKENDS} backends of services in the kernel")]
    Backends,
    /// The table of server IDs is full.
    #[error("more than {MAX_SERVERS} server IDs of services in the kernel")]
    Servers,
}

/// What the tables say, as far as it has been read or written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    pub(crate) settings: Option<Settings>,
    pub(crate) services: BTreeMap<u32, Service>,
    pub(crate) vips: BTreeMap<Vip, u32>,
    /// Every place that was ever taken.
    pub(crate) backends: BTreeMap<u32, Backend>,
    /// The backend that has a server ID.
    pub(crate) servers: BTreeMap<ServerKey, u32>,
    /// Those that have been written; what they were before is not read.
    rings: BTreeMap<u32, Vec<Seat>>,
    pub(crate) rules: BTreeMap<(IpAddr, u8), AclRule>,
}

impl Tables {
    /// What holds for all services, if anything has been said.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// Each address with the index of its service.
    pub fn vips(&self) -> impl Iterator<Item = (&Vip, u32)> {
        self.vips.iter().map(|(vip, index)| (vip, *index))
    }

    /// A service by its index.
    pub fn service(&self, index: u32) -> Option<&Service> {
        self.services.get(&index).filter(|service| service.present != 0)
    }

    /// A backend by its index, as long as no other has it.
    pub fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(&index)
    }

    /// The backends of a service that get packets, with their indices.
    pub fn backends_of(&self, service: u32) -> impl Iterator<Item = (u32, &Backend)> {
        let stands = move |backend: &Backend| {
            u32::from(backend.service) == service && backend.standing != Standing::Absent as u8
        };
        self.backends
            .iter()
            .map(|(index, backend)| (*index, backend))
            .filter(move |(_, backend)| stands(backend))
    }

    /// What is said of each network of sources.
    pub fn rules(&self) -> &BTreeMap<(IpAddr, u8), AclRule> {
        &self.rules
    }

    /// What is to be done, in this order. After each step packets are forwarded as before or as wanted.
    ///
    /// # Errors
    /// When the tables have no room. Nothing is to be done then.
    pub fn plan(&self, wanted: &Wanted) -> Result<Vec<Operation>, TooMany> {
        let mut plan = Planning {
            tables: self,
            services: BTreeSet::new(),
            backends: BTreeSet::new(),
            operations: Vec::new(),
        };
        for (&(address, prefix), &rule) in &wanted.rules {
            if self.rules.get(&(address, prefix)) != Some(&rule) {
                plan.operations.push(Operation::Rule(address, prefix, rule));
            }
        }
        // Places that stay are taken before any is given away.
        let kept: Vec<Option<u32>> = wanted
            .services
            .iter()
            .map(|service| self.place_of(service).filter(|index| plan.services.insert(*index)))
            .collect();
        let mut keys = HashSet::new();
        for (service, index) in wanted.services.iter().zip(&kept) {
            let Some(index) = index.and_then(|index| u16::try_from(index).ok()) else { continue };
            keys.extend(service.members.iter().map(|member| key(&member.entry(index, service))));
        }
        let is_taken = |one: &Backend| one.standing != Standing::Absent as u8 || keys.contains(&key(one));
        plan.backends.extend(self.backends.iter().filter(|(_, one)| is_taken(one)).map(|(at, _)| *at));
        for (service, kept) in wanted.services.iter().zip(kept) {
            plan.service(service, kept)?;
        }
        if self.settings != Some(wanted.settings) {
            plan.operations.push(Operation::Settings(wanted.settings));
        }
        plan.retire(wanted);
        let ids = wanted.services.iter().flat_map(|service| &service.members);
        // Those that are replaced leave first.
        if ids.map(|member| member.server_ids.len()).sum::<usize>() > MAX_SERVERS as usize {
            return Err(TooMany::Servers);
        }
        for &(address, prefix) in self.rules.keys().filter(|network| !wanted.rules.contains_key(network)) {
            plan.operations.push(Operation::NoRule(address, prefix));
        }
        Ok(plan.operations)
    }

    /// The index of a service that can become this one without a new beginning.
    fn place_of(&self, wanted: &WantedService) -> Option<u32> {
        let index = *self.vips.get(&wanted.vip)?;
        let (old, new) = (self.services.get(&index)?, wanted.entry());
        let stays = old.present != 0 && old.mode == new.mode && old.nat_source == new.nat_source;
        stays.then_some(index)
    }

    /// Notes what has been done.
    pub fn done(&mut self, operation: &Operation) {
        match operation {
            Operation::Settings(settings) => self.settings = Some(*settings),
            Operation::Rule(address, prefix, rule) => _ = self.rules.insert((*address, *prefix), *rule),
            Operation::NoRule(address, prefix) => _ = self.rules.remove(&(*address, *prefix)),
            Operation::Backend(index, backend) => _ = self.backends.insert(*index, *backend),
            Operation::Ring(service, seats) => _ = self.rings.insert(*service, seats.clone()),
            Operation::Server(key, at) => _ = self.servers.insert(*key, *at),
            Operation::NoServer(key) => _ = self.servers.remove(key),
            Operation::Service(index, service) => _ = self.services.insert(*index, *service),
            Operation::Vip(vip, service) => _ = self.vips.insert(*vip, *service),
            Operation::NoVip { vip, .. } => _ = self.vips.remove(vip),
        }
    }
}

/// What tells the backends of a service apart.
fn key(backend: &Backend) -> (u16, u8, [u32; 4], u16) {
    (backend.service, backend.is_ipv6, backend.address, backend.port)
}

struct Planning<'a> {
    tables: &'a Tables,
    /// Indices that are taken.
    services: BTreeSet<u32>,
    backends: BTreeSet<u32>,
    operations: Vec<Operation>,
}

impl Planning<'_> {
    fn service(&mut self, wanted: &WantedService, kept: Option<u32>) -> Result<(), TooMany> {
        let index = match kept {
            Some(index) => index,
            None => self.free_service()?,
        };
        self.services.insert(index);
        let of_service = u16::try_from(index).map_err(|_| TooMany::Services)?;
        let mut known: HashMap<_, (u32, Backend)> = HashMap::new();
        if kept.is_some() {
            let own = self.tables.backends.iter().filter(|(_, backend)| backend.service == of_service);
            known.extend(own.map(|(at, backend)| (key(backend), (*at, *backend))));
        }
        let mut servers: BTreeMap<ServerKey, u32> = BTreeMap::new();
        // Several members may be one to the kernel, where ports do not count.
        let mut members: BTreeMap<_, (Backend, u64, u32)> = BTreeMap::new();
        let mut ids: HashMap<_, Vec<[u32; 4]>> = HashMap::new();
        for member in &wanted.members {
            let entry = member.entry(of_service, wanted);
            if !member.server_ids.is_empty() {
                ids.entry(key(&entry)).or_default().extend(&member.server_ids);
            }
            let weight = if member.standing == Standing::Live { member.weight } else { 0 };
            let (known, _, sum) = members.entry(key(&entry)).or_insert((entry, member.identity, 0));
            *sum = sum.saturating_add(weight);
            known.standing = better(known.standing, entry.standing);
        }
        let mut seats = Vec::new();
        let mut here = BTreeSet::new();
        for (key, (entry, identity, weight)) in members {
            let old = known.get(&key);
            let at = match old {
                Some((at, _)) => *at,
                // Whoever is not used has nothing to lose.
                None if entry.standing == Standing::Absent as u8 => continue,
                None => self.free_backend()?,
            };
            self.backends.insert(at);
            here.insert(at);
            let before = self.tables.backends.get(&at);
            let generation = match old {
                Some((_, old)) => old.generation,
                None => before.map_or(0, |before| before.generation).wrapping_add(1),
            };
            let entry = Backend { generation, ..entry };
            if before != Some(&entry) {
                self.operations.push(Operation::Backend(at, entry));
            }
            if weight > 0 {
                seats.push(Seat { identity, at, weight });
            }
            let ids = ids.get(&key).into_iter().flatten();
            servers.extend(ids.map(|id| (ServerKey { service: index, id: *id }, at)));
        }
        for (at, backend) in known.into_values().filter(|(at, _)| !here.contains(at)) {
            self.dismiss(at, backend);
        }
        self.lead(index, &servers);
        seats.sort_unstable();
        // The kernel looks into no ring for a listener.
        if wanted.mode != Mode::Local && self.tables.rings.get(&index) != Some(&seats) {
            self.operations.push(Operation::Ring(index, seats));
        }
        let entry = wanted.entry();
        if self.tables.services.get(&index) != Some(&entry) {
            self.operations.push(Operation::Service(index, entry));
        }
        if self.tables.vips.get(&wanted.vip) != Some(&index) {
            self.operations.push(Operation::Vip(wanted.vip, index));
        }
        Ok(())
    }

    /// Has server IDs lead to backends of a service. A place is given away in a later plan than the one in which its backend leaves, so that no ID leads to another's.
    fn lead(&mut self, service: u32, wanted: &BTreeMap<ServerKey, u32>) {
        let there = self.tables.servers.iter().filter(|(key, _)| key.service == service);
        let gone = there.filter(|(key, _)| !wanted.contains_key(key));
        self.operations.extend(gone.map(|(key, _)| Operation::NoServer(*key)));
        let new = wanted.iter().filter(|(key, at)| self.tables.servers.get(key) != Some(at));
        self.operations.extend(new.map(|(key, at)| Operation::Server(*key, *at)));
    }

    /// Takes away what nothing wanted leads to any more.
    fn retire(&mut self, wanted: &Wanted) {
        let vips: BTreeSet<Vip> = wanted.services.iter().map(|service| service.vip).collect();
        let gone: Vec<Vip> = self.tables.vips.keys().filter(|vip| !vips.contains(vip)).copied().collect();
        for (at, vip) in gone.iter().enumerate() {
            let later = gone.iter().skip(at.saturating_add(1)).any(|other| other.address == vip.address);
            let is_last = !later && !vips.iter().any(|other| other.address == vip.address);
            self.operations.push(Operation::NoVip { vip: *vip, is_last });
        }
        for (&index, service) in &self.tables.services {
            if service.present == 0 || self.services.contains(&index) {
                continue;
            }
            self.operations.push(Operation::Service(index, Service { present: 0, ..*service }));
            let ids = self.tables.servers.keys().filter(|key| key.service == index);
            self.operations.extend(ids.map(|key| Operation::NoServer(*key)));
            let own: Vec<_> =
                self.tables.backends.iter().filter(|(_, one)| u32::from(one.service) == index).collect();
            for (at, backend) in own {
                // No later service of this index is to take it for one of its own.
                let absent = Backend { standing: Standing::Absent as u8, service: u16::MAX, ..*backend };
                self.operations.push(Operation::Backend(*at, absent));
            }
        }
    }

    fn dismiss(&mut self, at: u32, backend: Backend) {
        if backend.standing != Standing::Absent as u8 {
            let absent = Backend { standing: Standing::Absent as u8, ..backend };
            self.operations.push(Operation::Backend(at, absent));
        }
    }

    /// A place that no service has.
    fn free_service(&self) -> Result<u32, TooMany> {
        let is_free = |index: &u32| {
            !self.services.contains(index)
                && self.tables.services.get(index).is_none_or(|service| service.present == 0)
        };
        (0..MAX_SERVICES).find(is_free).ok_or(TooMany::Services)
    }

    /// A place that no backend has: one that none ever had, if there is one.
    fn free_backend(&self) -> Result<u32, TooMany> {
        let is_free = |index: &u32| !self.backends.contains(index);
        let is_new = |index: &u32| is_free(index) && !self.tables.backends.contains_key(index);
        (0..MAX_BACKENDS).find(is_new).or_else(|| (0..MAX_BACKENDS).find(is_free)).ok_or(TooMany::Backends)
    }
}

/// The standing of a backend that several members are.
fn better(one: u8, other: u8) -> u8 {
    let rank = |standing: u8| match standing {
        live if live == Standing::Live as u8 => 2,
        draining if draining == Standing::Draining as u8 => 1,
        _ => 0,
    };
    if rank(one) >= rank(other) { one } else { other }
}

#[cfg(test)]
mod tests;

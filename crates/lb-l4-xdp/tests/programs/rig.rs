//! A gateway with two interfaces in a network namespace, and its programs.
//!
//! `eth0` is where packets arrive; `eth1` leads to backends. Next hops have fixed MAC addresses, whose last octet is that of their IP address.

use std::net::IpAddr;

use aya::programs::{TestRun as _, TestRunOptions, XdpMode};
use lb_core::balance::{Maglev, Seat, hash};
use lb_l4_xdp::layout::{
    Backend, Event, LAYOUT_VERSION, Mode, NO_BACKEND, RING_SLOTS, Service, Settings, Standing,
};
use lb_l4_xdp::{Capacity, Plane, words4, words6};

pub(crate) use crate::hosts::ip;
use crate::hosts::{forward, index_of, unshare};

pub(crate) const ABORTED: u32 = 0;
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
pub(crate) const TX: u32 = 3;
pub(crate) const REDIRECT: u32 = 4;

/// The MAC address of the next hop whose IP address ends with an octet.
pub(crate) fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

/// The MAC addresses of the gateway's interfaces.
pub(crate) const ETH0: [u8; 6] = [2, 0, 0, 0, 1, 0];
pub(crate) const ETH1: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// What became of a packet.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) action: u32,
    pub(crate) frame: Vec<u8>,
}

pub(crate) struct Rig {
    pub(crate) plane: Plane,
    pub(crate) settings: Settings,
    pub(crate) eth0: u32,
    backends: u32,
    services: Vec<Service>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_flows(4096)
    }

    /// A gateway with room for so many flows of each family.
    pub(crate) fn with_flows(flows: u32) -> Self {
        unshare();
        forward();
        ip(SETUP);
        let mut plane = Plane::load(Capacity { flows4: flows, flows6: flows })
            .unwrap_or_else(|error| panic!("{error:?}"));
        // Gives the interface what a run on its behalf needs.
        plane.entry().unwrap().attach("eth0", XdpMode::Driver).unwrap();
        let (eth0, eth1) = (index_of("eth0"), index_of("eth1"));
        plane.add_device(eth0).unwrap();
        plane.add_device(eth1).unwrap();
        let settings = Settings {
            layout_version: LAYOUT_VERSION,
            hash_seed: 7,
            source_seed: 9,
            new_flows_per_core: 0,
            new_flows_per_source: 0,
            icmp_per_core: 1000,
            idle: [30_000, 3_600_000, 30_000, 2_000],
            hop_life: 1000,
            has_acl4: 0,
            has_acl6: 0,
            zero: [0; 2],
        };
        plane.set_settings(&settings).unwrap();
        Self { plane, settings, eth0, backends: 0, services: Vec::new() }
    }

    /// Changes what holds for all services.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.plane.set_settings(&self.settings).unwrap();
    }

    /// A service over TCP and UDP at an address and a port, with backends. Its index, and theirs.
    pub(crate) fn service(&mut self, vip: &str, port: u16, mode: Mode, backends: &[&str]) -> (u32, Vec<u32>) {
        let index = self.services.len() as u32;
        let vip: IpAddr = vip.parse().unwrap();
        let nat_source = if vip.is_ipv4() { "10.2.0.1" } else { "fd00:2::1" };
        let service = Service {
            present: 1,
            mode: mode as u8,
            by_source: 0,
            has_listener: 0,
            nat_port_first: 20_000,
            nat_port_count: 1000,
            nat_source: address(nat_source),
            ..Service::default()
        };
        self.plane.set_service(index, &service).unwrap();
        self.services.push(service);
        let added: Vec<u32> = backends.iter().map(|backend| self.backend(index, backend, mode)).collect();
        self.ring(index, &added);
        for protocol in [6, 17] {
            self.plane.set_vip(vip, protocol, port, index).unwrap();
        }
        (index, added)
    }

    /// Says that a listener of this machine has the address of a service too.
    pub(crate) fn give_listener(&mut self, service: u32) {
        let entry = Service { has_listener: 1, ..self.services[service as usize] };
        self.plane.set_service(service, &entry).unwrap();
    }

    /// A backend of a service.
    pub(crate) fn backend(&mut self, service: u32, address: &str, mode: Mode) -> u32 {
        let index = self.backends;
        self.backends += 1;
        self.plane.set_backend(index, &backend_of(service, address, mode)).unwrap();
        index
    }

    /// Gives a service the ring of backends of equal weights; their indices are what they are known by.
    pub(crate) fn ring(&mut self, service: u32, backends: &[u32]) -> Vec<u32> {
        let slots = ring_of(backends);
        self.plane.set_ring(service, &slots).unwrap();
        slots
    }

    /// Runs the programs on a frame that arrives at `eth0`.
    pub(crate) fn run(&mut self, frame: &[u8]) -> Outcome {
        let mut context = [0u8; 24];
        context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&self.eth0.to_ne_bytes());
        let mut out = vec![0; 16_384];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result =
            self.plane.entry().unwrap().test_run(options).unwrap_or_else(|error| panic!("{error:?}"));
        out.truncate(result.data_size_out as usize);
        assert_ne!(result.return_value, ABORTED);
        Outcome { action: result.return_value, frame: out }
    }

    pub(crate) fn event(&self, event: Event) -> u64 {
        self.plane.event(event).unwrap()
    }

    /// The packet is passed as it was.
    pub(crate) fn passes(&mut self, frame: &[u8], event: Event) {
        let before = self.event(event);
        let outcome = self.run(frame);
        assert_eq!(outcome.action, PASS, "{event:?}, events: {:?}", self.events());
        assert_eq!(outcome.frame, frame, "a packet that is passed is not touched");
        assert_eq!(self.event(event), before + 1, "events: {:?}", self.events());
    }

    /// The packet is dropped for a reason.
    pub(crate) fn drops(&mut self, frame: &[u8], event: Event) {
        let before = self.event(event);
        let outcome = self.run(frame);
        assert_eq!(outcome.action, DROP, "{event:?}, events: {:?}", self.events());
        assert_eq!(self.event(event), before + 1, "events: {:?}", self.events());
    }

    /// The packet leaves by `eth1`.
    pub(crate) fn redirects(&mut self, frame: &[u8]) -> Vec<u8> {
        let outcome = self.run(frame);
        assert_eq!(outcome.action, REDIRECT, "events: {:?}", self.events());
        outcome.frame
    }

    /// The packet leaves by `eth0`, where it came.
    pub(crate) fn sends_back(&mut self, frame: &[u8]) -> Vec<u8> {
        let outcome = self.run(frame);
        assert_eq!(outcome.action, TX, "events: {:?}", self.events());
        outcome.frame
    }

    /// All events that have happened.
    pub(crate) fn events(&self) -> Vec<(&'static str, u64)> {
        let counts = Event::ALL
            .iter()
            .map(|&event| (lb_l4_xdp::layout::EVENT_NAMES[event as usize], self.event(event)));
        counts.filter(|&(_, count)| count > 0).collect()
    }
}

/// A live backend.
pub(crate) fn backend_of(service: u32, text: &str, mode: Mode) -> Backend {
    let is_ipv6 = text.contains(':');
    Backend {
        address: address(text),
        outer_source: address(if is_ipv6 { "fd00:99::1" } else { "10.99.0.1" }),
        spread_mask: 0,
        generation: 1,
        standing: Standing::Live as u8,
        mode: mode as u8,
        is_ipv6: u8::from(is_ipv6),
        by_id: 0,
        port: match mode {
            Mode::Gue => 6080u16.to_be(),
            Mode::Nat => 8080u16.to_be(),
            Mode::Ipip | Mode::Link | Mode::Local => 0,
        },
        service: service as u16,
    }
}

/// The ring of backends of equal weights, as user space makes it.
pub(crate) fn ring_of(backends: &[u32]) -> Vec<u32> {
    let mut seats: Vec<Seat> =
        backends.iter().map(|&at| Seat { identity: hash::bytes(&at.to_le_bytes()), at, weight: 1 }).collect();
    seats.sort();
    let table = Maglev::new(&seats, RING_SLOTS);
    let mut slots = table.slots().to_vec();
    slots.resize(RING_SLOTS as usize, NO_BACKEND);
    slots
}

/// An address as programs have it.
pub(crate) fn address(text: &str) -> [u32; 4] {
    match text.parse().unwrap() {
        IpAddr::V4(address) => [words4(address.octets()), 0, 0, 0],
        IpAddr::V6(address) => words6(address.octets()),
    }
}

const SETUP: &str = "\
link set lo up
link add eth0 address 02:00:00:00:01:00 type veth peer name far0
link add eth1 address 02:00:00:00:01:01 type veth peer name far1
addr add 10.1.0.1/24 dev eth0
addr add 10.2.0.1/24 dev eth1
addr add fd00:1::1/64 dev eth0 nodad
addr add fd00:2::1/64 dev eth1 nodad
link set far0 up
link set far1 up
link set eth0 up
link set eth1 up
neigh replace 10.1.0.9 lladdr 02:00:00:00:00:09 nud permanent dev eth0
neigh replace fd00:1::9 lladdr 02:00:00:00:00:09 nud permanent dev eth0
neigh replace 10.1.0.21 lladdr 02:00:00:00:00:21 nud permanent dev eth0
neigh replace 10.2.0.11 lladdr 02:00:00:00:00:0b nud permanent dev eth1
neigh replace 10.2.0.12 lladdr 02:00:00:00:00:0c nud permanent dev eth1
neigh replace 10.2.0.13 lladdr 02:00:00:00:00:0d nud permanent dev eth1
neigh replace fd00:2::11 lladdr 02:00:00:00:00:11 nud permanent dev eth1
neigh replace fd00:2::12 lladdr 02:00:00:00:00:12 nud permanent dev eth1
route add default via 10.1.0.9 dev eth0
route add default via fd00:1::9 dev eth0
";

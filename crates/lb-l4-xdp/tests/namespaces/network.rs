//! A client, a gateway with four interfaces and three backends, each in a namespace of its own.
//!
//! ```text
//! client c0 ── eth0 gateway eth1 ── b1 backend 1     10.2.1.0/24, fd00:2:1::/64
//!                           eth2 ── b2 backend 2
//!                           eth3 ── b3 backend 3
//! ```

use std::net::IpAddr;

use aya::programs::XdpMode;
use lb_core::balance::{Maglev, Seat, hash};
use lb_l4_xdp::layout::{Backend, Event, LAYOUT_VERSION, Mode, RING_SLOTS, Service, Settings, Standing};
use lb_l4_xdp::{Capacity, Pins, Plane, XdpAttach, XdpAttached, XdpError, words4, words6};

use crate::hosts::{Host, forward, index_of, ip, join, mount_bpf, neighbour, pair, unshare, without_offload};

const BACKENDS: usize = 3;

pub(crate) struct Network {
    client: Host,
    _backends: Vec<Host>,
    plane: Option<Plane>,
    pins: Option<Pins>,
    services: u32,
    next: u32,
}

impl Network {
    /// Everything, with the programs on all interfaces of the gateway.
    pub(crate) fn new(mode: XdpMode, mtu: u32) -> Self {
        Self::make(mode, mtu, None)
    }

    /// The same, whose programs outlive the process: on a BPF file system of the calling thread.
    pub(crate) fn pinned(mode: XdpMode, mtu: u32) -> Self {
        let directory = std::env::temp_dir().join(format!("lb-xdp-{}-{mode:?}", std::process::id()));
        mount_bpf(&directory);
        Self::make(mode, mtu, Some(Pins::new(&directory.join("gateway")).unwrap()))
    }

    fn make(mode: XdpMode, mtu: u32, pins: Option<Pins>) -> Self {
        unshare();
        forward();
        let client = Host::new();
        let backends: Vec<Host> = (0..BACKENDS).map(|_| Host::new()).collect();
        let mut setup = String::from(
            "link set lo up\naddr add 10.2.0.1/32 dev lo\naddr add fd00:2::1/128 dev lo nodad\n",
        );
        let clients = ("10.1.0", "fd00:1:");
        setup += &pair(0, "c0", client.thread, clients, mtu);
        for (at, backend) in (1..).zip(&backends) {
            let (net4, net6) = nets(at);
            setup += &pair(at, "b0", backend.thread, (&net4, &net6), mtu);
            setup += &neighbour(at, (&net4, &net6), 11);
        }
        ip(&setup);
        let is_native = matches!(mode, XdpMode::Driver);
        client.run(move || join("c0", clients, 9, mtu, is_native));
        for (at, backend) in (1..).zip(&backends) {
            backend.run(move || {
                let (net4, net6) = nets(at);
                join("b0", (&net4, &net6), 11, mtu, is_native);
                ip("addr add 10.9.0.1/32 dev lo\naddr add fd00:9::1/128 dev lo nodad\n");
                crate::peers::serve(format!("backend{at}"));
            });
        }
        let mut plane = load(pins.as_ref());
        for name in INTERFACES {
            without_offload(name);
            plane.add_device(index_of(name)).unwrap();
            let attached = plane.attach(name, wanted(mode)).unwrap();
            assert_ne!(attached, XdpAttached::Replaced);
        }
        plane.set_settings(&SETTINGS).unwrap();
        Self { client, _backends: backends, plane: Some(plane), pins, services: 0, next: 0 }
    }

    fn plane(&mut self) -> &mut Plane {
        self.plane.as_mut().unwrap()
    }

    /// The process ends, and another one starts.
    pub(crate) fn restart(&mut self, mode: XdpMode) {
        self.plane = None;
        // Packets are forwarded meanwhile.
        self.client(|| crate::ask("10.9.0.1", 80));
        let mut plane = load(self.pins.as_ref());
        for name in INTERFACES {
            assert_eq!(plane.attach(name, wanted(mode)).unwrap(), XdpAttached::Replaced);
        }
        plane.settle().unwrap();
        self.plane = Some(plane);
    }

    /// What another process would get that wants the same tables, with room for so many flows over IPv4.
    pub(crate) fn load_beside(&self, flows4: u32) -> Result<Plane, XdpError> {
        Plane::load_pinned(Capacity { flows4, flows6: 65_536 }, self.pins.clone().unwrap())
    }

    pub(crate) fn set_layout_version(&mut self, layout_version: u32) {
        self.plane().set_settings(&Settings { layout_version, ..SETTINGS }).unwrap();
    }

    /// Takes the programs off all interfaces. Which they were.
    pub(crate) fn detach(&mut self) -> Vec<String> {
        self.plane = None;
        let mut names = self.pins.as_ref().unwrap().detach().unwrap();
        names.sort();
        names
    }

    /// Runs something at the client.
    pub(crate) fn client<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        self.client.run(job)
    }

    /// A service with the first of the backends; their port is 8080 with a translation.
    pub(crate) fn service(&mut self, vip: &str, port: u16, mode: Mode, backends: u32) -> (u32, Vec<u32>) {
        self.service_at(vip, port, mode, backends, 8080)
    }

    /// A service whose backends have another port.
    pub(crate) fn service_at(
        &mut self,
        vip: &str,
        port: u16,
        mode: Mode,
        backends: u32,
        backend_port: u16,
    ) -> (u32, Vec<u32>) {
        let service = self.services;
        self.services += 1;
        let is_ipv6 = vip.contains(':');
        self.plane()
            .set_service(
                service,
                &Service {
                    present: 1,
                    mode: mode as u8,
                    nat_port_first: 20_000,
                    nat_port_count: 40_000,
                    nat_source: address(if is_ipv6 { "fd00:2::1" } else { "10.2.0.1" }),
                    ..Service::default()
                },
            )
            .unwrap();
        let indices: Vec<u32> = (1..=backends)
            .map(|at| {
                let index = self.next;
                self.next += 1;
                let to = if is_ipv6 { format!("fd00:2:{at}::11") } else { format!("10.2.{at}.11") };
                let backend = Backend {
                    address: address(&to),
                    generation: 1,
                    standing: Standing::Live as u8,
                    mode: mode as u8,
                    is_ipv6: u8::from(is_ipv6),
                    port: backend_port.to_be(),
                    service: service as u16,
                    ..Backend::default()
                };
                self.plane().set_backend(index, &backend).unwrap();
                index
            })
            .collect();
        self.ring(service, &indices);
        let vip: IpAddr = vip.parse().unwrap();
        for protocol in [6, 17] {
            self.plane().set_vip(vip, protocol, port, service).unwrap();
        }
        (service, indices)
    }

    /// Gives a service the ring of backends of equal weights.
    pub(crate) fn ring(&mut self, service: u32, backends: &[u32]) {
        let seats =
            backends.iter().map(|&at| Seat { identity: hash::bytes(&at.to_le_bytes()), at, weight: 1 });
        let mut seats: Vec<Seat> = seats.collect();
        seats.sort();
        self.plane().set_ring(service, Maglev::new(&seats, RING_SLOTS).slots()).unwrap();
    }

    /// What has been dropped so far.
    pub(crate) fn dropped(&self) -> Vec<(&'static str, u64)> {
        let all = Event::ALL.iter().map(|&event| {
            (
                lb_l4_xdp::layout::EVENT_NAMES[event as usize],
                self.plane.as_ref().unwrap().event(event).unwrap(),
            )
        });
        all.filter(|&(name, count)| name.starts_with("drop") && count > 0).collect()
    }
}

/// The networks of a backend.
fn nets(at: u32) -> (String, String) {
    (format!("10.2.{at}"), format!("fd00:2:{at}:"))
}

fn load(pins: Option<&Pins>) -> Plane {
    let capacity = Capacity { flows4: 65_536, flows6: 65_536 };
    let plane = match pins {
        Some(pins) => Plane::load_pinned(capacity, pins.clone()),
        None => Plane::load(capacity),
    };
    plane.unwrap_or_else(|error| panic!("{error:?}"))
}

fn wanted(mode: XdpMode) -> XdpAttach {
    if matches!(mode, XdpMode::Driver) { XdpAttach::Native } else { XdpAttach::Skb }
}

const SETTINGS: Settings = Settings {
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

const INTERFACES: [&str; 4] = ["eth0", "eth1", "eth2", "eth3"];

fn address(text: &str) -> [u32; 4] {
    match text.parse().unwrap() {
        IpAddr::V4(address) => [words4(address.octets()), 0, 0, 0],
        IpAddr::V6(address) => words6(address.octets()),
    }
}

//! A client, a gateway with four interfaces and three backends, each in a namespace of its own.
//!
//! ```text
//! client c0 ── eth0 gateway eth1 ── b1 backend 1     10.2.1.0/24, fd00:2:1::/64
//!                           eth2 ── b2 backend 2
//!                           eth3 ── b3 backend 3
//! ```

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use aya::programs::XdpMode;
use lb_core::balance::{Maglev, Seat, hash};
use lb_l4_xdp::layout::{Backend, Event, LAYOUT_VERSION, Mode, RING_SLOTS, Service, Settings, Standing};
use lb_l4_xdp::{Capacity, Pins, Plane, XdpAttach, XdpAttached, XdpError, words4, words6};

/// How long a client waits before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const BACKENDS: usize = 3;

/// Whether this process may make namespaces and load programs, and there are programs.
pub(crate) fn is_able() -> bool {
    // SAFETY: the call has no arguments.
    #[expect(unsafe_code, reason = "there is no other way to ask")]
    let is_root = unsafe { libc::geteuid() } == 0;
    is_root && lb_l4_xdp::object().is_some()
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a namespace of its own.
struct Host {
    jobs: Sender<Job>,
    thread: i32,
}

impl Host {
    fn new() -> Self {
        let (jobs, orders) = channel::<Job>();
        let (said, heard) = channel();
        std::thread::spawn(move || {
            unshare();
            // SAFETY: the call has no arguments.
            #[expect(unsafe_code, reason = "the number of a thread is how ip(8) finds its namespace")]
            let thread = unsafe { libc::gettid() };
            said.send(thread).unwrap();
            while let Ok(job) = orders.recv() {
                job();
            }
        });
        Self { jobs, thread: heard.recv().unwrap() }
    }

    /// Runs something in the namespace.
    fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (said, heard) = channel();
        self.jobs.send(Box::new(move || _ = said.send(job()))).unwrap();
        heard.recv().expect("the job ends")
    }
}

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
        std::fs::create_dir_all(&directory).unwrap();
        // SAFETY: moves the calling thread into a namespace of mounts, and no other.
        #[expect(unsafe_code, reason = "there is no other way to make a namespace for one thread")]
        let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        let mount = |arguments: &[&str]| {
            assert!(Command::new("mount").args(arguments).status().unwrap().success());
        };
        mount(&["--make-rprivate", "/"]);
        mount(&["-t", "bpf", "bpf", directory.to_str().unwrap()]);
        Self::make(mode, mtu, Some(Pins::new(&directory.join("gateway")).unwrap()))
    }

    fn make(mode: XdpMode, mtu: u32, pins: Option<Pins>) -> Self {
        unshare();
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
        }
        let client = Host::new();
        let backends: Vec<Host> = (0..BACKENDS).map(|_| Host::new()).collect();
        let mut setup = String::from(
            "link set lo up\naddr add 10.2.0.1/32 dev lo\naddr add fd00:2::1/128 dev lo nodad\n",
        );
        setup += &pair(0, "c0", client.thread, "10.1.0", "fd00:1:", mtu);
        for (at, backend) in (1..).zip(&backends) {
            setup += &pair(at, "b0", backend.thread, &format!("10.2.{at}"), &format!("fd00:2:{at}:"), mtu);
        }
        ip(&setup);
        client.run(move || join("c0", "10.1.0", "fd00:1:", 9, mtu, mode));
        for (at, backend) in (1..).zip(&backends) {
            backend.run(move || {
                join("b0", &format!("10.2.{at}"), &format!("fd00:2:{at}:"), 11, mtu, mode);
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

/// The segments that the kernel has sent again on a connection.
pub(crate) fn retransmitted(stream: &std::net::TcpStream) -> u32 {
    // SAFETY: zeros are a value of the structure.
    #[expect(unsafe_code, reason = "there is no other way to ask")]
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than the length.
    #[expect(unsafe_code, reason = "there is no other way to ask")]
    let result = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(stream),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    info.tcpi_total_retrans
}

/// The commands that make the gateway's end of a pair, and give the other away.
fn pair(at: u32, far: &str, thread: i32, net4: &str, net6: &str, mtu: u32) -> String {
    format!(
        "link add eth{at} address 02:00:00:00:01:0{at} mtu {mtu} type veth peer name {far} address 02:00:00:00:02:0{at}\n\
         link set {far} netns {thread}\n\
         addr add {net4}.1/24 dev eth{at}\n\
         addr add {net6}:1/64 dev eth{at} nodad\n\
         link set eth{at} up\n\
         neigh replace {net4}.9 lladdr 02:00:00:00:02:0{at} nud permanent dev eth{at}\n\
         neigh replace {net4}.11 lladdr 02:00:00:00:02:0{at} nud permanent dev eth{at}\n\
         neigh replace {net6}:9 lladdr 02:00:00:00:02:0{at} nud permanent dev eth{at}\n\
         neigh replace {net6}:11 lladdr 02:00:00:00:02:0{at} nud permanent dev eth{at}\n"
    )
}

/// Sets the calling thread's end of a pair up.
fn join(name: &str, net4: &str, net6: &str, host: u32, mtu: u32, mode: XdpMode) {
    ip(&format!(
        "link set lo up\n\
         link set {name} mtu {mtu}\n\
         addr add {net4}.{host}/24 dev {name}\n\
         addr add {net6}:{host}/64 dev {name} nodad\n\
         link set {name} up\n\
         route add default via {net4}.1 dev {name}\n\
         route add default via {net6}:1 dev {name}\n"
    ));
    without_offload(name);
    if matches!(mode, XdpMode::Driver) {
        // A pair carries what its other end sends by XDP only if this end has a program too: one without settings passes everything.
        let mut plane = Plane::load(Capacity { flows4: 16, flows6: 16 }).unwrap();
        plane.entry().unwrap().attach(name, mode).unwrap();
        std::mem::forget(plane);
    }
}

/// Checksums are computed by whoever sends, as on a real wire: programs see packets before the kernel would complete them.
fn without_offload(name: &str) {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    // ETHTOOL_STXCSUM and ETHTOOL_STSO, ETHTOOL_SGSO of linux/ethtool.h.
    for command in [0x17, 0x1f, 0x24] {
        let mut value = Value { command, data: 0 };
        // SAFETY: zeros are a value of the structure.
        #[expect(unsafe_code, reason = "there is no other way to talk to the driver")]
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        // SAFETY: the request and the value that it points to live longer than the call.
        #[expect(unsafe_code, reason = "as above")]
        let result = unsafe {
            libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCETHTOOL as _, &raw mut request)
        };
        let error = std::io::Error::last_os_error();
        // An interface that has a program does not offer segmentation, and then it is off.
        let is_absent = command != 0x17 && error.raw_os_error() == Some(libc::EOPNOTSUPP);
        assert!(result == 0 || is_absent, "{command:x}: {error}");
    }
}

fn unshare() {
    // SAFETY: moves the calling thread into a namespace, and no other.
    #[expect(unsafe_code, reason = "there is no other way to make a namespace for one thread")]
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Changes the namespace of the calling thread by commands of ip(8).
fn ip(commands: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2");
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{commands}");
}

fn index_of(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name ends with a zero.
    #[expect(unsafe_code, reason = "/sys shows another namespace")]
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0);
    index
}

fn address(text: &str) -> [u32; 4] {
    match text.parse().unwrap() {
        IpAddr::V4(address) => [words4(address.octets()), 0, 0, 0],
        IpAddr::V6(address) => words6(address.octets()),
    }
}

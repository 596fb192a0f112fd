//! A client, the gateway's binary and three backends, each in a network namespace of its own.
//!
//! ```text
//! client c0 ── eth0 gateway eth1 ── b0 backend 1     10.2.1.0/24, fd00:2:1::/64
//!                           eth2 ── b0 backend 2
//!                           eth3 ── b0 backend 3
//! ```

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use lb_l4_xdp::{Capacity, Plane, XdpAttach};
use testkit::metrics::Metrics;
use testkit::process::{Process, SIGHUP, SIGTERM};
use testkit::seconds;

/// How long a client waits before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const BACKENDS: usize = 3;

/// The SHA-256 of `token`.
const TOKEN: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

/// Where a BPF file system of this process is mounted.
static BPF: OnceLock<PathBuf> = OnceLock::new();

/// Whether this process may make namespaces and load programs, and there are programs.
pub(crate) fn is_able() -> bool {
    // SAFETY: the call has no arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    is_root && lb_l4_xdp::object().is_some()
}

/// Mounts a BPF file system for this process and what it starts. To be called before any thread is started.
pub(crate) fn mount() {
    let directory = std::env::temp_dir().join(format!("expressgateway-bpf-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    // SAFETY: moves the calling thread, which is the only one, into a namespace of mounts.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    for arguments in [vec!["--make-rprivate", "/"], vec!["-t", "bpf", "bpf", directory.to_str().unwrap()]] {
        assert!(Command::new("mount").args(arguments).status().unwrap().success());
    }
    BPF.set(directory).unwrap();
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
pub(crate) struct Host {
    jobs: Sender<Job>,
    thread: i32,
}

impl Host {
    fn new() -> Self {
        let (jobs, orders) = channel::<Job>();
        let (said, heard) = channel();
        std::thread::spawn(move || {
            // SAFETY: moves the calling thread into a namespace, and no other.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            // SAFETY: the call has no arguments.
            said.send(unsafe { libc::gettid() }).unwrap();
            while let Ok(job) = orders.recv() {
                job();
            }
        });
        Self { jobs, thread: heard.recv().unwrap() }
    }

    /// Runs something in the namespace.
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (said, heard) = channel();
        self.jobs.send(Box::new(move || _ = said.send(job()))).unwrap();
        heard.recv().expect("the job ends")
    }

    /// Has a command run in the namespace.
    pub(crate) fn enter(&self, command: &mut Command) {
        let namespace = std::fs::File::open(format!("/proc/self/task/{}/ns/net", self.thread)).unwrap();
        // SAFETY: setns is a bare system call, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    }
}

/// The namespaces, and the gateway if it runs.
pub(crate) struct Network {
    pub(crate) client: Host,
    pub(crate) gateway: Host,
    pub(crate) backends: Vec<Host>,
    pub(crate) process: Option<Process>,
    directory: tempfile::TempDir,
    mode: &'static str,
    pins: PathBuf,
}

impl Network {
    /// Everything but the gateway's process. `mode` is that of `xdp_mode`.
    pub(crate) fn new(mode: &'static str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let pins = BPF.get().unwrap().join(format!("gateway{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let (client, gateway) = (Host::new(), Host::new());
        let backends: Vec<Host> = (0..BACKENDS).map(|_| Host::new()).collect();
        let mut setup = String::from(
            "link set lo up\naddr add 10.2.0.1/32 dev lo\naddr add fd00:2::1/128 dev lo nodad\n",
        );
        setup += &pair(0, "c0", client.thread, "10.1.0", "fd00:1:");
        for (at, backend) in (1..).zip(&backends) {
            setup += &pair(at, "b0", backend.thread, &format!("10.2.{at}"), &format!("fd00:2:{at}:"));
        }
        gateway.run(move || {
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
            }
            ip(&setup);
            ["eth0", "eth1", "eth2", "eth3"].into_iter().for_each(without_offload);
        });
        client.run(move || join("c0", "10.1.0", "fd00:1:", 9, mode));
        for (at, backend) in (1..).zip(&backends) {
            backend.run(move || {
                join("b0", &format!("10.2.{at}"), &format!("fd00:2:{at}:"), 11, mode);
                ip("addr add 10.9.0.1/32 dev lo\naddr add fd00:9::1/128 dev lo nodad\n");
                crate::peers::serve(format!("backend{at}"));
            });
        }
        let directory = tempfile::tempdir().unwrap();
        Self { client, gateway, backends, process: None, directory, mode, pins }
    }

    /// The file of a gateway with these lines besides.
    pub(crate) fn config(&self, lines: &str) -> String {
        self.config_on("eth0", lines)
    }

    pub(crate) fn config_on(&self, interface: &str, lines: &str) -> String {
        format!(
            "[runtime]\nworkers = 1\nreadiness_settle_ms = 0\nxdp_enabled = true\nxdp_interface = \"{interface}\"\nxdp_mode = \"{}\"\n\
             [xdp]\npin_dir = \"{}\"\ninterfaces = [\"eth1\", \"eth2\", \"eth3\"]\nmax_flows_v4 = 16384\nmax_flows_v6 = 16384\n\
             source_v4 = \"10.2.0.1\"\nsource_v6 = \"fd00:2::1\"\n{lines}\n[admin]\napi_token_hash = \"{TOKEN}\"\n",
            self.mode,
            self.pins.display()
        )
    }

    /// Writes the file and starts the gateway, without waiting for anything.
    pub(crate) fn launch(&mut self, config: &str) {
        self.launch_with(config, |_| ());
    }

    /// The same, of a command that has been made ready.
    pub(crate) fn launch_with(&mut self, config: &str, prepare: impl FnOnce(&mut Command)) {
        std::fs::write(self.file(), config).unwrap();
        let mut command = Command::new(testkit::gateway::binary());
        command.arg(self.file()).current_dir(self.directory.path()).env_remove("RUST_LOG");
        self.gateway.enter(&mut command);
        prepare(&mut command);
        self.process = Some(Process::spawn(command));
    }

    /// The same, and waits until it serves.
    pub(crate) fn start(&mut self, config: &str) {
        self.start_with(config, |_| ());
    }

    /// The same, of a command that has been made ready.
    pub(crate) fn start_with(&mut self, config: &str, prepare: impl FnOnce(&mut Command)) {
        self.launch_with(config, prepare);
        let ready = testkit::poll(seconds(40), || {
            let exit = self.process.as_mut().unwrap().exit();
            assert_eq!(exit, None, "{}", self.process.as_ref().unwrap().tail(40));
            (self.admin("/readyz").map(|(status, _)| status) == Some(200)).then_some(())
        });
        assert!(ready.is_some(), "{}", self.process.as_ref().unwrap().tail(40));
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("lb.toml")
    }

    /// Where everything is pinned.
    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    /// SIGHUP with another file; the line that tells how it ended.
    pub(crate) fn reload(&mut self, config: &str) -> String {
        std::fs::write(self.file(), config).unwrap();
        let process = self.process.as_ref().unwrap();
        let told = |process: &Process| {
            let lines = process.tail(10_000);
            let is_end = |line: &&str| {
                line.contains("config reload pass complete") || line.contains("config reload rejected")
            };
            let lines: Vec<String> = lines.lines().filter(is_end).map(str::to_owned).collect();
            lines
        };
        let before = told(process).len();
        process.signal(SIGHUP);
        testkit::poll(seconds(20), || told(process).get(before).cloned()).expect("the reload ends")
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        let mut process = self.process.take().unwrap();
        process.signal(SIGTERM);
        let code = process.wait_exit(seconds(20));
        code.unwrap_or_else(|| panic!("{}", process.tail(40)))
    }

    /// GET of the admin port: status and body.
    pub(crate) fn admin(&self, target: &str) -> Option<(u16, String)> {
        self.request("GET", target)
    }

    /// A request to the admin port.
    pub(crate) fn request(&self, method: &str, target: &str) -> Option<(u16, String)> {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer token\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        self.gateway.run(move || {
            let mut stream = TcpStream::connect("127.0.0.1:9090").ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.write_all(head.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
        })
    }

    /// The sum of a metric, once it is as wanted: counts are read every second.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) -> f64 {
        let mut last = 0.0;
        let found = testkit::poll(seconds(10), || {
            last = Metrics::parse(&self.admin("/metrics")?.1).sum(name, labels);
            wanted(last).then_some(last)
        });
        found.unwrap_or_else(|| panic!("{name}{labels:?} is {last}"))
    }

    /// Asks the service of new flows until the answers are from these backends alone, all of which answer.
    pub(crate) fn until_served_by(&self, port: u16, expected: &[&str]) {
        let found = testkit::poll(seconds(20), || {
            let seen: std::collections::BTreeSet<String> =
                self.client.run(move || (0..30).filter_map(|_| ask("10.9.0.1", port).ok()).collect());
            seen.iter().map(String::as_str).eq(expected.iter().copied()).then_some(())
        });
        assert!(
            found.is_some(),
            "not served by {expected:?} alone: {}",
            self.process.as_ref().unwrap().tail(30)
        );
    }
}

/// A request and its answer, over a connection of its own: the answer names the backend.
pub(crate) fn ask(vip: &str, port: u16) -> std::io::Result<String> {
    let address = std::net::SocketAddr::new(vip.parse().unwrap(), port);
    exchange(&mut connect(address, Duration::from_secs(3))?)
}

pub(crate) fn connect(address: std::net::SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A request and its answer, over a connection that stays.
pub(crate) fn exchange(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"who?")?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

pub(crate) fn ask_udp(vip: &str, port: u16) -> std::io::Result<String> {
    let socket = UdpSocket::bind(if vip.contains(':') { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect((vip, port))?;
    socket.send(b"who?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// The commands that make the gateway's end of a pair, and give the other away. The kernel knows clients' MAC addresses, and has to be brought to
/// look for those of backends.
fn pair(at: u32, far: &str, thread: i32, net4: &str, net6: &str) -> String {
    format!(
        "link add eth{at} address 02:00:00:00:01:0{at} type veth peer name {far} address 02:00:00:00:02:0{at}\n\
         link set {far} netns {thread}\n\
         addr add {net4}.1/24 dev eth{at}\n\
         addr add {net6}:1/64 dev eth{at} nodad\n\
         link set eth{at} up\n\
         neigh replace {net4}.9 lladdr 02:00:00:00:02:0{at} nud permanent dev eth{at}\n\
         neigh replace {net6}:9 lladdr 02:00:00:00:02:0{at} nud permanent dev eth{at}\n"
    )
}

/// Sets the calling thread's end of a pair up.
fn join(name: &str, net4: &str, net6: &str, host: u32, mode: &str) {
    ip(&format!(
        "link set lo up\n\
         addr add {net4}.{host}/24 dev {name}\n\
         addr add {net6}:{host}/64 dev {name} nodad\n\
         link set {name} up\n\
         route add default via {net4}.1 dev {name}\n\
         route add default via {net6}:1 dev {name}\n"
    ));
    without_offload(name);
    if mode != "skb" {
        // A pair carries what its other end sends by XDP only if this end has a program too: one without settings passes everything.
        let mut plane = Plane::load(Capacity { flows4: 16, flows6: 16 }).unwrap();
        plane.attach(name, XdpAttach::Native).unwrap();
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
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // SAFETY: the request and the value that it points to live longer than the call.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        let error = std::io::Error::last_os_error();
        let is_absent = command != 0x17 && error.raw_os_error() == Some(libc::EOPNOTSUPP);
        assert!(result == 0 || is_absent, "{command:x}: {error}");
    }
}

/// Changes the namespace of the calling thread by commands of ip(8).
pub(crate) fn ip(commands: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2");
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{commands}");
}

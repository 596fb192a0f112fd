//! A client, the gateway's binary and three backends, each in a network namespace of its own.
//!
//! ```text
//! client c0 ── eth0 gateway eth1 ── b0 backend 1     10.2.1.0/24, fd00:2:1::/64
//!                           eth2 ── b0 backend 2
//!                           eth3 ── b0 backend 3
//! ```

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::metrics::Metrics;
use testkit::process::{Process, SIGHUP, SIGTERM};
use testkit::seconds;

pub(crate) use crate::hosts::{Host, PATIENCE, ip};
use crate::hosts::{forward, join, mount_bpf, pair, without_offload};

const BACKENDS: usize = 3;

const MTU: u32 = 1500;

/// The SHA-256 of `token`.
const TOKEN: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

/// Where a BPF file system of this process is mounted.
static BPF: OnceLock<PathBuf> = OnceLock::new();

/// Mounts a BPF file system for this process and what it starts. To be called before any thread is started.
pub(crate) fn mount() {
    let directory = std::env::temp_dir().join(format!("expressgateway-bpf-{}", std::process::id()));
    mount_bpf(&directory);
    BPF.set(directory).unwrap();
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
        let clients = ("10.1.0", "fd00:1:");
        setup += &pair(0, "c0", client.thread, clients, MTU);
        for (at, backend) in (1..).zip(&backends) {
            let (net4, net6) = nets(at);
            // The kernel knows clients' MAC addresses, and has to be brought to look for those of backends.
            setup += &pair(at, "b0", backend.thread, (&net4, &net6), MTU);
        }
        gateway.run(move || {
            forward();
            ip(&setup);
            ["eth0", "eth1", "eth2", "eth3"].into_iter().for_each(without_offload);
        });
        let is_native = mode != "skb";
        client.run(move || join("c0", clients, 9, MTU, is_native));
        for (at, backend) in (1..).zip(&backends) {
            backend.run(move || {
                let (net4, net6) = nets(at);
                join("b0", (&net4, &net6), 11, MTU, is_native);
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
        request(&self.gateway, method, target)
    }

    /// What `check` says of a file, and its exit code.
    pub(crate) fn check(&self, config: &str) -> (i32, String) {
        let file = self.directory.path().join("checked.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(testkit::gateway::binary());
        command.arg("check").arg(&file);
        self.gateway.enter(&mut command);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
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

/// A request to the admin port of a gateway: status and body.
pub(crate) fn request(host: &Host, method: &str, target: &str) -> Option<(u16, String)> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer token\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    host.run(move || {
        let mut stream = TcpStream::connect("127.0.0.1:9090").ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    })
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

/// The networks of a backend.
fn nets(at: u32) -> (String, String) {
    (format!("10.2.{at}"), format!("fd00:2:{at}:"))
}

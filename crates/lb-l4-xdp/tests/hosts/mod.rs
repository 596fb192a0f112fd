//! Hosts of a test: threads in network namespaces of their own, joined by veth pairs.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use lb_l4_xdp::{Capacity, Plane, XdpAttach};

/// How long a client waits before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this process may make namespaces and load programs, and there are programs.
pub(crate) fn is_able() -> bool {
    // SAFETY: the call has no arguments.
    #[expect(unsafe_code, reason = "there is no other way to ask")]
    let is_root = unsafe { libc::geteuid() } == 0;
    is_root && lb_l4_xdp::object().is_some()
}

/// Moves the calling thread, which the caller has for itself, into a network namespace.
pub(crate) fn unshare() {
    // SAFETY: moves the calling thread into a namespace, and no other.
    #[expect(unsafe_code, reason = "there is no other way to make a namespace for one thread")]
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Moves the calling thread into a namespace of mounts, and mounts a BPF file system there.
pub(crate) fn mount_bpf(directory: &std::path::Path) {
    std::fs::create_dir_all(directory).unwrap();
    // SAFETY: as above.
    #[expect(unsafe_code, reason = "there is no other way to make a namespace for one thread")]
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    for arguments in [vec!["--make-rprivate", "/"], vec!["-t", "bpf", "bpf", directory.to_str().unwrap()]] {
        assert!(Command::new("mount").args(arguments).status().unwrap().success());
    }
}

/// Has the namespace of the calling thread forward.
pub(crate) fn forward() {
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"] {
        // Of the namespace of the thread that opens it.
        std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
pub(crate) struct Host {
    jobs: Sender<Job>,
    /// Its number, by which ip(8) finds the namespace.
    pub(crate) thread: i32,
}

impl Host {
    pub(crate) fn new() -> Self {
        let (jobs, orders) = channel::<Job>();
        let (said, heard) = channel();
        std::thread::spawn(move || {
            unshare();
            // SAFETY: the call has no arguments.
            #[expect(unsafe_code, reason = "std does not tell the number of a thread")]
            let thread = unsafe { libc::gettid() };
            said.send(thread).unwrap();
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
        #[expect(unsafe_code, reason = "there is no other way to choose the namespace of a process")]
        unsafe {
            command.pre_exec(move || match libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    }
}

/// The commands that make the gateway's end of pair number `at`, and give the other to a thread. The gateway's MAC addresses end with 1 and the number, those
/// of the other ends with 2 and the number.
pub(crate) fn pair(at: u32, far: &str, thread: i32, (net4, net6): (&str, &str), mtu: u32) -> String {
    format!(
        "link add eth{at} address 02:00:00:00:01:0{at} mtu {mtu} type veth peer name {far} address 02:00:00:00:02:0{at}\n\
         link set {far} netns {thread}\n\
         addr add {net4}.1/24 dev eth{at}\n\
         addr add {net6}:1/64 dev eth{at} nodad\n\
         link set eth{at} up\n{}",
        neighbour(at, (net4, net6), 9)
    )
}

/// The commands that tell the gateway where a host of pair number `at` is.
pub(crate) fn neighbour(at: u32, (net4, net6): (&str, &str), host: u32) -> String {
    format!(
        "neigh replace {net4}.{host} lladdr 02:00:00:00:02:0{at} nud permanent dev eth{at}\n\
         neigh replace {net6}:{host} lladdr 02:00:00:00:02:0{at} nud permanent dev eth{at}\n"
    )
}

/// Sets the calling thread's end of a pair up.
pub(crate) fn join(name: &str, (net4, net6): (&str, &str), host: u32, mtu: u32, is_native: bool) {
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
    if is_native {
        // A pair carries what its other end sends by XDP only if this end has a program too: one without settings passes everything.
        let mut plane = Plane::load(Capacity { flows4: 16, flows6: 16 }).unwrap();
        plane.attach(name, XdpAttach::Native).unwrap();
        std::mem::forget(plane);
    }
}

/// Checksums are computed by whoever sends, as on a real wire: programs see packets before the kernel would complete them.
pub(crate) fn without_offload(name: &str) {
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
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        let error = std::io::Error::last_os_error();
        // An interface that has a program does not offer segmentation, and then it is off.
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

/// The index of an interface in the namespace of the calling thread.
pub(crate) fn index_of(name: &str) -> u32 {
    lb_l4_xdp::interface_index(name).unwrap()
}

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
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    info.tcpi_total_retrans
}

//! Programs from outside that tests talk to: nginx as a real server, curl as a real client.

use crate::io::Driver;
use crate::process::{Finished, Process, run};
use crate::{poll, seconds};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What a test needs of the machine: a program, mostly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The web server.
    Nginx,
    /// The load balancer.
    Haproxy,
    /// The client.
    Curl,
    /// The load generator of nghttp2.
    H2load,
    /// The TLS client and server, and the maker of certificates.
    Openssl,
    /// Python with the packages that the programs in `tests/peers` use.
    Peers,
    /// The Autobahn suite's runner.
    Wstest,
    /// Makes network devices usable (iproute2).
    Ip,
    /// Runs a program in a network namespace of its own.
    Unshare,
    /// The HTTP/2 client of nghttp2.
    Nghttp,
    /// The HTTP/2 server of nghttp2.
    Nghttpd,
    /// The conformance suite for HTTP/2.
    H2spec,
    /// The package manager of Debian, and what makes its packages.
    Dpkg,
    /// The checker of rules that comes with Prometheus.
    Promtool,
    /// The rights of root, which are no program.
    Root,
    /// The browser.
    Chromium,
    /// The address `::1`, which is no program.
    Ipv6,
    /// As many descriptors as ten thousand connections and their peers take.
    Descriptors,
    /// What the gateway's driver of that name needs.
    IoUring,
    /// File systems that hang ([`crate::hung`]), no program either.
    HungFiles,
    /// System calls that a test may let fail ([`crate::calls`]).
    WatchedCalls,
}

impl Tool {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Nginx => "nginx",
            Tool::Haproxy => "haproxy",
            Tool::Curl => "curl",
            Tool::H2load => "h2load",
            Tool::Openssl => "openssl",
            Tool::Peers => "environment for tests/peers (scripts/setup.sh --tests makes it)",
            Tool::Wstest => "wstest (scripts/setup.sh --autobahn installs it)",
            Tool::Ip => "ip",
            Tool::Unshare => "unshare",
            Tool::Nghttp => "nghttp",
            Tool::Nghttpd => "nghttpd",
            Tool::H2spec => "h2spec",
            Tool::Dpkg => "dpkg",
            Tool::Promtool => "promtool",
            Tool::Root => "root",
            Tool::Chromium => "chromium",
            Tool::Ipv6 => "IPv6 on its loopback",
            Tool::Descriptors => "11,000 descriptors for a process (ulimit -Hn)",
            Tool::IoUring => "io_uring",
            Tool::HungFiles => "way to mount with /dev/fuse (it takes root)",
            Tool::WatchedCalls => "seccomp user notification",
        }
    }

    /// Whether this machine has it.
    pub fn is_there(self) -> bool {
        match self {
            Tool::Root => is_root(),
            Tool::Ipv6 => TcpListener::bind("[::1]:0").is_ok(),
            Tool::Descriptors => crate::harness::descriptors() >= 11_000,
            Tool::IoUring => Driver::IoUring.is_offered(),
            Tool::HungFiles => crate::hung::HungFile::is_possible(),
            Tool::WatchedCalls => crate::calls::are_possible(),
            _ => self.path().is_some(),
        }
    }

    /// Where the program is installed, if it is.
    pub fn path(self) -> Option<PathBuf> {
        match self {
            Tool::Peers => return crate::peers::python(),
            Tool::Wstest => return crate::peers::wstest(),
            Tool::Promtool => return crate::peers::promtool(),
            _ => {}
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let directories = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
        directories.map(|dir| Path::new(dir).join(self.name())).find(|file| file.is_file())
    }
}

/// A running nginx, killed when dropped.
#[derive(Debug)]
pub struct Nginx {
    /// Where it listens.
    pub address: SocketAddr,
    /// The directory that it serves.
    pub root: PathBuf,
    _process: Process,
    _dir: TempDir,
}

impl Nginx {
    /// Serves files from `root`, which the test fills.
    pub fn files() -> Nginx {
        Nginx::start("location / { }")
    }

    /// Passes everything on to `backend` over HTTP/1.1, streaming.
    pub fn proxy(backend: SocketAddr) -> Nginx {
        Nginx::start(&format!(
            "location / {{ proxy_pass http://{backend}; proxy_http_version 1.1; proxy_buffering off;
               proxy_request_buffering off; proxy_set_header Connection ''; client_max_body_size 0; }}"
        ))
    }

    /// Starts with these directives in the server block.
    pub fn start(server: &str) -> Nginx {
        Nginx::start_at(crate::ports::reserve(), "", server)
    }

    /// Starts with HTTP/2 by prior knowledge instead of HTTP/1.1, and these directives in the server block.
    pub fn h2c(server: &str) -> Nginx {
        Nginx::start_at(crate::ports::reserve(), "http2", server)
    }

    /// Starts inside TLS, with HTTP/2 for those who choose it by ALPN if `http2`, and these directives in the server block. The files
    /// are `<name>.pem` and `<name>.key` in `directory`.
    pub fn tls(directory: &Path, name: &str, http2: bool, server: &str) -> Nginx {
        let directory = directory.display();
        let files =
            format!("ssl_certificate {directory}/{name}.pem; ssl_certificate_key {directory}/{name}.key;");
        let listen = if http2 { "ssl http2" } else { "ssl" };
        Nginx::start_at(crate::ports::reserve(), listen, &format!("{files} {server}"))
    }

    /// Starts with this behind the address that it listens at, and these directives in the server block.
    pub fn listening(listen: &str, server: &str) -> Nginx {
        Nginx::start_at(crate::ports::reserve(), listen, server)
    }

    fn start_at(address: SocketAddr, listen: &str, server: &str) -> Nginx {
        let dir = tempfile::Builder::new().prefix("testkit-nginx-").tempdir().unwrap();
        let base = dir.path().display();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let user = if std::fs::metadata("/root").is_ok_and(|_| is_root()) { "user root;" } else { "" };
        let config = format!(
            "{user} daemon off; master_process off; pid {base}/pid; error_log {base}/error.log;
             events {{ worker_connections 4096; }}
             http {{
               access_log off; keepalive_requests 100000;
               client_body_temp_path {base}/body; proxy_temp_path {base}/proxy;
               fastcgi_temp_path {base}/fastcgi; uwsgi_temp_path {base}/uwsgi; scgi_temp_path {base}/scgi;
               server {{ listen {address} {listen}; root {base}/root; {server} }}
             }}"
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(Tool::Nginx.path().expect("nginx"));
        command.arg("-c").arg(&file).arg("-e").arg(dir.path().join("error.log"));
        let process = Process::spawn(command);
        let up = poll(seconds(10), || TcpStream::connect(address).ok());
        assert!(up.is_some(), "nginx does not start: {}", process.tail(20));
        Nginx { address, root, _process: process, _dir: dir }
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A running nghttpd that speaks HTTP/2 by prior knowledge, killed when dropped.
#[derive(Debug)]
pub struct Nghttpd {
    /// Where it listens.
    pub address: SocketAddr,
    /// The directory that it serves.
    pub root: PathBuf,
    _process: Process,
    _dir: TempDir,
}

impl Nghttpd {
    /// Serves files from `root`, which the test fills, with more arguments.
    pub fn start(extra: &[&str]) -> Nghttpd {
        let address = crate::ports::reserve();
        let dir = tempfile::Builder::new().prefix("testkit-nghttpd-").tempdir().unwrap();
        let root = dir.path().to_path_buf();
        let mut command = Command::new(Tool::Nghttpd.path().expect("nghttpd"));
        command.args(["--no-tls", "--address=127.0.0.1"]).arg(format!("--htdocs={}", root.display()));
        command.args(extra).arg(address.port().to_string());
        let process = Process::spawn(command);
        let up = poll(seconds(10), || TcpStream::connect(address).ok());
        assert!(up.is_some(), "nghttpd does not start: {}", process.tail(20));
        Nghttpd { address, root, _process: process, _dir: dir }
    }
}

/// Runs curl, silent but for errors, without any configuration file.
pub fn curl(args: &[&str]) -> Finished {
    let all = ["-q", "-sS", "--max-time", "60"].iter().chain(args);
    run(Tool::Curl.path().expect("curl"), all, seconds(70))
}

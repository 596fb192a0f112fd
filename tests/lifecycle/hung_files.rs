//! Files on file systems that do not answer: what runs goes on, and the order to stop is heard.

use std::path::Path;

use testkit::certificates::Authority;
use testkit::hung::HungFile;
use testkit::process::{SIGHUP, SIGTERM, SIGUSR1};
use testkit::{Backend, Config, Gateway, Listener, eventually, seconds};

/// Everything that may be read again while the gateway runs, in files of its own.
struct Rig {
    files: tempfile::TempDir,
    backend: Backend,
}

impl Rig {
    fn new() -> Self {
        let (authority, files) = (Authority::new("test authority"), tempfile::tempdir().unwrap());
        authority.server(&["server.test"]).write(files.path(), "s");
        std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
        Self { files, backend: Backend::standard("one") }
    }

    fn gateway(&self) -> Gateway {
        Gateway::start(self.config())
    }

    fn config(&self) -> Config {
        let (dir, backend) = (self.files.path().display(), self.backend.address);
        // One that is found is inside TLS, and used when all others are gone.
        let list = format!(
            "[[backends]]\naddress = \"127.0.0.1:9\"\nprotocol = \"h1\"\npriority = 1\n\
             tls = true\ntls_verify_hostname = \"server.test\"\ntls_ca_path = \"{dir}/ca.pem\"\n"
        );
        std::fs::write(self.files.path().join("list.toml"), list).unwrap();
        let plain = Listener::h1().key("pool", "p").text(&format!(
            "[[pools.p.backends]]\naddress = \"{backend}\"\n\
             [pools.p.discovery]\nfile = \"{dir}/list.toml\"\nrefresh_ms = 3600000\n"
        ));
        let tls = Listener::tls(self.files.path(), "s").backend(backend);
        Config::new().listener(plain).listener(tls)
    }
}

/// Hangs a file, sends a signal upon which it is read, and stops the gateway while it waits.
#[track_caller]
fn stops_while_it_reads(gateway: &mut Gateway, path: &Path, signal: i32) {
    let hung = HungFile::over(path).unwrap();
    gateway.process.signal(signal);
    let process = &gateway.process;
    eventually(&format!("{} is being read", path.display()), seconds(10), || process.waits_for_files());
    assert_eq!(gateway.get("/").text(), "one", "{}", path.display());
    gateway.process.signal(SIGTERM);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0), "{}", path.display());
    drop(hung);
}

pub(crate) fn certificates_that_hang_do_not_keep_the_gateway_from_stopping() {
    let rig = Rig::new();
    for name in ["s.pem", "ca.pem"] {
        stops_while_it_reads(&mut rig.gateway(), &rig.files.path().join(name), SIGUSR1);
    }
}

pub(crate) fn a_start_that_waits_for_a_file_or_a_name_ends_when_told_to() {
    let rig = Rig::new();
    let started = |gateway: &mut Gateway| {
        let ready = gateway.process.stderr.wait("accept-loop guards configured", seconds(10));
        assert!(ready.is_some(), "the start has begun");
    };
    for name in ["s.pem", "ca.pem", "list.toml"] {
        let config = rig.config();
        let hung = HungFile::over(&rig.files.path().join(name)).unwrap();
        let mut gateway = Gateway::launch(config);
        started(&mut gateway);
        let process = &gateway.process;
        eventually(&format!("{name} is being read"), seconds(10), || process.waits_for_files());
        gateway.process.signal(SIGTERM);
        assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0), "{name}");
        drop(hung);
    }
    // Nobody answers there.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = Config::new()
        .block("dns", "servers", vec![silent.local_addr().unwrap().to_string()])
        .block("dns", "timeout_ms", 10_000)
        .listener(Listener::h1().backend("silent.test:80"));
    let mut gateway = Gateway::launch(config);
    started(&mut gateway);
    silent.recv(&mut [0; 512]).unwrap();
    gateway.process.signal(SIGTERM);
    assert_eq!(gateway.process.wait_exit(seconds(5)), Some(0));
}

pub(crate) fn a_configuration_that_hangs_does_not_keep_the_gateway_from_stopping() {
    let rig = Rig::new();
    let mut gateway = rig.gateway();
    let path = gateway.dir().join("lb.toml");
    stops_while_it_reads(&mut gateway, &path, SIGHUP);
}

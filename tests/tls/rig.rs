//! An authority, a directory of files, and a gateway that uses them.

use std::path::PathBuf;

use tempfile::TempDir;
use testkit::certificates::Authority;
use testkit::process::SIGUSR1;
use testkit::tls::TlsClient;
use testkit::{Backend, Config, Gateway, Listener, seconds};

/// Certificates for `server.test`, and an echo behind the gateway.
pub(crate) struct Rig {
    pub(crate) authority: Authority,
    pub(crate) files: TempDir,
    pub(crate) backend: Backend,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        let (authority, files) = (Authority::new("test authority"), tempfile::tempdir().unwrap());
        authority.server(&["server.test"]).write(files.path(), "s");
        std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
        Rig { authority, files, backend: Backend::tcp_echo() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A listener; `DIR` in `lines` is the directory of files.
    pub(crate) fn listener(&self, lines: &str) -> Listener {
        Listener::tls(self.files.path(), "s")
            .text(&lines.replace("DIR", &self.files.path().display().to_string()))
            .backend(self.backend.address)
    }

    pub(crate) fn config(&self, lines: &str) -> Config {
        Config::new().listener(self.listener(lines))
    }

    #[track_caller]
    pub(crate) fn gateway(&self, lines: &str) -> Gateway {
        Gateway::start(self.config(lines))
    }

    pub(crate) fn client(&self) -> TlsClient {
        TlsClient::new(&self.authority, None)
    }
}

/// Sends SIGUSR1 and returns the line that ends the pass.
#[track_caller]
pub(crate) fn renew(gateway: &Gateway) -> String {
    let from = gateway.process.stderr.len();
    gateway.process.signal(SIGUSR1);
    let line = gateway
        .process
        .stderr
        .wait_from(from, seconds(10), |line| line.contains("cert reload pass complete"));
    line.expect("the pass ends")
}

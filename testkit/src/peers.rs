//! Real protocol libraries as peers: the Python programs in `tests/peers`.
//!
//! A server runs until it is dropped and tells on its stdout what happens to it, a line of JSON each. A client runs one scenario to
//! its end, and its last line of JSON is what it saw.

use crate::process::{Process, run, run_command};
use crate::seconds;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The Python of the environment that `scripts/setup.sh --tests` makes, if it is there and up to date.
pub fn python() -> Option<PathBuf> {
    let home = cache()?.join("test-peers");
    let installed = std::fs::read(home.join("requirements.txt")).ok()?;
    let wanted = std::fs::read(scripts().join("requirements.txt")).ok()?;
    Some(home.join("bin/python")).filter(|python| installed == wanted && python.is_file())
}

/// The runner of the Autobahn suite that `scripts/setup.sh --autobahn` installs, if it is there.
pub fn wstest() -> Option<PathBuf> {
    Some(cache()?.join("autobahn/bin/wstest")).filter(|program| program.is_file())
}

/// The checker of rules that comes with Prometheus: that of the system, or the one that `scripts/setup.sh --tests` unpacks.
pub fn promtool() -> Option<PathBuf> {
    let unpacked = cache()?.join("prometheus/usr/bin/promtool");
    [PathBuf::from("/usr/bin/promtool"), unpacked].into_iter().find(|program| program.is_file())
}

/// Where `scripts/setup.sh` installs what the system has no packages for.
fn cache() -> Option<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    Some(cache.join("expressgateway"))
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers")
}

fn command(script: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(python().expect("the environment for tests/peers"));
    command.arg(scripts().join(script)).arg(address.to_string());
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUNBUFFERED", "1");
    // Peers connect to the gateway directly.
    for variable in ["http_proxy", "https_proxy", "grpc_proxy", "all_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    command
}

/// A running server, stopped when dropped.
#[derive(Debug)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
}

impl Peer {
    /// Starts a server on a free port and waits until it listens.
    #[track_caller]
    pub fn start(script: &str, args: &[&str]) -> Peer {
        Peer::start_at(crate::ports::reserve(), script, args)
    }

    /// Starts a server at `address` and waits until it listens.
    #[track_caller]
    pub fn start_at(address: SocketAddr, script: &str, args: &[&str]) -> Peer {
        let mut command = command(script, address);
        command.args(args);
        let peer = Peer { address, process: Process::spawn(command) };
        let ready = peer.process.stdout.wait_from(0, seconds(60), |line| line.contains("\"ready\""));
        assert!(ready.is_some(), "{script} does not start: {}", peer.process.tail(20));
        peer
    }

    /// Everything reported so far under that name.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let lines = self.process.stdout.lines();
        let values = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values.filter(|value| value["event"] == name).collect()
    }

    /// Waits until something is reported under that name that satisfies `wanted`.
    #[track_caller]
    pub fn wait_event(&self, name: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = crate::poll(limit, || self.events(name).into_iter().find(|value| wanted(value)));
        found.unwrap_or_else(|| panic!("no such event {name:?} within {limit:?}: {}", self.process.tail(20)))
    }
}

/// Runs a scenario against `address`; what the client saw.
#[track_caller]
pub fn scenario(script: &str, address: SocketAddr, scenario: &str, args: &[&str]) -> Value {
    let mut command = command(script, address);
    command.arg(scenario).args(args);
    let finished = run_command(command, seconds(120));
    let last = finished.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
    last.unwrap_or_else(|| {
        panic!("{script} {scenario} {args:?} ended with {}: {}", finished.code, finished.stderr)
    })
}

/// A certificate for `localhost` and 127.0.0.1 that vouches for itself.
#[derive(Debug)]
pub struct Certificate {
    /// PEM file of the certificate, which is also the authority to trust.
    pub chain: PathBuf,
    /// PEM file of the key, readable by its owner alone.
    pub key: PathBuf,
    _dir: TempDir,
}

impl Certificate {
    /// Makes one.
    #[track_caller]
    pub fn localhost() -> Certificate {
        let dir = tempfile::Builder::new().prefix("testkit-certificate-").tempdir().unwrap();
        let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let (chain_text, key_text) = (chain.display().to_string(), key.display().to_string());
        let args =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
        let names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
        let files = ["-out", &chain_text, "-keyout", &key_text];
        let all = args.iter().chain(&names).chain(&files);
        let made = run(crate::tools::Tool::Openssl.path().expect("openssl"), all, seconds(20));
        assert_eq!(made.code, 0, "{}", made.stderr);
        Certificate { chain, key, _dir: dir }
    }
}

//! The gateway under test: started from a configuration, watched, signalled and killed.

use crate::client::{Client, Response};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::process::{Finished, Process, run};
use crate::{ms, seconds};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

const PASS_COMPLETE: &str = "SIGHUP config reload pass complete";

/// Names the binary that cargo built for these tests.
pub fn set_binary(path: impl Into<PathBuf>) {
    BINARY.set(path.into()).ok();
}

/// The binary under test: `EXPRESSGATEWAY_BIN`, or what `set_binary` named.
pub fn binary() -> PathBuf {
    match std::env::var_os("EXPRESSGATEWAY_BIN") {
        Some(path) => PathBuf::from(path),
        None => BINARY.get().expect("no binary named").clone(),
    }
}

/// Runs the binary with arguments until it ends.
pub fn cli(args: &[&str]) -> Finished {
    run(binary(), args, seconds(20))
}

/// How the gateway answered a reload.
#[derive(Debug, PartialEq, Eq)]
pub enum Reload {
    /// A pass went through; the line that the log has for it.
    Complete(String),
    /// The new file was refused, with this line.
    Rejected(String),
    /// The file was unchanged.
    Unchanged,
}

/// A running gateway, killed when dropped. When the test panics, its last lines are printed first.
#[derive(Debug)]
pub struct Gateway {
    /// The process.
    pub process: Process,
    /// The configuration in the file.
    pub config: Config,
    dir: TempDir,
}

impl Gateway {
    /// Starts and waits until `/readyz` answers 200.
    #[track_caller]
    pub fn start(config: Config) -> Gateway {
        let mut gateway = Gateway::launch(config);
        let ready = crate::poll(seconds(40), || match gateway.process.exit() {
            Some(status) => Some(Err(format!("it ended with {status}"))),
            None => (gateway.readyz() == Some(200)).then_some(Ok(())),
        });
        let why = match ready {
            Some(Ok(())) => return gateway,
            Some(Err(why)) => why,
            None => "/readyz is not 200 after 40 s".to_owned(),
        };
        std::thread::sleep(ms(50));
        eprintln!("--- configuration\n{}", gateway.config.render());
        panic!("the gateway does not start: {why}");
    }

    /// Starts without waiting for anything.
    pub fn launch(config: Config) -> Gateway {
        Gateway::launch_with(config, &[])
    }

    /// Starts with more environment, without waiting for anything.
    pub fn launch_with(config: Config, environment: &[(&str, &str)]) -> Gateway {
        Gateway::launch_as(config, |command| {
            command.envs(environment.iter().copied());
        })
    }

    /// Starts with a command that `prepare` has changed, without waiting for anything.
    pub fn launch_as(config: Config, prepare: impl FnOnce(&mut Command)) -> Gateway {
        let dir = tempfile::Builder::new().prefix("expressgateway-").tempdir().unwrap();
        let path = dir.path().join("lb.toml");
        std::fs::write(&path, config.render()).unwrap();
        let mut command = Command::new(binary());
        command.arg(&path).current_dir(dir.path()).env_remove("RUST_LOG").env_remove("LB_LOG_FORMAT");
        prepare(&mut command);
        Gateway { process: Process::spawn(command), config, dir }
    }

    /// Where the first listener listens.
    pub fn front(&self) -> SocketAddr {
        self.config.front()
    }

    /// The admin address.
    pub fn admin(&self) -> SocketAddr {
        self.config.admin
    }

    /// The directory of the configuration file.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection to the first listener.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.front()).unwrap_or_else(|e| panic!("connecting to the gateway: {e}"))
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.client().get(target).unwrap_or_else(|e| panic!("GET {target}: {e}"))
    }

    /// A connection to the admin port.
    #[track_caller]
    pub fn admin_client(&self) -> Client {
        Client::connect(self.admin()).unwrap_or_else(|e| panic!("admin port: {e}")).for_host("localhost")
    }

    /// One GET to the admin port.
    #[track_caller]
    pub fn admin_get(&self, target: &str) -> Response {
        self.admin_client().get(target).unwrap_or_else(|e| panic!("admin {target}: {e}"))
    }

    /// The status of `/readyz`; `None` when the admin port does not answer.
    pub fn readyz(&self) -> Option<u16> {
        let client = Client::connect(self.admin()).ok()?;
        client.for_host("localhost").get("/readyz").ok().map(|r| r.status)
    }

    /// All metrics now.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin_get("/metrics").text())
    }

    /// The sum of all samples of `name` that carry these labels.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until the sum of a metric satisfies `wanted`: counters are gathered from workers, and may lag.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) -> f64 {
        let mut last = f64::NAN;
        let found = crate::poll(seconds(15), || {
            last = self.metric(name, labels);
            wanted(last).then_some(last)
        });
        found.unwrap_or_else(|| {
            let family: Vec<_> = self.metrics().lines_of(name);
            panic!("{name}{labels:?} stays at {last}; the family is {family:#?}")
        })
    }

    /// Replaces the file in one step and sends SIGHUP, waiting for the verdict.
    #[track_caller]
    pub fn reload(&mut self, config: Config) -> Reload {
        let text = config.render();
        self.config = config;
        self.reload_text(&text)
    }

    /// Reloads with this text as the file.
    #[track_caller]
    pub fn reload_text(&mut self, text: &str) -> Reload {
        self.write_config(text);
        let from = self.process.stderr.len();
        self.process.signal(libc::SIGHUP);
        let verdict = |line: &str| {
            line.contains(PASS_COMPLETE) || line.contains("rejected") || line.contains("unchanged")
        };
        match self.process.stderr.wait_from(from, seconds(10), verdict) {
            Some(line) if line.contains(PASS_COMPLETE) => Reload::Complete(line),
            Some(line) if line.contains("rejected") => Reload::Rejected(line),
            Some(_) => Reload::Unchanged,
            None => panic!("no verdict on the reload within 10 s"),
        }
    }

    /// Replaces the file in one step without telling the gateway.
    pub fn write_config(&self, text: &str) {
        let new = self.dir.path().join("lb.toml.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.dir.path().join("lb.toml")).unwrap();
    }

    /// Sends SIGTERM and waits for the exit code.
    #[track_caller]
    pub fn stop(&mut self, limit: Duration) -> i32 {
        self.process.signal(libc::SIGTERM);
        self.process.wait_exit(limit).unwrap_or_else(|| panic!("still running {limit:?} after SIGTERM"))
    }

    /// The messages logged so far.
    pub fn messages(&self) -> Vec<String> {
        self.process.stderr.lines().iter().filter_map(|l| message(l)).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            eprintln!("=== {name}: last lines of the gateway\n{}", self.process.tail(40));
        }
    }
}

/// The message of a JSON log line.
pub fn message(line: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let message = value.get("message").or_else(|| value.get("fields")?.get("message"))?;
    message.as_str().map(str::to_owned)
}

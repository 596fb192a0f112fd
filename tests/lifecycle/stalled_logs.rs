//! Whoever reads the logs stands still: what runs goes on, and the order to stop is heard.

use std::io::{PipeReader, Read};
use std::process::Command;

use testkit::metrics::Metrics;
use testkit::process::{Process, SIGTERM, fill};
use testkit::{Backend, Client, Config, Listener, ports, seconds};

/// A gateway whose standard error is a pipe that is full.
struct Stalled {
    process: Process,
    config: Config,
    reader: PipeReader,
    _dir: tempfile::TempDir,
}

impl Stalled {
    fn start(config: Config, filter: &str) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        fill(&writer);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lb.toml");
        std::fs::write(&path, config.render()).unwrap();
        let mut command = Command::new(testkit::gateway::binary());
        command.arg(&path).env("RUST_LOG", filter).env_remove("LB_LOG_FORMAT");
        Self { process: Process::spawn_with_stderr(command, writer), config, reader, _dir: dir }
    }

    /// The status of one request to the listener at `at`, if there is an answer.
    fn get(&self, at: usize) -> Option<u16> {
        let mut client = Client::connect(self.config.address(at)).ok()?;
        Some(client.get("/").ok()?.status)
    }

    #[track_caller]
    fn serves(&self) {
        testkit::eventually("it serves", seconds(10), || self.get(0) == Some(200));
    }

    #[track_caller]
    fn stops(&mut self) {
        self.process.signal(SIGTERM);
        assert_eq!(self.process.wait_exit(seconds(10)), Some(0));
    }
}

fn config(backend: &Backend) -> Config {
    let dead = ports::reserve();
    let config = Config::new().listener(Listener::h1().backend(backend.address));
    config.listener(Listener::h1().backend(dead))
}

pub(crate) fn a_log_that_nobody_reads_stops_nothing() {
    let backend = Backend::standard("one");
    let mut gateway = Stalled::start(config(&backend), "lb_http=debug,info");
    gateway.serves();
    // Each logs a line in the thread that serves it.
    for number in 0..300 {
        assert!(matches!(gateway.get(1), Some(502 | 503)), "request {number}");
    }
    assert_eq!(gateway.get(0), Some(200));
    let mut admin = Client::connect(gateway.config.admin).unwrap().for_host("localhost");
    assert_eq!(admin.get("/readyz").unwrap().status, 200);
    let metrics = Metrics::parse(&admin.get("/metrics").unwrap().text());
    assert_eq!(metrics.find("log_dropped_total", &[]).count(), 1);
    gateway.stops();
}

pub(crate) fn a_reader_that_comes_back_gets_the_first_lines_and_the_last() {
    let backend = Backend::standard("one");
    let mut gateway = Stalled::start(config(&backend), "info");
    gateway.serves();
    let mut reader = gateway.reader.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    gateway.stops();
    let text = reading.join().unwrap().unwrap();
    for message in
        ["ExpressGateway v", "probes flipped to Ready", "drain completed cleanly", "ExpressGateway stopped"]
    {
        assert_eq!(text.matches(message).count(), 1, "{message}");
    }
}

pub(crate) fn a_start_that_fails_ends_although_nobody_reads_why() {
    let backend = Backend::standard("one");
    let config = config(&backend);
    let _taken = std::net::TcpListener::bind(config.front()).unwrap();
    let mut gateway = Stalled::start(config, "info");
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(1));
    let mut wrong = Stalled::start(Config::new(), "info");
    assert_eq!(wrong.process.wait_exit(seconds(10)), Some(1), "before there is a log");
}

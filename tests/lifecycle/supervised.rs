//! What supervisors do and ask: signals at any moment, notifications, the watchdog, the unit.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use testkit::gateway::binary;
use testkit::process::{Process, SIGHUP, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use testkit::{Backend, Config, Gateway, Listener, ms, seconds};

/// A gateway that waits for its configuration to come out of a pipe, and the pipe's other end.
fn waiting(dir: &Path) -> (Process, std::fs::File) {
    let pipe = dir.join("lb.toml");
    let _ = std::fs::remove_file(&pipe);
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = Command::new(binary());
    command.arg(&pipe).current_dir(dir);
    let process = Process::spawn(command);
    // Opening it waits until somebody reads.
    let end = std::fs::File::options().write(true).open(&pipe).unwrap();
    (process, end)
}

/// Handlers stand before anything else: here the process has not even read its configuration.
pub(crate) fn signals_before_the_configuration_is_read_kill_nobody() {
    let backend = Backend::standard("one");
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new().listener(Listener::h1().backend(backend.address));
    let served = [
        (SIGUSR1, "SIGUSR1 cert reload pass complete"),
        (SIGUSR2, "upgrade: new process started"),
        (SIGHUP, "\"signal\":\"SIGHUP\""),
    ];
    for (signal, line) in served {
        let (mut process, mut end) = waiting(dir.path());
        process.signal(signal);
        std::thread::sleep(ms(100));
        assert_eq!(process.exit(), None, "signal {signal} has killed it");
        end.write_all(config.render().as_bytes()).unwrap();
        drop(end);
        for line in ["probes flipped to Ready", line] {
            assert!(process.stderr.wait(line, seconds(10)).is_some(), "{line}: {}", process.tail(20));
        }
        // One that is to take over ends with the order to end.
        process.signal(SIGTERM);
        assert_eq!(process.wait_exit(seconds(15)), Some(0));
    }
    // Nothing is served yet, so that the order to end is obeyed at once.
    for signal in [SIGTERM, SIGQUIT] {
        let (mut process, _end) = waiting(dir.path());
        process.signal(signal);
        assert_eq!(process.wait_exit(seconds(5)), Some(0), "signal {signal}");
    }
}

pub(crate) fn sigquit_drains() {
    let backend = Backend::standard("one");
    let config =
        Config::new().runtime("drain_timeout_ms", 5000).listener(Listener::h1().backend(backend.address));
    let mut gateway = Gateway::start(config);
    assert_eq!(gateway.get("/").text(), "one");
    let mut busy = gateway.client();
    busy.send(testkit::request("GET", "/slow/300", &[], b"")).unwrap();
    backend.wait_requests(2);
    gateway.process.signal(SIGQUIT);
    assert_eq!(busy.response("GET").map(|response| response.status).ok(), Some(200));
    assert_eq!(gateway.process.wait_exit(seconds(15)), Some(0));
    assert_eq!(gateway.process.stderr.count("drain completed cleanly"), 1);
}

/// The socket that systemd would listen on.
pub(crate) struct Supervisor {
    _dir: tempfile::TempDir,
    socket: UnixDatagram,
    pub(crate) path: String,
}

impl Supervisor {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(seconds(10))).unwrap();
        Self { path: path.display().to_string(), _dir: dir, socket }
    }

    #[track_caller]
    pub(crate) fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a notification in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

pub(crate) fn systemd_is_told_how_a_reload_went() {
    let backend = Backend::standard("one");
    let supervisor = Supervisor::new();
    let config = |drain_ms: u64| {
        let listener = Listener::h1().backend(backend.address);
        Config::new()
            .runtime("readiness_settle_ms", 0)
            .runtime("drain_timeout_ms", drain_ms)
            .listener(listener)
    };
    let first = config(1000);
    let changed = first.render().replace("drain_timeout_ms = 1000", "drain_timeout_ms = 2000");
    let mut gateway = Gateway::launch_with(first, &[("NOTIFY_SOCKET", &supervisor.path)]);
    let ready = supervisor.next();
    assert!(ready.contains("READY=1\nSTATUS=serving 1 listener(s)"), "{ready}");
    gateway.reload_text(&changed);
    assert!(supervisor.next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(supervisor.next(), "READY=1\nSTATUS=configuration version 2 in force");
    gateway.reload_text(&changed.replace("drain_timeout_ms", "drain_timout_ms"));
    assert!(supervisor.next().starts_with("RELOADING=1"));
    let rejected = supervisor.next();
    let status = "READY=1\nSTATUS=reload rejected, configuration version 2 stays in force: ";
    assert!(rejected.starts_with(status) && rejected.contains("drain_timout_ms"), "{rejected}");
    assert_eq!(rejected.lines().count(), 2, "{rejected}");
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert!(supervisor.next().starts_with("STOPPING=1"));
}

/// The pings come while the gateway serves and while it drains; of a process that stands still, none.
pub(crate) fn the_watchdog_is_pinged_as_long_as_workers_answer() {
    let backend = Backend::standard("one");
    let supervisor = Supervisor::new();
    let config =
        Config::new().runtime("readiness_settle_ms", 400).listener(Listener::h1().backend(backend.address));
    let environment = [("NOTIFY_SOCKET", supervisor.path.as_str()), ("WATCHDOG_USEC", "300000")];
    let mut gateway = Gateway::launch_with(config, &environment);
    assert!(supervisor.next().contains("READY=1"));
    for _ in 0..4 {
        assert_eq!(supervisor.next(), "WATCHDOG=1");
    }
    gateway.process.hold();
    supervisor.socket.set_read_timeout(Some(ms(500))).unwrap();
    let mut buffer = [0; 64];
    let quiet = (0..3).any(|_| supervisor.socket.recv(&mut buffer).is_err());
    assert!(quiet, "it pings while it stands still");
    supervisor.socket.set_read_timeout(Some(seconds(10))).unwrap();
    gateway.process.resume();
    assert_eq!(supervisor.next(), "WATCHDOG=1");
    gateway.process.signal(SIGTERM);
    while !supervisor.next().contains("STOPPING=1") {}
    assert_eq!(supervisor.next(), "WATCHDOG=1", "while it drains");
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

/// A supervisor that has stopped reading does not hold the gateway up.
pub(crate) fn a_supervisor_that_does_not_read_holds_nobody_up() {
    let backend = Backend::standard("one");
    let supervisor = Supervisor::new();
    let config = Config::new().listener(Listener::h1().backend(backend.address));
    let environment = [("NOTIFY_SOCKET", supervisor.path.as_str()), ("WATCHDOG_USEC", "3000")];
    let mut gateway = Gateway::launch_with(config, &environment);
    testkit::eventually("ready", seconds(10), || gateway.readyz() == Some(200));
    // Long enough for the queue of the socket to be full.
    std::thread::sleep(ms(500));
    assert_eq!(gateway.readyz(), Some(200));
    let began = Instant::now();
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert!(began.elapsed() < seconds(10));
}

pub(crate) fn the_same_file_is_not_run_twice_unless_asked() {
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address);
    // Long enough that it still settles when the last of the others begins.
    let config = Config::new().runtime("readiness_settle_ms", 10_000).listener(listener);
    let mut gateway = Gateway::start(config);
    let path = gateway.dir().join("lb.toml").display().to_string();
    let link = gateway.dir().join("link.toml").display().to_string();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        let second = testkit::gateway::cli(&[path]);
        assert_eq!(second.code, 1);
        let told = format!("process {} of the same user runs this file already", gateway.process.pid());
        assert!(
            second.stderr.contains(&told) && second.stderr.contains("--allow-second"),
            "{}",
            second.stderr
        );
    }
    // What stops these is the admin port, which the first has.
    let asked = testkit::gateway::cli(&["--allow-second", &path]);
    assert!(asked.code == 1 && asked.stderr.contains("metrics_bind"), "{}", asked.stderr);
    gateway.process.signal(SIGTERM);
    testkit::eventually("it drains", seconds(5), || gateway.readyz() == Some(503));
    let next = testkit::gateway::cli(&[&path]);
    assert!(next.code == 1 && next.stderr.contains("metrics_bind"), "{}", next.stderr);
    assert_eq!(gateway.process.wait_exit(seconds(30)), Some(0));
}

/// Root without the capability is refused as a service's user is.
pub(crate) fn a_low_port_names_the_capability() {
    let backend = Backend::standard("one");
    let low = "127.0.0.1:81".parse().unwrap();
    let config = Config::new().listener(Listener::h1().at(low).backend(backend.address));
    let mut gateway = Gateway::launch_as(config, testkit::process::forbid_low_ports);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(1));
    let told = gateway.process.stderr.lines().join("\n");
    assert!(told.contains("127.0.0.1:81") && told.contains("CAP_NET_BIND_SERVICE"), "{told}");
}

/// The unit, and the page that tells how it is installed.
pub(crate) fn the_unit_does_what_the_pages_say() {
    let unit = include_str!("../../packaging/systemd/expressgateway.service");
    let page = include_str!("../../DEPLOYMENT.md");
    let values = |key: &str| -> Vec<&str> {
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    assert_eq!(values("SuccessExitStatus"), ["3"]);
    let [start] = values("ExecStart")[..] else { panic!("one ExecStart") };
    let (program, file) = start.rsplit_once(' ').unwrap();
    let expected = [format!("{program} check {file}"), "/bin/kill -HUP $MAINPID".to_owned()];
    assert_eq!(values("ExecReload"), expected, "what is wrong is found before the signal");
    let documentation = values("Documentation")[0].strip_prefix("file:").unwrap();
    let directory = Path::new(documentation).parent().unwrap().display().to_string();
    assert!(page.contains(&format!("{directory}/")), "{documentation} is installed by nobody");
    assert!(unit.contains("LoadCredential=") && page.contains("LoadCredential="));
    assert_eq!(values("WatchdogSec").len(), 1);
}

//! From the start to readiness.

use std::net::TcpListener;
use std::process::Stdio;
use testkit::gateway::message;
use testkit::load::Load;
use testkit::process::{SIGHUP, SIGTERM, SIGUSR1, limit_descriptors};
use testkit::{Backend, Client, Config, Gateway, Listener, ms, ports, seconds};

fn two_listeners(backend: &Backend) -> Config {
    Config::new()
        .listener(Listener::h1().backend(backend.address))
        .listener(Listener::tcp().backend(backend.address))
}

/// Where a message of the log first stands.
#[track_caller]
fn position(messages: &[String], text: &str) -> usize {
    let found = messages.iter().position(|m| m.contains(text));
    found.unwrap_or_else(|| panic!("{text:?} is not in {messages:#?}"))
}

pub(crate) fn log_lines_of_the_guide() {
    let backend = Backend::standard("one");
    let config = two_listeners(&backend);
    let listening: Vec<String> = config
        .render()
        .lines()
        .filter_map(|l| l.strip_prefix("address = \"")?.strip_suffix('"').map(str::to_owned))
        .filter(|a| *a != backend.address.to_string())
        .map(|address| format!("listening on {address}"))
        .collect();
    assert_eq!(listening.len(), 2);
    let gateway = Gateway::start(config);
    gateway.process.stderr.wait("probes flipped to Ready", seconds(5)).expect("the line of readiness");
    let messages = gateway.messages();
    let runtime = position(&messages, "lb-io runtime ready");
    let ready = position(&messages, "probes flipped to Ready");
    for text in
        ["ExpressGateway v", "configuration loaded from", "TCP backend pool ready", "DNS resolver ready"]
    {
        assert!(position(&messages, text) < ready, "{text} comes too late");
    }
    for text in &listening {
        let at = position(&messages, text);
        assert!(runtime < at && at < ready, "{text} is out of order in {messages:#?}");
        assert_eq!(
            messages.iter().filter(|m| m.contains(text)).count(),
            1,
            "once per listener, not per worker"
        );
    }
    let lines = gateway.process.stderr.matching("lb-io runtime ready");
    assert!(lines[0].contains("epoll") || lines[0].contains("io_uring"), "{}", lines[0]);
    assert!(messages.iter().any(|m| m.contains("lb.toml")), "the path of the file");
}

pub(crate) fn log_lines_are_json() {
    let backend = Backend::standard("one");
    let mut gateway = Gateway::start(two_listeners(&backend));
    gateway.get("/");
    gateway.reload(gateway.config.clone());
    gateway.reload_text("not toml \u{1b}[31m \u{202e}");
    gateway.stop(seconds(10));
    let lines = gateway.process.stderr.lines();
    assert!(lines.len() > 5);
    for line in &lines {
        assert!(message(line).is_some(), "not a JSON line with a message: {line}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value.get("level").is_some() && value.get("timestamp").is_some(), "{line}");
    }
}

pub(crate) fn log_format_and_level_follow_the_environment() {
    let backend = Backend::standard("one");
    for format in ["text", "plain"] {
        let gateway = Gateway::launch_with(two_listeners(&backend), &[("LB_LOG_FORMAT", format)]);
        let line = gateway.process.stderr.wait("lb-io runtime ready", seconds(10)).expect("the line");
        assert!(message(&line).is_none(), "{line}");
        assert!(line.contains("backend=") && !line.contains('\u{1b}'), "{line}");
    }
    let quiet = Gateway::launch_with(two_listeners(&backend), &[("RUST_LOG", "error")]);
    testkit::eventually("ready", seconds(10), || quiet.readyz() == Some(200));
    assert!(quiet.process.stderr.is_empty(), "{:?}", quiet.process.stderr.lines());
}

pub(crate) fn ready_means_ready() {
    let backend = Backend::standard("one");
    for _ in 0..5 {
        let gateway = Gateway::start(two_listeners(&backend));
        assert_eq!(gateway.get("/").status, 200, "ready, and nobody listens");
    }
}

pub(crate) fn twelve_listeners() {
    let backend = Backend::standard("one");
    let listeners: Vec<Listener> = (0..12).map(|_| Listener::h1().backend(backend.address)).collect();
    let config = listeners.iter().cloned().fold(Config::new(), Config::listener);
    let gateway = Gateway::start(config);
    for listener in &listeners {
        let mut client = testkit::Client::connect(listener.address).unwrap();
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert_eq!(gateway.process.stderr.wait_count("listening on 127.0.0.1", 12), 12);
}

pub(crate) fn listener_by_name() {
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address);
    let name = format!("localhost:{}", listener.address.port());
    let gateway = Gateway::start(Config::new().listener(listener.key("address", name)));
    assert_eq!(gateway.get("/").status, 200);
}

#[track_caller]
fn assert_fails_naming(config: Config, address: std::net::SocketAddr) {
    let mut gateway = Gateway::launch(config);
    let code = gateway.process.wait_exit(seconds(10)).expect("it runs on without its port");
    assert_eq!(code, 1);
    let errors = gateway.process.stderr.lines().join("\n");
    assert!(errors.contains(&address.to_string()), "{address} is not named in {errors}");
    assert_eq!(gateway.process.stderr.count("probes flipped to Ready"), 0);
}

pub(crate) fn taken_port_is_fatal_and_named() {
    let backend = Backend::standard("one");
    for make in [Listener::h1 as fn() -> Listener, Listener::tcp] {
        let listener = make().backend(backend.address);
        let _taken = TcpListener::bind(listener.address).unwrap();
        let address = listener.address;
        // The second of two: the first could be bound, and must not stay.
        let config = Config::new().listener(Listener::h1().backend(backend.address)).listener(listener);
        assert_fails_naming(config, address);
    }
}

pub(crate) fn taken_admin_port_is_fatal_and_named() {
    let backend = Backend::standard("one");
    let config = two_listeners(&backend);
    let _taken = TcpListener::bind(config.admin).unwrap();
    let admin = config.admin;
    assert_fails_naming(config, admin);
}

pub(crate) fn listener_without_backends_is_skipped() {
    let backend = Backend::standard("one");
    let empty = Listener::h1();
    let address = empty.address;
    let gateway =
        Gateway::start(Config::new().listener(Listener::h1().backend(backend.address)).listener(empty));
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.process.stderr.wait("listener has no backends configured", seconds(3)).is_some());
    assert!(testkit::Client::connect(address).is_err(), "it listens");
    let mut alone = Gateway::launch(Config::new().listener(Listener::h1()));
    assert_eq!(alone.process.wait_exit(seconds(10)), Some(1), "nothing to do");
    assert!(alone.process.stderr.count("no listeners started") >= 1);
}

pub(crate) fn old_and_new_process_share_the_port() {
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address);
    let mut old = Gateway::start(
        Config::new()
            .runtime("readiness_settle_ms", 300)
            .runtime("drain_timeout_ms", 5000)
            .listener(listener.clone()),
    );
    let load = Load::start(old.front(), 4, "/slow/5", ms(0));
    testkit::eventually("traffic", seconds(10), || load.served() > 50);
    let new = Gateway::start(Config::new().listener(listener));
    assert_eq!(old.stop(seconds(15)), 0);
    let served = load.served();
    testkit::eventually("traffic at the new process", seconds(10), || load.served() > served + 50);
    let tally = load.stop();
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    new.wait_metric("http_requests_total", &[], |v| v > 50.0);
}

pub(crate) fn ipv6_on_both_sides() {
    let backend = Backend::standard_at(format!("[::1]:{}", ports::port()).parse().unwrap(), "six");
    let front = format!("[::1]:{}", ports::port()).parse().unwrap();
    let gateway = Gateway::start(Config::new().listener(Listener::h1().at(front).backend(backend.address)));
    assert_eq!(gateway.get("/").text(), "six");
    assert_eq!(backend.last_request().header("x-forwarded-for").as_deref(), Some("::1"));
}

pub(crate) fn l4_10_descriptor_exhaustion_passes() {
    let backend = Backend::standard("one");
    let config = Config::new().listener(Listener::h1().backend(backend.address));
    let mut gateway = Gateway::launch_as(config, |command| limit_descriptors(command, 100));
    testkit::eventually("ready", seconds(10), || gateway.readyz() == Some(200));
    let mut clients: Vec<_> = (0..150).map(|_| gateway.client()).collect();
    let said = gateway.process.stderr.wait("accept", seconds(5));
    std::thread::sleep(ms(500));
    let ticks = gateway.process.cpu_ticks();
    std::thread::sleep(ms(1000));
    let spent = gateway.process.cpu_ticks() - ticks;
    assert!(spent < 50, "{spent} ticks of processor time in one second of waiting for descriptors");
    assert!(gateway.process.exit().is_none());
    clients.truncate(10);
    testkit::eventually("served again", seconds(10), || {
        gateway.client().get("/").is_ok_and(|r| r.status == 200)
    });
    // Those that waited to be accepted need descriptors until it is seen that they have left.
    gateway.wait_metric("connections_total", &[], |v| v > 150.0);
    gateway.wait_metric("connections_inflight", &[], |v| v <= 10.0);
    for client in &mut clients {
        assert_eq!(client.get("/").unwrap().status, 200, "one of the first was lost");
    }
    gateway.wait_metric("accept_errors_total", &[("kind", "fd_exhausted")], |v| v >= 1.0);
    assert!(said.is_some(), "nothing in the log");
}

pub(crate) fn closed_outputs_do_not_kill() {
    let backend = Backend::standard("one");
    let config = Config::new()
        .block("observability", "access_log", "stdout")
        .listener(Listener::h1().backend(backend.address));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lb.toml");
    std::fs::write(&path, config.render()).unwrap();
    let mut command = std::process::Command::new(testkit::gateway::binary());
    command.arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = testkit::process::spawn_tied(command).unwrap();
    // Whoever read the logs is gone.
    drop((child.stdout.take(), child.stderr.take()));
    let get = || Client::connect(config.front()).and_then(|mut client| client.get("/"));
    testkit::eventually("it serves", seconds(10), || get().is_ok_and(|r| r.status == 200));
    for number in 0..20 {
        assert_eq!(get().map(|r| r.status).ok(), Some(200), "request {number}");
    }
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

pub(crate) fn runs_as_long_as_nobody_stops_it() {
    let backend = Backend::standard("one");
    let mut gateway = Gateway::start(two_listeners(&backend));
    // Without certificates this signal has nothing to do; it must not kill.
    gateway.process.signal(SIGUSR1);
    gateway.process.signal(SIGHUP);
    std::thread::sleep(ms(300));
    assert!(gateway.process.exit().is_none());
    assert_eq!(gateway.get("/").status, 200);
    let ticks = gateway.process.cpu_ticks();
    std::thread::sleep(ms(2000));
    let spent = gateway.process.cpu_ticks() - ticks;
    assert!(spent <= 20, "{spent} ticks of processor time in two idle seconds");
    gateway.process.signal(SIGTERM);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

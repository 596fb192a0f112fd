//! Active health checks: what is asked, what is concluded, and who gets requests then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::SeqCst};

use testkit::dns::Dns;
use testkit::gateway::Reload;
use testkit::{Backend, Config, Gateway, H2Backend, Listener, ports, seconds};

use crate::health_rig::{Pool, probes, wait_health, wait_probes};

/// Answers `/health` with a status that changes, and everything else with its name.
pub(crate) struct Patient {
    pub(crate) server: Backend,
    pub(crate) status: Arc<AtomicU16>,
}

impl Patient {
    pub(crate) fn new(name: &'static str) -> Patient {
        let status = Arc::new(AtomicU16::new(200));
        let shown = Arc::clone(&status);
        let server = Backend::each(move |request, conn| match request.target() {
            "/health" => conn.respond(shown.load(SeqCst), &[], b"state: all well\n"),
            _ => conn.respond(200, &[], name.as_bytes()),
        });
        Patient { server, status }
    }

    fn requests_besides_probes(&self) -> usize {
        self.server.requests().iter().filter(|request| request.target() != "/health").count()
    }
}

fn http(lines: &str) -> Pool {
    Pool::probed("http", &format!("path = \"/health\"\n{lines}"))
}

pub(crate) fn a_backend_that_fails_its_checks_gets_nothing_until_it_passes_them() {
    let (sick, well) = (Patient::new("sick"), Patient::new("well"));
    let gateway = http("").h1(sick.server.address).h1(well.server.address).gateway();
    wait_probes(&gateway, sick.server.address, "passed", 1.0);
    sick.status.store(500, SeqCst);
    wait_health(&gateway, sick.server.address, false);
    assert!(probes(&gateway, sick.server.address, "status") >= 2.0, "one failure is none");
    let before = sick.requests_besides_probes();
    for number in 0..40 {
        assert_eq!(gateway.get("/").text(), "well", "request {number}");
    }
    assert_eq!(sick.requests_besides_probes(), before);
    sick.status.store(204, SeqCst);
    wait_health(&gateway, sick.server.address, true);
    testkit::eventually("requests at the backend that is back", seconds(20), || {
        gateway.get("/").text() == "sick"
    });
    let stderr = &gateway.process.stderr;
    assert_eq!(stderr.wait_count("backend health changed", 4), 4, "two first verdicts, one fall, one rise");
    let fall = stderr.matching("backend health changed").into_iter().find(|line| line.contains("unhealthy"));
    assert!(fall.unwrap().contains("\"why\":\"status\""));
}

pub(crate) fn the_request_is_the_one_that_is_asked_for() {
    let patient = Patient::new("a");
    let address = patient.server.address;
    let gateway = http("").h1(address).gateway();
    patient.server.wait_requests(1);
    let probe = patient.server.requests().remove(0);
    assert_eq!((probe.method(), probe.target()), ("GET", "/health"));
    assert_eq!(probe.header("host").unwrap(), address.to_string());
    assert_eq!(probe.header("connection").unwrap(), "close");
    assert!(probe.header("user-agent").unwrap().starts_with("ExpressGateway-health/"));
    drop(gateway);

    patient.server.forget();
    let gateway = http("method = \"HEAD\"\nhost = \"deep.test\"").h1(address).gateway();
    wait_probes(&gateway, address, "passed", 1.0);
    let probe = patient.server.last_request();
    assert_eq!((probe.method(), probe.header("host").unwrap().as_str()), ("HEAD", "deep.test"));
    patient.server.assert_clean();
}

pub(crate) fn status_body_and_host_must_be_right() {
    let server = Backend::each(|request, conn| match request.header("host").as_deref() {
        Some("right.test") => conn.respond(201, &[], b"all is well"),
        _ => conn.respond(421, &[], b"who?"),
    });
    let address = server.address;
    let pool = |lines: &str| Pool::probed("http", lines).h1(address);
    let right = "host = \"right.test\"\n";
    let front = pool("").config();
    let config = |lines: &str| {
        let listener = pool(&format!("{right}{lines}")).behind(Listener::h1().at(front.front()));
        front.clone().with_listener(listener)
    };
    let mut gateway = Gateway::start(config("expected_statuses = [\"201\", \"300-302\"]"));
    wait_probes(&gateway, address, "passed", 2.0);
    for (lines, result) in [
        ("expected_statuses = [\"200\"]", "status"),
        ("body_contains = \"is ill\"", "body"),
        ("body_contains = \"is well\"\nmax_body_bytes = 10", "body"),
    ] {
        assert!(matches!(gateway.reload(config(lines)), Reload::Complete(_)), "{lines}");
        wait_health(&gateway, address, false);
        testkit::eventually(lines, seconds(30), || probes(&gateway, address, result) >= 2.0);
        assert!(matches!(gateway.reload(config("body_contains = \"is well\"")), Reload::Complete(_)));
        wait_health(&gateway, address, true);
    }
    let wrong = pool("host = \"wrong.test\"").behind(Listener::h1().at(front.front()));
    assert!(matches!(gateway.reload(front.clone().with_listener(wrong)), Reload::Complete(_)));
    wait_health(&gateway, address, false);
}

pub(crate) fn tcp_checks_of_a_tcp_listener() {
    let (first, second) = (Backend::tcp_echo(), Backend::standard("b"));
    let pool = Pool::probed("tcp", "").backend(first.address, "").backend(second.address, "");
    let gateway = Gateway::start(Config::new().listener(pool.behind(Listener::tcp())));
    wait_probes(&gateway, first.address, "passed", 2.0);
    let address = first.address;
    drop(first);
    wait_health(&gateway, address, false);
    assert!(probes(&gateway, address, "connect") >= 2.0);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").text(), "b");
    }
    let back = Backend::standard_at(address, "a");
    wait_health(&gateway, address, true);
    testkit::eventually("connections at the backend that is back", seconds(20), || {
        gateway.get("/").text() == "a"
    });
    drop(back);
}

pub(crate) fn a_port_of_its_own() {
    let (traffic, checks) = (Backend::standard("traffic"), Patient::new("checks"));
    let port = format!("port = {}", checks.server.address.port());
    let gateway = http(&port).h1(traffic.address).gateway();
    wait_probes(&gateway, traffic.address, "passed", 2.0);
    assert_eq!(gateway.get("/").text(), "traffic");
    assert_eq!((traffic.request_count(), checks.requests_besides_probes()), (1, 0));
    // The name in the request stays that of the backend.
    assert_eq!(checks.server.last_request().header("host").unwrap(), traffic.address.to_string());
    checks.status.store(503, SeqCst);
    wait_health(&gateway, traffic.address, false);
}

pub(crate) fn http_2_backends_are_asked_over_http_2() {
    let status = Arc::new(AtomicU16::new(200));
    let shown = Arc::clone(&status);
    let server = H2Backend::start(move |call| {
        call.body()?;
        call.respond(shown.load(SeqCst), &[], b"well")
    });
    let gateway = http("body_contains = \"well\"").h2(server.address).gateway();
    wait_probes(&gateway, server.address, "passed", 2.0);
    let probe = server.last_request();
    let fields = ["method", "scheme", "path", "authority"].map(|name| probe.header(&format!(":{name}")));
    let authority = server.address.to_string();
    assert_eq!(
        fields.each_ref().map(|field| field.as_deref().unwrap()),
        ["GET", "http", "/health", &authority]
    );
    status.store(503, SeqCst);
    wait_health(&gateway, server.address, false);
    server.assert_clean();
}

/// As long as one is well, nobody else is asked; panic is shown from its beginning to its end.
pub(crate) fn only_who_is_well_is_asked() {
    let all = [Patient::new("a"), Patient::new("b"), Patient::new("c")];
    for sick in &all[..2] {
        sick.status.store(500, SeqCst);
    }
    let pool = all.iter().fold(http(""), |pool, patient| pool.h1(patient.server.address));
    let gateway = pool.gateway();
    for sick in &all[..2] {
        wait_health(&gateway, sick.server.address, false);
    }
    // Workers take the news in at their next pick.
    for _ in 0..30 {
        assert_eq!(gateway.get("/").text(), "c");
    }
    let panic = |gateway: &Gateway| gateway.metric("pool_panic", &[("pool", "p")]);
    assert_eq!(panic(&gateway), 0.0);
    all[2].status.store(500, SeqCst);
    wait_health(&gateway, all[2].server.address, false);
    assert_eq!(panic(&gateway), 1.0);
    all[2].status.store(200, SeqCst);
    wait_health(&gateway, all[2].server.address, true);
    assert_eq!(panic(&gateway), 0.0);
    for line in ["pool in panic", "pool out of panic"] {
        gateway.process.stderr.wait(line, seconds(10)).unwrap();
        assert_eq!(gateway.process.stderr.count(line), 1, "{line}");
    }
}

/// Panic: where no backend is well, all are tried, unless that is switched off.
pub(crate) fn a_pool_without_a_healthy_backend() {
    let (first, second) = (Patient::new("a"), Patient::new("b"));
    for sick in [&first, &second] {
        sick.status.store(500, SeqCst);
    }
    for (threshold, status) in [(50, 200), (0, 503)] {
        let pool = http("").key("panic_threshold_percent", threshold);
        let gateway = pool.h1(first.server.address).h1(second.server.address).gateway();
        wait_health(&gateway, first.server.address, false);
        wait_health(&gateway, second.server.address, false);
        testkit::eventually("what a pool without healthy backends answers", seconds(20), || {
            gateway.get("/").status == status
        });
    }
}

/// A probe at the first start, none for further listeners, workers or reloads, and one for what is new.
pub(crate) fn each_address_has_one_prober() {
    let (first, second) = (Patient::new("a"), Patient::new("b"));
    let hour =
        "type = \"http\"\npath = \"/health\"\ninterval_ms = 3600000\ntimeout_ms = 20000\njitter_percent = 0";
    let pool = Pool::with_health(hour).h1(first.server.address);
    let [one, two, three] = [Listener::h1(), Listener::h1(), Listener::tcp()];
    let base = Config::new().runtime("workers", 4);
    let config = |pool: &Pool| {
        let shared = |listener: &Listener| listener.clone().key("pool", "p");
        let config = base.clone().listener(shared(&one)).listener(shared(&three));
        config.listener(pool.behind(two.clone()))
    };
    let mut gateway = Gateway::start(config(&pool));
    testkit::eventually("the first probe", seconds(20), || {
        probes(&gateway, first.server.address, "passed") == 1.0
    });
    for policy in ["random", "p2c", "least_request"] {
        let next = config(&pool.clone().key("policy", policy));
        assert!(matches!(gateway.reload(next), Reload::Complete(_)), "{policy}");
    }
    let next = config(&pool.h1(second.server.address));
    assert!(matches!(gateway.reload(next), Reload::Complete(_)));
    testkit::eventually("the probe of the new backend", seconds(20), || {
        probes(&gateway, second.server.address, "passed") == 1.0
    });
    assert_eq!((first.server.connections(), second.server.connections()), (1, 1));
    assert_eq!(gateway.process.stderr.wait_count("backend health changed", 2), 2);
}

/// What is known of a backend outlives a reload, and one that has left is neither probed nor shown.
pub(crate) fn probers_follow_a_reload() {
    let (sick, well, gone) = (Patient::new("sick"), Patient::new("well"), Patient::new("gone"));
    sick.status.store(500, SeqCst);
    let pool = http("").key("panic_threshold_percent", 0).h1(sick.server.address).h1(well.server.address);
    let front = pool.clone().h1(gone.server.address).config();
    let mut gateway = Gateway::start(front.clone());
    wait_health(&gateway, sick.server.address, false);
    wait_probes(&gateway, gone.server.address, "passed", 1.0);
    let listener = pool.key("policy", "random").behind(Listener::h1().at(front.front()));
    assert!(matches!(gateway.reload(front.with_listener(listener)), Reload::Complete(_)));
    let connections = gone.server.connections();
    for _ in 0..20 {
        assert_eq!(
            gateway.get("/").text(),
            "well",
            "one that is known to be ill gets nothing after a reload"
        );
    }
    wait_probes(&gateway, sick.server.address, "status", 4.0);
    // One may have been on its way.
    assert!(gone.server.connections() <= connections + 1);
    let gone = gone.server.address.to_string();
    let left = gateway.metrics();
    assert_eq!(left.find("backend_healthy", &[("pool", "p"), ("backend", &gone)]).count(), 0);
    assert_eq!(left.find("backend_healthy", &[("pool", "p")]).count(), 3, "two, and the sum of all others");
    // Two first verdicts and a third: nobody was judged anew.
    assert_eq!(gateway.process.stderr.wait_count("backend health changed", 3), 3);
}

pub(crate) fn probers_follow_a_name() {
    let port = ports::port();
    let at = |host: &str| Backend::standard_at(format!("{host}:{port}").parse().unwrap(), "one");
    let (first, second) = (at("127.0.0.2"), at("127.0.0.3"));
    let dns = Dns::start();
    dns.set("app.test", &["127.0.0.2"], 1);
    let name = format!("app.test:{port}");
    let config = http("").h1(&name).config().block("dns", "servers", vec![dns.address.to_string()]);
    let config = config.block("dns", "min_ttl_seconds", 1).block("dns", "max_ttl_seconds", 1);
    let gateway = Gateway::start(config);
    first.wait_requests(2);
    assert_eq!(first.last_request().header("host").unwrap(), name);
    assert_eq!(second.connections(), 0);
    dns.set("app.test", &["127.0.0.3"], 1);
    testkit::eventually("probes of the new address", seconds(20), || second.request_count() >= 2);
    let connections = first.connections();
    wait_probes(&gateway, &name, "passed", 4.0);
    assert!(first.connections() <= connections + 1);
}

/// The gateway's own answer to `grpc.health.v1` is what its pool knows, as another gateway's check of it shows.
pub(crate) fn the_health_of_a_pool_is_that_of_the_gateway() {
    let patient = Patient::new("a");
    let inner = http("").h1(patient.server.address).behind(Listener::h2c().block("grpc", "", true));
    let inner = Gateway::start(Config::new().listener(inner));
    let outer = Pool::probed("grpc", "").h2(inner.front()).gateway();
    wait_probes(&outer, inner.front(), "passed", 2.0);
    patient.status.store(500, SeqCst);
    wait_health(&inner, patient.server.address, false);
    wait_health(&outer, inner.front(), false);
    assert!(probes(&outer, inner.front(), "not_serving") >= 2.0);
    patient.status.store(200, SeqCst);
    wait_health(&outer, inner.front(), true);
}

/// The end does not wait for a probe, and health checks go on while connections drain.
pub(crate) fn a_drain_does_not_wait_for_probes() {
    let reached = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&reached);
    let silent = Backend::start(move |conn| {
        noted.store(true, SeqCst);
        conn.hold(seconds(60));
        Ok(())
    });
    let slow = "type = \"http\"\ninterval_ms = 60000\ntimeout_ms = 60000\njitter_percent = 0";
    let mut gateway = Pool::with_health(slow).h1(silent.address).gateway();
    testkit::eventually("a probe under way", seconds(20), || reached.load(SeqCst));
    assert_eq!(gateway.stop(seconds(20)), 0);
}

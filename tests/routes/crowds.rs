//! Limits on requests at once: who finds a place, and how places come back whatever becomes of a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use testkit::gateway::Reload;
use testkit::{
    Backend, Client, Config, Fault, Gateway, H2Client, Listener, Pool, eventually, ms, request, seconds,
};

use crate::ways::Ways;

/// A backend that answers `/slow` when its gate is open, and everything else at once.
struct Gated {
    backend: Backend,
    gate: Arc<AtomicBool>,
}

impl Gated {
    fn start() -> Self {
        let gate = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&gate);
        let backend = Backend::start(move |conn| {
            let slow = conn.request()?.target().starts_with("/slow");
            while slow && !open.load(SeqCst) {
                conn.pause(ms(10));
            }
            conn.respond(200, &[], b"web")
        });
        Self { backend, gate }
    }

    fn pool(&self) -> Pool {
        Pool::named("web").backend_with(self.backend.address, &[("protocol", "\"h1\"".to_owned())])
    }

    /// Sends so many slow requests, and waits until they run. A place comes back a moment after its client has the whole response, so one may be refused at first.
    fn fill(&self, gateway: &Gateway, count: usize) -> Vec<Client> {
        let runs = || {
            let before = self.backend.request_count();
            let mut client = gateway.client();
            client.send(request("GET", "/slow", &[("Host", "a")], b"")).unwrap();
            testkit::poll(seconds(2), || (self.backend.request_count() > before).then_some(()))
                .map(|()| client)
        };
        (0..count).map(|_| (0..5).find_map(|_| runs()).expect("a slow request runs")).collect()
    }

    fn finish(&self, clients: Vec<Client>) {
        self.gate.store(true, SeqCst);
        for mut client in clients {
            assert_eq!(client.response("GET").unwrap().status, 200);
        }
    }
}

fn policy(lines: &str) -> String {
    format!("[policies.few.concurrency]\n{lines}\n")
}

fn limited(listener: Listener) -> Listener {
    listener.key("policies", vec!["few".to_owned()]).key("pool", "web")
}

/// Waits until a place is free, and the next request has it.
#[track_caller]
fn assert_comes_back(gateway: &Gateway) {
    eventually("the place comes back", seconds(10), || gateway.get("/").status == 200);
    // That of the last request comes back a moment after its response.
    std::thread::sleep(ms(300));
}

pub(crate) fn requests_beyond_the_limit_are_refused_over_every_protocol() {
    let gated = Gated::start();
    let config = Config::new().runtime("workers", 2).text(&policy("max = 3")).pool(gated.pool());
    let ways = Ways::start_with(config, "", limited);
    let running = gated.fill(&ways.gateway, 3);
    for _ in 0..2 {
        for got in ways.ask("GET", "/", &[], &["retry-after", "ratelimit"]) {
            assert_eq!(
                (got.status, got.text.as_str()),
                (503, "503 Service Unavailable\n"),
                "{}",
                got.version
            );
            assert_eq!(got.header("retry-after").as_deref(), Some("1"), "{}", got.version);
            assert_eq!(got.header("ratelimit"), None, "{}", got.version);
        }
    }
    let refused = ways.gateway.metric("filter_answers_total", &[("reason", "concurrency")]);
    assert_eq!((refused, gated.backend.request_count()), (6.0, 3));
    gated.finish(running);
    assert_comes_back(&ways.gateway);
    for got in ways.ask("GET", "/", &[], &[]) {
        assert_eq!(got.status, 200, "{}", got.version);
    }
    assert_eq!(ways.gateway.metric("pool_overflow_total", &[]), 0.0);
}

pub(crate) fn a_client_that_leaves_gives_its_place_back() {
    let gated = Gated::start();
    let config = Config::new().text(&policy("max = 1")).pool(gated.pool());
    let gateway = Gateway::start(config.listener(limited(Listener::h2c())));
    for _ in 0..3 {
        let left = gated.fill(&gateway, 1);
        assert_eq!(gateway.get("/").status, 503);
        drop(left);
        assert_comes_back(&gateway);
    }
    // In the middle of an upload.
    let mut client = gateway.client();
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome").unwrap();
    gateway.wait_metric("backend_inflight", &[], |count| count == 1.0);
    assert_eq!(gateway.get("/").status, 503);
    client.reset();
    assert_comes_back(&gateway);
    // By a reset of its stream, and with its whole connection.
    let mut client = H2Client::connect(gateway.front()).unwrap();
    for is_reset in [true, false] {
        let before = gated.backend.request_count();
        let stream = client.open("GET", "/slow", &[], true).unwrap();
        gated.backend.wait_requests(before + 1);
        assert_eq!(gateway.get("/").status, 503);
        match is_reset {
            true => client.reset(stream, 8).unwrap(),
            false => break,
        }
        assert_comes_back(&gateway);
    }
    client.abandon();
    assert_comes_back(&gateway);
    assert_eq!(gateway.metric("backend_inflight", &[]), 0.0);
}

pub(crate) fn further_tries_and_hedges_hold_the_place_of_their_request() {
    let count = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&count);
    let flaky = move |conn: &mut testkit::backend::Conn| -> Result<(), Fault> {
        let target = conn.request()?.target().to_owned();
        let turn = seen.fetch_add(1, SeqCst);
        match target.as_str() {
            "/warm" => {}
            "/tries" if turn % 3 < 2 => return conn.respond(503, &[], b"no"),
            "/hedge" if turn.is_multiple_of(2) => conn.pause(seconds(3)),
            _ => {}
        }
        conn.respond(200, &[], b"web")
    };
    let backends = [Backend::start(flaky.clone()), Backend::start(flaky)];
    let text = policy("max = 1")
        + "[pools.web.retry]\nattempts = 3\non = [\"connect\", \"503\"]\nbudget_percent = 100\nbudget_min = 1000\n\
           hedge_percentile = 99\nhedge_min_delay_ms = 100\n";
    let pool = Pool::named("web").backend(backends[0].address).backend(backends[1].address);
    let config = Config::new().runtime("workers", 1).runtime("max_keepalive_requests", 10_000).text(&text);
    let gateway = Gateway::start(config.pool(pool).listener(limited(Listener::h1())));
    let mut client = gateway.client();
    client.set_timeout(seconds(20));
    for _ in 0..200 {
        assert_eq!(client.get("/warm").unwrap().status, 200);
    }
    for target in ["/tries", "/hedge", "/tries", "/hedge", "/hedge"] {
        count.store(0, SeqCst);
        assert_eq!(client.get(target).unwrap().text(), "web", "{target}");
        // The place is free again at once, whatever was begun beside.
        assert_eq!(client.get("/warm").unwrap().status, 200, "after {target}");
    }
    assert!(gateway.metric("pool_retries_total", &[]) >= 4.0);
    assert!(gateway.metric("pool_hedges_total", &[]) >= 3.0);
    assert_eq!(gateway.metric("filter_answers_total", &[("reason", "concurrency")]), 0.0);
}

pub(crate) fn tunnels_hold_their_places_and_calls_are_refused_in_their_words() {
    let server = Backend::start(|conn| {
        let head = conn.head()?;
        let Some(key) = head.headers.get("sec-websocket-key") else { return conn.respond(200, &[], b"web") };
        let proof = testkit::websocket::accept_key(&key);
        conn.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {proof}\r\n\r\n"
        ))?;
        conn.hold(seconds(20));
        Ok(())
    });
    let pool = Pool::named("web").backend_with(server.address, &[("protocol", "\"h1\"".to_owned())]);
    let listener = limited(Listener::h2c().websocket().block("grpc", "enabled", true));
    let gateway = Gateway::start(Config::new().text(&policy("max = 1")).pool(pool).listener(listener));
    let upgrade = [
        ("Host", "a"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut tunnel = gateway.client();
    tunnel.send(request("GET", "/ws", &upgrade, b"")).unwrap();
    assert_eq!(tunnel.head("GET").unwrap().1.status, 101);
    std::thread::sleep(ms(300));
    assert_eq!(gateway.get("/").status, 503, "the tunnel goes on");
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let call = [("content-type", "application/grpc"), ("te", "trailers")];
    let refused = client.request("POST", "/s/m", &call, b"").unwrap();
    let status = refused.header("grpc-status");
    assert_eq!((refused.status(), status.as_deref()), (200, Some("14")), "UNAVAILABLE");
    drop(tunnel);
    assert_comes_back(&gateway);
}

pub(crate) fn requests_at_once_are_counted_by_key() {
    let gated = Gated::start();
    let text = policy("max = 1\nkey = \"client_ip\"");
    let config = Config::new().text(&text).pool(gated.pool());
    let gateway = Gateway::start(config.listener(limited(Listener::h1())));
    let running = gated.fill(&gateway, 1);
    let ask = |from: &str| {
        let from: IpAddr = from.parse().unwrap();
        Client::connect_from(from, gateway.front()).unwrap().get("/").unwrap().status
    };
    assert_eq!([ask("127.0.0.1"), ask("127.0.0.2"), ask("127.0.0.3")], [503, 200, 200]);
    gated.finish(running);
    eventually("the place comes back", seconds(10), || ask("127.0.0.1") == 200);
}

pub(crate) fn a_reload_knows_what_runs_and_dry_runs_refuse_nothing() {
    let gated = Gated::start();
    let (listener, first) = (Listener::h1(), Config::new());
    let config = |lines: &str| {
        let mut config = Config::new();
        config.admin = first.admin;
        config
            .block("observability", "metrics_bind", first.admin.to_string())
            .text(&policy(lines))
            .pool(gated.pool())
            .listener(limited(listener.clone()))
    };
    let mut gateway = Gateway::start(config("max = 2"));
    let mut running = gated.fill(&gateway, 2);
    assert_eq!(gateway.get("/").status, 503);
    assert!(matches!(gateway.reload(config("max = 3")), Reload::Complete(_)));
    assert_eq!(gateway.get("/").status, 200);
    running.extend(gated.fill(&gateway, 1));
    assert_eq!(gateway.get("/").status, 503);
    assert!(matches!(gateway.reload(config("max = 1\ndry_run = true")), Reload::Complete(_)));
    assert_eq!([gateway.get("/").status, gateway.get("/").status], [200, 200]);
    assert_eq!(gateway.metric("filter_dry_run_total", &[("reason", "concurrency")]), 2.0);
    assert!(matches!(gateway.reload(config("max = 1")), Reload::Complete(_)));
    assert_eq!(gateway.get("/").status, 503, "three run under settings from before");
    gated.finish(running);
    assert_comes_back(&gateway);
}

/// The limit shrinks while the backend is slow, and grows when it has recovered.
pub(crate) fn an_adaptive_limit_follows_the_backend() {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = Arc::clone(&slow);
    let backend = Backend::start(move |conn| {
        loop {
            conn.request()?;
            conn.pause(ms(if is_slow.load(SeqCst) { 100 } else { 4 }));
            conn.respond(200, &[], b"web")?;
        }
    });
    let text = policy("adaptive = true\nmax_limit = 20");
    let pool = Pool::named("web").backend(backend.address);
    let config = Config::new().runtime("workers", 1).runtime("max_keepalive_requests", 0).text(&text);
    let gateway = Gateway::start(config.pool(pool).listener(limited(Listener::h1())));
    let limit = |wanted: fn(f64) -> bool| {
        gateway.wait_metric("concurrency_limit", &[("policy", "few")], wanted);
    };
    limit(|limit| limit == 20.0);
    let stop = AtomicBool::new(false);
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !stop.load(SeqCst) {
                    match client.get("/").map(|got| got.status) {
                        Ok(200) => {}
                        Ok(503) => {
                            refused.fetch_add(1, SeqCst);
                            std::thread::sleep(ms(20));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        std::thread::sleep(seconds(2));
        slow.store(true, SeqCst);
        limit(|limit| limit < 10.0);
        slow.store(false, SeqCst);
        limit(|limit| limit > 15.0);
        stop.store(true, SeqCst);
    });
    assert!(refused.load(SeqCst) > 0);
}

pub(crate) fn a_request_that_finds_no_place_has_spent_nothing() {
    let gated = Gated::start();
    let policy = policy("max = 1")
        + "[policies.few.rate_limit]\nrequests = 4\nwindow_seconds = 3600\n[policies.few.cors]\nallow_origins = [\"https://app.example\"]\n";
    let config = Config::new().text(&policy).pool(gated.pool()).listener(limited(Listener::h1()));
    let gateway = Gateway::start(config);
    let running = gated.fill(&gateway, 1);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 503);
    }
    gated.finish(running);
    let mut passed = 0;
    eventually("the rate limit is used up", seconds(10), || {
        let status = gateway.get("/").status;
        passed += usize::from(status == 200);
        // That of the request before may not have come back yet.
        status == 429
    });
    assert_eq!(passed, 3, "of four, one was slow and none was spent on refusals");
}

pub(crate) fn a_preflight_takes_no_place() {
    let gated = Gated::start();
    let policy = policy("max = 1") + "[policies.few.cors]\nallow_origins = [\"https://app.example\"]\n";
    let config = Config::new().text(&policy).pool(gated.pool()).listener(limited(Listener::h1()));
    let gateway = Gateway::start(config);
    let running = gated.fill(&gateway, 1);
    let preflight = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")];
    for _ in 0..3 {
        assert_eq!(gateway.client().request("OPTIONS", "/", &preflight, b"").unwrap().status, 204);
        assert_eq!(gateway.get("/").status, 503);
    }
    gated.finish(running);
}

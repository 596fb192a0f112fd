//! Backends that cannot be reached are left alone without any block in the configuration, and requests that are lost with a backend are
//! sent again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use testkit::backend::{BlackHole, Conn};
use testkit::harness::Case;
use testkit::{
    Backend, Client, Config, Fault, Gateway, H2Backend, H2Client, Listener, eventually, ms, ports, seconds,
};

use crate::rig::{listener_to, one_worker};

pub(crate) fn cases() -> Vec<Case> {
    testkit::cases![
        one_of_twenty_is_alive,
        one_of_twenty_is_alive_behind_a_tcp_listener,
        a_host_that_drops_packets_costs_one_request,
        one_request_finds_out_that_a_backend_is_back,
        a_stopped_backend_costs_one_request,
        a_backend_that_is_slow_with_some_requests_is_not_left_alone,
        a_pool_of_the_dead_recovers_at_once,
        what_is_lost_with_its_backend_is_sent_once_more,
        nothing_is_sent_again_where_that_is_switched_off,
        blocks_of_pools_beside_backends_of_a_listener,
    ]
}

/// Two workers, which both have to know.
fn two_workers(config: Config) -> Config {
    config.runtime("workers", 2)
}

fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count).map(|_| gateway.get("/").status).collect()
}

fn one_of_twenty_is_alive() {
    let h1 = Backend::standard("alive");
    let h2 = H2Backend::start(|call| call.respond(200, &[], b"alive"));
    for (address, protocol) in [(h1.address, "h1"), (h2.address, "h2")] {
        let mut listener = Listener::h1();
        for at in 0..20 {
            let address = if at == 13 { address } else { ports::reserve() };
            listener = listener.backend(address).backend_key("protocol", protocol);
        }
        let front = listener.clone();
        let gateway = Gateway::start(two_workers(Config::new().listener(front)));
        assert_eq!(statuses(&gateway, 100), [200; 100], "{protocol}");
        let pool = listener.address.to_string();
        assert_eq!(gateway.metric("pool_rests_total", &[("pool", &pool)]), 19.0);
        assert_eq!(gateway.metric("pool_resting", &[("pool", &pool)]), 19.0);
        // Both workers may have been at the same one at the same time.
        let failed = gateway.metric("backend_connect_failures_total", &[]);
        assert!((19.0..40.0).contains(&failed), "{failed} connects failed");
        let told = || gateway.process.stderr.count("backend cannot be reached");
        eventually("each is told of", seconds(10), || told() >= 19);
        assert_eq!(told(), 19, "one line each");
    }
}

fn one_of_twenty_is_alive_behind_a_tcp_listener() {
    let alive = Backend::tcp_echo();
    let listener = (0..20).fold(Listener::tcp(), |listener, at| {
        listener.backend(if at == 13 { alive.address } else { ports::reserve() })
    });
    let gateway = Gateway::start(two_workers(Config::new().listener(listener)));
    for _ in 0..50 {
        let mut client = TcpStream::connect(gateway.front()).unwrap();
        client.set_read_timeout(Some(seconds(20))).unwrap();
        client.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello");
    }
    assert_eq!(gateway.metric("pool_rests_total", &[]), 19.0);
    assert!(gateway.metric("backend_connect_failures_total", &[]) < 40.0);
}

fn a_host_that_drops_packets_costs_one_request() {
    let (hole, alive) = (BlackHole::start(), Backend::standard("alive"));
    let listener = Listener::h1().backend(hole.address).backend(alive.address);
    let config = two_workers(Config::new()).runtime("connect_timeout_ms", 300).listener(listener);
    let gateway = Gateway::start(config);
    assert_eq!(statuses(&gateway, 40), [200; 40]);
    assert_eq!(gateway.metric("backend_connect_timeout_total", &[]), 1.0);
}

fn one_request_finds_out_that_a_backend_is_back() {
    let (leaving, staying) = (Backend::standard("leaving"), Backend::standard("staying"));
    let listener = listener_to(Listener::h1(), &[(leaving.address, ""), (staying.address, "")]);
    let config = two_workers(Config::new()).block("pools.p", "rest_ms", 400).listener(listener);
    let gateway = Gateway::start(config);
    assert_eq!(statuses(&gateway, 8), [200; 8]);
    leaving.stop();
    eventually("it is left alone", seconds(10), || {
        assert_eq!(gateway.get("/").status, 200);
        gateway.messages().iter().any(|line| line.starts_with("backend cannot be reached"))
    });
    // Long enough for some trials, which no client notices.
    for _ in 0..60 {
        assert_eq!(gateway.get("/").text(), "staying");
        std::thread::sleep(ms(20));
    }
    let back = Backend::start_at(leaving.address, |conn| {
        loop {
            conn.request()?;
            conn.respond(200, &[], b"back")?;
        }
    });
    eventually("it is back", seconds(20), || gateway.get("/").text() == "back");
    let answers: Vec<String> = (0..20).map(|_| gateway.get("/").text()).collect();
    assert!(answers.iter().filter(|text| *text == "back").count() >= 9, "it has its share: {answers:?}");
    gateway.process.stderr.wait("backend is reached again", seconds(10)).unwrap();
    let lines = gateway.process.stderr.matching("backend is reached again");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("\"failures\"") && lines[0].contains("\"trials\""), "{}", lines[0]);
    assert_eq!(gateway.process.stderr.count("backend cannot be reached"), 1);
    assert_eq!(gateway.metric("pool_resting", &[("pool", "p")]), 0.0);
    drop(back);
}

/// A backend that takes requests and is silent while `stopped`.
fn stoppable(name: &'static str) -> (Backend, Arc<AtomicBool>) {
    let stopped = Arc::new(AtomicBool::new(true));
    let here = Arc::clone(&stopped);
    let backend = Backend::start(move |conn: &mut Conn| {
        loop {
            let request = conn.request()?;
            while here.load(SeqCst) && request.target() != "/well" {
                conn.pause(ms(5));
            }
            conn.respond(200, &[], name.as_bytes())?;
        }
    });
    (backend, stopped)
}

fn a_stopped_backend_costs_one_request() {
    let (silent, stopped) = stoppable("silent");
    let alive = Backend::standard("alive");
    let listener =
        Listener::h1().http("head_timeout_ms", 1200).backend(silent.address).backend(alive.address);
    let gateway = Gateway::start(two_workers(Config::new().listener(listener)));
    let mut all = statuses(&gateway, 30);
    all.sort_unstable();
    assert_eq!((all[28], all[29]), (200, 504), "{all:?}");
    gateway.process.stderr.wait("no_answer", seconds(10)).unwrap();
    assert_eq!(gateway.process.stderr.count("no_answer"), 1);
    stopped.store(false, SeqCst);
}

fn a_backend_that_is_slow_with_some_requests_is_not_left_alone() {
    let (slow, stopped) = stoppable("slow");
    let alive = Backend::standard("alive");
    let listener = Listener::h1().http("head_timeout_ms", 1200).backend(slow.address).backend(alive.address);
    let gateway = Gateway::start(one_worker(Config::new().listener(listener)));
    let to = gateway.front();
    // Which backend gets one of them depends on how many others come between.
    let report = std::thread::spawn(move || {
        (0..50)
            .map(|_| Client::connect(to).unwrap().get("/report").unwrap().status)
            .find(|status| *status != 200)
    });
    while !report.is_finished() {
        assert_eq!(gateway.get("/well").status, 200);
        std::thread::sleep(ms(20));
    }
    assert_eq!(report.join().unwrap(), Some(504));
    assert_eq!(gateway.metric("pool_rests_total", &[]), 0.0);
    stopped.store(false, SeqCst);
}

fn a_pool_of_the_dead_recovers_at_once() {
    let (one, two) = (ports::reserve(), ports::reserve());
    let listener = Listener::h1().backend(one).backend(two);
    let pool = listener.address.to_string();
    let gateway = Gateway::start(two_workers(Config::new().listener(listener)));
    assert!(statuses(&gateway, 6).iter().all(|status| *status == 502));
    assert_eq!(gateway.metric("pool_panic", &[("pool", &pool)]), 1.0);
    assert!(gateway.admin_get("/backends").text().contains("\"panic\": true"));
    let back = Backend::start_at(two, |conn| {
        loop {
            conn.request()?;
            conn.respond(200, &[], b"back")?;
        }
    });
    assert_eq!(statuses(&gateway, 20), [200; 20], "all are asked, and the one that answers takes over");
    assert_eq!(gateway.metric("pool_panic", &[("pool", &pool)]), 0.0);
    assert!(gateway.admin_get("/backends").text().contains("\"panic\": false"));
    for line in ["pool in panic", "pool out of panic", "backend is reached again"] {
        gateway.process.stderr.wait(line, seconds(10)).unwrap();
        assert_eq!(gateway.process.stderr.count(line), 1, "{line}");
    }
    drop(back);
}

/// Backends that take a request and end the connection, the fresh one too; and one that serves.
struct Losing {
    h1: Backend,
    h2: H2Backend,
    lost: Arc<AtomicUsize>,
}

impl Losing {
    fn start() -> Self {
        let lost = Arc::new(AtomicUsize::new(0));
        let (one, two) = (Arc::clone(&lost), Arc::clone(&lost));
        let h1 = Backend::start(move |conn| {
            conn.request()?;
            one.fetch_add(1, SeqCst);
            Err(Fault::Closed)
        });
        let h2 = H2Backend::start(move |call| {
            two.fetch_add(1, SeqCst);
            call.cut();
            Ok(())
        });
        Self { h1, h2, lost }
    }

    fn each(&self) -> [(SocketAddr, &'static str); 2] {
        [(self.h1.address, "h1"), (self.h2.address, "h2")]
    }
}

fn what_is_lost_with_its_backend_is_sent_once_more() {
    let losing = Losing::start();
    let good = Backend::standard("good");
    for (address, protocol) in losing.each() {
        losing.lost.store(0, SeqCst);
        let listener =
            Listener::h2c().backend(address).backend_key("protocol", protocol).backend(good.address);
        let gateway = Gateway::start(one_worker(Config::new().listener(listener)));
        let mut budget = 0;
        for _ in 0..4 {
            // No more a second than the budget grants to a pool with few requests.
            std::thread::sleep(Duration::from_millis(if budget > 2 { 400 } else { 0 }));
            budget += 1;
            let answer = match budget % 2 {
                0 => gateway.get("/").text(),
                _ => H2Client::connect(gateway.front()).unwrap().get("/").unwrap().text(),
            };
            assert_eq!(answer, "good", "{protocol}");
        }
        assert!(losing.lost.load(SeqCst) >= 2, "{protocol}");
        let posts: Vec<u16> =
            (0..2).map(|_| gateway.client().request("POST", "/", &[], b"once").unwrap().status).collect();
        assert!(posts.contains(&502), "{protocol}: {posts:?}");
    }
    // Whoever kills all who serve it has two of them.
    losing.lost.store(0, SeqCst);
    let other = Losing::start();
    let listener = Listener::h1().backend(losing.h1.address).backend(other.h1.address);
    let gateway = Gateway::start(one_worker(Config::new().listener(listener)));
    assert_eq!(gateway.get("/").status, 502);
    assert_eq!(losing.lost.load(SeqCst) + other.lost.load(SeqCst), 2);
}

fn nothing_is_sent_again_where_that_is_switched_off() {
    let losing = Losing::start();
    let good = Backend::standard("good");
    for (address, protocol) in losing.each() {
        losing.lost.store(0, SeqCst);
        let listener = Listener::h1().block("retry", "attempts", 0);
        let listener = listener.backend(address).backend_key("protocol", protocol).backend(good.address);
        let gateway = Gateway::start(one_worker(Config::new().listener(listener)));
        let statuses = statuses(&gateway, 4);
        let failed = statuses.iter().filter(|status| **status == 502).count();
        assert_eq!((failed, losing.lost.load(SeqCst)), (2, 2), "{protocol}: {statuses:?}");
    }
}

fn blocks_of_pools_beside_backends_of_a_listener() {
    let (one, sick) = (Backend::standard("one"), ports::reserve());
    let listener = Listener::h1()
        .block("health", "type", "http")
        .block("health", "interval_ms", 100)
        .block("health", "timeout_ms", 100)
        .block("limits", "max_requests", 100)
        .block("outlier", "consecutive_5xx", 3)
        .block("sticky", "secure", false)
        .backend(one.address)
        .backend(sick);
    let pool = listener.address.to_string();
    let front = listener.clone();
    let mut gateway = Gateway::start(Config::new().listener(front.clone()));
    let probes = |gateway: &Gateway, result| {
        gateway.metric("backend_health_probes_total", &[("pool", &pool), ("result", result)])
    };
    eventually("both are probed", seconds(10), || {
        probes(&gateway, "passed") >= 2.0 && probes(&gateway, "connect") >= 2.0
    });
    assert_eq!(gateway.metric("pool_overflow_total", &[("pool", &pool)]), 0.0);
    assert!(gateway.metrics().has("backend_ejections_total"));
    assert!(gateway.get("/").header("set-cookie").is_some());
    let next = front.block("health", "interval_ms", 200).block("retry", "attempts", 2);
    let config = gateway.config.clone();
    gateway.reload(config.with_listener(next));
    let lines = gateway.messages();
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(has("health.interval_ms: 100 -> 200") && has("retry"), "{lines:#?}");
}

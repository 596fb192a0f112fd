//! Limits of one backend: who is let in, who waits, who is refused.
//!
//! A limit is divided among the workers, of which there are as many as processors: the tests ask for multiples of that number, and for
//! what holds however clients are spread over workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::retry::pool;
use testkit::backend::Conn;
use testkit::harness::Case;
use testkit::{Backend, Client, Config, Fault, Gateway, H2Backend, Listener, ms, seconds};

pub(crate) fn cases() -> Vec<Case> {
    testkit::cases![
        requests_at_once_are_limited,
        connections_at_once_are_limited,
        who_waits_is_served,
        nobody_waits_for_ever,
        the_queue_is_bounded,
        who_leaves_the_queue_makes_room,
        a_full_backend_is_passed_over,
        calls_are_told_that_the_backend_is_unavailable,
        streams_of_an_h2_backend_are_limited,
        an_h2_backend_with_one_connection_is_enough,
        tcp_connections_are_limited_and_wait,
        a_reload_keeps_what_is_counted,
        idle_connections_count_and_are_used_again,
        a_dead_idle_connection_gives_its_room_back,
    ]
}

/// How many workers there are.
fn workers() -> usize {
    thread::available_parallelism().unwrap().get()
}

fn limits(keys: &[(&str, usize)]) -> Config {
    keys.iter().fold(Config::new(), |config, (key, value)| config.block("pools.p.limits", key, *value))
}

fn gateway(config: Config, backend: &Backend) -> Gateway {
    Gateway::start(config.listener(pool(Listener::h1(), "h1", &[backend.address])))
}

/// A backend that answers when it is let, and knows how many requests it had at once.
struct Gated {
    backend: Backend,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Gated {
    fn start() -> Self {
        let (now, most, open) = (Arc::default(), Arc::default(), Arc::default());
        let (n, m, o): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>) =
            (Arc::clone(&now), Arc::clone(&most), Arc::clone(&open));
        let serve = move |conn: &mut Conn| -> Result<(), Fault> {
            loop {
                conn.request()?;
                m.fetch_max(n.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                while o.load(Ordering::SeqCst) == 0 {
                    thread::sleep(ms(2));
                }
                n.fetch_sub(1, Ordering::SeqCst);
                conn.respond(200, &[], b"ok")?;
            }
        };
        Self { backend: Backend::start(serve), now, most, open }
    }

    fn open(&self) {
        self.open.store(1, Ordering::SeqCst);
    }

    fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }
}

/// `count` clients that each send one request, on a connection of its own.
fn ask(gateway: &Gateway, count: usize) -> Vec<JoinHandle<u16>> {
    (0..count).map(|_| ask_one(gateway)).collect()
}

fn ask_one(gateway: &Gateway) -> JoinHandle<u16> {
    let to = gateway.front();
    thread::spawn(move || Client::connect(to).unwrap().get("/").unwrap().status)
}

/// How many of them were answered with each of 200 and 503; nothing else is.
fn statuses(asked: Vec<JoinHandle<u16>>) -> (usize, usize) {
    let all: Vec<u16> = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
    let of = |status| all.iter().filter(|&&other| other == status).count();
    assert_eq!(of(200) + of(503), all.len(), "{all:?}");
    (of(200), of(503))
}

fn overflow(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("pool_overflow_total", &[("pool", "p"), ("reason", reason)])
}

fn requests_at_once_are_limited() {
    let gated = Gated::start();
    let gateway = gateway(limits(&[("max_requests", workers())]), &gated.backend);
    let asked = ask(&gateway, 40);
    gateway
        .wait_metric("pool_overflow_total", &[("pool", "p")], |refused| refused >= (40 - workers()) as f64);
    assert!(gateway.metric("pool_circuit_open", &[("pool", "p")]) >= 1.0);
    gated.open();
    let (served, refused) = statuses(asked);
    assert!((1..=workers()).contains(&served), "{served}");
    assert!(gated.most.load(Ordering::SeqCst) <= workers());
    assert_eq!(overflow(&gateway, "max_requests"), refused as f64);
    gateway.wait_metric("pool_circuit_open", &[("pool", "p")], |open| open == 0.0);
    // All the room is free again.
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 200);
    }
}

fn connections_at_once_are_limited() {
    let gated = Gated::start();
    let gateway = gateway(limits(&[("max_connections", workers())]), &gated.backend);
    let asked = ask(&gateway, 40);
    gateway
        .wait_metric("pool_overflow_total", &[("pool", "p")], |refused| refused >= (40 - workers()) as f64);
    gated.open();
    let (served, refused) = statuses(asked);
    assert!((1..=workers()).contains(&served), "{served}");
    assert!(gated.backend.connections() <= workers(), "{}", gated.backend.connections());
    let refusals = [("pool", "p"), ("reason", "max_connections")];
    gateway.wait_metric("pool_overflow_total", &refusals, |count| count == refused as f64);
}

fn who_waits_is_served() {
    for key in ["max_requests", "max_connections"] {
        let gated = Gated::start();
        let keys = [(key, workers()), ("max_pending", 100 * workers()), ("pending_timeout_ms", 30_000)];
        let gateway = gateway(limits(&keys), &gated.backend);
        let asked = ask(&gateway, 40);
        gateway.wait_metric("pool_pending", &[("pool", "p")], |pending| pending >= (40 - workers()) as f64);
        gated.open();
        assert_eq!(statuses(asked), (40, 0), "{key}");
        assert!(gated.most.load(Ordering::SeqCst) <= workers());
        assert!(key != "max_connections" || gated.backend.connections() <= workers());
        assert_eq!(gateway.metric("pool_pending", &[("pool", "p")]), 0.0);
    }
}

fn nobody_waits_for_ever() {
    let gated = Gated::start();
    let keys = [("max_requests", workers()), ("max_pending", 100 * workers()), ("pending_timeout_ms", 200)];
    let gateway = gateway(limits(&keys), &gated.backend);
    let asked = ask(&gateway, 20);
    gateway
        .wait_metric("pool_overflow_total", &[("pool", "p")], |refused| refused >= (20 - workers()) as f64);
    gated.open();
    let (_, refused) = statuses(asked);
    assert!(refused >= 20 - workers());
    assert_eq!(overflow(&gateway, "pending_timeout"), refused as f64);
    assert_eq!(gateway.metric("pool_pending", &[("pool", "p")]), 0.0);
}

fn the_queue_is_bounded() {
    let gated = Gated::start();
    let waiting = 3 * workers();
    let keys = [("max_requests", workers()), ("max_pending", waiting), ("pending_timeout_ms", 30_000)];
    let gateway = gateway(limits(&keys), &gated.backend);
    let asked = ask(&gateway, 60);
    let refused = 60 - waiting - workers();
    gateway.wait_metric("pool_overflow_total", &[("pool", "p")], |count| count >= refused as f64);
    assert!(gateway.metric("pool_pending", &[("pool", "p")]) <= waiting as f64);
    gated.open();
    let (served, refused) = statuses(asked);
    assert!(served <= waiting + workers(), "{served}");
    assert_eq!(overflow(&gateway, "max_pending"), refused as f64);
}

fn who_leaves_the_queue_makes_room() {
    let gated = Gated::start();
    let keys =
        [("max_requests", workers()), ("max_pending", 100 * workers()), ("pending_timeout_ms", 30_000)];
    let gateway = gateway(limits(&keys), &gated.backend);
    let first = ask(&gateway, 10 * workers());
    testkit::eventually("the backend is full", seconds(10), || gated.now() >= 1);
    let gone: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = gateway.client();
            client.send(testkit::request("GET", "/gone", &[], b"")).unwrap();
            client
        })
        .collect();
    let pending = |least: usize| {
        gateway.wait_metric("pool_pending", &[("pool", "p")], |count| count >= least as f64);
    };
    pending(9 * workers() + 18);
    drop(gone);
    gateway.wait_metric("pool_pending", &[("pool", "p")], |count| count <= (10 * workers()) as f64);
    gated.open();
    let (served, refused) = statuses(first);
    assert_eq!((served, refused), (10 * workers(), 0));
    assert_eq!(gateway.metric("pool_pending", &[("pool", "p")]), 0.0);
}

fn a_full_backend_is_passed_over() {
    let (gated, other) = (Gated::start(), Backend::standard("other"));
    let listener = pool(Listener::h1(), "h1", &[gated.backend.address, other.address]);
    let gateway = Gateway::start(limits(&[("max_requests", workers())]).listener(listener));
    // One after the other: whoever meets the gated backend stays there.
    let mut asked = Vec::new();
    for _ in 0..40 {
        let held = gated.now();
        let one = ask_one(&gateway);
        testkit::eventually("it is served or held", seconds(10), || one.is_finished() || gated.now() > held);
        asked.push(one);
    }
    assert!((1..=workers()).contains(&gated.now()), "{}", gated.now());
    gated.open();
    assert_eq!(statuses(asked), (40, 0), "the other backend has room");
}

fn calls_are_told_that_the_backend_is_unavailable() {
    let gated = Gated::start();
    let listener = pool(Listener::h1(), "h1", &[gated.backend.address]).block("grpc", "enabled", true);
    let gateway = Gateway::start(limits(&[("max_requests", workers())]).listener(listener));
    let to = gateway.front();
    let call = move || {
        let fields = [("Content-Type", "application/grpc"), ("TE", "trailers")];
        let response = Client::connect(to).unwrap().request("POST", "/a.B/C", &fields, &[0; 5]).unwrap();
        (response.status, response.header("grpc-status"))
    };
    let called: Vec<_> = (0..20).map(|_| thread::spawn(call)).collect();
    gateway.wait_metric("pool_overflow_total", &[("pool", "p")], |count| count >= (20 - workers()) as f64);
    gated.open();
    let told: Vec<_> = called.into_iter().map(|call| call.join().unwrap()).collect();
    let unavailable = told.iter().filter(|(status, grpc)| *status == 200 && grpc.as_deref() == Some("14"));
    assert!(unavailable.count() >= 20 - workers(), "{told:?}");
}

fn tcp_connections_are_limited_and_wait() {
    let echo = Backend::tcp_echo();
    let keys =
        [("max_connections", workers()), ("max_pending", 100 * workers()), ("pending_timeout_ms", 300)];
    let gateway = Gateway::start(limits(&keys).listener(pool(Listener::tcp(), "tcp", &[echo.address])));
    let mut clients: Vec<Client> = (0..30).map(|_| gateway.client()).collect();
    gateway.wait_metric("pool_overflow_total", &[("pool", "p"), ("reason", "pending_timeout")], |count| {
        count >= (30 - workers()) as f64
    });
    assert!(echo.open_connections() <= workers());
    let mut served = 0;
    for client in &mut clients {
        served += usize::from(client.send("ping").is_ok() && client.wire.fill().is_ok_and(|n| n > 0));
    }
    assert!((1..=workers()).contains(&served), "{served}");
    drop(clients);
    testkit::eventually("there is room again", seconds(10), || {
        let mut client = gateway.client();
        client.send("ping").is_ok() && client.wire.fill().is_ok_and(|n| n > 0)
    });
}

fn a_reload_keeps_what_is_counted() {
    let (gated, other) = (Gated::start(), Gated::start());
    let base = || limits(&[("max_requests", workers())]);
    let listener = pool(Listener::h1(), "h1", &[gated.backend.address]);
    let mut gateway = Gateway::start(base().listener(listener.clone()));
    let first = ask(&gateway, 40);
    gateway.wait_metric("pool_overflow_total", &[("pool", "p")], |count| count >= (40 - workers()) as f64);
    // Another member, and the old one goes on being full.
    let mut config = gateway.config.clone();
    let more = pool(listener.text(""), "h1", &[other.backend.address]);
    config = config.with_listener(more);
    gateway.reload(config);
    let second = ask(&gateway, 60);
    gateway.wait_metric("pool_overflow_total", &[("pool", "p")], |count| {
        count >= (40 - workers() + 60 - workers()) as f64
    });
    assert!(gated.most.load(Ordering::SeqCst) <= workers());
    assert!(other.most.load(Ordering::SeqCst) <= workers());
    gated.open();
    other.open();
    statuses(first);
    statuses(second);
    gateway.wait_metric("pool_circuit_open", &[("pool", "p")], |open| open == 0.0);
    assert_eq!(gateway.get("/").status, 200);
}

fn idle_connections_count_and_are_used_again() {
    let backend = Backend::standard("one");
    let gateway = gateway(limits(&[("max_connections", workers())]), &backend);
    for _ in 0..50 {
        // A client of its own each time, so that every worker has its turn.
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(backend.connections() <= workers(), "{}", backend.connections());
    assert_eq!(overflow(&gateway, "max_connections"), 0.0);
}

fn a_dead_idle_connection_gives_its_room_back() {
    let backend = Backend::standard("one");
    let gateway = gateway(limits(&[("max_connections", workers())]), &backend);
    for _ in 0..10 {
        for _ in 0..2 * workers() {
            assert_eq!(gateway.get("/").status, 200);
        }
        backend.cut();
    }
    // A POST cannot be tried again, but a GET finds its connection dead and makes another, for which there must be room.
    assert_eq!(overflow(&gateway, "max_connections"), 0.0);
}

fn streams_of_an_h2_backend_are_limited() {
    let backend = slow_h2();
    let gateway = h2_gateway(&[("max_requests", workers())], &backend);
    let (served, refused) = statuses(ask(&gateway, 30));
    assert!(served >= 1 && refused >= 1, "{served} {refused}");
    assert_eq!(overflow(&gateway, "max_requests"), refused as f64);
    assert_eq!(backend.request_count(), served);
}

fn an_h2_backend_with_one_connection_is_enough() {
    let backend = slow_h2();
    let gateway = h2_gateway(&[("max_connections", workers())], &backend);
    assert_eq!(statuses(ask(&gateway, 30)), (30, 0));
    assert!(backend.connections() <= workers(), "{}", backend.connections());
    // It ends, and there is room for another.
    backend.cut();
    testkit::eventually("the next connection serves", seconds(10), || gateway.get("/").status == 200);
}

fn slow_h2() -> H2Backend {
    H2Backend::start(|call| {
        call.pause(ms(300));
        call.respond(200, &[], b"ok")
    })
}

fn h2_gateway(keys: &[(&str, usize)], backend: &H2Backend) -> Gateway {
    Gateway::start(limits(keys).listener(pool(Listener::h1(), "h2", &[backend.address])))
}

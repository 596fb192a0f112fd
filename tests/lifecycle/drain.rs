//! From the signal to the exit code.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use testkit::load::Load;
use testkit::process::{SIGINT, SIGTERM};
use testkit::{Backend, Client, Config, Gateway, Listener, ms, request, seconds};

/// A gateway that settles and drains for this long.
fn gateway(backend: &Backend, settle_ms: u64, drain_ms: u64) -> Gateway {
    let config =
        Config::new().runtime("readiness_settle_ms", settle_ms).runtime("drain_timeout_ms", drain_ms);
    Gateway::start(config.listener(Listener::h1().backend(backend.address)))
}

/// A client with a request under way.
fn busy(gateway: &Gateway, backend: &Backend, target: &str) -> Client {
    let before = backend.request_count();
    let mut client = gateway.client();
    client.send(request("GET", target, &[], b"")).unwrap();
    backend.wait_requests(before + 1);
    client
}

pub(crate) fn idle_gateway_ends_at_once() {
    let backend = Backend::standard("one");
    let mut gateway = gateway(&backend, 0, 30_000);
    // An idle keep-alive connection is no reason to wait for half a minute.
    let mut idle = gateway.client();
    idle.get("/").unwrap();
    assert_eq!(gateway.stop(seconds(10)), 0);
    idle.closed(seconds(3)).unwrap();
    let messages = gateway.messages();
    for text in ["entering drain", "drain completed cleanly", "ExpressGateway stopped"] {
        assert!(messages.iter().any(|m| m.contains(text)), "{text:?} is not in {messages:#?}");
    }
}

pub(crate) fn under_load_nothing_is_lost() {
    let backend = Backend::standard("one");
    let mut gateway = gateway(&backend, 600, 5000);
    let load = Load::start(gateway.front(), 8, "/slow/3", ms(0));
    testkit::eventually("traffic", seconds(10), || load.served() > 100);
    gateway.process.signal(SIGTERM);
    testkit::eventually("/readyz says 503", seconds(3), || gateway.readyz() == Some(503));
    // While it settles, everybody is still served: new connections as well.
    let served = load.served();
    assert_eq!(gateway.get("/").status, 200, "a new connection while it settles");
    testkit::eventually("traffic while it settles", seconds(3), || load.served() > served + 10);
    let code = gateway.process.wait_exit(seconds(15)).expect("an end");
    let tally = load.stop();
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    assert_eq!(code, 0);
    assert!(tally.closing.load(Relaxed) > 0, "no response announced the end of its connection");
    backend.assert_clean();
}

/// Clients between two requests look idle: a close would meet the next request half-way. Whether turns are spread or come all at once,
/// and however few clients there are, each is told by an answer that it is the last one.
pub(crate) fn busy_clients_lose_nothing() {
    let backend = Backend::standard("one");
    for (clients, jitter) in [(1, 600), (6, 0), (6, 1500), (40, 600)] {
        let config = Config::new()
            .runtime("readiness_settle_ms", 0)
            .runtime("drain_timeout_ms", 6000)
            .runtime("drain_jitter_ms", jitter);
        let mut gateway = Gateway::start(config.listener(Listener::h1().backend(backend.address)));
        let load = Load::start(gateway.front(), clients, "/", ms(3));
        testkit::eventually("traffic", seconds(10), || load.served() > 20 * clients as u64);
        gateway.process.signal(SIGTERM);
        let code = gateway.process.wait_exit(seconds(15)).expect("an end");
        let tally = load.stop();
        assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
        assert_eq!(tally.repeated.load(Relaxed), 0, "requests lost, of {clients} clients, jitter {jitter}");
        // A client that got no processor for as long as its connection may be idle has found it closed before its next request.
        let told = tally.closing.load(Relaxed);
        assert!(told * 4 >= clients as u64 * 3, "{told} of {clients} clients are told, jitter {jitter}");
        assert_eq!(code, 0);
    }
    backend.assert_clean();
}

/// What is idle closes without a word, each connection when its turn comes, and the drain does not wait for the rest of its time.
pub(crate) fn idle_connections_close_in_turn() {
    let backend = Backend::standard("one");
    let config = Config::new()
        .runtime("readiness_settle_ms", 0)
        .runtime("drain_timeout_ms", 60_000)
        .runtime("drain_jitter_ms", 2000);
    let mut gateway = Gateway::start(config.listener(Listener::h1().backend(backend.address)));
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.get("/").unwrap();
    }
    std::thread::sleep(ms(1100));
    let signalled = Instant::now();
    gateway.process.signal(SIGTERM);
    let workers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || client.closed(seconds(10)).map(|()| signalled.elapsed()).unwrap())
        })
        .collect();
    let mut closed: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    closed.sort();
    assert!(closed[3] - closed[0] >= ms(50), "all at once: {closed:?}");
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

pub(crate) fn phases_in_order() {
    let backend = Backend::standard("one");
    let mut gateway = gateway(&backend, 2000, 10_000);
    let mut slow = busy(&gateway, &backend, "/slow/5000");
    let signalled = Instant::now();
    gateway.process.signal(SIGTERM);
    testkit::eventually("/readyz says 503", seconds(2), || gateway.readyz() == Some(503));
    assert_eq!(gateway.get("/").status, 200, "it still settles");
    testkit::eventually("the port is closed", seconds(10), || Client::connect(gateway.front()).is_err());
    assert!(signalled.elapsed() >= ms(1950), "closed after {:?}, before it had settled", signalled.elapsed());
    // The admin port answers to the very end.
    let draining = "{\"status\":\"draining\"}\n";
    for (probe, status) in [("/readyz", 503), ("/livez", 200), ("/healthz", 200), ("/startupz", 200)] {
        let response = gateway.admin_get(probe);
        assert_eq!((response.status, response.text().as_str()), (status, draining), "{probe}");
    }
    assert_eq!(gateway.admin_get("/metrics").status, 200);
    assert!(gateway.process.exit().is_none());
    let response = slow.response("GET").unwrap();
    assert_eq!(response.status, 200);
    assert!(response.closes(), "the end of the connection is not announced");
    slow.closed(seconds(3)).unwrap();
    assert_eq!(gateway.process.wait_exit(seconds(5)), Some(0));
}

pub(crate) fn requests_under_way_are_finished() {
    let backend = Backend::standard("one");
    let mut gateway = gateway(&backend, 0, 10_000);
    let mut slow = busy(&gateway, &backend, "/slow/1000");
    let mut upload = gateway.client();
    upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n").unwrap();
    backend.wait_requests(2);
    let mut download = busy(&gateway, &backend, "/bytes/30000000");
    let (_, head) = download.head("GET").unwrap();
    gateway.process.signal(SIGTERM);
    upload.drip(testkit::pattern::bytes(50_000), 5000, ms(100)).unwrap();
    let response = upload.response("POST").unwrap();
    assert_eq!(response.text(), "50000 right");
    assert!(response.closes());
    assert_eq!(slow.response("GET").unwrap().status, 200);
    let mut seen = testkit::pattern::Verifier::default();
    testkit::wire::Body::new(head.framing).drain(&mut download.wire, |piece| seen.feed(piece)).unwrap();
    seen.assert_complete(30_000_000);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

pub(crate) fn missed_deadline_is_told() {
    let backend = Backend::standard("one");
    let mut gateway = gateway(&backend, 0, 400);
    let mut stuck = busy(&gateway, &backend, "/slow/30000");
    let code = gateway.stop(seconds(10));
    assert!(code > 0, "exit code {code} after connections were cut");
    let outcome = stuck.response("GET");
    assert!(outcome.is_err() || outcome.is_ok_and(|r| r.status >= 500), "an answer out of nothing");
    let said = gateway.process.stderr.count("drain deadline elapsed");
    assert!(said >= 1, "{:#?}", gateway.messages());
    assert_eq!(gateway.process.stderr.count("drain completed cleanly"), 0);
}

pub(crate) fn deadline_of_a_listener_counts() {
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address).key("drain_timeout_ms", 10_000);
    let config = Config::new().runtime("drain_timeout_ms", 100).listener(listener);
    let mut gateway = Gateway::start(config);
    let mut slow = busy(&gateway, &backend, "/slow/1500");
    gateway.process.signal(SIGTERM);
    assert_eq!(slow.response("GET").unwrap().status, 200);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

pub(crate) fn tcp_connections_may_finish() {
    let backend = Backend::tcp_echo();
    let config = Config::new().runtime("drain_timeout_ms", 5000);
    let mut gateway = Gateway::start(config.clone().listener(Listener::tcp().backend(backend.address)));
    let mut client = gateway.client();
    client.send("before").unwrap();
    assert_eq!(client.wire.exactly(6).unwrap(), b"before");
    gateway.process.signal(SIGTERM);
    testkit::eventually("the port is closed", seconds(5), || Client::connect(gateway.front()).is_err());
    client.send("after").unwrap();
    assert_eq!(client.wire.exactly(5).unwrap(), b"after");
    client.finish();
    client.closed(seconds(3)).unwrap();
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));

    let mut stubborn = Gateway::start(
        config.runtime("drain_timeout_ms", 300).with_listener(Listener::tcp().backend(backend.address)),
    );
    let mut client = stubborn.client();
    client.send("x").unwrap();
    client.wire.exactly(1).unwrap();
    let code = stubborn.stop(seconds(10));
    assert!(code > 0, "exit code {code} after a connection was cut");
    client.closed(seconds(3)).unwrap();
}

pub(crate) fn c_02_second_signal_is_harmless() {
    let backend = Backend::standard("one");
    let mut gateway = gateway(&backend, 200, 10_000);
    let mut slow = busy(&gateway, &backend, "/slow/1500");
    for signal in [SIGTERM, SIGTERM, SIGINT, SIGTERM] {
        gateway.process.signal(signal);
        std::thread::sleep(ms(100));
    }
    assert_eq!(slow.response("GET").unwrap().status, 200);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

pub(crate) fn interrupt_drains_too() {
    let backend = Backend::standard("one");
    let mut gateway = gateway(&backend, 0, 10_000);
    let mut slow = busy(&gateway, &backend, "/slow/800");
    gateway.process.signal(SIGINT);
    assert_eq!(slow.response("GET").unwrap().status, 200);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

pub(crate) fn a_late_request_on_a_kept_connection_is_served() {
    let backend = Backend::standard("one");
    let config = Config::new()
        .runtime("readiness_settle_ms", 0)
        .runtime("drain_timeout_ms", 8000)
        .runtime("drain_jitter_ms", 4000);
    let mut gateway = Gateway::start(config.listener(Listener::h1().backend(backend.address)));
    let mut clients: Vec<Client> = (0..40).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.get("/").unwrap();
    }
    gateway.process.signal(SIGTERM);
    testkit::eventually("the port is closed", seconds(5), || Client::connect(gateway.front()).is_err());
    // Connections close one after the other over four seconds: most are open still, and what they ask is answered.
    let answers: Vec<_> = clients.iter_mut().filter_map(|client| client.get("/").ok()).collect();
    assert!(answers.len() >= 20, "only {} of 40 late requests were served", answers.len());
    assert!(answers.iter().all(|response| response.status == 200 && response.closes()));
    drop(clients);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

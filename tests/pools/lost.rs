//! Connections to backends that are lost under a request: who is to blame, and what becomes of the request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::retry::{pool, rules};
use crate::rig::one_worker;
use crate::sticky;
use testkit::backend::Conn;
use testkit::h2::{Event, code, frame, hpack};
use testkit::harness::Case;
use testkit::{
    Backend, Client, Config, Fault, Gateway, H2Backend, Listener, eventually, ms, ports, request, seconds,
};

pub(crate) fn cases() -> Vec<Case> {
    testkit::cases![
        a_lost_stream_is_tried_again_where_resets_are,
        a_lost_stream_is_the_backend_s_fault,
        without_rules_a_lost_stream_is_tried_again_once_used,
        what_was_not_processed_is_always_tried_again,
        what_has_not_left_is_always_tried_again,
        a_dead_connection_leaves_the_client_with_its_backend,
        after_a_dead_connection_comes_a_new_one,
        an_idle_connection_does_not_give_way_to_nobody,
        what_was_sent_in_vain_is_counted,
    ]
}

/// A backend that ends its connection when it is asked for `/lost`, and answers all else.
fn losing() -> H2Backend {
    H2Backend::start(|call| {
        if call.path() == "/lost" {
            call.cut();
            return Ok(());
        }
        call.respond(200, &[], b"kept")
    })
}

/// How many requests were lost there.
fn lost_at(backend: &H2Backend) -> usize {
    backend.requests().iter().filter(|request| request.path() == "/lost").count()
}

fn h2_gateway(config: Config, backends: &[&H2Backend]) -> (Gateway, Client) {
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    let gateway = Gateway::start(one_worker(config).listener(pool(Listener::h1(), "h2", &addresses)));
    let mut client = gateway.client();
    // From here on connections have served before.
    for _ in 0..2 * backends.len() {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    (gateway, client)
}

fn a_lost_stream_is_tried_again_where_resets_are() {
    for on in ["reset", "503"] {
        let bad = losing();
        let good = H2Backend::start(|call| call.respond(200, &[], b"good"));
        let (_gateway, mut client) = h2_gateway(rules(1, &[on]), &[&bad, &good]);
        let statuses: Vec<u16> = (0..4).map(|_| client.get("/lost").unwrap().status).collect();
        let lost = lost_at(&bad);
        let failed = statuses.iter().filter(|status| **status == 502).count();
        assert!(lost > 0);
        assert_eq!(failed, if on == "reset" { 0 } else { lost }, "{on}: {statuses:?}");
    }
}

fn a_lost_stream_is_the_backend_s_fault() {
    let bad = losing();
    let good = H2Backend::start(|call| call.respond(200, &[], b"good"));
    let config = rules(1, &["reset"]).block("pools.p.outlier", "consecutive_gateway_failures", 2).block(
        "pools.p.outlier",
        "base_ejection_ms",
        60_000,
    );
    let (gateway, mut client) = h2_gateway(config, &[&bad, &good]);
    for _ in 0..6 {
        assert_eq!(client.get("/lost").unwrap().text(), "good");
    }
    assert_eq!(lost_at(&bad), 2, "then it is out");
    assert_eq!(gateway.metric("pool_retries_total", &[("pool", "p"), ("reason", "reset")]), 2.0);
}

fn without_rules_a_lost_stream_is_tried_again_once_used() {
    let lost = Arc::new(AtomicUsize::new(0));
    let lost_here = Arc::clone(&lost);
    // The same for each connection: its second request and all that come with it are lost.
    let backend = H2Backend::start(move |call| {
        if call.stream > 1 && lost_here.fetch_add(1, Ordering::SeqCst) == 0 {
            call.cut();
            return Ok(());
        }
        call.respond(200, &[], b"kept")
    });
    let config = Config::new().block("pools.p.outlier", "consecutive_gateway_failures", 100).listener(pool(
        Listener::h1(),
        "h2",
        &[backend.address],
    ));
    let gateway = Gateway::start(one_worker(config));
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert_eq!((lost.load(Ordering::SeqCst) > 0, backend.connections()), (true, 2));
    // The first loss of a POST is its end.
    lost.store(0, Ordering::SeqCst);
    assert_eq!(client.request("POST", "/", &[], b"once").unwrap().status, 502);
}

fn what_was_not_processed_is_always_tried_again() {
    let first = Arc::new(AtomicUsize::new(0));
    let backend = H2Backend::start(move |call| {
        if call.path() != "/turned-away" {
            return call.respond(200, &[], b"kept");
        }
        match first.fetch_add(1, Ordering::SeqCst) {
            0 => {
                call.goaway(call.stream - 2, code::NO_ERROR)?;
                call.cut();
                Ok(())
            }
            _ => call.respond(200, &[], b"taken"),
        }
    });
    let (_gateway, mut client) = h2_gateway(rules(1, &["503"]), &[&backend]);
    let response = client.request("POST", "/turned-away", &[], b"once").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "taken"));
}

fn what_has_not_left_is_always_tried_again() {
    let go = Arc::new(AtomicUsize::new(0));
    let gone = Arc::clone(&go);
    let backend = H2Backend::raw(move |reader, number| {
        reader.wire.set_timeout(seconds(60));
        reader.wire.send(&frame::settings(&[]))?;
        loop {
            let Event::Headers { stream, .. } = reader.event()? else { continue };
            reader.wire.send(&frame::headers(stream, hpack::block(&[(":status", "200")]), true))?;
            if number == 1 {
                // The answer is never read, so that the connection is reset.
                reader.wire.send(&frame::ping([0; 8]))?;
                reader.wire.stream().peek(&mut [0])?;
                gone.store(1, Ordering::SeqCst);
                while gone.load(Ordering::SeqCst) < 2 {
                    std::thread::sleep(ms(2));
                }
                return Err(Fault::Closed);
            }
        }
    });
    let config = rules(1, &["503"]).listener(pool(Listener::h1(), "h2", &[backend.address]));
    let gateway = Gateway::start(one_worker(config));
    let mut client = gateway.client();
    assert_eq!(client.get("/").unwrap().status, 200);
    eventually("the connection rests", seconds(10), || go.load(Ordering::SeqCst) == 1);
    // The request comes before the end of the connection, and is not written before it.
    gateway.process.hold();
    client.send(request("POST", "/", &[], b"once")).unwrap();
    go.store(2, Ordering::SeqCst);
    eventually("the connection has ended", seconds(10), || {
        backend.open_connections() == 0 && ports::connected_to(backend.address.port()) == 0
    });
    gateway.process.resume();
    assert_eq!(client.response("POST").unwrap().status, 200);
    assert_eq!(backend.connections(), 2);
}

/// A backend that names itself, and ends a connection without an answer when its second request comes.
fn once_only(name: &'static str) -> Backend {
    Backend::start(move |conn| {
        conn.request()?;
        conn.respond(200, &[], name.as_bytes())?;
        conn.request()?;
        Err(Fault::Closed)
    })
}

fn a_dead_connection_leaves_the_client_with_its_backend() {
    let backends = [once_only("a"), once_only("b"), once_only("c")];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let config = sticky::sticky(rules(1, &["connect"]));
    let gateway = Gateway::start(one_worker(config).listener(pool(Listener::h1(), "h1", &addresses)));
    let first = sticky::visit(&gateway, None);
    let cookie = sticky::pair(&first).unwrap();
    for visit in 0..6 {
        // Each second visit finds a connection that is about to die.
        let again = sticky::visit(&gateway, Some(&cookie));
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None), "visit {visit}");
    }
    assert!(gateway.metric("pool_retries_total", &[("pool", "p"), ("reason", "stale")]) >= 3.0);
}

/// A backend whose connections end under a request for `/stale`, when the test says so; `/held` is answered then.
struct Stale {
    backend: Backend,
    go: Arc<AtomicUsize>,
}

impl Stale {
    /// `each` says what a connection does with any other request; its number on the connection is told.
    fn start(each: fn(&mut Conn, usize) -> Result<(), Fault>) -> Self {
        let go = Arc::new(AtomicUsize::new(0));
        let gone = Arc::clone(&go);
        let backend = Backend::start(move |conn| {
            for number in 1.. {
                let request = conn.request()?;
                if request.target() == "/stale" && number > 1 {
                    while gone.load(Ordering::SeqCst) == 0 {
                        conn.pause(ms(2));
                    }
                    return Err(Fault::Closed);
                }
                each(conn, number)?;
            }
            Ok(())
        });
        Self { backend, go }
    }

    /// Lets `/stale` fail once somebody waits for its place.
    fn fail_under(&self, gateway: &Gateway) -> (u16, u16) {
        let to = gateway.front();
        let get = move |target: &'static str| {
            std::thread::spawn(move || Client::connect(to).unwrap().get(target).unwrap().status)
        };
        let before = self.backend.request_count();
        let stale = get("/stale");
        self.backend.wait_requests(before + 1);
        let other = get("/other");
        gateway.wait_metric("pool_pending", &[("pool", "p")], |pending| pending >= 1.0);
        self.go.store(1, Ordering::SeqCst);
        (stale.join().unwrap(), other.join().unwrap())
    }
}

fn limited(keys: &[(&str, u32)]) -> Config {
    let config = one_worker(Config::new()).block("pools.p.limits", "max_pending", 10);
    let config = config.block("pools.p.limits", "pending_timeout_ms", 20_000);
    keys.iter().fold(config, |config, (key, value)| config.block("pools.p.limits", key, *value))
}

fn after_a_dead_connection_comes_a_new_one() {
    // Whoever waited is first on the next connection, which dies under the second request on it.
    let stale = Stale::start(|conn, number| match number {
        1 => conn.respond(200, &[], b"first"),
        _ => Err(Fault::Closed),
    });
    let listener = pool(Listener::h1(), "h1", &[stale.backend.address]).http("retries", 1);
    let gateway = Gateway::start(limited(&[("max_connections", 1)]).listener(listener));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(stale.fail_under(&gateway), (200, 200));
    assert_eq!(stale.backend.connections(), 3);
}

fn an_idle_connection_does_not_give_way_to_nobody() {
    let stale = Stale::start(|conn, _| {
        conn.pause(ms(200));
        conn.respond(200, &[], b"ok")
    });
    let listener = pool(Listener::h1(), "h1", &[stale.backend.address]);
    let mut gateway = Gateway::start(limited(&[("max_requests", 3)]).listener(listener));
    let to = gateway.front();
    let warm: Vec<_> = (0..3)
        .map(|_| std::thread::spawn(move || Client::connect(to).unwrap().get("/").unwrap().status))
        .collect();
    warm.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), 200));
    assert_eq!(stale.backend.connections(), 3);
    // No more than one request at a time from here on: who fails has to queue, and connections are not what is missing.
    gateway.reload(gateway.config.clone().block("pools.p.limits", "max_requests", 1));
    assert_eq!(stale.fail_under(&gateway), (200, 200));
    assert_eq!((stale.backend.connections(), stale.backend.open_connections()), (4, 3));
}

/// All that backends were sent is counted, that which left in the same turn in which the try failed too.
fn what_was_sent_in_vain_is_counted() {
    let half = Arc::new(AtomicUsize::new(0));
    let half_here = Arc::clone(&half);
    // It answers with half of the body before it, and not to the end.
    let hasty = Backend::start(move |conn| {
        conn.head()?;
        conn.piece()?;
        half_here.store(1, Ordering::SeqCst);
        while half_here.load(Ordering::SeqCst) < 2 {
            conn.pause(ms(2));
        }
        conn.send("HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nno")?;
        half_here.store(3, Ordering::SeqCst);
        conn.body()?;
        conn.hold(seconds(20));
        Ok(())
    });
    let good = Backend::standard("good");
    let addresses = [hasty.address, good.address];
    let config = one_worker(rules(1, &["503"])).block("pools.p.retry", "budget_min", 10);
    let gateway = Gateway::start(config.listener(pool(Listener::h1(), "h1", &addresses)));
    let mut client = gateway.client();
    while hasty.request_count() == 0 {
        client = gateway.client();
        client.send(request("PUT", "/", &[("Content-Length", "20")], b"0123456789")).unwrap();
        eventually("somebody has half of it", seconds(10), || {
            half.load(Ordering::SeqCst) == 1 || good.received().concat().ends_with(b"0123456789")
        });
    }
    // The rest of the body and the answer come at once.
    gateway.process.hold();
    client.send("0123456789").unwrap();
    half.store(2, Ordering::SeqCst);
    eventually("it has answered", seconds(10), || half.load(Ordering::SeqCst) == 3);
    gateway.process.resume();
    assert_eq!(client.response("PUT").unwrap().status, 200);
    let received =
        || -> usize { [&hasty, &good].iter().flat_map(|one| one.received()).map(|tap| tap.len()).sum() };
    eventually("what left is counted", seconds(10), || {
        gateway.metric("bytes_client_to_backend", &[]) == received() as f64
    });
}

//! Reloads under load drop nothing: no request, no connection, no byte of a download.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use testkit::gateway::Reload;
use testkit::harness::Case;
use testkit::load::Load;
use testkit::pattern::Verifier;
use testkit::websocket;
use testkit::wire::Body;
use testkit::{Backend, Config, Gateway, Listener, Pool, ms, request, seconds};

fn main() {
    let cases = vec![
        Case::new("reload_zero_drop", reload_zero_drop).alone(),
        Case::new("new_backends_serve_old_connections", new_backends_serve_old_connections),
        Case::new("timeouts_change_on_old_connections", timeouts_change_on_old_connections),
        Case::new("weights_change_while_running", weights_change_while_running),
        Case::new("named_pools_change_under_their_listeners", named_pools_change),
        Case::new("tcp_backends_change_without_touching_connections", tcp_backends_change),
        Case::new("tunnels_outlive_reloads", tunnels_outlive_reloads),
    ];
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}

#[track_caller]
fn apply(gateway: &mut Gateway, config: Config) {
    let verdict = gateway.reload(config);
    assert!(matches!(verdict, Reload::Complete(_)), "{verdict:?}");
}

/// Ten megabytes a second for as long as the reloads go on; then the whole is compared.
fn download(front: std::net::SocketAddr, size: u64, is_over: &AtomicBool) -> Verifier {
    let mut client = testkit::Client::connect(front).unwrap();
    client.send(request("GET", &format!("/bytes/{size}"), &[], b"")).unwrap();
    let (_, head) = client.head("GET").unwrap();
    let mut seen = Verifier::default();
    Body::new(head.framing)
        .drain(&mut client.wire, |piece| {
            seen.feed(piece);
            if !is_over.load(Relaxed) {
                std::thread::sleep(ms(10));
            }
        })
        .unwrap();
    seen
}

fn reload_zero_drop() {
    let names = ["a", "b", "c"];
    let [a, b, c] = names.map(Backend::standard);
    let listener = Listener::h1();
    let base = Config::new();
    let with = |listener: Listener| base.clone().with_listener(listener);
    let plans = [
        with(listener.clone().backend(a.address)),
        with(listener.clone().backend(b.address)),
        with(listener.clone().weighted(a.address, 3).weighted(b.address, 1).http("head_timeout_ms", 5000)),
        with(listener.clone().backend(c.address).http("body_timeout_ms", 7000)),
        with(listener.clone().weighted(c.address, 1).weighted(a.address, 5).http("total_timeout_ms", 50_000)),
        with(listener.clone().backend(a.address).backend(b.address).backend(c.address)),
    ];
    let mut gateway = Gateway::start(plans[0].clone());
    let front = gateway.front();
    let size = 100 << 20;
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let long = std::thread::spawn(move || download(front, size, &over));
    let load = Load::start(front, 8, "/", ms(0));
    // Each plan four times, and one more.
    let reloads = 4 * plans.len() + 1;
    for reload in 1..=reloads {
        let next = plans.get(reload % plans.len()).unwrap().clone();
        apply(&mut gateway, next);
        std::thread::sleep(ms(200));
    }
    is_over.store(true, Relaxed);
    // The last word: only c, and something new.
    apply(&mut gateway, plans.get(3).unwrap().clone());
    std::thread::sleep(ms(300));
    let (a_before, b_before, c_before) = (a.request_count(), b.request_count(), c.request_count());
    std::thread::sleep(ms(500));
    assert_eq!((a.request_count(), b.request_count()), (a_before, b_before), "removed backends get requests");
    assert!(c.request_count() > c_before);
    let tally = load.stop();
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    assert_eq!(tally.failed.load(Relaxed), 0);
    assert_eq!(tally.refused.load(Relaxed), 0, "connections were refused");
    assert_eq!(tally.repeated.load(Relaxed), 0, "connections were cut");
    for name in names {
        assert!(tally.served_by(name) > 0, "{name} never served");
    }
    long.join().unwrap().assert_complete(size);
    gateway.wait_metric("config_reload_succeeded_total", &[], |v| v >= reloads as f64);
    assert_eq!(gateway.metric("config_reload_failed_total", &[]), 0.0);
    for backend in [&a, &b, &c] {
        backend.assert_clean();
    }
}

fn new_backends_serve_old_connections() {
    let (old, new) = (Backend::standard("old"), Backend::standard("new"));
    let listener = Listener::h1();
    let base = Config::new();
    let mut gateway = Gateway::start(base.clone().with_listener(listener.clone().backend(old.address)));
    let mut client = gateway.client();
    assert_eq!(client.get("/").unwrap().text(), "old");
    let mut busy = gateway.client();
    busy.send(request("GET", "/slow/1000", &[], b"")).unwrap();
    old.wait_requests(2);
    apply(&mut gateway, base.clone().with_listener(listener.backend(new.address)));
    assert_eq!(client.get("/").unwrap().text(), "new", "the next request on the same connection");
    let response = busy.response("GET").unwrap();
    assert_eq!(response.text(), "old", "what was under way ends where it began");
    assert!(!response.closes());
    assert_eq!(busy.get("/").unwrap().text(), "new");
    testkit::eventually("connections to the old backend are let go", seconds(70), || {
        old.open_connections() == 0
    });
}

fn timeouts_change_on_old_connections() {
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address);
    let base = Config::new();
    let mut gateway = Gateway::start(base.clone().with_listener(listener.clone()));
    let mut client = gateway.client();
    assert_eq!(client.get("/slow/600").unwrap().status, 200);
    apply(&mut gateway, base.with_listener(listener.http("head_timeout_ms", 200)));
    assert_eq!(client.get("/slow/2000").unwrap().status, 504);
}

fn weights_change_while_running() {
    let (a, b) = (Backend::standard("a"), Backend::standard("b"));
    let listener = Listener::h1();
    let base = Config::new().runtime("workers", 1);
    let weights = |first, second| {
        base.clone().with_listener(listener.clone().weighted(a.address, first).weighted(b.address, second))
    };
    let mut gateway = Gateway::start(weights(1, 1));
    let mut client = gateway.client();
    for (first, second) in [(1, 1), (4, 1), (1, 3)] {
        if (first, second) != (1, 1) {
            apply(&mut gateway, weights(first, second));
        }
        let before = a.request_count();
        let turns = 5 * (first + second) as usize;
        for _ in 0..turns {
            assert_eq!(client.get("/").unwrap().status, 200);
        }
        assert_eq!(a.request_count() - before, turns * first as usize / (first + second) as usize);
    }
}

fn named_pools_change() {
    let [old, new, other] = ["old", "new", "other"].map(Backend::standard);
    let (first, second) = (Listener::h1(), Listener::h1());
    let addresses = [first.address, second.address];
    let base = Config::new().runtime("workers", 1);
    let with = |web: Pool, api: Pool, of_second: &str| {
        let second = second.clone().pool(of_second);
        base.clone().listener(first.clone().pool("web")).listener(second).pool(web).pool(api)
    };
    let (web, api) = (Pool::named("web"), Pool::named("api").backend(other.address));
    let of_old = web.clone().weighted(old.address, 3).weighted(new.address, 0);
    let mut gateway = Gateway::start(with(of_old, api.clone(), "web"));
    let mut clients = addresses.map(|address| testkit::Client::connect(address).unwrap());
    let mut served = || clients.each_mut().map(|client| client.get("/").unwrap().text());
    assert_eq!(served(), ["old", "old"]);
    // Both listeners follow their pool on connections that are open.
    let of_new = web.clone().backend(new.address);
    apply(&mut gateway, with(of_new.clone(), api.clone(), "web"));
    assert_eq!(served(), ["new", "new"]);
    // One of them moves to the other pool, and a weight in it counts at once.
    apply(&mut gateway, with(of_new.clone(), api.clone(), "api"));
    assert_eq!(served(), ["new", "other"]);
    apply(
        &mut gateway,
        with(of_new, Pool::named("api").weighted(other.address, 1).weighted(old.address, 4), "api"),
    );
    let before = old.request_count();
    for _ in 0..20 {
        assert_eq!(served()[0], "new");
    }
    assert_eq!(old.request_count() - before, 16);
    gateway.wait_metric("config_reload_succeeded_total", &[], |v| v == 3.0);
}

fn tcp_backends_change() {
    let named = |name: &'static str| {
        Backend::start(move |conn| {
            conn.send(name)?;
            loop {
                let byte = conn.wire.exactly(1)?;
                conn.send(byte)?;
            }
        })
    };
    let (old, new) = (named("old"), named("new"));
    let listener = Listener::tcp();
    let base = Config::new();
    let mut gateway = Gateway::start(base.clone().with_listener(listener.clone().backend(old.address)));
    let mut before = gateway.client();
    assert_eq!(before.wire.exactly(3).unwrap(), b"old");
    apply(&mut gateway, base.with_listener(listener.backend(new.address)));
    for _ in 0..6 {
        assert_eq!(gateway.client().wire.exactly(3).unwrap(), b"new");
    }
    before.send("x").unwrap();
    assert_eq!(before.wire.exactly(1).unwrap(), b"x", "the running connection was touched");
    assert_eq!(old.connections(), 1);
}

fn tunnels_outlive_reloads() {
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            websocket::accept_key("dGhlIHNhbXBsZSBub25jZQ==")
        ))?;
        while let Some((_, payload)) = websocket::read(&mut conn.wire)? {
            conn.send(websocket::to_client(payload))?;
        }
        Ok(())
    });
    let other = Backend::standard("other");
    let listener = Listener::h1().websocket();
    let base = Config::new();
    let mut gateway = Gateway::start(base.clone().with_listener(listener.clone().backend(backend.address)));
    let mut client = gateway.client();
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    client.send(request("GET", "/", &fields, b"")).unwrap();
    assert_eq!(client.head("GET").unwrap().1.status, 101);
    for address in [other.address, backend.address, other.address] {
        apply(&mut gateway, base.clone().with_listener(listener.clone().backend(address)));
        client.send(websocket::to_server("x")).unwrap();
        let (_, payload) = websocket::read(&mut client.wire).unwrap().unwrap();
        assert_eq!(payload, b"x");
    }
}

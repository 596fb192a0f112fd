//! Which backend gets a request, and what happens when it cannot have it.

use crate::rig::gateway;
use testkit::backend::BlackHole;
use testkit::{Backend, Config, Gateway, Listener, ports, request, seconds};

pub(crate) fn weights_are_true() {
    let (heavy, light) = (Backend::standard("heavy"), Backend::standard("light"));
    let listener = Listener::h1().weighted(heavy.address, 3).weighted(light.address, 1);
    let gateway = Gateway::start(Config::new().listener(listener));
    // On one connection, and over many: each worker keeps its own turn.
    for per_connection in [100, 1] {
        let before = (heavy.request_count(), light.request_count());
        let mut sent = 0;
        while sent < 400 {
            let mut client = gateway.client();
            for _ in 0..per_connection {
                assert_eq!(client.get("/").unwrap().status, 200);
                sent += 1;
            }
        }
        let shares = (heavy.request_count() - before.0, light.request_count() - before.1);
        assert_eq!(shares.0 + shares.1, 400);
        assert!((294..=306).contains(&shares.0), "{per_connection} a connection: {shares:?}");
    }
}

pub(crate) fn equal_backends_take_turns() {
    let backends = [Backend::standard("a"), Backend::standard("b"), Backend::standard("c")];
    let gateway = gateway(&[&backends[0], &backends[1], &backends[2]]);
    let mut client = gateway.client();
    let mut last = String::new();
    for _ in 0..60 {
        let name = client.get("/").unwrap().text();
        assert_ne!(name, last, "the same backend twice in a row");
        last = name;
    }
    for backend in &backends {
        assert_eq!(backend.request_count(), 20);
    }
}

pub(crate) fn dead_backend_is_passed_over() {
    let alive = Backend::standard("alive");
    let dead = ports::reserve();
    let listener = Listener::h1().backend(dead).backend(alive.address);
    let gateway = Gateway::start(Config::new().listener(listener));
    let mut client = gateway.client();
    for number in 0..90 {
        let (method, body) = if number % 3 == 0 { ("POST", "a body") } else { ("GET", "") };
        let response = client.request(method, "/", &[], body.as_bytes()).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "alive"), "request {number}");
    }
    // It comes back, and gets its share again.
    let back = Backend::standard_at(dead, "back");
    testkit::eventually("the backend that is back gets requests", seconds(30), || {
        assert_eq!(gateway.get("/").status, 200);
        back.request_count() > 0
    });
    // It goes away with connections in the pool; a repeatable request never sees that.
    back.stop();
    for number in 0..40 {
        assert_eq!(gateway.get("/").status, 200, "request {number} after it went away");
    }
}

pub(crate) fn all_dead_is_502() {
    let listener = Listener::h1().backend(ports::reserve()).backend(ports::reserve());
    let gateway = Gateway::start(Config::new().listener(listener));
    let mut client = gateway.client();
    for number in 0..5 {
        let response = client.get("/").unwrap();
        assert_eq!(response.status, 502, "request {number}");
        if response.closes() {
            client = gateway.client();
        }
    }
    // A body that nobody will take does not disturb the connection.
    let mut client = gateway.client();
    client.send(request("POST", "/", &[], &[b'x'; 100_000])).unwrap();
    assert_eq!(client.response("POST").unwrap().status, 502);
}

pub(crate) fn unreachable_backend_times_out() {
    let hole = BlackHole::start();
    let config = |listener: Listener| {
        Gateway::start(Config::new().runtime("connect_timeout_ms", 200).listener(listener))
    };
    let alone = config(Listener::h1().backend(hole.address));
    let status = alone.get("/").status;
    assert!([502, 504].contains(&status), "{status}");

    let alive = Backend::standard("alive");
    let both = config(Listener::h1().backend(hole.address).backend(alive.address));
    let mut client = both.client();
    for number in 0..4 {
        assert_eq!(client.get("/").unwrap().text(), "alive", "request {number}");
    }
}

//! Times and further tries of a route.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use testkit::{Backend, Config, Gateway, Listener, Pool, ms};

use crate::ways::Ways;

/// A backend that answers 500 so often before it answers 200, and 503 below `/busy`.
fn failing(times: usize) -> Backend {
    let left = Arc::new(AtomicUsize::new(times));
    Backend::start(move |conn| {
        loop {
            let request = conn.request()?;
            let fails =
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            match (request.target().starts_with("/busy"), fails) {
                (true, _) => conn.respond(503, &[], b"busy")?,
                (false, true) => conn.respond(500, &[], b"failed")?,
                (false, false) => conn.respond(200, &[], b"fine")?,
            }
        }
    })
}

fn gateway(route: &str, backend: &Backend) -> Gateway {
    let listener = Listener::h1().text(&format!("[[listeners.routes]]\npool = \"web\"\n{route}\n"));
    let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
    Gateway::start(Config::new().listener(listener).pool(pool))
}

pub(crate) fn x_13_a_route_tries_500_again() {
    let retry = "retry = { attempts = 2, on = [\"500\"] }";
    let backend = failing(2);
    let patient = gateway(retry, &backend);
    let response = patient.get("/");
    assert_eq!((response.status, response.text().as_str(), backend.request_count()), (200, "fine", 3));
    // A status that is not named is the client's.
    assert_eq!(patient.get("/busy").status, 503);
    assert_eq!(backend.request_count(), 4);

    let backend = failing(4);
    let tired = gateway(retry, &backend);
    assert_eq!((tired.get("/").status, backend.request_count()), (500, 3));

    // Without rules of the route those of the pool hold.
    let backend = failing(1);
    let plain = gateway("", &backend);
    assert_eq!((plain.get("/").status, backend.request_count()), (500, 1));
    // And what may not be repeated is not.
    let backend = failing(1);
    let repeated = gateway(retry, &backend);
    let response = repeated.client().request("POST", "/", &[], b"x").unwrap();
    assert_eq!((response.status, backend.request_count()), (500, 1));
}

pub(crate) fn x_14_a_route_waits_between_tries() {
    let took = |retry: &str, fails: usize| {
        let backend = failing(fails);
        let listener = Listener::h1().text(&format!("[[listeners.routes]]\npool = \"web\"\n{retry}\n"));
        let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
        let pool = pool.block("retry", "budget_min", 100);
        let gateway = Gateway::start(Config::new().listener(listener).pool(pool));
        let start = Instant::now();
        let response = gateway.get("/");
        assert_eq!((response.status, backend.request_count()), (200, fails + 1), "{retry}");
        start.elapsed()
    };
    // Seven pauses of up to 100 ms, which doubles each time: all of them are short by chance once in a million times.
    let paused = took("retry = { attempts = 7, on = [\"500\"], backoff_ms = 100 }", 7);
    assert!((ms(300)..ms(14_000)).contains(&paused), "{paused:?}");
    let at_once = took("retry = { attempts = 7, on = [\"500\"] }", 7);
    assert!(at_once < ms(1000), "{at_once:?}");
}

pub(crate) fn x_11_x_12_a_route_has_times_of_its_own() {
    let silent = || {
        Backend::start(|conn| {
            conn.request()?;
            conn.pause(ms(1500));
            conn.respond(200, &[], b"late")
        })
    };
    for (route, status, requests) in [
        ("http = { total_timeout_ms = 200 }", 504, 1),
        ("http = { head_timeout_ms = 200 }", 504, 1),
        ("retry = { attempts = 1, on = [\"timeout\"], per_try_timeout_ms = 200 }", 504, 2),
        ("http = { total_timeout_ms = 0, head_timeout_ms = 0 }", 200, 1),
        ("", 200, 1),
    ] {
        let backend = silent();
        let listener = Listener::h1();
        let listener = listener.text(&format!("[[listeners.routes]]\npool = \"web\"\n{route}\n"));
        let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
        let gateway = Gateway::start(Config::new().listener(listener).pool(pool));
        assert_eq!(gateway.get("/").status, status, "{route}");
        assert_eq!(backend.request_count(), requests, "{route}");
    }
}

pub(crate) fn a_route_lifts_the_bound_of_its_listener() {
    let backend = Backend::start(|conn| {
        conn.request()?;
        conn.pause(ms(700));
        conn.respond(200, &[], b"late")
    });
    let listener = Listener::h1().text(
        "[listeners.http]\ntotal_timeout_ms = 200\n\
         [[listeners.routes]]\npath = \"/slow\"\npool = \"web\"\nhttp = { total_timeout_ms = 0 }\n\
         [[listeners.routes]]\npool = \"web\"\n",
    );
    let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
    let gateway = Gateway::start(Config::new().listener(listener).pool(pool));
    assert_eq!(gateway.get("/slow").status, 200);
    assert_eq!(gateway.get("/").status, 504);
}

/// Bodies are bounded by the route, whatever the listener allows, and whether they announce their length or not.
pub(crate) fn bodies_are_bounded_by_route() {
    let backend = Backend::start(|conn| {
        loop {
            let request = conn.request()?;
            match request.target() {
                "/in" => conn.respond(200, &[], request.body.len().to_string().as_bytes())?,
                "/cut" => {
                    conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n")?;
                    conn.send([b'x'; 64])?;
                    conn.pause(ms(50));
                    conn.send(b"\r\n40\r\n")?;
                    conn.send([b'x'; 64])?;
                    conn.send(b"\r\n0\r\n\r\n")?;
                }
                path => conn.respond(200, &[], &vec![b'x'; path[1..].parse().unwrap()])?,
            }
        }
    });
    let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
    let ways = Ways::start(
        Config::new().pool(pool),
        "[listeners.http]\nmax_request_body_bytes = 10\n\
         [[listeners.routes]]\npath = \"/in\"\npool = \"web\"\nhttp = { max_request_body_bytes = 1000 }\n\
         [[listeners.routes]]\npool = \"web\"\nhttp = { max_response_body_bytes = 100 }\n\
         [[listeners.routes]]\npath = \"/fixed\"\nrespond = { status = 200 }\n",
    );
    let statuses = |target: &str, length: usize, announced: bool| {
        ways.put(target, &vec![b'u'; length], announced).map(|(status, _)| status)
    };
    for announced in [true, false] {
        for (target, length, status) in
            [("/in", 1000, 200), ("/in", 1001, 413), ("/99", 10, 200), ("/99", 11, 413)]
        {
            assert_eq!(
                statuses(target, length, announced),
                [status; 3],
                "{length} bytes to {target}, {announced}"
            );
        }
    }
    // An answer of the gateway is guarded as well.
    assert_eq!((statuses("/fixed", 10, true), statuses("/fixed", 11, true)), ([200; 3], [413; 3]));
    let texts = ways.put("/in", &[b'u'; 1000], false).map(|(_, text)| text);
    assert_eq!(texts, ["1000"; 3]);
    for (target, status) in [("/100", 200), ("/101", 502), ("/cut", 0)] {
        assert_eq!(statuses(target, 0, true), [status; 3], "{target}");
    }
    // The response to HEAD announces what it does not have.
    assert!(ways.ask("HEAD", "/101", &[], &[]).all(|got| got.status == 200));
    let rejected = |reason| ways.gateway.metric("upstream_rejected_total", &[("reason", reason)]);
    assert_eq!(rejected("response_too_large"), 6.0);
    // Every backend connection that was cut short is gone, and the next request has another.
    assert_eq!(statuses("/99", 10, true), [200; 3]);
}

/// A body that is buffered by its route reaches the backend whole, at once and with its length, and a slow client holds no backend.
pub(crate) fn bodies_are_buffered_by_route() {
    let backend = Backend::start(|conn| {
        loop {
            let request = conn.request()?;
            let told = format!("{} {:?}", request.body.len(), request.header("content-length"));
            conn.respond(200, &[], told.as_bytes())?;
        }
    });
    let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
    let ways = Ways::start(
        Config::new().pool(pool),
        "[[listeners.routes]]\npath = \"/streamed\"\npool = \"web\"\n\
         [[listeners.routes]]\npool = \"web\"\nhttp = { buffer_request_bytes = 300000 }\n",
    );
    let texts =
        |target: &str, length: usize| ways.put(target, &vec![b'u'; length], false).map(|(_, text)| text);
    assert_eq!(texts("/streamed", 300_000), ["300000 None"; 3]);
    assert_eq!(texts("/", 300_000), ["300000 Some(\"300000\")"; 3]);
    assert_eq!(texts("/", 500_000), ["500000 None"; 3]);
    // A client that stops in the middle has no connection to the backend.
    let count = backend.request_count();
    let mut slow = ways.gateway.client();
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\nExpect: 100-continue\r\n\r\n").unwrap();
    for _ in 0..2 {
        std::thread::sleep(ms(150));
        assert_eq!(backend.request_count(), count);
        slow.send([b'u'; 10]).unwrap();
    }
    let response = slow.response("POST").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "20 Some(\"20\")"));
    let interims: Vec<u16> = response.interim.iter().map(|head| head.status).collect();
    assert_eq!(interims, [100], "the gateway asks for the body");
    assert_eq!(backend.last_request().header("expect"), None);
}

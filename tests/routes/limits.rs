//! Times and further tries of a route.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::{Backend, Config, Gateway, Listener, Pool, ms};

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

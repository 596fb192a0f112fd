//! Requests that fail on purpose.

use std::time::Instant;

use testkit::{Backend, Config, Gateway, Listener, Pool, ms, request};

use crate::ways::Ways;

fn config(backend: &Backend) -> Config {
    let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
    Config::new().pool(pool).text(
        "[policies.gone.fault]\nabort_status = 503\n[policies.teapot.fault]\nabort_status = 418\nabort_fraction = \"1/2\"\n\
         [policies.slow.fault]\ndelay_ms = 300\n[policies.both.fault]\ndelay_ms = 300\nabort_status = 500\n\
         [policies.late.fault]\ndelay_ms = 60000\n[policies.shared.cors]\nallow_origins = [\"https://a.example\"]\n",
    )
}

const ROUTES: &str = "[[listeners.routes]]\npath = \"/gone\"\npolicies = [\"gone\", \"shared\"]\npool = \"web\"\n\
     [[listeners.routes]]\npath = \"/teapot\"\npolicies = [\"teapot\"]\npool = \"web\"\n\
     [[listeners.routes]]\npath = \"/slow\"\npolicies = [\"slow\"]\npool = \"web\"\n\
     [[listeners.routes]]\npath = \"/both\"\npolicies = [\"both\"]\npool = \"web\"\n\
     [[listeners.routes]]\npath = \"/redirect\"\npolicies = [\"gone\"]\nredirect = { path = \"/\" }\n\
     [[listeners.routes]]\npath = \"/late\"\npolicies = [\"late\"]\npool = \"web\"\n\
     [[listeners.routes]]\npath = \"/timed\"\npolicies = [\"late\"]\npool = \"web\"\nhttp = { total_timeout_ms = 300 }\n\
     [[listeners.routes]]\npath = \"/\"\npool = \"web\"\n";

pub(crate) fn shares_of_requests_wait_or_are_answered() {
    let backend = Backend::standard("web");
    let ways = Ways::start(config(&backend), ROUTES);
    for (path, status) in [("/gone", 503), ("/redirect", 503), ("/", 200)] {
        for got in ways.ask("POST", path, &[], &[]) {
            assert_eq!(got.status, status, "{path} over {}", got.version);
        }
    }
    assert_eq!(backend.request_count(), 3);
    // A preflight comes before faults.
    let preflight = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "PUT")];
    for got in ways.ask("OPTIONS", "/gone", &preflight, &[]) {
        assert_eq!(got.status, 204, "{}", got.version);
    }
    let reasons = [("reason", "fault")];
    assert_eq!(ways.gateway.metric("filter_answers_total", &reasons), 6.0);
    let mut client = ways.gateway.client();
    let told: Vec<u16> = (0..200).map(|_| client.get("/teapot").unwrap().status).collect();
    let aborted = told.iter().filter(|status| **status == 418).count();
    assert!(told.iter().all(|status| matches!(status, 418 | 200)));
    // 100 with a standard deviation of 7.
    assert!((60..=140).contains(&aborted), "{aborted} of 200");
    for (path, status) in [("/slow", 200), ("/both", 500), ("/timed", 504)] {
        for _ in 0..2 {
            let began = Instant::now();
            for got in ways.ask("GET", path, &[], &[]) {
                assert_eq!(got.status, status, "{path} over {}", got.version);
            }
            assert!(began.elapsed() >= ms(900), "three requests of 300 ms");
        }
    }
    // A body waits with its request, and comes whole.
    let heard = backend.request_count();
    for (status, _) in ways.put("/slow", &vec![b'x'; 100_000], true) {
        assert_eq!(status, 200);
    }
    assert_eq!(backend.last_request().body_len(), 100_000);
    assert_eq!(backend.request_count(), heard + 3);
}

pub(crate) fn a_client_that_leaves_while_it_waits_has_asked_no_backend() {
    let backend = Backend::standard("web");
    let listener = Listener::h1().text(ROUTES);
    let gateway = Gateway::start(config(&backend).listener(listener));
    let mut client = gateway.client();
    client.send(request("GET", "/late", &[], b"")).unwrap();
    gateway.wait_metric("connections_inflight", &[], |count| count == 1.0);
    drop(client);
    gateway.wait_metric("connections_inflight", &[], |count| count == 0.0);
    assert_eq!(backend.request_count(), 0);
}

//! Copies of requests to other pools.

use std::time::Instant;

use testkit::{Backend, Config, Gateway, Listener, Pool, eventually, ms, seconds};

use crate::ways::Ways;

fn pools<'a>(backends: impl IntoIterator<Item = (&'a str, &'a Backend)>) -> Config {
    backends.into_iter().fold(Config::new(), |config, (name, backend)| {
        config.pool(Pool::named(name).backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]))
    })
}

fn mirrored(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("mirrors_total", &[("result", result)])
}

/// A backend that reads requests and never answers.
fn silent() -> Backend {
    Backend::start(|conn| {
        conn.request()?;
        conn.pause(seconds(30));
        Ok(())
    })
}

pub(crate) fn x_10_requests_are_mirrored() {
    let [web, one, two, few, half] = ["web", "one", "two", "few", "half"].map(Backend::standard);
    let config = pools([("web", &web), ("one", &one), ("two", &two), ("few", &few), ("half", &half)]);
    let ways = Ways::start(
        config,
        "[[listeners.routes]]\npath_prefix = \"/one\"\npool = \"web\"\nmirror = [{ pool = \"one\" }]\n\
         [[listeners.routes]]\npath_prefix = \"/two\"\npool = \"web\"\nrewrite = { prefix = \"/new\" }\n\
         request_headers = { set = [\"X-Route: mirrored\"], remove = [\"X-Secret\"] }\n\
         mirror = [{ pool = \"one\" }, { pool = \"two\" }]\n\
         [[listeners.routes]]\npath_prefix = \"/share\"\npool = \"web\"\n\
         mirror = [{ pool = \"few\", fraction = \"20%\" }, { pool = \"half\", fraction = \"1/2\" }]\n\
         [[listeners.routes]]\npool = \"web\"\n",
    );
    let come = |backend: &Backend, count: usize| {
        eventually("the copies", seconds(10), || backend.request_count() >= count);
        std::thread::sleep(ms(50));
        assert_eq!(backend.request_count(), count);
    };
    for got in ways.ask("GET", "/one/a", &[], &[]) {
        assert_eq!((got.status, got.text.as_str()), (200, "web"), "{}", got.version);
    }
    come(&one, 3);
    assert_eq!((one.last_request().target(), one.last_request().method()), ("/one/a", "GET"));
    for got in ways.ask("GET", "/two/b?c", &[("X-Secret", "s")], &[]) {
        assert_eq!((got.status, got.text.as_str()), (200, "web"), "{}", got.version);
    }
    come(&one, 6);
    come(&two, 3);
    for backend in [&web, &one, &two] {
        let request = backend.last_request();
        assert_eq!(request.target(), "/new/b?c");
        assert_eq!(
            (request.header("x-route").as_deref(), request.header("x-secret")),
            (Some("mirrored"), None)
        );
        assert_eq!(request.header("host").as_deref(), Some("test.example"));
    }
    // Bodies too, whether their length is announced or not.
    for (count, announced) in [(9, true), (12, false)] {
        let texts = ways.put("/one/upload", &[b'u'; 30_000], announced).map(|(status, _)| status);
        assert_eq!(texts, [200; 3]);
        come(&one, count);
        assert_eq!(one.last_request().body, [b'u'; 30_000]);
    }
    let mut client = ways.gateway.client();
    for _ in 0..500 {
        assert_eq!(client.get("/share").unwrap().status, 200);
    }
    eventually("all copies", seconds(10), || {
        let drawn = (few.request_count() + half.request_count()) as f64;
        mirrored(&ways.gateway, "answered") == 15.0 + drawn
    });
    // Within 4 sigma of 500.
    assert!((64..=136).contains(&few.request_count()), "{}", few.request_count());
    assert!((205..=295).contains(&half.request_count()), "{}", half.request_count());
    // Copies are no requests of clients: neither in the metrics of the listeners nor in their log.
    assert_eq!(ways.gateway.metrics().sum("http_requests_total", &[]), 512.0);
}

pub(crate) fn a_mirror_holds_up_nobody() {
    let web = Backend::standard("web");
    let mute = silent();
    let config = pools([("web", &web), ("mute", &mute)]).pool(Pool::named("dead").backend("127.0.0.1:1"));
    let listener = Listener::h1().text(
        "[[listeners.routes]]\npath = \"/dead\"\npool = \"web\"\nmirror = [{ pool = \"dead\" }]\n\
         [[listeners.routes]]\npool = \"web\"\nmirror = [{ pool = \"mute\", timeout_ms = 600 }]\n",
    );
    let mut gateway = Gateway::start(config.listener(listener));
    let start = Instant::now();
    assert_eq!((gateway.get("/").text().as_str(), gateway.get("/dead").text().as_str()), ("web", "web"));
    assert!(start.elapsed() < ms(400), "{:?}", start.elapsed());
    gateway.wait_metric("mirrors_total", &[("result", "timeout")], |count| count == 1.0);
    assert!(start.elapsed() >= ms(600));
    assert_eq!(mirrored(&gateway, "failed"), 1.0);
    // What goes wrong with a copy is not told as what went wrong with a request.
    assert_eq!(gateway.metric("upstream_rejected_total", &[("reason", "no_backend")]), 0.0);
    // And a drain waits for it no longer than it may take.
    assert_eq!(gateway.get("/").text(), "web");
    let start = Instant::now();
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert!(start.elapsed() < seconds(5), "{:?}", start.elapsed());
}

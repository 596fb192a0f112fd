//! Error pages, and problems of RFC 9457.

use testkit::gateway::{Reload, cli};
use testkit::{Backend, Config, Gateway, H2Backend, Listener, Pool, eventually, seconds};

use crate::ways::Ways;

const JSON: (&str, &str) = ("Accept", "application/json, */*;q=0.5");
const HTML: (&str, &str) = ("Accept", "text/html,application/xml;q=0.9,*/*;q=0.8");

struct Pages {
    dir: tempfile::TempDir,
}

impl Pages {
    fn new() -> Self {
        let pages = Self { dir: tempfile::tempdir().unwrap() };
        pages.write("down.html", "<h1>down</h1>");
        pages.write("gone.txt", "gone");
        pages
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn policy(&self, name: &str, rest: &str) -> String {
        let (down, gone) = (self.path("down.html"), self.path("gone.txt"));
        format!("[policies.{name}.errors]\npages = [\"500-504: {down}\", \"403: {gone}\"]\n{rest}\n")
    }
}

/// A backend that answers with the status that the path says, with a body.
fn by_path() -> Backend {
    Backend::start(|conn| {
        loop {
            let request = conn.request()?;
            let path = request.target().trim_start_matches('/').to_owned();
            let (status, length) = path.split_once('/').unwrap_or((&path, "7"));
            let body = vec![b'b'; length.parse().unwrap()];
            let fields = [("ETag", "\"x\""), ("Retry-After", "7"), ("Content-Type", "text/css")];
            conn.respond(status.parse().unwrap(), &fields, &body)?;
        }
    })
}

fn pool(backend: &Backend) -> Pool {
    Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())])
}

pub(crate) fn the_gateways_own_answers_have_pages() {
    let (pages, backend) = (Pages::new(), by_path());
    let routes = "[listeners.request_id]\nkeep_from = \"anyone\"\n\
                  [[listeners.routes]]\npath_prefix = \"/dead\"\npool = \"dead\"\n\
                  [[listeners.routes]]\npath_prefix = \"/own\"\npool = \"dead\"\npolicies = [\"own\"]\n\
                  [[listeners.routes]]\npath_prefix = \"/without\"\npool = \"dead\"\nwithout = [\"errors\"]\n\
                  [[listeners.routes]]\npath = \"/bare\"\nrespond = { status = 503 }\n\
                  [[listeners.routes]]\npath = \"/said\"\nrespond = { status = 503, body = \"said\" }\n\
                  [[listeners.routes]]\npath_regex = \"/[0-9]+\"\npool = \"web\"\n";
    let policies = pages.policy("pages", "") + "[policies.own.errors]\nproblem_json = true\n";
    let config = Config::new().pool(pool(&backend)).pool(Pool::named("dead").backend("127.0.0.1:1"));
    let ways = Ways::start_with(config.text(&policies), routes, |listener| {
        listener.key("policies", vec!["pages".to_owned()])
    });
    let look = ["content-type", "content-length", "vary"];
    for (target, accept, status, kind, text) in [
        ("/dead", HTML, 502, "text/html; charset=utf-8", "<h1>down</h1>"),
        // Nothing of the request gets into a page (attack R-27).
        ("/dead/<script>?<script>", HTML, 502, "text/html; charset=utf-8", "<h1>down</h1>"),
        ("/dead", JSON, 502, "application/problem+json", "\"status\":502,\"detail\":\"no_backend\""),
        ("/none", HTML, 404, "text/plain; charset=utf-8", "404 Not Found\n"),
        (
            "/none",
            JSON,
            404,
            "application/problem+json",
            "\"title\":\"Not Found\",\"status\":404,\"detail\":\"no_route\"",
        ),
        // The innermost level's stands in place of the others, as a whole.
        ("/own", HTML, 502, "text/plain; charset=utf-8", "502 Bad Gateway\n"),
        ("/own", JSON, 502, "application/problem+json", "\"type\":\"about:blank\""),
        ("/without", HTML, 502, "text/plain; charset=utf-8", "502 Bad Gateway\n"),
        ("/without", JSON, 502, "text/plain; charset=utf-8", "502 Bad Gateway\n"),
        ("/bare", HTML, 503, "text/html; charset=utf-8", "<h1>down</h1>"),
        ("/said", HTML, 503, "text/plain; charset=utf-8", "said"),
        // Backends' responses are left alone.
        ("/503", HTML, 503, "text/css", "bbbbbbb"),
    ] {
        let id = [("X-Request-Id", "id-<script>"), accept];
        for got in ways.ask("GET", target, &id, &look) {
            let version = got.version;
            assert_eq!(
                (got.status, got.header("content-type").as_deref()),
                (status, Some(kind)),
                "{target} {version}"
            );
            if kind == "application/problem+json" {
                assert!(got.text.contains(text), "{target} {version}: {}", got.text);
                let value: serde_json::Value = serde_json::from_str(&got.text).unwrap();
                // The client's own ID is no such thing, and another was made.
                assert_eq!(value["instance"].as_str().unwrap().len(), 36, "{value}");
            } else {
                assert_eq!(got.text, text, "{target} {version}");
            }
            assert_eq!(got.header("content-length"), Some(got.text.len().to_string()), "{target} {version}");
            assert_eq!(
                got.header("vary").as_deref() == Some("Accept"),
                !["/without", "/said", "/503"].contains(&target),
                "{target}"
            );
        }
    }
    for got in ways.ask("HEAD", "/dead", &[HTML], &look) {
        assert_eq!((got.status, got.text.as_str()), (502, ""), "{}", got.version);
        assert_eq!(got.header("content-length").as_deref(), Some("13"));
    }
    // What is refused before its route is known is told as ever.
    for got in ways.ask("GET", "/%00", &[JSON], &look) {
        assert_eq!((got.status, got.text.as_str()), (400, "400 Bad Request\n"), "{}", got.version);
    }
}

pub(crate) fn responses_of_backends_are_intercepted() {
    let (pages, backend) = (Pages::new(), by_path());
    let routes = "[[listeners.routes]]\npool = \"web\"\npolicies = [\"pages\"]\n\
                  response_headers = { add = [\"X-Status: ${status}\"] }\n";
    let config = Config::new().pool(pool(&backend)).text(&pages.policy("pages", "intercept = true"));
    let ways = Ways::start(config, routes);
    let look = ["content-type", "content-length", "etag", "retry-after", "x-status"];
    for (method, target, status, text) in [
        ("GET", "/503", 503, "<h1>down</h1>"),
        ("GET", "/503/0", 503, "<h1>down</h1>"),
        ("GET", "/500/300000", 500, "<h1>down</h1>"),
        ("GET", "/403", 403, "gone"),
        ("GET", "/404", 404, "bbbbbbb"),
        ("GET", "/200", 200, "bbbbbbb"),
        ("GET", "/505", 505, "bbbbbbb"),
    ] {
        for got in ways.ask(method, target, &[HTML], &look) {
            let version = got.version;
            assert_eq!((got.status, got.text.as_str()), (status, text), "{target} {version}");
            assert_eq!(got.header("content-length"), Some(text.len().to_string()), "{target} {version}");
            let is_page = text != "bbbbbbb";
            assert_eq!(got.header("etag").is_none(), is_page, "{target} {version}");
            assert_eq!(got.header("retry-after").as_deref(), Some("7"), "{target} {version}");
            assert_eq!(got.header("x-status"), Some(status.to_string()), "{target} {version}");
        }
    }
    for got in ways.ask("GET", "/503", &[JSON], &look) {
        let value: serde_json::Value = serde_json::from_str(&got.text).unwrap();
        assert_eq!((value["status"].as_u64(), value.get("detail")), (Some(503), None), "{}", got.version);
    }
    // The backend's next response is for the next request, on whatever connection.
    let mut client = ways.gateway.client();
    for _ in 0..8 {
        assert_eq!(client.get("/503/100000").unwrap().text(), "<h1>down</h1>");
        assert_eq!(client.get("/200").unwrap().text(), "bbbbbbb");
    }
    // A backend that never ends its response holds up nobody.
    let endless = Backend::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 500 Odd\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")?;
        conn.pause(seconds(20));
        Ok(())
    });
    let text = pages.policy("pages", "intercept = true");
    let listener = Listener::h1().text("[[listeners.routes]]\npool = \"web\"\npolicies = [\"pages\"]\n");
    let gateway = Gateway::start(Config::new().listener(listener).pool(pool(&endless)).text(&text));
    assert_eq!(gateway.get("/").text(), "<h1>down</h1>");
}

pub(crate) fn calls_are_answered_in_grpcs_words() {
    let pages = Pages::new();
    let backend = H2Backend::start(|call| {
        call.body()?;
        call.respond(503, &[("content-type", "text/html")], b"no")
    });
    let listener = Listener::h2c().text(
        "[listeners.grpc]\n[[listeners.routes]]\npath = \"/dead\"\npool = \"dead\"\npolicies = [\"pages\"]\n\
         [[listeners.routes]]\npool = \"web\"\npolicies = [\"pages\"]\n",
    );
    let web = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h2\"".to_owned())]);
    let config = Config::new().listener(listener).pool(web).pool(Pool::named("dead").backend("127.0.0.1:1"));
    let gateway = Gateway::start(config.text(&pages.policy("pages", "intercept = true")));
    for target in ["/web", "/dead"] {
        let mut client = testkit::H2Client::connect(gateway.front()).unwrap();
        let fields =
            [("content-type", "application/grpc"), ("te", "trailers"), ("accept", "application/json")];
        let got = client.request("POST", target, &fields, b"").unwrap();
        assert_eq!((got.status(), got.header("grpc-status").as_deref()), (200, Some("14")), "{target}");
        assert_eq!(got.text(), "");
    }
}

pub(crate) fn pages_are_read_with_the_file_and_again_on_a_signal() {
    let pages = Pages::new();
    let config = |policy: &str| {
        let listener = Listener::h1().text("policies = [\"pages\"]\npool = \"dead\"\n");
        Config::new().listener(listener).pool(Pool::named("dead").backend("127.0.0.1:1")).text(policy)
    };
    let first = config(&pages.policy("pages", ""));
    let mut gateway = Gateway::start(first.clone());
    assert_eq!(gateway.get("/").text(), "<h1>down</h1>");
    pages.write("down.html", "<h1>still</h1>");
    gateway.process.signal(testkit::process::SIGUSR1);
    eventually("the new page", seconds(10), || gateway.get("/").text() == "<h1>still</h1>");
    std::fs::remove_file(pages.path("down.html")).unwrap();
    gateway.process.signal(testkit::process::SIGUSR1);
    gateway.process.stderr.wait_count("SIGUSR1 cert reload pass complete", 2);
    assert_eq!(gateway.get("/").text(), "<h1>still</h1>");
    // A file that is missing, or too large, is an error with its place; what runs goes on.
    let text = std::fs::read_to_string(gateway.dir().join("lb.toml")).unwrap();
    let line = text.lines().position(|line| line.starts_with("pages = ")).unwrap() + 1;
    let wrong = pages.dir.path().join("wrong.toml");
    std::fs::write(&wrong, &text).unwrap();
    let place = format!("wrong.toml:{line}: policies.pages.errors.pages");
    for problem in ["cannot be read: No such file", "has 65537 bytes"] {
        let done = cli(&["check", wrong.to_str().unwrap()]);
        assert!(
            done.code != 0 && done.stderr.contains(&place) && done.stderr.contains(problem),
            "{}",
            done.stderr
        );
        let Reload::Rejected(_) = gateway.reload_text(&format!("{text}\n# again {problem}\n")) else {
            panic!("it was taken")
        };
        pages.write("down.html", &"x".repeat(65_537));
    }
    assert_eq!(gateway.get("/").text(), "<h1>still</h1>");
}

//! What routes change in requests and responses on their way.

use testkit::{Backend, Config, Gateway, H2Client, Listener, Pool, request};

use crate::ways::Ways;

/// A backend whose answer has a few fields, and a configuration with it as pool `web`.
fn rig() -> (Backend, Config) {
    let backend = Backend::start(|conn| {
        conn.request()?;
        conn.respond(200, &[("X-Old", "1"), ("X-Kept", "2"), ("X-Set", "3"), ("X-Request-Id", "own")], b"web")
    });
    let pool = Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]);
    (backend, Config::new().pool(pool))
}

pub(crate) fn t_01_to_t_11_the_backend_is_asked_for_another_path() {
    let (backend, config) = rig();
    let rows = [
        ("T01", "/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("T02", "/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("T03", "/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("T04", "/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("T05", "/foo", "/foo", "/xyz", "/xyz"),
        ("T06", "/foo/", "/foo", "/xyz", "/xyz/"),
        ("T08", "/foo/", "/foo", "/", "/"),
        ("T10", "/foo/x/?y=%2e", "/foo", "/", "/x/?y=%2e"),
        ("T11", "/foo", "/foo", "/", "/"),
    ];
    let routes: Vec<String> = rows
        .iter()
        .map(|(row, _, prefix, new, _)| {
            format!(
                "[[listeners.routes]]\nheaders = [\"row={row}\"]\npath_prefix = \"{prefix}\"\npool = \"web\"\nrewrite = {{ prefix = \"{new}\" }}\n"
            )
        })
        .collect();
    let more = "[[listeners.routes]]\npath_regex = \"/u/([a-z]+)/(?<rest>.*)\"\npool = \"web\"\n\
                rewrite = { host = \"inside.example:81\", path = \"/users/${capture.1}/${capture.rest}\" }\n";
    let ways = Ways::start(config, &(routes.concat() + more));
    for (row, path, prefix, new, forwarded) in rows {
        for got in ways.ask("GET", path, &[("row", row), ("X_Forwarded_Prefix", "/evil")], &[]) {
            let request = backend.last_request();
            let found = (got.status, request.target());
            assert_eq!(found, (200, forwarded), "{row} over {}", got.version);
            let told = (new == "/").then(|| prefix.trim_end_matches('/').to_owned());
            assert_eq!(request.header("x-forwarded-prefix"), told, "{row} over {}", got.version);
        }
    }
    for got in ways.ask("GET", "/u/me/%61%2Fb?c", &[], &[]) {
        let request = backend.last_request();
        assert_eq!((got.status, request.target()), (200, "/users/me/a%2Fb?c"), "{}", got.version);
        assert_eq!(request.header("host").as_deref(), Some("inside.example:81"), "{}", got.version);
        assert_eq!(request.header("x-forwarded-host").as_deref(), Some("test.example"), "{}", got.version);
    }
    backend.assert_clean();
}

pub(crate) fn x_01_to_x_06_fields_are_edited_both_ways() {
    let (backend, config) = rig();
    let ways = Ways::start_with(
        config.text(
            r#"
        [[routes.site]]
        name = "edits"
        path_prefix = "/e"
        pool = "web"
        request_headers = { remove = ["x-GONE"], set = ["X-Set: to ${method} ${path}?${query}", "X-Ip: ${client_ip}"], add = ["X-Add: ${header.X-Add}+", "X-Url: ${url}", "X-Route: ${route} ${scheme} ${host} ${cookie.c}"] }
        response_headers = { remove = ["X-Old"], set = ["x-set: ${status} ${path}"], add = ["Strict-Transport-Security: max-age=1"] }
        [[routes.site]]
        path = "/fixed"
        respond = { status = 200, body = "fixed" }
        response_headers = { set = ["X-Set: ${status}"] }
        [[routes.site]]
        path_prefix = "/plain"
        pool = "web"
        "#,
        ),
        "",
        |listener| listener.key("route_tables", vec!["site".to_owned()]),
    );
    let fields = [
        ("X-Gone", "1"),
        ("X_Gone", "1"),
        ("X-Set", "forged"),
        ("X-Add", "one"),
        ("Cookie", "a=b; c=d"),
        ("X-Other", "stays"),
    ];
    let look = ["x-old", "x-kept", "x-set", "strict-transport-security"];
    for got in ways.ask("GET", "/x/../e/%61?q=%41", &fields, &look) {
        let request = backend.last_request();
        let of = |name: &str| request.header(name).unwrap_or_default();
        assert_eq!((request.header("x-gone"), request.header("x_gone")), (None, None), "{}", got.version);
        assert_eq!(of("x-set"), "to GET /e/a?q=%41", "{}", got.version);
        assert_eq!(of("x-ip"), "127.0.0.1", "{}", got.version);
        let added: Vec<_> = request.head.headers.all("x-add");
        assert_eq!(added, ["one", "one+"], "{}", got.version);
        let scheme = if got.version == "HTTP/3" { "https" } else { "http" };
        assert_eq!(of("x-url"), format!("{scheme}://test.example/e/a?q=%41"), "{}", got.version);
        assert_eq!(of("x-route"), format!("edits {scheme} test.example d"), "{}", got.version);
        assert_eq!(of("x-other"), "stays", "{}", got.version);
        let told = look.map(|name| got.header(name).unwrap_or_default());
        assert_eq!(told, ["", "2", "200 /e/a", "max-age=1"], "{}", got.version);
    }
    for got in ways.ask("GET", "/fixed", &[], &["x-set"]) {
        assert_eq!((got.text.as_str(), got.header("x-set").as_deref()), ("fixed", Some("200")));
    }
    for got in ways.ask("GET", "/plain", &fields, &look) {
        assert_eq!(backend.last_request().header("x-set").as_deref(), Some("forged"), "{}", got.version);
        let told = look.map(|name| got.header(name).unwrap_or_default());
        assert_eq!(told, ["1", "2", "3", ""], "{}", got.version);
    }
    // The answers that the gateway gives for a backend have them as well.
    backend.stop();
    for got in ways.ask("GET", "/e", &[], &["x-set", "strict-transport-security"]) {
        assert_eq!(got.status, 502, "{}", got.version);
        assert_eq!(got.header("x-set").as_deref(), Some("502 /e"), "{}", got.version);
        assert_eq!(got.header("strict-transport-security").as_deref(), Some("max-age=1"));
    }
}

/// Filters of the listener, of the virtual host, of the route and of the branch hold in this order, for answers of the gateway and for what no
/// route takes as well; a route can do without those of the outer levels.
pub(crate) fn policies_hold_level_by_level() {
    let (backend, config) = rig();
    let policies = r#"
        policies.outer = { request_headers = { set = ["X-Level: listener"], add = ["X-Way: listener"] }, response_headers = { set = ["X-Set: listener ${status}"], add = ["X-Path: ${path}"] } }
        policies.host = { request_headers = { set = ["X-Level: host"], add = ["X-Way: host"] } }
        policies.route = { request_headers = { set = ["X-Level: route"], add = ["X-Way: route"] } }
        "#;
    let routes = r#"
        [[listeners.virtual_hosts]]
        hosts = ["test.example"]
        policies = ["host"]
        route_tables = ["site"]
        "#;
    let table = r#"
        [[routes.site]]
        path = "/route"
        policies = ["route"]
        pool = "web"
        [[routes.site]]
        path = "/without"
        without = ["request_headers"]
        pool = "web"
        response_headers = { set = ["X-Set: route"] }
        [[routes.site]]
        path = "/alone"
        without = ["request_headers", "response_headers"]
        policies = ["route"]
        pool = "web"
        [[routes.site]]
        path = "/split"
        split = [{ pool = "web", request_headers = { add = ["X-Way: branch"] }, response_headers = { remove = ["X-Path"] } }]
        [[routes.site]]
        path = "/fixed"
        respond = { status = 403 }
        "#;
    let rows: [(&str, u16, &[&str], &str, &str); 7] = [
        ("/route", 200, &["listener", "host", "route"], "listener 200", "/route"),
        ("/without", 200, &[], "route", "/without"),
        ("/alone", 200, &["route"], "3", ""),
        ("/split", 200, &["listener", "host", "branch"], "listener 200", ""),
        ("/fixed", 403, &[], "listener 403", "/fixed"),
        ("/none", 404, &[], "listener 404", "/none"),
        // What is refused before routes are looked at has no filters.
        ("/%zz", 400, &[], "", ""),
    ];
    let start = |host: &str| {
        let config = config.clone().text(policies).text(table);
        Ways::start_with(config, host, |listener| {
            listener.key("pool", "web").key("policies", vec!["outer".to_owned()])
        })
    };
    let look = ["x-set", "x-path"];
    let ways = start(routes);
    for (path, status, way, set, told) in rows {
        for got in ways.ask("GET", path, &[("X-Level", "client")], &look) {
            assert_eq!(got.status, status, "{path} over {}", got.version);
            let found = look.map(|name| got.header(name).unwrap_or_default());
            assert_eq!(found, [set, told], "{path} over {}", got.version);
            if status == 200 {
                let request = backend.last_request();
                assert_eq!(request.head.headers.all("x-way"), way, "{path} over {}", got.version);
                let level = way.iter().rfind(|level| **level != "branch").unwrap_or(&"client");
                assert_eq!(request.header("x-level").as_deref(), Some(*level), "{path} over {}", got.version);
            }
        }
    }
    // Without any route, all requests have those of the listener.
    drop(ways);
    let ways = start("");
    for got in ways.ask("GET", "/any", &[], &look) {
        assert_eq!(backend.last_request().head.headers.all("x-way"), ["listener"], "{}", got.version);
        assert_eq!(got.header("x-set").as_deref(), Some("listener 200"), "{}", got.version);
    }
    backend.assert_clean();
}

pub(crate) fn requests_have_ids() {
    let (backend, config) = rig();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let config = config.block("observability", "access_log", log.to_str().unwrap());
    let ways = Ways::start_with(
        config,
        r#"
        [listeners.request_id]
        [[listeners.routes]]
        path_prefix = "/r"
        pool = "web"
        request_headers = { set = ["X-Copy: ${request_id}"] }
        [[listeners.routes]]
        path = "/gone"
        respond = { status = 410 }
        "#,
        |listener| listener.key("pool", "web"),
    );
    let forged =
        [("X-Request-Id", "forged"), ("x_request_id", "forged"), ("Connection", "X-Request-Id, X-Copy")];
    let mut seen = Vec::new();
    for target in ["/", "/r", "/gone"] {
        for got in ways.ask("GET", target, &forged, &["x-request-id"]) {
            let told = got.header("x-request-id").unwrap();
            assert!(told.len() == 36 && told.as_bytes()[14] == b'7', "{told}");
            if target != "/gone" {
                let request = backend.last_request();
                assert_eq!(request.head.headers.all("x-request-id"), [told.as_str()], "{}", got.version);
                assert_eq!(request.header("x_request_id"), None, "{}", got.version);
                let copy = (target == "/r").then(|| told.clone());
                assert_eq!(request.header("x-copy"), copy, "{}", got.version);
            }
            seen.push(told);
        }
    }
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    testkit::eventually("all lines", testkit::seconds(10), || lines().lines().count() == seen.len());
    assert!(seen.iter().all(|id| lines().contains(&format!("\"request_id\":\"{id}\""))), "{seen:?}");
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), seen.len(), "each has its own");

    let (backend, config) = rig();
    let keeping = "[listeners.request_id]
header = \"X-Trace\"
keep_from = \"anyone\"
respond = false
";
    let ways = Ways::start_with(config, keeping, |listener| listener.key("pool", "web"));
    for (sent, kept) in [("a-b.c_9", true), ("a b", false), ("", false), (&*"a".repeat(129), false)] {
        for got in ways.ask("GET", "/", &[("X-Trace", sent)], &["x-trace", "x-request-id"]) {
            let told = backend.last_request().header("x-trace").unwrap();
            assert_eq!(told == sent, kept, "{sent} over {}: {told}", got.version);
            assert_eq!(got.header("x-trace"), None);
            assert_eq!(got.header("x-request-id").as_deref(), Some("own"));
        }
    }
}

pub(crate) fn an_answer_stands_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    std::fs::write(&page, "<p>one</p>").unwrap();
    let routes = format!(
        "[[listeners.routes]]\nrespond = {{ status = 503, body_file = \"{}\", content_type = \"text/html\" }}\n",
        page.display()
    );
    let ways = Ways::start(Config::new(), &routes);
    for got in ways.ask("GET", "/", &[], &["content-type"]) {
        assert_eq!((got.status, got.text.as_str()), (503, "<p>one</p>"), "{}", got.version);
        assert_eq!(got.header("content-type").as_deref(), Some("text/html"));
    }
    std::fs::write(&page, "<p>two</p>").unwrap();
    ways.gateway.process.signal(testkit::process::SIGUSR1);
    testkit::eventually("the new page", testkit::seconds(10), || {
        ways.gateway.get("/").text() == "<p>two</p>"
    });
    // One that is gone leaves the last one in force.
    std::fs::remove_file(&page).unwrap();
    ways.gateway.process.signal(testkit::process::SIGUSR1);
    ways.gateway.process.stderr.wait_count("SIGUSR1 cert reload pass complete", 2);
    assert_eq!(ways.gateway.get("/").text(), "<p>two</p>");
}

pub(crate) fn a_route_may_have_no_tunnels() {
    let backend = Backend::standard("web");
    let listener = Listener::h2c().websocket().text(
        "[[listeners.routes]]\npath = \"/closed\"\nwebsocket = false\npool = \"web\"\n\
         [[listeners.routes]]\npool = \"web\"\n",
    );
    let config = Config::new().listener(listener).pool(Pool::named("web").backend(backend.address));
    let gateway = Gateway::start(config);
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let asked = |path: &str| {
        let mut client = gateway.client();
        client.send(request("GET", path, &upgrade, b"")).unwrap();
        assert_eq!(client.response("GET").unwrap().status, 200, "{path}");
        backend.last_request().head.headers.all("upgrade")
    };
    assert_eq!(asked("/open"), ["websocket"]);
    assert_eq!(asked("/closed"), [""; 0], "an ordinary request");
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let connect = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let mut over_h2 = |path: &str| {
        let heard = backend.request_count();
        let stream = client.open("CONNECT", path, &connect, false).unwrap();
        (client.over(stream).unwrap().status(), backend.request_count() - heard)
    };
    assert_eq!(over_h2("/closed"), (501, 0));
    // The backend answers 200, which opens no tunnel from HTTP/1.1.
    assert_eq!(over_h2("/open"), (502, 1));
}

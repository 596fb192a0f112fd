//! What the gateway answers itself where there are routes.

use testkit::{Backend, Config, Gateway, H2Client, Listener, Pool, request};

use crate::ways::Ways;

fn gateway(routes: &str, backend: &Backend) -> Gateway {
    let listener = Listener::h2c().text(routes);
    Gateway::start(Config::new().listener(listener).pool(Pool::named("web").backend(backend.address)))
}

pub(crate) fn redirects_are_absolute() {
    let backend = Backend::standard("web");
    let gateway = gateway(
        r#"
        [[listeners.routes]]
        path_prefix = "/secure"
        redirect = { scheme = "https", status = 308 }
        [[listeners.routes]]
        path_prefix = "/old"
        redirect = { host = "new.example", prefix = "/new" }
        [[listeners.routes]]
        path = "/gone"
        redirect = { path = "/here", keep_query = false, status = 303 }
        [[listeners.routes]]
        path_prefix = "/loop"
        redirect = { host = "a.example", port = 80 }
        [[listeners.routes]]
        path_prefix = "/"
        pool = "web"
        "#,
        &backend,
    );
    for (host, target, status, location) in [
        ("a.example", "/secure/x?y=z", 308, "https://a.example/secure/x?y=z"),
        ("A.example:8080", "/secure", 308, "https://A.example/secure"),
        ("a.example:8080", "/old/x?y", 302, "http://new.example:8080/new/x?y"),
        ("a.example", "/old", 302, "http://new.example/new"),
        ("[::1]:81", "/gone?y", 303, "http://[::1]:81/here"),
        // What is matched is what is told: the canonical form.
        ("a.example", "/x/../secure/%7ea", 308, "https://a.example/secure/~a"),
    ] {
        let mut client = gateway.client();
        let response = client.request("GET", target, &[("Host", host)], b"").unwrap();
        let found = (response.status, response.header("location"));
        assert_eq!(found, (status, Some(location.to_owned())), "{host}{target}");
        // The connection goes on, also after a body that nobody reads, or to HEAD.
        let head = client.request("HEAD", target, &[("Host", host)], b"").unwrap();
        assert_eq!((head.status, head.body.len()), (status, 0));
        assert_eq!(client.get("/").unwrap().text(), "web");
    }
    let looping = gateway.client().request("GET", "/loop", &[("Host", "a.example")], b"").unwrap();
    assert_eq!(looping.status, 500);
    let metric = gateway.metric("filter_answers_total", &[("reason", "redirect_loop")]);
    assert_eq!(metric, 1.0);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    client.authority = "a.example".to_owned();
    let response = client.request("POST", "/secure", &[], b"a body").unwrap();
    assert_eq!(
        (response.status(), response.header("location").unwrap().as_str()),
        (308, "https://a.example/secure")
    );
    assert!(backend.requests().iter().all(|request| request.target() == "/"), "a redirect asks no backend");
}

pub(crate) fn t_12_to_t_23_redirects_have_the_port_that_they_need() {
    const ROWS: [(&str, &str, &str, &str); 13] = [
        // Row, what the redirect has, and where it leads from port 80 of HTTP and from port 443 of HTTPS.
        ("T12 T20", "host = \"other.example\"", "http://other.example/x", "https://other.example/x"),
        ("T13", "port = 80", "500", "https://test.example:80/x"),
        ("T14", "port = 8080", "http://test.example:8080/x", "https://test.example:8080/x"),
        ("T15", "scheme = \"https\"", "https://test.example/x", "500"),
        ("T16", "scheme = \"https\", port = 443", "https://test.example/x", "500"),
        (
            "T17",
            "scheme = \"https\", port = 8443",
            "https://test.example:8443/x",
            "https://test.example:8443/x",
        ),
        ("T21", "scheme = \"http\", port = 8080", "http://test.example:8080/x", "http://test.example:8080/x"),
        ("T22 301", "host = \"o.example\", status = 301", "http://o.example/x", "https://o.example/x"),
        ("T22 302", "host = \"o.example\", status = 302", "http://o.example/x", "https://o.example/x"),
        ("T22 303", "host = \"o.example\", status = 303", "http://o.example/x", "https://o.example/x"),
        ("T22 307", "host = \"o.example\", status = 307", "http://o.example/x", "https://o.example/x"),
        ("T22 308", "host = \"o.example\", status = 308", "http://o.example/x", "https://o.example/x"),
        (
            "T23",
            "host = \"o.example\", path = \"/whole\"",
            "http://o.example/whole",
            "https://o.example/whole",
        ),
    ];
    let routes = ROWS.map(|(row, redirect, ..)| {
        format!("[[listeners.routes]]\nheaders = [\"row={row}\"]\nredirect = {{ {redirect} }}\n")
    });
    let mut ways = Ways::start(Config::new(), &routes.concat());
    for (row, _, http, https) in ROWS {
        for got in ways.ask("GET", "/x", &[("Row", row)], &["location"]) {
            let location = if got.version == "HTTP/3" { https } else { http };
            let status = row.strip_prefix("T22 ").map_or(302, |status| status.parse().unwrap());
            let expected = if location == "500" { (500, None) } else { (status, Some(location.to_owned())) };
            assert_eq!((got.status, got.header("location")), expected, "{row} over {}", got.version);
        }
    }
    ways.host = "test.example:8080".to_owned();
    for (row, http, https) in [
        // T18, and T19: the port stays, unless the scheme changes.
        ("T12 T20", "http://other.example:8080/x", "https://other.example:8080/x"),
        ("T15", "https://test.example/x", "500"),
    ] {
        for got in ways.ask("GET", "/x", &[("Row", row)], &["location"]) {
            let location = if got.version == "HTTP/3" { https } else { http };
            let expected = Some(location.to_owned()).filter(|location| location != "500");
            assert_eq!(got.header("location"), expected, "{row} on port 8080 over {}", got.version);
        }
    }
}

pub(crate) fn fixed_answers() {
    let backend = Backend::standard("web");
    let gateway = gateway(
        r#"
        [[listeners.routes]]
        path = "/robots.txt"
        respond = { status = 200, body = "User-agent: *\nDisallow: /" }
        [[listeners.routes]]
        path = "/teapot"
        respond = { status = 418, body = "{}", content_type = "application/json" }
        [[listeners.routes]]
        path = "/empty"
        respond = { status = 204 }
        "#,
        &backend,
    );
    let mut client = gateway.client();
    let robots = client.get("/robots.txt").unwrap();
    assert_eq!((robots.status, robots.text().as_str()), (200, "User-agent: *\nDisallow: /"));
    assert_eq!(robots.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
    let teapot = client.get("/teapot").unwrap();
    assert_eq!((teapot.status, teapot.text().as_str()), (418, "{}"));
    assert_eq!(teapot.header("content-type").as_deref(), Some("application/json"));
    let empty = client.get("/empty").unwrap();
    assert_eq!((empty.status, empty.body.len(), empty.header("content-length")), (204, 0, None));
    let head = client.request("HEAD", "/robots.txt", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-length").as_deref()), (200, Some("25")));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/robots.txt").unwrap().text(), "User-agent: *\nDisallow: /");
        assert_eq!(client.get("/empty").unwrap().status(), 204);
    }
    assert_eq!(backend.request_count(), 0);
}

pub(crate) fn what_no_route_takes() {
    let backend = Backend::standard("web");
    let gateway = gateway("[[listeners.routes]]\npath_prefix = \"/a\"\npool = \"web\"\n", &backend);
    let mut client = gateway.client();
    assert_eq!(client.get("/a/b").unwrap().text(), "web");
    let response = client.get("/b").unwrap();
    assert_eq!((response.status, response.text().as_str()), (404, "404 Not Found\n"));
    // A body that nobody reads keeps the next request from nothing.
    client.send(request("POST", "/b", &[], b"a body")).unwrap();
    assert_eq!(client.response("POST").unwrap().status, 404);
    assert_eq!(gateway.metric("filter_answers_total", &[("reason", "no_route")]), 2.0);

    // With backends of its own, they take it.
    let other = Backend::standard("own");
    let listener = Listener::h1()
        .text("[[listeners.routes]]\npath_prefix = \"/a\"\npool = \"web\"\n")
        .backend(other.address);
    let config = Config::new().listener(listener).pool(Pool::named("web").backend(backend.address));
    let gateway = Gateway::start(config);
    assert_eq!(gateway.get("/a").text(), "web");
    assert_eq!(gateway.get("/b").text(), "own");
    let response = gateway.client().request("GET", "/b/%2e%2e/a?x=%2e", &[], b"").unwrap();
    assert_eq!(response.text(), "web");
    assert_eq!(
        backend.last_request().target(),
        "/a?x=%2e",
        "the canonical path is forwarded, the query as it came"
    );
}

pub(crate) fn virtual_hosts_do_not_fall_through() {
    let [shop, blog, rest] = ["shop", "blog", "rest"].map(Backend::standard);
    let listener = Listener::h1()
        .text(
            r#"
        [[listeners.virtual_hosts]]
        hosts = ["shop.example"]
        route_tables = ["shop"]
        [[listeners.virtual_hosts]]
        hosts = ["*.example"]
        route_tables = ["blog"]
        pool = "rest"
        [[listeners.routes]]
        path_prefix = "/blog"
        pool = "blog"
        "#,
        )
        .backend(rest.address);
    let tables = r#"
        routes.shop = [{ path_prefix = "/cart", pool = "shop" }]
        routes.blog = [{ path_prefix = "/blog", pool = "blog" }]
        "#;
    let config = Config::new().text(tables).listener(listener);
    let pools = [("shop", &shop), ("blog", &blog), ("rest", &rest)];
    let config = pools
        .iter()
        .fold(config, |config, (name, backend)| config.pool(Pool::named(name).backend(backend.address)));
    let gateway = Gateway::start(config);
    for (host, target, expected) in [
        ("shop.example", "/cart/1", "shop"),
        ("SHOP.example.:80", "/cart", "shop"),
        ("shop.example", "/blog", "404 Not Found\n"),
        ("www.example", "/blog", "blog"),
        ("www.example", "/cart", "rest"),
        ("other.org", "/blog", "blog"),
        ("other.org", "/cart", "rest"),
    ] {
        let response = gateway.client().request("GET", target, &[("Host", host)], b"").unwrap();
        assert_eq!(response.text(), expected, "{host}{target}");
    }
}

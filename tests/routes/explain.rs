//! `expressgateway explain`.

use testkit::gateway::cli;

const FILE: &str = r#"
routes.site = [
    { name = "shop", hosts = ["shop.example"], path_prefix = "/cart", methods = ["POST"], pool = "shop", rewrite = { prefix = "/", host = "in.example" }, request_headers = { set = ["X-A: b"] } },
    { name = "rest", hosts = ["*.example"], policies = ["shared", "pages"], pool = "rest", mirror = [{ pool = "shop" }, { pool = "rest", fraction = "0.5%" }] },
]
policies.shared.cors = { allow_origins = ["https://app.example"] }
policies.pages.errors = { pages = ["500-504: /down.html", "404: /none.html"], intercept = true }
[[listeners]]
address = "0.0.0.0:80"
protocol = "h1"
route_tables = ["site"]
[[pools.shop.backends]]
address = "10.0.0.1:80"
[[pools.rest.backends]]
address = "10.0.0.2:80"
"#;

pub(crate) fn it_says_what_a_server_name_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lb.toml");
    let text = r#"
[[listeners]]
address = "0.0.0.0:443"
protocol = "h1s"
[[listeners.routes]]
name = "inside"
server_names = ["*.pass.example"]
tls_passthrough = true
pool = "rest"
[[listeners.routes]]
name = "named"
server_names = ["a.example"]
pool = "shop"
[[listeners.routes]]
name = "other"
pool = "rest"
[listeners.tls]
cert_path = "/c"
key_path = "/k"
[[listeners]]
address = "0.0.0.0:8443"
protocol = "tcp"
[[listeners.routes]]
name = "raw"
server_names = ["a.example"]
pool = "shop"
[[pools.shop.backends]]
address = "10.0.0.1:80"
[[pools.rest.backends]]
address = "10.0.0.2:80"
"#;
    std::fs::write(&path, text).unwrap();
    let explain = |url: &str, more: &[&str]| {
        let done = cli(&[&["explain", path.to_str().unwrap(), "GET", url], more].concat());
        assert_eq!(done.code, 0, "{}", done.stderr);
        let (http, raw) = done.stdout.split_once("listener 0.0.0.0:8443").unwrap();
        (http.to_owned(), raw.to_owned())
    };
    let (http, raw) = explain("https://a.example/", &[]);
    assert!(http.contains("route named, match 0: takes it") && http.contains("goes to pool shop"), "{http}");
    assert!(
        raw.contains("route raw for a.example, match 0: takes it\n  connection goes to pool shop"),
        "{raw}"
    );
    let (http, raw) = explain("https://a.example/", &["--sni", "x.pass.example"]);
    assert!(
        http.contains("route inside for *.pass.example, match 0: takes it\n  connection goes to pool rest"),
        "{http}"
    );
    assert!(!http.contains("path /"), "{http}");
    assert!(raw.contains("no backend"), "{raw}");
    let (http, _) = explain("https://a.example/", &["--sni", "b.example"]);
    assert!(http.contains("route named, match 0: no: server_names"), "{http}");
    assert!(http.contains("goes to pool rest"), "{http}");
    let (http, _) = explain("http://a.example/", &[]);
    assert!(http.contains("route named, match 0: no: server_names"), "{http}");
}

pub(crate) fn it_says_what_a_request_meets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lb.toml");
    std::fs::write(&path, FILE).unwrap();
    let explain = |method: &str, url: &str| {
        let done = cli(&["explain", path.to_str().unwrap(), method, url]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stdout
    };
    let taken = explain("POST", "http://shop.example/x/../cart/1?y");
    assert_eq!(
        taken,
        "listener 0.0.0.0:80\n  path /cart/1\n  route shop for shop.example, match 0: takes it\n  goes to pool shop\n  rewrite: path /1\n  rewrite: host in.example\n  request field X-A"
    );
    let other = explain("GET", "http://shop.example/cart");
    assert!(other.contains("route shop for shop.example, match 0: no: methods\n"), "{other}");
    assert!(other.contains("route rest for *.example, match 0: takes it\n  goes to pool rest"), "{other}");
    let preflight = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let fields = ["-H", &origin, "-H", "Access-Control-Request-Method: PUT"];
        let done = cli(
            &[&["explain", path.to_str().unwrap(), "OPTIONS", "http://a.example/"], &fields[..]].concat()
        );
        done.stdout
    };
    assert!(preflight("https://app.example").contains("cors: answered 204"));
    assert!(preflight("https://evil.example").contains("cors: answered 403 (cors_origin)"));
    let errors = "goes to pool rest\n  mirror: all to pool shop\n  mirror: 5/1000 to pool rest\n  errors: page 500-504 /down.html; page 404 /none.html; problems in JSON for who prefers it; backends' responses as well";
    assert!(other.contains(errors), "{other}");
    assert!(explain("GET", "http://example/").contains("goes to an answer 404 (no_route)"));
    assert!(explain("GET", "http://a.example/%00").contains("400 (path_syntax)"));
    let ambiguous = explain("POST", "http://shop.example/x%2F..%2Fcart");
    assert!(ambiguous.contains("400 (path_ambiguous)"), "{ambiguous}");
    let done = cli(&["explain", path.to_str().unwrap(), "GET", "shop.example"]);
    assert_eq!((done.code, done.stderr.contains("begins with http")), (1, true), "{}", done.stderr);
}

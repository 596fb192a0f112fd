use super::*;

const FILE: &str = r#"
[[listeners]]
address = "127.0.0.1:80"
protocol = "h1"
policies = ["inside"]
[[listeners.routes]]
name = "shop"
hosts = ["shop.example"]
path_prefix = "/cart"
pool = "shop"
[[listeners.routes]]
name = "beta"
hosts = ["shop.example"]
path_prefix = "/cart"
headers = ["X-Beta"]
pool = "rest"
[[listeners.routes]]
name = "old"
path_prefix = "/old"
redirect = { path = "/new", status = 301 }
[[listeners.routes]]
path = "/teapot"
respond = { status = 418 }
[[listeners.backends]]
address = "10.0.0.9:80"
[policies.inside.access]
deny = ["10.6.6.0/24"]
[[pools.shop.backends]]
address = "10.0.0.1:80"
[[pools.rest.backends]]
address = "10.0.0.2:80"
"#;

fn config(text: &str) -> Config {
    Config::parse(text, "lb.toml").unwrap()
}

fn line(target: &str, client: &str, status: u16, route: &str, backend: Option<&str>, reason: &str) -> String {
    let backend = serde_json::to_string(&backend).unwrap();
    format!(
        "{{\"listener\":\"127.0.0.1:80\",\"client\":\"{client}:5\",\"method\":\"GET\",\"target\":\"{target}\",\"host\":\"shop.example\",\
         \"tls\":null,\"status\":{status},\"backend\":{backend},\"reason\":\"{reason}\",\"route\":\"{route}\",\"user_agent\":null}}"
    )
}

fn log() -> String {
    [
        line("/cart/1", "10.0.0.7", 200, "shop", Some("10.0.0.1:80"), ""),
        line("/cart/1", "10.0.0.7", 200, "beta", Some("10.0.0.2:80"), ""),
        line("/old/x", "10.0.0.7", 301, "old", None, ""),
        line("/teapot", "10.0.0.7", 418, "", None, ""),
        line("/x", "10.0.0.7", 503, "", Some("10.0.0.9:80"), "timeout"),
        line("/x?a=b", "10.0.0.7", 200, "", Some("10.0.0.9:80"), ""),
        line("/cart", "10.6.6.7", 403, "shop", None, "access"),
        line("/%00", "10.0.0.7", 400, "", None, "path_syntax"),
        line("/x", "10.0.0.7", 400, "", None, "framing"),
    ]
    .join("\n")
}

fn run(config: &Config, against: Option<&Config>, log: &str) -> SimulationReport {
    let simulation = Simulation { config, against, listener: None, host: None, format: None };
    simulation.run(log.as_bytes()).unwrap()
}

#[test]
fn a_log_against_the_file_that_wrote_it_has_no_difference() {
    let config = config(FILE);
    let report = run(&config, None, &log());
    assert_eq!((report.changed, report.unchanged, report.unreadable), (0, 8, 0), "{report}");
    assert_eq!(report.undecided.values().sum::<u64>(), 1, "what was refused before it was routed");
    let report = run(&config, Some(&config), &log());
    assert_eq!((report.changed, report.unchanged), (0, 9), "{report}");
}

#[test]
fn each_kind_of_change_is_counted_with_examples() {
    let running = config(FILE);
    for (from, to, axis, was, now) in [
        (
            "path_prefix = \"/cart\"\npool",
            "path_prefix = \"/basket\"\npool",
            Axis::Route,
            "shop",
            "(no name)",
        ),
        ("10.0.0.1:80", "10.0.0.3:80", Axis::Pool, "backend 10.0.0.1:80", "pool shop"),
        ("status = 301", "status = 308", Axis::Status, "301", "308"),
        ("respond = { status = 418 }", "pool = \"rest\"", Axis::Pool, "an answer 418", "pool rest"),
        ("deny = [\"10.6.6.0/24\"]", "deny = [\"10.0.0.7\"]", Axis::Status, "200", "403 (access)"),
        ("[[listeners.backends]]\naddress = \"10.0.0.9:80\"", "", Axis::Status, "200", "404 (no_route)"),
        ("127.0.0.1:80", "127.0.0.1:81", Axis::Status, "listener 127.0.0.1:80", "no listener"),
    ] {
        assert!(FILE.contains(from));
        let other = config(&FILE.replacen(from, to, 1));
        let report = run(&other, None, &log());
        let is_there = |one: &Example| one.was == was && one.now == now;
        assert!(report.examples(axis).iter().any(is_there), "{from} -> {to}: {report}");
        // The examples of two files are told as well.
        assert!(
            run(&other, Some(&running), &log()).has_changes()
                || axis == Axis::Pool && from.contains("10.0.0.1")
        );
    }
    let other = config(&FILE.replace("10.0.0.1:80", "10.0.0.3:80"));
    let many = vec![line("/cart/1", "10.0.0.7", 200, "shop", Some("10.0.0.1:80"), ""); 30].join("\n");
    let report = run(&other, None, &many);
    assert_eq!((report.changed, report.examples(Axis::Pool).len()), (30, 10));
    assert_eq!(report.to_json()["changes"][0]["requests"], 30);
}

#[test]
fn logs_of_others_are_compared_by_what_they_have() {
    let config = config(FILE);
    let nginx = "10.0.0.7 - - [x] \"GET /old/x HTTP/1.1\" 301 0 \"-\" \"-\"\n10.0.0.7 - - [x] \"GET /teapot HTTP/1.1\" 200 0 \"-\" \"-\"\n\
                 10.0.0.7 - - [x] \"GET /cart HTTP/1.1\" 500 0 \"-\" \"-\"\nnonsense\n";
    let simulation = Simulation {
        config: &config,
        against: None,
        listener: None,
        host: Some("shop.example"),
        format: None,
    };
    let report = simulation.run(nginx.as_bytes()).unwrap();
    assert_eq!((report.unchanged, report.changed, report.unreadable), (2, 1, 1), "{report}");
    assert_eq!(report.examples(Axis::Status)[0].line, 2);
    let nameless = Simulation { host: None, ..simulation };
    assert!(nameless.run(nginx.as_bytes()).unwrap_err().contains("--host"));
    let traefik = r#"{"ClientHost":"10.6.6.6","RequestMethod":"GET","RequestPath":"/","RequestHost":"a","DownstreamStatus":200}"#;
    assert_eq!(nameless.run(traefik.as_bytes()).unwrap().examples(Axis::Status)[0].now, "403 (access)");
}

#[test]
fn lines_without_end_are_passed_over() {
    let config = config(FILE);
    let long = format!("{}\n{}", "x".repeat(300_000), log());
    let report = run(&config, None, &long);
    assert_eq!((report.unreadable, report.unchanged), (1, 8));
}

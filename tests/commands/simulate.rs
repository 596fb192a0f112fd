//! `expressgateway simulate`.

use serde_json::Value;
use testkit::gateway::cli;
use testkit::{Backend, Config, Gateway, Listener, Pool, seconds};

const ROUTES: &str = r#"
[[listeners.routes]]
name = "api"
hosts = ["*.example"]
path_prefix = "/api"
pool = "api"
[[listeners.routes]]
name = "beta"
path_prefix = "/api"
headers = ["X-Beta=1"]
priority = 5
pool = "beta"
[[listeners.routes]]
name = "moved"
path_prefix = "/old"
redirect = { prefix = "/new", status = 308 }
[[listeners.routes]]
path = "/teapot"
respond = { status = 418, body = "short and stout" }
[[listeners.routes]]
name = "split"
path_prefix = "/split"
split = [{ pool = "api", weight = 1 }, { pool = "beta", weight = 1 }]
[[listeners.routes]]
name = "inside"
path_prefix = "/inside"
policies = ["inside"]
pool = "api"
"#;

/// A gateway with a log of requests of all kinds, and the path of the log.
fn logged() -> (Vec<Backend>, Gateway, String) {
    let backends = ["own", "api", "beta"].map(Backend::standard);
    let pools = [("api", &backends[1]), ("beta", &backends[2])];
    let log = std::env::temp_dir().join(format!(
        "eg-simulate-{}-{:?}.log",
        std::process::id(),
        std::thread::current().id()
    ));
    let _ = std::fs::remove_file(&log);
    let config = pools.iter().fold(Config::new(), |config, (name, backend)| {
        config.pool(Pool::named(name).backend(backend.address))
    });
    let config = config
        .block("policies.inside.access", "deny", vec!["127.0.0.0/8".to_owned()])
        .block("observability", "access_log", log.display().to_string())
        .listener(Listener::h1().backend(backends[0].address).text(ROUTES));
    let gateway = Gateway::start(config);
    let hosts = ["shop.example", "example", "[::1]", "a..b"];
    let targets = [
        "/",
        "/api/x?y=z",
        "/old/x",
        "/teapot",
        "/split",
        "/inside",
        "/api/../x",
        "/%2e%2e",
        "/api%2Fx",
        "/x;/../api",
        "/%00",
        "//api",
        "http://shop.example/api",
    ];
    let mut count = 0;
    for host in hosts {
        for target in targets {
            for beta in ["", "X-Beta: 1\r\n"] {
                let mut client = gateway.client();
                client
                    .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{beta}Connection: close\r\n\r\n"))
                    .unwrap();
                let _ = client.response("GET");
                count += 1;
            }
        }
    }
    // One that is refused before it is routed.
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n").unwrap();
    let _ = client.response("GET");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    testkit::eventually("all lines are written", seconds(10), || lines() > count);
    (backends.into(), gateway, log.display().to_string())
}

fn simulate(file: &str, log: &str, more: &[&str]) -> (i32, Value) {
    let done = cli(&[&["simulate", file, "--log", log, "--json"], more].concat());
    (done.code, serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}")))
}

pub(crate) fn a_log_against_the_file_that_wrote_it_has_no_difference() {
    let (_backends, gateway, log) = logged();
    let file = gateway.dir().join("lb.toml").display().to_string();
    let (code, report) = simulate(&file, &log, &[]);
    assert_eq!((code, &report["changed"], &report["unreadable"]), (0, &0.into(), &0.into()), "{report:#}");
    assert!(report["unchanged"].as_u64().unwrap() > 80, "{report:#}");
    let (code, report) = simulate(&file, &log, &["--against", &file]);
    assert_eq!((code, &report["changed"]), (0, &0.into()), "{report:#}");
    // Another file has differences of every kind, with at most ten examples of each.
    let text = std::fs::read_to_string(&file).unwrap();
    let other = gateway.dir().join("other.toml");
    let changed = text
        .replace("path_prefix = \"/api\"\npool", "path_prefix = \"/other\"\npool")
        .replace("status = 308", "status = 301");
    std::fs::write(&other, changed.replace("name = \"split\"", "name = \"divided\"")).unwrap();
    let (code, report) = simulate(other.to_str().unwrap(), &log, &[]);
    assert_eq!(code, 2);
    for what in ["route", "pool", "status"] {
        let examples =
            report["examples"].as_array().unwrap().iter().filter(|one| one["what"] == what).count();
        assert!((1..=10).contains(&examples), "{what}: {report:#}");
    }
    let said = cli(&["simulate", other.to_str().unwrap(), "--log", &log]);
    assert!(said.stdout.contains("split -> divided") && said.stdout.contains("308 -> 301"), "{said:?}");
    assert_eq!(cli(&["simulate", &file, "--log", "/nowhere"]).code, 1);
    let _ = std::fs::remove_file(log);
}

//! `GET /status`.

use serde_json::Value;
use testkit::{Client, eventually, ms, seconds};

use crate::rig::{Desk, TOKEN, row, status_of};

pub(crate) fn all_of_it_is_there_and_counts_what_was_served() {
    let desk = Desk::start(|config| config);
    // Within its first second a process has no look before this one.
    std::thread::sleep(ms(1000));
    desk.traffic(10);
    let status = desk.status_after(31);
    let process = &status["process"];
    assert_eq!((&process["state"], &process["version"]), (&"ok".into(), &env!("CARGO_PKG_VERSION").into()));
    assert_eq!((process["workers"].as_u64(), process["config_version"].as_u64()), (Some(2), Some(1)));
    assert_eq!(process["pid"].as_u64(), Some(desk.gateway.process.pid().into()));
    assert!(process["requests_per_second"].as_f64().unwrap() > 0.0);
    for key in ["memory_bytes", "open_files", "bytes_to_clients_total"] {
        assert!(process[key].as_u64().unwrap() > 0, "{key}");
    }
    let (p50, p99) = (process["p50_ms"].as_f64().unwrap(), process["p99_ms"].as_f64().unwrap());
    assert!(p50 > 0.0 && p50 <= p99, "{p50} {p99}");
    assert_eq!(status["workers"].as_array().unwrap().len(), 2);
    assert!(status["workers"][0]["load"].is_number(), "{}", status["workers"]);

    let front = desk.gateway.front().to_string();
    let listener = row(&status["listeners"], "name", &front);
    assert_eq!((listener["requests_total"].as_u64(), &listener["protocol"]), (Some(31), &"h1".into()));
    assert_eq!(listener["statuses"]["3xx"].as_u64(), Some(10));
    let route = row(&status["routes"], "name", "api");
    assert_eq!((route["requests_total"].as_u64(), &route["target"]), (Some(10), &"pool api".into()));
    assert_eq!(route["hosts"][0], "api.example");
    let old = row(&status["routes"], "name", "old");
    assert_eq!((&old["target"], &old["when"][0]), (&"redirect 301".into(), &"/old/*".into()));
    let pool = row(&status["pools"], "name", "web");
    assert_eq!((pool["requests_total"].as_u64(), pool["fit"].as_u64()), (Some(10), Some(2)));
    let backend = row(&status["backends"], "backend", &desk.api.address.to_string());
    assert_eq!((backend["requests_total"].as_u64(), &backend["state"]), (Some(10), &"up".into()));
    assert!(backend["p99_ms"].is_number(), "{backend:#}");
    assert!(!status["reasons"].as_array().unwrap().is_empty(), "the request with two hosts was refused");

    // Rates are those since the look before.
    std::thread::sleep(ms(1200));
    let quiet = desk.status();
    assert_eq!(quiet["process"]["requests_per_second"].as_f64(), Some(0.0), "{}", quiet["process"]);
    assert_eq!(quiet["number"].as_u64().unwrap(), status["number"].as_u64().unwrap() + 1);
}

pub(crate) fn an_ejected_backend_says_why() {
    let desk = Desk::start(|config| config);
    desk.fail_with(503);
    desk.traffic(10);
    let bad = desk.bad.address.to_string();
    eventually("it is out", seconds(10), || {
        row(&desk.status()["backends"], "backend", &bad)["state"] == "ejected"
    });
    let status = desk.status();
    let backend = row(&status["backends"], "backend", &bad);
    assert_eq!(backend["why"], "consecutive_5xx", "{backend:#}");
    assert!((30..=60).contains(&backend["over_in_seconds"].as_u64().unwrap()));
    let pool = row(&status["pools"], "name", "web");
    assert_eq!(
        (pool["ejected"].as_u64(), pool["fit"].as_u64(), pool["backends"].as_u64()),
        (Some(1), Some(1), Some(2))
    );
    assert!(pool["errors_total"].as_u64().unwrap() >= 3);
}

pub(crate) fn reloads_are_remembered_with_what_they_changed() {
    let mut desk = Desk::start(|config| config);
    let file = desk.gateway.config.render();
    desk.gateway.reload_text(&file.replace("workers = 2", "workers = 2\nreadiness_settle_ms = 1"));
    let text = file
        .replace("readiness_settle_ms = 0", "readiness_settle_ms = 5")
        .replace("workers = 2", "workers = 3");
    desk.gateway.reload_text(&text);
    desk.gateway.reload_text("nonsense");
    desk.gateway.reload_text(&text);
    let mut passes = Value::Null;
    eventually("all are remembered", seconds(5), || {
        passes = desk.status()["reloads"].clone();
        passes.as_array().unwrap().len() == 4
    });
    let passes = passes.as_array().unwrap();
    let outcomes: Vec<&Value> = passes.iter().map(|pass| &pass["outcome"]).collect();
    // The change that waits for a restart differs each time.
    assert_eq!(outcomes, ["applied", "rejected", "applied", "rejected"], "{passes:#?}");
    assert!(passes[1]["errors"][0].as_str().unwrap().contains("lb.toml"), "{passes:#?}");
    assert!(passes[2]["live"][0].as_str().unwrap().contains("readiness_settle_ms"), "{passes:#?}");
    assert!(passes[2]["restart"][0].as_str().unwrap().contains("workers"), "{passes:#?}");
    assert_eq!(passes[2]["version"].as_u64(), Some(2));
}

pub(crate) fn a_reload_begins_at_the_admin_port() {
    let desk = Desk::start(|config| config);
    let post = |fields: &[(&str, &str)]| {
        desk.gateway.admin_client().request("POST", "/reload", fields, b"").unwrap()
    };
    let token = format!("Bearer {TOKEN}");
    let with = [("Authorization", token.as_str())];
    assert_eq!(post(&[]).status, 403);
    assert_eq!(desk.gateway.admin_get("/reload").status, 403, "reading needs the token as well");
    let unchanged: Value = serde_json::from_str(&post(&with).text()).unwrap();
    assert_eq!(unchanged["outcome"], "unchanged");
    let text = desk.gateway.config.render().replace("readiness_settle_ms = 0", "readiness_settle_ms = 5");
    desk.gateway.write_config(&text);
    let applied: Value = serde_json::from_str(&post(&with).text()).unwrap();
    assert_eq!((&applied["outcome"], applied["version"].as_u64()), (&"applied".into(), Some(2)));
    desk.gateway.write_config("nonsense");
    let rejected = post(&with);
    assert_eq!(rejected.status, 422);
    assert!(rejected.text().contains("lb.toml:1"), "{}", rejected.text());
    eventually("the version is shown", seconds(5), || desk.status()["process"]["config_version"] == 2);
}

pub(crate) fn certificates_say_how_long_they_hold() {
    let desk = Desk::start(|config| config);
    let status = desk.status();
    let certificates = status["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 1);
    assert!(certificates[0]["days_left"].as_i64().unwrap() > 30, "{certificates:#?}");
    assert!(certificates[0]["file"].as_str().unwrap().ends_with("desk.pem"));
    assert_eq!(certificates[0]["listener"], desk.gateway.config.address(1).to_string());
}

pub(crate) fn a_drain_is_shown_until_the_end() {
    let desk = Desk::start(|config| config.runtime("drain_timeout_ms", 4000));
    // A request that never ends keeps the gateway from going.
    let mut client = Client::connect(desk.gateway.front()).unwrap();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").unwrap();
    eventually("it is at a backend", seconds(10), || status_of(&desk.gateway)["process"]["connections"] == 1);
    desk.gateway.process.signal(libc::SIGTERM);
    eventually("the drain is shown", seconds(3), || {
        let response = desk.gateway.admin_get("/status");
        let status: Value = serde_json::from_str(&response.text()).unwrap();
        status["process"]["state"] == "draining" && status["process"]["connections"] == 1
    });
}

//! Backends at the admin port: shown to whoever may read metrics, changed by whoever has the token.

use serde_json::Value;
use testkit::client::Response;
use testkit::dns::Dns;
use testkit::load::Load;
use testkit::{Backend, Config, Gateway, Listener, ms, seconds};

use crate::rig::{ask, gateway, listener_to};

const TOKEN: &str = "Bearer secret-token";

/// SHA-256 of the token.
const HASH: &str = "930bbdc51b6aed5c2a5678fd6e28dee7a05e8a4b643cfc0b4427c3efb86c0d94";

fn guarded(config: Config) -> Config {
    config.block("admin", "api_token_hash", HASH).runtime("workers", 1)
}

/// One request to the admin port, with the token.
#[track_caller]
pub(crate) fn call(gateway: &Gateway, method: &str, path: &str, body: &str) -> Response {
    let length = body.len().to_string();
    let mut headers = vec![("Authorization", TOKEN)];
    if !body.is_empty() {
        headers.push(("Content-Length", length.as_str()));
    }
    gateway.admin_client().request(method, path, &headers, body.as_bytes()).unwrap()
}

/// The same, which must succeed; the members of the pool that the answer shows.
#[track_caller]
pub(crate) fn done(gateway: &Gateway, method: &str, path: &str, body: &str) -> Vec<Value> {
    let response = call(gateway, method, path, body);
    assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
    let pools: Value = serde_json::from_str(&response.text()).unwrap();
    pools[0]["members"].as_array().unwrap().clone()
}

/// The members of `p` now.
#[track_caller]
pub(crate) fn members(gateway: &Gateway) -> Vec<Value> {
    done(gateway, "GET", "/backends/p", "")
}

fn at(backend: &Backend, verb: &str) -> String {
    format!("/backends/p/{}{verb}", backend.address)
}

fn adding(backend: &Backend) -> String {
    format!("{{\"address\": \"{}\", \"protocol\": \"h1\"}}", backend.address)
}

pub(crate) fn backends_are_shown_as_they_stand() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let gateway = gateway("least_request", &[&one, &two], |config| config.runtime("workers", 1));
    for _ in 0..6 {
        gateway.get("/");
    }
    // The last request is counted when its response has left, which its client may see first.
    testkit::eventually("all requests are counted", seconds(10), || {
        let pools: Value = serde_json::from_str(&gateway.admin_get("/backends").text()).unwrap();
        let members = pools[0]["members"].as_array().unwrap();
        members.iter().map(|member| member["requests_total"].as_u64().unwrap()).sum::<u64>() == 6
    });
    let response = gateway.admin_get("/backends");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type").as_deref(), Some("application/json; charset=utf-8"));
    let pools: Value = serde_json::from_str(&response.text()).unwrap();
    let pool = &pools.as_array().unwrap()[0];
    assert_eq!((pool["pool"].as_str(), pool["policy"].as_str()), (Some("p"), Some("least_request")));
    assert_eq!(pool["listeners"][0].as_str(), Some(gateway.front().to_string().as_str()));
    let shown = pool["members"].as_array().unwrap();
    assert_eq!(shown.len(), 2);
    let total: u64 = shown.iter().map(|member| member["requests_total"].as_u64().unwrap()).sum();
    assert_eq!(total, 6);
    for (member, backend) in shown.iter().zip([&one, &two]) {
        assert_eq!(member["address"].as_str(), Some(backend.address.to_string().as_str()));
        assert_eq!(member["origin"].as_str(), Some("file"));
        assert_eq!((member["weight"].as_u64(), member["priority"].as_u64()), (Some(1), Some(0)));
        assert_eq!(member["health"].as_str(), Some("unchecked"));
        let quiet = ["requests_in_flight", "failures_total", "ejections"];
        assert!(quiet.iter().all(|key| member[*key].as_u64() == Some(0)), "{member}");
        assert_eq!(member["connections"].as_u64(), Some(1), "kept to be used again");
        let flags = ["draining", "ejected", "probation"];
        assert!(flags.iter().all(|key| member[*key].as_bool() == Some(false)), "{member}");
        assert!(member["latency_mean_ms"].as_f64().is_some_and(|mean| mean > 0.0), "{member}");
    }
    assert_eq!(gateway.admin_get("/backends/q").status, 404);
}

pub(crate) fn c_08_changes_need_a_token_in_force() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let open = gateway("round_robin", &[&one], |config| config);
    let refused = call(&open, "POST", "/backends/p", &adding(&two));
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("admin.api_token_hash"), "{}", refused.text());
    let gateway = gateway("round_robin", &[&one, &two], guarded);
    let tries = [("POST", "/backends/p".to_owned()), ("DELETE", at(&two, "")), ("POST", at(&two, "/drain"))];
    for (method, path) in &tries {
        for token in ["", "Bearer wrong", HASH] {
            let headers = [("Authorization", token)];
            let response = gateway.admin_client().request(method, path, &headers, b"").unwrap();
            assert_eq!(response.status, 403, "{method} {path} {token}");
        }
        let headers = [("Authorization", TOKEN), ("Host", "evil.example")];
        let response = gateway.admin_client().request(method, path, &headers, b"").unwrap();
        assert_eq!(response.status, 403, "{method} {path} from a page");
    }
    assert_eq!(gateway.admin_get("/backends").status, 403);
    for path in [at(&two, ""), at(&two, "/drain"), at(&two, "/weight")] {
        assert_eq!(call(&gateway, "GET", &path, "").status, 405, "{path}");
    }
    assert_eq!(members(&gateway).len(), 2);
    let before = one.request_count() + two.request_count();
    assert_eq!(gateway.get("/backends").status, 200, "the data port passes it on");
    assert_eq!(one.request_count() + two.request_count(), before + 1);
}

pub(crate) fn backends_come_and_go_under_traffic() {
    let backends: Vec<Backend> = ["a", "b", "c"].map(Backend::standard).into();
    let gateway = gateway("round_robin", &[&backends[0]], |config| {
        guarded(config).runtime("workers", 2).runtime("max_keepalive_requests", 0)
    });
    let load = Load::start(gateway.front(), 8, "/", ms(1));
    for round in 0..10 {
        let (new, old) = (&backends[(round + 1) % 3], &backends[round % 3]);
        let shown = done(&gateway, "POST", "/backends/p", &adding(new));
        assert_eq!(shown.len(), 2, "{shown:?}");
        let before = new.request_count();
        testkit::eventually("the new one is used", seconds(5), || new.request_count() > before + 5);
        let shown = done(&gateway, "DELETE", &at(old, ""), "");
        assert_eq!(shown.len(), 1, "{shown:?}");
    }
    let tally = load.stop();
    assert_eq!(*tally.failures.lock().unwrap(), Vec::<String>::new());
    assert_eq!(tally.refused.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(gateway.messages().iter().any(|line| line == "backend removed by the admin port"));
    assert_eq!(ask(&gateway, &[]), "b", "who is left");
}

pub(crate) fn a_drained_backend_finishes_what_it_has() {
    let (go, waiting) = std::sync::mpsc::channel::<()>();
    let waiting = std::sync::Mutex::new(waiting);
    let slow = Backend::start(move |conn| {
        conn.request()?;
        waiting.lock().unwrap().recv_timeout(seconds(20)).ok();
        conn.respond(200, &[], b"slow")
    });
    let fast = Backend::standard("fast");
    let gateway = gateway("round_robin", &[&slow, &fast], guarded);
    // Until one is at the slow one.
    let asked = gateway.front();
    let mut running = Vec::new();
    while slow.request_count() == 0 {
        running.push(std::thread::spawn(move || {
            testkit::Client::connect(asked).unwrap().get("/").map(|response| response.text())
        }));
        std::thread::sleep(ms(50));
    }
    let shown = done(&gateway, "POST", &at(&slow, "/drain"), "");
    assert_eq!(
        (shown[0]["draining"].as_bool(), shown[0]["requests_in_flight"].as_u64()),
        (Some(true), Some(1))
    );
    let before = slow.request_count();
    for _ in 0..10 {
        assert_eq!(ask(&gateway, &[]), "fast");
    }
    assert_eq!(slow.request_count(), before);
    // Removal does not cut it either.
    assert_eq!(done(&gateway, "DELETE", &at(&slow, ""), "").len(), 1);
    go.send(()).unwrap();
    let answers: Vec<String> = running.into_iter().map(|asker| asker.join().unwrap().unwrap()).collect();
    assert!(answers.contains(&"slow".to_owned()), "{answers:?}");
    done(&gateway, "POST", "/backends/p", &adding(&slow));
    done(&gateway, "POST", &at(&fast, "/drain"), "");
    go.send(()).unwrap();
    assert_eq!(ask(&gateway, &[]), "slow", "added anew it is not drained any more");
    done(&gateway, "POST", &at(&fast, "/undrain"), "");
    done(&gateway, "POST", &at(&slow, "/drain"), "");
    assert_eq!(ask(&gateway, &[]), "fast");
}

pub(crate) fn weights_move_the_shares() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let gateway = gateway("round_robin", &[&one, &two], guarded);
    let shares = || {
        let before = (one.request_count(), two.request_count());
        (0..40).for_each(|_| drop(ask(&gateway, &[])));
        (one.request_count() - before.0, two.request_count() - before.1)
    };
    let shown = done(&gateway, "POST", &at(&one, "/weight"), "{\"weight\": 3}");
    assert_eq!(shown[0]["weight"].as_u64(), Some(3));
    assert_eq!(shares(), (30, 10));
    done(&gateway, "POST", &at(&one, "/weight"), "{\"weight\": 0}");
    assert_eq!(shares(), (0, 40));
    done(&gateway, "POST", &at(&one, "/weight"), "{\"weight\": null}");
    assert_eq!(shares(), (20, 20));
}

pub(crate) fn wrong_requests_change_nothing() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let gateway = gateway("round_robin", &[&one, &two], guarded);
    let (add, one_at) = (adding(&one), at(&one, ""));
    let weight = at(&one, "/weight");
    for (method, path, body, status) in [
        ("POST", "/backends/p", "", 400),
        ("POST", "/backends/p", "{}", 400),
        ("POST", "/backends/p", "[]", 400),
        ("POST", "/backends/p", "{\"address\": \"10.0.0.1\"}", 400),
        ("POST", "/backends/p", "{\"address\": \"10.0.0.1:80\", \"tls\": true}", 400),
        ("POST", "/backends/p", "{\"address\": \"nobody.invalid:80\"}", 422),
        ("POST", "/backends/p", add.as_str(), 409),
        ("POST", "/backends/q", "{\"address\": \"10.0.0.1:80\"}", 404),
        ("DELETE", "/backends/p/10.0.0.1:80", "", 404),
        ("DELETE", "/backends/p", "", 405),
        ("PUT", one_at.as_str(), "", 405),
        ("POST", weight.as_str(), "{\"weight\": -1}", 400),
        ("POST", weight.as_str(), "", 400),
        ("POST", "/backends/p/10.0.0.1:80/drain", "", 404),
    ] {
        let response = call(&gateway, method, path, body);
        assert_eq!(response.status, status, "{method} {path} {body}: {}", response.text());
        assert!(response.text().lines().count() == 1, "one line: {}", response.text());
    }
    let long = format!("{{\"address\": \"{}\"}}", "a".repeat(5000));
    assert_eq!(call(&gateway, "POST", "/backends/p", &long).status, 413);
    done(&gateway, "DELETE", &at(&one, ""), "");
    assert_eq!(call(&gateway, "DELETE", &at(&two, ""), "").status, 409, "the last one");
    let shown = members(&gateway);
    assert_eq!((shown.len(), shown[0]["weight"].as_u64()), (1, Some(1)));
}

pub(crate) fn a_reload_keeps_what_the_file_does_not_name() {
    let (one, two, three) = (Backend::standard("one"), Backend::standard("two"), Backend::standard("three"));
    let mut gateway = gateway("round_robin", &[&one, &two], guarded);
    done(&gateway, "POST", "/backends/p", &adding(&three));
    done(&gateway, "DELETE", &at(&one, ""), "");
    done(&gateway, "POST", &at(&two, "/weight"), "{\"weight\": 5}");
    done(&gateway, "POST", &at(&three, "/weight"), "{\"weight\": 7}");
    done(&gateway, "POST", &at(&two, "/drain"), "");
    let config = gateway.config.clone().runtime("drain_timeout_ms", 600);
    assert!(matches!(gateway.reload(config.clone()), testkit::gateway::Reload::Complete(_)));
    let stands = |gateway: &Gateway| -> Vec<(String, String, u64, bool)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let row = |member: &Value| {
            let weight = member["weight"].as_u64().unwrap();
            (text(&member["address"]), text(&member["origin"]), weight, member["draining"].as_bool().unwrap())
        };
        members(gateway).iter().map(row).collect()
    };
    let row = |backend: &Backend, origin: &str, weight, draining| {
        (backend.address.to_string(), origin.to_owned(), weight, draining)
    };
    let expected = [row(&one, "file", 1, false), row(&two, "file", 1, true), row(&three, "api", 7, false)];
    assert_eq!(stands(&gateway), expected);
    // Now the file names the third as well.
    let backends = [(one.address, ""), (two.address, ""), (three.address, "weight = 2")];
    let listener = listener_to(Listener::h1(), &backends).at(gateway.front());
    assert!(matches!(gateway.reload(config.with_listener(listener)), testkit::gateway::Reload::Complete(_)));
    let expected = [row(&one, "file", 1, false), row(&two, "file", 1, true), row(&three, "file", 2, false)];
    assert_eq!(stands(&gateway), expected);
}

pub(crate) fn tcp_connections_outlive_the_removal() {
    let (one, two) = (Backend::tcp_echo(), Backend::tcp_echo());
    let config = guarded(Config::new())
        .listener(listener_to(Listener::tcp(), &[(one.address, ""), (two.address, "")]));
    let gateway = Gateway::start(config);
    use std::io::{Read, Write};
    let mut old: Vec<std::net::TcpStream> =
        (0..4).map(|_| std::net::TcpStream::connect(gateway.front()).unwrap()).collect();
    let mut speak = |connection: &mut std::net::TcpStream| {
        connection.set_read_timeout(Some(seconds(5))).unwrap();
        connection.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        connection.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    };
    old.iter_mut().for_each(&mut speak);
    let shown = members(&gateway);
    let open: Vec<_> = shown.iter().map(|member| member["connections"].as_u64().unwrap()).collect();
    assert_eq!(open, [2, 2], "{shown:?}");
    assert_eq!(done(&gateway, "DELETE", &at(&one, ""), "").len(), 1);
    let before = one.connections();
    old.iter_mut().for_each(&mut speak);
    for _ in 0..4 {
        speak(&mut std::net::TcpStream::connect(gateway.front()).unwrap());
    }
    assert_eq!(one.connections(), before, "nothing new for the removed one");
    drop(old);
}

/// A change that is asked for while the gateway is busy, by somebody who does not wait for it, is not made afterwards.
pub(crate) fn who_has_left_changes_nothing() {
    let dns = Dns::start();
    dns.silence("slow.app.test");
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let gateway = gateway("round_robin", &[&one, &two], |config| {
        guarded(config).block("dns", "servers", vec![dns.address.to_string()])
    });
    let post = |path: &str, body: &str| {
        let length = body.len().to_string();
        let headers = [("Host", "localhost"), ("Authorization", TOKEN), ("Content-Length", &length)];
        let mut client = gateway.admin_client();
        client.send(testkit::request("POST", path, &headers, body.as_bytes())).unwrap();
        client
    };
    // A backend whose name is looked for.
    let mut busy = post("/backends/p", "{\"address\": \"slow.app.test:80\", \"protocol\": \"h1\"}");
    testkit::eventually("the name is asked for", seconds(10), || dns.queries() > 0);
    let mut leaver = post(&at(&one, "/drain"), "");
    leaver.quiet(ms(300)).unwrap();
    drop(leaver);
    busy.set_timeout(seconds(60));
    busy.response("POST").unwrap();
    assert!(members(&gateway).iter().all(|member| member["draining"] == false));
}

/// The same when it was begun, and could be made only after they had left.
pub(crate) fn who_leaves_meanwhile_changes_nothing() {
    let dns = Dns::start();
    dns.silence("slow.app.test");
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let gateway = gateway("round_robin", &[&one], |config| {
        guarded(config).block("dns", "servers", vec![dns.address.to_string()]).block(
            "dns",
            "timeout_ms",
            2000,
        )
    });
    let body = format!("{{\"address\": \"slow.app.test:{}\", \"protocol\": \"h1\"}}", two.address.port());
    let length = body.len().to_string();
    let headers = [("Host", "localhost"), ("Authorization", TOKEN), ("Content-Length", &length)];
    let mut client = gateway.admin_client();
    client.send(testkit::request("POST", "/backends/p", &headers, body.as_bytes())).unwrap();
    testkit::eventually("the name is asked for", seconds(10), || dns.queries() > 0);
    drop(client);
    // The gateway sees that before it sees the answer, which it has to ask for again.
    std::thread::sleep(ms(200));
    dns.set("slow.app.test", &["127.0.0.1"], 60);
    let shown = members(&gateway);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(!gateway.messages().iter().any(|line| line == "backend added by the admin port"));
    // It would have been made.
    assert_eq!(done(&gateway, "POST", "/backends/p", &body).len(), 2);
}

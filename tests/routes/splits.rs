//! Traffic that is split by weight, and clients that stay.

use testkit::gateway::Reload;
use testkit::{Backend, Config, Gateway, Listener, Pool, Response};

fn gateway(route: &str, backends: &[(&str, &Backend)]) -> Gateway {
    Gateway::start(config(Listener::h1(), route, backends))
}

fn config(listener: Listener, route: &str, backends: &[(&str, &Backend)]) -> Config {
    let config =
        Config::new().listener(listener.text(&format!("[[listeners.routes]]\nname = \"app\"\n{route}\n")));
    backends.iter().fold(config, |config, (name, backend)| {
        config.pool(Pool::named(name).backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]))
    })
}

/// The name and value of a cookie that a response sets.
fn cookie(response: &Response) -> Option<String> {
    response.header("set-cookie").map(|line| line.split(';').next().unwrap().to_owned())
}

pub(crate) fn x_07_requests_are_split_by_weight() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::standard);
    let split = "split = [{ pool = \"a\", weight = 70 }, { pool = \"b\", weight = 30 }, { pool = \"c\", weight = 0 }]";
    let gateway = gateway(split, &[("a", &a), ("b", &b), ("c", &c)]);
    let mut client = gateway.client();
    for _ in 0..1000 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    let counts = [&a, &b, &c].map(Backend::request_count);
    // 70 % of 1000, within 5 % of all.
    assert!((650..=750).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
}

pub(crate) fn x_06_a_branch_has_edits_of_its_own() {
    let [a, b] = ["a", "b"].map(Backend::standard);
    let split = "request_headers = { set = [\"X-Route: ${route}\", \"X-Both: route\"] }\n\
                 response_headers = { set = [\"X-Answer: route\"] }\n\
                 split = [{ pool = \"a\" }, { pool = \"b\", request_headers = { set = [\"X-Both: ${header.X-In}\"] }, \
                 response_headers = { add = [\"X-Answer: ${status} ${path}\"] } }]";
    let gateway = gateway(split, &[("a", &a), ("b", &b)]);
    let mut client = gateway.client();
    for _ in 0..64 {
        let response = client.request("GET", "/p", &[("X-In", "in")], b"").unwrap();
        let answers = response.head.headers.all("x-answer");
        match response.text().as_str() {
            "a" => assert_eq!(answers, ["route"]),
            _ => assert_eq!(answers, ["route", "200 /p"]),
        }
    }
    for (backend, both) in [(&a, "route"), (&b, "in")] {
        let request = backend.last_request();
        assert_eq!(request.header("x-route").as_deref(), Some("app"));
        assert_eq!(request.header("x-both").as_deref(), Some(both));
    }
}

pub(crate) fn x_08_x_09_no_weight_and_no_backend() {
    let a = Backend::standard("a");
    let gateway = gateway("split = [{ pool = \"a\", weight = 0 }]", &[("a", &a)]);
    assert_eq!(gateway.get("/").status, 500);
    assert_eq!(gateway.metric("filter_answers_total", &[("reason", "no_target")]), 1.0);
    assert_eq!(a.request_count(), 0);
}

pub(crate) fn clients_stay_by_cookie_and_move_only_with_their_share() {
    let [a, b] = ["a", "b"].map(Backend::standard);
    let backends = [("a", &a), ("b", &b)];
    let listener = Listener::h1();
    let of = |first: u32, second: u32| {
        let split = format!(
            "sticky = {{ cookie = \"release\", ttl_seconds = 60 }}\nsplit = [{{ pool = \"a\", weight = {first} }}, {{ pool = \"b\", weight = {second} }}]"
        );
        config(listener.clone(), &split, &backends)
    };
    let first = of(50, 50);
    let mut gateway = Gateway::start(first.clone());
    let at = |mut config: Config| {
        config.admin = first.admin;
        config.block("observability", "metrics_bind", first.admin.to_string())
    };
    let ask = |gateway: &Gateway, cookie: &str| {
        gateway.client().request("GET", "/", &[("Cookie", cookie)], b"").unwrap()
    };
    let mut clients = Vec::new();
    for _ in 0..60 {
        let response = gateway.get("/");
        let line = response.header("set-cookie").unwrap();
        assert!(line.contains("; Path=/; HttpOnly; SameSite=Lax; Max-Age=60"), "{line}");
        clients.push((cookie(&response).unwrap(), response.text()));
    }
    for (cookie, backend) in &clients {
        let response = ask(&gateway, &format!("x=y; {cookie}"));
        assert_eq!((&response.text(), response.header("set-cookie")), (backend, None));
    }
    // A cookie that is none gets another one.
    assert!(cookie(&ask(&gateway, "release=forged")).is_some());
    let Reload::Complete(_) = gateway.reload(at(of(80, 20))) else { panic!("it was refused") };
    let mut moved = 0;
    for (cookie, backend) in &clients {
        let now = ask(&gateway, cookie).text();
        assert!(now == *backend || now == "a", "nobody moves to a branch that shrinks");
        moved += u32::from(now != *backend);
    }
    assert!(moved > 0, "a share of 30 % of {} clients", clients.len());
    let Reload::Complete(_) = gateway.reload(at(of(50, 50))) else { panic!("it was refused") };
    for (cookie, backend) in &clients {
        assert_eq!(ask(&gateway, cookie).text(), *backend, "each has kept its place");
    }
}

pub(crate) fn clients_stay_by_pool_address_or_field() {
    let [a, b] = ["a", "b"].map(Backend::standard);
    let backends = [("a", &a), ("b", &b)];
    let split = "split = [{ pool = \"a\" }, { pool = \"b\" }]";
    let by_pool = gateway(&format!("sticky = {{ follow = \"pool\" }}\n{split}"), &backends);
    for pool in ["a", "b"] {
        let cookie = format!("eg_split={pool}");
        for _ in 0..8 {
            let response = by_pool.client().request("GET", "/", &[("Cookie", &cookie)], b"").unwrap();
            assert_eq!((response.text().as_str(), response.header("set-cookie")), (pool, None));
        }
    }
    let response = by_pool.get("/");
    assert_eq!(cookie(&response), Some(format!("eg_split={}", response.text())));

    let by_address = gateway(&format!("sticky = {{ by = \"client_ip\" }}\n{split}"), &backends);
    let first = by_address.get("/").text();
    assert!((0..16).all(|_| by_address.get("/").text() == first));

    let by_field = gateway(&format!("sticky = {{ by = \"header:X-User\" }}\n{split}"), &backends);
    let ask = |user: &str| by_field.client().request("GET", "/", &[("X-User", user)], b"").unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..24 {
        let user = user.to_string();
        let first = ask(&user).text();
        assert!((0..3).all(|_| ask(&user).text() == first), "{user}");
        assert_eq!(ask(&user).header("set-cookie"), None);
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2, "users are spread");
}

const TOKEN: &str = "Bearer secret-token";

/// SHA-256 of the token.
const HASH: &str = "930bbdc51b6aed5c2a5678fd6e28dee7a05e8a4b643cfc0b4427c3efb86c0d94";

pub(crate) fn weights_change_at_the_admin_port() {
    let [blue, green] = ["blue", "green"].map(Backend::standard);
    let backends = [("blue", &blue), ("green", &green)];
    let listener = Listener::h1();
    let of = |green: u32| {
        let split =
            format!("split = [{{ pool = \"blue\", weight = 1 }}, {{ pool = \"green\", weight = {green} }}]");
        config(listener.clone(), &split, &backends).block("admin", "api_token_hash", HASH)
    };
    let first = of(0);
    let mut gateway = Gateway::start(first.clone());
    let at = |mut config: Config| {
        config.admin = first.admin;
        config.block("observability", "metrics_bind", first.admin.to_string())
    };
    let call = |gateway: &Gateway, method: &str, path: &str, token: &str, body: &str| {
        let length = body.len().to_string();
        let headers = [("Authorization", token), ("Content-Length", length.as_str())];
        gateway.admin_client().request(method, path, &headers, body.as_bytes()).unwrap()
    };
    let weights = |response: &Response| -> Vec<u64> {
        let list: serde_json::Value = serde_json::from_str(&response.text()).unwrap();
        let branches = list[0]["routes"][0]["split"].as_array().unwrap().clone();
        branches.iter().map(|branch| branch["weight"].as_u64().unwrap()).collect()
    };
    let all = |gateway: &Gateway, name: &str| (0..16).all(|_| gateway.get("/").text() == name);
    assert_eq!(weights(&call(&gateway, "GET", "/routes", TOKEN, "")), [1, 0]);
    assert!(all(&gateway, "blue"));
    let path = "/routes/app/weights";
    // From the answer on, every worker serves by it.
    let turned = call(&gateway, "POST", path, TOKEN, "{\"blue\": 0, \"green\": 1}");
    assert_eq!((turned.status, weights(&turned)), (200, vec![0, 1]), "{}", turned.text());
    assert!(all(&gateway, "green"));
    for (token, method, path, body, status) in [
        ("Bearer wrong", "POST", path, "{\"blue\": 1}", 403),
        ("", "GET", "/routes", "", 403),
        (TOKEN, "POST", "/routes/other/weights", "{\"blue\": 1}", 404),
        (TOKEN, "POST", path, "{\"red\": 1}", 404),
        (TOKEN, "POST", path, "{\"blue\": -1}", 400),
        (TOKEN, "GET", path, "", 405),
    ] {
        assert_eq!(call(&gateway, method, path, token, body).status, status, "{method} {path} {body}");
    }
    assert!(all(&gateway, "green"));
    let back = call(&gateway, "POST", path, TOKEN, "{\"blue\": null, \"green\": null}");
    assert_eq!(weights(&back), [1, 0]);
    assert!(all(&gateway, "blue"));
    // A file that says another weight than before wins.
    call(&gateway, "POST", path, TOKEN, "{\"blue\": 0, \"green\": 1}");
    let Reload::Complete(_) = gateway.reload(at(of(3))) else { panic!("it was refused") };
    assert_eq!(weights(&call(&gateway, "GET", "/routes", TOKEN, "")), [0, 3]);
}

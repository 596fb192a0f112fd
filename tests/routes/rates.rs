//! Rate limits: how many requests of a key pass, what clients are told, and what a reload keeps.
//!
//! Windows are so long that nothing becomes free while a test runs.

use std::net::IpAddr;

use testkit::gateway::{Reload, cli};
use testkit::{Backend, Client, Config, Gateway, H2Client, Listener, Pool};

use crate::ways::Ways;

const FIELDS: [&str; 3] = ["retry-after", "ratelimit-policy", "ratelimit"];

/// `[policies.NAME.rate_limit]` that lets so many pass at once, and one in so many seconds after them.
fn policy(name: &str, burst: u32, seconds: u32, more: &str) -> String {
    format!(
        "[policies.{name}.rate_limit]\nrequests = 1\nwindow_seconds = {seconds}\nburst = {burst}\n{more}\n"
    )
}

fn web(backend: &Backend) -> Pool {
    Pool::named("web").backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())])
}

pub(crate) fn a_limit_holds_over_every_protocol() {
    let backend = Backend::standard("web");
    let config = Config::new().text(&policy("api", 6, 600, "")).pool(web(&backend));
    let ways = Ways::start_with(config, "", |listener| {
        listener.key("pool", "web").key("policies", vec!["api".to_owned()])
    });
    let mut left = 6;
    for _ in 0..2 {
        for got in ways.ask("GET", "/", &[], &FIELDS) {
            left -= 1;
            assert_eq!(got.status, 200, "{}", got.version);
            let told = FIELDS.map(|name| got.header(name));
            assert_eq!(told[..2], [None, Some("\"api\";q=1;w=600".to_owned())], "{}", got.version);
            let rest = told[2].clone().unwrap();
            let rest = rest.strip_prefix(&format!("\"api\";r={left};t=")).expect(&rest);
            let seconds: u32 = rest.parse().unwrap();
            let owed = (6 - left) * 600;
            assert!((owed - 60..=owed).contains(&seconds), "{rest} over {}", got.version);
        }
    }
    for got in ways.ask("POST", "/x", &[], &FIELDS) {
        assert_eq!((got.status, got.text.as_str()), (429, "429 Too Many Requests\n"), "{}", got.version);
        let wait: u32 = got.header("retry-after").unwrap().parse().unwrap();
        assert!((540..=600).contains(&wait), "{wait} over {}", got.version);
        assert!(got.header("ratelimit").unwrap().starts_with("\"api\";r=0;t=3"), "{}", got.version);
    }
    assert_eq!(backend.request_count(), 6);
    let answered = |reason| ways.gateway.metric("filter_answers_total", &[("reason", reason)]);
    assert_eq!((answered("rate_limit"), answered("access")), (3.0, 0.0));
    assert_eq!(ways.gateway.metric("request_rejected_total", &[]), 0.0);
    assert_eq!(ways.gateway.metric("rate_limit_evictions_total", &[("policy", "api")]), 0.0);
}

pub(crate) fn workers_and_listeners_share_a_limit() {
    let backend = Backend::standard("web");
    let listener = || Listener::h1().key("policies", vec!["api".to_owned()]).key("pool", "web");
    let config = Config::new()
        .runtime("workers", 3)
        .text(&policy("api", 20, 600, ""))
        .pool(web(&backend))
        .listener(listener())
        .listener(listener());
    let fronts = [config.address(0), config.address(1)];
    let _gateway = Gateway::start(config);
    // Connections enough that each worker has some of each listener.
    let mut clients: Vec<_> = (0..60).map(|at| Client::connect(fronts[at % 2]).unwrap()).collect();
    let statuses: Vec<_> = clients.iter_mut().map(|client| client.get("/").unwrap().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 20);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 40);
    assert_eq!(backend.request_count(), 20);
}

/// Requests with fields, of a host and for a target, one after the other, each with the status that it gets.
type Asked = &'static [(&'static str, &'static [(&'static str, &'static str)], u16)];

pub(crate) fn requests_are_counted_by_keys() {
    let rows: [(&str, &str, Asked); 9] = [
        (
            "header:x-key",
            "",
            &[
                ("/", &[("X-Key", "a")], 200),
                ("/other", &[("x-key", "a")], 429),
                ("/", &[("X-Key", "b")], 200),
                ("/", &[("X-Key", "a"), ("X-Key", "b")], 200),
                // Without a value the address stands in.
                ("/", &[], 200),
                ("/", &[("X-Other", "a")], 429),
            ],
        ),
        (
            "header:x-key",
            "on_missing = \"skip\"",
            &[("/", &[], 200), ("/", &[], 200), ("/", &[("X-Key", "a")], 200), ("/", &[("X-Key", "a")], 429)],
        ),
        (
            "header:x-key",
            "on_missing = \"deny\"\nstatus = 403",
            &[("/", &[], 403), ("/", &[("X-Key", "a")], 200), ("/", &[("X-Key", "a")], 403)],
        ),
        (
            "cookie:s",
            "",
            &[
                ("/", &[("Cookie", "t=9; s=1")], 200),
                ("/", &[("Cookie", "s=1; t=8")], 429),
                ("/", &[("Cookie", "s=2")], 200),
            ],
        ),
        ("query:q", "", &[("/?q=%41", &[], 200), ("/?x=y&q=A&q=B", &[], 429), ("/?q=B", &[], 200)]),
        (
            "host",
            "",
            &[
                ("/", &[("Host", "a.example")], 200),
                ("/", &[("Host", "A.EXAMPLE.:81")], 429),
                ("/", &[("Host", "b.example")], 200),
            ],
        ),
        ("path", "", &[("/x", &[], 200), ("/y/../%78?q", &[], 429), ("/X", &[], 200)]),
        ("route", "", &[("/r/x", &[], 200), ("/r/y", &[], 429), ("/s", &[], 200), ("/s", &[], 429)]),
        (
            "path+header:x-key+client_ip",
            "",
            &[
                ("/", &[("X-Key", "a")], 200),
                ("/x", &[("X-Key", "a")], 200),
                ("/", &[("X-Key", "b")], 200),
                ("/", &[("X-Key", "a")], 429),
            ],
        ),
    ];
    for (key, more, asked) in rows {
        let backend = Backend::standard("web");
        let listener = Listener::h1().text(
            "policies = [\"k\"]\npool = \"web\"\n\
             [[listeners.routes]]\nname = \"r\"\npath_prefix = \"/r\"\npool = \"web\"\n\
             [[listeners.routes]]\nname = \"s\"\npath_prefix = \"/s\"\npool = \"web\"\n",
        );
        let text = policy("k", 1, 600, &format!("key = \"{key}\"\n{more}"));
        let gateway = Gateway::start(Config::new().text(&text).pool(web(&backend)).listener(listener));
        let mut client = gateway.client();
        for (at, (target, fields, status)) in asked.iter().enumerate() {
            let mut all = vec![("Host", "test.example")];
            if fields.iter().any(|(name, _)| *name == "Host") {
                all.clear();
            }
            all.extend(*fields);
            let got = client.request("GET", target, &all, b"").unwrap();
            assert_eq!(got.status, *status, "{key} {more}: {at}. {target} {fields:?}");
            // What lacks a key is no better off later.
            let waits = *status == 429 || (*status == 403 && !fields.is_empty());
            assert_eq!(got.header("retry-after").is_some(), waits, "{key} {more}: {at}. {target}");
        }
        backend.assert_clean();
    }
}

pub(crate) fn clients_are_counted_by_network_behind_trusted_proxies_too() {
    let backend = Backend::standard("web");
    let listener = Listener::h1()
        .key("policies", vec!["c".to_owned()])
        .key("pool", "web")
        .text("[listeners.client_address]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let text = policy("c", 1, 600, "ipv4_prefix = 24");
    let gateway = Gateway::start(Config::new().text(&text).pool(web(&backend)).listener(listener));
    let ask = |from: &str, told: &str| {
        let mut client = Client::connect_from(from.parse::<IpAddr>().unwrap(), gateway.front()).unwrap();
        client.request("GET", "/", &[("Host", "a"), ("X-Forwarded-For", told)], b"").unwrap().status
    };
    for (from, told, status) in [
        ("127.0.0.1", "192.0.2.1", 200),
        ("127.0.0.1", "192.0.2.200", 429),
        ("127.0.0.1", "192.0.3.1", 200),
        // An IPv4 address inside another counts as that one.
        ("127.0.0.1", "64:ff9b::c000:301", 429),
        ("127.0.0.1", "2002:c000:301::1", 429),
        ("127.0.0.1", "::ffff:192.0.3.9", 429),
        // A customer has a /64 of his own: an address of it is no other client.
        ("127.0.0.1", "2001:db8:1:2::1", 200),
        ("127.0.0.1", "2001:db8:1:2:ffff::2", 429),
        ("127.0.0.1", "2001:db8:1:3::1", 200),
        // What others say of themselves does not count.
        ("127.0.1.2", "198.51.100.1", 200),
        ("127.0.1.3", "198.51.100.2", 429),
        ("127.0.2.2", "192.0.2.1", 200),
    ] {
        assert_eq!(ask(from, told), status, "{told} by {from}");
    }
}

pub(crate) fn limits_of_all_levels_add_up() {
    let backend = Backend::standard("web");
    let listener = Listener::h1().text(
        "policies = [\"wide\"]\n\
         [[listeners.routes]]\npath = \"/narrow\"\npool = \"web\"\npolicies = [\"narrow\"]\n\
         [[listeners.routes]]\npath = \"/free\"\npool = \"web\"\nwithout = [\"rate_limit\"]\n\
         [[listeners.routes]]\npath = \"/away\"\nredirect = { path = \"/\" }\n\
         [[listeners.routes]]\npath = \"/\"\npool = \"web\"\n",
    );
    let text = policy("wide", 4, 600, "") + &policy("narrow", 1, 900, "status = 503\nfields = false");
    let gateway = Gateway::start(Config::new().text(&text).pool(web(&backend)).listener(listener));
    let mut client = gateway.client();
    let mut ask = |target: &str| {
        let got = client.get(target).unwrap();
        (
            got.status,
            FIELDS.map(|name| got.header(name).map(|value| value.split(";t=").next().unwrap().to_owned())),
        )
    };
    let left = |left: &str| [None, Some("\"wide\";q=1;w=600".to_owned()), Some(format!("\"wide\";r={left}"))];
    assert_eq!(ask("/narrow"), (200, left("3")));
    // What the narrow limit refuses costs nothing with the wide one.
    for _ in 0..5 {
        let (status, [retry, policy, limit]) = ask("/narrow");
        assert_eq!((status, policy, limit), (503, None, None));
        assert!(retry.is_some_and(|seconds| (840..=900).contains(&seconds.parse::<u32>().unwrap())));
    }
    assert_eq!(ask("/"), (200, left("2")));
    // A redirect and the answer that there is nothing are limited too.
    assert_eq!(ask("/away"), (302, left("1")));
    assert_eq!(ask("/nothing"), (404, left("0")));
    for target in ["/", "/away", "/nothing", "/narrow"] {
        assert_eq!(ask(target).0, 429, "{target}");
    }
    for _ in 0..9 {
        assert_eq!(ask("/free"), (200, [None, None, None]));
    }
}

pub(crate) fn a_limit_that_runs_dry_counts_and_lets_pass() {
    let backend = Backend::standard("web");
    let listener = Listener::h1().key("policies", vec!["dry".to_owned()]).key("pool", "web");
    let config = Config::new().text(&policy("dry", 2, 600, "dry_run = true")).pool(web(&backend));
    let gateway = Gateway::start(config.listener(listener));
    for _ in 0..5 {
        let got = gateway.get("/");
        assert_eq!(got.status, 200);
        assert!(FIELDS.iter().all(|name| got.header(name).is_none()));
    }
    assert_eq!(gateway.metric("filter_dry_run_total", &[("reason", "rate_limit")]), 3.0);
    assert_eq!(gateway.metric("filter_answers_total", &[("reason", "rate_limit")]), 0.0);
    assert_eq!(backend.request_count(), 5);
}

pub(crate) fn a_reload_keeps_what_is_owed() {
    let backend = Backend::standard("web");
    let listener = Listener::h1();
    let first = Config::new();
    let config = |text: String| {
        let mut config = Config::new();
        config.admin = first.admin;
        config
            .block("observability", "metrics_bind", first.admin.to_string())
            .text(&text)
            .pool(web(&backend))
            .listener(listener.clone().key("policies", vec!["a".to_owned()]).key("pool", "web"))
    };
    let mut gateway = Gateway::start(config(policy("a", 2, 600, "")));
    let mut client = gateway.client();
    let mut statuses =
        |count: usize| -> Vec<u16> { (0..count).map(|_| client.get("/").unwrap().status).collect() };
    assert_eq!(statuses(3), [200, 200, 429]);
    for (text, expected) in [
        // Something else has changed.
        (policy("a", 2, 600, "status = 503"), vec![503]),
        (policy("a", 2, 600, "") + &policy("b", 1, 1, ""), vec![429]),
        // A larger burst: what was owed is still owed.
        (policy("a", 4, 600, ""), vec![200, 200, 429]),
        // A smaller one, and again the larger one: a key owes no more than the limit in force allows.
        (policy("a", 1, 600, ""), vec![429]),
        // Counted by something else, or in a table of another size: from the beginning.
        (policy("a", 1, 600, "key = \"host\""), vec![200, 429]),
        (policy("a", 1, 600, "key = \"host\"\nmax_keys = 100"), vec![200, 429]),
        // A faster rate holds at once.
        (policy("a", 1, 1, "key = \"host\"\nmax_keys = 100"), vec![429]),
    ] {
        let Reload::Complete(_) = gateway.reload(config(text.clone())) else { panic!("refused: {text}") };
        assert_eq!(statuses(expected.len()), expected, "{text}");
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(statuses(1), [200], "what a key owed under a slow rate does not outlast it");
    let Reload::Rejected(_) = gateway.reload(config(policy("a", 0, 600, ""))) else { panic!("accepted") };
}

pub(crate) fn calls_and_tunnels_are_limited_in_their_words() {
    let server = Backend::start(|conn| {
        let head = conn.head()?;
        match head.headers.get("sec-websocket-key") {
            Some(key) => {
                let proof = testkit::websocket::accept_key(&key);
                conn.send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {proof}\r\n\r\n"
                ))?;
                conn.hold(testkit::seconds(2));
                Ok(())
            }
            None => conn.respond(200, &[], b"web"),
        }
    });
    let listener = Listener::h2c()
        .websocket()
        .key("policies", vec!["a".to_owned()])
        .key("pool", "web")
        .block("grpc", "enabled", true);
    let text = policy("a", 1, 600, "key = \"path\"");
    let gateway = Gateway::start(Config::new().text(&text).pool(web(&server)).listener(listener));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let call = [("content-type", "application/grpc"), ("te", "trailers")];
    client.request("POST", "/s/m", &call, b"").unwrap();
    let refused = client.request("POST", "/s/m", &call, b"").unwrap();
    let of = |name: &str| refused.header(name).unwrap_or_default();
    assert_eq!((refused.status(), of("grpc-status").as_str()), (200, "8"), "RESOURCE_EXHAUSTED");
    assert!(!of("retry-after").is_empty() && of("ratelimit").contains("r=0"));
    let counted = gateway.metric("grpc_calls_total", &[("grpc_status", "RESOURCE_EXHAUSTED")]);
    assert_eq!(counted, 1.0);

    let upgrade = [
        ("Host", "a"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for status in [101, 429] {
        let mut client = gateway.client();
        client.send(testkit::request("GET", "/ws", &upgrade, b"")).unwrap();
        let (_, head) = client.head("GET").unwrap();
        assert_eq!(head.status, status);
        assert!(head.headers.get("ratelimit").is_some(), "the answer to a handshake tells what is left");
    }
}

pub(crate) fn explain_and_the_log_name_the_limit() {
    let backend = Backend::standard("web");
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let listener = Listener::h1().key("policies", vec!["slow".to_owned()]).key("pool", "web");
    let config = Config::new()
        .block("observability", "access_log", log.to_str().unwrap())
        .text(&policy("slow", 1, 600, "key = \"host+client_ip\""))
        .pool(web(&backend))
        .listener(listener);
    let file = dir.path().join("lb.toml");
    std::fs::write(&file, config.render()).unwrap();
    let done = cli(&["explain", file.to_str().unwrap(), "GET", "http://a.example/"]);
    let line =
        "  rate limit slow: 1 in 600 s by host+client_ip, 1 at once; more are answered 429 (rate_limit)\n";
    assert!(done.stdout.contains(line), "{} {}", done.stdout, done.stderr);
    let gateway = Gateway::start(config);
    assert_eq!([gateway.get("/").status, gateway.get("/").status], [200, 429]);
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    testkit::eventually("both lines", testkit::seconds(10), || lines().lines().count() == 2);
    assert_eq!(lines().matches("\"reason\":\"rate_limit\"").count(), 1, "{}", lines());
}

//! Attacks on routes, judged by which backend received what.

use testkit::{Backend, Config, Gateway, H2Client, Listener, Pool};

/// `/public` and `/admin` behind one listener, each with a backend of its own; everything else goes to a third.
struct Guarded {
    gateway: Gateway,
    public: Backend,
    admin: Backend,
}

impl Guarded {
    fn start() -> Self {
        let (public, admin) = (Backend::standard("public"), Backend::standard("admin"));
        let listener = Listener::h2c().text(
            "[[listeners.routes]]\npath_prefix = \"/public\"\npool = \"public\"\n\
             [[listeners.routes]]\npath_prefix = \"/admin\"\npool = \"admin\"\n\
             [[listeners.routes]]\npath_prefix = \"/api\"\npool = \"public\"\n",
        );
        let listener = listener.backend(public.address);
        let config = Config::new()
            .listener(listener)
            .pool(Pool::named("public").backend(public.address))
            .pool(Pool::named("admin").backend(admin.address));
        Self { gateway: Gateway::start(config), public, admin }
    }

    /// The answers over HTTP/1.1 and HTTP/2.
    fn ask(&self, target: &str, fields: &[(&str, &str)]) -> [(u16, String); 2] {
        let one = self.gateway.client().request("GET", target, fields, b"").unwrap();
        let lower: Vec<_> = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
        let lower: Vec<_> = lower.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let two =
            H2Client::connect(self.gateway.front()).unwrap().request("GET", target, &lower, b"").unwrap();
        [(one.status, one.text()), (two.status(), two.text())]
    }

    /// The path is refused, and no backend hears of it.
    #[track_caller]
    fn assert_refused(&self, target: &str, reason: &str) {
        let heard = (self.public.request_count(), self.admin.request_count());
        let before = self.gateway.metric("request_rejected_total", &[("reason", reason)]);
        for (version, (status, _)) in self.ask(target, &[]).into_iter().enumerate() {
            assert_eq!(status, 400, "{target} over HTTP/{}", version + 1);
        }
        let after = self.gateway.metric("request_rejected_total", &[("reason", reason)]);
        assert_eq!(after - before, 2.0, "{target}: not counted under {reason}");
        assert_eq!(
            heard,
            (self.public.request_count(), self.admin.request_count()),
            "{target} was forwarded"
        );
    }

    /// The path goes to a backend in this form.
    #[track_caller]
    fn assert_forwarded(&self, target: &str, backend: &Backend, forwarded: &str) {
        for (version, (status, _)) in self.ask(target, &[]).into_iter().enumerate() {
            assert_eq!(status, 200, "{target} over HTTP/{}", version + 1);
            assert_eq!(backend.last_request().target(), forwarded, "{target} over HTTP/{}", version + 1);
        }
    }
}

pub(crate) fn r_01_dot_segments() {
    let rig = Guarded::start();
    for target in ["/public/../admin", "/public/%2e%2e/admin", "/public/.%2E/admin", "/public/./../admin"] {
        rig.assert_forwarded(target, &rig.admin, "/admin");
    }
    rig.assert_refused("/public/../../admin", "path_syntax");
    rig.assert_refused("/%2e%2e/admin", "path_syntax");
}

pub(crate) fn r_02_slashes_in_a_row() {
    let rig = Guarded::start();
    rig.assert_forwarded("//admin", &rig.admin, "/admin");
    rig.assert_forwarded("///admin//x", &rig.admin, "/admin//x");
    rig.assert_forwarded("/public//../admin", &rig.public, "/public/admin");
    rig.assert_refused("/other//..%2Fadmin", "path_ambiguous");
}

pub(crate) fn r_03_parameters_of_segments() {
    let rig = Guarded::start();
    for target in ["/admin;x/", "/;/admin", "/public/..;/admin", "/public/..;a=b/admin", "/public;/..;/admin"]
    {
        rig.assert_refused(target, "path_ambiguous");
    }
    rig.assert_forwarded("/public/a;b=c", &rig.public, "/public/a;b=c");
}

pub(crate) fn r_04_encoded_separators() {
    let rig = Guarded::start();
    for target in [
        "/public%2f..%2fadmin",
        "/public%2F..%2Fadmin",
        "/public/..%2fadmin",
        "/public%5c..%5cadmin",
        "/admin%2fx",
    ] {
        rig.assert_refused(target, "path_ambiguous");
    }
    rig.assert_refused("/public\\..\\admin", "path_syntax");
    rig.assert_forwarded("/api/v4/projects/a%2fb", &rig.public, "/api/v4/projects/a%2Fb");
}

pub(crate) fn r_05_double_and_overlong_encoding() {
    let rig = Guarded::start();
    for target in [
        "/public/%252e%252e/admin",
        "/public%252f..%252fadmin",
        "/public/%25252e%25252e/admin",
        "/public/%2525252525",
        "/public/%c0%ae%c0%ae/admin",
        "/public/%25c0%25af",
        "/public/%e0%80%af",
    ] {
        rig.assert_refused(target, "path_ambiguous");
    }
    rig.assert_forwarded("/public/100%25", &rig.public, "/public/100%25");
}

pub(crate) fn r_06_control_characters_and_broken_escapes() {
    let rig = Guarded::start();
    for target in [
        "/public/%00",
        "/admin%00",
        "/public/%0d%0aX",
        "/public/%",
        "/public/%2",
        "/public/%zz",
        "/public/%7f",
    ] {
        rig.assert_refused(target, "path_syntax");
    }
}

pub(crate) fn r_07_encoded_ends_of_the_path() {
    let rig = Guarded::start();
    for target in ["/admin%3fx", "/admin%23", "/admin%3F/..%2Fpublic"] {
        rig.assert_refused(target, "path_ambiguous");
    }
}

pub(crate) fn r_09_second_spellings_of_a_host() {
    let [one, rest] = ["one", "rest"].map(Backend::standard);
    let listener = Listener::h2c()
        .text("[[listeners.routes]]\nhosts = [\"one.example\"]\npool = \"one\"\n")
        .backend(rest.address);
    let gateway =
        Gateway::start(Config::new().listener(listener).pool(Pool::named("one").backend(one.address)));
    for host in ["ONE.example", "one.example.", "one.example:80", "One.Example.:8080"] {
        assert_eq!(
            gateway.client().request("GET", "/", &[("Host", host)], b"").unwrap().text(),
            "one",
            "{host}"
        );
        let absolute = format!("http://{host}/");
        assert_eq!(
            gateway.client().request("GET", &absolute, &[("Host", host)], b"").unwrap().text(),
            "one",
            "{host}"
        );
        let mut client = H2Client::connect(gateway.front()).unwrap();
        client.authority = host.to_owned();
        assert_eq!(client.get("/").unwrap().text(), "one", "{host}");
    }
    for host in ["%6fne.example", "one.example..", "one..example", "one.example%2e", "*.example", "a_b;c"] {
        let response = gateway.client().request("GET", "/", &[("Host", host)], b"").unwrap();
        assert_eq!(response.status, 400, "{host}");
    }
    assert!(rest.requests().is_empty(), "{:?}", rest.requests());
}

pub(crate) fn r_10_fields_that_name_another_request() {
    let rig = Guarded::start();
    let fields = [
        ("X-Original-URL", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "DELETE"),
        ("X-Forwarded-Prefix", "/admin"),
        ("X-Original-Host", "admin.example"),
        ("X-Host", "admin.example"),
        ("X-Other", "stays"),
    ];
    rig.ask("/public", &fields);
    for request in rig.public.requests() {
        for (name, _) in &fields[..8] {
            assert_eq!(request.header(name), None, "{name}");
        }
        assert_eq!(request.header("x-other").as_deref(), Some("stays"));
    }
    assert_eq!(rig.public.request_count(), 2);
}

pub(crate) fn r_11_a_field_that_connection_takes_away_is_not_matched() {
    let [one, rest] = ["one", "rest"].map(Backend::standard);
    let listener = Listener::h1()
        .text("[[listeners.routes]]\nheaders = [\"X-Staff=yes\"]\npool = \"one\"\n")
        .backend(rest.address);
    let gateway =
        Gateway::start(Config::new().listener(listener).pool(Pool::named("one").backend(one.address)));
    let ask = |fields: &[(&str, &str)]| gateway.client().request("GET", "/", fields, b"").unwrap().text();
    assert_eq!(ask(&[("X-Staff", "yes")]), "one");
    assert_eq!(ask(&[("X-Staff", "yes"), ("Connection", "X-Staff")]), "rest");
    assert_eq!(ask(&[("X-Staff", "yes"), ("X-Staff", "yes")]), "rest");
}

pub(crate) fn r_19_r_31_long_paths_cost_little() {
    let rig = Guarded::start();
    let segments = format!("/public{}", "/a".repeat(3900));
    rig.assert_forwarded(&segments, &rig.public, &segments);
    let odd = format!("/public{}", "/a;b%2Fc//".repeat(700));
    for (status, _) in rig.ask(&odd, &[]) {
        assert!(matches!(status, 200 | 400), "{status}");
    }
    let dots = format!("/public{}", "/a/..".repeat(1500));
    rig.assert_forwarded(&dots, &rig.public, "/public/");
}

pub(crate) fn r_25_options_of_the_whole_server() {
    let rig = Guarded::start();
    let response = rig.gateway.client().request("OPTIONS", "*", &[], b"").unwrap();
    assert_eq!(response.status, 200);
    assert_eq!((rig.public.last_request().target(), rig.admin.request_count()), ("*", 0));
}

pub(crate) fn r_08_dots_around_a_prefix_that_is_taken_off() {
    let [api, admin] = ["api", "admin"].map(Backend::standard);
    let listener = Listener::h2c().text(
        "[[listeners.routes]]\npool = \"api\"\nrewrite = { prefix = \"/v1/app\" }\n\
         matches = [{ path_prefix = \"/api\" }, { path_prefix = \"/admin\" }]\n\
         [[listeners.routes]]\npath_prefix = \"/guarded\"\npool = \"admin\"\n\
         [[listeners.routes]]\npath_prefix = \"/strip\"\npool = \"api\"\nrewrite = { prefix = \"/\" }\n\
         [[listeners.routes]]\npath_prefix = \"/\"\npool = \"api\"\n",
    );
    let config = Config::new()
        .listener(listener)
        .pool(Pool::named("api").backend(api.address))
        .pool(Pool::named("admin").backend(admin.address));
    let rig = Guarded { gateway: Gateway::start(config), public: api, admin };
    // A lenient backend would serve what stands beside the new prefix.
    for target in ["/api/..%2Fadmin", "/api/..%2fadmin/x", "/api/..;/admin", "/api/%252e%252e/admin"] {
        let heard = rig.public.request_count();
        for (version, (status, _)) in rig.ask(target, &[]).into_iter().enumerate() {
            assert_eq!(status, 400, "{target} over HTTP/{}", version + 1);
        }
        assert_eq!(rig.public.request_count(), heard, "{target} was forwarded");
    }
    rig.assert_refused("/api/..%2Fadmin", "rewrite");
    rig.assert_refused("/strip//guarded", "rewrite");
    for target in ["/strip%2f..%2fguarded", "/strip/..%2Fguarded", "/strip../%67uarded/..%2F..%2Fguarded"] {
        rig.assert_refused(target, "path_ambiguous");
    }
    // No segment is taken in two, and dots are resolved before anything is matched.
    rig.assert_forwarded("/strip../guarded", &rig.public, "/strip../guarded");
    rig.assert_forwarded("/strip/./x", &rig.public, "/x");
    rig.assert_forwarded("/api/a/..%2Fb", &rig.public, "/v1/app/a/..%2Fb");
    rig.assert_forwarded("/strip/../guarded", &rig.admin, "/guarded");
}

pub(crate) fn r_11_fields_that_the_gateway_writes_cannot_be_forged() {
    let backend = Backend::standard("web");
    let listener = Listener::h2c().text(
        "[listeners.request_id]\n[[listeners.routes]]\npath_prefix = \"/guarded\"\npool = \"web\"\n\
         request_headers = { set = [\"X-Role: guest\"], remove = [\"X-Internal\"] }\n\
         [[listeners.routes]]\npool = \"web\"\n",
    );
    let config = Config::new()
        .block("runtime", "header_underscore_policy", "allow")
        .listener(listener)
        .pool(Pool::named("web").backend(backend.address));
    let gateway = Gateway::start(config);
    let forged = [
        ("X-Role", "admin"),
        ("X_Role", "admin"),
        ("x-internal", "1"),
        ("X_Internal", "1"),
        ("X-Request-Id", "forged"),
        ("X-Request_Id", "forged"),
    ];
    let by_connection = [("Connection", "X-Role, X-Request-Id, X-Internal"), forged[0], forged[4]];
    for (target, role) in [("/guarded", &["guest"][..]), ("/open", &["admin"])] {
        for fields in [&forged[..], &by_connection] {
            gateway.client().request("GET", target, fields, b"").unwrap();
            let request = backend.last_request();
            let is_by_connection = fields.len() == by_connection.len();
            let expected = if is_by_connection && target == "/open" { &[] } else { role };
            assert_eq!(request.head.headers.all("x-role"), expected, "{target}");
            assert_eq!(request.header("x-internal").is_some(), target == "/open" && !is_by_connection);
            let id = request.head.headers.all("x-request-id");
            assert!(matches!(&id[..], [id] if id.len() == 36), "{target}: {id:?}");
            assert_eq!(request.header("x-request_id"), None, "{target}");
            if target == "/guarded" {
                assert_eq!((request.header("x_role"), request.header("x_internal")), (None, None));
            }
        }
    }
}

pub(crate) fn r_26_no_line_break_from_a_value_of_the_request() {
    let backend = Backend::standard("web");
    let listener = Listener::h2c().text(
        "[[listeners.routes]]\npath_regex = \"/u/(.*)\"\npool = \"web\"\n\
         request_headers = { set = [\"X-Path: ${capture.1}\", \"X-Query: ${query}\", \"X-Agent: ${header.User-Agent}\", \"X-Cookie: ${cookie.c}\"] }\n\
         response_headers = { set = [\"X-Echo: ${path} ${query} ${cookie.c}\"] }\n",
    );
    let config = Config::new().listener(listener).pool(Pool::named("web").backend(backend.address));
    let gateway = Gateway::start(config);
    // Escapes stay escapes: what is decoded here could end a line.
    let target = "/u/a%0D%0AX-Evil:1";
    assert_eq!(gateway.client().request("GET", target, &[], b"").unwrap().status, 400);
    let target = "/u/a%20b?x=%0d%0aX-Evil:1";
    let fields = [("User-Agent", "a\tb"), ("Cookie", "c=%0d%0aX-Evil: 1")];
    let response = gateway.client().request("GET", target, &fields, b"").unwrap();
    assert_eq!(response.header("x-echo").as_deref(), Some("/u/a%20b x=%0d%0aX-Evil:1 %0d%0aX-Evil: 1"));
    let request = backend.last_request();
    assert_eq!(request.header("x-path").as_deref(), Some("a%20b"));
    assert_eq!(request.header("x-query").as_deref(), Some("x=%0d%0aX-Evil:1"));
    assert_eq!(request.header("x-agent").as_deref(), Some("a\tb"));
    assert!(request.header("x-evil").is_none() && response.header("x-evil").is_none());
    // What no parser stops has no way into a value: DEL passes in fields.
    let fields = [("User-Agent", "a\u{7f}b")];
    if gateway.client().request("GET", "/u/a", &fields, b"").is_ok_and(|response| response.status == 200) {
        assert_eq!(backend.last_request().header("x-agent"), None);
    }
}

pub(crate) fn r_16_a_forged_address_opens_no_access_list() {
    let backend = Backend::standard("web");
    let listener = Listener::h2c()
        .text("policies = [\"staff\"]\n[listeners.client_address]\ntrusted_proxies = [\"127.0.0.9\"]\n")
        .backend(backend.address);
    let policy = "[policies.staff.access]\nallow = [\"203.0.113.0/24\"]\n";
    let config = Config::new().text(policy).block("runtime", "header_underscore_policy", "allow");
    let gateway = Gateway::start(config.listener(listener));
    let forged = [
        ("X-Forwarded-For", "203.0.113.1"),
        ("X_Forwarded_For", "203.0.113.1"),
        ("Forwarded", "for=203.0.113.1"),
        ("X-Real-IP", "203.0.113.1"),
        ("X-Client-IP", "203.0.113.1"),
        ("True-Client-IP", "203.0.113.1"),
        ("CF-Connecting-IP", "203.0.113.1"),
    ];
    let ask = |from: &str, fields: &[(&str, &str)]| {
        let from: std::net::IpAddr = from.parse().unwrap();
        let mut client = testkit::Client::connect_from(from, gateway.front()).unwrap();
        client.request("GET", "/", fields, b"").unwrap().status
    };
    assert_eq!(ask("127.0.0.1", &forged), 403);
    for field in forged {
        assert_eq!(ask("127.0.0.1", &[field]), 403, "{field:?}");
    }
    // What a client has written before that which the proxy has added counts no more.
    assert_eq!(ask("127.0.0.9", &[("X-Forwarded-For", "203.0.113.1, 198.51.100.1")]), 403);
    assert_eq!(backend.request_count(), 0);
    assert_eq!(ask("127.0.0.9", &[("X-Forwarded-For", "198.51.100.1, 203.0.113.1")]), 200);
}

pub(crate) fn r_11_a_guarded_route_is_not_reached_by_another_spelling() {
    let [open, guarded] = ["open", "guarded"].map(Backend::standard);
    let listener = Listener::h2c().text(
        "[[listeners.routes]]\npath_prefix = \"/public\"\npool = \"public\"\n\
         [[listeners.routes]]\npath_prefix = \"/admin\"\npool = \"admin\"\npolicies = [\"nobody\"]\n",
    );
    let config = Config::new()
        .text("[policies.nobody.access]\nallow = [\"203.0.113.1\"]\n")
        .listener(listener)
        .pool(Pool::named("public").backend(open.address))
        .pool(Pool::named("admin").backend(guarded.address));
    let rig = Guarded { gateway: Gateway::start(config), public: open, admin: guarded };
    for target in ["/admin", "/public/../admin", "//admin", "/%61dmin", "/public/%2e%2e/admin", "/./admin/x"]
    {
        for (status, _) in rig.ask(target, &[]) {
            assert_eq!(status, 403, "{target}");
        }
    }
    for target in ["/public/..;/admin", "/public%2f..%2fadmin", "/public/%252e%252e/admin"] {
        for (status, _) in rig.ask(target, &[]) {
            assert!(matches!(status, 400 | 404), "{target}: {status}");
        }
    }
    assert_eq!((rig.public.request_count(), rig.admin.request_count()), (0, 0));
}

/// A million keys, each an IPv6 network of its own, in a table for 65536: memory does not grow, whoever has used his limit up is not forgotten for
/// them, and addresses of one network are one client.
pub(crate) fn r_18_a_million_keys_take_no_memory() {
    const KEYS: u32 = 1_000_000;
    const BATCH: u32 = 500;
    let listener = Listener::h1().text(
        "policies = [\"limit\"]\n[listeners.client_address]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [[listeners.routes]]\nrespond = { status = 204 }\n",
    );
    let policy =
        "[policies.limit.rate_limit]\nrequests = 1\nwindow_seconds = 86400\nburst = 3\nfields = false\n";
    let config = Config::new().text(policy).runtime("max_keepalive_requests", 0).listener(listener);
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    let mut one = |from: &str| client.request("GET", "/", &[("X-Forwarded-For", from)], b"").unwrap().status;
    let victims = ["192.0.2.1", "192.0.2.2", "2001:db8:ffff:ffff::1"];
    for victim in victims {
        assert_eq!([one(victim), one(victim), one(victim), one(victim)], [204, 204, 204, 429]);
    }
    assert_eq!(one("2001:db8:ffff:ffff:1:2:3:4"), 429, "an address of the same network");
    let mut flood = gateway.client();
    let mut send = |keys: std::ops::Range<u32>| {
        let batch: String = keys
            .map(|key| {
                let (high, low) = (key >> 16, key & 0xffff);
                format!(
                    "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 2001:db8:{high:x}:{low:x}::{low:x}\r\n\r\n"
                )
            })
            .collect();
        flood.send(batch).unwrap();
        for _ in 0..BATCH {
            assert_eq!(flood.response("GET").unwrap().status, 204);
        }
    };
    // As many as the table has room for, so that whatever a connection takes is taken.
    let mut from = 0;
    let mut base = 0;
    while from < KEYS {
        if from == 100_000 {
            base = testkit::usage::anonymous(&gateway);
        }
        send(from..from + BATCH);
        from += BATCH;
    }
    let now = testkit::usage::anonymous(&gateway);
    assert!(now <= base + (1 << 20), "memory grew from {base} to {now} bytes");
    let evicted = gateway.metric("rate_limit_evictions_total", &[("policy", "limit")]);
    assert!(evicted >= f64::from(KEYS - 2 * 65_536), "{evicted}");
    for victim in victims {
        assert_eq!(one(victim), 429, "{victim} owes more than those who came for its place");
    }
}

/// the gateway holds no more than `max_body_bytes` for a mirror that never reads, and the client does not notice.
pub(crate) fn r_23_a_mirror_that_never_reads() {
    let web = Backend::standard("web");
    let deaf = Backend::start(|conn| {
        conn.head()?;
        conn.pause(testkit::seconds(30));
        Ok(())
    });
    let listener = Listener::h1().text(
        "[[listeners.routes]]\npool = \"web\"\nmirror = [{ pool = \"deaf\", max_body_bytes = 1000000, timeout_ms = 60000 }]\n",
    );
    let config = Config::new().listener(listener).pool(Pool::named("web").backend(web.address));
    let gateway = Gateway::start(config.pool(Pool::named("deaf").backend(deaf.address)));
    let body = testkit::pattern::bytes(4 << 20);
    let usage = testkit::Usage::watch(&gateway);
    for _ in 0..16 {
        let response = gateway.client().request("POST", "/upload", &[], &body).unwrap();
        assert_eq!((response.status, response.text()), (200, format!("{} right", 4 << 20)));
    }
    // Two queues and what waits in the connection, for as long as an upload takes.
    usage.assert_grew_less_than(&gateway, 24 << 20);
    let behind = |gateway: &Gateway| gateway.metric("mirrors_total", &[("result", "behind")]);
    testkit::eventually("all are dropped", testkit::seconds(10), || behind(&gateway) == 16.0);
}

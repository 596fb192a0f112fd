//! Attacks on what stands before a backend: redirects, upgrades, and guards that change under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use testkit::gateway::Reload;
use testkit::{Backend, Client, Config, Gateway, H2Client, H3Client, Listener, Pool, request, seconds};

pub(crate) fn r_20_a_redirect_leads_where_the_file_says() {
    let backend = Backend::standard("web");
    let listener = Listener::h2c().text(
        "[[listeners.routes]]\npath_prefix = \"/old\"\nredirect = { prefix = \"/new\" }\n\
         [[listeners.routes]]\npath_regex = \"/go/(?<where>.*)\"\nredirect = { path = \"/${capture.where}\" }\n\
         [[listeners.routes]]\npath_prefix = \"/tls\"\nredirect = { scheme = \"https\" }\n\
         [[listeners.routes]]\npath_prefix = \"/here\"\nredirect = { prefix = \"/here\" }\n",
    );
    let gateway = Gateway::start(Config::new().listener(listener.backend(backend.address)));
    for (target, status, location) in [
        ("/old/%0d%0aSet-Cookie:%20a=b", 400, None),
        ("/go//evil.example/", 302, Some("http://a.example//evil.example/")),
        ("/go/%2F%2Fevil.example", 302, Some("http://a.example/%2F%2Fevil.example")),
        ("//evil.example/old", 200, None),
        ("/old/..//evil.example", 200, None),
        ("/tls/?x=%0d%0aX:%20y", 302, Some("https://a.example/tls/?x=%0d%0aX:%20y")),
        ("/here/x", 500, None),
    ] {
        let one = gateway.client().request("GET", target, &[("Host", "a.example")], b"").unwrap();
        let mut client = H2Client::connect(gateway.front()).unwrap();
        client.authority = "a.example".to_owned();
        let two = client.request("GET", target, &[], b"").unwrap();
        let found = [(one.status, one.header("location")), (two.status(), two.header("location"))];
        assert_eq!(found, [(); 2].map(|()| (status, location.map(str::to_owned))), "{target}");
        assert_eq!(one.header("set-cookie"), None, "{target}");
    }
    // The host that is told is the one that was asked for, or none.
    for host in ["a.example\\@evil", "evil.example/..", "a.example:80:80", "a b"] {
        let mut client = gateway.client();
        client.send(request("GET", "/old", &[("Host", host)], b"")).unwrap();
        assert_eq!(client.response("GET").unwrap().status, 400, "{host}");
    }
}

pub(crate) fn r_24_an_upgrade_meets_the_guards_of_its_route() {
    let backend = Backend::standard("web");
    let listener = Listener::h1().websocket().text(
        "[[listeners.routes]]\npath = \"/closed\"\npolicies = [\"closed\"]\npool = \"web\"\n\
         [[listeners.routes]]\npath = \"/limited\"\npolicies = [\"once\"]\npool = \"web\"\n",
    );
    let config = Config::new().listener(listener).pool(Pool::named("web").backend(backend.address)).text(
        "[policies.closed.access]\ndeny = [\"0.0.0.0/0\", \"::/0\"]\n\
         [policies.once.rate_limit]\nrequests = 1\nwindow_seconds = 3600\n",
    );
    let gateway = Gateway::start(config);
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let ask = |path: &str| {
        let mut client = gateway.client();
        client.send(request("GET", path, &upgrade, b"")).unwrap();
        client.response("GET").unwrap().status
    };
    assert_eq!((ask("/closed"), backend.request_count()), (403, 0));
    assert_eq!(gateway.client().get("/limited").unwrap().status, 200);
    assert_eq!((ask("/limited"), backend.request_count()), (429, 1));
}

/// Tells its name and the mark that the gateway gave the request.
fn marked(name: &'static str) -> Backend {
    Backend::each(move |request, conn| {
        let mark = request.header("x-mark").unwrap_or_default();
        conn.respond(200, &[], format!("{name}{mark}").as_bytes())
    })
}

pub(crate) fn r_29_guards_that_reloads_flip_hold_whole_for_each_request() {
    let [a, b] = ["a", "b"].map(marked);
    let (tcp, udp) = (Listener::h2c(), Listener::quic());
    let base = Config::new();
    let file = |state: &str, pool: &str, guard: &str| {
        let listener = |listener: &Listener| {
            listener.clone().text(&format!(
                "[[listeners.routes]]\npool = \"{pool}\"\npolicies = [\"guard\"]\nrequest_headers = {{ set = [\"X-Mark: {state}\"] }}\n\
                 response_headers = {{ set = [\"X-Mark: {state}\"] }}\n"
            ))
        };
        base.clone()
            .listener(listener(&tcp))
            .listener(listener(&udp))
            .pool(Pool::named("one").backend_with(a.address, &[("protocol", "\"h1\"".to_owned())]))
            .pool(Pool::named("two").backend_with(b.address, &[("protocol", "\"h1\"".to_owned())]))
            .text(&format!("[policies.guard.access]\n{guard} = [\"127.0.0.0/8\"]\n"))
    };
    let files = [file("1", "one", "allow"), file("2", "two", "allow"), file("3", "two", "deny")];
    let mut gateway = Gateway::start(files[0].clone());
    let (front, udp) = (gateway.front(), udp.address);
    let (done, seen) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 4]);
    // The only answers that one snapshot alone can give.
    let judge = |status: u16, mark: Option<String>, text: &str| {
        let state = match (status, mark.as_deref(), text) {
            (200, Some("1"), "a1") => 1,
            (200, Some("2"), "b2") => 2,
            (403, Some("3"), _) => 3,
            other => panic!("parts of two snapshots: {other:?}"),
        };
        seen[state].fetch_add(1, Ordering::Relaxed);
    };
    let is_done = || done.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        // A connection serves so many requests and no more; none comes to that here.
        scope.spawn(|| {
            while !is_done() {
                let mut client = Client::connect(front).unwrap();
                for _ in 0..50 {
                    let got = client.get("/").unwrap();
                    judge(got.status, got.header("x-mark"), &got.text());
                }
            }
        });
        scope.spawn(|| {
            while !is_done() {
                let mut client = H2Client::connect(front).unwrap();
                for _ in 0..50 {
                    let got = client.get("/").unwrap();
                    judge(got.status(), got.header("x-mark"), &got.text());
                }
            }
        });
        scope.spawn(|| {
            while !is_done() {
                let mut client = H3Client::connect(udp).unwrap();
                for _ in 0..50 {
                    let got = client.request("GET", "/", &[], b"").unwrap();
                    let mark = got.head.as_ref().and_then(|head| head.get("x-mark"));
                    judge(got.status(), mark, &got.text());
                }
            }
        });
        for at in 1..=24 {
            assert!(matches!(gateway.reload(files[at % 3].clone()), Reload::Complete(_)));
            let state = at % 3 + 1;
            let before = seen[state].load(Ordering::Relaxed);
            testkit::eventually("requests under the new file", seconds(10), || {
                seen[state].load(Ordering::Relaxed) > before + 3
            });
        }
        done.store(true, Ordering::Relaxed);
    });
}

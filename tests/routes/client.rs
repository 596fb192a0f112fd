//! Who the client is, behind other proxies.

use testkit::{Backend, Config, Gateway, H2Client, H3Client, Listener, Pool, seconds};

const TRUSTED: &str =
    "[listeners.client_address]\ntrusted_proxies = [\"127.0.0.0/8\"]\nsend_forwarded = true\n";

pub(crate) fn the_clients_address_is_used_everywhere() {
    let (web, inside) = (Backend::standard("web"), Backend::standard("inside"));
    let listener = Listener::h2c().text(TRUSTED).text(
        "[listeners.request_id]\n\
         [[listeners.routes]]\nname = \"inside\"\nsources = [\"203.0.113.0/24\"]\npool = \"inside\"\n\
         request_headers = { set = [\"X-Client: ${client_ip}\", \"X-Url: ${url}\"] }\n\
         [[listeners.routes]]\npath = \"/secure\"\nscheme = \"http\"\nredirect = { scheme = \"https\" }\n\
         [[listeners.routes]]\npath = \"/moved\"\nredirect = { path = \"/here\" }\n",
    );
    let config = Config::new()
        .block("observability", "access_log", "stdout")
        .listener(listener.backend(web.address))
        .pool(Pool::named("inside").backend(inside.address));
    let gateway = Gateway::start(config);
    let fields = [
        ("X-Forwarded-For", "203.0.113.9, 127.0.0.2"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.example"),
        ("X-Forwarded-Port", "8443"),
        ("X-Request-Id", "of-the-proxy"),
    ];
    let response = gateway.client().request("GET", "/a?b", &fields, b"").unwrap();
    assert_eq!(
        (response.text().as_str(), response.header("x-request-id").as_deref()),
        ("inside", Some("of-the-proxy"))
    );
    let seen = inside.last_request().head.headers;
    assert_eq!(seen.all("x-client"), ["203.0.113.9"]);
    assert_eq!(seen.all("x-url"), ["https://shop.example:8443/a?b"]);
    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.9, 127.0.0.2, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-host"), ["shop.example"]);
    assert_eq!(seen.all("x-forwarded-port"), ["8443"]);
    assert_eq!(
        seen.all("forwarded"),
        ["for=203.0.113.9;proto=https;host=\"shop.example\", for=127.0.0.2, for=127.0.0.1"]
    );
    assert!(gateway.process.stdout.wait("\"client\":\"203.0.113.9:0\"", seconds(5)).is_some());

    // The scheme of the client decides, and with it no redirect loops behind what ends TLS.
    let of =
        |target: &str, fields: &[(&str, &str)]| gateway.client().request("GET", target, fields, b"").unwrap();
    let https = [
        ("X-Forwarded-For", "198.51.100.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "a.example"),
    ];
    assert_eq!(of("/secure", &https).text(), "web");
    assert_eq!(of("/secure", &https[..1]).status, 302);
    assert_eq!(of("/moved", &https).header("location").as_deref(), Some("https://a.example/here"));
}

pub(crate) fn clients_are_told_apart_over_http_2_and_3() {
    let backend = Backend::standard("web");
    let block = "[listeners.client_address]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    for protocol in ["h2", "h3"] {
        let listener = if protocol == "h2" { Listener::h2c() } else { Listener::quic() };
        let gateway = Gateway::start(Config::new().listener(listener.text(block).backend(backend.address)));
        let fields = [("x-forwarded-for", "198.51.100.1, 203.0.113.9"), ("x-forwarded-proto", "https")];
        let status = match protocol {
            "h2" => H2Client::connect(gateway.front())
                .unwrap()
                .request("GET", "/", &fields, b"")
                .unwrap()
                .status(),
            _ => H3Client::connect(gateway.front())
                .unwrap()
                .request("GET", "/", &fields, b"")
                .unwrap()
                .status(),
        };
        assert_eq!(status, 200);
        let seen = backend.last_request().head.headers;
        assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.9, 127.0.0.1"], "{protocol}");
    }
}

pub(crate) fn clients_are_spread_by_their_own_addresses() {
    let backends = ["a", "b", "c", "d"].map(Backend::standard);
    let mut pool = Pool::named("web").key("policy", "maglev");
    for backend in &backends {
        pool = pool.backend(backend.address);
    }
    let listener = Listener::h1().text("[listeners.client_address]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let gateway = Gateway::start(Config::new().pool(pool).listener(listener.key("pool", "web")));
    let served = |client: u8| {
        let address = format!("203.0.113.{client}");
        gateway.client().request("GET", "/", &[("X-Forwarded-For", &address)], b"").unwrap().text()
    };
    let first: Vec<_> = (0..40).map(served).collect();
    let again: Vec<_> = (0..40).map(served).collect();
    assert_eq!(first, again, "a client stays where it is");
    let used: std::collections::BTreeSet<_> = first.iter().collect();
    assert!(used.len() >= 3, "one peer, many clients: {used:?}");
}

pub(crate) fn trust_changes_with_a_reload_and_a_range_of_all_is_warned_of() {
    let backend = Backend::standard("web");
    let listener = Listener::h1().backend(backend.address);
    let trusting = |trusted: &str| {
        let block = format!("[listeners.client_address]\ntrusted_proxies = [{trusted}]\n");
        Config::new().listener(listener.clone().text(&block))
    };
    let mut gateway = Gateway::start(Config::new().listener(listener.clone()));
    let mut client = gateway.client();
    let mut told = || {
        client.request("GET", "/", &[("X-Forwarded-For", "203.0.113.9")], b"").unwrap();
        backend.last_request().head.headers.all("x-forwarded-for").join("|")
    };
    // Without the block, as ever.
    assert_eq!(told(), "203.0.113.9, 127.0.0.1");
    assert!(matches!(gateway.reload(trusting("")), testkit::gateway::Reload::Complete(_)));
    assert_eq!(told(), "127.0.0.1");
    assert!(matches!(gateway.reload(trusting("\"0.0.0.0/0\"")), testkit::gateway::Reload::Complete(_)));
    assert_eq!(told(), "203.0.113.9, 127.0.0.1");
    assert!(gateway.messages().iter().any(|line| line.contains("a range of /0")), "{:?}", gateway.messages());
}

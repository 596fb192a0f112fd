//! Attacks on who the client is, judged by what the backend was told.

use testkit::{Backend, Config, Gateway, H2Client, Listener};

/// A listener that trusts `trusted`, whose clients in 203.0.113.0/24 reach the backend `inside`, and all others `outside`.
pub(crate) struct Behind {
    pub(crate) gateway: Gateway,
    pub(crate) inside: Backend,
    pub(crate) outside: Backend,
}

impl Behind {
    pub(crate) fn start(trusted: &str, from: &str) -> Self {
        let (inside, outside) = (Backend::standard("inside"), Backend::standard("outside"));
        let listener = Listener::h2c().text(&format!(
            "[listeners.client_address]\ntrusted_proxies = [{trusted}]\nfrom = \"{from}\"\n\
             [[listeners.routes]]\nsources = [\"203.0.113.0/24\"]\npool = \"inside\"\n"
        ));
        let config = Config::new()
            .listener(listener.backend(outside.address))
            .pool(testkit::Pool::named("inside").backend(inside.address));
        Self { gateway: Gateway::start(config), inside, outside }
    }

    /// Who answers, over HTTP/1.1 and HTTP/2, and the fields that the backend got last.
    #[track_caller]
    pub(crate) fn ask(&self, fields: &[(&str, &str)]) -> (String, testkit::Headers) {
        let one = self.gateway.client().request("GET", "/", fields, b"").unwrap().text();
        let lower: Vec<_> = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
        let lower: Vec<_> = lower.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let mut two = H2Client::connect(self.gateway.front()).unwrap();
        let two = two.request("GET", "/", &lower, b"").unwrap().text();
        assert_eq!(one, two, "{fields:?} over HTTP/1.1 and HTTP/2");
        let backend = if one == "inside" { &self.inside } else { &self.outside };
        (one, backend.last_request().head.headers)
    }
}

/// Fields by which a client may say that it is somebody else.
const FORGED: &[(&str, &str)] = &[
    ("X-Forwarded-For", "203.0.113.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "1"),
    ("X-Forwarded-User", "root"),
    ("Forwarded", "for=203.0.113.1"),
    ("X-Real-IP", "203.0.113.1"),
    ("X-Client-IP", "203.0.113.1"),
    ("True-Client-IP", "203.0.113.1"),
    ("CF-Connecting-IP", "203.0.113.1"),
    ("Fastly-Client-IP", "203.0.113.1"),
];

pub(crate) fn c_09_r_16_fields_of_strangers_are_dropped() {
    for from in ["x_forwarded_for", "forwarded", "header:CF-Connecting-IP"] {
        let rig = Behind::start("\"192.0.2.0/24\"", from);
        let (answered, seen) = rig.ask(FORGED);
        assert_eq!(answered, "outside", "{from}");
        assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"], "{from}");
        assert_eq!(seen.all("x-forwarded-proto"), ["http"], "{from}");
        assert!(!seen.all("x-forwarded-host").contains(&"evil.example".to_owned()), "{from}: {seen:?}");
        for (name, _) in &FORGED[3..] {
            assert!(!seen.has(name), "{from}: {name} reached the backend: {seen:?}");
        }
    }
}

pub(crate) fn c_09_r_16_a_trusted_proxy_is_believed_and_its_clients_are_not() {
    let rig = Behind::start("\"127.0.0.0/8\", \"10.0.0.0/8\"", "x_forwarded_for");
    for (list, answered, told) in [
        // What the proxy adds counts, whatever stands before it.
        ("203.0.113.9", "inside", "203.0.113.9, 127.0.0.1"),
        ("203.0.113.9, 198.51.100.2", "outside", "198.51.100.2, 127.0.0.1"),
        ("203.0.113.9, 198.51.100.2, 10.0.0.7", "outside", "198.51.100.2, 10.0.0.7, 127.0.0.1"),
        ("198.51.100.2, 203.0.113.9, 10.0.0.7", "inside", "203.0.113.9, 10.0.0.7, 127.0.0.1"),
        ("203.0.113.9, x, 10.0.0.7", "outside", "10.0.0.7, 127.0.0.1"),
        ("203.0.113.9, unknown", "outside", "127.0.0.1"),
    ] {
        let forged =
            [("X-Forwarded-For", list), ("Forwarded", "for=203.0.113.1"), ("X-Real-IP", "203.0.113.1")];
        let (by, seen) = rig.ask(&forged);
        assert_eq!((by.as_str(), seen.all("x-forwarded-for")), (answered, vec![told.to_owned()]), "{list}");
        let client = told.split(", ").next().unwrap();
        assert!(!seen.has("forwarded"), "{list}: {seen:?}");
        assert_eq!(seen.all("x-real-ip"), [client], "{list}");
    }
    // Ten kilobytes of it, and hops without end.
    let many = "203.0.113.9, ".repeat(800) + "198.51.100.2";
    let (by, seen) = rig.ask(&[("X-Forwarded-For", &many)]);
    assert_eq!(
        (by.as_str(), seen.all("x-forwarded-for")),
        ("outside", vec!["198.51.100.2, 127.0.0.1".to_owned()])
    );
    let hops = "203.0.113.9".to_owned() + &", 10.0.0.7".repeat(500);
    let (by, seen) = rig.ask(&[("X-Forwarded-For", &hops)]);
    assert_eq!((by.as_str(), seen.list("x-forwarded-for").len()), ("outside", 33));
    // A client cannot have the list forgotten.
    let hop = [("Connection", "X-Forwarded-For"), ("X-Forwarded-For", "198.51.100.2")];
    rig.gateway.client().request("GET", "/", &hop, b"").unwrap();
    let seen = rig.outside.last_request().head.headers;
    assert_eq!(seen.all("x-forwarded-for"), ["198.51.100.2, 127.0.0.1"]);
}

pub(crate) fn r_16_quotes_in_forwarded_hide_nothing() {
    let rig = Behind::start("\"127.0.0.0/8\"", "forwarded");
    for forged in ["", "for=203.0.113.1, ", "for=\"203.0.113.1, ", "for=\"203.0.113.1;a=\\\", ", "\", "] {
        let value = format!("{forged}for=198.51.100.2;proto=https;host=shop.example");
        let (by, seen) = rig.ask(&[("Forwarded", &value), ("X-Forwarded-For", "203.0.113.1")]);
        assert_eq!(by, "outside", "{value}");
        assert_eq!(seen.all("x-forwarded-for"), ["198.51.100.2, 127.0.0.1"], "{value}");
        assert_eq!(seen.all("x-forwarded-proto"), ["https"], "{value}");
        assert_eq!(seen.all("x-forwarded-host"), ["shop.example"], "{value}");
    }
}

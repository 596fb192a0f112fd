//! Attacks on the status page and what it reads: by pages of other sites, by names that lead here, by clients without the token.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use testkit::client::Response;
use testkit::{Backend, Client, Config, Gateway, Listener, eventually, seconds};

/// SHA-256 of `secret-token`.
const HASH: &str = "930bbdc51b6aed5c2a5678fd6e28dee7a05e8a4b643cfc0b4427c3efb86c0d94";

const TOKEN: (&str, &str) = ("Authorization", "Bearer secret-token");

fn gateway(change: impl FnOnce(Config) -> Config) -> (Backend, Gateway) {
    let backend = Backend::standard("one");
    let config = Config::new().block("admin", "page", true).block("admin", "api_token_hash", HASH);
    let gateway = Gateway::start(change(config).listener(Listener::h1().backend(backend.address)));
    (backend, gateway)
}

fn ask(gateway: &Gateway, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    gateway.admin_client().request(method, path, fields, b"").unwrap()
}

fn drains(backend: &Backend) -> String {
    format!("/backends/POOL/{}/drain", backend.address)
}

/// The name of the one pool.
fn pool(gateway: &Gateway) -> String {
    gateway.front().to_string()
}

pub(crate) fn d_02_pages_of_other_sites_read_and_change_nothing() {
    let (backend, gateway) = gateway(|config| config);
    let drain = drains(&backend).replace("POOL", &pool(&gateway));
    let own = format!("http://localhost:{}", gateway.admin().port());
    let host = format!("localhost:{}", gateway.admin().port());
    let elsewhere: [&[(&str, &str)]; 6] = [
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Origin", "http://evil.example")],
        &[("Origin", "null")],
        &[("Origin", "http://localhost:1")],
        &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "script")],
    ];
    for fields in elsewhere {
        // Even with the token, which a page of another site cannot have.
        let fields = [fields, &[TOKEN, ("Host", &host)]].concat();
        for path in ["/", "/status", "/status/events", "/page/main.js", "/metrics", "/backends", "/tap"] {
            assert_eq!(ask(&gateway, "GET", path, &fields).status, 403, "{path} {fields:?}");
        }
        for path in [drain.as_str(), "/reload"] {
            assert_eq!(ask(&gateway, "POST", path, &fields).status, 403, "{path} {fields:?}");
        }
    }
    // A browser asks first whether it may send a token from another site, and is told nothing that lets it.
    let asked = [
        ("Origin", "http://evil.example"),
        ("Access-Control-Request-Headers", "authorization"),
        ("Access-Control-Request-Method", "POST"),
    ];
    let response = ask(&gateway, "OPTIONS", &drain, &asked);
    assert_eq!(response.status, 405);
    assert!(response.header("access-control-allow-origin").is_none());
    // A link from elsewhere is followed; what the page itself asks for is answered.
    let link =
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")];
    assert_eq!(ask(&gateway, "GET", "/", &link).status, 200);
    let page = [("Sec-Fetch-Site", "same-origin"), ("Origin", own.as_str()), ("Host", host.as_str())];
    assert_eq!(ask(&gateway, "GET", "/status", &page).status, 200);
    assert_eq!(ask(&gateway, "POST", &drain, &[&page[..], &[TOKEN]].concat()).status, 200);
    let drained = || gateway.process.stderr.count("backend drained by the admin port");
    eventually("the drain is logged", seconds(5), || drained() > 0);
    assert_eq!(drained(), 1);
}

pub(crate) fn d_03_nothing_of_it_is_shown_inside_another_page() {
    let (_backend, gateway) = gateway(|config| config);
    for path in ["/", "/page/main.js", "/status", "/metrics", "/nothing", "/livez"] {
        let response = ask(&gateway, "GET", path, &[TOKEN]);
        let field = |name: &str| response.header(name).unwrap_or_default();
        let policy = field("content-security-policy");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("require-trusted-types-for 'script'")
        );
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy}");
        assert_eq!(field("x-frame-options"), "DENY", "{path}");
        assert_eq!(field("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(field("cross-origin-resource-policy"), "same-origin", "{path}");
        assert_eq!(field("cache-control"), "no-store", "{path}");
    }
    let framed =
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")];
    assert_eq!(ask(&gateway, "GET", "/", &framed).status, 403);
    // What the page loads is its own, and none of it stands in the page itself.
    let page = ask(&gateway, "GET", "/", &[]).text();
    assert!(!page.contains("://") && !page.contains("style=") && !page.contains("onclick"), "{page}");
    assert!(!page.contains("<style") && page.matches("<script").count() == 1);
}

pub(crate) fn d_05_a_name_that_leads_here_reads_nothing() {
    // A page makes its own name point to this machine: whatever it may be called, it is neither an address nor localhost.
    for allows_names in [false, true] {
        let (_backend, gateway) = gateway(|config| config.block("admin", "allow_non_loopback", allows_names));
        for host in [
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.nip.example",
            "localhost.evil.example",
            "a@127.0.0.1",
        ] {
            for path in ["/status", "/status/events"] {
                let response = ask(&gateway, "GET", path, &[("Host", host)]);
                assert_eq!(response.status, 403, "{path} for {host}, names allowed: {allows_names}");
                assert!(!response.text().contains("process"));
            }
        }
        for host in ["localhost", "127.0.0.1:9090", "[::1]:1"] {
            assert_eq!(ask(&gateway, "GET", "/status", &[("Host", host)]).status, 200, "{host}");
        }
    }
    // Without the page, the token is asked for here as everywhere.
    let (_backend, gateway) = gateway(|config| config.block("admin", "page", false));
    assert_eq!(ask(&gateway, "GET", "/status", &[]).status, 403);
    assert_eq!(ask(&gateway, "GET", "/status", &[TOKEN]).status, 200);
    assert_eq!(ask(&gateway, "GET", "/", &[TOKEN]).status, 404);
}

pub(crate) fn d_06_a_tap_needs_the_token_and_shows_no_secrets() {
    let (_backend, gateway) = gateway(|config| config);
    for fields in [&[][..], &[("Authorization", "Bearer wrong")]] {
        assert_eq!(ask(&gateway, "GET", "/tap", fields).status, 403);
    }
    assert_eq!(ask(&gateway, "POST", "/tap", &[TOKEN]).status, 405);
    assert_eq!(ask(&gateway, "GET", "/tap?status=6xx", &[TOKEN]).status, 400);
    let open = || {
        let mut client = Client::connect(gateway.admin()).unwrap();
        client
            .send(
                "GET /tap?fields=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret-token\r\n\r\n",
            )
            .unwrap();
        let (_, head) = client.head("GET").unwrap();
        (client, head.status)
    };
    let taps: Vec<_> = (0..4).map(|_| open()).collect();
    assert!(taps.iter().all(|(_, status)| *status == 200));
    assert_eq!(open().1, 503, "four are open");
    drop(taps);
    eventually("they are closed", seconds(10), || open().1 == 200);

    let mut tap = Lines::open(&gateway);
    let secrets = [
        ("Authorization", "Basic aHVzaA=="),
        ("Cookie", "session=hush"),
        ("X-Api-Key", "hush"),
        ("Accept", "shown"),
    ];
    gateway.client().request("POST", "/pay", &secrets, b"hush in the body").unwrap();
    let line = tap.find("/pay");
    assert!(line.contains("shown") && line.contains("\"***\""), "{line}");
    assert!(!line.contains("hush") && !line.contains("aHVzaA"), "{line}");
    // Without a token in the configuration there is nobody who may look.
    let backend = Backend::standard("two");
    let open = Gateway::start(
        Config::new().block("admin", "page", true).listener(Listener::h1().backend(backend.address)),
    );
    assert_eq!(ask(&open, "GET", "/tap", &[TOKEN]).status, 403);
}

/// The lines of a tap.
pub(crate) struct Lines(BufReader<TcpStream>);

impl Lines {
    pub(crate) fn open(gateway: &Gateway) -> Lines {
        let mut stream = TcpStream::connect(gateway.admin()).unwrap();
        stream.set_read_timeout(Some(seconds(10))).unwrap();
        stream.write_all(b"GET /tap?fields=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret-token\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        Lines(reader)
    }

    /// The first line with this text.
    pub(crate) fn find(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the tap goes on");
            if line.contains(text) {
                return line;
            }
        }
    }
}

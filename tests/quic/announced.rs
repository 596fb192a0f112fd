//! `[listeners.alt_svc]`: listeners over TCP announce the one that serves HTTP/3, and clients go there.

use testkit::browser::document_of;
use testkit::h2::client::H2Client;
use testkit::peers::scenario;
use testkit::quic::{NAME, site};
use testkit::{Backend, Client, Config, Gateway, H3Client, Listener, seconds};

/// A page whose script asks again and again.
const PAGE: &str = "<!doctype html><title>page</title><p id=p>nothing</p><script>(async () => { for (let i = 0; i < 40; i++) { \
    await fetch('/data?' + i, {cache: 'no-store'}).then(r => r.text()); await new Promise(go => setTimeout(go, 100)); } \
    document.getElementById('p').textContent = 'all came' })()</script>";

/// A backend that announces something itself.
fn backend() -> Backend {
    Backend::each(|request, conn| match request.target() {
        "/page" => conn.respond(200, &[("content-type", "text/html")], PAGE.as_bytes()),
        "/status/404" => conn.respond(404, &[("Alt-Svc", "clear")], b"none"),
        _ => conn.respond(200, &[("Alt-Svc", "h2=\"elsewhere:443\"")], b"one"),
    })
}

/// Listeners over TCP, inside TLS and over QUIC.
struct Listeners {
    tcp: Listener,
    tls: Listener,
    quic: Listener,
}

impl Listeners {
    fn new(backend: &Backend) -> Listeners {
        let file = |name| site().directory().join(name);
        Listeners {
            tcp: Listener::h2c().backend(backend.address),
            tls: Listener::h1s(&file("quic.pem"), &file("quic.key")).backend(backend.address),
            quic: Listener::quic().backend(backend.address),
        }
    }

    /// A file in which the two over TCP announce this port, with further lines.
    fn announcing(&self, port: u16, lines: &str) -> Config {
        let announce = |listener: &Listener| {
            listener.clone().text(&format!("[listeners.alt_svc]\nh3_port = {port}\n{lines}\n"))
        };
        crate::rig::config()
            .listener(announce(&self.tcp))
            .listener(announce(&self.tls))
            .listener(self.quic.clone())
    }

    fn port(&self) -> u16 {
        self.quic.address.port()
    }
}

/// What one more response of this status announces.
fn announced(client: &mut Client, path: &str, status: u16) -> Vec<String> {
    let answer = client.get(path).unwrap();
    assert_eq!(answer.status, status, "{path}");
    answer.head.headers.all("alt-svc")
}

pub(crate) fn listeners_over_tcp_announce_the_one_over_quic() {
    let backend = backend();
    let listeners = Listeners::new(&backend);
    let port = listeners.port();
    let mut gateway = Gateway::start(listeners.announcing(port, ""));
    let mut client = gateway.client();
    let hour = format!("h3=\":{port}\"; ma=3600");
    // In place of what the backend announces for itself, whatever the status.
    assert_eq!(announced(&mut client, "/", 200), [hour.as_str()]);
    assert_eq!(announced(&mut client, "/status/404", 404), [hour.as_str()]);
    let two = H2Client::connect(gateway.front()).unwrap().get("/").unwrap();
    assert_eq!(two.head.unwrap().all("alt-svc"), [hour.as_str()], "over HTTP/2");
    let tls = testkit::tls::TlsClient::trusting(&site().authority.pem()).alpn(&["http/1.1"]);
    let bridge = testkit::tls::Bridge::start(tls, gateway.config.address(1), NAME);
    let mut inside = Client::connect(bridge.address).unwrap().for_host(NAME);
    assert_eq!(announced(&mut inside, "/", 200), [hour.as_str()], "inside TLS");
    // A client that is there already is told what the backend says.
    let mut three = H3Client::connect(listeners.quic.address).unwrap();
    assert_eq!(three.get("/").unwrap().head.unwrap().all("alt-svc"), ["h2=\"elsewhere:443\""], "over HTTP/3");
    // Connections that are open follow a reload.
    gateway.reload(listeners.announcing(4433, "max_age = 60"));
    assert_eq!(announced(&mut client, "/", 200), ["h3=\":4433\"; ma=60"]);
    assert_eq!(announced(&mut inside, "/", 200), ["h3=\":4433\"; ma=60"]);
    let without = crate::rig::config().listener(listeners.tcp.clone()).listener(listeners.quic.clone());
    gateway.reload(without);
    assert_eq!(announced(&mut client, "/", 200), ["h2=\"elsewhere:443\""], "the backend's own");
}

pub(crate) fn answers_of_the_gateway_announce_too() {
    let backend = backend();
    let listeners = Listeners::new(&backend);
    let port = listeners.port();
    let routes = "[[listeners.routes]]\npath = \"/old\"\nredirect = { scheme = \"https\", status = 308 }";
    let config = listeners.announcing(port, &format!("max_age = 7\n{routes}"));
    let gateway = Gateway::start(config);
    let mut client = gateway.client();
    let wanted = [format!("h3=\":{port}\"; ma=7")];
    assert_eq!(announced(&mut client, "/old", 308), wanted);
    backend.stop();
    assert_eq!(announced(&mut client, "/", 502), wanted);
}

pub(crate) fn nothing_is_announced_where_nobody_serves_it() {
    let backend = backend();
    let listeners = Listeners::new(&backend);
    let lines = "[listeners.alt_svc]\nh3_port = 4433\n";
    let gateway = Gateway::start(Config::new().listener(listeners.tcp.text(lines)));
    assert_eq!(announced(&mut gateway.client(), "/", 200), ["h2=\"elsewhere:443\""]);
    let said = gateway.process.stderr.wait_from(0, seconds(5), |line| line.contains("alt_svc"));
    assert!(said.is_some_and(|line| line.contains("no listener serves HTTP/3")), "{:?}", gateway.messages());
}

/// A client of a well-known library asks over TCP, and goes where the answer leads.
pub(crate) fn a_client_follows_the_announcement() {
    let backend = backend();
    let listeners = Listeners::new(&backend);
    let gateway = Gateway::start(listeners.announcing(listeners.port(), "max_age = 300"));
    let saw = scenario("h3_client.py", gateway.front(), "follow", &[]);
    assert_eq!(saw["announced"], format!("h3=\":{}\"; ma=300", listeners.port()), "{saw}");
    assert_eq!((saw["status"].as_str(), saw["body"].as_str()), (Some("200"), Some("one")), "{saw}");
    gateway.wait_metric("http_requests_total", &[("version", "h3"), ("status_class", "2xx")], |n| n == 1.0);
}

/// Chromium loads a page over TCP, and its script's requests come over HTTP/3 soon.
pub(crate) fn chromium_follows_the_announcement() {
    let backend = backend();
    let listeners = Listeners::new(&backend);
    let gateway = Gateway::start(listeners.announcing(listeners.port(), ""));
    let arguments = [
        // Chromium speaks QUIC only where a well-known authority has signed, except to hosts of such a list; that one is of another port, so that
        // only the announcement leads to the listener.
        format!("--origin-to-force-quic-on={NAME}:1"),
        format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"),
        format!("--ignore-certificate-errors-spki-list={}", site().key_hash()),
    ];
    let port = listeners.tls.address.port();
    let said = document_of(&format!("https://{NAME}:{port}/page"), &arguments);
    assert!(said.stdout.contains("all came"), "{}\n{}", said.stdout, said.stderr);
    let of =
        |version| gateway.metric("http_requests_total", &[("version", version), ("status_class", "2xx")]);
    let (over_tcp, over_quic) = (of("h2"), of("h3"));
    assert!(over_tcp >= 1.0 && over_quic >= 1.0, "h2 {over_tcp}, h3 {over_quic}");
}

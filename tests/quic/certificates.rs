//! Certificates of QUIC listeners: as on TLS, from the same files and by the same signals.

use crate::rig::config;
use testkit::certificates::{Authority, Leaf};
use testkit::quic::{QuicClient, code_of};
use testkit::{Backend, Gateway, H3Client, Listener, eventually, seconds};

/// Alerts of TLS as QUIC tells them (RFC 9001 section 4.8).
const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;
const BAD_CERTIFICATE: u64 = 0x100 + 42;
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

struct Site {
    authority: Authority,
    files: tempfile::TempDir,
    backend: Backend,
}

impl Site {
    fn new() -> Site {
        let (authority, files) = (Authority::new("an authority"), tempfile::tempdir().unwrap());
        authority.server(&["test.example"]).write(files.path(), "s");
        std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
        Site { authority, files, backend: Backend::standard("one") }
    }

    fn gateway(&self, change: impl FnOnce(Listener) -> Listener) -> Gateway {
        let file = |name: &str| self.files.path().join(name);
        let listener = Listener::quic().certificate(&file("s.pem"), &file("s.key"));
        Gateway::start(config().listener(change(listener).backend(self.backend.address)))
    }

    fn client(&self, certificate: Option<&Leaf>) -> QuicClient {
        QuicClient::new(&self.authority.pem(), certificate)
    }
}

fn get(client: &QuicClient, gateway: &Gateway) -> String {
    let quic = client.connect(gateway.front()).unwrap();
    H3Client::over(quic).unwrap().get("/").unwrap().text()
}

pub(crate) fn new_connections_see_new_certificates() {
    let site = Site::new();
    let gateway = site.gateway(|listener| listener);
    let shown = || site.client(None).connect(gateway.front()).unwrap().certificate();
    let old = shown();
    let mut client = H3Client::over(site.client(None).connect(gateway.front()).unwrap()).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "one");
    site.authority.server(&["test.example"]).write(site.files.path(), "s");
    assert_eq!(shown(), old, "before the signal");
    gateway.process.signal(libc::SIGUSR1);
    eventually("the new certificate", seconds(10), || shown() != old);
    assert_eq!(client.get("/").unwrap().text(), "one", "a connection of before");
    // Files that do not belong together change nothing.
    let new = shown();
    testkit::certificates::write(&site.files.path().join("s.key"), "no key", 0o600);
    let from = gateway.process.stderr.len();
    gateway.process.signal(libc::SIGUSR1);
    let said = gateway.process.stderr.wait_from(from, seconds(10), |line| line.contains("s.key"));
    assert!(said.is_some(), "a file that is no key is not told of");
    assert_eq!(shown(), new);
}

pub(crate) fn names_have_certificates() {
    let site = Site::new();
    site.authority.server(&["other.example", "*.wild.example"]).write(site.files.path(), "other");
    let lines = format!(
        "[[listeners.quic.certificates]]\ncert_path = \"{0}/other.pem\"\nkey_path = \"{0}/other.key\"\n",
        site.files.path().display()
    );
    let gateway = site.gateway(|listener| listener.text(&lines));
    let shown = |name| site.client(None).connect_to(gateway.front(), name).map(|quic| quic.certificate());
    let (first, other) = (shown("test.example").unwrap(), shown("other.example").unwrap());
    assert_ne!(first, other);
    assert_eq!(shown("a.wild.example").unwrap(), other);
    // A name that no certificate is for gets the first one, and its client does not take it.
    assert!(shown("strange.example").is_err());
}

pub(crate) fn clients_show_certificates() {
    let site = Site::new();
    let alice = site.authority.client("alice");
    let mallory = Authority::new("another authority").client("mallory");
    let ca = site.files.path().join("ca.pem").display().to_string();
    let gateway = site.gateway(|listener| {
        listener.quic_key("client_auth", "require").quic_key("client_ca_path", ca.clone())
    });
    assert_eq!(get(&site.client(Some(&alice)), &gateway), "one");
    for (case, certificate, alert) in
        [("none", None, CERTIFICATE_REQUIRED), ("one of others", Some(&mallory), BAD_CERTIFICATE)]
    {
        // A client of TLS 1.3 takes the handshake for done before the server has looked at its certificate.
        let why = match site.client(certificate).connect(gateway.front()) {
            Ok(quic) => quic.closed(seconds(5)).expect("the end of the connection"),
            Err(why) => why,
        };
        assert_eq!(code_of(&why), Some((false, alert)), "{case}: {why}");
    }
    gateway.wait_metric("tls_handshakes_total", &[("result", "certificate")], |n| n == 2.0);
    assert_eq!(site.backend.request_count(), 1);
    let asking =
        site.gateway(|listener| listener.quic_key("client_auth", "request").quic_key("client_ca_path", ca));
    assert_eq!(get(&site.client(None), &asking), "one");
    assert_eq!(get(&site.client(Some(&alice)), &asking), "one");
}

pub(crate) fn sessions_are_resumed() {
    let site = Site::new();
    let gateway = site.gateway(|listener| listener);
    let client = site.client(None);
    (0..3).for_each(|_| assert_eq!(get(&client, &gateway), "one"));
    gateway.wait_metric("tls_handshakes_total", &[("result", "resumed")], |n| n == 2.0);
    assert_eq!(gateway.metric("tls_handshakes_total", &[("result", "full")]), 1.0);
    // Under another certificate the session goes on, as on TLS; another client has none.
    assert_eq!(get(&site.client(None), &gateway), "one");
    gateway.wait_metric("tls_handshakes_total", &[("result", "full")], |n| n == 2.0);
}

pub(crate) fn other_protocols_are_refused() {
    let site = Site::new();
    let gateway = site.gateway(|listener| listener);
    for names in [&["hq-interop"][..], &["h2", "http/1.1"]] {
        let why = site.client(None).alpn(names).connect(gateway.front()).unwrap_err();
        assert_eq!(code_of(&why), Some((false, NO_APPLICATION_PROTOCOL)), "{names:?}: {why}");
    }
    assert_eq!(get(&site.client(None).alpn(&["hq-interop", "h3"]), &gateway), "one");
    gateway.wait_metric("tls_handshakes_total", &[("result", "incompatible")], |n| n == 2.0);
}

//! Client certificates on `h1s` listeners: who is admitted, to what, and what the backend is told.

use std::path::Path;

use testkit::certificates::write;
use testkit::h2::hpack;
use testkit::process::run;
use testkit::seconds;
use testkit::tls::TlsClient;
use testkit::tools::Tool;
use testkit::{Gateway, H2Client};

use crate::rig::renew;
use crate::sessions::openssl;
use crate::site::{Site, VERSIONS, ask};

/// The listener's own name is open, `closed.test` takes a client certificate; both have the same backend.
const CLOSED: &str = "[[listeners.tls.certificates]]\ncert_path = \"DIR/closed.pem\"\nkey_path = \"DIR/closed.key\"\n\
     client_auth = \"require\"\nclient_ca_path = \"DIR/ca.pem\"\n";

/// A site of two names with different rules.
fn two_names() -> (Site, Gateway) {
    let site = Site::new();
    let files = site.rig.files.path();
    site.rig.authority.server(&["closed.test"]).write(files, "closed");
    site.rig.authority.server(&["open.test"]).write(files, "open");
    site.rig.authority.client("alice").write(files, "alice");
    let open = "[[listeners.tls.certificates]]\ncert_path = \"DIR/open.pem\"\nkey_path = \"DIR/open.key\"\n";
    let gateway = site.gateway(&format!("{CLOSED}{open}"));
    (site, gateway)
}

pub(crate) fn t_03_a_host_with_other_rules_is_misdirected() {
    let (site, gateway) = two_names();
    let (cert, key) = (site.rig.file("alice.pem"), site.rig.file("alice.key"));
    let alice = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    for (version, name) in VERSIONS {
        let status = |sni: &str, host: &str, extra: &[&str]| {
            let (url, host) = (format!("https://{sni}/"), format!("Host: {host}"));
            let args =
                [&[version, "-o", "/dev/null", "-w", "%{http_code}", "-H", &host, &url][..], extra].concat();
            site.curl(gateway.front(), &args).stdout
        };
        // Other names with the same rules are welcome, as RFC 9113 §9.1.1 has it.
        for host in ["server.test", "open.test", "unheard-of.test", "server.test:444", "127.0.0.1"] {
            assert_eq!(status("server.test", host, &[]), "200", "{name}: {host}");
        }
        site.backend.forget();
        for host in ["closed.test", "CLOSED.test", "closed.test:443", "closed.test."] {
            assert_eq!(status("server.test", host, &[]), "421", "{name}: {host}");
            // A certificate that nobody has asked for changes nothing.
            assert_eq!(status("open.test", host, &alice), "421", "{name}: {host}");
        }
        assert_eq!(status("closed.test", "server.test", &alice), "421", "{name}");
        assert_eq!(site.backend.requests().len(), 0, "{name}: the backend hears of none of them");
        assert_eq!(status("closed.test", "closed.test", &alice), "200", "{name}");
        assert_eq!(
            status("closed.test", "closed.test", &[]),
            "000",
            "{name}: no handshake without a certificate"
        );
    }
    assert!(gateway.metric("request_rejected_total", &[("reason", "misdirected")]) >= 18.0);
}

/// 421 concerns one request: the connection serves the next, on HTTP/2 those beside it too.
pub(crate) fn t_03_a_misdirected_request_costs_its_connection_nothing() {
    let (site, gateway) = two_names();
    let mut connection = site.client(&["http/1.1"]).connect(gateway.front(), "server.test").unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&mut connection, "server.test", "/").unwrap(), (200, "one".to_owned()));
        let refused = ask(&mut connection, "closed.test", "/").unwrap();
        assert_eq!(refused, (421, "421 Misdirected Request\n".to_owned()));
    }
    // Absolute form counts, whatever Host says.
    connection.send(b"GET https://closed.test/ HTTP/1.1\r\nHost: closed.test\r\n\r\n").unwrap();
    assert_eq!(connection.exactly(12).unwrap(), b"HTTP/1.1 421");
    let bridge = site.bridge(&gateway, "h2");
    let mut client = H2Client::connect(bridge.address).unwrap();
    let slow = client.open("GET", "/slow/500", &[], true).unwrap();
    let mut fields = client.fields("GET", "/", &[]);
    fields[2].1 = "closed.test";
    let refused = client.open_block(&hpack::block(&fields), true).unwrap();
    assert_eq!(client.response(refused).unwrap().status(), 421);
    assert_eq!(client.response(slow).unwrap().text(), "one");
    assert_eq!(client.get("/").unwrap().text(), "one");
    assert_eq!(bridge.established(), 1);
}

/// HTTP/1.0 may come without a host: it is taken for the listener's own.
pub(crate) fn t_03_without_a_host_the_listeners_own_rules_hold() {
    let (site, gateway) = two_names();
    let alice = site.rig.authority.client("alice");
    let alice = TlsClient::new(&site.rig.authority, Some(&alice));
    for (client, name, status) in
        [(site.rig.client(), "server.test", "HTTP/1.1 200"), (alice, "closed.test", "HTTP/1.1 421")]
    {
        let mut connection = client.connect(gateway.front(), name).unwrap();
        connection.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&connection.exactly(12).unwrap()), status, "{name}");
    }
}

pub(crate) fn t_02_sessions_of_an_open_host_do_not_open_a_closed_one() {
    let (site, gateway) = two_names();
    for (version, alpn) in
        [("-tls1_3", "h2"), ("-tls1_3", "http/1.1"), ("-tls1_2", "h2"), ("-tls1_2", "http/1.1")]
    {
        let session = site.rig.file("session").display().to_string();
        openssl(&site.rig, &gateway, "open.test", &[version, "-alpn", alpn, "-sess_out", &session]);
        let again =
            openssl(&site.rig, &gateway, "open.test", &[version, "-alpn", alpn, "-sess_in", &session]);
        assert!(again.contains("Reused, TLSv1"), "{version} {alpn}: {again}");
        let intruder =
            openssl(&site.rig, &gateway, "closed.test", &[version, "-alpn", alpn, "-sess_in", &session]);
        assert!(!intruder.contains("Reused, TLSv1"), "{version} {alpn}: {intruder}");
    }
    assert_eq!(site.backend.request_count(), 0);
}

pub(crate) fn t_06_a_revoked_client_is_refused_on_h1s() {
    let site = Site::new();
    let (good, bad) = (site.rig.authority.client("good"), site.rig.authority.client("bad"));
    write(&site.rig.file("crl.pem"), site.rig.authority.revocation_list(&[]), 0o644);
    let file = |name: &str| site.rig.file(name).display().to_string();
    let listener = site
        .listener("")
        .block("tls", "client_auth", "require")
        .block("tls", "client_ca_path", file("ca.pem"))
        .block("tls", "client_crl_path", file("crl.pem"));
    let gateway = Gateway::start(testkit::Config::new().listener(listener));
    let serial = bad.serial;
    let [good, bad] = [good, bad].map(|leaf| TlsClient::new(&site.rig.authority, Some(&leaf)));
    let visit = |client: &TlsClient| {
        let connection = client.connect(gateway.front(), "server.test");
        connection.and_then(|mut one| ask(&mut one, "server.test", "/")).is_ok_and(|answer| answer.0 == 200)
    };
    assert!(visit(&good) && visit(&bad) && !visit(&site.rig.client()));
    write(&site.rig.file("crl.pem"), site.rig.authority.revocation_list(&[serial]), 0o644);
    assert!(renew(&gateway).contains("\"ok\":1"));
    assert!(!visit(&bad), "neither anew nor with its session");
    assert!(visit(&good));
    assert!(!visit(&bad.alpn(&["h2"])));
    gateway.wait_metric("tls_handshakes_total", &[("result", "certificate")], |n| n == 3.0);
}

/// As OpenSSL sees it.
fn fingerprint(cert: &Path) -> String {
    let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in", cert.to_str().unwrap()];
    let said = run(Tool::Openssl.path().unwrap(), args, seconds(10)).stdout;
    said.trim().rsplit('=').next().unwrap().replace(':', "").to_ascii_lowercase()
}

/// The backend believes these two fields, so nobody but the gateway may write them.
pub(crate) fn client_certificates_are_told_and_cannot_be_forged() {
    let site = Site::new();
    let alice = site.rig.authority.client("alice");
    alice.write(site.rig.files.path(), "alice");
    let (cert, key) = (site.rig.file("alice.pem"), site.rig.file("alice.key"));
    let shown = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let forged = [
        "-H",
        "X-Client-Cert-Subject: CN=mallory",
        "-H",
        "x-client-cert-sha256: 00",
        "-H",
        "X_Client_Cert_Subject: CN=mallory",
    ];
    for (mode, told) in [("request", true), ("request", false), ("off", false)] {
        let mut listener = site.listener("").block("tls", "client_auth", mode);
        if mode != "off" {
            listener = listener.block("tls", "client_ca_path", site.rig.file("ca.pem").display().to_string());
        }
        if told {
            listener = listener.block("tls", "client_cert_headers", true);
        }
        let config = site.config("").with_listener(listener).runtime("header_underscore_policy", "allow");
        let gateway = Gateway::start(config);
        for (version, name) in VERSIONS {
            for with in [true, false] {
                let args =
                    [&[version, "-f", "https://server.test/"][..], if with { &shown } else { &[] }, &forged];
                let said = site.curl(gateway.front(), &args.concat());
                assert_eq!(said.code, 0, "{mode} {name}: {}", said.stderr);
                let request = site.backend.last_request();
                let of = |field: &str| request.header(field);
                let place = format!("{mode} {told} {name} {with}");
                if mode == "off" {
                    assert_eq!(
                        of("x-client-cert-subject").as_deref(),
                        Some("CN=mallory"),
                        "{place}: a field as any"
                    );
                    continue;
                }
                assert_eq!(of("x_client_cert_subject"), None, "{place}");
                let fingerprint = fingerprint(&cert);
                let expected = (told && with).then_some(("CN=alice", fingerprint.as_str()));
                assert_eq!(of("x-client-cert-subject").as_deref(), expected.map(|one| one.0), "{place}");
                assert_eq!(of("x-client-cert-sha256").as_deref(), expected.map(|one| one.1), "{place}");
            }
        }
    }
}

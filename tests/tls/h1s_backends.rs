//! HTTP backends inside TLS.

use testkit::certificates::Authority;
use testkit::front::Upload;
use testkit::process::SIGKILL;
use testkit::tls::Bridge;
use testkit::tools::Nginx;
use testkit::{Backend, Config, Front, Gateway, H2Backend, Listener, Usage, Version, pattern, seconds};

use crate::site::{Site, VERSIONS};

const TELL: &str =
    "location / { return 200 '$server_protocol $ssl_protocol $ssl_server_name $ssl_session_reused\n'; }";

/// A gateway in front of `listener`, whose connects and handshakes are given up soon.
#[track_caller]
fn gateway(site: &Site, listener: Listener) -> Gateway {
    let config = site.config("").with_listener(listener);
    Gateway::start(config.runtime("workers", 1).runtime("handshake_timeout_ms", 2000))
}

/// Both versions in front, both behind, all inside TLS.
pub(crate) fn nginx_in_all_four_cells() {
    let site = Site::new();
    let nginx = Nginx::tls(
        site.rig.files.path(),
        "s",
        true,
        &format!("ssl_protocols TLSv1.3; {TELL} location /files {{ }}"),
    );
    std::fs::create_dir(nginx.root.join("files")).unwrap();
    std::fs::write(nginx.root.join("files/large"), pattern::bytes(3_000_000)).unwrap();
    let out = site.rig.file("out");
    for (key, behind) in [("h1", "HTTP/1.1"), ("h2", "HTTP/2.0")] {
        let listener =
            site.bare_listener("").backend_tls(nginx.address, "server.test", &site.rig.file("ca.pem"));
        let gateway = gateway(&site, listener.backend_key("protocol", key));
        for (version, name) in VERSIONS {
            let said = site.curl(gateway.front(), &[version, "https://server.test/"]);
            let expected = format!("{behind} TLSv1.3 server.test");
            assert!(said.stdout.starts_with(&expected), "{name} to {key}: {} {}", said.stdout, said.stderr);
            let to = out.to_str().unwrap();
            let got =
                site.curl(gateway.front(), &[version, "-f", "-o", to, "https://server.test/files/large"]);
            assert_eq!(got.code, 0, "{name} to {key}: {}", got.stderr);
            assert!(std::fs::read(&out).unwrap() == pattern::bytes(3_000_000), "{name} to {key}");
        }
        gateway.wait_metric("backend_tls_handshakes_total", &[("result", "full")], |n| n >= 1.0);
    }
}

/// nginx ends each connection after one request, so that each request takes a handshake.
pub(crate) fn sessions_with_backends_are_resumed() {
    let site = Site::new();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let server =
            format!("ssl_protocols {version}; keepalive_requests 1; ssl_session_cache shared:a:1m; {TELL}");
        let nginx = Nginx::tls(site.rig.files.path(), "s", true, &server);
        for key in ["h1", "h2"] {
            let listener =
                site.bare_listener("").backend_tls(nginx.address, "server.test", &site.rig.file("ca.pem"));
            let gateway = gateway(&site, listener.backend_key("protocol", key));
            let mut client = site.h1(&gateway);
            let answers: Vec<_> = (0..6).map(|_| client.get("/").unwrap().text()).collect();
            let place = format!("{version} {key}: {answers:?}");
            assert!(answers[0].trim_end().ends_with(&format!("{version} server.test .")), "{place}");
            assert!(answers[1..].iter().all(|one| one.trim_end().ends_with(" r")), "{place}");
            gateway.wait_metric("backend_tls_handshakes_total", &[("result", "resumed")], |n| n == 5.0);
            gateway.wait_metric("backend_tls_handshakes_total", &[("result", "full")], |n| n == 1.0);
        }
    }
}

/// The client is told 502 and no more (attack T-10); the log and the metrics tell why.
pub(crate) fn t_10_reasons_of_backends_are_not_shown_to_clients() {
    let site = Site::new();
    std::fs::write(site.rig.file("other.pem"), Authority::new("another authority").pem()).unwrap();
    site.rig.authority.expired(&["server.test"]).write(site.rig.files.path(), "old");
    let nginx = |name: &str| Nginx::tls(site.rig.files.path(), name, true, TELL);
    let (good, old) = (nginx("s"), nginx("old"));
    let ca = site.rig.file("ca.pem");
    for key in ["h1", "h2"] {
        for (what, listener) in [
            ("wrong name", site.bare_listener("").backend_tls(good.address, "another.test", &ca)),
            (
                "wrong CA",
                site.bare_listener("").backend_tls(good.address, "server.test", &site.rig.file("other.pem")),
            ),
            ("expired", site.bare_listener("").backend_tls(old.address, "server.test", &ca)),
        ] {
            let gateway = gateway(&site, listener.backend_key("protocol", key));
            for (version, name) in VERSIONS {
                let said = site.curl(gateway.front(), &[version, "-i", "https://server.test/"]);
                let (head, body) = said.stdout.split_once("\n\n").unwrap_or_default();
                assert!(head.contains(" 502"), "{what}, {name} to {key}: {head:?} {}", said.stderr);
                assert_eq!(body, "502 Bad Gateway", "{what}, {name} to {key}");
                let shown = head.to_ascii_lowercase();
                assert!(["cert", "tls", "ssl", "name"].iter().all(|word| !shown.contains(word)), "{head}");
            }
            gateway.wait_metric("backend_tls_handshakes_total", &[("result", "certificate")], |n| n >= 2.0);
        }
    }
}

pub(crate) fn t_05_an_http_backend_in_plaintext_fails_closed() {
    let site = Site::new();
    let ca = site.rig.file("ca.pem");
    for key in ["h1", "h2"] {
        let listener = site.bare_listener("").backend_tls(site.backend.address, "server.test", &ca);
        let gateway = gateway(&site, listener.backend_key("protocol", key));
        let said = site.curl(gateway.front(), &["-d", "secret question", "https://server.test/"]);
        assert_eq!(said.stdout, "502 Bad Gateway", "{key}: {}", said.stderr);
        assert!(!site.backend.saw(b"secret question"));
    }
}

/// RFC 9113 §3.2: HTTP/2 is spoken inside TLS to those who choose it. nginx ends the handshake; others say nothing about ALPN.
pub(crate) fn a_backend_that_does_not_choose_http_2_is_not_spoken_to() {
    let site = Site::new();
    let nginx = Nginx::tls(site.rig.files.path(), "s", false, TELL);
    let silent = site.rig.gateway("");
    for (what, address) in [("nginx", nginx.address), ("silent", silent.front())] {
        let listener =
            site.bare_listener("").h2_backend_tls(address, "server.test", &site.rig.file("ca.pem"));
        let gateway = gateway(&site, listener);
        for (version, name) in VERSIONS {
            let said = site.curl(gateway.front(), &[version, "https://server.test/"]);
            assert_eq!(said.stdout, "502 Bad Gateway", "{what}, {name}: {}", said.stderr);
        }
        gateway.wait_metric("backend_connect_failures_total", &[], |n| n >= 2.0);
        assert_eq!(gateway.metric("backend_connections_total", &[]), 0.0, "{what}");
    }
    assert!(!site.rig.backend.saw(b"PRI * HTTP/2.0"));
}

/// The gateway shows a certificate of its own where a backend asks for one.
pub(crate) fn a_client_certificate_is_shown_to_backends() {
    let site = Site::new();
    let ca = site.rig.file("ca.pem");
    let (cert, key_file) = site.rig.authority.client("the gateway").write(site.rig.files.path(), "gateway");
    let nginx = Nginx::tls(
        site.rig.files.path(),
        "s",
        true,
        &format!(
            "ssl_client_certificate {}; ssl_verify_client on; location / {{ return 200 '$ssl_client_verify $ssl_client_s_dn'; }}",
            ca.display()
        ),
    );
    for key in ["h1", "h2"] {
        let listener = || {
            let listener = site.bare_listener("").backend_tls(nginx.address, "server.test", &ca);
            listener.backend_key("protocol", key)
        };
        let shown = listener()
            .backend_key("tls_client_cert_path", cert.display().to_string())
            .backend_key("tls_client_key_path", key_file.display().to_string());
        let open = gateway(&site, shown);
        let said = site.curl(open.front(), &["https://server.test/"]);
        assert!(
            said.stdout.starts_with("SUCCESS ") && said.stdout.contains("CN=the gateway"),
            "{key}: {}",
            said.stdout
        );
        let closed = gateway(&site, listener());
        let said =
            site.curl(closed.front(), &["-w", "%{http_code}", "-o", "/dev/null", "https://server.test/"]);
        assert_eq!(said.stdout, "400", "{key}: nginx answers so");
    }
}

/// An end without close_notify is a cut, which anyone on the way can make: a body that ends so is not passed on as whole.
pub(crate) fn a_backend_that_is_cut_off_has_not_ended() {
    let site = Site::new();
    let origin = Backend::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\n\r\nhalf a sent")?;
        conn.hold(seconds(10));
        Ok(())
    });
    for alpn in ["http/1.1", "h2"] {
        // It carries bytes, and nothing of it but TLS tells where a body ends.
        let inner = Gateway::start(
            site.config("").with_listener(Listener::tls(site.rig.files.path(), "s").backend(origin.address)),
        );
        let ca = site.rig.file("ca.pem");
        let outer = gateway(&site, site.bare_listener("").backend_tls(inner.front(), "server.test", &ca));
        let bridge = site.bridge(&outer, alpn);
        let version = if alpn == "h2" { Version::H2 } else { Version::H1 };
        let mut front = Front::connect(version, bridge.address).unwrap();
        front.open("GET", "/", &[], Upload::None).unwrap();
        assert_eq!(front.head().unwrap().status, 200, "{alpn}");
        assert_eq!(front.piece().unwrap().as_deref(), Some(&b"half a sent"[..]), "{alpn}");
        inner.process.signal(SIGKILL);
        let next = front.piece();
        assert!(next.is_err(), "{alpn}: {next:?}");
    }
}

/// A kept connection ends with close_notify whatever ends it: else its backend takes the end for a cut.
pub(crate) fn kept_connections_to_backends_end_well() {
    let site = Site::new();
    let ca = site.rig.file("ca.pem");
    for end in ["idle", "too old", "reload", "drain"] {
        // It carries bytes, and counts connections that end without a word.
        let carrier = Listener::tls(site.rig.files.path(), "s").backend(site.backend.address);
        let inner = Gateway::start(Config::new().listener(carrier));
        let listener = Listener::h1().backend_tls(inner.front(), "server.test", &ca);
        let config = Config::new().runtime("workers", 1);
        let config = match end {
            "idle" => config.block("pool", "idle_timeout_ms", 300),
            "too old" => config.block("pool", "max_age_ms", 300),
            _ => config,
        };
        let mut outer = Gateway::start(config.listener(listener));
        assert_eq!(outer.get("/").text(), "one", "{end}");
        match end {
            "reload" => {
                let elsewhere = Listener::h1().at(outer.front()).backend(site.backend.address);
                let changed = outer.config.clone().with_listener(elsewhere);
                assert!(matches!(outer.reload(changed), testkit::gateway::Reload::Complete(_)));
            }
            "drain" => assert_eq!(outer.stop(seconds(10)), 0),
            _ => {}
        }
        inner.wait_metric("tls_handshakes_total", &[("result", "full")], |n| n == 1.0);
        inner.wait_metric("connections_inflight", &[], |n| n == 0.0);
        let cut = inner.metric("tls_faults_total", &[("reason", "truncated")]);
        assert_eq!(cut, 0.0, "{end}: without close_notify");
    }
}

/// Two gateways in a row: 10 MiB in both directions, over each version in front and behind, in bounded memory.
pub(crate) fn large_bodies_pass_to_backends_in_bounded_memory() {
    const LARGE: usize = 10 * 1024 * 1024;
    let site = Site::new();
    let inner = Gateway::start(site.config("").runtime("max_keepalive_requests", 0));
    let data = pattern::bytes(LARGE);
    for key in ["h1", "h2"] {
        let listener =
            site.bare_listener("").backend_tls(inner.front(), "server.test", &site.rig.file("ca.pem"));
        let outer = gateway(&site, listener.backend_key("protocol", key));
        let exchange = |alpn: &str, length: usize| {
            let bridge = site.bridge(&outer, alpn);
            let version = if alpn == "h2" { Version::H2 } else { Version::H1 };
            let mut front = Front::connect(version, bridge.address).unwrap();
            let got = front.get(&format!("/bytes/{length}")).unwrap();
            got.pattern.assert_complete(length as u64);
            let said = front.request("POST", "/upload", &[], &data[..length]).unwrap();
            assert_eq!(said.text(), format!("{length} right"), "{alpn} to {key}");
        };
        // What the first exchanges need once is not counted.
        for alpn in ["h2", "http/1.1"] {
            exchange(alpn, 100_000);
        }
        let usage = Usage::watch(&outer);
        for alpn in ["h2", "http/1.1"] {
            exchange(alpn, LARGE);
        }
        usage.assert_grew_less_than(&outer, 4 << 20);
    }
}

/// A backend that speaks HTTP/2 by its own TLS stack and another that does not, in turn.
pub(crate) fn backends_with_and_without_tls_are_mixed() {
    let site = Site::new();
    let nginx = Nginx::tls(site.rig.files.path(), "s", true, TELL);
    let h2c = H2Backend::start(|call| {
        call.body()?;
        call.respond(200, &[], b"without")
    });
    let listener = site
        .bare_listener("")
        .h2_backend_tls(nginx.address, "server.test", &site.rig.file("ca.pem"))
        .h2_backend(h2c.address)
        .backend(site.backend.address);
    let gateway = gateway(&site, listener);
    for alpn in ["h2", "http/1.1"] {
        let bridge = Bridge::start(site.client(&[alpn]), gateway.front(), "server.test");
        let mut answers = Vec::new();
        let version = if alpn == "h2" { Version::H2 } else { Version::H1 };
        let mut front = Front::connect(version, bridge.address).unwrap();
        for _ in 0..6 {
            answers.push(front.get("/").unwrap().text());
        }
        for answer in ["HTTP/2.0", "without", "one"] {
            let count = answers.iter().filter(|one| one.starts_with(answer)).count();
            assert_eq!(count, 2, "{answer} of {answers:?}");
        }
    }
}

//! Who is let in, by address and by certificate.

use std::net::IpAddr;

use testkit::certificates::Authority;
use testkit::gateway::Reload;
use testkit::proxied::v2_of;
use testkit::tls::TlsClient;
use testkit::{Backend, Client, Config, Gateway, H2Client, H3Client, Listener, Pool, request, seconds};

const POLICIES: &str = "[policies.office.access]\nallow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.6\"]\n\
     [policies.staff.access]\nallow = [\"127.0.0.1\", \"127.0.0.2\"]\n\
     [policies.nobody.access]\ndeny = [\"0.0.0.0/0\", \"::/0\"]\n";

fn at(ip: &str, gateway: &Gateway) -> Client {
    Client::connect_from(ip.parse::<IpAddr>().unwrap(), gateway.front()).unwrap()
}

pub(crate) fn access_lists_of_all_levels_hold() {
    let backend = Backend::standard("web");
    let listener = Listener::h2c().text(
        "policies = [\"office\"]\n\
         [[listeners.routes]]\npath_prefix = \"/staff\"\npool = \"web\"\npolicies = [\"staff\"]\n\
         [[listeners.routes]]\npath_prefix = \"/open\"\npool = \"web\"\nwithout = [\"access\"]\n\
         [[listeners.routes]]\npath_prefix = \"/closed\"\nredirect = { path = \"/\" }\npolicies = [\"nobody\"]\n\
         [[listeners.routes]]\npath = \"/\"\npool = \"web\"\n\
         [[listeners.virtual_hosts]]\nhosts = [\"inner.example\"]\npool = \"web\"\npolicies = [\"staff\"]\n",
    );
    let config =
        Config::new().text(POLICIES).listener(listener).pool(Pool::named("web").backend(backend.address));
    let gateway = Gateway::start(config);
    for (ip, target, host, status) in [
        ("127.0.0.1", "/", "a.example", 200),
        ("127.0.0.6", "/", "a.example", 403),
        ("127.0.0.1", "/staff", "a.example", 200),
        ("127.0.0.3", "/staff", "a.example", 403),
        ("127.0.0.6", "/staff", "a.example", 403),
        ("127.0.0.6", "/open", "a.example", 200),
        // A redirect is guarded too, and so is the answer that there is nothing.
        ("127.0.0.1", "/closed", "a.example", 403),
        ("127.0.0.1", "/nothing", "a.example", 404),
        ("127.0.0.6", "/nothing", "a.example", 403),
        ("127.0.0.1", "/", "inner.example", 200),
        ("127.0.0.3", "/", "inner.example", 403),
        ("127.0.0.6", "/", "inner.example", 403),
    ] {
        let heard = backend.request_count();
        let mut client = at(ip, &gateway);
        // The connection goes on after a refusal.
        for _ in 0..2 {
            let response = client.request("GET", target, &[("Host", host)], b"").unwrap();
            assert_eq!(response.status, status, "{ip} {host}{target}");
        }
        let mut client = H2Client::on(at(ip, &gateway).wire.stream().try_clone().unwrap()).unwrap();
        client.authority = host.to_owned();
        assert_eq!(client.get(target).unwrap().status(), status, "{ip} {host}{target} over HTTP/2");
        let expected = if status == 200 { heard + 3 } else { heard };
        assert_eq!(backend.request_count(), expected, "{ip} {host}{target}");
    }
    assert_eq!(gateway.metric("filter_answers_total", &[("reason", "access")]), 21.0);
}

pub(crate) fn a_listener_without_routes_has_its_list() {
    for (protocol, listener) in [("h1", Listener::h1()), ("h3", Listener::quic())] {
        let backend = Backend::standard("web");
        let with = |policies: &str| {
            let listener = listener.clone().key("policies", vec![policies.to_owned()]);
            let listener = listener.backend(backend.address);
            Config::new().text(POLICIES).listener(listener)
        };
        let mut gateway = Gateway::start(with("nobody"));
        let front = gateway.front();
        let status = || match protocol {
            "h1" => Client::connect(front).unwrap().get("/").unwrap().status,
            _ => H3Client::connect(front).unwrap().request("GET", "/", &[], b"").unwrap().status(),
        };
        assert_eq!((status(), backend.request_count()), (403, 0), "{protocol}");
        assert!(matches!(gateway.reload(with("office")), Reload::Complete(_)));
        assert_eq!((status(), backend.request_count()), (200, 1), "{protocol}");
        assert!(matches!(gateway.reload(with("nobody")), Reload::Complete(_)));
        assert_eq!((status(), backend.request_count()), (403, 1), "{protocol}");
    }
}

pub(crate) fn raw_connections_are_let_in_or_closed() {
    let backend = Backend::tcp_echo();
    let listener = || Listener::tcp().text("policies = [\"staff\"]\n").backend(backend.address);
    let gateway = Gateway::start(Config::new().text(POLICIES).listener(listener()));
    let mut client = at("127.0.0.2", &gateway);
    client.send("bytes").unwrap();
    assert_eq!(client.wire.exactly(5).unwrap(), b"bytes");
    let heard = backend.connections();
    let mut other = at("127.0.0.3", &gateway);
    other.send_anyway("bytes");
    other.closed(seconds(5)).unwrap();
    assert_eq!(backend.connections(), heard);
    gateway.wait_metric("accept_reject_total", &[("reason", "access")], |count| count == 1.0);
    let line = "an access list does not let its client in";
    assert!(gateway.process.stderr.wait(line, seconds(5)).is_some());

    // Behind a balancer, by the address that it tells: neither by its own, nor by that of whoever claims to be one.
    let block = "[listeners.proxy_protocol]\nmode = \"optional\"\ntrusted = [\"127.0.0.1\"]\n";
    let gateway = Gateway::start(Config::new().text(POLICIES).listener(listener().text(block)));
    let told = |from: &str, client: &str| {
        let header = v2_of(format!("{client}:1").parse().unwrap(), gateway.front(), b"");
        let mut client = at(from, &gateway);
        client.send_anyway([&header[..], b"bytes"].concat());
        client.wire.exactly(5).is_ok_and(|bytes| bytes == b"bytes")
    };
    assert!(told("127.0.0.1", "127.0.0.2"));
    assert!(!told("127.0.0.1", "203.0.113.1"));
    assert!(!told("127.0.0.3", "127.0.0.2"));
}

pub(crate) fn routes_ask_for_certificates_and_names() {
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    authority.server(&["server.test", "other.test"]).write(files.path(), "s");
    std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
    let [admin, web] = ["admin", "web"].map(Backend::standard);
    let listener = Listener::h1s(&files.path().join("s.pem"), &files.path().join("s.key"))
        .block("tls", "client_auth", "request")
        .block("tls", "client_ca_path", files.path().join("ca.pem").display().to_string())
        .text(
            "[[listeners.routes]]\npath = \"/alice\"\nclient_certs = [\"subject:CN=alice*\", \"dns:x\"]\npool = \"admin\"\n\
             [[listeners.routes]]\npath = \"/any\"\nclient_cert = \"any\"\npool = \"admin\"\n\
             [[listeners.routes]]\npath = \"/none\"\nclient_cert = \"none\"\npool = \"admin\"\n\
             [[listeners.routes]]\npath = \"/name\"\nserver_names = [\"other.test\"]\npool = \"admin\"\n\
             [[listeners.routes]]\npath = \"/alpn\"\nalpn = [\"http/1.1\"]\npool = \"admin\"\n",
        )
        .backend(web.address);
    let gateway =
        Gateway::start(Config::new().listener(listener).pool(Pool::named("admin").backend(admin.address)));
    let [alice, bob] = ["alice", "bob"].map(|name| authority.client(name));
    let ask = |leaf, name: &str, target: &str| {
        let client = TlsClient::new(&authority, leaf).alpn(&["http/1.1"]);
        let mut tls = client.connect(gateway.front(), name).unwrap();
        // Whom the request says that it is for does not count.
        let fields = [("Connection", "close"), ("Host", "other.test"), ("X-Client-Cert-Subject", "CN=alice")];
        tls.send(&request("GET", target, &fields, b"")).unwrap();
        let answer = String::from_utf8(tls.to_end().unwrap()).unwrap();
        answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
    };
    for (target, of_alice, of_bob, of_nobody) in [
        ("/alice", "admin", "web", "web"),
        ("/any", "admin", "admin", "web"),
        ("/none", "web", "web", "admin"),
        ("/alpn", "admin", "admin", "admin"),
    ] {
        let found = [Some(&alice), Some(&bob), None].map(|leaf| ask(leaf, "server.test", target));
        assert_eq!(found, [of_alice, of_bob, of_nobody], "{target}");
    }
    assert_eq!(ask(None, "other.test", "/name"), "admin");
    assert_eq!(ask(None, "server.test", "/name"), "web");
}

pub(crate) fn conditions_on_connections_hold_over_http_3() {
    let [one, rest] = ["one", "rest"].map(Backend::standard);
    let routes = format!(
        "[[listeners.routes]]\npath = \"/name\"\nserver_names = [\"{}\"]\npool = \"one\"\n\
         [[listeners.routes]]\npath = \"/alpn\"\nalpn = [\"h3\"]\npool = \"one\"\n\
         [[listeners.routes]]\npath = \"/h2\"\nalpn = [\"h2\"]\npool = \"one\"\n",
        testkit::quic::NAME
    );
    let listener = Listener::quic().text(&routes).backend(rest.address);
    let gateway =
        Gateway::start(Config::new().listener(listener).pool(Pool::named("one").backend(one.address)));
    let mut client = H3Client::connect(gateway.front()).unwrap();
    for (target, expected) in [("/name", "one"), ("/alpn", "one"), ("/h2", "rest")] {
        assert_eq!(client.request("GET", target, &[], b"").unwrap().text(), expected, "{target}");
    }
}

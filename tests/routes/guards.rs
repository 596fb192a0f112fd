//! Who is let in, by address and by certificate.

use std::net::IpAddr;
use std::path::Path;

use testkit::certificates::Authority;
use testkit::gateway::{Reload, cli};
use testkit::proxied::v2_of;
use testkit::tls::TlsClient;
use testkit::{
    Backend, Client, Config, Gateway, H2Client, H3Client, Listener, Pool, eventually, request, seconds,
};

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

pub(crate) fn files_of_access_lists_are_watched() {
    let dir = tempfile::tempdir().unwrap();
    let [allow, deny] = ["allow", "deny"].map(|name| dir.path().join(name));
    let write = |path: &Path, text: &str| {
        // As careful tools do: the file is never there in part.
        let made = path.with_extension("new");
        std::fs::write(&made, text).unwrap();
        std::fs::rename(&made, path).unwrap();
    };
    write(&allow, "# who may\n127.0.0.0/30\n");
    write(&deny, "127.0.0.2 # left\n");
    let (web, raw) = (Backend::standard("web"), Backend::tcp_echo());
    let config = |more: &str| {
        let policies = format!(
            "[policies.both.access]\nallow_file = \"{}\"\ndeny_file = \"{}\"\nallow = [\"127.0.0.9\"]\n{more}",
            allow.display(),
            deny.display()
        );
        let policies_of = |listener: Listener| listener.text("policies = [\"both\"]\n");
        let listeners = [
            policies_of(Listener::h2c()).backend(web.address),
            policies_of(Listener::tcp()).backend(raw.address),
        ];
        listeners.into_iter().fold(Config::new().text(&policies), Config::listener)
    };
    let mut gateway = Gateway::start(config(""));
    let over_http = |ip: &str| {
        let mut client =
            Client::connect_from(ip.parse::<IpAddr>().unwrap(), gateway.config.address(0)).unwrap();
        client.get("/").unwrap().status == 200
    };
    let over_tcp = |ip: &str| {
        let mut client =
            Client::connect_from(ip.parse::<IpAddr>().unwrap(), gateway.config.address(1)).unwrap();
        client.send_anyway("bytes");
        client.wire.exactly(5).is_ok()
    };
    let lets_in = |ip: &str| {
        let found = [over_http(ip), over_tcp(ip)];
        assert_eq!(found[0], found[1], "{ip}");
        found[0]
    };
    let all = || ["127.0.0.1", "127.0.0.2", "127.0.0.9", "127.0.0.20"].map(lets_in);
    assert_eq!(all(), [true, false, true, false]);

    // Without any signal.
    write(&deny, "127.0.0.1\n127.0.0.9\n");
    eventually("the new deny_file", seconds(10), || over_http("127.0.0.2"));
    assert_eq!(all(), [false, true, false, false]);
    write(&allow, "127.0.0.0/8\n");
    eventually("the new allow_file", seconds(10), || over_http("127.0.0.20"));
    assert_eq!(all(), [false, true, false, true]);

    // A file that cannot be used leaves what was read before.
    write(&deny, "# nobody\n\n127.0.0.0/33\n");
    let line = gateway.process.stderr.wait("keeping what was read before", seconds(10)).unwrap();
    let told = format!("{}: line 3: \\\"127.0.0.0/33\\\" is no network", deny.display());
    assert!(line.contains(&told), "{line}");
    let failures = |gateway: &Gateway| gateway.metric("access_file_failures_total", &[("policy", "both")]);
    assert_eq!(failures(&gateway), 1.0);
    std::fs::remove_file(&allow).unwrap();
    gateway.wait_metric("access_file_failures_total", &[], |count| count == 2.0);
    assert_eq!(all(), [false, true, false, true]);

    // A reload that leaves the list alone does so too; one that changes it needs its files.
    assert!(matches!(gateway.reload(config("\n# another text\n")), Reload::Complete(_)));
    let Reload::Rejected(line) = gateway.reload(config("deny = [\"127.0.0.30\"]\n")) else {
        panic!("one of its files is not there")
    };
    assert!(line.contains("policies.both.access.") && line.contains("lb.toml:"), "{line}");
}

pub(crate) fn a_file_of_an_access_list_is_needed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (path, list) = (dir.path().join("lb.toml"), dir.path().join("deny"));
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:1\"\nprotocol = \"h1\"\npolicies = [\"p\"]\n[[listeners.backends]]\naddress = \"127.0.0.1:2\"\n\
         [policies.p.access]\ndeny_file = \"{}\"\n",
        list.display()
    );
    std::fs::write(&path, text).unwrap();
    let (path, place) = (path.to_str().unwrap(), "lb.toml:8: policies.p.access.deny_file");
    for (list_text, problem) in [
        (None, "cannot be read"),
        (Some(""), "is empty"),
        (Some("10.0.0.0/8\n10.0.0.1/8\n"), "line 2: \"10.0.0.1/8\" is no network"),
    ] {
        if let Some(text) = list_text {
            std::fs::write(&list, text).unwrap();
        }
        for arguments in [vec!["check", path], vec!["explain", path, "GET", "http://a.example/"], vec![path]]
        {
            let done = cli(&arguments);
            assert!(done.code != 0 && done.stderr.contains(place), "{arguments:?}: {}", done.stderr);
            assert!(done.stderr.contains(problem), "{arguments:?}: {}", done.stderr);
        }
    }
    std::fs::write(&list, "10.0.0.0/8\n").unwrap();
    assert_eq!(cli(&["check", path]).code, 0);
    let told = |ip: &str| cli(&["explain", path, "GET", "http://a.example/", "--from", ip]).stdout;
    assert!(told("10.0.0.1").contains("access p: answered 403 (access)"), "{}", told("10.0.0.1"));
    assert!(told("11.0.0.1").contains("goes to listener"), "{}", told("11.0.0.1"));
}

pub(crate) fn who_shows_no_certificate_is_not_let_in() {
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    authority.server(&["server.test"]).write(files.path(), "s");
    std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
    let web = Backend::standard("web");
    let listener = Listener::h1s(&files.path().join("s.pem"), &files.path().join("s.key"))
        .key("policies", vec!["shown".to_owned()])
        .block("tls", "client_auth", "request")
        .block("tls", "client_ca_path", files.path().join("ca.pem").display().to_string())
        .text(
            "[[listeners.routes]]\npath = \"/none\"\npool = \"web\"\nwithout = [\"access\"]\npolicies = [\"bare\"]\n\
             [[listeners.routes]]\npath = \"/dry\"\npool = \"web\"\nwithout = [\"access\"]\npolicies = [\"dry\"]\n\
             [[listeners.routes]]\npath = \"/\"\npool = \"web\"\n",
        );
    let policies = "[policies.shown.access]\nclient_cert = \"any\"\n[policies.bare.access]\nclient_cert = \"none\"\n\
         [policies.dry.access]\nclient_cert = \"any\"\ndry_run = true\n";
    let config = Config::new().text(policies).listener(listener);
    let gateway = Gateway::start(config.pool(Pool::named("web").backend(web.address)));
    let alice = authority.client("alice");
    let ask = |leaf, target: &str| {
        let client = TlsClient::new(&authority, leaf).alpn(&["http/1.1"]);
        let mut tls = client.connect(gateway.front(), "server.test").unwrap();
        tls.send(&request("GET", target, &[("Connection", "close")], b"")).unwrap();
        let answer = String::from_utf8(tls.to_end().unwrap()).unwrap();
        answer[9..12].parse::<u16>().unwrap()
    };
    for (target, of_alice, of_nobody) in
        [("/", 200, 403), ("/none", 403, 200), ("/dry", 200, 200), ("/x", 404, 403)]
    {
        let heard = web.request_count();
        assert_eq!([Some(&alice), None].map(|leaf| ask(leaf, target)), [of_alice, of_nobody], "{target}");
        let passed = [of_alice, of_nobody].into_iter().filter(|status| *status == 200).count();
        assert_eq!(web.request_count(), heard + passed, "{target}");
    }
    let reason = [("reason", "client_certificate")];
    assert_eq!(gateway.metric("filter_answers_total", &reason), 3.0);
    assert_eq!(gateway.metric("filter_dry_run_total", &reason), 1.0);
}

pub(crate) fn an_access_list_may_only_count() {
    let (web, raw) = (Backend::standard("web"), Backend::tcp_echo());
    let policies = "[policies.dry.access]\nallow = [\"127.0.0.1\"]\ndry_run = true\n";
    let with = |listener: Listener| listener.text("policies = [\"dry\"]\n");
    let config = Config::new().text(policies).listener(with(Listener::h1()).backend(web.address));
    let gateway = Gateway::start(config.listener(with(Listener::tcp()).backend(raw.address)));
    for ip in ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|ip| ip.parse::<IpAddr>().unwrap()) {
        let mut client = Client::connect_from(ip, gateway.config.address(0)).unwrap();
        assert_eq!(client.get("/").unwrap().status, 200, "{ip}");
        let mut client = Client::connect_from(ip, gateway.config.address(1)).unwrap();
        client.send("bytes").unwrap();
        assert_eq!(client.wire.exactly(5).unwrap(), b"bytes", "{ip}");
    }
    for at in [0, 1] {
        let name = gateway.config.address(at).to_string();
        let labels = [("listener", name.as_str()), ("reason", "access")];
        assert_eq!(gateway.metric("filter_dry_run_total", &labels), 2.0, "{name}");
    }
    assert_eq!(gateway.metric("filter_answers_total", &[("reason", "access")]), 0.0);
    for line in [
        "dry run: a filter would have refused a request",
        "dry run: an access list would have closed a connection",
    ] {
        let line = gateway.process.stderr.wait(line, seconds(5)).unwrap();
        assert!(line.contains("127.0.0.0"), "{line}");
    }
}

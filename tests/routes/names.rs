//! Raw connections that go by what their clients ask for in TLS.

use std::net::{IpAddr, TcpStream};

use testkit::certificates::Authority;
use testkit::gateway::Reload;
use testkit::tls::TlsClient;
use testkit::{Backend, Client, Config, Gateway, Listener, Pool, ms, request, seconds};

/// A server that tells its name once it has heard so many bytes, and sends them back.
fn named(name: &'static str, length: usize) -> Backend {
    Backend::start(move |conn| {
        let heard = conn.wire.exactly(length)?;
        conn.send([name.as_bytes(), &heard].concat())
    })
}

pub(crate) fn connections_go_by_the_server_that_is_asked_for() {
    let authority = Authority::new("test authority");
    let client = TlsClient::new(&authority, None).alpn(&["h2", "http/1.1"]);
    for (name, expected) in [
        ("one.example", "one"),
        ("two.example", "two"),
        ("a.b.example", "all"),
        ("example", "own"),
        ("acme.example", "two"),
    ] {
        let hello = client.hello(name);
        let [one, two, all, own] = ["one", "two", "all", "own"].map(|name| named(name, hello.len()));
        let listener = Listener::tcp().text(
            "[[listeners.routes]]\nserver_names = [\"*.example\"]\npool = \"all\"\n\
             [[listeners.routes]]\nserver_names = [\"one.example\"]\nalpn = [\"h2\"]\npool = \"one\"\n\
             [[listeners.routes]]\npool = \"two\"\n\
             matches = [{ server_names = [\"two.example\"] }, { server_names = [\"acme.example\"], sources = [\"127.0.0.0/8\"] }]\n\
             [[listeners.routes]]\nserver_names = [\"two.example\"]\nalpn = [\"acme-tls/1\"]\npool = \"all\"\n",
        );
        let pools = [("one", &one), ("two", &two), ("all", &all)];
        let config = Config::new().listener(listener.backend(own.address));
        let config = pools
            .iter()
            .fold(config, |config, (name, backend)| config.pool(Pool::named(name).backend(backend.address)));
        let gateway = Gateway::start(config);
        // At once, and byte by byte: the server gets it as it came.
        for size in [hello.len(), 1] {
            let mut raw = gateway.client();
            raw.drip(&hello, size, ms(0)).unwrap();
            let heard = raw.wire.to_end().unwrap();
            assert_eq!(String::from_utf8_lossy(&heard[..3]), expected, "{name}");
            assert_eq!(heard[3..], hello, "{name}");
        }
    }
}

pub(crate) fn where_tls_ends_here_names_and_certificates_decide() {
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    authority.server(&["server.test", "other.test"]).write(files.path(), "s");
    std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
    let [admin, other, own] = ["adm", "oth", "own"].map(|name| named(name, 1));
    let listener = Listener::tls(files.path(), "s")
        .block("tls", "client_auth", "request")
        .block("tls", "client_ca_path", files.path().join("ca.pem").display().to_string())
        .text(
            "[[listeners.routes]]\nserver_names = [\"other.test\"]\npool = \"other\"\n\
             [[listeners.routes]]\nclient_certs = [\"subject:CN=alice*\"]\npool = \"admin\"\n",
        )
        .backend(own.address);
    let config = Config::new()
        .listener(listener)
        .pool(Pool::named("admin").backend(admin.address))
        .pool(Pool::named("other").backend(other.address));
    let gateway = Gateway::start(config);
    let [alice, bob] = ["alice", "bob"].map(|name| authority.client(name));
    let ask = |leaf, name: &str| {
        let mut tls = TlsClient::new(&authority, leaf).connect(gateway.front(), name).unwrap();
        tls.send(b"x").unwrap();
        String::from_utf8(tls.exactly(3).unwrap()).unwrap()
    };
    assert_eq!(ask(Some(&alice), "server.test"), "adm");
    assert_eq!(ask(Some(&bob), "server.test"), "own");
    assert_eq!(ask(None, "server.test"), "own");
    assert_eq!(ask(None, "other.test"), "oth");
}

pub(crate) fn what_no_route_takes_is_closed_or_goes_to_the_listeners_backends() {
    let authority = Authority::new("test authority");
    let hello = TlsClient::new(&authority, None).hello("else.example");
    let [one, own] = ["one", "own"].map(|name| named(name, 5));
    let routes = "[[listeners.routes]]\nserver_names = [\"one.example\"]\npool = \"one\"\n";
    let listener = Listener::tcp().text(routes);
    let with = |listener: &Listener| {
        Config::new().listener(listener.clone()).pool(Pool::named("one").backend(one.address))
    };
    let mut gateway = Gateway::start(with(&listener));
    for bytes in [&hello[..], b"SSH-2.0-x\r\n", &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]] {
        let mut client = gateway.client();
        client.send_anyway(bytes);
        client.closed(seconds(5)).unwrap();
    }
    gateway.wait_metric("accept_reject_total", &[("reason", "no_route")], |count| count == 3.0);
    assert_eq!(one.connections(), 0);
    assert!(matches!(gateway.reload(with(&listener.backend(own.address))), Reload::Complete(_)));
    for bytes in [&hello[..], b"SSH-2.0-x\r\n"] {
        let mut client: Client = gateway.client();
        client.send(bytes).unwrap();
        assert_eq!(client.wire.exactly(8).unwrap(), [b"own", &bytes[..5]].concat());
    }
    assert_eq!(one.connections(), 0);
}

pub(crate) fn x_18_some_names_pass_inside_tls_and_others_end_here() {
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    authority.server(&["here.test"]).write(files.path(), "here");
    authority.server(&["pass.test"]).write(files.path(), "pass");
    let [web, behind] = ["web", "behind"].map(Backend::standard);
    let at =
        |name: &str| (files.path().join(format!("{name}.pem")), files.path().join(format!("{name}.key")));
    let (certificate, key) = at("pass");
    let inner =
        Gateway::start(Config::new().listener(Listener::h1s(&certificate, &key).backend(behind.address)));
    let (certificate, key) = at("here");
    let http = Listener::h1s(&certificate, &key).backend(web.address);
    let plain = named("raw", 1);
    let raw = Listener::tls(files.path(), "here").backend(plain.address);
    let pass =
        "[[listeners.routes]]\nserver_names = [\"pass.test\"]\ntls_passthrough = true\npool = \"inner\"\n";
    let guard = "[policies.office.access]\ndeny = [\"127.0.0.6\"]\n";
    let with = |listener: &Listener| {
        Config::new().text(guard).listener(listener.clone()).pool(Pool::named("inner").backend(inner.front()))
    };
    let guarded = |listener: &Listener| listener.clone().key("policies", vec!["office".to_owned()]);
    let client = TlsClient::new(&authority, None).alpn(&["http/1.1"]);
    let ask = |stream: TcpStream, name: &str| -> std::io::Result<String> {
        let mut tls = client.over(stream, name)?;
        tls.send(&request("GET", "/", &[("Host", name), ("Connection", "close")], b""))?;
        let answer = String::from_utf8(tls.to_end()?).unwrap();
        Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
    };
    let mut gateway = Gateway::start(with(&guarded(&http.clone().text(pass))));
    let from = |gateway: &Gateway, ip: &str| {
        Client::connect_from(ip.parse::<IpAddr>().unwrap(), gateway.front())
            .unwrap()
            .wire
            .stream()
            .try_clone()
            .unwrap()
    };
    // The client checks the certificate by the name: who passes meets that of the server behind.
    assert_eq!(ask(from(&gateway, "127.0.0.1"), "pass.test").unwrap(), "behind");
    assert_eq!(ask(from(&gateway, "127.0.0.1"), "here.test").unwrap(), "web");
    gateway.wait_metric("tls_handshakes_total", &[("result", "full")], |count| count == 1.0);
    // In small pieces, the rest of the handshake too.
    let hello = client.hello("pass.test");
    let mut slow = gateway.client();
    slow.drip(&hello, 7, ms(1)).unwrap();
    assert_eq!(slow.wire.exactly(1).unwrap(), [0x16], "a ServerHello");
    // The list of the listener holds for those that pass, before any backend is asked.
    let heard = inner.metric("accept_total", &[]);
    assert!(ask(from(&gateway, "127.0.0.6"), "pass.test").is_err());
    assert_eq!(inner.metric("accept_total", &[]), heard);
    // What is no hello, and one that never comes, end as without such a route.
    let mut other = gateway.client();
    other.send_anyway("GET / HTTP/1.1\r\n\r\n");
    other.closed(seconds(5)).unwrap();
    // A reload takes the route away, and brings it back.
    assert!(matches!(gateway.reload(with(&guarded(&http))), Reload::Complete(_)));
    assert!(
        ask(from(&gateway, "127.0.0.1"), "pass.test").is_err(),
        "the certificate here is for another name"
    );
    assert_eq!(ask(from(&gateway, "127.0.0.1"), "here.test").unwrap(), "web");
    assert!(matches!(gateway.reload(with(&http.clone().text(pass))), Reload::Complete(_)));
    assert_eq!(ask(from(&gateway, "127.0.0.6"), "pass.test").unwrap(), "behind");

    // A listener that forwards raw bytes, its own ones out of TLS.
    let gateway = Gateway::start(with(&raw.text(pass)));
    assert_eq!(ask(from(&gateway, "127.0.0.1"), "pass.test").unwrap(), "behind");
    let mut tls = client.over(from(&gateway, "127.0.0.1"), "here.test").unwrap();
    tls.send(b"x").unwrap();
    assert_eq!(tls.exactly(3).unwrap(), b"raw");
}

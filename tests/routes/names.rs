//! Raw connections that go by what their clients ask for in TLS.

use testkit::certificates::Authority;
use testkit::gateway::Reload;
use testkit::tls::TlsClient;
use testkit::{Backend, Client, Config, Gateway, Listener, Pool, ms, seconds};

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
